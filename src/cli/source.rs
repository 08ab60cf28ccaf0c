//! Reads files and standard input that may hold a secret: within a bound, and without leaving copies behind.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use zeroize::Zeroizing;

/// What is read at once of a source that does not say how much it holds, in bytes.
const FIRST_ROOM: usize = 64 << 10;

/// All bytes of a file (`-` is standard input), or `None` if it has more than `limit`. What is endless is not
/// read to its end.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Standard input as a file: the one of the library has a buffer that nobody wipes.
    let file = if path == Path::new("-") {
        File::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        File::open(path)?
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    read_within(limit, file, length)
}

/// All of `source`, which is said to have `length` bytes, unless it has more than `limit`.
fn read_within(
    limit: usize,
    mut source: impl Read,
    length: u64,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    if length > limit as u64 {
        return Ok(None);
    }
    // With room for all of it and one byte more, which shows that there is no more. A buffer that grows by
    // itself leaves copies behind; this one is wiped when it is too small.
    let room = usize::try_from(length).unwrap_or(limit).max(FIRST_ROOM);
    let mut bytes = Zeroizing::new(vec![0; room.min(limit) + 1]);
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

    /// Gives a byte at a time, and is interrupted before each.
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
    fn everything_is_read_in_whatever_pieces_it_comes() {
        let source: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        for (said, limit) in [
            (0, 200_000),
            (200_000, 200_000),
            (3, 1 << 20),
            (199_999, 1 << 20),
        ] {
            let read = read_within(limit, Slow(&source, false), said).unwrap();
            assert!(**read.unwrap() == source, "{said} {limit}");
            let read = read_within(limit, &*source, said).unwrap();
            assert!(**read.unwrap() == source, "{said} {limit}");
        }
        assert!(read_within(9, &b""[..], 0).unwrap().unwrap().is_empty());
    }

    #[test]
    fn what_is_endless_is_not_read_to_its_end() {
        let read = |source: &[u8], said| read_within(9, source, said).unwrap();
        assert_eq!(**read(&[1; 9], 0).unwrap(), [1; 9]);
        assert!(read(&[1; 10], 0).is_none());
        assert!(read(&[1; 10], 10).is_none());
        assert!(read_within(9, io::repeat(1), 0).unwrap().is_none());
        assert!(read_within(200_000, io::repeat(1), 0).unwrap().is_none());
    }
}
