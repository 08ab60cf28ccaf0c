//! Copies that rclone makes through a proxy: they have every backup, or rclone fails, and the copy
//! of yesterday is as it was.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::proxies::Proxy;
use crate::real_clients::{files, rclone_at, run, text};
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation, upload};
use crate::support::{ID, Listening, OTHER_ID, Site, TestServer};
use threema_safe_server::store::Store;

tests! {
    a_copy_through_an_nginx_that_removes_a_prefix_is_never_emptied: tokio [NGINX, RCLONE];
    a_copy_at_another_path_than_the_public_one_is_never_emptied: tokio [NGINX, RCLONE];
    a_copy_through_an_nginx_that_keeps_the_path_has_every_backup: tokio [NGINX, RCLONE];
    a_copy_through_an_nginx_that_is_not_in_the_configuration_is_never_emptied: tokio [NGINX, RCLONE];
    a_copy_through_apache_is_never_emptied: tokio [APACHE, RCLONE];
    a_copy_through_a_haproxy_that_passes_tls_through_has_every_backup: tokio [HAPROXY, RCLONE];
    a_copy_through_a_haproxy_that_removes_a_prefix_is_never_emptied: tokio [HAPROXY, RCLONE];
    a_listing_that_breaks_off_behind_nginx_empties_no_copy: tokio [NGINX, RCLONE];
}

/// What an operator copied before.
const BEFORE: [(&str, &[u8]); 2] = [(ID, b"yesterday"), (OTHER_ID, b"other")];
/// What the server has: one backup is newer, and one is new.
const NOW: [(&str, &[u8]); 3] = [
    (ID, b"the one of today"),
    (NEW_ID, b"new"),
    (OTHER_ID, b"other"),
];
const NEW_ID: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn owned(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let owned = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), bytes.to_vec());
    files.iter().map(owned).collect()
}

async fn server(changes: Value) -> TestServer {
    let server = Site::new().with(changes).start().await;
    for (id, bytes) in NOW {
        fs::write(server.site().backup_file(id), bytes).unwrap();
    }
    server
}

/// A server behind a proxy that ends TLS and connects to its Unix socket.
async fn behind_a_socket(more: Value) -> TestServer {
    let mut changes = json!({ "tls": "off", "listen": ["127.0.0.1:0", "unix:safe.sock"] });
    let more = more.as_object().unwrap().clone();
    changes.as_object_mut().unwrap().extend(more);
    server(changes).await
}

/// The prefix removed, as documents of many servers recommend it.
fn removing(host: String) -> String {
    let host = host.replace("location / {", "location /safe/ {");
    host.replace("safe.sock;", "safe.sock:/;")
}

/// Without a header that names the client.
fn silent(host: String) -> String {
    let lines = host
        .lines()
        .filter(|line| !line.contains("proxy_set_header"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Copies all backups into a folder that has those of yesterday; `None` if rclone fails.
async fn synced(proxy: &Proxy<'_>, path: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let server = proxy.server();
    let copy = tempfile::tempdir().unwrap();
    for (id, bytes) in BEFORE {
        fs::write(copy.path().join(id), bytes).unwrap();
    }
    let url = format!("https://localhost:{}{path}", proxy.address().port());
    let arguments = ["sync", "safe:backups", copy.path().to_str().unwrap()];
    let operator = ("operator", server.operator_secret());
    let output = run(rclone_at(server, &url, operator, &arguments)).await;
    if output.status.success() {
        return Some(files(copy.path()));
    }
    let said = text(&output.stderr);
    assert_eq!(files(copy.path()), owned(&BEFORE), "{path}: {said}");
    None
}

async fn assert_copied(proxy: &Proxy<'_>, path: &str) {
    assert_eq!(synced(proxy, path).await, Some(owned(&NOW)), "{path}");
}

async fn assert_refused(proxy: &Proxy<'_>, path: &str) {
    assert_eq!(synced(proxy, path).await, None, "{path}");
}

async fn a_copy_through_an_nginx_that_removes_a_prefix_is_never_emptied() {
    let http_1_1 = |host: String| host.replace("proxy_pass", "proxy_http_version 1.1; proxy_pass");
    let unknown = behind_a_socket(json!({})).await;
    for change in [removing as fn(String) -> String, |host| {
        silent(removing(host))
    }] {
        assert_refused(&Proxy::nginx_with(&unknown, change).await, "/safe/").await;
        let proxy = Proxy::nginx_with(&unknown, |host| http_1_1(change(host))).await;
        assert_refused(&proxy, "/safe/").await;
    }
    for url in [
        "https://safe.example.org/safe",
        "https://safe.example.org/%73afe/",
    ] {
        let known = behind_a_socket(json!({ "publicUrl": url })).await;
        let proxy = Proxy::nginx_with(&known, removing).await;
        for path in ["/safe", "/safe/", "/s%61fe/"] {
            assert_copied(&proxy, path).await;
        }
        let proxy = Proxy::nginx_with(&known, |host| silent(removing(host))).await;
        assert_copied(&proxy, "/safe").await;
        // Nothing shows that a proxy forwards this.
        let proxy = Proxy::nginx_with(&known, |host| http_1_1(silent(removing(host)))).await;
        assert_refused(&proxy, "/safe").await;
    }
}

async fn a_copy_at_another_path_than_the_public_one_is_never_emptied() {
    // The public URL lacks the prefix that the proxy removes.
    let root = behind_a_socket(json!({ "publicUrl": "https://safe.example.org" })).await;
    assert_refused(&Proxy::nginx_with(&root, removing).await, "/safe/").await;
    let silent = |host: String| silent(removing(host));
    assert_refused(&Proxy::nginx_with(&root, silent).await, "/safe").await;
    // The proxy serves it under a second path, or replaces none.
    let safe = behind_a_socket(json!({ "publicUrl": "https://safe.example.org/safe" })).await;
    let elsewhere = |host: String| removing(host).replace("/safe/ {", "/else/ {");
    assert_refused(&Proxy::nginx_with(&safe, elsewhere).await, "/else/").await;
    assert_refused(&Proxy::nginx(&safe).await, "/").await;
    // An unknown proxy that connects with TLS and adds no header.
    let server = server(json!({})).await;
    let upstream = format!(
        "proxy_http_version 1.1; proxy_pass https://{}/;",
        server.address()
    );
    let unknown = |host: String| {
        let socket = "proxy_pass http://unix:/run/threema-safe-server/safe.sock:/;";
        silent(host).replace(socket, &upstream)
    };
    assert_refused(&Proxy::nginx_with(&server, unknown).await, "/safe/").await;
}

async fn a_copy_through_an_nginx_that_keeps_the_path_has_every_backup() {
    let root = behind_a_socket(json!({ "publicUrl": "https://safe.example.org" })).await;
    let proxy = Proxy::nginx(&root).await;
    assert_copied(&proxy, "/").await;
    // At another path than the public one there is nothing.
    assert_refused(&proxy, "/safe/").await;

    let keeping = |host: String| host.replace("location / {", "location /safe/ {");
    let safe = json!({ "basePath": "/safe", "publicUrl": "https://safe.example.org/safe" });
    let safe = behind_a_socket(safe).await;
    let proxy = Proxy::nginx_with(&safe, keeping).await;
    for path in ["/safe", "/safe/"] {
        assert_copied(&proxy, path).await;
    }
    let unknown = behind_a_socket(json!({ "basePath": "/safe" })).await;
    let proxy = Proxy::nginx_with(&unknown, keeping).await;
    assert_refused(&proxy, "/safe").await;
}

async fn a_copy_through_an_nginx_that_is_not_in_the_configuration_is_never_emptied() {
    // TLS to the server too, from an address that is no trusted proxy.
    let server = server(json!({})).await;
    let upstream = format!("proxy_pass https://{}/;", server.address());
    let change = |host: String| {
        let socket = "proxy_pass http://unix:/run/threema-safe-server/safe.sock:/;";
        removing(host).replace(socket, &upstream)
    };
    assert_refused(&Proxy::nginx_with(&server, change).await, "/safe/").await;
    let proxy = Proxy::nginx_with(&server, |host| silent(change(host))).await;
    assert_refused(&proxy, "/safe/").await;
}

async fn a_copy_through_apache_is_never_emptied() {
    let removing = |host: String| host.replace("ProxyPass / ", "ProxyPass /safe/ ");
    let trusting = json!({ "tls": "off", "trustedProxies": ["127.0.0.1"] });
    let with = |url: &str| {
        let mut changes = trusting.clone();
        changes["publicUrl"] = json!(url);
        changes
    };
    let unknown = server(trusting.clone()).await;
    let proxy = Proxy::apache_with(&unknown, removing).await;
    assert_refused(&proxy, "/safe/").await;
    let known = server(with("https://safe.example.org/safe")).await;
    let proxy = Proxy::apache_with(&known, removing).await;
    assert_copied(&proxy, "/safe/").await;
    let root = server(with("https://safe.example.org")).await;
    assert_copied(&Proxy::apache(&root).await, "/").await;
}

async fn a_copy_through_a_haproxy_that_passes_tls_through_has_every_backup() {
    let changes = json!({ "trustedProxies": ["127.0.0.1/32"], "proxyProtocol": true });
    let server = server(changes).await;
    for header in ["send-proxy", "send-proxy-v2"] {
        let proxy = Proxy::haproxy(&server, header).await;
        assert_copied(&proxy, "/").await;
    }
}

async fn a_copy_through_a_haproxy_that_removes_a_prefix_is_never_emptied() {
    for (url, more, is_copied) in [
        (None, "", false),
        (None, "option forwardfor", false),
        (Some("https://safe.example.org/safe"), "", false),
        (
            Some("https://safe.example.org/safe"),
            "option forwardfor",
            true,
        ),
    ] {
        let mut changes = json!({ "tls": "off", "trustedProxies": ["127.0.0.1"] });
        if let Some(url) = url {
            changes["publicUrl"] = json!(url);
        }
        let server = server(changes).await;
        let certificates = server.site().folder().join("certs");
        let read = |name| fs::read(certificates.join(name)).unwrap();
        let both = [read("fullchain.pem"), read("privkey.pem")].concat();
        fs::write(certificates.join("both.pem"), both).unwrap();
        let address = server.address();
        let configure = |port: u16, folder: &Path| {
            format!(
                "defaults\n mode http\n timeout connect 10s\n timeout client 90s\n timeout server 90s\n\
                 listen safe\n bind 127.0.0.1:{port} ssl crt {}/certs/both.pem\n {more}\n \
                 http-request replace-path /safe(/.*)? \\1\n server safe {address}\n",
                folder.display()
            )
        };
        let proxy = Proxy::start(&server, "haproxy", &["-q", "-f"], configure).await;
        if is_copied {
            assert_copied(&proxy, "/safe/").await;
        } else {
            assert_refused(&proxy, "/safe/").await;
        }
    }
}

/// nginx asks with HTTP/1.0, where the end of the connection is the end of a good answer.
async fn a_listing_that_breaks_off_behind_nginx_empties_no_copy() {
    for nth in 1..=4 {
        for does_panic in [false, true] {
            let store = FaultyStore::over(MemoryStore::default());
            for (id, bytes) in NOW {
                let put = store.put(id.parse().unwrap(), upload(bytes));
                put.await.unwrap();
            }
            let site = Site::new().with(json!({
                "tls": "off", "listen": ["127.0.0.1:0", "unix:safe.sock"],
                "publicUrl": "https://safe.example.org",
            }));
            let server = site.start_over(store.clone()).await;
            server.settled().await;
            let proxy = Proxy::nginx(&server).await;
            assert_copied(&proxy, "/").await;

            if does_panic {
                store.panic_at(nth, Operation::List);
            } else {
                store.fail_from(nth, Operation::List, Fault::Io);
            }
            assert_refused(&proxy, "/").await;
        }
    }
}
