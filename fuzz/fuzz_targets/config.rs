//! The configuration file and the environment: any input gives a consistent configuration or a list
//! of problems with texts.
//!
//! The input is the file's text; after a zero byte, which JSON cannot contain, come variables such
//! as `SAFE_RETENTION_DAYS=30`, separated by zero bytes. The text is also tried as the value of
//! single keys.

#![no_main]

use std::path::Path;

use http::Uri;
use libfuzzer_sys::fuzz_target;
use threema_safe_server::config::{Config, Error, Tls};

/// Path of the configuration file. It does not exist, and no file may be read or created there.
const FILE: &str = "/nonexistent/threema-safe-server/config.json";

/// Variables for whose values the text is tried, too.
const TEXTS: [&str; 3] = ["SAFE_BASE_PATH", "SAFE_PUBLIC_URL", "SAFE_LISTEN"];

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|&byte| byte == 0);
    let text = parts.next().unwrap_or_default();
    let environment: Vec<_> = parts.filter_map(variable).collect();
    check(text, &environment);

    // The text as the value of one key, so that the fuzzer need not find the JSON around it.
    if let Ok(text) = str::from_utf8(text) {
        for name in TEXTS {
            check(b"{}", &[(name.to_owned(), text.to_owned())]);
        }
    }
});

fn check(text: &[u8], environment: &[(String, String)]) {
    match parse(text, environment) {
        Ok(config) => {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(text);
            assert!(value.is_ok_and(|value| value.is_object()), "no object");
            assert!(
                parse(text, environment).is_ok_and(|again| again == config),
                "read twice, and different"
            );
            check_invariants(&config);
        }
        Err(Error::Invalid { problems, .. }) => {
            assert!(
                !problems.is_empty(),
                "neither a configuration nor a problem"
            );
            for problem in problems {
                assert!(!problem.text.is_empty(), "{:?} has no text", problem.place);
                // The place is empty if the key is the empty string.
                assert!(!problem.to_string().is_empty(), "a problem has no text");
            }
        }
        Err(Error::Json { source, .. }) => {
            assert!(!source.to_string().is_empty(), "an error has no text");
        }
        Err(error @ (Error::Missing(_) | Error::Read { .. })) => {
            panic!("a file was accessed: {error}")
        }
    }
}

fn parse(text: &[u8], environment: &[(String, String)]) -> Result<Config, Error> {
    Config::parse(text, Path::new(FILE), environment.iter().cloned())
}

fn variable(part: &[u8]) -> Option<(String, String)> {
    let (name, value) = str::from_utf8(part).ok()?.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

/// Checks the invariants on which the rest of the program relies.
fn check_invariants(config: &Config) {
    assert!(!config.listen.is_empty(), "nothing to listen on");
    assert!((4_096..=268_435_456).contains(&config.max_backup_bytes));
    assert!(config.limits.upload_memory >= config.max_backup_bytes);
    assert!(config.limits.connections > 0);
    let limits = &config.limits;
    for limit in [limits.handshake, limits.header, limits.body, limits.drain] {
        assert!((1..=3_600).contains(&limit.as_secs()));
    }
    assert!((1..=36_500).contains(&config.retention_days));

    // Every resource has a path that is valid in a URI and has no other spelling.
    let base = &config.base_path;
    assert!(base.starts_with('/') && base.ends_with('/'), "{base:?}");
    let path = format!("{base}backups/{}", "0".repeat(64));
    let uri: Uri = path.parse().expect("a base path stands in a URI");
    assert_eq!(uri.path(), path);
    assert!(!path.contains("//") && !path.contains("/./") && !path.contains("/../"));

    if let Some(url) = &config.public_url {
        let uri: Uri = url.parse().expect("a public URL is one");
        assert_eq!(uri.scheme_str(), Some("https"), "{url:?}");
        assert!(url.ends_with('/'), "{url:?}");
        let odd = |character: char| character.is_whitespace() || "<>#?".contains(character);
        assert!(!url.contains(odd), "{url:?}");
    }

    // Paths are relative to the file, and absolute ones stay as they are.
    let directory = config.storage.description().local_directory.to_owned();
    let of_tls: Vec<_> = match &config.tls {
        Tls::Off => Vec::new(),
        Tls::Files(files) => vec![&files.certificate, &files.private_key],
        Tls::Acme(acme) => {
            assert!(!acme.domains.is_empty());
            let authority = acme.authority_file.as_ref();
            authority.into_iter().chain([&acme.directory]).collect()
        }
    };
    for path in of_tls
        .into_iter()
        .chain([&config.accounts_file, &directory])
    {
        assert!(path.is_absolute(), "{path:?}");
    }
}
