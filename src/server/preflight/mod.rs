//! Looks at everything that the server would refuse, and at what would fail later.

mod acme;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::account::{self, Authenticator, Role};
use crate::config::{Config, Listen, Storage, Tls, TlsFiles};
use crate::error_chain::with_causes;
use crate::server::net::listener::is_stale_socket;
use crate::server::tls::pem as tls;
use crate::state::StateFile;
use crate::store::FileStore;

/// Apple's bound on a certificate's validity, for private authorities (support.apple.com/103769).
const LONGEST_VALIDITY: Duration = Duration::from_secs(825 * 24 * 60 * 60);
/// A certificate that ends earlier wants a look.
const SOON: Duration = Duration::from_secs(21 * 24 * 60 * 60);
/// Less free space wants a look.
const LITTLE_SPACE: u64 = 1 << 30;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works now, or works for some.
    Warning,
    /// Does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key of the configuration that it is about.
    pub place: &'static str,
    /// What was found, and the remedy.
    pub text: String,
}

/// All findings so far.
#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, severity: Severity, place: &'static str, text: impl Into<String>) {
        self.0.push(Finding {
            severity,
            place,
            text: text.into(),
        });
    }
}

/// Looks at everything; changes nothing but that missing data directories are made.
#[must_use]
pub fn check(config: &Config, now: SystemTime) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_tls(&mut findings, config, now);
    check_accounts(&mut findings, config);
    check_storage(&mut findings, config);
    for listen in &config.listen {
        match listen {
            Listen::Tcp(address) => check_address(&mut findings, "listen", *address),
            Listen::Unix(path) => check_socket(&mut findings, path),
        }
    }
    check_address(&mut findings, "admin.listen", config.admin_listen);
    check_settings(&mut findings, config);
    if rustix::process::geteuid().is_root() {
        let text = "root may read and write everything: run check as the server's user to see what that user may";
        findings.add(Severity::Good, "rights", text);
    }
    findings.0
}

fn check_tls(findings: &mut Findings, config: &Config, now: SystemTime) {
    match &config.tls {
        Tls::Off => {
            let text = "is off: a proxy in front has the certificate, which is not looked at here; without TLS, only \
                        loopback, Unix sockets and trustedProxies are heard";
            findings.add(Severity::Good, "tls", text);
        }
        Tls::Files(files) => {
            check_certificate(findings, config, files, "tls.certificateFile", now);
        }
        Tls::Acme(its) => acme::check(findings, config, its, now),
    }
}

/// Looks at the files that handshakes use; what is found about the certificate is about `place`.
pub(crate) fn check_certificate(
    findings: &mut Findings,
    config: &Config,
    files: &TlsFiles,
    place: &'static str,
    now: SystemTime,
) {
    let key = match tls::load(files) {
        Ok(key) => key,
        Err(error) => return findings.add(Severity::Error, "tls", with_causes(&error)),
    };
    findings.add(
        Severity::Good,
        "tls",
        "certificate and private key are a pair",
    );
    check_private(findings, "tls.privateKeyFile", &files.private_key);
    if let Some((leaf, intermediates)) = key.cert.split_first() {
        check_leaf(findings, place, leaf, now);
        check_chain(findings, config, place, (leaf, intermediates), now);
    }
}

/// What App Transport Security asks of a certificate (Apple, "Preventing insecure network connections").
fn check_leaf(
    findings: &mut Findings,
    place: &'static str,
    leaf: &CertificateDer<'_>,
    now: SystemTime,
) {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return findings.add(
            Severity::Error,
            place,
            "the first certificate cannot be read",
        );
    };
    let (begin, end) = (
        seconds(certificate.validity().not_before.timestamp()),
        seconds(certificate.validity().not_after.timestamp()),
    );
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if now > end {
        findings.add(
            Severity::Error,
            place,
            "the certificate has expired: no phone connects",
        );
    } else if now < begin {
        findings.add(
            Severity::Error,
            place,
            "the certificate is not valid yet: no phone connects",
        );
    } else {
        let left = end - now;
        let severity = if left < SOON {
            Severity::Warning
        } else {
            Severity::Good
        };
        let days = left.as_secs() / (24 * 60 * 60);
        findings.add(
            severity,
            place,
            format!("the certificate is valid for {days} more days"),
        );
    }
    if end.saturating_sub(begin) > LONGEST_VALIDITY {
        findings.add(
            Severity::Error,
            place,
            "the certificate is valid for more than 825 days: iPhones refuse it",
        );
    }
    if certificate.is_ca() {
        findings.add(
            Severity::Error,
            place,
            "the first certificate is an authority's: put the server's own first",
        );
    }
    if !matches!(certificate.subject_alternative_name(), Ok(Some(names)) if !names.value.general_names.is_empty())
    {
        findings.add(
            Severity::Error,
            place,
            "the certificate has no subject alternative name: no phone accepts it",
        );
    }
    if let Ok(Some(usage)) = certificate.extended_key_usage()
        && !(usage.value.server_auth || usage.value.any)
    {
        findings.add(
            Severity::Error,
            place,
            "the certificate is not for servers (extended key usage)",
        );
    }
    let strong = match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() >= 2048,
        Ok(PublicKey::EC(key)) => key.key_size() >= 256,
        _ => false,
    };
    if !strong {
        findings.add(
            Severity::Error,
            place,
            "the key is weaker than RSA 2048 or ECDSA P-256: iPhones refuse it",
        );
    }
    // sha1WithRSAEncryption, md5WithRSAEncryption, ecdsa-with-SHA1.
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    if [
        "1.2.840.113549.1.1.5",
        "1.2.840.113549.1.1.4",
        "1.2.840.10045.4.1",
    ]
    .contains(&signature.as_str())
    {
        findings.add(
            Severity::Error,
            place,
            "the certificate is signed with SHA-1 or MD5: phones refuse it",
        );
    }
}

/// Would a phone that trusts what this system trusts accept the chain for the public name?
fn check_chain(
    findings: &mut Findings,
    config: &Config,
    place: &'static str,
    (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    now: SystemTime,
) {
    let host = public_host(config);
    let Some(Ok(name)) = host.map(ServerName::try_from) else {
        return findings.add(
            Severity::Warning,
            "publicUrl",
            "not set: the certificate's name cannot be checked",
        );
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
    else {
        return findings.add(
            Severity::Warning,
            place,
            "this system trusts no authority: the chain cannot be checked",
        );
    };
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    match verifier.verify_server_cert(leaf, intermediates, &name, &[], now) {
        Ok(_) => findings.add(
            Severity::Good,
            place,
            "the chain is complete, trusted here and covers publicUrl",
        ),
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            let text = "no authority that this system trusts has issued the certificate, or an intermediate is missing \
                        from the file: phones connect only where the authority is installed on each of them";
            findings.add(Severity::Warning, place, text);
        }
        Err(error) => findings.add(
            Severity::Error,
            place,
            format!("phones refuse the certificate: {error}"),
        ),
    }
}

/// The host of the public URL.
pub(crate) fn public_host(config: &Config) -> Option<String> {
    let url = config.public_url.as_deref()?.parse::<::http::Uri>().ok()?;
    let host = url.host()?;
    Some(host.trim_matches(['[', ']']).to_owned())
}

/// The accounts of a configuration; a file that does not exist is no problem where everybody may come in.
pub(crate) fn open_authenticator(config: &Config) -> Result<Authenticator, account::FileError> {
    if config.allow_anonymous && !config.accounts_file.exists() {
        return Authenticator::without_accounts(&config.accounts_file);
    }
    Authenticator::open(&config.accounts_file)
}

fn check_accounts(findings: &mut Findings, config: &Config) {
    let place = "accountsFile";
    if config.allow_anonymous {
        findings.add(
            Severity::Warning,
            "allowAnonymous",
            "is on: everybody on the Internet may store backups here",
        );
    }
    if let Err(error) = open_authenticator(config) {
        return findings.add(Severity::Error, place, with_causes(&error));
    }
    let accounts = account::load(&config.accounts_file).unwrap_or_default();
    let phones = accounts
        .iter()
        .filter(|a| a.role == Role::Phone && !a.disabled)
        .count();
    match (phones, config.allow_anonymous) {
        (0, true) => {}
        (0, false) => {
            let severity = if accounts.is_empty() {
                Severity::Error
            } else {
                Severity::Warning
            };
            findings.add(
                severity,
                place,
                "no account for phones; add one with `account add NAME`",
            );
        }
        (1, _) => findings.add(Severity::Good, place, "one account for phones"),
        (many, _) => findings.add(Severity::Good, place, format!("{many} accounts for phones")),
    }
    if config.accounts_file.exists() {
        check_private(findings, place, &config.accounts_file);
    }
}

pub(crate) fn check_private(findings: &mut Findings, place: &'static str, path: &Path) {
    if std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0) {
        let mode = if path.is_dir() { "700" } else { "600" };
        let path = path.display();
        let text = format!("{path} is open to every user of this machine: chmod {mode}");
        findings.add(Severity::Warning, place, text);
    }
}

fn check_storage(findings: &mut Findings, config: &Config) {
    let place = "storage.files.directory";
    let Storage::Files { directory } = &config.storage;
    if let Err(error) = FileStore::open(directory) {
        return findings.add(Severity::Error, place, with_causes(&error));
    }
    findings.add(Severity::Good, place, "can be written");
    check_private(findings, place, directory);
    if let Err(error) = StateFile::in_directory(directory).load() {
        let text = format!("sweeps remove nothing: {}", with_causes(&error));
        findings.add(Severity::Warning, place, text);
    }
    // A file system without blocks does not count them.
    if let Some(space) = rustix::fs::statvfs(directory)
        .ok()
        .filter(|s| s.f_blocks > 0)
    {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let severity = if free < LITTLE_SPACE {
            Severity::Warning
        } else {
            Severity::Good
        };
        findings.add(severity, place, format!("{} MiB are free", free >> 20));
    }
}

fn check_address(findings: &mut Findings, place: &'static str, address: SocketAddr) {
    match std::net::TcpListener::bind(address) {
        Ok(_) => findings.add(
            Severity::Good,
            place,
            format!("{address} can be listened on"),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let text = format!("something listens on {address} already, perhaps this server");
            findings.add(Severity::Warning, place, text);
        }
        Err(error) => findings.add(
            Severity::Error,
            place,
            format!("cannot listen on {address}: {error}"),
        ),
    }
}

fn check_socket(findings: &mut Findings, path: &Path) {
    let place = "listen";
    let shown = path.display();
    if path.symlink_metadata().is_ok() && !is_stale_socket(path) {
        let text = format!("something is at {shown} already, perhaps the socket of this server");
        return findings.add(Severity::Warning, place, text);
    }
    let directory = path.parent().unwrap_or(path);
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!(
            "cannot make the socket {shown}: {} is missing or cannot be written to",
            directory.display()
        );
        return findings.add(Severity::Error, place, text);
    }
    findings.add(Severity::Good, place, format!("{shown} can be listened on"));
}

fn check_settings(findings: &mut Findings, config: &Config) {
    if !config.admin_listen.ip().is_loopback() {
        let text = "is not a loopback address: whoever reaches it needs no password";
        findings.add(Severity::Warning, "admin.listen", text);
    }
    if !config.anonymous_restore {
        let text = "is off: iOS 7.2 to 7.2.2 cannot restore from this server (it sends the wrong password)";
        findings.add(Severity::Warning, "anonymousRestore", text);
    }
    if config.retention_margin_days == 0 {
        let text = "is 0: an iPhone renews unchanged data only after the full retentionDays, so that its backup \
                    may be removed just before";
        findings.add(Severity::Warning, "retentionMarginDays", text);
    }
}

fn seconds(timestamp: i64) -> Duration {
    Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}
