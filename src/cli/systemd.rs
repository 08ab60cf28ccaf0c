//! systemd: socket activation (sd_listen_fds(3)) and state notifications (sd_notify(3)). Both do
//! nothing if the process was not started by systemd.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::server::{Socket, Sockets};

/// `FileDescriptorName=` of the admin listener's socket.
const ADMIN: &str = "admin";

/// Capacity of the queue of notifications.
const QUEUE_LENGTH: usize = 16;
/// Time limit for sending the queued notifications at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes the sockets that systemd has opened; their names distinguish them.
///
/// # Errors
/// When a socket is of another kind than expected.
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
            // This also fails if the socket is of another kind.
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

/// A state of the server.
#[derive(Debug, Clone, Copy)]
enum State {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
}

/// Client of the service manager. A separate thread writes to its socket, so that the server never
/// waits if the socket is full.
pub(super) struct Supervisor {
    /// `None` without a service manager.
    states: Option<SyncSender<State>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Supervisor {
    /// Starts the thread, if `NOTIFY_SOCKET` names a service manager.
    pub(super) fn new() -> Self {
        let (end, ended) = sync_channel(0);
        let states = std::env::var_os("NOTIFY_SOCKET").map(|_| {
            let (states, queue) = sync_channel(QUEUE_LENGTH);
            // Not joined: if the socket stays full, the process ends without it.
            std::thread::spawn(move || {
                queue.into_iter().for_each(notify);
                drop(end);
            });
            states
        });
        Self { states, ended }
    }

    /// Notifies that the server accepts connections.
    pub(super) fn ready(&self) {
        self.send(State::Ready);
    }

    /// Notifies that the server reloads its configuration, until [`Supervisor::ready`] is called.
    pub(super) fn reloading(&self) {
        self.send(State::Reloading);
    }

    /// Notifies that the server accepts no new connections.
    pub(super) fn stopping(&self) {
        self.send(State::Stopping);
    }

    /// Notifies the watchdog twice in each of its periods. Runs on the same threads as requests: if
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
            // Dropped if the queue is full, because the service manager does not read.
            let _ = states.try_send(state);
        }
    }
}

impl Drop for Supervisor {
    /// Waits up to [`FLUSH_TIMEOUT`] for queued notifications to be sent.
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
