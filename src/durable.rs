//! Files that are replaced whole and durably: after a crash at any instant there is the old file or
//! the new one, never something between, and what was reported as done is still done.
//!
//! The order is always: create a temporary file on the same file system, write, `fsync`, rename over
//! the final name, `fsync` the directory (docs/DURABILITY.md). This is a leaf: it knows paths and bytes, nothing else.
//! Lines are appended to one kind of file ([`AppendLog`]); a crash may tear the last one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of every file this program writes: read and written by its owner alone.
pub const FILE_MODE: u32 = 0o600;

/// Mode of every directory this program creates.
pub const DIRECTORY_MODE: u32 = 0o700;

/// A step of a durable write that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct Error {
    /// The step, in words: "create temporary file", "write", "fsync", "rename", …
    pub operation: &'static str,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Error {
    /// Wraps what the system said about `operation`; made for `map_err`.
    pub fn at(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation, source }
    }
}

/// A file under a name nobody looks for. It is removed when dropped, unless it was renamed away.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl TempFile {
    /// Creates an empty file with a random name in `directory`, which must be on the file system of
    /// the final name.
    ///
    /// # Errors
    /// When the system has no randomness, or the file cannot be created.
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
            .map_err(Error::at("create temporary file"))?;
        Ok(Self {
            path,
            file,
            renamed: false,
        })
    }

    /// The open file, for what is not its contents.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes `contents`, from the beginning of the file on.
    ///
    /// # Errors
    /// When writing fails (a full disk shows here).
    pub fn write(&self, contents: &[u8]) -> Result<(), Error> {
        // By position (`pwrite`): no other part of the program writes so, and a test can make this call fail alone.
        self.file
            .write_all_at(contents, 0)
            .map_err(Error::at("write temporary file"))
    }

    /// Waits until the disk has what was written.
    ///
    /// # Errors
    /// When `fsync` fails (on some file systems a full disk shows here).
    pub fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(Error::at("fsync temporary file"))
    }

    /// Gives the file its final name, replacing what had it. Durable only after [`sync_directory`].
    ///
    /// # Errors
    /// When the rename fails; the temporary file is then removed.
    pub fn rename_to(mut self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(Error::at("rename"))?;
        self.renamed = true;
        Ok(())
    }

    /// Gives the file its final name if nothing has it yet; gives the temporary file back if something
    /// does. Durable only after [`sync_directory`].
    ///
    /// # Errors
    /// When the rename fails for another reason than an existing file.
    pub fn rename_to_new(mut self, target: &Path) -> Result<Option<Self>, Error> {
        match rename_to_new(&self.path, target) {
            Ok(()) => {
                self.renamed = true;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(self)),
            Err(error) => Err(Error::at("rename")(error)),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            // A leftover is swept at the next start; there is nothing better to do with an error here.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Gives a file the owner and the group of the first of `models` that exists. Only root can give a file away;
/// for others this does nothing.
fn copy_ownership(file: &File, models: &[&Path]) -> Result<(), Error> {
    let Some(model) = models.iter().find_map(|model| fs::metadata(model).ok()) else {
        return Ok(());
    };
    match std::os::unix::fs::fchown(file, Some(model.uid()), Some(model.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(Error::at("give to the owner")(error))
        }
        _ => Ok(()),
    }
}

/// Renames `from` to `to` unless `to` exists (`AlreadyExists`). Where the file system cannot do that in
/// one step (some network file systems), it looks first and then renames.
///
/// # Errors
/// Whatever `rename(2)` says.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        other => other.map_err(io::Error::from),
    }
}

/// Waits until the disk has the names in `directory`: a rename or a removal is durable after this.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> Result<(), Error> {
    let directory = File::open(directory).map_err(Error::at("open directory"))?;
    directory.sync_all().map_err(Error::at("fsync directory"))?;
    // XFS that has shut down because its disk failed forgets the latest renames, and yet the fsync of a
    // directory succeeds; to a stat it admits it.
    match rustix::fs::fstat(&directory) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::at("fsync directory")(error.into())),
    }
}

/// Replaces the file `path` by one with these `contents`, mode 0600, durably. The new file belongs to whom
/// the old one belonged, or else to whom the directory does: an administrator who changes a file as root does
/// not lock the server's user out of it.
///
/// # Errors
/// When any step fails; the old file is then untouched.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace_by_way_of(parent(path), path, contents)
}

/// As [`replace`], with the temporary file in a directory where leftovers are swept. It must be on the same file
/// system.
///
/// # Errors
/// As [`replace`].
pub fn replace_by_way_of(temporary: &Path, path: &Path, contents: &[u8]) -> Result<(), Error> {
    let directory = parent(path);
    let file = TempFile::create_in(temporary)?;
    copy_ownership(&file.file, &[path, directory])?;
    file.write(contents)?;
    file.sync()?;
    file.rename_to(path)?;
    sync_directory(directory)
}

/// A file to which lines are appended, by several programs at once. Mode 0600; it belongs to whom its directory does.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
}

impl AppendLog {
    /// Opens the file, and makes it where it is missing.
    ///
    /// # Errors
    /// When it cannot be opened for writing, or is no regular file: a symbolic link might lead anywhere.
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
            let source = io::Error::other("it is no regular file");
            return Err(Error::at("open file")(source));
        }
        Ok(Self { file })
    }

    /// Appends one line and waits until the disk has it. It begins on a line of its own, also after one that a crash or
    /// a full disk has torn.
    ///
    /// # Errors
    /// When it cannot be written; a part of it may then be there.
    pub fn append(&self, line: &str) -> Result<(), Error> {
        lock(&self.file)?;
        let appended = self.append_locked(line);
        // Closing would give it back too, but a command may live on.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
        appended
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
        // In one piece: where the file system has no locks, whole lines still do not mix.
        let text = format!("{torn}{line}\n");
        let written = (&self.file).write_all(text.as_bytes());
        let written = written.and_then(|()| self.file.sync_all());
        written.map_err(Error::at("append a line"))
    }
}

/// Waits until nobody else holds the lock of `directory`, and holds it as long as the file lives. For whoever
/// reads a file, changes it and replaces it, beside others who do the same. A file system without locks is let be.
///
/// # Errors
/// When the directory cannot be opened.
pub fn lock_directory(directory: &Path) -> Result<File, Error> {
    let directory = File::open(directory).map_err(Error::at("open directory"))?;
    lock(&directory)?;
    Ok(directory)
}

/// Waits for the lock of an open file or directory. It is held until all that were opened with it are closed.
fn lock(file: &File) -> Result<(), Error> {
    use rustix::fs::{FlockOperation, flock};
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::at("lock")(error.into())),
        }
    }
}

/// Creates `directory` and its missing parents with mode 0700, belonging to whom the directory
/// around them belongs; existing ones are left as they are.
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
        .map_err(Error::at("create directory"))?;
    let created = File::open(directory).map_err(Error::at("open directory"))?;
    copy_ownership(&created, &[parent])?;
    sync_directory(parent)
}

/// The directory a file is in; `.` for a bare name.
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
    fn a_replaced_file_keeps_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        replace(&path, b"old").unwrap();
        let owned = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534));
        if owned.is_err() {
            eprintln!("*** SKIPPED: only root can give a file away ***");
            return;
        }

        replace(&path, b"new").unwrap();

        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65_534, 65_534));
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
        assert!(first.rename_to_new(&target).unwrap().is_none());
        let second = TempFile::create_in(directory.path()).unwrap();
        assert!(second.rename_to_new(&target).unwrap().is_some());

        assert_eq!(names(directory.path()), ["target"]);
    }
}
