//! From a JSON file and the environment to a validated [`Config`].
//!
//! Everything is checked before anything starts, and all errors are reported at once, each with its path
//! in the file or the name of its variable. After this there are no strings that mean something.

mod budgets;
mod environment;
mod log;
mod network;
mod reader;
mod storage;
mod tls;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use network::{listen, network};
use reader::{Reader, Tree};
use value::{address, base_path, path, public_url};

pub use budgets::{Budgets, Quotas};
pub use log::{ClientAddresses, Log, LogFormat};
pub use network::Listen;
pub use reader::Problem;
pub use storage::{Storage, StorageDescription};
pub use tls::{Acme, Tls, TlsFiles};

/// The file that is read where no other is named.
pub const DEFAULT_FILE: &str = "config.json";

const DAY_LIMIT: u64 = 36_500;
const SECONDS_LIMIT: u64 = 3_600;

/// A configuration in which everything has been checked that can be checked without touching anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The largest backup that is accepted, in bytes, inclusive.
    pub max_backup_bytes: usize,
    /// What is announced: how many days after its last upload a backup is kept.
    pub retention_days: u32,
    /// How many days longer it really is kept.
    pub retention_margin_days: u32,
    /// How many days a removed backup stays in the trash.
    pub trash_days: u32,
    /// Where phones reach this server, with a slash at the end.
    pub public_url: Option<String>,
    /// What the public listeners listen on.
    pub listen: Vec<Listen>,
    /// Path under which everything is served; begins and ends with a slash.
    pub base_path: String,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// Networks whose hosts are proxies: what they tell about clients' addresses is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// The accounts file.
    pub accounts_file: PathBuf,
    /// Whether a backup can be read without credentials by whoever knows its id.
    pub anonymous_restore: bool,
    /// Whether everybody may do what a phone account may.
    pub allow_anonymous: bool,
    /// Where backups are kept.
    pub storage: Storage,
    /// Address of the admin listener.
    pub admin_listen: SocketAddr,
    /// What one client may take.
    pub limits: Limits,
    /// How much may be kept.
    pub quotas: Quotas,
    /// What is logged, and how.
    pub log: Log,
}

/// Bounds on what clients can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address, or from one /64 of IPv6.
    pub connections_per_address: usize,
    /// A TLS handshake.
    pub handshake: Duration,
    /// The header of a request, and a connection without one.
    pub header: Duration,
    /// Bytes of a request's header.
    pub header_bytes: u32,
    /// Lines of a request's header.
    pub header_fields: usize,
    /// The body of a request.
    pub body: Duration,
    /// Bytes of a body or an answer that have to pass in each second, on the average since it began.
    pub bytes_per_second: u32,
    /// How long a body or an answer may be slower than that at first.
    pub grace: Duration,
    /// Requests at work at once: header and body are there, the answer is not.
    pub requests: usize,
    /// Requests under way at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests that one connection may give up before they are answered.
    pub resets: u32,
    /// Requests under way when the server is told to stop.
    pub drain: Duration,
    /// Bytes of all uploads under way.
    pub upload_memory: usize,
    /// Guesses.
    pub budgets: Budgets,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file and nothing in the environment.
    #[error("no configuration: {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("configuration {}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("configuration {}: not valid JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Values are wrong; all of them are listed.
    #[error("{} in the configuration {}", count(.problems), .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the example.
        problems: Vec<Problem>,
    },
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 error".into(),
        many => format!("{many} errors"),
    }
}

impl Config {
    /// Reads `file` (where none is named: `config.json`, which may be missing if the environment says
    /// something) and the variables `SAFE_…`, which win.
    ///
    /// # Errors
    /// With everything that is wrong, at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let overrides = environment::overrides(environment);
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
                if overrides.is_empty() {
                    return Err(Error::Missing(path.to_owned()));
                }
                b"{}".to_vec()
            }
            Err(source) => {
                return Err(Error::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text, path, overrides)
    }

    /// The configuration of a file's text, without the environment. Paths in it are relative to `path`.
    ///
    /// # Errors
    /// With everything that is wrong, at once.
    pub fn from_json(text: &[u8], path: &Path) -> Result<Self, Error> {
        Self::parse(text, path, [])
    }

    /// The configuration of a file's text and the variables `SAFE_…`, which win: [`Config::load`] without the
    /// file, so that whoever searches for texts that break it (`fuzz/`) need not write one.
    ///
    /// # Errors
    /// With everything that is wrong, at once.
    pub fn parse(
        text: &[u8],
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut tree = Tree::parse(text).map_err(|source| Error::Json {
            path: path.to_owned(),
            source,
        })?;
        for (variable, value) in environment::overrides(environment) {
            tree.set(&variable, value);
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut reader = tree.reader();
        let config = Self::read(&mut reader, directory);
        let problems = reader.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::Invalid {
                path: path.to_owned(),
                problems,
            })
        }
    }

    /// The keys in which another configuration differs that a running server cannot change.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        [
            ("listen", self.listen != other.listen),
            ("tls", self.tls != other.tls),
            (
                "trustedProxies",
                self.trusted_proxies != other.trusted_proxies,
            ),
            ("proxyProtocol", self.proxy_protocol != other.proxy_protocol),
            ("accountsFile", self.accounts_file != other.accounts_file),
            ("storage", self.storage != other.storage),
            ("admin.listen", self.admin_listen != other.admin_listen),
            ("log.format", self.log.format != other.log.format),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Reads every key once, in the order of the example. Problems go to the reader, and a default takes
    /// the place of a wrong value, so that all of them are found.
    fn read(reader: &mut Reader<'_>, directory: &Path) -> Self {
        let file = |path: String| directory.join(path);
        let days = |reader: &mut Reader<'_>, key, default, least| {
            u32::try_from(reader.number(key, default, least..=DAY_LIMIT)).unwrap_or(u32::MAX)
        };
        let max_backup_bytes = reader.size("maxBackupBytes", 524_288, 4_096..=268_435_456);
        let config = Self {
            max_backup_bytes,
            retention_days: days(reader, "retentionDays", 180, 1),
            retention_margin_days: days(reader, "retentionMarginDays", 7, 0),
            trash_days: days(reader, "trashDays", 7, 0),
            public_url: reader.optional("publicUrl", public_url),
            listen: reader
                .list("listen", &["[::]:8443"], listen)
                .into_iter()
                .map(|listen| match listen {
                    Listen::Unix(path) => Listen::Unix(directory.join(path)),
                    tcp @ Listen::Tcp(_) => tcp,
                })
                .collect(),
            base_path: reader.text("basePath", "/", base_path),
            tls: Tls::read(reader, file),
            trusted_proxies: reader.list("trustedProxies", &[], network),
            proxy_protocol: reader.switch("proxyProtocol", false),
            accounts_file: file(reader.text("accountsFile", "accounts.json", path)),
            anonymous_restore: reader.switch("anonymousRestore", false),
            allow_anonymous: reader.switch("allowAnonymous", false),
            storage: Storage::read(reader, file),
            admin_listen: reader.section("admin", |admin| {
                admin.text("listen", "127.0.0.1:9180", address)
            }),
            limits: reader.section("limits", |limits| {
                let seconds = |limits: &mut Reader<'_>, key, default| {
                    Duration::from_secs(limits.number(key, default, 1..=SECONDS_LIMIT))
                };
                let number = |limits: &mut Reader<'_>, key, default, range| {
                    u32::try_from(limits.number(key, default, range)).unwrap_or(u32::MAX)
                };
                Limits {
                    connections: limits.size("connections", 4_096, 1..=1_000_000),
                    connections_per_address: limits.size(
                        "connectionsPerAddress",
                        1_024,
                        1..=1_000_000,
                    ),
                    handshake: seconds(limits, "handshakeSeconds", 10),
                    header: seconds(limits, "headerSeconds", 15),
                    header_bytes: number(limits, "headerBytes", 16_384, 8_192..=1_048_576),
                    header_fields: limits.size("headerFields", 100, 8..=1_000),
                    body: seconds(limits, "bodySeconds", 300),
                    bytes_per_second: number(limits, "bytesPerSecond", 500, 1..=1_000_000),
                    grace: seconds(limits, "graceSeconds", 20),
                    requests: limits.size("requests", 256, 1..=1_000_000),
                    streams: number(limits, "streams", 16, 1..=1_000),
                    resets: number(limits, "resets", 100, 1..=1_000_000),
                    drain: seconds(limits, "drainSeconds", 20),
                    upload_memory: limits.size(
                        "uploadMemoryBytes",
                        134_217_728,
                        4_096..=4_294_967_295,
                    ),
                    budgets: Budgets::read(limits),
                }
            }),
            quotas: reader.section("quotas", Quotas::read),
            log: reader.section("log", Log::read),
        };
        if config.limits.upload_memory < max_backup_bytes {
            reader.problem(
                "limits.uploadMemoryBytes",
                "must be at least maxBackupBytes, or no upload could ever begin",
            );
        }
        network::check(&config, reader);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::from_json(text.as_bytes(), Path::new("/etc/safe/config.json"))
    }

    fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment = environment
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        let overrides = environment::overrides(environment);
        match Config::parse(text.as_bytes(), Path::new("config.json"), overrides) {
            Err(Error::Invalid { problems, .. }) => {
                problems.iter().map(Problem::to_string).collect()
            }
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn an_empty_file_has_the_defaults() {
        let config = parse("{}").unwrap();

        assert_eq!(config.max_backup_bytes, 524_288);
        assert_eq!(
            (config.retention_days, config.retention_margin_days),
            (180, 7)
        );
        assert_eq!(config.listen, [Listen::Tcp("[::]:8443".parse().unwrap())]);
        assert_eq!(config.base_path, "/");
        assert_eq!(config.accounts_file, Path::new("/etc/safe/accounts.json"));
        assert_eq!(
            config.tls.files().unwrap().certificate,
            Path::new("/etc/safe/certs/fullchain.pem")
        );
        assert!(!config.anonymous_restore && !config.allow_anonymous);
    }

    #[test]
    fn all_errors_are_reported_at_once_each_with_its_path() {
        let text = r#"{
            "maxBackupBytes": "512k",
            "retentionDays": 0,
            "retentionDay": 30,
            "listen": ["[::]:8443", "localhost:1"],
            "basePath": "safe",
            "tls": { "certificateFile": 7, "privatKeyFile": "x" },
            "anonymousRestore": "yes",
            "storage": { "files": [] },
            "log": { "level": "loud" }
        }"#;

        let problems = problems(text, &[]);

        let expected = [
            "maxBackupBytes: must be a whole number from 4096 to 268435456",
            "retentionDays: must be a whole number from 1 to 36500",
            "listen[1]: must be an IP address",
            "basePath: must be a path",
            "tls.certificateFile: must be a text",
            "tls.privatKeyFile: there is no such key",
            "anonymousRestore: must be true or false",
            "storage.files: must be an object",
            "log.level: must be \"error\"",
            "retentionDay: there is no such key",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(
                problem.starts_with(expected),
                "{problem}\n  is not: {expected}"
            );
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error() {
        let Err(Error::Json { source, .. }) = parse("{\"trashDays\": 1,\n \"trashDays\": 2}")
        else {
            panic!("accepted");
        };
        assert!(
            source
                .to_string()
                .starts_with("the key \"trashDays\" stands twice"),
            "{source}"
        );
    }

    #[test]
    fn the_environment_wins_and_its_errors_name_the_variable() {
        let environment = [
            ("SAFE_RETENTION_DAYS", "90"),
            ("SAFE_TLS__CERTIFICATE_FILE", "/run/cert.pem"),
            ("SAFE_LISTEN", "0.0.0.0:443, [::1]:443"),
            ("SAFE_ANONYMOUS_RESTORE", "true"),
            ("PATH", "/bin"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let overrides = environment::overrides(environment);
        let config = Config::parse(
            b"{\"retentionDays\": 30}",
            Path::new("config.json"),
            overrides,
        )
        .unwrap();
        assert_eq!(config.retention_days, 90);
        assert_eq!(
            config.tls.files().unwrap().certificate,
            Path::new("/run/cert.pem")
        );
        assert_eq!(config.listen.len(), 2);
        assert!(config.anonymous_restore);

        let problems = problems(
            "{}",
            &[
                ("SAFE_RETENTION_DAYS", "many"),
                ("SAFE_RETENTION_DAY", "1"),
                ("SAFE_TLS", "x"),
            ],
        );
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].starts_with("SAFE_RETENTION_DAYS: must be a whole number"));
        assert!(
            problems[1].starts_with("SAFE_TLS: must be an object"),
            "{problems:?}"
        );
        assert!(problems[2].starts_with("SAFE_RETENTION_DAY: there is no such key"));
    }

    #[test]
    fn a_variable_does_not_hide_what_is_wrong_around_its_key() {
        let variables = [
            ("SAFE_RETENTION_DAYS", "30"),
            ("SAFE_TLS__CERTIFICATE_FILE", "a.pem"),
        ];
        for (text, expected) in [
            ("[]", "the file: must be one JSON object"),
            ("null", "the file: must be one JSON object"),
            (r#"{"tls": "a.pem"}"#, "tls: must be an object"),
        ] {
            assert_eq!(problems(text, &variables), [expected], "{text}");
        }
        assert!(problems(r#"{"tls": null}"#, &variables).is_empty());
        let both = [("SAFE_TLS", "a"), ("SAFE_TLS__CERTIFICATE_FILE", "a.pem")];
        assert_eq!(problems("{}", &both), ["SAFE_TLS: must be an object"]);
    }

    #[test]
    fn what_others_put_into_the_environment_is_left_alone() {
        let foreign = [
            ("SAFE_CONFIG", "x"),
            ("SAFE_SERVICE_HOST", "10.0.0.1"),
            ("SAFE_FIRST_ACCOUNT", "phones"),
            ("SAFE_FIRST_SECRET_FILE", "secret"),
            ("SAFE_PORT", "tcp://10.0.0.1:443"),
            ("SAFE_PORT_443_TCP", "tcp://10.0.0.1:443"),
        ];
        assert!(problems("{}", &foreign).is_empty());
    }

    #[test]
    fn uploads_must_fit_into_their_memory() {
        let problems = problems(
            r#"{"maxBackupBytes": 8192, "limits": {"uploadMemoryBytes": 8191}}"#,
            &[],
        );
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("limits.uploadMemoryBytes: must be at least"));
    }
}
