//! Server out of file descriptors: it evicts an idle connection. Only root can see how many it has
//! open.

use std::net::Ipv4Addr;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::names;
use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol, Raw};
use crate::support::{Listening, OTHER_ID, Site};

tests! {
    out_of_descriptors_an_idle_connection_is_evicted: tokio [ROOT];
}

/// Nothing ends because of its time.
fn patient() -> Value {
    json!({
        "handshakeSeconds": 3600, "headerSeconds": 3600, "bodySeconds": 3600, "graceSeconds": 3600,
    })
}

/// Another address of loopback.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

async fn raw_from(server: &impl Listening, source: Ipv4Addr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    Raw::connect_from(source, socket, server, b"http/1.1")
        .await
        .unwrap()
}

/// Makes sure that a phone that comes now gets everything it wants.
async fn assert_served(server: &impl Listening) {
    for protocol in Protocol::BOTH {
        let mut phone = Client::connect(server, protocol, Some(server.phones())).await;
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        let path = format!("/backups/{OTHER_ID}");
        let put = phone.send("PUT", &path, &[], "a phone's").await;
        assert!([201, 204].contains(&put.status), "{put:?}");
        assert_eq!(phone.ask("GET", &path, &[]).await.text(), "a phone's");
    }
}

async fn out_of_descriptors_an_idle_connection_is_evicted() {
    let mut server = ServerProcess::start(Site::new().with(json!({ "limits": patient() })));
    let mut idle = raw_from(&server, address(1)).await;
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    let pid = server.pid();
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).unwrap()
    };
    let descriptors = names(Path::new(&format!("/proc/{pid}/fd")));
    let numbers: Vec<u64> = descriptors
        .iter()
        .map(|number| number.parse().unwrap())
        .collect();
    let end = numbers.iter().max().unwrap() + 1;
    let before = limit(Some(end));
    let mut more = Vec::new();
    for _ in numbers.len() as u64..=end {
        more.push(TcpStream::connect(server.address()).await.unwrap());
    }
    server.log_through(|line| line.contains("accept failed"));

    idle.assert_ended().await;
    let mut new = server.phone(Protocol::Http2).await;
    assert_eq!(new.ask("GET", "/config", &[]).await.status, 200);
    limit(before.current);
    assert_served(&server).await;
    drop((more, phone, new, idle));
    server.has_no_new_descriptors().await;
}
