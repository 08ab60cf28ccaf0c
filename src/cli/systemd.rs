//! What passes between the server and whoever supervises it: sockets that are open already, and how it is
//! (sd_listen_fds(3), sd_notify(3)). Without a supervisor, nothing of it happens.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::server::{Socket, Sockets};

/// What `FileDescriptorName=` calls the socket of the admin listener.
const ADMIN: &str = "admin";

/// The sockets that were handed over, told apart by their names.
pub(super) fn sockets() -> anyhow::Result<Sockets> {
    let mut given = ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Sockets::default();
    for position in 0..given.len() {
        let tcp = given.take_tcp_listener(position);
        let name = names.next().unwrap_or_default();
        let socket = match (tcp, name) {
            (Ok(Some(listener)), ADMIN) => {
                sockets.admin = Some(listener);
                continue;
            }
            (Ok(Some(listener)), _) => Socket::Tcp(listener),
            (Ok(None), _) => continue,
            (Err(_), ADMIN) => bail!("the socket called {ADMIN} must be of TCP"),
            // It says so too where it is of another kind.
            (Err(_), _) => given
                .take_unix_listener(position)
                .with_context(|| format!("socket {position} listens on neither TCP nor Unix"))?
                .map(Socket::Unix)
                .context("a socket was handed over twice")?,
        };
        sockets.public.push(socket);
    }
    Ok(sockets)
}

/// It answers from now on.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration again, until it is [`ready`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It does not take new connections any more.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the supervisor, as often as it wants to hear it, that work goes on. It is told from among the tasks that serve:
/// where these are stuck, it falls silent, and the supervisor starts another server.
pub(super) async fn keep_watchdog_quiet() -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut times = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
    loop {
        times.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the supervisor that started this server cannot be told how it is");
    }
}
