//! What the process itself keeps from others, whichever command runs.

use std::panic;

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

use super::terminal::warn;

/// New files are for their owner alone, also those that a library makes.
const UMASK: u32 = 0o077;
/// Files beside connections: those of uploads and downloads under way, and what is always open.
const RESERVE: u64 = 512;

/// Lets this process open as many files as it may, and says so where that is not enough for so many connections: one
/// each, and a few for uploads and the rest.
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
            "this process may open fewer files than limits.connections needs: raise LimitNOFILE or `ulimit -n`, or lower \
             limits.connections"
        );
    }
}

/// Makes memory stay in memory, files private and panics silent about what they saw.
///
/// Both bounds on core dumps are needed: a limit of 0 does not hold where the kernel pipes dumps to a program, and a
/// process that is not dumpable still has a limit that its children inherit. Not dumpable also means that other
/// programs of the same user cannot trace it or read its memory.
pub(super) fn harden() {
    umask(Mode::from_raw_mode(UMASK));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Where the system does not know these, nothing is lost but a protection; no command fails for it.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        // Without the panic's own text, which may quote a password or a backup.
        warn(&format!(
            "error: a bug in the program, at {place}; please report it"
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

    /// A panic hook is the whole process's, so that this test runs a second time in a process of its own.
    #[test]
    fn a_panic_in_a_command_tells_where_it_was_and_not_what_it_saw() {
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

        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let expected = format!("error: a bug in the program, at {}:", file!());
        assert!(said.starts_with(&expected), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}
