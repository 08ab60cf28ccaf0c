//! What a panic tells: where in the program it was, and how many there were. Its own text is not told, because it may
//! quote what a client sent.

use std::panic::PanicHookInfo;

use super::Server;

impl Server {
    /// What to do at every panic of this process: say where it was in the log, and count it (`safe_panics_total`).
    /// For `std::panic::set_hook`.
    #[must_use]
    pub fn panic_hook(&self) -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
        let panics = self.vitals.panics();
        Box::new(move |panic| {
            let count = panics.inc() + 1;
            let (file, line) = panic
                .location()
                .map_or(("unknown", 0), |place| (place.file(), place.line()));
            tracing::error!(
                file,
                line,
                count,
                "a panic: this is a bug in the program, please report it"
            );
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::config::Config;
    use crate::server::development_certificate;

    /// Set in the process that panics.
    const CHILD: &str = "PANICS_FOR_A_TEST";
    const SECRET: &str = "hunter2-in-a-panic";

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 60 * 60)
    }

    /// A panic hook is the whole process's, so that this test runs a second time in a process of its own.
    #[tokio::test]
    async fn a_panic_tells_where_it_was_and_how_many_there_were_and_nothing_else() {
        if std::env::var_os(CHILD).is_some() {
            return panic_in_a_server().await;
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
        let lines: Vec<_> = said.lines().filter(|l| l.contains("a panic")).collect();
        assert_eq!(lines.len(), 2, "{said}");
        for (count, line) in (1..).zip(lines) {
            let place = format!("file=\"{}\" line=", file!());
            assert!(line.contains(&place), "{line}");
            assert!(line.ends_with(&format!("count={count}")), "{line}");
        }
        assert!(!said.contains(SECRET), "{said}");
    }

    async fn panic_in_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let made = development_certificate(&["localhost".into()], clock()).unwrap();
        for (name, text) in [("chain", made.chain_pem), ("key", made.private_key_pem)] {
            crate::durable::replace(&directory.path().join(name), text.as_bytes()).unwrap();
        }
        let text = br#"{ "listen": ["127.0.0.1:0"], "admin": { "listen": "127.0.0.1:0" }, "allowAnonymous": true,
            "tls": { "certificateFile": "chain", "privateKeyFile": "key" } }"#;
        let config = Config::from_json(text, &directory.path().join("config.json")).unwrap();
        let server = Server::bind(&config, clock).await.unwrap();
        let log = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(false);
        tracing::subscriber::set_global_default(log.finish()).unwrap();

        std::panic::set_hook(server.panic_hook());
        let task = tokio::spawn(async { panic!("{SECRET}") });
        assert!(task.await.is_err());
        let quoting = || SECRET.parse::<u8>().map_err(|_| SECRET).unwrap();
        let thread = std::thread::spawn(quoting);
        assert!(thread.join().is_err());

        assert!(server.vitals.metrics().contains("safe_panics_total 2\n"));
    }
}
