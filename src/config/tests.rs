//! Unit tests of reading a configuration.

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
        Err(Error::Invalid { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
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
        "maxBackupBytes: must be an integer from 4096 to 268435456",
        "retentionDays: must be an integer from 1 to 36500",
        "listen[1]: must be an IP address",
        "basePath: must be a path",
        "tls.certificateFile: must be a string",
        "tls.privatKeyFile: unknown key",
        "anonymousRestore: must be true or false",
        "storage.files: must be an object",
        "log.level: must be \"error\"",
        "retentionDay: unknown key",
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
fn a_duplicate_key_is_an_error() {
    let Err(Error::Json { source, .. }) = parse("{\"trashDays\": 1,\n \"trashDays\": 2}") else {
        panic!("accepted");
    };
    assert!(
        source
            .to_string()
            .starts_with("duplicate key \"trashDays\""),
        "{source}"
    );
}

#[test]
fn the_environment_takes_precedence_and_its_errors_name_the_variable() {
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
    assert!(problems[0].starts_with("SAFE_RETENTION_DAYS: must be an integer"));
    assert!(
        problems[1].starts_with("SAFE_TLS: must be an object"),
        "{problems:?}"
    );
    assert!(problems[2].starts_with("SAFE_RETENTION_DAY: unknown key"));
}

#[test]
fn a_variable_does_not_hide_problems_in_the_parents_of_its_key() {
    let variables = [
        ("SAFE_RETENTION_DAYS", "30"),
        ("SAFE_TLS__CERTIFICATE_FILE", "a.pem"),
    ];
    for (text, expected) in [
        ("[]", "the file: must be a JSON object"),
        ("null", "the file: must be a JSON object"),
        (r#"{"tls": "a.pem"}"#, "tls: must be an object"),
    ] {
        assert_eq!(problems(text, &variables), [expected], "{text}");
    }
    assert!(problems(r#"{"tls": null}"#, &variables).is_empty());
    let both = [("SAFE_TLS", "a"), ("SAFE_TLS__CERTIFICATE_FILE", "a.pem")];
    assert_eq!(problems("{}", &both), ["SAFE_TLS: must be an object"]);
}

#[test]
fn variables_of_other_programs_are_ignored() {
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
