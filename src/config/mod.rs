//! Configuration: from a JSON file and the environment to a validated [`Config`].
//!
//! Everything is validated before anything starts, and all errors are reported at once, each with
//! its path in the file or the name of its variable. A [`Config`] holds typed values, so no other
//! module parses strings of the configuration.

mod environment;
mod log;
mod network;
mod quotas;
mod rate_limits;
mod reader;
mod storage;
mod tls;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use self::network::{listen, network};
use self::reader::{Reader, Tree};
use self::value::{address, base_path, path, public_url};

pub use log::{ClientAddresses, Log, LogFormat};
pub use network::Listen;
pub use quotas::Quotas;
pub use rate_limits::RateLimits;
pub use reader::Problem;
pub use storage::{Storage, StorageDescription};
pub use tls::{Acme, Tls, TlsFiles};

/// The configuration file that is read by default.
pub const DEFAULT_FILE: &str = "config.json";

/// The largest number of days.
const MAX_DAYS: u64 = 36_500;
/// The largest timeout in seconds.
const MAX_SECONDS: u64 = 3_600;

/// A configuration, validated as far as possible without access to files or the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The size of the largest accepted backup in bytes, inclusive.
    pub max_backup_bytes: usize,
    /// The retention announced to phones: the days that a backup is kept after its last upload.
    pub retention_days: u32,
    /// The days that a backup is kept beyond the announced retention.
    pub retention_margin_days: u32,
    /// The days that a removed backup stays in the trash.
    pub trash_days: u32,
    /// The URL at which phones reach this server; ends with a slash.
    pub public_url: Option<String>,
    /// The addresses of the public listeners.
    pub listen: Vec<Listen>,
    /// The path under which everything is served; begins and ends with a slash.
    pub base_path: String,
    /// The source of the certificate.
    pub tls: Tls,
    /// Networks of trusted proxies: the client addresses that they forward are accepted.
    pub trusted_proxies: Vec<IpNet>,
    /// True if connections from proxies begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The accounts file.
    pub accounts_file: PathBuf,
    /// True if a backup can be read without credentials by a client that knows its id.
    pub anonymous_restore: bool,
    /// True if clients without credentials have the permissions of a phone account.
    pub allow_anonymous: bool,
    /// The storage of the backups.
    pub storage: Storage,
    /// The address of the admin listener.
    pub admin_listen: SocketAddr,
    /// Limits on connections and requests, and rate limits.
    pub limits: Limits,
    /// Storage quotas.
    pub quotas: Quotas,
    /// Settings of the log.
    pub log: Log,
}

/// Limits on what clients can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of concurrent connections.
    pub connections: usize,
    /// The number of concurrent connections from one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// Timeout of a TLS handshake.
    pub handshake: Duration,
    /// Timeout of a request's header, and of an idle connection.
    pub header: Duration,
    /// The size of a request's header in bytes.
    pub header_bytes: u32,
    /// The number of fields in a request's header.
    pub header_fields: usize,
    /// Timeout of a request's body.
    pub body: Duration,
    /// The minimum rate of a body or a response in bytes per second, averaged since its start.
    pub bytes_per_second: u32,
    /// How long a body or a response may be slower than the minimum rate at its start.
    pub grace: Duration,
    /// The number of requests processed concurrently: received completely and not answered yet.
    pub requests: usize,
    /// The number of concurrent streams on one HTTP/2 connection.
    pub streams: u32,
    /// The number of streams that a client may reset on one HTTP/2 connection before they are
    /// answered.
    pub resets: u32,
    /// Timeout of requests in progress during a graceful shutdown.
    pub drain: Duration,
    /// The memory for all uploads in progress, in bytes.
    pub upload_memory: usize,
    /// Rate limits against guessing.
    pub rate_limits: RateLimits,
}

/// An error in loading the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The default file does not exist, and no variable sets a key.
    #[error("no configuration: {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("configuration {}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("configuration {}: not valid JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error and its position.
        #[source]
        source: serde_json::Error,
    },
    /// Keys or values are invalid; all of them are listed.
    #[error("{} in the configuration {}", count(.problems), .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problems, in the order of the keys in the example.
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
    /// Reads `file` (by default `config.json`, which may be missing if a variable sets a key) and
    /// the variables `SAFE_…`, which take precedence.
    ///
    /// # Errors
    /// When the file cannot be read or is not JSON, or with all problems at once.
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

    /// Parses the content of a file, without the environment. Relative paths in it are relative to
    /// the directory of `path`.
    ///
    /// # Errors
    /// When `text` is not JSON, or with all problems at once.
    pub fn from_json(text: &[u8], path: &Path) -> Result<Self, Error> {
        Self::parse(text, path, [])
    }

    /// Parses the content of a file and the variables `SAFE_…`, which take precedence:
    /// [`Config::load`] without file access, for fuzzing (`fuzz/`).
    ///
    /// # Errors
    /// When `text` is not JSON, or with all problems at once.
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

    /// The keys that differ from `other` and that a reload cannot change.
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

    /// Reads every key once, in the order of the example. Problems go to the reader, and a default
    /// replaces an invalid value, so that all problems are found.
    fn read(reader: &mut Reader<'_>, directory: &Path) -> Self {
        let file = |path: String| directory.join(path);
        let days = |reader: &mut Reader<'_>, key, default, least| {
            u32::try_from(reader.number(key, default, least..=MAX_DAYS)).unwrap_or(u32::MAX)
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
            base_path: reader.string("basePath", "/", base_path),
            tls: Tls::read(reader, file),
            trusted_proxies: reader.list("trustedProxies", &[], network),
            proxy_protocol: reader.bool("proxyProtocol", false),
            accounts_file: file(reader.string("accountsFile", "accounts.json", path)),
            anonymous_restore: reader.bool("anonymousRestore", false),
            allow_anonymous: reader.bool("allowAnonymous", false),
            storage: Storage::read(reader, file),
            admin_listen: reader.section("admin", |admin| {
                admin.string("listen", "127.0.0.1:9180", address)
            }),
            limits: reader.section("limits", |limits| {
                let seconds = |limits: &mut Reader<'_>, key, default| {
                    Duration::from_secs(limits.number(key, default, 1..=MAX_SECONDS))
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
                    rate_limits: RateLimits::read(limits),
                }
            }),
            quotas: reader.section("quotas", |quotas| Quotas::read(quotas, max_backup_bytes)),
            log: reader.section("log", Log::read),
        };
        if config.limits.upload_memory < max_backup_bytes {
            reader.problem(
                "limits.uploadMemoryBytes",
                "must be at least maxBackupBytes, or no upload could start",
            );
        }
        network::check(
            reader,
            &config.listen,
            &config.tls,
            !config.trusted_proxies.is_empty(),
            config.proxy_protocol,
        );
        config
    }
}

#[cfg(test)]
mod tests;
