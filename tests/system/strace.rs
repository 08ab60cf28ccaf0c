//! strace, for tests that see a server's system calls or make one of them fail.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Listening;
use crate::support::process::ServerProcess;
use crate::support::wire::soon;

/// At the end of a line of a call that has not ended.
const UNFINISHED: &str = "<unfinished ...>";
/// At the start of what belongs to such a line.
const RESUMED: &str = " resumed>";

/// strace, attached to all threads of a server.
pub(crate) struct Strace {
    child: Child,
    log: PathBuf,
    /// Held, because strace writes a line for every new thread, and would end if the pipe were
    /// closed.
    _errors: BufReader<ChildStderr>,
}

impl Strace {
    /// Attaches with these arguments; returns when every thread is traced.
    ///
    /// strace counts the calls of each thread by itself (`when=`), and for `-P` compares paths as
    /// they are spelled and as they resolve, and a descriptor's path as it resolves.
    pub(crate) fn attach(server: &ServerProcess, arguments: &[&str]) -> Self {
        Self::attach_to(server.pid(), server.site().folder(), arguments)
    }

    /// As [`Strace::attach`], to any process; the log lies in this folder.
    pub(crate) fn attach_to(process: Pid, folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("strace.log");
        let mut child = Command::new("strace")
            .args(["-f", "-y", "-e", "signal=none", "-o"])
            .arg(&log)
            .args(arguments)
            .args(["-p", &process.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        while !said.contains(" attached") {
            assert_ne!(errors.read_line(&mut said).unwrap(), 0, "{said}");
        }
        Self {
            child,
            log,
            _errors: errors,
        }
    }

    /// Waits until this is in the log.
    pub(crate) async fn says(&self, text: &str) {
        soon(async {
            while !fs::read_to_string(&self.log).unwrap().contains(text) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Lets the server go on without it; the lines of strace's log. The line of a call that began
    /// before other threads' calls and ended after them is whole, too; that of its end stays.
    pub(crate) fn detach(self) -> Vec<String> {
        let log = self.log.clone();
        drop(self);
        let log = fs::read_to_string(log).unwrap();
        let mut lines: Vec<String> = log.lines().map(Into::into).collect();
        for end in 0..lines.len() {
            let Some((_, rest)) = lines[end].split_once(RESUMED) else {
                continue;
            };
            let (rest, thread) = (rest.to_owned(), thread(&lines[end]).to_owned());
            let begun = lines[..end]
                .iter_mut()
                .rfind(|line| self::thread(line) == thread && line.ends_with(UNFINISHED));
            // A call that was under way when strace came has no such line.
            if let Some(begun) = begun {
                begun.push_str(&rest);
            }
        }
        lines
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It may have ended already, with its server.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        drop(self.child.wait());
    }
}

/// Whether a line of strace's log is the end of a call alone.
pub(crate) fn is_end(line: &str) -> bool {
    line.contains(RESUMED)
}

/// Where a call ends that begins in this line of strace's log.
pub(crate) fn end_of(log: &[String], begun: usize) -> usize {
    if !log[begun].contains(UNFINISHED) {
        return begun;
    }
    let ends = |line: &String| is_end(line) && thread(line) == thread(&log[begun]);
    begun + log[begun..].iter().position(ends).unwrap()
}

fn thread(line: &str) -> &str {
    line.split(' ').next().unwrap()
}
