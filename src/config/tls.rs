//! Source of the public listener's certificate: the section `tls`.

use std::path::PathBuf;

use http::Uri;

use super::reader::Reader;
use super::value::path;

/// The default ACME directory: Let's Encrypt.
const DIRECTORY_URL: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The keys of the certificate files, which cannot be combined with `acme`.
const FILE_KEYS: [&str; 2] = ["certificateFile", "privateKeyFile"];

/// The source of the public listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// No TLS: a proxy in front terminates it.
    Off,
    /// Certificate files that another program renews.
    Files(TlsFiles),
    /// Automatic certificates (ACME), renewed before they expire.
    Acme(Acme),
}

/// The certificate files of the public listener, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub private_key: PathBuf,
}

/// Settings for automatic certificates (ACME, RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The certificate's DNS names: in lower case, without duplicates.
    pub domains: Vec<String>,
    /// The contact of the ACME account, as a `mailto:` URL.
    pub contact: Option<String>,
    /// The URL of the ACME directory.
    pub directory_url: String,
    /// The directory where account, certificate and key are stored.
    pub directory: PathBuf,
    /// A PEM file with the root certificate of the ACME server, if the system does not trust it.
    pub authority_file: Option<PathBuf>,
}

impl Tls {
    /// Reads `tls`, which is `"off"` or a section; `file` resolves paths against the
    /// configuration's directory.
    pub(super) fn read(reader: &mut Reader<'_>, file: impl Fn(String) -> PathBuf) -> Self {
        if reader.equals("tls", "off") {
            return Self::Off;
        }
        reader.section("tls", |tls| {
            if !tls.is_set("acme") {
                let [certificate, private_key] = FILE_KEYS;
                return Self::Files(TlsFiles {
                    certificate: file(tls.string(certificate, "certs/fullchain.pem", path)),
                    private_key: file(tls.string(private_key, "certs/privkey.pem", path)),
                });
            }
            let acme = tls.section("acme", |acme| Acme::read(acme, &file));
            for key in FILE_KEYS {
                if tls.is_set(key) {
                    let text = "cannot be combined with tls.acme: the certificate comes either from \
                                files or from ACME; remove one of the two (in the environment, set this to an empty string)";
                    tls.problem(key, text);
                }
            }
            Self::Acme(acme)
        })
    }

    /// The certificate files; `None` with ACME or without TLS.
    #[must_use]
    pub fn files(&self) -> Option<&TlsFiles> {
        match self {
            Self::Files(files) => Some(files),
            Self::Off | Self::Acme(_) => None,
        }
    }
}

impl Acme {
    fn read(acme: &mut Reader<'_>, file: impl Fn(String) -> PathBuf) -> Self {
        let has_domains = acme.is_set("domains");
        let domains = acme.list("domains", &[], domain);
        let mut sorted = domains.clone();
        sorted.sort();
        sorted.dedup();
        if !has_domains {
            acme.problem("domains", "must list at least one domain");
        } else if sorted.len() < domains.len() {
            acme.problem("domains", "lists a domain twice");
        }
        Self {
            domains,
            contact: acme.optional("contact", contact),
            directory_url: acme.string("directoryUrl", DIRECTORY_URL, directory_url),
            directory: file(acme.string("directory", "acme", path)),
            authority_file: acme.optional("authorityFile", path).map(file),
        }
    }
}

/// Parses a DNS name that an ACME server can validate over TLS (no address, no wildcard).
fn domain(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_address = |name: &str| {
        name.rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if name.len() <= 253 && name.split('.').all(is_label) && !is_address(&name) {
        Ok(name)
    } else {
        Err(format!(
            "must be a DNS name such as \"safe.example.org\" (no IP address, no \"*\"; other letters in \
             Punycode, as xn--…), not \"{text}\""
        ))
    }
}

/// Parses an e-mail address, with or without `mailto:`, and adds `mailto:`.
fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    match address.split_once('@') {
        Some((name, host))
            if plain(name)
                && plain(host)
                && !host.contains('@')
                && !address.contains([',', '?']) =>
        {
            Ok(format!("mailto:{address}"))
        }
        _ => Err(format!("must be an e-mail address, not \"{text}\"")),
    }
}

/// Parses the URL of an ACME directory.
fn directory_url(text: &str) -> Result<String, String> {
    let url: Option<Uri> = text.parse().ok();
    let is_plain = url.is_some_and(|url| {
        url.scheme_str() == Some("https")
            && url
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_plain && !text.contains('#') {
        Ok(text.into())
    } else {
        Err(
            "must be the https URL of an ACME directory, without user name, password and fragment"
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Error};

    fn parse(tls: &str, environment: &[(&str, &str)]) -> Result<Tls, Vec<String>> {
        let environment = environment
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        let text = format!(r#"{{ "tls": {tls} }}"#);
        let file = Path::new("/etc/safe/config.json");
        match Config::parse(text.as_bytes(), file, environment) {
            Ok(config) => Ok(config.tls),
            Err(Error::Invalid { problems, .. }) => {
                Err(problems.iter().map(ToString::to_string).collect())
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn acme_is_used_if_it_is_configured() {
        let read = parse(
            r#"{ "acme": { "domains": ["Safe.example.org", "xn--bcher-kva.example"], "contact": "ops@example.org",
                "authorityFile": "ca.pem" } }"#,
            &[],
        );

        let expected = Acme {
            domains: vec!["safe.example.org".into(), "xn--bcher-kva.example".into()],
            contact: Some("mailto:ops@example.org".into()),
            directory_url: DIRECTORY_URL.into(),
            directory: "/etc/safe/acme".into(),
            authority_file: Some("/etc/safe/ca.pem".into()),
        };
        assert_eq!(read, Ok(Tls::Acme(expected)));
        assert!(parse(r#"{ "acme": null }"#, &[]).unwrap().files().is_some());
    }

    #[test]
    fn files_and_acme_cannot_be_combined() {
        let acme = r#""acme": { "domains": ["a.example"] }"#;
        let both = parse(&format!(r#"{{ {acme}, "certificateFile": "a.pem" }}"#), &[]);
        let problems = both.unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("tls.certificateFile: cannot be combined with tls.acme"),
            "{problems:?}"
        );

        // A container image may set variables that can be emptied, but not unset.
        let variables = |value| {
            [
                ("SAFE_TLS__ACME__DOMAINS", "a.example, b.example"),
                ("SAFE_TLS__PRIVATE_KEY_FILE", value),
            ]
        };
        let problems = parse("{}", &variables("/key.pem")).unwrap_err();
        assert!(
            problems[0].starts_with("SAFE_TLS__PRIVATE_KEY_FILE: cannot be combined"),
            "{problems:?}"
        );
        let Ok(Tls::Acme(acme)) = parse("{}", &variables("")) else {
            panic!("not taken");
        };
        assert_eq!(acme.domains, ["a.example", "b.example"]);
    }

    #[test]
    fn domains_are_dns_names() {
        for bad in [
            "",
            "192.0.2.1",
            "::1",
            "*.example.org",
            "a..example",
            "-a.example",
            "a b",
            "bücher.example",
            "a.example.",
            "a.example:443",
        ] {
            let problems = parse(&format!(r#"{{ "acme": {{ "domains": ["{bad}"] }} }}"#), &[]);
            let problems = problems.unwrap_err();
            assert!(
                problems[0].starts_with("tls.acme.domains[0]: must be a DNS name"),
                "{problems:?}"
            );
        }
        for (bad, expected) in [
            ("[]", "tls.acme.domains: must list at least one domain"),
            (
                r#"["a.example", "A.example"]"#,
                "tls.acme.domains: lists a domain twice",
            ),
        ] {
            let problems = parse(&format!(r#"{{ "acme": {{ "domains": {bad} }} }}"#), &[]);
            assert_eq!(problems, Err(vec![expected.to_owned()]));
        }
    }

    #[test]
    fn other_values_of_acme_are_validated() {
        for (key, bad, expected) in [
            ("contact", "ops", "must be an e-mail address"),
            ("contact", "a@b, c@d", "must be an e-mail address"),
            ("directoryUrl", "http://a/dir", "must be the https URL"),
            ("directoryUrl", "https://u:p@a/dir", "must be the https URL"),
            ("directory", "", "must not be empty"),
        ] {
            let text = format!(r#"{{ "acme": {{ "domains": ["a.example"], "{key}": "{bad}" }} }}"#);
            let problems = parse(&text, &[]).unwrap_err();
            let expected = format!("tls.acme.{key}: {expected}");
            assert!(problems[0].starts_with(&expected), "{problems:?}");
        }
    }
}
