//! Nothing that this program writes betrays anybody: a whole server is driven at the finest level of its log, with
//! secrets that are known here, and then all that it and its commands wrote is searched for them.
//!
//! docs/PRIVACY.md says what has to be hidden, and what is looked at here.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::json;
use threema_safe_server::account::{Role, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::commands::{DOCUMENT, Ended, finish, program, write_config_for};
use crate::support::process::ServerProcess;
use crate::support::strace::{Strace, can_trace};
use crate::support::wire::{Answer, Client, Protocol, Raw, basic, soon, unfinished};
use crate::support::{Listening, Site, add_account, add_account_with, ask_admin_with, write};

/// Backup ids: one that is uploaded, one that never is, one whose file is no file, one in the trash.
const IDS: [&str; 4] = [
    "5eaf00d1c0ffee77123a9b8c7d6e5f40918273645546372819a0b1c2d3e4f567",
    "77aa5511eedd0099bbcc224466880f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8",
    "c4d5e6f7081929304a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa1b2",
    "9d8c7b6a594837261504f3e2d1c0bfae9d8c7b6a5948372615f4e3d2c1b0af9e",
];
const IDENTITY: &str = "Z7QX93KV";
const CHOSEN: &str = "Zebra-Quilt_chosen!by-heart";
const WRONG: &str = "Wrong+Horse/guessed=by-luck";
const BACKUP_PASSWORD: &str = "vivid umbrella of my own";
const WRONG_BACKUP_PASSWORD: &str = "gloomy parasol of others";
const ACCOUNT: &str = "Quizzical-Accountname";
const STRANGER: &str = "Mallory-who-is-unknown";
const QUERY: &str = "tok3n=QueryStr1ngSecret";
const BODY: &str = "BodyOfABackup~which+is+secret";
const AGENT: &str = "VerySpecialAgent/47.11";
const FORWARDED: &str = "203.0.113.177";
const BEARER: &str = "BearerTokenXyzzyPlugh9876";

/// What has to be nowhere, in the spellings in which a program might write it.
struct Secrets {
    /// Pieces that are long enough to mean something, in lower case.
    pieces: Vec<(String, Vec<String>)>,
}

impl Secrets {
    fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let pieces = secrets.into_iter().map(|secret| {
            let spelled = spellings(secret).into_iter().flat_map(|(text, length)| {
                let text = text.to_lowercase();
                let length = length.min(text.len());
                let starts = 0..=text.len() - length;
                let piece = |start: usize| text.get(start..start + length).map(String::from);
                starts.filter_map(piece).collect::<Vec<_>>()
            });
            (secret.to_owned(), spelled.collect())
        });
        Self {
            pieces: pieces.collect(),
        }
    }

    /// What of them is in a text.
    fn found_in(&self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        let windows: HashSet<&[u8]> = [8, 16]
            .into_iter()
            .flat_map(|length| text.as_bytes().windows(length))
            .collect();
        let is_in = |piece: &String| match piece.len() {
            8 | 16 => windows.contains(piece.as_bytes()),
            _ => text.contains(piece.as_str()),
        };
        let found = self.pieces.iter().filter_map(|(secret, pieces)| {
            let piece = pieces.iter().find(|piece| is_in(piece))?;
            let line = text.lines().find(|line| line.contains(piece.as_str()));
            Some(format!("{secret:?} as {piece:?} in {line:?}"))
        });
        found.collect()
    }
}

/// How a text may be written, and how many characters of it in a row betray it.
fn spellings(text: &str) -> Vec<(String, usize)> {
    let bytes = text.as_bytes();
    let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let percent_where_needed: String = bytes
        .iter()
        .map(|&byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    let debug = format!("{text:?}");
    let mut all = vec![
        (text.to_owned(), 8),
        (percent_where_needed, 8),
        (debug.trim_matches('"').to_owned(), 8),
        (percent, 16),
        (hex::encode(bytes), 16),
        (format!("{bytes:?}").trim_matches(['[', ']']).to_owned(), 16),
    ];
    // Base64 looks otherwise for each place in which a text may begin within a group.
    for before in ["", "a", "aa"] {
        let shifted = [before.as_bytes(), bytes].concat();
        for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            // What is mixed with the text before and after it says nothing.
            let inner = encoded.get(4..encoded.len().saturating_sub(4));
            let inner = inner.unwrap_or_default().to_owned();
            if inner.len() >= 8 {
                all.push((inner, 16));
            }
        }
    }
    all
}

#[test]
fn the_search_finds_secrets_however_they_are_written() {
    let secrets = Secrets::of([CHOSEN, IDS[0]]);
    let header = basic(format!("somebody:{CHOSEN}"));
    let id = IDS[0].to_uppercase();
    for text in [
        format!("password={CHOSEN}"),
        format!("password={}…", CHOSEN.get(5..14).unwrap()),
        format!("header: {header}"),
        format!("{:?}", CHOSEN.as_bytes()),
        format!("path=/backups/{id}"),
        format!("backup={}", IDS[0].get(..8).unwrap()),
        hex::encode(IDS[0]),
        hex::encode_upper(CHOSEN),
        CHOSEN.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    ] {
        assert_eq!(secrets.found_in(&text).len(), 1, "{text}");
    }
    let harmless =
        "2026-11-24T10:00:00.123456Z INFO request method=\"PUT\" route=\"backup\" backup=0badcafe";
    assert!(secrets.found_in(harmless).is_empty());
}

/// A server with its secrets, and all that was written.
struct Driven {
    server: ServerProcess,
    /// The password of an account, then the address of a client.
    site_secrets: Vec<String>,
    /// What commands wrote where no answer is expected, and what the server answered beside answers.
    written: Vec<String>,
}

impl Driven {
    fn start(how: &How) -> Self {
        let site = Site::new().with(json!({
            "anonymousRestore": true,
            "log": { "level": "trace", "format": how.format },
            "limits": {
                "bodySeconds": 2,
                "wrongPasswordsPerAccountAndHour": how.guesses,
                "wrongPasswordsPerAddressAndHour": how.guesses,
                "wrongPasswordDelaySeconds": 0,
                "unknownBackupsPerAddressAndHour": how.guesses,
                "unknownBackupsPerAccountAndHour": how.guesses,
            },
            "quotas": { "maxBackups": how.backups },
        }));
        let secret = Secret::of_password(CHOSEN).unwrap();
        add_account_with(&site.accounts_file(), ACCOUNT, Role::Operator, secret);
        let office = add_account(&site.accounts_file(), "office", Role::Phone);
        site.place_backup(IDS[3], BODY.as_bytes(), std::time::SystemTime::UNIX_EPOCH);
        fs::create_dir(site.backup_file(IDS[2])).unwrap();
        let server = ServerProcess::start(site);
        Self {
            site_secrets: vec![office],
            server,
            written: Vec::new(),
        }
    }

    fn folder(&self) -> &Path {
        self.server.site().folder()
    }

    /// Keeps what an answer says beside what was asked for.
    fn keep(&mut self, method: &str, answer: &Answer) {
        self.written.push(format!("{:?}", answer.headers));
        if answer.status >= 400 || method == "OPTIONS" {
            self.written
                .push(String::from_utf8_lossy(&answer.body).into_owned());
        }
    }

    /// Every route and method, with every kind of credentials.
    async fn drive_requests(&mut self, protocol: Protocol) {
        let office = self.site_secrets[0].clone();
        let credentials = [
            None,
            Some(basic(format!("office:{office}"))),
            Some(basic(format!("{ACCOUNT}:{CHOSEN}"))),
            Some(basic(format!("{ACCOUNT}:{WRONG}"))),
            Some(basic(format!("{STRANGER}:{CHOSEN}"))),
            Some(format!("Bearer {BEARER}")),
            Some(format!("Basic {CHOSEN}")),
            Some(format!(
                "Digest username=\"{ACCOUNT}\", response=\"{BEARER}\""
            )),
        ];
        let mut paths = ["/", "/config", "/backups", "/backups/", "/nothing"]
            .map(String::from)
            .to_vec();
        paths.extend(IDS.iter().map(|id| format!("/backups/{id}")));
        paths.push(format!("/backups/{}", IDS[0].to_uppercase()));
        paths.push(format!("/backups/%35{}", IDS[0].get(1..).unwrap()));
        paths.push(format!("/{IDENTITY}/{}", IDS[1]));
        for (kind, credentials) in credentials.into_iter().enumerate() {
            // What is refused at the door need not be refused at each of them.
            let is_let_in = kind < 3;
            let some = [1, 5];
            for (_, path) in paths
                .iter()
                .enumerate()
                .filter(|(position, _)| is_let_in || some.contains(position))
            {
                let mut client = Client::connect(&self.server, protocol, credentials.clone()).await;
                for method in [
                    "GET", "HEAD", "PUT", "PUT", "OPTIONS", "PROPFIND", "POST", "MKCOL", "LOCK",
                    "COPY", "DELETE",
                ] {
                    let target = format!("{path}?{QUERY}");
                    let destination = format!("https://localhost/backups/{}", IDS[1]);
                    let headers = [
                        ("user-agent", AGENT),
                        ("x-forwarded-for", FORWARDED),
                        ("forwarded", "for=203.0.113.177"),
                        ("referer", &destination),
                        ("destination", &destination),
                        ("depth", "1"),
                        ("cookie", QUERY),
                    ];
                    let body = if ["PUT", "POST"].contains(&method) {
                        BODY
                    } else {
                        ""
                    };
                    let answer = client.send(method, &target, &headers, body).await;
                    self.keep(method, &answer);
                }
            }
        }
    }

    /// Requests that are none, or break off.
    async fn drive_malformed(&mut self) {
        let path = format!("/backups/{}?{QUERY}", IDS[0]);
        let authorization = basic(format!("{ACCOUNT}:{CHOSEN}"));
        let head =
            format!("Host: localhost\r\nAuthorization: {authorization}\r\nUser-Agent: {AGENT}\r\n");
        for request in [
            format!("{QUERY} {path}\r\n\r\n"),
            format!("GET {path} HTTP/9.9\r\n{head}\r\n"),
            format!("GET {path} HTTP/1.1\r\n{head}{BEARER}\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\n{head}X-{BEARER}\u{7f}: {BEARER}\r\n\r\n"),
            format!("PUT {path} HTTP/1.1\r\n{head}Content-Length: {BODY}\r\n\r\n{BODY}"),
            format!(
                "PUT {path} HTTP/1.1\r\n{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{BODY}"
            ),
            format!(
                "PUT {path} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{BODY}\r\n{BODY}"
            ),
            format!("PUT {path} HTTP/1.1\r\n{head}Transfer-Encoding: {BEARER}\r\n\r\n{BODY}"),
            format!(
                "PUT {path} HTTP/1.1\r\n{head}Content-Range: {BODY}\r\nContent-Length: 3\r\n\r\nabc"
            ),
            format!(
                "PROPFIND /backups/ HTTP/1.1\r\n{head}Depth: 1\r\nContent-Length: 60\r\n\r\n<{BODY}>{BODY}"
            ),
            format!("GET https://{ACCOUNT}:{CHOSEN}@localhost{path} HTTP/1.1\r\n{head}\r\n"),
            format!("GET /{} HTTP/1.1\r\n{head}\r\n", IDS[0].repeat(1_000)),
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{authorization}{path}"),
        ] {
            let mut raw = self.server.raw(b"http/1.1").await;
            self.written.push(String::new());
            drop(raw.try_write(&request).await);
            drop(raw.try_write(format!("{BODY}{path}\r\n\r\n")).await);
            drop(raw);
            let mut raw = self.server.raw(b"h2").await;
            drop(
                raw.try_write(format!(
                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{request}{request}"
                ))
                .await,
            );
            drop(raw);
            // Not even TLS.
            let mut tcp = TcpStream::connect(self.server.address()).await.unwrap();
            tcp.write_all(request.as_bytes()).await.unwrap();
            drop(tcp);
        }
        // An end of an HTTP/2 connection that explains itself (RFC 9113 §6.8), and a stream that is reset.
        let mut raw = self.server.raw(b"h2").await;
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        frames.extend([
            0,
            0,
            8 + u8::try_from(BEARER.len()).unwrap(),
            7,
            0,
            0,
            0,
            0,
            0,
        ]);
        frames.extend([0, 0, 0, 0, 0, 0, 0, 11]);
        frames.extend(BEARER.as_bytes());
        drop(raw.try_write(&frames).await);
        drop(raw);
        // Uploads that never end, by credentials that are right.
        for protocol in Protocol::BOTH {
            let authorization = Some(basic(format!("{ACCOUNT}:{CHOSEN}")));
            let mut client = Client::connect(&self.server, protocol, authorization).await;
            let path = path.clone();
            let length = [("content-length", "1000")];
            let sent = client
                .send_body("PUT", &path, &length, unfinished(BODY.as_bytes()))
                .await;
            if let Ok(answer) = sent {
                assert!(answer.status >= 400, "{answer:?}");
                self.keep("PUT", &answer);
            }
        }
        // A client whose address and port are known.
        let mut raw = Raw::connect(&self.server, &[b"http/1.1"], rustls::ALL_VERSIONS)
            .await
            .unwrap();
        self.site_secrets.push(raw.local_address().to_string());
        raw.write(format!("GET {path} HTTP/1.1\r\n{head}\r\n"))
            .await;
        raw.answer().await;
    }

    /// What the store and the accounts file do to it.
    async fn drive_failures(&mut self) {
        let data = self.server.site().data();
        let phones = Some(self.server.phones());
        let traced = can_trace(&self.server, "a full disk while the log is searched");
        for fault in ["full", "gone", "link", "accounts"] {
            let backups = data.join("backups");
            let mut strace = None;
            match fault {
                "full" if traced => {
                    let inject = "inject=pwrite64:error=ENOSPC";
                    strace = Some(Strace::attach(
                        &self.server,
                        &["-e", "trace=pwrite64", "-e", inject],
                    ));
                }
                "gone" => fs::rename(&backups, data.join("elsewhere")).unwrap(),
                "link" => {
                    std::os::unix::fs::symlink("/nowhere", backups.join(IDS[1])).unwrap();
                }
                "accounts" => {
                    let accounts = self.server.site().accounts_file();
                    let text = format!(
                        r#"{{"accounts": [{{"name": "x", "role": "{CHOSEN}", "secrets": "{WRONG}"}}]}}"#
                    );
                    let new = accounts.with_extension("new");
                    threema_safe_server::durable::replace(&new, text.as_bytes()).unwrap();
                    fs::rename(new, accounts).unwrap();
                }
                _ => {}
            }
            for protocol in Protocol::BOTH {
                let mut client = Client::connect(&self.server, protocol, phones.clone()).await;
                for id in IDS {
                    for method in ["PUT", "GET", "HEAD", "DELETE"] {
                        let path = format!("/backups/{id}?{QUERY}");
                        let answer = client
                            .send(method, &path, &[("user-agent", AGENT)], BODY)
                            .await;
                        self.keep(method, &answer);
                    }
                }
            }
            drop(strace);
            match fault {
                "gone" => fs::rename(data.join("elsewhere"), &backups).unwrap(),
                "link" => fs::remove_file(backups.join(IDS[1])).unwrap(),
                _ => {}
            }
        }
    }

    async fn drive_admin(&mut self) {
        for path in [
            "/metrics",
            "/status.json",
            "/healthz",
            &format!("/{}?{QUERY}", IDS[0]),
        ] {
            let admin = self.server.admin_address();
            let agent = format!("User-Agent: {AGENT}\r\n");
            let answer = ask_admin_with(admin, path, &agent).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            self.written.push(answer);
        }
        let garbage = format!("{BEARER}\r\n{}\r\n\r\n", IDS[0]);
        let mut tcp = TcpStream::connect(self.server.admin_address())
            .await
            .unwrap();
        tcp.write_all(garbage.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(soon(tcp.read_to_end(&mut answer)).await);
        self.written
            .push(String::from_utf8_lossy(&answer).into_owned());
    }

    fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = program(arguments);
        command
            .current_dir(self.folder())
            .env("RUST_BACKTRACE", "1");
        finish(command, input.as_bytes())
    }

    /// The commands of operators, and those of a phone.
    fn drive_commands(&mut self) {
        let site = self.server.site();
        let admin_config = site.folder().join("admin.json");
        write_config_for(site, self.server.admin_address(), &admin_config);
        let place = |name: &str, text: &str| write(&self.folder().join(name), text);
        place("secret", CHOSEN);
        place("wrong-secret", WRONG);
        place("password", BACKUP_PASSWORD);
        place("wrong-password", WRONG_BACKUP_PASSWORD);
        place("document.json", DOCUMENT);
        let url = format!("https://localhost:{}/", self.server.address().port());
        let port = self.server.address().port();
        let url_with_secrets = format!("https://{ACCOUNT}:{WRONG}@localhost:{port}/?{QUERY}");

        let ids = format!("{}\n{}\n", IDS[3], IDS[1]);
        let ids_with_a_mistake = format!("{}\n{}x\n", IDS[3], IDS[1]);
        // Commands, what they read, and whether their answer may hold secrets: what was asked for.
        let operators: [(&[&str], &str, bool); 20] = [
            (&["check"], "", false),
            (&["status"], "", false),
            (&["status", "--json"], "", false),
            (&["healthcheck"], "", false),
            (&["account", "add", "new"], "", true),
            (&["account", "add", "new"], "", false),
            (
                &["account", "add", "chosen", "--secret-file", "secret"],
                "",
                false,
            ),
            (
                &["account", "add", "typed", "--secret-file", "-"],
                WRONG,
                false,
            ),
            (&["account", "remove", "chosen"], "", false),
            (&["prune", "--dry-run"], "", false),
            (&["prune", "--force"], "", false),
            (&["trash", "list"], "", true),
            (&["trash", "restore"], &ids_with_a_mistake, false),
            (&["trash", "restore"], &ids, false),
            (&["trash", "confirm"], "", false),
            (&["prune"], "", false),
            (&["trash", "restore", "--all", "--json"], "", false),
            (&["scrub"], "", true),
            (&["trash", "empty"], "", false),
            (&["trash", "empty", "--yes"], "", false),
        ];
        for (command, input, is_answer) in operators {
            let arguments = [&["--config", "admin.json"], command].concat();
            let output = self.run(&arguments, input);
            self.keep_output(output, is_answer);
        }
        for login in [
            ["secret", &*url],
            ["wrong-secret", &*url],
            ["secret", &*url_with_secrets],
        ] {
            let [secret, url] = login;
            let passwords = if secret == "secret" {
                &["password", "wrong-password"][..]
            } else {
                &["password"]
            };
            for password in passwords {
                let server = [
                    "--server",
                    url,
                    "--username",
                    ACCOUNT,
                    "--secret-file",
                    secret,
                    "--ca",
                    "certs/ca.pem",
                ];
                let identity = ["--id", IDENTITY, "--password-file", password];
                for (verb, tail, is_answer) in [
                    ("config", &[][..], false),
                    ("put", &["document.json"], false),
                    ("get", &["--out", "out"], true),
                    ("get", &[], true),
                    ("delete", &[], false),
                    ("delete", &[], false),
                ] {
                    let who: &[&str] = if verb == "config" { &[] } else { &identity };
                    let output =
                        self.run(&[&["client", verb], &server[..], who, tail].concat(), "");
                    self.keep_output(output, is_answer);
                }
                let output = self.run(&[&["client", "check", url], &server[2..]].concat(), "");
                self.keep_output(output, false);
                let sealed = self.run(
                    &[
                        &["client", "seal"],
                        &identity[..],
                        &["document.json", "--out", "blob"],
                    ]
                    .concat(),
                    "",
                );
                self.keep_output(sealed, false);
                let wrong = [
                    "client",
                    "open",
                    "--id",
                    IDENTITY,
                    "--password-file",
                    "wrong-password",
                    "blob",
                ];
                let output = self.run(&wrong, "");
                self.keep_output(output, true);
            }
        }
    }

    fn keep_output(&mut self, output: Ended, is_answer: bool) {
        self.written.push(output.errors);
        if !is_answer {
            self.written.push(output.out);
        }
    }
}

/// What stands in a folder's files and in their names, but for backups and for what this test put there.
fn files(folder: &Path) -> Vec<(String, String)> {
    const OURS: [&str; 11] = [
        "config.json",
        "admin.json",
        "secret",
        "wrong-secret",
        "password",
        "wrong-password",
        "document.json",
        "out",
        "blob",
        "accounts.json",
        "strace.log",
    ];
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let is_backup = ["data/backups/", "data/trash/"]
                .iter()
                .any(|place| name.starts_with(place));
            if OURS.contains(&&*name) || is_backup || name.starts_with("certs/") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                all.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    all
}

/// How a server is set up, and what its log has to say then.
struct How {
    format: &'static str,
    /// Each hour, of everything that can be guessed.
    guesses: u32,
    /// How many may be kept; 0 is any number.
    backups: u32,
    said: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_written_betrays_anybody() {
    assert_betrays_nobody(&How {
        format: "text",
        guesses: 1_000_000,
        backups: 0,
        said: &[" DEBUG ", " status=401 ", " status=500 ", " status=507 "],
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_json_or_what_is_refused_because_too_much_came_before_it() {
    assert_betrays_nobody(&How {
        format: "json",
        guesses: 12,
        backups: 1,
        said: &[
            "\"level\":\"DEBUG\"",
            "\"status\":401",
            "\"status\":429",
            "\"status\":507",
            "somebody guesses",
        ],
    })
    .await;
}

async fn assert_betrays_nobody(how: &How) {
    let mut driven = Driven::start(how);
    driven.drive_admin().await;
    for protocol in Protocol::BOTH {
        driven.drive_requests(protocol).await;
    }
    driven.drive_malformed().await;
    driven.drive_commands();
    let accounts = fs::read_to_string(driven.server.site().accounts_file()).unwrap();
    driven.drive_failures().await;
    driven.drive_admin().await;

    let phones = driven.server.phones();
    let client: SocketAddr = driven.site_secrets[1].parse().unwrap();
    let mut hidden = vec![driven.site_secrets[0].clone()];
    hidden.extend(IDS.map(String::from));
    hidden.extend(
        [
            IDENTITY,
            CHOSEN,
            WRONG,
            BACKUP_PASSWORD,
            WRONG_BACKUP_PASSWORD,
            STRANGER,
            QUERY,
            BODY,
            AGENT,
            FORWARDED,
            BEARER,
        ]
        .map(String::from),
    );
    hidden.push(phones.trim_start_matches("Basic ").to_owned());
    let everywhere = Secrets::of(hidden.iter().map(String::as_str));
    // Whoever audits wants to know which account; nobody else does.
    let name = Secrets::of([ACCOUNT]);

    let Driven {
        server, written, ..
    } = driven;
    let mut log = server.log_seen().to_vec();
    server.signal(Signal::TERM);
    let (code, rest, site) = server.ended();
    assert_eq!(code, Some(0));
    log.extend(rest);

    // The server really was driven, and spoke of it.
    let requests: Vec<_> = log
        .iter()
        .filter(|line| line.contains("milliseconds"))
        .collect();
    assert!(requests.len() > 1_000, "{} requests", requests.len());
    let always = [
        "storage failed",
        "handshake failed",
        "connection ended",
        "accounts file is bad",
        "swept",
        "stopped",
    ];
    for word in always.iter().chain(how.said) {
        assert!(
            log.iter().any(|line| line.contains(word)),
            "no line says {word}"
        );
    }
    // As `route="backup" backup=0badcafe`, or `"route":"backup","backup":"0badcafe"`.
    let mut count = 0;
    for line in &requests {
        let words = line.split(['"', ':', '=', ',', ' ']);
        let mut words = words.filter(|word| !word.is_empty());
        words.find(|word| *word == "route").unwrap();
        if words.next() == Some("backup") {
            assert_eq!(words.next(), Some("backup"), "{line}");
            let digits = words.next().unwrap();
            assert_eq!(digits.len(), 8, "{line}");
            assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "{line}");
            count += 1;
        }
    }
    assert!(count > 300, "{count} lines about backups");

    for (place, text) in [
        ("log", log.join("\n")),
        ("answers and commands", written.join("\n")),
    ] {
        let found = everywhere.found_in(&text);
        assert!(found.is_empty(), "{place}: {found:#?}");
        assert!(!text.contains(&client.to_string()), "{place}: {client}");
    }
    let found = name.found_in(&log.join("\n"));
    assert!(found.is_empty(), "log: {found:#?}");
    for line in &log {
        // The server's own addresses alone; of a client's, not even the network.
        let is_own = line.contains("listening");
        assert_eq!(client.ip().to_string(), "127.0.0.1");
        assert!(is_own || !line.contains("127.0.0."), "{line}");
    }
    let files = files(site.folder());
    assert!(files.iter().any(|(name, _)| name == "data/audit.jsonl"));
    for (name, text) in files
        .iter()
        .chain([&("accounts.json".to_owned(), accounts)])
    {
        let found = everywhere.found_in(&format!("{name}\n{text}"));
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}
