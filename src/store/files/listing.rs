//! Directory listing as a stream, read in chunks on a blocking thread.

use std::path::{Path, PathBuf};
use std::{fs, io};

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::durable;
use crate::store::Error;
use crate::store::files::backup_files::BACKUPS;

/// Number of directory entries per chunk, so that memory is bounded for any number of backups.
const LIST_CHUNK: usize = 256;

/// Streams the regular files of a directory whose names `parse` recognises; other files are
/// ignored.
pub(super) fn read_directory<T: Send + 'static>(
    directory: &Path,
    parse: impl Fn(&str, &fs::Metadata) -> Option<T> + Clone + Send + 'static,
) -> BoxStream<'static, Result<T, Error>> {
    enum Position {
        Unopened(PathBuf),
        Open(fs::ReadDir),
        End,
    }
    let chunks = stream::unfold(Position::Unopened(directory.to_owned()), move |position| {
        let parse = parse.clone();
        async move {
            let at = durable::Error::at;
            let chunk = tokio::task::spawn_blocking(move || {
                let mut entries = match position {
                    Position::Unopened(path) => match fs::read_dir(&path) {
                        Ok(entries) => entries,
                        Err(error) if is_not_created_yet(&path, &error) => return None,
                        Err(error) => {
                            return Some((vec![Err(at("list")(error).into())], Position::End));
                        }
                    },
                    Position::Open(entries) => entries,
                    Position::End => return None,
                };
                let mut found = Vec::new();
                for entry in entries.by_ref().take(LIST_CHUNK) {
                    let item = entry.map_err(at("list")).and_then(|entry| {
                        let name = entry.file_name();
                        match entry.metadata() {
                            Ok(stat) if stat.is_file() => {
                                Ok(name.to_str().and_then(|name| parse(name, &stat)))
                            }
                            Ok(_) => Ok(None),
                            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                            Err(error) => Err(at("stat")(error)),
                        }
                    });
                    match item {
                        Ok(None) => found.push(None),
                        Ok(Some(item)) => found.push(Some(Ok(item))),
                        Err(error) => found.push(Some(Err(error.into()))),
                    }
                }
                let next = if found.len() < LIST_CHUNK {
                    Position::End
                } else {
                    Position::Open(entries)
                };
                Some((found.into_iter().flatten().collect(), next))
            });
            chunk.await.unwrap_or_else(|_| {
                // The panic hook logs where it was. A listing that ended early would look complete.
                let error = at("list")(io::Error::other("it panicked"));
                Some((vec![Err(error.into())], Position::End))
            })
        }
    });
    chunks.flat_map(stream::iter::<Vec<_>>).boxed()
}

/// True for `trash/` in a directory with backups that no server has used yet.
fn is_not_created_yet(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && path.with_file_name(BACKUPS).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listing_that_panics_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        durable::replace(&folder.path().join("file"), b"").unwrap();
        let parse = |_: &str, _: &fs::Metadata| -> Option<()> { panic!("as in a fault") };

        let listed: Vec<_> = read_directory(folder.path(), parse).collect().await;

        assert!(matches!(listed[..], [Err(Error::Other(_))]), "{listed:?}");
    }
}
