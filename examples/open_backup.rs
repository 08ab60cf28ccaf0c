//! Opens a Threema Safe backup with the library and prints a summary of its contents.
//!
//! ```sh
//! cargo run --example open_backup -- BACKUP THREEMA-ID [PASSWORD-FILE]
//! ```
//!
//! `BACKUP` is a file as the server stores it (`backups/<id>` in the data directory). Without
//! `PASSWORD-FILE` the program prompts for the password; it is never an argument, because every
//! user of the machine can read the arguments of a process. The private key in the backup is not
//! printed. The program's own `client open` does the same and more.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use threema_safe_server::backup::{
    INFLATE_LIMIT, MasterKey, Password, SealedBackup, ThreemaId, open,
};
use zeroize::Zeroizing;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (backup, identity, password_file) = match arguments.as_slice() {
        [backup, identity] => (backup, identity, None),
        [backup, identity, password_file] => (backup, identity, Some(password_file)),
        _ => bail!("usage: open_backup BACKUP THREEMA-ID [PASSWORD-FILE]"),
    };
    let identity = identity.to_str().context("the Threema ID is not UTF-8")?;
    let password = match password_file {
        Some(file) => password_from(file)?,
        None => Password::new(Zeroizing::new(
            rpassword::prompt_password("password of the backup: ")?.into_bytes(),
        )),
    };
    let summary = summary(backup, identity, &password)?;
    std::io::stdout().write_all(summary.as_bytes())?;
    Ok(())
}

/// Reads a password from a file. One newline at its end is not part of the password; every other
/// byte is, because the apps neither trim nor normalise a password.
pub(crate) fn password_from(file: &Path) -> anyhow::Result<Password> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut bytes = Zeroizing::new(bytes);
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    Ok(Password::new(bytes))
}

/// Decrypts the backup in `file` and describes what is in it.
pub(crate) fn summary(file: &Path, identity: &str, password: &Password) -> anyhow::Result<String> {
    let identity: ThreemaId = identity.parse().context("the Threema ID is not valid")?;
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let size = bytes.len();
    let sealed = SealedBackup::try_from(bytes::Bytes::from(bytes))?;

    // scrypt over password and ID: about an eighth of a second and 64 MiB. One half of its output
    // is the backup's id, under which the server stores it; the other is the key.
    let key = MasterKey::derive(password, &identity);
    // The limit bounds the document, so that a small file cannot inflate without end.
    let document = open(sealed, &key.backup_key(), INFLATE_LIMIT)?;
    let contents = document.contents().context("read the document")?;

    let mut lines = vec![
        format!("backup of    {}", identity.as_str()),
        format!(
            "size         {size} bytes, {} decrypted",
            document.json().len()
        ),
        format!("contacts     {}", contents.contacts.items().count()),
        format!("groups       {}", contents.groups.items().count()),
    ];
    // Entries that Android or iOS would not restore as they are.
    for finding in contents.validate() {
        lines.push(finding.to_string());
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}
