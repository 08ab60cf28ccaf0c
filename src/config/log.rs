//! Log format, log level and client addresses in the log: the section `log`.

use super::reader::Reader;

/// Settings of the log, which is written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// The lowest level that is logged.
    pub level: tracing::Level,
    /// How much of the client's address the access log contains.
    pub client_addresses: ClientAddresses,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object a line.
    Json,
    /// For systemd: as `Text`, with the severity prefix of sd-daemon(3), and without the time,
    /// which the journal adds.
    Journald,
}

/// How much of a client's address is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAddresses {
    /// No address.
    #[default]
    None,
    /// The network only: the /24 of an IPv4 address, the /48 of an IPv6 address.
    Truncated,
    /// The whole address.
    Full,
}

impl Log {
    /// Reads the section `log`.
    pub(super) fn read(log: &mut Reader<'_>) -> Self {
        Self {
            format: log.string("format", "text", format),
            level: log.string("level", "info", level),
            client_addresses: log.string("clientAddresses", "none", client_addresses),
        }
    }
}

fn format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        other => Err(format!(
            "must be \"text\", \"json\" or \"journald\", not \"{other}\""
        )),
    }
}

fn level(text: &str) -> Result<tracing::Level, String> {
    match text {
        "error" => Ok(tracing::Level::ERROR),
        "warn" => Ok(tracing::Level::WARN),
        "info" => Ok(tracing::Level::INFO),
        "debug" => Ok(tracing::Level::DEBUG),
        "trace" => Ok(tracing::Level::TRACE),
        other => Err(format!(
            "must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\", not \"{other}\""
        )),
    }
}

fn client_addresses(text: &str) -> Result<ClientAddresses, String> {
    match text {
        "none" => Ok(ClientAddresses::None),
        "truncated" => Ok(ClientAddresses::Truncated),
        "full" => Ok(ClientAddresses::Full),
        other => Err(format!(
            "must be \"none\", \"truncated\" or \"full\", not \"{other}\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Error};

    fn parse(text: &str) -> Result<Config, Error> {
        Config::from_json(text.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn no_address_is_logged_unless_configured() {
        for (text, expected) in [
            ("{}", ClientAddresses::None),
            (r#"{ "log": {} }"#, ClientAddresses::None),
            (
                r#"{ "log": { "clientAddresses": "none" } }"#,
                ClientAddresses::None,
            ),
            (
                r#"{ "log": { "clientAddresses": "truncated" } }"#,
                ClientAddresses::Truncated,
            ),
            (
                r#"{ "log": { "clientAddresses": "full" } }"#,
                ClientAddresses::Full,
            ),
        ] {
            assert_eq!(parse(text).unwrap().log.client_addresses, expected);
        }
        let Err(Error::Invalid { problems, .. }) =
            parse(r#"{ "log": { "clientAddresses": "all" } }"#)
        else {
            panic!("accepted");
        };
        assert_eq!(
            problems[0].to_string(),
            "log.clientAddresses: must be \"none\", \"truncated\" or \"full\", not \"all\""
        );
    }
}
