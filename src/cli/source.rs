//! Reader for files and standard input that may contain a secret: limited in size, and without
//! leaving copies in memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use zeroize::Zeroizing;

/// The initial buffer in bytes for a source of unknown length.
const INITIAL_CAPACITY: usize = 64 << 10;

/// Reads all bytes of a file (`-` is standard input); `None` if it has more than `limit`. An
/// endless file is not read to its end.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Standard input as a file: `std::io::Stdin` has a buffer that is never wiped.
    let file = if path == Path::new("-") {
        File::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        File::open(path)?
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    read_within(limit, file, length)
}

/// Reads all of `source`, whose reported length is `length`; `None` if it has more than `limit`
/// bytes.
fn read_within(
    limit: usize,
    mut source: impl Read,
    length: u64,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    if length > limit as u64 {
        return Ok(None);
    }
    // Capacity for all bytes and one more, which detects the end. A `Vec` that grows by itself
    // leaves copies behind; this one is wiped when it is too small.
    let capacity = usize::try_from(length)
        .unwrap_or(limit)
        .max(INITIAL_CAPACITY);
    let mut bytes = Zeroizing::new(vec![0; capacity.min(limit) + 1]);
    let mut filled = 0;
    loop {
        let read = match source.read(bytes.get_mut(filled..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        filled += read;
        if read == 0 {
            bytes.truncate(filled);
            return Ok(Some(bytes));
        }
        if filled > limit {
            return Ok(None);
        }
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; filled.saturating_mul(2).min(limit + 1)]);
            if let Some((start, _)) = larger.split_at_mut_checked(filled) {
                start.copy_from_slice(&bytes);
            }
            bytes = larger;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte at a time, and is interrupted before each.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn all_bytes_are_read_for_any_size_of_reads() {
        let source: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        for (reported, limit) in [
            (0, 200_000),
            (200_000, 200_000),
            (3, 1 << 20),
            (199_999, 1 << 20),
        ] {
            let read = read_within(limit, Slow(&source, false), reported).unwrap();
            assert!(**read.unwrap() == source, "{reported} {limit}");
            let read = read_within(limit, &*source, reported).unwrap();
            assert!(**read.unwrap() == source, "{reported} {limit}");
        }
        assert!(read_within(9, &b""[..], 0).unwrap().unwrap().is_empty());
    }

    #[test]
    fn an_endless_source_is_not_read_to_its_end() {
        let read = |source: &[u8], reported| read_within(9, source, reported).unwrap();
        assert_eq!(**read(&[1; 9], 0).unwrap(), [1; 9]);
        assert!(read(&[1; 10], 0).is_none());
        assert!(read(&[1; 10], 10).is_none());
        assert!(read_within(9, io::repeat(1), 0).unwrap().is_none());
        assert!(read_within(200_000, io::repeat(1), 0).unwrap().is_none());
    }
}
