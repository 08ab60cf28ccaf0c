//! Commands of the server and of scripts: exit codes, messages, and their effects.

use crate::support::commands::{DOCUMENT, Folder, finish_beside, run, status};
use crate::support::process::{LoggingProcess, ServerProcess};
use crate::support::wire::Protocol;
use crate::support::{ID, Listening, Site, TestServer, backup_path, mode};

#[test]
fn every_error_of_a_configuration_is_listed_and_nothing_is_started() {
    let folder = Folder::new();
    folder.write(
        "config.json",
        r#"{"retentionDays": 0, "tls": {"cert": "x"}, "listen": ["nowhere"]}"#,
    );

    for command in ["serve", "check", "prune", "healthcheck"] {
        let (code, message) = folder.failed(&[command]);
        assert_eq!(code, 2, "{message}");
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 4, "{message}");
        assert_eq!(lines[0], "error: 3 errors in the configuration config.json");
        assert!(
            lines[1].starts_with("  retentionDays: must be"),
            "{message}"
        );
        assert!(lines[2].starts_with("  listen[0]: must be"), "{message}");
        assert!(lines[3].starts_with("  tls.cert: unknown key"), "{message}");
    }
    assert!(!folder.path("data/backups").exists());
}

#[test]
fn what_the_configuration_names_is_listed_at_once_too() {
    let folder = Folder::new();
    folder.write(
        "config.json",
        r#"{"listen": ["127.0.0.1:0"], "admin": {"listen": "127.0.0.1:0"}}"#,
    );

    let (code, message) = folder.failed(&["serve"]);

    assert_eq!(code, 2, "{message}");
    assert!(
        message.contains("\n  tls: certs/fullchain.pem cannot be read"),
        "{message}"
    );
    assert!(
        message.contains("\n  accountsFile: accounts file accounts.json: cannot be read"),
        "{message}"
    );
}

#[test]
fn without_a_configuration_there_is_a_hint() {
    let (code, message) = Folder::new().failed(&["serve"]);
    assert_eq!(code, 2);
    assert!(
        message.contains("config.json does not exist\nhint: `init` creates one"),
        "{message}"
    );
    let (code, _) = Folder::new().failed(&["--config", "other.json", "serve"]);
    assert_eq!(code, 2);
    let (code, _) = Folder::new().failed(&["no-such-command"]);
    assert_eq!(code, 2);
}

#[test]
fn accounts_are_added_listed_and_removed() {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    folder.write("chosen", "a chosen password\n");

    let added = folder.done(&["account", "add", "phones"]);
    let json = folder.done(&["account", "add", "boss", "--role", "operator", "--json"]);
    folder.done(&["account", "add", "büro", "--secret-file", "chosen"]);
    let secret = added
        .lines()
        .nth(1)
        .unwrap()
        .trim_start_matches("password")
        .trim();
    assert_eq!(secret.len(), 43, "{added}");
    assert!(
        json.starts_with(r#"{"name":"boss","role":"operator","password":""#),
        "{json}"
    );

    let file = std::fs::read_to_string(folder.path("accounts.json")).unwrap();
    assert!(!file.contains(secret) && !file.contains("a chosen password"));
    assert_eq!(mode(&folder.path("accounts.json")), 0o600);
    assert_eq!(
        folder.done(&["account", "list"]),
        "phone     phones\noperator  boss\nphone     büro\n"
    );
    assert!(
        folder
            .done(&["account", "list", "--json"])
            .contains(r#""name":"boss""#)
    );

    folder.done(&["account", "add", "it", "--role", "maintainer"]);
    assert_eq!(
        folder.done(&["account", "list"]),
        "phone       phones\noperator    boss\nphone       büro\nmaintainer  it\n"
    );

    let (code, message) = folder.failed(&["account", "add", "boss"]);
    assert_eq!(
        (code, message.trim()),
        (2, "error: account \"boss\" already exists")
    );
    folder.done(&["account", "remove", "boss"]);
    assert_eq!(folder.failed(&["account", "remove", "boss"]).0, 2);
    assert_eq!(folder.failed(&["account", "add", "a:b"]).0, 2);
    assert!(!folder.done(&["account", "list"]).contains("boss"));
}

#[test]
fn init_makes_an_installation_that_check_finds_good() {
    let folder = Folder::new();

    let said = folder.done(&[
        "init",
        "--yes",
        "--public-url",
        "https://safe.example.org",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert!(
        said.contains("Server     https://safe.example.org/\n"),
        "{said}"
    );
    assert!(said.contains("th_safe_server_username  phones\n"), "{said}");
    assert!(
        said.contains("th_safe_server_url       https://safe.example.org/\n"),
        "{said}"
    );
    assert_eq!(mode(&folder.path("certs/privkey.pem")), 0o600);

    let (code, message) = folder.failed(&["init", "--yes"]);
    assert_eq!(code, 2);
    assert!(message.contains("config.json already exists"), "{message}");

    std::fs::write(folder.path("config.json"), free_ports(&folder)).unwrap();
    let checked = folder.done(&["check"]);
    assert!(
        checked.contains("good      tls: certificate and private key are a pair\n"),
        "{checked}"
    );
    assert!(
        checked
            .contains("warning   tls.certificateFile: the certificate was issued by no authority"),
        "{checked}"
    );
    assert!(checked.ends_with("0 critical, 2 warnings\n"), "{checked}");
    assert!(!folder.path("data/backups").exists());
    let json: serde_json::Value = serde_json::from_str(&folder.done(&["check", "--json"])).unwrap();
    assert_eq!(json[0]["severity"], "good");
}

#[test]
fn init_serves_everything_under_the_path_of_the_public_url() {
    for (url, base_path) in [
        ("https://safe.example.org", "/"),
        ("https://example.org/safe", "/safe"),
        ("https://example.org/a/b/", "/a/b/"),
    ] {
        let folder = Folder::new();
        folder.done(&["init", "--yes", "--public-url", url]);
        let text = std::fs::read_to_string(folder.path("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["basePath"], base_path);

        folder.write("config.json", &free_ports(&folder));
        let checked = folder.done(&["check"]);
        assert!(!checked.contains("publicUrl:"), "{checked}");
    }
    // A path that cannot be one of this server is said, and nothing is written.
    let folder = Folder::new();
    let (code, message) = folder.failed(&[
        "init",
        "--yes",
        "--public-url",
        "https://example.org/x%2Fy/",
    ]);
    assert_ne!(code, 0);
    assert!(message.contains("basePath: must be a path"), "{message}");
    assert!(!folder.path("config.json").exists());
}

/// The configuration of the folder with ports that the system chooses.
fn free_ports(folder: &Folder) -> String {
    let text = std::fs::read_to_string(folder.path("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["listen"] = serde_json::json!(["127.0.0.1:0"]);
    config["admin"]["listen"] = "127.0.0.1:0".into();
    config.to_string()
}

#[test]
fn check_finds_what_phones_would_refuse() {
    let folder = Folder::new();
    folder.done(&["init", "--yes", "--public-url", "https://other.example.org"]);
    let text = free_ports(&folder).replace("other.example.org", "safe.example.org");
    folder.write("config.json", &text);
    folder.write("accounts.json", r#"{"accounts": []}"#);

    let output = folder.run(&["check"]);

    assert_eq!(output.code, Some(1));
    let said = output.out;
    assert!(
        said.contains("critical  accountsFile: the accounts file contains no accounts"),
        "{said}"
    );
}

#[test]
fn the_demo_plays_both_phones_and_spares_the_folders_of_others() {
    let folder = Folder::new();

    for _ in 0..2 {
        let said = folder.done(&["demo", "--once", "--directory", "demo"]);
        assert!(
            said.contains("Test as an Android phone") && said.contains("Test as an iPhone"),
            "{said}"
        );
        assert_eq!(
            said.matches("decrypt, and compare with the uploaded backup … ok")
                .count(),
            2,
            "{said}"
        );
        assert!(
            said.contains("every restored backup was identical, byte for byte"),
            "{said}"
        );
    }

    std::fs::create_dir(folder.path("mine")).unwrap();
    folder.write("mine/config.json", "mine");
    let (code, message) = folder.failed(&["demo", "--once", "--directory", "mine"]);
    assert_eq!(code, 2, "{message}");
    assert_eq!(
        std::fs::read_to_string(folder.path("mine/config.json")).unwrap(),
        "mine"
    );
}

#[test]
fn serve_is_healthy_works_with_the_client_and_stops_on_both_signals() {
    let folder = Folder::new();
    let said = folder.done(&["init", "--yes"]);
    folder.write("config.json", &free_ports(&folder));
    let secret = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Password   "))
        .unwrap();
    folder.write("secret", secret);
    folder.write("password", "a good password");
    folder.write("document.json", DOCUMENT);

    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut running = LoggingProcess::spawn(&mut folder.command(&["serve"]));
        let (address, admin) = running.listening();
        let server = format!("https://localhost:{}/", address.unwrap().port());
        let admin = format!(r#"{{"admin": {{"listen": "{admin}"}}}}"#);
        folder.write("admin.json", &admin);
        folder.done(&["--config", "admin.json", "healthcheck"]);

        for app in ["android", "ios"] {
            let server = [
                "--server",
                &server,
                "--username",
                "phones",
                "--secret-file",
                "secret",
            ];
            let identity = ["--id", "ECHOECHO", "--password-file", "password"];
            let trust = ["--ca", "certs/development-ca.pem", "--as", app];
            let client = |verb: &'static str, tail: &[&'static str]| {
                let login = [&["client", verb][..], &server, &trust].concat();
                let identity: &[&str] = if verb == "config" { &[] } else { &identity };
                folder.done(&[&login, identity, tail].concat())
            };
            assert_eq!(
                client("config", &[]),
                "{\"maxBackupBytes\":524288,\"retentionDays\":180}\n"
            );
            client("put", &["document.json"]);
            let whole = client("get", &["--json", "--private-key"]);
            assert_eq!(whole, format!("{DOCUMENT}\n"));
            client("delete", &[]);
        }

        running.signal(signal);
        let (code, log) = running.ended();
        let log = log.join("\n");
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
        assert!(
            !log.contains(secret) && !log.contains("good password"),
            "{log}"
        );
        assert_eq!(
            folder.run(&["--config", "admin.json", "healthcheck"]).code,
            Some(1)
        );
    }
}

/// As in a container that has nothing but the program.
#[tokio::test]
async fn a_system_without_trusted_authorities_can_ask_its_server() {
    let server = TestServer::start().await;
    let folder = Folder::new();
    let config = serde_json::json!({ "admin": { "listen": server.admin_address().to_string() } });
    folder.write("config.json", &config.to_string());
    folder.write("none.pem", "");

    for command in ["healthcheck", "status"] {
        let mut asked = folder.command(&[command]);
        asked.env("SSL_CERT_FILE", "none.pem");
        let output = finish_beside(asked).await;
        assert_eq!(output.code, Some(0), "{command}: {}", output.errors);
    }
}

#[test]
fn prune_works_without_a_server() {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    let backups = folder.path("data/backups");
    std::fs::create_dir_all(&backups).unwrap();
    let old = std::fs::File::create(backups.join(ID)).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();

    let dry = folder.done(&["prune", "--dry-run"]);
    assert!(
        dry.starts_with("backups: 0 kept, 1 would be removed\n"),
        "{dry}"
    );
    let wet = folder.done(&["prune", "--force"]);
    assert!(wet.starts_with("backups: 0 kept, 1 removed\n"), "{wet}");
    assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 0);
}

/// If the disk of a running server went away, an empty directory in its place would tell phones
/// that their backups do not exist.
#[tokio::test]
async fn commands_create_no_storage_beside_a_server_whose_storage_went_away() {
    let server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    let data = server.site().data();
    std::fs::rename(&data, data.with_extension("away")).unwrap();
    std::fs::create_dir(&data).unwrap();
    let text = "backups: missing; the first start of the server creates it";
    for arguments in [&["prune"][..], &["scrub"], &["trash", "list"], &["check"]] {
        let output = run(server.site(), arguments);
        let said = output.out.clone() + &output.errors;
        assert!(said.contains(text), "{arguments:?}: {output:?}");
        assert!(!data.join("backups").exists(), "{arguments:?}");
    }
    assert_eq!(phone.ask("GET", &backup_path(), &[]).await.status, 500);

    let checked = run(server.site(), &["check"]);
    let warning = format!(
        "warning   storage.files.directory: data directory {}",
        data.display()
    );
    assert!(checked.out.contains(&warning), "{checked:?}");

    // Not only where its temporary files are.
    std::fs::create_dir(data.join("tmp")).unwrap();
    let shown = status(server.site(), server.admin_address(), &[]);
    assert!(
        shown.out.contains("the storage is not writable"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn prune_works_beside_a_running_server() {
    let server = TestServer::start().await;
    let old = std::time::SystemTime::UNIX_EPOCH;
    for digit in ["a", "b"] {
        let path = server.site().data().join("backups").join(digit.repeat(64));
        std::fs::write(&path, "old backup").unwrap();
        if digit == "a" {
            std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    }
    let folder = Folder::new();
    let config = server.site().config_file();
    let config = config.to_str().unwrap();

    let dry = folder.done(&["--config", config, "prune", "--dry-run"]);
    assert!(
        dry.starts_with("backups: 1 kept, 1 would be removed\n"),
        "{dry}"
    );
    assert_eq!(
        std::fs::read_dir(server.site().data().join("backups"))
            .unwrap()
            .count(),
        2
    );
    let wet = folder.done(&["--config", config, "prune", "--force", "--json"]);
    assert!(
        wet.starts_with(r#"{"kept":1,"keptBytes":10,"removed":1,"removedBytes":10,"#),
        "{wet}"
    );
    assert_eq!(
        std::fs::read_dir(server.site().data().join("backups"))
            .unwrap()
            .count(),
        1
    );
}
