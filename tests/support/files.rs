//! Files and folders: contents, modes, times, and the clock.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, fsetxattr, mknodat};

/// Everything in a folder, with contents and times: two that are equal mean that nothing was
/// touched.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let modified = fs::metadata(&folder).unwrap().modified().unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let modified = entry.metadata().unwrap().modified().unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            all.insert(entry.path(), (Some(bytes), modified));
        }
        all.insert(folder, (None, modified));
    }
    all
}

/// As [`contents`], of the files alone: what a command tries at its start leaves a trace in the
/// folders' times.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let all = contents(folder).into_iter();
    all.filter_map(|(path, (bytes, time))| Some((path, bytes?, time)))
        .collect()
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes a file; in a test nothing crashes in between.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file need not survive a crash"
)]
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) {
    fs::write(path, contents).unwrap();
}

/// Makes a named pipe that its owner alone can open.
pub(crate) fn make_fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
}

/// Whether files of this folder can have extended attributes. Leaves a file.
pub(crate) fn has_extended_attributes(folder: &Path) -> bool {
    let file = fs::File::create(folder.join("probe")).unwrap();
    fsetxattr(&file, "user.probe", b"1", XattrFlags::empty()).is_ok()
}

/// Creates a directory and its missing parents as the server would: closed to other users.
pub(crate) fn create_private(directory: &Path) {
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(crate) fn set_modified(path: &Path, time: SystemTime) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// The real clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where tests read the clock"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The mode of everything in a folder, folders with a slash at the end.
pub(crate) fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display();
            let slash = if path.is_dir() { "/" } else { "" };
            all.push((format!("{name}{slash}"), mode(&path)));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}
