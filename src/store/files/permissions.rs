//! Access of other users to a data directory, and the remedy.
//!
//! Every file and directory counts by itself, also below a private one: the mode stays with it when
//! it is moved or mounted elsewhere. The names in `backups/` and `trash/` are backup ids, which are
//! secrets. A group that reads on purpose, for copies, is reported as well, because it learns them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::private_file::{NotMended, make_private};
use crate::store::files::backup_files::BackupFiles;
use crate::store::{Mended, Scope};

/// Rights of group and others.
const NOT_OWNER: u32 = 0o077;
/// Rights of others.
const OTHERS: u32 = 0o007;
/// The files in a data directory beside the backups.
const FILES: [&str; 2] = ["state.json", "audit.jsonl"];

impl BackupFiles {
    fn directory(&self) -> &Path {
        crate::durable::parent(&self.backups)
    }

    fn directories(&self) -> [&Path; 4] {
        [self.directory(), &self.backups, &self.trash, &self.tmp]
    }

    fn single_files(&self) -> [PathBuf; 2] {
        FILES.map(|name| self.directory().join(name))
    }

    /// What other users may access, each with its remedy. What is missing or cannot be examined is
    /// left out.
    pub(super) fn exposures(&self, scope: Scope) -> Vec<String> {
        let directories = self.directories().map(Path::to_owned);
        let mut found: Vec<_> = directories
            .into_iter()
            .chain(self.single_files())
            .filter_map(|path| exposure(&path))
            .collect();
        if scope == Scope::Everything {
            for directory in [&self.backups, &self.trash] {
                let mut exposed = 0_u64;
                let examined = for_each_exposed_file(directory, |_| exposed += 1);
                let files = match exposed {
                    0 => continue,
                    1 => "1 file is".to_owned(),
                    many => format!("{many} files are"),
                };
                if examined.is_ok() {
                    let directory = directory.display();
                    found.push(format!(
                        "{directory}: {files} accessible to other users; run `check --fix`"
                    ));
                }
            }
        }
        found
    }

    /// Takes all rights from other users, of what belongs to the owner of the data directory.
    pub(super) fn make_private(&self) -> io::Result<Vec<Mended>> {
        let owner = fs::metadata(self.directory())?.uid();
        let mut mended = Vec::new();
        let mut mend = |path: &Path| {
            let changed = match make_private(path, owner) {
                Ok(None) => return,
                Err(NotMended::System(error)) if error.kind() == io::ErrorKind::NotFound => return,
                changed => changed.map(Option::unwrap_or_default),
            };
            mended.push(Mended {
                place: path.display().to_string(),
                changed,
            });
        };
        // The data directory itself may be named by a link; everything in it may not.
        mend(&fs::canonicalize(self.directory())?);
        for path in [&self.backups, &self.trash, &self.tmp] {
            mend(path);
        }
        for path in self.single_files() {
            mend(&path);
        }
        for directory in [&self.backups, &self.trash] {
            // A link is reported above, and is not followed.
            if fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir()) {
                for_each_exposed_file(directory, &mut mend)?;
            }
        }
        Ok(mended)
    }
}

/// Calls `act` for each regular file in a directory that other users may access.
fn for_each_exposed_file(directory: &Path, mut act: impl FnMut(&Path)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(found) if found.is_file() && found.mode() & NOT_OWNER != 0 => act(&entry.path()),
            // It may be gone by now.
            _ => {}
        }
    }
    Ok(())
}

/// The access of other users to a file or directory, and the remedy; `None` without any.
fn exposure(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let users = match found.mode() {
        mode if mode & OTHERS != 0 => "every user of this machine",
        mode if mode & NOT_OWNER != 0 => "its group",
        _ => return None,
    };
    let mode = if found.is_dir() { "700" } else { "600" };
    let path = path.display();
    Some(format!(
        "{path} is accessible to {users}; run `check --fix`, or chmod {mode}"
    ))
}
