//! Search for secrets: a server is driven at the finest level of its log with known secrets, and
//! all that it and its commands wrote is searched for them.
//!
//! docs/PRIVACY.md says what has to be hidden, and what is searched here.
//!
//! Over 500 lines: one list of all that a server and its commands can write.

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
use crate::support::wire::{Answer, Client, Protocol, Raw, basic, soon, unfinished};
use crate::support::{Listening, Site, add_account, add_account_with, ask_admin_with, write};

/// Backup ids: one that is uploaded, one that never is, one whose file is no file, one in the
/// trash.
pub(crate) const IDS: [&str; 4] = [
    "5eaf00d1c0ffee77123a9b8c7d6e5f40918273645546372819a0b1c2d3e4f567",
    "77aa5511eedd0099bbcc224466880f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8",
    "c4d5e6f7081929304a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa1b2",
    "9d8c7b6a594837261504f3e2d1c0bfae9d8c7b6a5948372615f4e3d2c1b0af9e",
];

pub(crate) const IDENTITY: &str = "Z7QX93KV";
pub(crate) const CHOSEN: &str = "Zebra-Quilt_chosen!by-heart";
pub(crate) const WRONG: &str = "Wrong+Horse/guessed=by-luck";
pub(crate) const BACKUP_PASSWORD: &str = "vivid umbrella of my own";
pub(crate) const WRONG_BACKUP_PASSWORD: &str = "gloomy parasol of others";
pub(crate) const ACCOUNT: &str = "Quizzical-Accountname";
pub(crate) const STRANGER: &str = "Mallory-who-is-unknown";
pub(crate) const QUERY: &str = "tok3n=QueryStr1ngSecret";
pub(crate) const BODY: &str = "BodyOfABackup~which+is+secret";
pub(crate) const AGENT: &str = "VerySpecialAgent/47.11";
pub(crate) const FORWARDED: &str = "203.0.113.177";
pub(crate) const BEARER: &str = "BearerTokenXyzzyPlugh9876";

/// What has to be nowhere, in the spellings in which a program might write it.
pub(crate) struct Secrets {
    /// Pieces that are long enough to mean something, in lower case.
    pub(crate) pieces: Vec<(String, Vec<String>)>,
}

impl Secrets {
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
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
    pub(crate) fn found_in(&self, text: &str) -> Vec<String> {
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
pub(crate) fn spellings(text: &str) -> Vec<(String, usize)> {
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

/// A server with its secrets, and all that was written.
pub(crate) struct Driven {
    pub(crate) server: ServerProcess,
    /// The password of an account.
    pub(crate) office: String,
    /// The address of a client.
    pub(crate) client: SocketAddr,
    /// What commands wrote where no answer is expected, and what the server answered beside
    /// answers.
    pub(crate) written: Vec<String>,
}

impl Driven {
    pub(crate) fn start(how: &How) -> Self {
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
        add_account_with(&site.accounts_file(), ACCOUNT, Role::Maintainer, secret);
        let office = add_account(&site.accounts_file(), "office", Role::Phone);
        site.place_backup(IDS[3], BODY.as_bytes(), std::time::SystemTime::UNIX_EPOCH);
        fs::create_dir(site.backup_file(IDS[2])).unwrap();
        let server = ServerProcess::start(site);
        Self {
            office,
            client: ([0, 0, 0, 0], 0).into(),
            server,
            written: Vec::new(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.server.site().folder()
    }

    /// Keeps what an answer says beside what was asked for.
    pub(crate) fn keep(&mut self, method: &str, answer: &Answer) {
        self.written.push(format!("{:?}", answer.headers));
        if answer.status >= 400 || method == "OPTIONS" {
            self.written
                .push(String::from_utf8_lossy(&answer.body).into_owned());
        }
    }

    /// Every route and method, with every kind of credentials.
    pub(crate) async fn drive_requests(&mut self, protocol: Protocol) {
        let office = self.office.clone();
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
                        ("x-forwarded-for", FORWARDED),
                        ("forwarded", "for=203.0.113.177"),
                        ("user-agent", AGENT),
                        ("referer", &destination),
                        ("destination", &destination),
                        ("depth", "1"),
                        ("cookie", QUERY),
                    ];
                    // A forwarded listing is refused; there is one that is not, too.
                    let is_listed = method == "PROPFIND" && protocol == Protocol::Http2;
                    let headers = &headers[if is_listed { 2 } else { 0 }..];
                    let body = if ["PUT", "POST"].contains(&method) {
                        BODY
                    } else {
                        ""
                    };
                    let answer = client.send(method, &target, headers, body).await;
                    self.keep(method, &answer);
                }
            }
        }
    }

    /// Requests that are none, or break off.
    pub(crate) async fn drive_malformed(&mut self) {
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
                "PUT {path} HTTP/1.1\r\n{head}Content-Type: multipart/{BODY}\r\nContent-Length: 3\r\n\r\nabc"
            ),
            format!("DELETE {path} HTTP/1.1\r\n{head}If: <{path}> ([\"{BODY}\"])\r\n\r\n"),
            format!("DELETE {path} HTTP/1.1\r\n{head}If: <{path}> ({BODY}\r\n\r\n"),
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
        // An end of an HTTP/2 connection that explains itself (RFC 9113 §6.8), and a stream that is
        // reset.
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
        self.client = raw.local_address();
        raw.write(format!("GET {path} HTTP/1.1\r\n{head}\r\n"))
            .await;
        raw.answer().await;
    }

    /// What the store and the accounts file do to it.
    ///
    /// `fill_disk` makes uploads fail for want of space until what it returns is dropped.
    pub(crate) async fn drive_failures<T>(&mut self, fill_disk: impl Fn(&ServerProcess) -> T) {
        let data = self.server.site().data();
        let phones = Some(self.server.phones());
        for fault in ["full", "gone", "link", "accounts"] {
            let backups = data.join("backups");
            let mut full = None;
            match fault {
                "full" => full = Some(fill_disk(&self.server)),
                "gone" => fs::rename(&backups, data.join("elsewhere")).unwrap(),
                // An upload moves it out of the way, and says so.
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
            drop(full);
            if fault == "gone" {
                fs::rename(data.join("elsewhere"), &backups).unwrap();
            }
        }
    }

    pub(crate) async fn drive_admin(&mut self) {
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

    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = program(arguments);
        command
            .current_dir(self.folder())
            .env("RUST_BACKTRACE", "1");
        finish(command, input.as_bytes())
    }

    /// The commands of operators, and those of a phone.
    pub(crate) fn drive_commands(&mut self) {
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
                    let identity: &[&str] = if verb == "config" { &[] } else { &identity };
                    let output = self.run(
                        &[&["client", verb], &server[..], identity, tail].concat(),
                        "",
                    );
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

    pub(crate) fn keep_output(&mut self, output: Ended, is_answer: bool) {
        self.written.push(output.errors);
        if !is_answer {
            self.written.push(output.out);
        }
    }
}

/// What stands in a folder's files and in their names, but for backups and for what this test put
/// there.
pub(crate) fn files(folder: &Path) -> Vec<(String, String)> {
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

/// How a server is set up.
pub(crate) struct How {
    pub(crate) format: &'static str,
    /// Each hour, of everything that can be guessed.
    pub(crate) guesses: u32,
    /// How many may be kept; 0 is any number.
    pub(crate) backups: u32,
}

/// What the log of a driven server has to say.
pub(crate) struct Expected {
    pub(crate) said: &'static [&'static str],
    /// Lines about requests, at the least.
    pub(crate) requests: usize,
    /// Lines about requests for backups, at the least.
    pub(crate) about_backups: usize,
    /// Whether commands wrote the audit log.
    pub(crate) is_audited: bool,
}

/// Stops the server, and searches all that was written.
pub(crate) fn assert_no_secrets(driven: Driven, accounts: String, expected: &Expected) {
    let phones = driven.server.phones();
    let client = driven.client;
    let mut hidden = vec![driven.office.clone()];
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
    // The audit log alone names accounts.
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
    assert!(
        requests.len() >= expected.requests,
        "{} requests",
        requests.len()
    );
    for word in expected.said {
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
    assert!(
        count >= expected.about_backups,
        "{count} lines about backups"
    );

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
    assert_eq!(
        files.iter().any(|(name, _)| name == "data/audit.jsonl"),
        expected.is_audited
    );
    for (name, text) in files
        .iter()
        .chain([&("accounts.json".to_owned(), accounts)])
    {
        let found = everywhere.found_in(&format!("{name}\n{text}"));
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}
