//! Servers with automatic certificates: their configuration, and the orders in their status.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::wire::{Protocol, Raw, soon};
use crate::support::{Site, TestServer, write_certificates};

pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// A site that asks an authority, which is reached over TLS at this port.
pub(crate) fn site(port: u16) -> Site {
    let site = Site::new();
    write_certificates(&site.folder().join("authority"));
    site.with(json!({ "tls": {
        "certificateFile": null,
        "privateKeyFile": null,
        "acme": {
            "domains": ["localhost"],
            "contact": "operator@safe.example",
            "directoryUrl": format!("https://localhost:{port}/dir"),
            "authorityFile": "authority/ca.pem",
        },
    }}))
}

/// A port that is free now.
pub(crate) async fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap().port()
}

/// How the server says its certificate is.
pub(crate) async fn told(server: &TestServer) -> Value {
    let answer = server.admin("/status.json").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: Value = serde_json::from_str(body).unwrap();
    status["certificate"].clone()
}

/// Waits until so many orders have ended.
pub(crate) async fn ended(server: &TestServer, issued: u64, failed: u64) -> Value {
    let both = async {
        loop {
            let told = told(server).await;
            let acme = &told["acme"];
            if acme["issued"] == issued && acme["failed"] == failed && acme["isOrdering"] == false {
                return told;
            }
            assert!(
                acme["issued"].as_u64() <= Some(issued) && acme["failed"].as_u64() <= Some(failed),
                "{told}"
            );
            tokio::task::yield_now().await;
        }
    };
    soon(both).await
}

pub(crate) async fn is_served(server: &TestServer) -> bool {
    let mut phone = server.phone(Protocol::Http2).await;
    phone.ask("GET", "/config", &[]).await.status == 200
}

pub(crate) async fn shakes_hands(server: &TestServer, alpn: &[&[u8]]) -> bool {
    Raw::connect(server, alpn, rustls::ALL_VERSIONS)
        .await
        .is_ok()
}

/// How it stands once the server has looked at its clock.
pub(crate) async fn looked(server: &TestServer) -> Value {
    soon(async {
        loop {
            let told = told(server).await;
            if told["acme"]["nextOrder"] != 0 {
                return told;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

pub(crate) fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}
