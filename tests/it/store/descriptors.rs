//! Server out of file descriptors: clients are told, the old backup stays, and there is full
//! service afterwards.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::process::ServerProcess;
use crate::support::service::{
    NEW, OLD, assert_full_service, assert_old, assert_stored, both_paths,
};
use crate::support::wire::Protocol;
use crate::support::{Listening, Site, backup_path};

#[tokio::test]
async fn a_server_out_of_descriptors_loses_nothing_and_recovers() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    assert_stored(&phone.send("PUT", &backup_path(), &[], &OLD[..]).await);
    let pid = server.pid();
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap()
    };
    // Every new descriptor would be above standard error's.
    let before = limit(Some(3));

    for path in both_paths() {
        let refused = phone.send("PUT", &path, &[], &NEW[..]).await;
        refused.assert_refused(500);
    }
    // A phone must not take its backup for lost.
    for method in ["GET", "DELETE"] {
        let refused = phone.ask(method, &backup_path(), &[]).await;
        refused.assert_refused(500);
    }
    let waiting = tokio::net::TcpStream::connect(server.address()).await;
    let waiting = waiting.unwrap();
    server.log_through(|line| line.contains("accept failed"));

    limit(before.current);
    // The idle connection may have been evicted.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_old(&server, &mut phone).await;
    assert_full_service(&server, &mut phone).await;
    drop((phone, waiting));
    server.has_no_new_descriptors().await;
}
