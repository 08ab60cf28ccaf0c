//! Requests of the client's two profiles, recorded by a server of the test.
//!
//! Expected is what the apps' sources say (Threema for Android 6.4.2, for iOS 7.2.2): headers,
//! credentials, order, connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use threema_safe_server::backup::{App, BackupId, Document, MasterKey, SealedBackup};
use threema_safe_server::client::{
    EndToEndTest, Error, Failure, Login, OnFailure, Phone, Step, Trust,
};
use threema_safe_server::server::development_certificate;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::support::{ID, now, write};

/// Where uploads break off and there is nothing else.
const BROKEN: &str = "broken";
const RIGHT: &str = "Basic cGhvbmVzOnNlY3JldA==";

/// One request, as it came.
#[derive(Debug, Clone)]
struct Seen {
    connection: usize,
    request: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// A server that writes down what it is asked, wants `phones` and `secret`, and else says yes.
struct Recorder {
    address: SocketAddr,
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    async fn start() -> Self {
        let made = development_certificate(&["localhost".into()], now()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("ca.pem"), &made.authority_pem);
        let chain = CertificateDer::pem_slice_iter(made.chain_pem.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(made.private_key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: listener.local_addr().unwrap(),
            folder,
            seen: Arc::default(),
        };

        let seen = Arc::clone(&recorder.seen);
        let connections = AtomicUsize::new(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let service =
                        service_fn(move |request| record(connection, request, Arc::clone(&seen)));
                    let http = http2::Builder::new(TokioExecutor::new());
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        recorder
    }

    fn phone(&self, app: App, password: &str) -> Phone {
        self.phone_at("safe", app, password)
    }

    fn phone_at(&self, folder: &str, app: App, password: &str) -> Phone {
        let url = format!("https://localhost:{}/{folder}", self.address.port());
        let trust = Trust::system_and(Some(&self.folder.path().join("ca.pem"))).unwrap();
        let password = Zeroizing::new(password.to_owned());
        let login = Login {
            username: "phones".into(),
            password,
        };
        Phone::new(app, url.parse().unwrap(), Some(login), trust).unwrap()
    }

    /// What came since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn record(
    connection: usize,
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let authorized = parts
        .headers
        .get("authorization")
        .is_some_and(|value| value == RIGHT);
    let path = parts.uri.path().to_owned();
    let request = format!("{} {path}", parts.method);
    let is_upload = parts.method == Method::PUT;
    seen.lock().unwrap().push(Seen {
        connection,
        request,
        headers: parts.headers,
        body,
    });
    let config = Bytes::from_static(br#"{"maxBackupBytes":1000,"retentionDays":30}"#);
    let mut response = Response::new(Full::new(if path.ends_with("config") {
        config
    } else {
        Bytes::new()
    }));
    if path.starts_with(&format!("/{BROKEN}/backups/")) {
        *response.status_mut() = if is_upload {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::NOT_FOUND
        };
    }
    if !authorized {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
            .headers_mut()
            .insert("www-authenticate", "Basic realm=\"x\"".parse().unwrap());
    }
    Ok(response)
}

fn id() -> BackupId {
    ID.parse().unwrap()
}

fn backup() -> SealedBackup {
    Bytes::from_static(&[5; 200]).try_into().unwrap()
}

fn requests(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.request.as_str()).collect()
}

#[tokio::test]
async fn android_sends_credentials_up_front_and_config_before_the_upload() {
    let recorder = Recorder::start().await;
    let phone = recorder.phone(App::Android, "secret");
    let backup_path = format!("/safe/backups/{ID}");

    phone.put(id(), &backup()).await.unwrap();
    phone.get(id()).await.unwrap();
    phone.delete(id()).await.unwrap();

    let seen = recorder.take();
    let put = format!("PUT {backup_path}");
    let (get, delete) = (
        format!("GET {backup_path}"),
        format!("DELETE {backup_path}"),
    );
    assert_eq!(requests(&seen), ["GET /safe/config", &put, &get, &delete]);
    for seen in &seen {
        assert_eq!(seen.header("authorization"), RIGHT);
        assert_eq!(seen.header("user-agent"), "Threema");
        assert_eq!(seen.header("accept-encoding"), "gzip");
        assert_eq!(seen.connection, 0, "OkHttp keeps its connection");
    }
    assert_eq!(seen[0].header("accept"), "application/json");
    assert_eq!(seen[1].header("content-type"), "application/octet-stream");
    assert_eq!(seen[1].header("content-length"), "200");
    assert_eq!(seen[1].body, *backup().as_bytes());
    assert_eq!(seen[2].header("accept"), "application/octet-stream");
    assert!(seen[3].body.is_empty());
}

#[tokio::test]
async fn ios_waits_for_the_401_and_sends_the_body_twice_on_a_fresh_connection() {
    let recorder = Recorder::start().await;
    let phone = recorder.phone(App::Ios, "secret");

    phone.put(id(), &backup()).await.unwrap();

    let seen = recorder.take();
    let put = format!("PUT /safe/backups/{ID}");
    assert_eq!(
        requests(&seen),
        ["GET /safe/config", "GET /safe/config", &put, &put]
    );
    let credentials: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("authorization"))
        .collect();
    assert_eq!(credentials, ["", RIGHT, "", RIGHT]);
    let connections: Vec<_> = seen.iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1], "a connection for each operation");
    for upload in &seen[2..] {
        assert_eq!(upload.body, *backup().as_bytes());
        assert_eq!(upload.header("content-length"), "200");
        assert_eq!(upload.header("content-type"), "application/octet-stream");
    }
    for seen in &seen {
        assert_eq!(seen.header("user-agent"), "Threema");
        assert_eq!(seen.header("accept-encoding"), "gzip, deflate, br");
    }

    phone.get(id()).await.unwrap();
    let restore = recorder.take();
    let get = format!("GET /safe/backups/{ID}");
    assert_eq!(
        requests(&restore),
        [&get, &get],
        "a restore does not ask for config"
    );
    assert!(restore.iter().all(|seen| seen.connection == 2));
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_by_android_and_seven_times_by_ios() {
    let recorder = Recorder::start().await;
    for (app, attempts) in [(App::Android, 1), (App::Ios, 8)] {
        let phone = recorder.phone(app, "wrong");

        assert!(matches!(phone.config().await, Err(Error::WrongCredentials)));

        let seen = recorder.take();
        assert_eq!(seen.len(), attempts, "{app:?}");
        let anonymous = seen
            .iter()
            .filter(|seen| seen.header("authorization").is_empty())
            .count();
        assert_eq!(anonymous, usize::from(app == App::Ios));
    }
}

fn end_to_end_test(key: &MasterKey) -> EndToEndTest {
    let document = |json: &str| Document::from_json(Zeroizing::new(json.into())).unwrap();
    EndToEndTest::new(key, document("{}"), document("{\"a\":1}"))
}

/// An upload whose answer is bad may have arrived, and mostly has not: nothing to delete is no
/// failure.
#[tokio::test]
async fn an_end_to_end_test_whose_uploads_break_off_tells_the_failure_and_no_other() {
    let recorder = Recorder::start().await;
    let phone = recorder.phone_at(BROKEN, App::Android, "secret");
    let key = MasterKey::derive(&"a good password".into(), &"ECHOECHO".parse().unwrap());
    for (on_failure, failing) in [
        (OnFailure::Stop, &[Step::Put][..]),
        (
            OnFailure::Continue,
            &[
                Step::Put,
                Step::Get,
                Step::Compare,
                Step::Overwrite,
                Step::GetAgain,
                Step::VerifyDeleted,
            ],
        ),
    ] {
        let mut failed = Vec::new();
        let mut deleted = None;
        let all_well = end_to_end_test(&key)
            .run(&phone, on_failure, |outcome| match outcome.result {
                Ok(said) if outcome.step == Step::Delete => deleted = Some(said),
                Ok(_) => {}
                Err(_) => failed.push(outcome.step),
            })
            .await;
        assert!(!all_well);
        assert_eq!(failed, failing);
        assert_eq!(deleted.as_deref(), Some("no backup existed"));
    }
}

/// The recorder keeps nothing: what comes back is not the backup, and it never says that it is
/// gone.
#[tokio::test]
async fn an_end_to_end_test_on_a_server_that_keeps_nothing_fails_and_leaves_nothing_behind() {
    let recorder = Recorder::start().await;
    let phone = recorder.phone(App::Android, "secret");
    let key = MasterKey::derive(&"a good password".into(), &"ECHOECHO".parse().unwrap());
    let test = || end_to_end_test(&key);

    let mut stopped = Vec::new();
    let all_well = test()
        .run(&phone, OnFailure::Stop, |outcome| {
            stopped.push((outcome.step, outcome.result.is_ok()));
        })
        .await;

    assert!(!all_well);
    let expected = [
        (Step::Config, true),
        (Step::Put, true),
        (Step::Get, true),
        (Step::Compare, false),
        (Step::Delete, true),
    ];
    assert_eq!(stopped, expected);
    let seen = recorder.take();
    assert!(seen.last().unwrap().request.starts_with("DELETE "));

    let mut failures = Vec::new();
    test()
        .run(&phone, OnFailure::Continue, |outcome| {
            if let Err(failure) = outcome.result {
                failures.push((outcome.step, failure));
            }
        })
        .await;
    assert!(matches!(
        &failures[..],
        [
            (Step::Compare, Failure::Open(_)),
            (Step::GetAgain, Failure::Open(_)),
            (Step::VerifyDeleted, Failure::StillThere)
        ]
    ));
}
