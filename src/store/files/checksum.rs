//! Checksums of stored backups and tags of their uploaders, in an extended attribute of each file.
//!
//! A checksum detects bit rot on a disk and accidental writes by other programs; it does not
//! protect against an attacker. It is valid for one version of the file, which it identifies by the
//! modification time: any program that gives a file new contents and a new time (rsync, a restored
//! copy) invalidates it. A file that was copied without the attribute gets a new one when it is
//! first verified. Where a file system has no extended attributes, there are no checksums, and
//! verification finds no changes.
//!
//! The tag of the [`Uploader`] is valid for the file, whatever its time. It is missing in files that
//! were copied without the attribute, and in those of earlier versions of this program.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, fstat};

use crate::store::Uploader;

/// Name of the extended attribute. Short, so that it fits into the inode on ext4. The value is
/// text: the CRC-32 as 8 hexadecimal digits, the length in bytes, and the modification time in
/// seconds with nine decimals, and, if it is known, the tag of the uploader as 16 hexadecimal
/// digits, separated by spaces.
const ATTRIBUTE: &str = "user.safe";
/// Upper bound for the length of a value, in bytes.
const MAX_VALUE_LENGTH: usize = 96;
/// Length of one read, in bytes.
const CHUNK: usize = 64 << 10;

/// The length in bytes and the CRC-32 (that of gzip, RFC 1952 §8) of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) length: u64,
    crc: u32,
}

/// Computes the checksum of `bytes`.
pub(super) fn of(bytes: &[u8]) -> Checksum {
    Checksum {
        length: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    }
}

impl Checksum {
    /// Computes the checksum of a file by reading it to its end.
    pub(super) fn of_reader(mut file: impl Read) -> io::Result<Self> {
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

/// What the attribute of a file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The checksum of the file's current version; `None` if it is unknown.
    pub(super) checksum: Option<Checksum>,
    pub(super) uploader: Option<Uploader>,
}

/// Writes the checksum for the file's current version, and the tag of its uploader. A failure is
/// ignored: an upload must not fail because its checksum cannot be stored.
pub(super) fn write_attribute(file: &File, sum: Checksum, uploader: Option<Uploader>) {
    if let Ok(time) = modification_time(file) {
        let tag = uploader.map_or_else(String::new, |Uploader(tag)| format!(" {tag:016x}"));
        let value = format!("{:08x} {} {time}{tag}", sum.crc, sum.length);
        let _ = fsetxattr(file, ATTRIBUTE, value.as_bytes(), XattrFlags::empty());
    }
}

/// Writes again what was recorded before the file's modification time was changed.
pub(super) fn rewrite_attribute(file: &File, recorded: Recorded) {
    if let Some(sum) = recorded.checksum {
        write_attribute(file, sum, recorded.uploader);
    }
}

/// Reads the checksum for the file's current version, and the tag of its uploader.
pub(super) fn read_attribute(file: &File) -> Recorded {
    read(file).map_or_else(Recorded::default, |(sum, time, uploader)| Recorded {
        checksum: modification_time(file)
            .is_ok_and(|now| now == time)
            .then_some(sum),
        uploader,
    })
}

/// Reads the tag of the uploader alone.
pub(super) fn read_uploader(file: &File) -> Option<Uploader> {
    read(file).and_then(|(_, _, uploader)| uploader)
}

fn read(file: &File) -> Option<(Checksum, String, Option<Uploader>)> {
    let mut value = [0; MAX_VALUE_LENGTH];
    let length = fgetxattr(file, ATTRIBUTE, value.as_mut_slice()).ok()?;
    let text = str::from_utf8(value.get(..length)?).ok()?;
    let mut words = text.split(' ');
    let crc = u32::from_str_radix(words.next()?, 16).ok()?;
    let length = words.next()?.parse().ok()?;
    let time = words.next()?.to_owned();
    let tag = match words.next() {
        None => None,
        Some(tag) => Some(Uploader(u64::from_str_radix(tag, 16).ok()?)),
    };
    words
        .next()
        .is_none()
        .then_some((Checksum { length, crc }, time, tag))
}

fn modification_time(file: &File) -> io::Result<String> {
    let found = fstat(file)?;
    Ok(format!("{}.{:09}", found.st_mtime, found.st_mtime_nsec))
}
