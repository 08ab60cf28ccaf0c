//! Damage to stored backups.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

pub(crate) fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Changes a file in place, without a trace in its time.
pub(crate) fn damage(path: &Path, how: impl FnOnce(&File)) {
    let time = modified(path);
    let file = File::options().write(true).open(path).unwrap();
    how(&file);
    file.set_modified(time).unwrap();
}

pub(crate) fn flip(file: &File) {
    file.write_all_at(b"?", 40).unwrap();
}
