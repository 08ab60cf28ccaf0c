//! The Threema Safe backup format: everything a phone does between its password and the bytes it
//! uploads, and back.
//!
//! A backup on the wire is `nonce (24 bytes) ‖ tag (16 bytes) ‖ ciphertext`. The key and the backup's
//! name (its [`BackupId`]) are two halves of one scrypt output over the password and the Threema ID.
//! Inside the ciphertext is gzip, inside that a JSON document.
//!
//! This is a leaf: no I/O, no async, nothing imported from the rest of the crate. The server uses
//! [`BackupId`] and nothing else of it; it holds no key and cannot open what it stores.
//!
//! Sources: Threema for Android 6.4.2 and Threema for iOS 7.2.2, read; the published key derivation
//! vector; `tests/vectors/`.

mod app;
mod document;
mod envelope;
mod field;
mod finding;
mod id;
mod key;
mod password;
mod sample;
mod validate;

pub use app::{App, UnknownApp};
pub use document::{
    Contact, Contents, ContentsError, DistributionList, Document, DocumentError, Group, Info, Link,
    List, Settings, User,
};
pub use envelope::{
    INFLATE_LIMIT, NONCE_LENGTH, Nonce, OVERHEAD, OpenError, SealedBackup, TAG_LENGTH, open, seal,
};
pub use field::{Field, Json, SecretString, Unknown};
pub use finding::{Effect, Finding, Grade};
pub use id::{BackupId, ParseIdError, ThreemaId};
pub use key::{BackupKey, MasterKey};
pub use password::{Password, PasswordConcern};
