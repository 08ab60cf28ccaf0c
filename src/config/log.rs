//! What is logged, and how: the section `log`.

use super::reader::Reader;

/// How logs are written, to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
    /// What the line of a request tells of where it came from.
    pub client_addresses: ClientAddresses,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// For systemd: as `Text`, with the severity in front as sd-daemon(3) has it, and without the time, which the journal
    /// adds.
    Journald,
}

/// How much of a client's address is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAddresses {
    /// Nothing.
    #[default]
    None,
    /// The network alone: a /24 of IPv4, a /48 of IPv6.
    Truncated,
    /// All of it.
    Full,
}

impl Log {
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

    use super::super::{Config, Error};
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::from_json(text.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn no_address_is_logged_unless_somebody_says_so() {
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
