//! The Threema Safe backup format: key derivation, encryption, gzip and the JSON document
//! (docs/FORMAT.md).
//!
//! A backup on the wire is `nonce (24 bytes) ‖ tag (16 bytes) ‖ ciphertext`. The encryption key and
//! the backup id ([`BackupId`]) are the two halves of one scrypt output over the password and the
//! Threema ID. The ciphertext contains gzip, and the gzip contains a JSON document.
//!
//! The module is a leaf: no I/O, no async code, no imports from the rest of the crate. The server
//! uses [`BackupId`] and nothing else of it: it holds no key and cannot decrypt what it stores.
//!
//! Sources: the source code of Threema for Android 6.4.2 and of Threema for iOS 7.2.2, the
//! published test vector of the key derivation, and `tests/vectors/`.

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
