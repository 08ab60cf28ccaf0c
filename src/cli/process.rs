//! Process hardening, for every command: file modes, core dumps, panics; and the limit of open
//! files.

use std::panic;

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

use super::terminal::warn;

/// New files are accessible for their owner only, also those created by libraries.
const UMASK: u32 = 0o077;
/// File descriptors beyond those of connections: uploads and downloads in progress, and files that
/// are always open.
const RESERVE: u64 = 512;

/// Raises the soft limit of open files to the hard limit, and warns if that is too low for this
/// number of connections: one file descriptor each, and [`RESERVE`].
pub(super) fn allow_connections(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let needed = (connections as u64).saturating_add(RESERVE);
    if let Some(files) = limit.current.filter(|&files| files < needed) {
        tracing::warn!(
            files,
            needed,
            "open file limit too low for limits.connections"
        );
    }
}

/// Disables core dumps, makes new files private, and keeps panic messages out of the output.
///
/// Both settings against core dumps are needed: a limit of 0 is ignored if the kernel pipes dumps
/// to a program, and a process that is not dumpable still has a limit that its children inherit.
/// Not dumpable also means that other programs of the same user cannot trace it or read its memory.
pub(super) fn harden() {
    umask(Mode::from_raw_mode(UMASK));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // On a system without these settings only a protection is lost; no command fails for it.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let location = location.unwrap_or_default();
        // Without the panic message, which may quote a password or a backup.
        warn(&format!(
            "error: internal error (a bug) at {location}; please report it"
        ));
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that panics.
    const CHILD: &str = "PANICS_FOR_A_TEST";
    const SECRET: &str = "hunter2-in-a-panic";

    /// The panic hook is global, so this test runs itself again in a child process.
    #[test]
    fn a_panic_reports_its_location_and_not_its_message() {
        if std::env::var_os(CHILD).is_some() {
            harden();
            let thread = std::thread::spawn(|| panic!("{SECRET}"));
            assert!(thread.join().is_err());
            return;
        }
        let test = std::thread::current().name().unwrap().to_owned();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .unwrap();

        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let expected = format!("error: internal error (a bug) at {}:", file!());
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert!(!stderr.contains(SECRET), "{stderr}");
    }
}
