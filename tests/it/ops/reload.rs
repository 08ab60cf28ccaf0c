//! Reload of the configuration under a running server.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::commands::status as command;
use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol};
use crate::support::{Listening, Site, ask_admin, backup_path, write};

/// Changes keys of the configuration on disk, without a reload.
fn change(server: &ServerProcess, changes: &Value) {
    let file = server.site().config_file();
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    merge(&mut config, changes);
    // As an editor does it: the new one takes the place of the old one.
    let beside = file.with_extension("new");
    write(&beside, config.to_string());
    std::fs::rename(beside, file).unwrap();
}

fn merge(into: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().unwrap() {
        match (&mut into[key], value) {
            (old @ Value::Object(_), Value::Object(_)) => merge(old, value),
            (old, new) => *old = new.clone(),
        }
    }
}

/// Changes keys, tells the server, and waits until it has read them; the lines of the log
/// meanwhile.
fn reload(server: &mut ServerProcess, changes: &Value) -> Vec<String> {
    change(server, changes);
    server.signal(Signal::HUP);
    server.log_through(|line| line.contains("configuration reload"))
}

async fn config(phone: &mut Client) -> Value {
    let answer = phone.ask("GET", "/config", &[]).await;
    serde_json::from_slice(&answer.body).unwrap()
}

async fn metrics(server: &ServerProcess) -> String {
    ask_admin(server.admin_address(), "/metrics").await
}

#[tokio::test]
async fn what_can_change_changes_also_on_a_connection_that_is_open() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http2).await;
    let mut stranger = Client::connect(&server, Protocol::Http1, None).await;
    assert_eq!(config(&mut phone).await["retentionDays"], 180);
    assert_eq!(
        phone
            .send("PUT", &backup_path(), &[], vec![7; 20_000])
            .await
            .status,
        201
    );
    assert_eq!(stranger.ask("GET", &backup_path(), &[]).await.status, 401);

    let changes = json!({
        "maxBackupBytes": 10_000, "retentionDays": 90, "anonymousRestore": true,
        "publicUrl": "https://safe.example.org/", "log": { "level": "error" },
    });
    reload(&mut server, &changes);

    let expected = json!({ "maxBackupBytes": 10_000, "retentionDays": 90 });
    assert_eq!(config(&mut phone).await, expected);
    assert_eq!(
        phone
            .send("PUT", &backup_path(), &[], vec![7; 20_000])
            .await
            .status,
        413
    );
    assert_eq!(stranger.ask("GET", &backup_path(), &[]).await.status, 200);
    let page = stranger.ask("GET", "/", &[]).await;
    assert!(String::from_utf8_lossy(&page.body).contains("https://safe.example.org/"));
    assert!(
        metrics(&server)
            .await
            .contains("safe_config_reloads_total{outcome=\"done\"} 1\n")
    );
    // From now on it says nothing but what is wrong.
    let mut refused = || {
        change(&server, &json!({ "retentionDays": 0 }));
        server.signal(Signal::HUP);
        server.log_through(|line| line.contains("reload failed"))
    };
    refused();
    let put = phone.send("PUT", &backup_path(), &[], "small").await;
    assert_eq!(put.status, 204);
    let said = refused();
    assert_eq!(said.len(), 1, "{said:#?}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing_and_is_told() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    for (changes, problem) in [
        (
            json!({ "retentionDays": 0 }),
            "retentionDays: must be an integer",
        ),
        (
            json!({ "retentionDays": 90, "retentionDay": 1 }),
            "retentionDay: unknown key",
        ),
    ] {
        let log = reload(&mut server, &changes);

        let last = log.last().unwrap();
        assert!(last.contains("ERROR") && last.contains(problem), "{last}");
        assert_eq!(config(&mut phone).await["retentionDays"], 180);
        let status = ask_admin(server.admin_address(), "/status.json").await;
        assert!(
            status.contains("the configuration cannot be used"),
            "{status}"
        );
        assert!(status.contains(problem), "{status}");
    }
    assert!(
        metrics(&server)
            .await
            .contains("safe_config_reloads_total{outcome=\"failed\"} 2\n")
    );
    std::fs::write(server.site().config_file(), "{").unwrap();
    server.signal(Signal::HUP);
    server.log_through(|line| line.contains("reload failed"));

    std::fs::write(server.site().config_file(), "{}").unwrap();
    // Of this one, nearly everything waits for a restart.
    server.signal(Signal::HUP);
    let log = server.log_through(|line| line.contains("changes need a restart"));
    assert!(log.last().unwrap().contains("listen"), "{log:#?}");
    assert_eq!(config(&mut phone).await["retentionDays"], 180);
}

#[tokio::test]
async fn what_cannot_change_waits_for_a_restart_and_says_so() {
    let mut server = ServerProcess::start(Site::new());
    let changes =
        json!({ "listen": ["127.0.0.1:1"], "log": { "format": "json" }, "retentionDays": 90 });
    change(&server, &changes);
    server.signal(Signal::HUP);
    let log = server.log_through(|line| line.contains("changes need a restart"));
    let last = log.last().unwrap();
    assert!(
        last.contains("WARN") && last.contains("listen, log.format"),
        "{last}"
    );
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(config(&mut phone).await["retentionDays"], 90);
    let shown = command(server.site(), server.admin_address(), &[]);
    let alert =
        "alerts      warning: configuration changes wait for a restart: listen, log.format\n";
    assert!(shown.out.contains(alert), "{shown:?}");

    reload(
        &mut server,
        &json!({ "listen": ["127.0.0.1:0"], "log": { "format": "text" } }),
    );
    let shown = command(server.site(), server.admin_address(), &[]);
    assert!(!shown.out.contains("wait for a restart"), "{shown:?}");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_read_without_being_told() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;

    change(&server, &json!({ "retentionDays": 90 }));
    server.log_through(|line| line.contains("configuration reloaded"));

    assert_eq!(config(&mut phone).await["retentionDays"], 90);
}

#[tokio::test]
async fn sighup_reloads_accounts_certificate_and_configuration() {
    let mut server = ServerProcess::start(Site::new());
    server.signal(Signal::HUP);
    let log = server.log_through(|line| line.contains("configuration reloaded"));
    let said = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("accounts reloaded accounts=3"), 1, "{log:#?}");
    assert_eq!(said("certificate reloaded"), 1, "{log:#?}");
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn what_goes_with_the_listeners_waits_with_them() {
    let mut server = ServerProcess::start(Site::new());
    change(
        &server,
        &json!({ "trustedProxies": ["127.0.0.1"], "proxyProtocol": true }),
    );
    server.signal(Signal::HUP);
    let log = server.log_through(|line| line.contains("changes need a restart"));
    assert!(
        log.last()
            .unwrap()
            .contains("trustedProxies, proxyProtocol"),
        "{log:#?}"
    );
    // A client that could be a proxy is read as before.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn a_configuration_that_vanishes_leaves_the_one_before_in_force() {
    let site = Site::new().with(json!({ "retentionDays": 90 }));
    let mut server = ServerProcess::start(site);
    std::fs::remove_file(server.site().config_file()).unwrap();
    server.signal(Signal::HUP);
    let log = server.log_through(|line| line.contains("reload failed"));
    assert!(
        log.last().unwrap().contains("its file is missing"),
        "{log:#?}"
    );
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(config(&mut phone).await["retentionDays"], 90);
}

#[tokio::test]
async fn a_configuration_that_is_put_back_is_no_problem_any_more() {
    let site = Site::new().with(json!({ "retentionDays": 90 }));
    let mut server = ServerProcess::start(site);
    let file = server.site().config_file();
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    server.log_through(|line| line.contains("reload failed"));
    let status = ask_admin(server.admin_address(), "/status.json").await;
    assert!(status.contains("its file is missing"), "{status}");

    std::fs::rename(&aside, &file).unwrap();
    server.log_through(|line| line.contains("configuration reloaded"));

    let status = ask_admin(server.admin_address(), "/status.json").await;
    assert!(!status.contains("its file is missing"), "{status}");
}

#[tokio::test]
async fn a_reload_evicts_no_client_that_could_not_connect_again() {
    let site = Site::new().with(json!({ "allowAnonymous": true }));
    std::fs::remove_file(site.accounts_file()).unwrap();
    let mut server = ServerProcess::start(site);
    let log = reload(&mut server, &json!({ "allowAnonymous": false }));
    let last = log.last().unwrap();
    assert!(
        last.contains("allowAnonymous: must be true while there are no accounts"),
        "{last}"
    );
    let mut anonymous = Client::connect(&server, Protocol::Http1, None).await;
    assert_eq!(anonymous.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn guesses_are_counted_from_one_configuration_to_the_next() {
    let limits = json!({ "limits": { "unknownBackupsPerAddressAndHour": 3 } });
    let mut server = ServerProcess::start(Site::new().with(limits));
    let mut phone = server.phone(Protocol::Http1).await;
    let mut statuses = Vec::new();
    for number in 0..4 {
        let path = format!("/backups/{number:064x}");
        statuses.push(phone.ask("GET", &path, &[]).await.status);
        // Another budget changes; this one goes on.
        let limits = json!({ "wrongPasswordsPerAccountAndHour": 100 + number });
        reload(
            &mut server,
            &json!({ "retentionDays": 100 + number, "limits": limits }),
        );
    }
    assert_eq!(statuses, [404, 404, 404, 429]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_fail_no_request() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http2).await;
    let (over, mut is_over) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut served = 0;
        while is_over.try_recv().is_err() {
            let put = phone
                .send("PUT", &backup_path(), &[], vec![7; 20_000])
                .await;
            assert!([201, 204].contains(&put.status), "{put:?}");
            served += 1;
        }
        served
    });
    for number in 0..50 {
        tokio::task::block_in_place(|| {
            let limits =
                json!({ "requests": 100 + number, "uploadMemoryBytes": 10_000_000 + number });
            reload(
                &mut server,
                &json!({ "retentionDays": 100 + number, "limits": limits }),
            );
        });
    }
    over.send(()).unwrap();
    let served: u32 = load.await.unwrap();
    assert!(served > 0);
}
