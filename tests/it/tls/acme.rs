//! Automatic certificates (ACME) without an authority: what an earlier run left, when the next
//! order is due, and `check`.

use std::fs;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use serde_json::{Value, json};
use threema_safe_server::config::Config;
use threema_safe_server::server::{self, Severity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::acme::{ALPN, ended, free_port, is_served, looked, shakes_hands, site, unix};
use crate::support::wire::Raw;
use crate::support::{Site, now, set_mode, write};

const DAY: u64 = 24 * 60 * 60;

/// Puts a certificate where the server keeps the one that it was issued.
fn place_certificate(site: &Site, domain: &str) {
    let text = fs::read_to_string(site.config_file()).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let from = config["tls"]["acme"]["directoryUrl"].as_str().unwrap();
    let made = server::development_certificate(&[domain.to_owned()], now()).unwrap();
    let (key, chain) = (made.private_key_pem, made.chain_pem);
    let folder = site.folder().join("acme");
    fs::create_dir_all(&folder).unwrap();
    set_mode(&folder, 0o700);
    let file = folder.join("certificate.pem");
    write(&file, format!("From: {from}\nObtained: 1\n\n{key}{chain}"));
    set_mode(&file, 0o600);
    write(&site.folder().join("certs/ca.pem"), made.authority_pem);
}

#[tokio::test]
async fn a_certificate_of_an_earlier_run_is_in_force_at_once_and_only_authorities_get_another() {
    let site = site(free_port().await);
    place_certificate(&site, "localhost");
    let server = site.start().await;

    assert!(is_served(&server).await);
    let acme = looked(&server).await["acme"].clone();
    assert!(
        acme["nextOrder"].as_u64().unwrap() > unix(now()) + 200 * DAY,
        "{acme}"
    );
    assert!(!shakes_hands(&server, &[ALPN]).await);
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let raw = Raw::connect(&server, &[ALPN, protocol], rustls::ALL_VERSIONS).await;
        assert_eq!(raw.unwrap().alpn().as_deref(), Some(protocol));
    }
    // A client that offers that protocol and an unknown one has a connection that ends.
    let raw = Raw::connect(&server, &[b"x", ALPN], rustls::ALL_VERSIONS).await;
    let mut raw = raw.unwrap();
    assert_eq!(raw.alpn().as_deref(), Some(ALPN));
    let request = "GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    drop(raw.try_write(request).await);
    raw.assert_ended().await;
}

#[tokio::test]
async fn the_retry_after_of_an_authority_is_respected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = site(listener.local_addr().unwrap().port());
    let folder = site.folder().join("authority");
    let key = server::load_tls(&threema_safe_server::config::TlsFiles {
        certificate: folder.join("fullchain.pem"),
        private_key: folder.join("privkey.pem"),
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.unwrap())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let authority = tokio::spawn(async move {
        let mut asked = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            asked += 1;
            assert_eq!(asked, 1, "it is asked again");
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 172800\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });

    let server = site.start().await;
    let acme = ended(&server, 0, 1).await["acme"].clone();

    let last = acme["failure"]["last"].as_u64().unwrap();
    assert_eq!(acme["nextOrder"], last + 2 * DAY, "{acme}");
    // Also by the next run.
    let server = server.stop().await.start().await;
    let acme = looked(&server).await["acme"].clone();
    assert_eq!(acme["nextOrder"], last + 2 * DAY, "{acme}");
    assert!(!authority.is_finished());
    authority.abort();
}

#[tokio::test]
async fn check_looks_at_what_an_authority_is_to_be_asked_for() {
    let site = site(free_port().await).with(json!({ "publicUrl": "https://localhost/" }));
    let found = |site: &Site| {
        let text = fs::read(site.config_file()).unwrap();
        let config = Config::from_json(&text, &site.config_file()).unwrap();
        let about = server::check(&config, now()).into_iter();
        let lines = about.filter(|finding| finding.key.starts_with("tls"));
        lines
            .map(|finding| {
                (
                    finding.alert.severity,
                    format!("{}: {}", finding.key, finding.alert.text),
                )
            })
            .collect::<Vec<_>>()
    };
    let has = |found: &[(Severity, String)], severity, start: &str| {
        let is_it = |(its, text): &(Severity, String)| *its == severity && text.starts_with(start);
        assert!(found.iter().any(is_it), "{start} is not in {found:#?}");
    };

    let fine = found(&site);
    has(
        &fine,
        Severity::Good,
        "tls.acme.domains: include the host of publicUrl",
    );
    has(&fine, Severity::Good, "tls.acme.authorityFile: is trusted");
    has(&fine, Severity::Good, "tls.acme.directory: is writable");
    has(
        &fine,
        Severity::Warning,
        "tls.acme: there is no certificate yet",
    );
    assert!(
        fine.iter()
            .all(|(severity, _)| *severity != Severity::Critical)
    );

    place_certificate(&site, "other.example");
    let other = found(&site);
    has(
        &other,
        Severity::Warning,
        "tls.acme: the stored certificate is for other",
    );
    has(
        &other,
        Severity::Good,
        "tls: certificate and private key are a pair",
    );
    place_certificate(&site, "localhost");
    set_mode(&site.folder().join("acme/certificate.pem"), 0o644);
    has(&found(&site), Severity::Critical, "tls.acme.directory: ");
    set_mode(&site.folder().join("acme/certificate.pem"), 0o600);
    set_mode(&site.folder().join("acme"), 0o755);
    let open = found(&site);
    has(&open, Severity::Warning, "tls.acme.directory: ");
    assert!(!format!("{open:?}").contains("is for other"), "{open:#?}");

    write(&site.folder().join("authority/ca.pem"), "nothing");
    let site = site.with(json!({ "publicUrl": "https://other.example/" }));
    let bad = found(&site);
    has(
        &bad,
        Severity::Critical,
        "tls.acme.domains: do not include the host of publicUrl",
    );
    has(&bad, Severity::Critical, "tls.acme.authorityFile: ");
    let Err(server::StartError::Configuration(problems)) = site.bind().await else {
        panic!("it starts");
    };
    assert_eq!(problems[0].place, "tls.acme");
}
