//! Needs of tests: programs on the search path, and rights.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::support::has_extended_attributes;

/// Something that not every machine has.
pub(crate) struct Need {
    /// How the reports call it.
    pub(crate) name: &'static str,
    probe: Probe,
}

enum Probe {
    /// A program of this name is installed.
    Program(&'static str),
    /// This finds what is needed.
    Found(fn() -> bool),
}

const fn program(name: &'static str) -> Need {
    Need {
        name,
        probe: Probe::Program(name),
    }
}

const fn found(name: &'static str, probe: fn() -> bool) -> Need {
    Need {
        name,
        probe: Probe::Found(probe),
    }
}

pub(crate) static APACHE: Need = program("apache2");
pub(crate) static CHROMIUM: Need = program("chromium");
pub(crate) static CURL: Need = program("curl");
pub(crate) static HADOLINT: Need = program("hadolint");
pub(crate) static HAPROXY: Need = program("haproxy");
pub(crate) static NGINX: Need = program("nginx");
pub(crate) static PEBBLE: Need = program("pebble");
pub(crate) static PROMTOOL: Need = program("promtool");
pub(crate) static PYTHON: Need = program("python3");
pub(crate) static RCLONE: Need = program("rclone");
pub(crate) static RSYNC: Need = program("rsync");

/// The second implementation of the format.
pub(crate) static PYNACL: Need = found("PyNaCl for python3", || {
    succeeds(Command::new("python3").args(["-c", "import nacl"]))
});
/// One that rates a unit without a running systemd: version 250 or later.
pub(crate) static SYSTEMD_ANALYZE: Need = found("systemd-analyze 250", || {
    let said = Command::new("systemd-analyze").arg("--version").output();
    let said = said.map_or_else(|_| String::new(), |output| text(&output.stdout));
    let version = said.split_whitespace().nth(1);
    version.and_then(|version| version.parse().ok()) >= Some(250)
});
/// strace, and the right to trace a child.
pub(crate) static STRACE: Need = found("strace", || {
    succeeds(Command::new("strace").args(["-qq", "-e", "trace=none", "true"]))
});
/// strace, and the right to trace a running server, which only root can have: the server is not
/// dumpable.
pub(crate) static STRACE_OF_SERVERS: Need = found("strace as root", || {
    is_root() && attaches().unwrap_or(false)
});
/// The right to mount file systems.
pub(crate) static MOUNT: Need = found("the right to mount", || {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(folder.path())
        .output();
    mounted.is_ok_and(|output| output.status.success())
        && succeeds(Command::new("umount").arg(folder.path()))
});
/// The right to look into processes of others and to act for them.
pub(crate) static ROOT: Need = found("root", is_root);
/// Root, with the right to make namespaces, and setpriv.
pub(crate) static NAMESPACES: Need = found("unshare and setpriv as root", || {
    let script = "mount --make-rprivate / && setpriv -d";
    is_root() && succeeds(Command::new("unshare").args(["--mount", "sh", "-c", script]))
});
/// A folder for temporary files whose file system has extended attributes.
pub(crate) static XATTRS: Need = found("extended attributes", || {
    let folder = tempfile::tempdir().unwrap();
    has_extended_attributes(folder.path())
});
/// The right to open many files; has this process use it.
pub(crate) static DESCRIPTORS: Need = found("8,000 open files", || may_open(8_000));

impl Need {
    /// Whether this machine has it. Looked up once.
    pub(crate) fn is_met(&self) -> bool {
        static KNOWN: Mutex<BTreeMap<&str, bool>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap();
        *known.entry(self.name).or_insert_with(|| match self.probe {
            Probe::Program(name) => path_of(name).is_some(),
            Probe::Found(probe) => probe(),
        })
    }
}

/// Where a program is: on the search path, or beside the programs of root.
pub(crate) fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let is_program = |path: &PathBuf| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders
        .map(|folder| folder.join(program))
        .find(|path| is_program(path))
}

fn is_root() -> bool {
    geteuid().is_root()
}

fn succeeds(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether strace attaches to a process that is not its child; `None` where it does not run.
fn attaches() -> Option<bool> {
    let mut traced = Command::new("cat").stdin(Stdio::piped()).spawn().ok()?;
    let strace = Command::new("strace")
        .args(["-e", "trace=none", "-p", &traced.id().to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let attached = strace.ok().map(|mut strace| {
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let is_attached = lines.any(|line| line.unwrap().contains(" attached"));
        drop(strace.kill());
        drop(strace.wait());
        is_attached
    });
    drop(traced.kill());
    drop(traced.wait());
    attached
}

/// Raises the limit of this process; `false` where that is not permitted.
fn may_open(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit.current) {
        return true;
    }
    let raised = Rlimit {
        current: Some(wanted),
        ..limit
    };
    enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok()
}
