//! systemd: socket activation (sd_listen_fds(3)) and state notifications (sd_notify(3)). Both do
//! nothing without it.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::server::{Socket, Sockets};

/// `FileDescriptorName=` of the admin listener's socket.
const ADMIN: &str = "admin";

/// Notifications that may wait to be sent.
const QUEUE_LENGTH: usize = 16;
/// Time limit for the last of them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The sockets that systemd has opened, distinguished by their names.
pub(super) fn sockets() -> anyhow::Result<Sockets> {
    let mut inherited = ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Sockets::default();
    for position in 0..inherited.len() {
        let tcp = inherited.take_tcp_listener(position);
        let name = names.next().unwrap_or_default();
        let socket = match (tcp, name) {
            (Ok(Some(listener)), ADMIN) => {
                sockets.admin = Some(listener);
                continue;
            }
            (Ok(Some(listener)), _) => Socket::Tcp(listener),
            (Ok(None), _) => continue,
            (Err(_), ADMIN) => bail!("the socket named {ADMIN} must be a TCP socket"),
            // An error too where the socket is of another kind.
            (Err(_), _) => inherited
                .take_unix_listener(position)
                .with_context(|| {
                    format!("socket {position} must listen on TCP or be a Unix stream socket")
                })?
                .map(Socket::Unix)
                .with_context(|| format!("socket {position} was passed twice"))?,
        };
        sockets.public.push(socket);
    }
    Ok(sockets)
}

/// A state to send.
#[derive(Debug, Clone, Copy)]
enum State {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
}

/// The service manager. A thread of its own writes to its socket, which may be full: the server
/// never waits for it.
pub(super) struct Supervisor {
    /// `None` where there is no service manager.
    states: Option<SyncSender<State>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Supervisor {
    /// The service manager that `NOTIFY_SOCKET` names, if it is set.
    pub(super) fn new() -> Self {
        let (end, ended) = sync_channel(0);
        let states = std::env::var_os("NOTIFY_SOCKET").map(|_| {
            let (states, queue) = sync_channel(QUEUE_LENGTH);
            // Not joined: where the socket stays full, the program ends without it.
            std::thread::spawn(move || {
                queue.into_iter().for_each(notify);
                drop(end);
            });
            states
        });
        Self { states, ended }
    }

    /// The server accepts connections.
    pub(super) fn ready(&self) {
        self.send(State::Ready);
    }

    /// The server reloads its configuration, until it is [`Supervisor::ready`].
    pub(super) fn reloading(&self) {
        self.send(State::Reloading);
    }

    /// The server accepts no new connections.
    pub(super) fn stopping(&self) {
        self.send(State::Stopping);
    }

    /// Notifies the watchdog twice in each of its periods. Runs among the tasks that serve: where
    /// these are stuck, the notifications stop, and the service manager restarts the server.
    pub(super) async fn notify_watchdog(&self) -> Infallible {
        let Some(period) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            self.send(State::Watchdog);
        }
    }

    fn send(&self, state: State) {
        if let Some(states) = &self.states {
            // Dropped where the service manager does not read.
            let _ = states.try_send(state);
        }
    }
}

impl Drop for Supervisor {
    /// Waits a moment for queued notifications to be sent.
    fn drop(&mut self) {
        drop(self.states.take());
        let _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn notify(state: State) {
    let states = match state {
        State::Ready => vec![NotifyState::Ready],
        State::Stopping => vec![NotifyState::Stopping],
        State::Watchdog => vec![NotifyState::Watchdog],
        State::Reloading => {
            let now = NotifyState::monotonic_usec_now();
            [NotifyState::Reloading].into_iter().chain(now).collect()
        }
    };
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "sd_notify failed");
    }
}
