//! Files of a server: accounts with known secrets, certificates, a configuration, a data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use threema_safe_server::account::{self, Account, FileError, Role, Secret};
use threema_safe_server::config::Config;
use threema_safe_server::server::{Server, development_certificate};

/// The `Authorization` of the phone account, without its scheme: `phone:secret`.
pub const PHONE: &str = "cGhvbmU6c2VjcmV0";
/// The `Authorization` of the operator account, without its scheme: `operator:secret`.
pub const OPERATOR: &str = "b3BlcmF0b3I6c2VjcmV0";
/// Length of the largest backup that this server accepts, in bytes.
pub const MAX_BACKUP_BYTES: u64 = 4_096;

/// The largest rate limit that can be configured.
const MAX_LIMIT: u64 = 1_000_000;

/// The id of the backup that exists before every input.
const EXISTING_ID: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const EXISTING: &[u8] = b"a backup";

/// Creates a temporary directory: in memory, unless `TMPDIR` names another directory.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("threema-safe-server-fuzz-")
        .tempdir_in(place)
        .expect("a temporary directory can be made")
}

/// Adds an account whose secret is stored like a generated one, with a fast hash.
pub fn add_account(file: &Path, name: &str, role: Role, secret: &str, disabled: bool) {
    account::update(file, |accounts| {
        accounts.push(Account {
            name: name.parse().expect("the name can be an account's"),
            role,
            disabled,
            secrets: vec![Secret::Sha256(Sha256::digest(secret).into())],
        });
        Ok::<_, FileError>(())
    })
    .expect("the accounts file can be written");
}

/// A directory with all files of a server.
pub struct Installation {
    folder: TempDir,
}

impl Installation {
    /// Creates the directory.
    #[must_use]
    pub fn new() -> Self {
        let folder = scratch();
        let path = folder.path();
        let made = development_certificate(&["localhost".into()], now())
            .expect("localhost can stand in a certificate");
        write(&path.join("chain.pem"), made.chain_pem.as_bytes());
        write(&path.join("key.pem"), made.private_key_pem.as_bytes());
        let accounts = path.join("accounts.json");
        add_account(&accounts, "phone", Role::Phone, "secret", false);
        add_account(&accounts, "operator", Role::Operator, "secret", false);
        Self { folder }
    }

    /// Opens the server. Needs a runtime, because the server binds its listeners, although no
    /// client connects to them.
    ///
    /// The memory for all uploads together is that for one, so that a leak shows soon. Password
    /// guesses are not delayed, because every input makes some. Without the public URL, a listing
    /// that seems to come through a proxy would be refused with a warning.
    pub async fn bind(&self) -> Server {
        let text = serde_json::json!({
            "maxBackupBytes": MAX_BACKUP_BYTES,
            "publicUrl": "https://localhost/",
            "listen": ["127.0.0.1:0"],
            "admin": { "listen": "127.0.0.1:0" },
            "tls": { "certificateFile": "chain.pem", "privateKeyFile": "key.pem" },
            "anonymousRestore": true,
            "limits": {
                "uploadMemoryBytes": MAX_BACKUP_BYTES,
                "wrongPasswordsPerAccountAndHour": MAX_LIMIT,
                "wrongPasswordsPerAddressAndHour": MAX_LIMIT,
                "wrongPasswordDelaySeconds": 0,
                "unknownBackupsPerAddressAndHour": MAX_LIMIT,
                "unknownBackupsPerAccountAndHour": MAX_LIMIT,
                "newBackupsPerAddressAndHour": MAX_LIMIT,
            },
            "quotas": { "minFreeBytes": 0 },
        });
        let file = self.folder.path().join("config.json");
        let config = Config::from_json(text.to_string().as_bytes(), &file)
            .expect("the configuration is right");
        Server::bind(&config, now)
            .await
            .expect("all configured files exist")
    }

    /// Resets the data directory to its state before every input: one backup and nothing else.
    pub fn reset(&self) {
        for folder in ["backups", "trash", "tmp"] {
            for path in self.files(folder) {
                fs::remove_file(path).expect("a file can be removed");
            }
        }
        write(&self.folder("backups").join(EXISTING_ID), EXISTING);
    }

    /// Checks that the data directory contains backups of valid sizes and names, and no leftovers.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self) {
        for path in self.files("backups") {
            let name = name(&path);
            let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert!(
                name.len() == 64 && name.bytes().all(digits),
                "a wrong name in backups: {name:?}"
            );
            let length = fs::metadata(&path).expect("a backup has metadata").len();
            assert!(
                (1..=MAX_BACKUP_BYTES).contains(&length),
                "a backup of {length} bytes"
            );
        }
        for path in self.files("trash") {
            let name = name(&path);
            assert!(
                name.len() > 65 && name.is_char_boundary(64) && name[64..].starts_with('.'),
                "a wrong name in trash: {name:?}"
            );
        }
        let leftovers = self.files("tmp");
        assert!(leftovers.is_empty(), "left in tmp: {leftovers:?}");
    }

    /// Checks that the data directory is unchanged since [`Installation::reset`].
    ///
    /// # Panics
    /// When it changed.
    pub fn check_untouched(&self) {
        let placed = self.folder("backups").join(EXISTING_ID);
        let found = self.files("backups");
        assert!(
            matches!(&*found, [only] if *only == placed),
            "backups changed: {found:?}"
        );
        let contents = fs::read(placed).expect("the backup is there");
        assert_eq!(contents, EXISTING, "the backup changed");
        assert!(self.files("trash").is_empty(), "something was removed");
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        fs::read_dir(self.folder(folder))
            .expect("the folder is there")
            .map(|entry| entry.expect("the folder can be read").path())
            .collect()
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}

fn name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.expect("a file's name is text")
}

/// A fixed time, so that every run of an input behaves the same.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 60 * 60)
}

/// Writes a file as the program does.
fn write(path: &Path, contents: &[u8]) {
    threema_safe_server::durable::replace(path, contents).expect("the file can be written");
}
