//! Where the certificate of the public listener comes from: the section `tls`.

use std::path::PathBuf;

use http::Uri;

use super::reader::Reader;
use super::value::path;

/// The authority that is asked where no other is named: Let's Encrypt.
const DIRECTORY_URL: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The keys of the pair of files, which stand there instead of `acme`.
const FILE_KEYS: [&str; 2] = ["certificateFile", "privateKeyFile"];

/// Where the public listener has its certificate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// It has none: a proxy in front ends TLS.
    Off,
    /// Files, which somebody else renews.
    Files(TlsFiles),
    /// An authority that is asked for it, and again before it ends.
    Acme(Acme),
}

/// PEM files of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub private_key: PathBuf,
}

/// How an authority is asked for a certificate (ACME, RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// What the certificate is for: DNS names, in lower case, each once.
    pub domains: Vec<String>,
    /// Where the authority can write to, as a `mailto:` URL.
    pub contact: Option<String>,
    /// The authority's directory.
    pub directory_url: String,
    /// Where account, certificate and key are kept.
    pub directory: PathBuf,
    /// PEM file of what the authority's own certificate is signed by, where this system does not trust it.
    pub authority_file: Option<PathBuf>,
}

impl Tls {
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
                    let text = "cannot stand beside acme: the certificate comes from files, or from an authority that \
                                is asked for it; leave one of the two out (in the environment, set this to nothing)";
                    tls.problem(key, text);
                }
            }
            Self::Acme(acme)
        })
    }

    /// The pair of files that somebody else renews, if it is one.
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
            acme.problem("domains", "must name at least one domain");
        } else if sorted.len() < domains.len() {
            acme.problem("domains", "names a domain twice");
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

/// A DNS name that an authority can validate over TLS.
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
            "must be a DNS name such as \"safe.example.org\" (no IP address, no \"*\"; other letters as xn--…), not \
             \"{text}\""
        ))
    }
}

/// An address for mail, with or without `mailto:`.
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
        _ => Err(format!("must be an address for mail, not \"{text}\"")),
    }
}

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
        Err("must be the https URL of an ACME directory, without user name and password".into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Error};
    use super::*;

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
    fn an_authority_is_asked_where_acme_stands() {
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
    fn files_and_acme_do_not_stand_side_by_side() {
        let acme = r#""acme": { "domains": ["a.example"] }"#;
        let both = parse(&format!(r#"{{ {acme}, "certificateFile": "a.pem" }}"#), &[]);
        let problems = both.unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("tls.certificateFile: cannot stand beside acme"),
            "{problems:?}"
        );

        // An image sets variables that can only be set to nothing.
        let variables = |value| {
            [
                ("SAFE_TLS__ACME__DOMAINS", "a.example, b.example"),
                ("SAFE_TLS__PRIVATE_KEY_FILE", value),
            ]
        };
        let problems = parse("{}", &variables("/key.pem")).unwrap_err();
        assert!(
            problems[0].starts_with("SAFE_TLS__PRIVATE_KEY_FILE: cannot stand"),
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
            ("[]", "tls.acme.domains: must name at least one domain"),
            (
                r#"["a.example", "A.example"]"#,
                "tls.acme.domains: names a domain twice",
            ),
        ] {
            let problems = parse(&format!(r#"{{ "acme": {{ "domains": {bad} }} }}"#), &[]);
            assert_eq!(problems, Err(vec![expected.to_owned()]));
        }
    }

    #[test]
    fn other_values_of_acme_are_looked_at() {
        for (key, bad, expected) in [
            ("contact", "ops", "must be an address for mail"),
            ("contact", "a@b, c@d", "must be an address for mail"),
            ("directoryUrl", "http://a/dir", "must be the https URL"),
            ("directoryUrl", "https://u:p@a/dir", "must be the https URL"),
            ("directory", "", "must name a file"),
        ] {
            let text = format!(r#"{{ "acme": {{ "domains": ["a.example"], "{key}": "{bad}" }} }}"#);
            let problems = parse(&text, &[]).unwrap_err();
            let expected = format!("tls.acme.{key}: {expected}");
            assert!(problems[0].starts_with(&expected), "{problems:?}");
        }
    }
}
