//! The built program as a process of its own, for tests that look at a server from outside (its log, its
//! descriptors, the locks it waits for) or strike it.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::program::PROGRAM;
use crate::support::wire::{Client, FAIL_SAFE, Protocol, Raw, soon};
use crate::support::{Listening, Site, skip};

/// A running `serve`; killed when dropped.
pub(crate) struct ServerProcess {
    site: Option<Site>,
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    log: Receiver<String>,
    /// All lines of the log that were waited for.
    seen: Vec<String>,
    descriptors: Vec<String>,
}

impl Listening for ServerProcess {
    fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
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

    /// As [`ServerProcess::start`], by another program that becomes it: its words, to which ours are added.
    pub(crate) fn start_under(other: &[&str], site: Site) -> Self {
        Self::start_by(&[other, &[PROGRAM]].concat(), Stdio::null(), site)
    }

    /// As [`ServerProcess::start`], by these words, to which ours are added, and with something as its standard input.
    pub(crate) fn start_by(words: &[&str], input: Stdio, site: Site) -> Self {
        let state = fs::read_to_string(site.data().join("state.json"));
        let scrubbed = state.is_ok_and(|state| state.contains("\"scrub\""));
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(site.config_file())
            .arg("serve")
            .env_clear()
            .stdin(input)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        std::thread::spawn(move || {
            for line in errors.lines() {
                // Nobody reads any more when the test has ended.
                if lines.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut server = Self {
            site: Some(site),
            child,
            address: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            log,
            seen: Vec::new(),
            descriptors: Vec::new(),
        };
        server.log_through(|line| line.contains("listening"));
        let listening = server.seen.last().unwrap();
        // In JSON it is `"listen":"[127.0.0.1:1]","admin":"127.0.0.1:2",`.
        let listening = listening.replace('"', "");
        let listening = listening
            .replace("listen:[", "listen=[")
            .replace(",admin:", " admin=");
        let (_, rest) = listening.split_once("listen=[").unwrap();
        let (address, rest) = rest.split_once("] admin=").unwrap();
        let admin = rest.split([' ', ',']).next();
        // A Unix socket has none.
        server.address = address.parse().unwrap_or(server.address);
        server.admin = admin.unwrap().parse().unwrap();
        // In whichever order they end. A scrub that an earlier server has done is not done again.
        let missing = Cell::new(if scrubbed { 1 } else { 2 });
        server.log_through(|line| {
            let ended = [" swept ", " scrubbed ", "\"swept\"", "\"scrubbed\""]
                .iter()
                .any(|work| line.contains(work));
            missing.set(missing.get() - u8::from(ended));
            missing.get() == 0
        });
        server.descriptors = server.descriptors_now();
        server
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Stops the process; all of its log, and what it leaves on disk.
    pub(crate) fn stop(mut self) -> (String, Site) {
        let seen = std::mem::take(&mut self.seen);
        self.signal(Signal::TERM);
        let (code, log, site) = self.ended();
        assert_eq!(code, Some(0), "{log:#?}");
        ([seen, log].concat().join("\n"), site)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// All lines of the log that were waited for.
    pub(crate) fn log_seen(&self) -> &[String] {
        &self.seen
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

    /// The lines of the log since the last call, up to the first that `is_last` accepts: waits for that one.
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

    /// The lines of the log up to that of the next request with this method.
    pub(crate) fn log_through_request(&mut self, method: &str) -> Vec<String> {
        let method = format!("method=\"{method}\"");
        self.log_through(|line| line.contains("request") && line.contains(&method))
    }

    /// Waits until the process holds the descriptors that it held at its start, and no others.
    pub(crate) async fn has_no_new_descriptors(&self) {
        let cleared = async {
            while self.descriptors_now() != self.descriptors {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(FAIL_SAFE, cleared).await.is_err() {
            let (before, now) = (&self.descriptors, self.descriptors_now());
            panic!("descriptors leaked: {before:#?} became {now:#?}");
        }
    }

    /// What the descriptors of the process lead to.
    fn descriptors_now(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.pid());
        let entries = match fs::read_dir(folder) {
            // The process is not open to its own user; root sees it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                skip("descriptors of a server: only root can look at them");
                return Vec::new();
            }
            other => other.unwrap(),
        };
        let mut descriptors: Vec<_> = entries
            // One that is closed meanwhile is gone.
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .map(|leads_to| leads_to.to_string_lossy().into_owned())
            .collect();
        descriptors.sort();
        descriptors
    }

    /// Waits until the process has read all that came on the connection of this client.
    pub(crate) async fn has_read_all(&self, client: SocketAddr) {
        // `sl local_address rem_address st tx_queue:rx_queue …`, addresses as `0100007F:1F90` (proc(5)).
        let from = format!(":{:04X}", self.address.port());
        let to = format!(":{:04X}", client.port());
        let is_read = || {
            let connections = fs::read_to_string("/proc/net/tcp").unwrap();
            connections.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields[1].ends_with(&from)
                    && fields[2].ends_with(&to)
                    && fields[4].ends_with(":00000000")
            })
        };
        soon(async {
            while !is_read() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end of the process; its exit code, the rest of its log, and what it leaves on disk.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<String>, Site) {
        let mut log = Vec::new();
        loop {
            match self.log.recv_timeout(FAIL_SAFE) {
                Ok(line) => log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the server does not end: {log:#?}"),
            }
        }
        let code = self.child.wait().unwrap().code();
        (code, log, self.site.take().unwrap())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until somebody waits for the lock on a file, that somebody else holds.
pub(crate) async fn somebody_waits_for_the_lock_on(path: &Path) {
    soon(async {
        while waiters_for_the_lock_on(path).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The processes of those who wait for the lock on a file.
pub(crate) fn waiters_for_the_lock_on(path: &Path) -> Vec<u32> {
    waiters_for_the_lock_of(fs::metadata(path).unwrap().ino())
}

/// The processes of those who wait for the lock on the file of this inode, whatever its name is now.
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
