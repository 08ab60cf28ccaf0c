//! Request sequences of the iOS and Android apps, over real TLS, with the real format.

use std::time::SystemTime;

use bytes::Bytes;
use threema_safe_server::backup::{
    App, BackupKey, Contents, Document, INFLATE_LIMIT, MasterKey, Nonce, OpenError, SealedBackup,
    open, seal,
};
use threema_safe_server::client::{Error, Login, Phone, Trust};
use zeroize::Zeroizing;

use crate::support::{Site, TestServer};

fn sample(contacts: u32) -> Document {
    let identity = "ECHOECHO".parse().unwrap();
    Contents::sample(&identity, contacts, App::Android, SystemTime::now()).to_document()
}

/// A person with a phone.
struct Person {
    key: MasterKey,
    document: Document,
}

impl Person {
    fn new(password: &str) -> Self {
        let identity = "ECHOECHO".parse().unwrap();
        Self {
            key: MasterKey::derive(&password.into(), &identity),
            document: sample(40),
        }
    }

    fn key(&self) -> BackupKey {
        self.key.backup_key()
    }

    fn seal(&self) -> SealedBackup {
        seal(&self.document, &self.key(), Nonce::random())
    }
}

fn phone(server: &TestServer, app: App, password: &str) -> Phone {
    let login = Login {
        username: "phones".into(),
        password: Zeroizing::new(password.to_owned()),
    };
    let trust = Trust::system_and(Some(&server.site().folder().join("certs/ca.pem"))).unwrap();
    Phone::new(app, server.url().parse().unwrap(), Some(login), trust).unwrap()
}

fn right_phone(server: &TestServer, app: App) -> Phone {
    phone(server, app, server.phone_secret())
}

async fn restored(phone: &Phone, person: &Person) -> Document {
    let blob = phone.get(person.key.backup_id()).await.unwrap();
    open(
        SealedBackup::try_from(blob).unwrap(),
        &person.key(),
        INFLATE_LIMIT,
    )
    .unwrap()
}

#[tokio::test]
async fn both_apps_activate_back_up_overwrite_restore_and_delete() {
    let server = TestServer::start().await;
    for app in App::ALL {
        let mut person = Person::new("a good password");
        let id = person.key.backup_id();
        let phone = right_phone(&server, app);

        let config = phone.config().await.unwrap();
        assert_eq!(
            (config.max_backup_bytes, config.retention_days),
            (524_288, 180)
        );
        assert!(
            matches!(phone.get(id).await, Err(Error::NotFound)),
            "{app:?}"
        );

        phone.put(id, &person.seal()).await.unwrap();
        assert_eq!(
            restored(&phone, &person).await.json(),
            person.document.json()
        );

        person.document = sample(60);
        phone.put(id, &person.seal()).await.unwrap();
        assert_eq!(
            restored(&phone, &person).await.json(),
            person.document.json()
        );

        phone.delete(id).await.unwrap();
        assert!(
            matches!(phone.get(id).await, Err(Error::NotFound)),
            "{app:?}"
        );
        assert!(
            matches!(phone.delete(id).await, Err(Error::NotFound)),
            "{app:?}"
        );
    }
}

#[tokio::test]
async fn a_backup_of_one_app_is_restored_by_the_other() {
    let server = TestServer::start().await;
    let person = Person::new("a good password");
    let android = right_phone(&server, App::Android);
    let iphone = right_phone(&server, App::Ios);

    android
        .put(person.key.backup_id(), &person.seal())
        .await
        .unwrap();

    assert_eq!(
        restored(&iphone, &person).await.json(),
        person.document.json()
    );
}

/// Changing the Safe password: the old backup goes, the new one has another id (protocol: DELETE
/// old, config, PUT new).
#[tokio::test]
async fn a_changed_password_moves_the_backup() {
    let server = TestServer::start().await;
    for app in App::ALL {
        let phone = right_phone(&server, app);
        let (old, new) = (
            Person::new("the old password"),
            Person::new("the new password"),
        );
        phone.put(old.key.backup_id(), &old.seal()).await.unwrap();

        phone.delete(old.key.backup_id()).await.unwrap();
        phone.put(new.key.backup_id(), &new.seal()).await.unwrap();

        assert!(matches!(
            phone.get(old.key.backup_id()).await,
            Err(Error::NotFound)
        ));
        assert_eq!(restored(&phone, &new).await.json(), new.document.json());
        phone.delete(new.key.backup_id()).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_server_password_is_refused_for_both_apps() {
    let server = TestServer::start().await;
    let person = Person::new("a good password");
    for app in App::ALL {
        let phone = phone(&server, app, "wrong");
        let id = person.key.backup_id();

        assert!(matches!(phone.config().await, Err(Error::WrongCredentials)));
        assert!(matches!(
            phone.put(id, &person.seal()).await,
            Err(Error::WrongCredentials)
        ));
        assert!(matches!(phone.get(id).await, Err(Error::WrongCredentials)));
        assert!(matches!(
            phone.delete(id).await,
            Err(Error::WrongCredentials)
        ));
    }
}

#[tokio::test]
async fn a_wrong_safe_password_finds_no_backup_and_opens_none() {
    let server = TestServer::start().await;
    let (right, wrong) = (
        Person::new("the right password"),
        Person::new("the wrong password"),
    );
    let phone = right_phone(&server, App::Android);
    phone
        .put(right.key.backup_id(), &right.seal())
        .await
        .unwrap();

    assert!(matches!(
        phone.get(wrong.key.backup_id()).await,
        Err(Error::NotFound)
    ));
    let blob = phone.get(right.key.backup_id()).await.unwrap();
    let opened = open(
        SealedBackup::try_from(blob).unwrap(),
        &wrong.key(),
        INFLATE_LIMIT,
    );
    assert_eq!(opened.err(), Some(OpenError::WrongPasswordOrDamaged));
}

/// iOS 7.2 to 7.2.2 sends the Safe password to the server when it restores.
#[tokio::test]
async fn an_iphone_with_the_wrong_server_password_restores_where_the_operator_allows_it() {
    let server = TestServer::start_with(serde_json::json!({ "anonymousRestore": true })).await;
    let person = Person::new("a good password");
    right_phone(&server, App::Ios)
        .put(person.key.backup_id(), &person.seal())
        .await
        .unwrap();

    let restoring = phone(&server, App::Ios, "a good password");

    assert_eq!(
        restored(&restoring, &person).await.json(),
        person.document.json()
    );
    assert!(matches!(
        restoring.config().await,
        Err(Error::WrongCredentials)
    ));
}

#[tokio::test]
async fn the_size_limit_is_inclusive_for_android_and_not_reached_by_ios() {
    let server = TestServer::start_with(serde_json::json!({ "maxBackupBytes": 8192 })).await;
    let id = Person::new("a good password").key.backup_id();
    let blob = |size: usize| SealedBackup::try_from(Bytes::from(vec![7; size])).unwrap();
    let android = right_phone(&server, App::Android);
    let iphone = right_phone(&server, App::Ios);

    android.put(id, &blob(8192)).await.unwrap();
    iphone.put(id, &blob(8191)).await.unwrap();
    for (phone, size) in [(&android, 8193), (&iphone, 8192)] {
        let refused = phone.put(id, &blob(size)).await;
        assert!(
            matches!(refused, Err(Error::TooLarge { limit: 8192, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(android.get(id).await.unwrap().len(), 8191);
}

#[tokio::test]
async fn many_phones_at_once_each_get_their_own_backup_back() {
    let server = TestServer::start().await;
    let phones = (0..16_u8).map(|number| {
        let phone = right_phone(&server, App::ALL[usize::from(number) % 2]);
        async move {
            let id = threema_safe_server::backup::BackupId::from_bytes([number; 32]);
            let blob = Bytes::from(vec![number; 100_000 + usize::from(number)]);
            let sealed = SealedBackup::try_from(blob.clone()).unwrap();
            for _ in 0..3 {
                phone.put(id, &sealed).await.unwrap();
                assert_eq!(phone.get(id).await.unwrap(), blob);
            }
        }
    });
    futures_util::future::join_all(phones).await;
}

/// The largest that a server can be told to take, less what this machine need not hold.
#[tokio::test]
async fn what_can_be_put_can_be_got() {
    let server = Site::new()
        .with(serde_json::json!({
            "maxBackupBytes": 268_435_456, "limits": { "uploadMemoryBytes": 268_435_456 },
        }))
        .start()
        .await;
    let phone = right_phone(&server, App::Android);
    let id = Person::new("a good password").key.backup_id();
    let backup = SealedBackup::try_from(Bytes::from(vec![7; (64 << 20) + 1])).unwrap();

    phone.put(id, &backup).await.unwrap();

    assert!(phone.get(id).await.unwrap() == backup.as_bytes());
}
