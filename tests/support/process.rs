//! Processes of the built program, for tests that look at a server from outside (its log, its
//! descriptors, the locks that it waits for) or send it signals.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use rustix::process::{Pid, Signal, kill_process};

use super::commands::PROGRAM;
use super::wire::{Client, FAIL_SAFE, Protocol, Raw, soon};
use super::{Listening, Site};

/// A process whose standard error is read line by line; killed when dropped.
pub(crate) struct LoggingProcess {
    child: Child,
    log: Receiver<String>,
    /// All lines of the log that were waited for.
    seen: Vec<String>,
}

impl LoggingProcess {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        std::thread::spawn(move || {
            for line in errors.lines() {
                // The receiver is gone when the test has ended.
                if lines.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            log,
            seen: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the line that a server writes when it listens; its first address, which a Unix
    /// socket does not have, and that of its admin listener.
    pub(crate) fn listening(&mut self) -> (Option<SocketAddr>, SocketAddr) {
        self.log_through(|line| line.contains("listening"));
        let listening = self.seen.last().unwrap();
        // In JSON it is `"listen":"[127.0.0.1:1]","admin":"127.0.0.1:2",`.
        let listening = listening.replace('"', "");
        let listening = listening
            .replace("listen:[", "listen=[")
            .replace(",admin:", " admin=");
        let (_, rest) = listening.split_once("listen=[").unwrap();
        let (addresses, rest) = rest.split_once("] admin=").unwrap();
        let admin = rest.split([' ', ',']).next().unwrap();
        let first = addresses.split(',').next().unwrap();
        (first.parse().ok(), admin.parse().unwrap())
    }

    /// The lines of the log since the last call, up to the first that `is_last` accepts: waits for
    /// that one.
    pub(crate) fn log_through(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.log.recv_timeout(FAIL_SAFE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    lines.push(line);
                }
                Err(error) => panic!("{error}; the log until now: {lines:#?}"),
            }
            if is_last(lines.last().unwrap()) {
                return lines;
            }
        }
    }

    /// Waits for the end of the process; its exit code and the rest of its log.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let mut log = Vec::new();
        loop {
            match self.log.recv_timeout(FAIL_SAFE) {
                Ok(line) => log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the process does not end: {log:#?}"),
            }
        }
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for LoggingProcess {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `serve` on this site, not started yet: these words, which become the program, then its
/// arguments.
pub(crate) fn serve(words: &[&str], site: &Site) -> Command {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("--config")
        .arg(site.config_file())
        .arg("serve")
        .env_clear()
        .stdin(Stdio::null());
    command
}

/// A running `serve` on a site; killed when dropped.
pub(crate) struct ServerProcess {
    site: Site,
    process: LoggingProcess,
    address: SocketAddr,
    admin: SocketAddr,
    /// What it had open when it had nothing to do but to answer.
    open: Vec<String>,
}

impl Listening for ServerProcess {
    fn site(&self) -> &Site {
        &self.site
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl ServerProcess {
    /// Starts the program, and waits until it has nothing to do but to answer.
    pub(crate) fn start(site: Site) -> Self {
        Self::start_under(&[], site)
    }

    /// As [`ServerProcess::start`], by another program that becomes it: its words, to which ours
    /// are added.
    pub(crate) fn start_under(other: &[&str], site: Site) -> Self {
        Self::start_by(&[other, &[PROGRAM]].concat(), Stdio::null(), site)
    }

    /// As [`ServerProcess::start`], by these words, to which ours are added, and with something as
    /// its standard input.
    pub(crate) fn start_by(words: &[&str], input: Stdio, site: Site) -> Self {
        let state = fs::read_to_string(site.data().join("state.json"));
        let scrubbed = state.is_ok_and(|state| state.contains("\"scrub\""));
        let mut process = LoggingProcess::spawn(serve(words, &site).stdin(input));
        let (address, admin) = process.listening();
        // In whichever order they end. A scrub that an earlier server has done is not done again.
        let missing = Cell::new(if scrubbed { 1 } else { 2 });
        process.log_through(|line| {
            let ended = [
                " sweep finished ",
                " scrub finished ",
                "\"sweep finished\"",
                "\"scrub finished\"",
            ]
            .iter()
            .any(|work| line.contains(work));
            missing.set(missing.get() - u8::from(ended));
            missing.get() == 0
        });
        let mut server = Self {
            site,
            process,
            address: address.unwrap_or(([127, 0, 0, 1], 0).into()),
            admin,
            open: Vec::new(),
        };
        server.open = server.open_now();
        server
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Stops the process; all of its log, and what it leaves on disk.
    pub(crate) fn stop(mut self) -> (String, Site) {
        let seen = std::mem::take(&mut self.process.seen);
        self.signal(Signal::TERM);
        let (code, log, site) = self.ended();
        assert_eq!(code, Some(0), "{log:#?}");
        ([seen, log].concat().join("\n"), site)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// All lines of the log that were waited for.
    pub(crate) fn log_seen(&self) -> &[String] {
        &self.process.seen
    }

    /// A client with the credentials of the phone account.
    pub(crate) async fn phone(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.phones())).await
    }

    /// A connection for bytes of this protocol.
    pub(crate) async fn raw(&self, alpn: &[u8]) -> Raw {
        Raw::connect(self, &[alpn], rustls::ALL_VERSIONS)
            .await
            .unwrap()
    }

    /// As [`LoggingProcess::log_through`].
    pub(crate) fn log_through(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        self.process.log_through(is_last)
    }

    /// The lines of the log up to that of the next request with this method.
    pub(crate) fn log_through_request(&mut self, method: &str) -> Vec<String> {
        let method = format!("method=\"{method}\"");
        self.log_through(|line| line.contains("request") && line.contains(&method))
    }

    /// Waits until the process has open what it had open at its start, and nothing else.
    pub(crate) async fn has_no_new_descriptors(&self) {
        let cleared = async {
            while self.open_now() != self.open {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(FAIL_SAFE, cleared).await.is_err() {
            let (before, now) = (&self.open, self.open_now());
            panic!("descriptors leaked: {before:#?} became {now:#?}");
        }
    }

    /// What the descriptors of the process lead to. Only root can see them, because the process is
    /// not dumpable; the connections of its port are what everyone can see.
    fn open_now(&self) -> Vec<String> {
        let mut open: Vec<_> = match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => self
                .connections()
                .into_iter()
                .map(|connection| connection.client)
                .collect(),
            descriptors => descriptors
                .unwrap()
                // One that is closed meanwhile is gone.
                .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
                .map(|leads_to| leads_to.to_string_lossy().into_owned())
                .collect(),
        };
        open.sort();
        open
    }

    /// The connections of the server's port that it has not closed.
    fn connections(&self) -> Vec<Connection> {
        // Those that are established, and those whose client has closed its side (proc(5),
        // `tcp_states.h`).
        const OPEN: [&str; 2] = ["01", "08"];
        // `sl local_address rem_address st tx_queue:rx_queue …`, addresses as `0100007F:1F90`.
        let port = format!(":{:04X}", self.address.port());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .filter(|fields| fields[1].ends_with(&port) && OPEN.contains(&fields[3]))
            .map(|fields| Connection {
                client: fields[2].to_owned(),
                is_read: fields[4].ends_with(":00000000"),
            })
            .collect()
    }

    /// Waits until the process has read all that came on the connection of this client.
    pub(crate) async fn has_read_all(&self, client: SocketAddr) {
        let port = format!(":{:04X}", client.port());
        let is_read = || {
            let mut connections = self.connections().into_iter();
            connections.any(|connection| connection.client.ends_with(&port) && connection.is_read)
        };
        soon(async {
            while !is_read() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end of the process; its exit code, the rest of its log, and what it leaves on
    /// disk.
    pub(crate) fn ended(self) -> (Option<i32>, Vec<String>, Site) {
        let (code, log) = self.process.ended();
        (code, log, self.site)
    }
}

/// A connection as the kernel lists it.
struct Connection {
    client: String,
    /// Whether the server has read all that came.
    is_read: bool,
}

/// Waits until a process waits for the lock on a file that another one holds.
pub(crate) async fn lock_is_waited_for(path: &Path) {
    soon(async {
        while waiters_for_the_lock_on(path).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The processes that wait for the lock on a file.
pub(crate) fn waiters_for_the_lock_on(path: &Path) -> Vec<u32> {
    waiters_for_the_lock_of(fs::metadata(path).unwrap().ino())
}

/// The processes that wait for the lock on the file of this inode, whatever its name is now.
pub(crate) fn waiters_for_the_lock_of(inode: u64) -> Vec<u32> {
    // `1: -> FLOCK  ADVISORY  WRITE 4711 fd:00:131 0 EOF` (proc_locks(5)).
    let inode = format!(":{inode}");
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let mut waiters = Vec::new();
    for line in locks.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let ["->", "FLOCK", _, _, process, file, ..] = fields[1..]
            && file.ends_with(&inode)
        {
            waiters.push(process.parse().unwrap());
        }
    }
    waiters
}
