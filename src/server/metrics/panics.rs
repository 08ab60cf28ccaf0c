//! Panic hook: logs the location of a panic and counts it. The panic message is not logged, because
//! it may contain data of a client.

use std::panic::PanicHookInfo;

use prometheus_client::metrics::counter::Counter;

/// A panic hook, for `std::panic::set_hook`.
pub(crate) type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// Creates the hook.
pub(super) fn hook(panics: Counter) -> Hook {
    Box::new(move |panic| {
        let count = panics.inc() + 1;
        let (file, line) = panic.location().map_or(("unknown", 0), |location| {
            (location.file(), location.line())
        });
        tracing::error!(file, line, count, "panic: please report this bug");
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the environment of the process that panics.
    const CHILD: &str = "PANICS_FOR_A_TEST";
    const SECRET: &str = "hunter2-in-a-panic";

    /// The panic hook is global, so this test runs itself again in a child process.
    #[tokio::test]
    async fn a_panic_is_logged_with_its_location_and_number_only() {
        if std::env::var_os(CHILD).is_some() {
            return panic_twice().await;
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
        let lines: Vec<_> = stderr
            .lines()
            .filter(|l| l.contains("panic: please"))
            .collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        for (count, line) in (1..).zip(lines) {
            let place = format!("file=\"{}\" line=", file!());
            assert!(line.contains(&place), "{line}");
            assert!(line.ends_with(&format!("count={count}")), "{line}");
        }
        assert!(!stderr.contains(SECRET), "{stderr}");
    }

    async fn panic_twice() {
        let log = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(false);
        tracing::subscriber::set_global_default(log.finish()).unwrap();
        let panics = Counter::default();

        std::panic::set_hook(hook(panics.clone()));
        let task = tokio::spawn(async { panic!("{SECRET}") });
        assert!(task.await.is_err());
        let quoting = || SECRET.parse::<u8>().map_err(|_| SECRET).unwrap();
        let thread = std::thread::spawn(quoting);
        assert!(thread.join().is_err());

        assert_eq!(panics.get(), 2);
    }
}
