//! What passes between the server and whoever supervises it: sockets that are open already, and how it is
//! (sd_listen_fds(3), sd_notify(3)). Without a supervisor, nothing of it happens.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::server::{Socket, Sockets};

/// What `FileDescriptorName=` calls the socket of the admin listener.
const ADMIN: &str = "admin";

/// How many words may wait to be told.
const WORDS: usize = 16;
/// How long the last of them may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// What a supervisor is told.
#[derive(Debug, Clone, Copy)]
enum Word {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
}

/// The supervisor. A thread of its own tells it, as its socket may be full: then the server goes on all the same.
pub(super) struct Supervisor {
    /// Nobody listens where there is none.
    words: Option<SyncSender<Word>>,
    told: Receiver<()>,
}

impl Supervisor {
    /// The one that the environment names, if it does.
    pub(super) fn new() -> Self {
        let (end, told) = sync_channel(0);
        let words = std::env::var_os("NOTIFY_SOCKET").map(|_| {
            let (words, said) = sync_channel(WORDS);
            // Not joined: where the socket stays full, the program ends without it.
            std::thread::spawn(move || {
                said.into_iter().for_each(tell);
                drop(end);
            });
            words
        });
        Self { words, told }
    }

    /// The server answers from now on.
    pub(super) fn ready(&self) {
        self.say(Word::Ready);
    }

    /// It reads its configuration again, until it is [`Supervisor::ready`].
    pub(super) fn reloading(&self) {
        self.say(Word::Reloading);
    }

    /// It does not take new connections any more.
    pub(super) fn stopping(&self) {
        self.say(Word::Stopping);
    }

    /// Tells, as often as the supervisor wants to hear it, that work goes on. It is said from among the tasks that serve:
    /// where these are stuck, there is silence, and the supervisor starts another server.
    pub(super) async fn keep_watchdog_quiet(&self) -> Infallible {
        let Some(patience) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        let mut times = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
        loop {
            times.tick().await;
            self.say(Word::Watchdog);
        }
    }

    fn say(&self, word: Word) {
        if let Some(words) = &self.words {
            // One that does not listen misses something.
            let _ = words.try_send(word);
        }
    }
}

impl Drop for Supervisor {
    /// Lets what was said be told, for a moment.
    fn drop(&mut self) {
        drop(self.words.take());
        let _ = self.told.recv_timeout(LAST_WORDS);
    }
}

fn tell(word: Word) {
    let states = match word {
        Word::Ready => vec![NotifyState::Ready],
        Word::Stopping => vec![NotifyState::Stopping],
        Word::Watchdog => vec![NotifyState::Watchdog],
        Word::Reloading => {
            let now = NotifyState::monotonic_usec_now();
            [NotifyState::Reloading].into_iter().chain(now).collect()
        }
    };
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "the supervisor that started this server cannot be told how it is");
    }
}
