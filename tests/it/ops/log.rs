//! Log of a server process: formats, and the lines at its start.

use std::time::Duration;

use serde_json::{Value, json};
use threema_safe_server::server::development_certificate;

use crate::support::process::ServerProcess;
use crate::support::wire::Protocol;
use crate::support::{Listening, Site, now, set_mode, write};

#[tokio::test]
async fn for_the_journal_each_line_begins_with_its_severity_and_has_no_time() {
    let site = Site::new().with(json!({ "log": { "format": "journald" } }));
    let accounts = site.accounts_file();
    let mut server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    write(&accounts, "no JSON");
    set_mode(&accounts, 0o600);
    server.log_through(|line| line.contains("accounts reload failed"));
    phone.send("GET", "/config", &[], "").await;
    server.log_through(|line| line.contains("request"));

    let lines = server.log_seen();

    for (priority, level, text) in [
        (4, "WARN", "new data directory: it contains no backups "),
        (6, "INFO", "listening version="),
        (3, "ERROR", "accounts reload failed; "),
        (6, "INFO", "request method=\"GET\" "),
    ] {
        let begin = format!("<{priority}>{level:>5} {text}");
        let found = lines.iter().any(|line| line.starts_with(&begin));
        assert!(found, "{begin}: {lines:#?}");
    }
    assert!(lines.iter().all(|line| line.starts_with('<')), "{lines:#?}");
}

#[tokio::test]
async fn the_start_logs_addresses_storage_and_retention() {
    let behind_a_proxy = json!({
        "tls": "off",
        "trustedProxies": ["127.0.0.1", "10.0.0.0/8"],
        "trashDays": 3,
        "log": { "format": "json" },
    });
    for (changes, tls, proxies, trash) in [
        (json!({ "log": { "format": "json" } }), "files", 0, 7),
        (behind_a_proxy, "off", 2, 3),
    ] {
        let server = ServerProcess::start(Site::new().with(changes));

        let line = server.log_seen().iter().find(|it| it.contains("listening"));

        let line: Value = serde_json::from_str(line.unwrap()).unwrap();
        let data = server.site().data();
        for (field, expected) in [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("admin", json!(server.admin_address().to_string())),
            ("tls", json!(tls)),
            ("trusted_proxies", json!(proxies)),
            ("storage", json!(data)),
            ("retention_days", json!(180)),
            ("retention_margin_days", json!(7)),
            ("trash_days", json!(trash)),
            ("max_backup_bytes", json!(524_288)),
        ] {
            assert_eq!(line[field], expected, "{field}: {line}");
        }
    }
}

#[tokio::test]
async fn the_start_logs_its_warnings() {
    let site = Site::new();
    let nearly_a_year_ago = now() - Duration::from_secs(360 * 24 * 60 * 60);
    let made = development_certificate(&["localhost".into()], nearly_a_year_ago).unwrap();
    let certificates = site.folder().join("certs");
    write(&certificates.join("fullchain.pem"), made.chain_pem);
    write(&certificates.join("privkey.pem"), made.private_key_pem);

    let server = ServerProcess::start(site);

    let said = server
        .log_seen()
        .iter()
        .any(|line| line.contains("WARN startup warning problem=\"the certificate "));
    assert!(said, "{:#?}", server.log_seen());
}
