//! What a backup's bytes were when they were stored, kept beside them in an extended attribute of their file.
//!
//! It serves to notice a disk that loses bits and a program that writes where it should not; against somebody who
//! wants to deceive it is no help. It speaks of one version only, which it names by its time: whatever gives
//! a file new bytes and a new time (rsync, a restored copy) makes it void. Copies that leave the attribute behind
//! are remembered anew when they are read for the first time. Where a file system has no such attributes, nothing
//! is remembered and nothing is missed.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, fstat};

/// The attribute's name. Short, so that ext4 has room for it in the inode.
const ATTRIBUTE: &str = "user.safe";
/// Longer than any value: three numbers and a time.
const MAX_VALUE_LENGTH: usize = 96;
/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// The length and the CRC-32 (that of gzip, RFC 1952 §8) of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) length: u64,
    crc: u32,
}

/// The checksum of `bytes`.
pub(super) fn of(bytes: &[u8]) -> Checksum {
    Checksum {
        length: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    }
}

impl Checksum {
    /// Reads a file to its end.
    pub(super) fn of_file(file: &mut File) -> io::Result<Self> {
        let mut hasher = crc32fast::Hasher::new();
        let mut length = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(chunk.get(..read).unwrap_or_default());
            length += read as u64;
        }
        Ok(Self {
            length,
            crc: hasher.finalize(),
        })
    }
}

/// Writes down the checksum of the version that the file is now. A failure is no failure of whoever asks: a backup
/// is worth more than what is remembered of it.
pub(super) fn write_attribute(file: &File, sum: Checksum) {
    if let Ok(time) = modification_time(file) {
        let value = format!("{:08x} {} {time}", sum.crc, sum.length);
        let _ = fsetxattr(file, ATTRIBUTE, value.as_bytes(), XattrFlags::empty());
    }
}

/// What was written down of the version that the file is now.
pub(super) fn read_attribute(file: &File) -> Option<Checksum> {
    let mut value = [0; MAX_VALUE_LENGTH];
    let length = fgetxattr(file, ATTRIBUTE, value.as_mut_slice()).ok()?;
    let text = str::from_utf8(value.get(..length)?).ok()?;
    let mut words = text.split(' ');
    let crc = u32::from_str_radix(words.next()?, 16).ok()?;
    let length = words.next()?.parse().ok()?;
    let is_this_version = words.next()? == modification_time(file).ok()? && words.next().is_none();
    is_this_version.then_some(Checksum { length, crc })
}

fn modification_time(file: &File) -> io::Result<String> {
    let found = fstat(file)?;
    Ok(format!("{}.{:09}", found.st_mtime, found.st_mtime_nsec))
}
