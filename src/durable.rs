//! Atomic and durable file replacement: after a crash at any instant, a name has its old file or
//! its new one, never a mixture, and a replacement that was reported as done is still there.
//!
//! The order is always: create a temporary file on the same file system, write, `fsync`, rename
//! over the final name, `fsync` the directory (docs/DURABILITY.md). A crash may leave a temporary
//! file (`.`, 24 hexadecimal digits, `.tmp`) beside the final one; the start of the server removes
//! those in the data directory's `tmp/`. [`AppendLog`] appends lines instead; a crash may tear its
//! last line. The module handles paths and bytes, nothing else; what a file system may lack is
//! replaced in `file_system.rs`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::file_system::{self, Lock, Replaced};

/// Step: a temporary file is created.
pub const CREATE_TEMP_FILE: &str = "create temporary file";
/// Step: a missing directory is created.
pub const CREATE_DIRECTORY: &str = "create directory";
/// Step: a file gets its final name, which another file may have.
pub const RENAME: &str = "rename";
/// Step: a file gets a final name that no other file has.
pub const RENAME_TO_NEW: &str = "rename to new name";

/// Mode of every file that this program writes: only the owner may read and write.
pub const FILE_MODE: u32 = 0o600;

/// Mode of every directory that this program creates: only the owner has access.
pub const DIRECTORY_MODE: u32 = 0o700;

/// A failed step of a durable write.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    /// The step: "create temporary file", "write temporary file", "fsync directory", "rename", …
    pub operation: &'static str,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

impl Error {
    /// Wraps an error of the operating system in `operation`, for `map_err`.
    pub fn at(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation, source }
    }
}

/// A temporary file with a random name. It is removed when dropped, unless it was renamed.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl TempFile {
    /// Creates an empty file of mode 0600 with a random name, `.` and 24 hexadecimal digits and
    /// `.tmp`, in `directory`, which must be on the file system of the final name.
    ///
    /// # Errors
    /// When the operating system provides no random bytes, or the file cannot be created.
    pub fn create_in(directory: &Path) -> Result<Self, Error> {
        let mut random = [0_u8; 12];
        getrandom::fill(&mut random)
            .map_err(|error| Error::at("draw a random name")(io::Error::other(error)))?;
        let path = directory.join(format!(".{}.tmp", hex::encode(random)));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(Error::at(CREATE_TEMP_FILE))?;
        Ok(Self {
            path,
            file,
            renamed: false,
        })
    }

    /// The open file, to read and change its attributes.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes `contents` at the beginning of the file.
    ///
    /// # Errors
    /// When the write fails, for example on a full disk.
    pub fn write(&self, contents: &[u8]) -> Result<(), Error> {
        // `pwrite`: no other part of the program uses it, so that a test can make only this call
        // fail.
        self.file
            .write_all_at(contents, 0)
            .map_err(Error::at("write temporary file"))
    }

    /// Flushes the file to disk (`fsync`).
    ///
    /// # Errors
    /// When `fsync` fails, on some file systems also because the disk is full.
    pub fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(Error::at("fsync temporary file"))
    }

    /// Renames the file to its final name and replaces the file that had it. Durable only after
    /// [`sync_directory`].
    ///
    /// # Errors
    /// When the rename fails; the temporary file is then removed.
    pub fn rename_to(mut self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(Error::at(RENAME))?;
        self.renamed = true;
        Ok(())
    }

    /// Renames the file to its final name if that name is free, and returns the temporary file if
    /// it is not. Durable only after [`sync_directory`].
    ///
    /// # Errors
    /// When the rename fails for another reason than an existing file.
    pub fn rename_to_new(mut self, target: &Path) -> Result<RenamedToNew, Error> {
        match file_system::rename_to_new(&self.path, target) {
            Ok(replaced) => {
                self.renamed = true;
                Ok(RenamedToNew::Done(replaced))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(RenamedToNew::Exists(self))
            }
            Err(error) => Err(Error::at(RENAME_TO_NEW)(error)),
        }
    }
}

/// The result of renaming a temporary file to a new name.
#[derive(Debug)]
pub enum RenamedToNew {
    /// It has the new name.
    Done(Replaced),
    /// Another file has that name.
    Exists(TempFile),
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            // An error leaves the file in place. In `tmp/`, the next start of the server removes
            // it.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Copies owner and group to a file from the first of `models` that exists. Only root may change
/// the owner; for other users, and on a file system without owners, the function does nothing.
///
/// # Errors
/// When changing the owner fails for another reason.
pub fn copy_ownership(file: &File, models: &[&Path]) -> Result<(), Error> {
    let Some(model) = models.iter().find_map(|model| fs::metadata(model).ok()) else {
        return Ok(());
    };
    let changed = file_system::set_owner(file, model.uid(), model.gid());
    changed.map(drop).map_err(Error::at("change the owner"))
}

/// Flushes the names in `directory` to disk: a rename or removal is durable after this call.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> Result<Replaced, Error> {
    let directory = File::open(directory).map_err(Error::at("open directory"))?;
    let replaced = file_system::sync_directory(&directory).map_err(Error::at("fsync directory"))?;
    // After a disk failure XFS shuts down and loses the latest renames, and yet `fsync` of a
    // directory succeeds. `fstat` then reports the error.
    match rustix::fs::fstat(&directory) {
        Ok(_) => Ok(replaced),
        Err(error) => Err(Error::at("fsync directory")(error.into())),
    }
}

/// Replaces the file `path` durably by a new one of mode 0600 with these `contents`. The new file
/// gets owner and group of the old one, or else of the directory: if an administrator changes a
/// file as root, the server's user can still read it.
///
/// # Errors
/// When any step fails; the old file is then unchanged, unless the last step, the `fsync` of the
/// directory, failed.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace_via(parent(path), path, contents)
}

/// As [`replace`], with the temporary file in `temporary`, a directory that is cleaned of leftovers
/// elsewhere. It must be on the same file system as `path`.
///
/// # Errors
/// As [`replace`].
pub fn replace_via(temporary: &Path, path: &Path, contents: &[u8]) -> Result<(), Error> {
    let directory = parent(path);
    let file = TempFile::create_in(temporary)?;
    copy_ownership(&file.file, &[path, directory])?;
    file.write(contents)?;
    file.sync()?;
    file.rename_to(path)?;
    sync_directory(directory).map(drop)
}

/// A log file to which several processes may append lines at the same time. Mode 0600, with owner
/// and group of its directory.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
}

impl AppendLog {
    /// Opens the file, and creates it if it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened for writing, or is not a regular file: a symbolic link could
    /// lead anywhere.
    pub fn open(path: &Path) -> Result<Self, Error> {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .mode(FILE_MODE)
            .custom_flags(flags.cast_signed());
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create(true).open(path);
                let file = file.map_err(Error::at("create file"))?;
                copy_ownership(&file, &[parent(path)])?;
                sync_directory(parent(path))?;
                file
            }
            other => other.map_err(Error::at("open file"))?,
        };
        let found = file.metadata().map_err(Error::at("stat file"))?;
        if !found.is_file() {
            let source = io::Error::other("not a regular file");
            return Err(Error::at("open file")(source));
        }
        Ok(Self { file })
    }

    /// Appends one line and flushes it to disk. It begins on a line of its own, even after a line
    /// that a crash or a full disk has torn.
    ///
    /// # Errors
    /// When the line cannot be written; a part of it may then be in the file.
    pub fn append(&self, line: &str) -> Result<(), Error> {
        file_system::while_locked(&self.file, || self.append_locked(line))
            .map_err(Error::at("lock"))?
    }

    fn append_locked(&self, line: &str) -> Result<(), Error> {
        let length = self.file.metadata().map_err(Error::at("stat file"))?.len();
        let mut last = [b'\n'];
        if let Some(position) = length.checked_sub(1) {
            self.file
                .read_exact_at(&mut last, position)
                .map_err(Error::at("read the last line"))?;
        }
        let torn = if last == [b'\n'] { "" } else { "\n" };
        // One write: whole lines do not mix even where the file system has no locks.
        let text = format!("{torn}{line}\n");
        let written = (&self.file).write_all(text.as_bytes());
        let written = written.and_then(|()| self.file.sync_all());
        written.map_err(Error::at("append a line"))
    }
}

/// Locks `directory` exclusively until the returned lock is dropped. It serialises processes that
/// read a file, change it and replace it; on a file system without locks, the threads of this
/// process alone.
///
/// # Errors
/// When the directory cannot be opened or locked.
pub fn lock_directory(directory: &Path) -> Result<Lock, Error> {
    let opened = File::open(directory).map_err(Error::at("open directory"))?;
    file_system::lock(opened, directory).map_err(Error::at("lock"))
}

/// Creates `directory` and its missing parents with mode 0700, each with owner and group of its
/// parent; existing ones are not changed.
///
/// # Errors
/// When one of them cannot be created.
pub fn create_directory(directory: &Path) -> Result<(), Error> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = parent(directory);
    create_directory(parent)?;
    DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(directory)
        .or_else(|error| {
            if directory.is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        })
        .map_err(Error::at(CREATE_DIRECTORY))?;
    let created = File::open(directory).map_err(Error::at("open directory"))?;
    copy_ownership(&created, &[parent])?;
    sync_directory(parent).map(drop)
}

/// The parent directory of a path; `.` for a bare file name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str() != OsStr::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_replaced_file_has_the_new_contents_and_mode_0600_and_no_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");

        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(names(directory.path()), ["accounts.json"]);
    }

    #[test]
    fn a_dropped_temporary_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();

        let file = TempFile::create_in(directory.path()).unwrap();
        file.write(b"half").unwrap();
        drop(file);

        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_failed_rename_keeps_the_target_and_removes_the_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::create_dir(&target).unwrap();

        let error = replace(&target, b"new").unwrap_err();

        assert_eq!(error.operation, "rename");
        assert!(target.is_dir());
        assert_eq!(names(directory.path()), ["target"]);
    }

    #[test]
    fn renaming_to_a_new_name_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");

        let first = TempFile::create_in(directory.path()).unwrap();
        let first = first.rename_to_new(&target).unwrap();
        assert!(matches!(first, RenamedToNew::Done(_)));
        let second = TempFile::create_in(directory.path()).unwrap();
        let second = second.rename_to_new(&target).unwrap();
        assert!(matches!(second, RenamedToNew::Exists(_)));
        drop(second);

        assert_eq!(names(directory.path()), ["target"]);
    }
}
