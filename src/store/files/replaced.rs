//! Replaced versions in the trash: keeping one while an upload takes its name, and exchanging it
//! with the backup that is there now.
//!
//! File names in `trash/`: `<64 hex>.<unix s>` for what was removed, with the suffix `.replaced`
//! for a version that an upload replaced, and `.rolled-back` for one that a restore replaced.
//!
//! A version is kept by a second name of the same file (`link(2)`), so that no byte is copied, and
//! there is no moment without a backup. After a crash before the rename, the file has both names;
//! the next upload that looks wrong finds it kept already.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::backup_files::{BackupFiles, MAX_LENGTH, erase, meta, read_to_copy, stat_path};
use super::checksum;
use crate::backup::BackupId;
use crate::durable::{self, RenamedToNew, TempFile};
use crate::file_system::Call;
use crate::store::{MAX_KEPT_VERSIONS, Previous, Restored, Traits, TrashKind, Trashed, Upload};
use crate::time::unix;

/// The end of a name in the trash, after the time.
fn suffix(kind: TrashKind) -> &'static str {
    match kind {
        TrashKind::Removed => "",
        TrashKind::Replaced => ".replaced",
        TrashKind::RolledBack => ".rolled-back",
    }
}

/// The parts of a name in the trash; `None` if it is another file.
pub(super) fn parse_name(name: &str) -> Option<(BackupId, TrashKind, u64)> {
    let (id, rest) = name.split_once('.')?;
    let (kind, removed_at) = [TrashKind::Replaced, TrashKind::RolledBack]
        .into_iter()
        .find_map(|kind| Some((kind, rest.strip_suffix(suffix(kind))?)))
        .unwrap_or((TrashKind::Removed, rest));
    // Only the canonical form, from which the file name can be rebuilt.
    if removed_at != "0" && removed_at.starts_with(['0', '+']) {
        return None;
    }
    Some((id.parse().ok()?, kind, removed_at.parse().ok()?))
}

/// The same file under two names, or opened twice.
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn stat(file: &File) -> Result<fs::Metadata, durable::Error> {
    file.metadata().map_err(durable::Error::at("stat backup"))
}

impl BackupFiles {
    pub(super) fn trashed(&self, id: BackupId, kind: TrashKind, removed_at: u64) -> PathBuf {
        let name = format!("{}.{removed_at}{}", id.to_hex(), suffix(kind));
        self.trash.join(name)
    }

    pub(super) fn path_in_trash(&self, trashed: Trashed) -> PathBuf {
        self.trashed(trashed.id, trashed.kind, trashed.removed_at)
    }

    /// The first second from this time on at which no version of the backup came into the trash: of
    /// what happens to a backup within a second, the order is kept.
    pub(super) fn free_second(&self, id: BackupId, at: SystemTime) -> Result<u64, durable::Error> {
        let mut second = unix(at);
        let kinds = [
            TrashKind::Replaced,
            TrashKind::Removed,
            TrashKind::RolledBack,
        ];
        'second: loop {
            for kind in kinds {
                match fs::symlink_metadata(self.trashed(id, kind, second)) {
                    Ok(_) => {
                        second = second.saturating_add(1);
                        continue 'second;
                    }
                    // Also where `trash/` is missing: the step that needs it creates it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(durable::Error::at("stat backup")(error)),
                }
            }
            return Ok(second);
        }
    }

    /// Keeps the backup in the trash if the upload that is about to replace it looks wrong; `None`
    /// if it does not. `old` is the backup `target`, and the caller holds its lock.
    pub(super) fn keep_if_wrong(
        &self,
        target: &Path,
        old: &File,
        upload: &Upload,
    ) -> Result<Option<Previous>, durable::Error> {
        let id = target
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let Some((keep, id)) = upload.keep.zip(id) else {
            return Ok(None);
        };
        let found = stat(old)?;
        let before = Traits {
            length: found.len(),
            uploader: checksum::read_uploader(old),
        };
        if !keep.every && !upload.traits().look_wrong_after(&before) {
            return Ok(None);
        }
        // Free space that cannot be measured is no reason to lose a version.
        let free = (keep.min_free > 0).then(|| self.free_bytes().ok().flatten());
        let is_full = free.flatten().is_some_and(|free| free < keep.min_free);
        // A file that is longer than any backup is damage.
        if found.len() > keep.room.min(MAX_LENGTH) || is_full {
            return Ok(Some(Previous::Lost));
        }
        let kept = self.kept_versions(id)?;
        if kept.iter().any(|kept| is_same(kept, &found)) {
            return Ok(Some(Previous::InTrash(0)));
        }
        if kept.len() >= MAX_KEPT_VERSIONS {
            return Ok(Some(Previous::Lost));
        }
        self.keep(id, old, TrashKind::Replaced, upload.at)?;
        Ok(Some(Previous::InTrash(found.len())))
    }

    /// The replaced versions of a backup in the trash. Only an upload that looks wrong asks for
    /// them, so there is no index.
    fn kept_versions(&self, id: BackupId) -> Result<Vec<fs::Metadata>, durable::Error> {
        let entries = match fs::read_dir(&self.trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_missing()?;
                return Ok(Vec::new());
            }
            entries => entries.map_err(durable::Error::at("list trash"))?,
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry.map_err(durable::Error::at("list trash"))?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(parse_name);
            let is_kept =
                parsed.is_some_and(|(of, kind, _)| (of, kind) == (id, TrashKind::Replaced));
            if is_kept && let Some(found) = stat_path(&entry.path())? {
                kept.push(found);
            }
        }
        Ok(kept)
    }

    /// Gives the backup a second name in the trash. The caller holds its lock, through `old`.
    fn keep(
        &self,
        id: BackupId,
        old: &File,
        kind: TrashKind,
        at: SystemTime,
    ) -> Result<(), durable::Error> {
        let backup = self.backup(id);
        let mut copy = None;
        let mut removed_at = self.free_second(id, at)?;
        loop {
            let path = self.trashed(id, kind, removed_at);
            let is_free = match copy.take() {
                None => match fs::hard_link(&backup, &path) {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                    Err(error) if Call::Link.is_lacking(&error) => {
                        copy = Some(self.copy(old)?);
                        continue;
                    }
                    Err(error) => return Err(durable::Error::at("link into trash")(error)),
                },
                Some(file) => match TempFile::rename_to_new(file, &path)? {
                    RenamedToNew::Done(replaced) => {
                        self.lacking.note(replaced);
                        true
                    }
                    RenamedToNew::Exists(unchanged) => {
                        copy = Some(unchanged);
                        false
                    }
                },
            };
            if is_free {
                break;
            }
            // The same id was replaced in the same second. Nothing in the trash is ever replaced.
            removed_at += 1;
        }
        self.sync_directory(&self.trash)
    }

    /// A synced copy with the same time.
    fn copy(&self, old: &File) -> Result<TempFile, durable::Error> {
        let contents = read_to_copy(old)?;
        let copy = TempFile::create_in(&self.tmp)?;
        copy.write(&contents)?;
        let time = meta(&stat(old)?).last_upload;
        self.set_upload_time(copy.file(), time);
        checksum::rewrite_attribute(copy.file(), checksum::read_attribute(old));
        copy.sync()?;
        Ok(copy)
    }

    /// Restores a replaced version over the backup that is there now, which goes to the trash.
    pub(super) fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> Result<Restored, durable::Error> {
        let (source, target) = (self.path_in_trash(trashed), self.backup(trashed.id));
        let Some(lock) = self.lock_existing(&source)? else {
            return Ok(Restored::Gone);
        };
        let kept = lock.file();
        let found = stat(kept)?;
        // After a crash between the two steps of an upload, it is the backup itself. Its lock must
        // not be waited for a second time.
        if stat_path(&target)?.is_some_and(|named| is_same(&named, &found)) {
            self.renew(kept, now)?;
            erase(&source)?;
            self.sync_directory(&self.trash)?;
            return Ok(Restored::Back);
        }
        let Some(present) = self.lock_existing(&target)? else {
            drop(lock);
            return self.restore(trashed, now);
        };
        let present = present.file();
        if !forced && !is_wrong(present, kept, trashed)? {
            return Ok(Restored::Newer);
        }
        // Where no time can be set, a copy has at least the time at which it is written.
        let copy = if self.renew(kept, now)? {
            None
        } else {
            Some(self.copy(kept)?)
        };
        let is_copy = copy.is_some();
        let exchanged = self
            .keep(trashed.id, present, TrashKind::RolledBack, now)
            .and_then(|()| match copy {
                Some(copy) => copy.rename_to(&target),
                None => rename(&source, &target),
            });
        if let Err(error) = exchanged {
            self.set_time(kept, trashed.last_upload)?;
            return Err(error);
        }
        self.sync_directory(&self.backups)?;
        if is_copy {
            erase(&source)?;
        }
        self.sync_directory(&self.trash)?;
        Ok(Restored::Back)
    }

    /// Renames a replaced version in the trash: a restore of many never chooses it again. Not
    /// flushed to disk: after a power cut it is a replaced version as before.
    pub(super) fn pass_over(&self, trashed: Trashed) -> Result<(), durable::Error> {
        let source = self.path_in_trash(trashed);
        let mut removed_at = trashed.removed_at;
        let Some(_lock) = self.lock_existing(&source)? else {
            return Ok(());
        };
        loop {
            let path = self.trashed(trashed.id, TrashKind::RolledBack, removed_at);
            match self.rename_to_new(&source, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed_at += 1,
                renamed => return renamed.map_err(durable::Error::at("rename in the trash")),
            }
        }
    }
}

/// Whether the backup that is there is the upload that replaced this version, or looks wrong beside
/// it. What a phone uploaded properly since then is not rolled back.
fn is_wrong(present: &File, kept: &File, trashed: Trashed) -> Result<bool, durable::Error> {
    let traits = |file: &File| -> Result<_, durable::Error> {
        let found = stat(file)?;
        let traits = Traits {
            length: found.len(),
            uploader: checksum::read_uploader(file),
        };
        Ok((traits, unix(meta(&found).last_upload)))
    };
    let (now, uploaded) = traits(present)?;
    let (before, _) = traits(kept)?;
    Ok(uploaded <= trashed.removed_at || now.look_wrong_after(&before))
}

fn rename(from: &Path, to: &Path) -> Result<(), durable::Error> {
    fs::rename(from, to).map_err(durable::Error::at("rename out of the trash"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{KeepReplaced, Put, Uploader};

    const HEX: &str = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3";

    fn files(folder: &Path) -> BackupFiles {
        let files = BackupFiles::in_directory(folder);
        for path in [&files.backups, &files.trash, &files.tmp] {
            fs::create_dir(path).unwrap();
        }
        files
    }

    fn upload(id: BackupId, body: &'static [u8], account: &str) -> Upload {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        Upload {
            uploader: Some(Uploader::of(id, Some(account))),
            keep: Some(KeepReplaced {
                every: false,
                room: u64::MAX,
                min_free: 0,
            }),
            ..Upload::new(bytes::Bytes::from_static(body), at)
        }
    }

    #[test]
    fn names_in_the_trash_are_parsed_in_one_spelling_alone() {
        let id: BackupId = HEX.parse().unwrap();
        for kind in [
            TrashKind::Removed,
            TrashKind::Replaced,
            TrashKind::RolledBack,
        ] {
            for removed_at in [0, 7, u64::MAX] {
                let name = format!("{HEX}.{removed_at}{}", suffix(kind));
                assert_eq!(parse_name(&name), Some((id, kind, removed_at)));
            }
        }
        for other in [
            "",
            ".",
            ".07",
            ".+7",
            ".x",
            ".7.",
            ".7.x",
            ".7.removed",
            ".7.Replaced",
            ".replaced",
            "..replaced",
            ".7.replaced.replaced",
            ".7.replaced.tmp",
            ".-7.rolled-back",
        ] {
            assert_eq!(parse_name(&format!("{HEX}{other}")), None, "{other}");
        }
        assert_eq!(parse_name("README.7.replaced"), None);
    }

    #[test]
    fn a_copy_where_there_are_no_links_is_the_version_to_the_nanosecond() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let id: BackupId = HEX.parse().unwrap();
        let first = upload(id, b"a backup", "phones");
        files.put(id, &first).unwrap();
        let lock = files.lock_existing(&files.backup(id)).unwrap().unwrap();
        let old = lock.file();

        let copy = files.copy(old).unwrap();

        let found = stat(copy.file()).unwrap();
        assert_eq!((found.len(), meta(&found).last_upload), (8, first.at));
        assert!(!is_same(&found, &stat(old).unwrap()));
        let recorded = checksum::read_attribute(copy.file());
        assert_eq!(recorded, checksum::read_attribute(old));
        let path = files.trashed(id, TrashKind::Replaced, 7);
        assert!(matches!(
            copy.rename_to_new(&path).unwrap(),
            RenamedToNew::Done(_)
        ));
        assert_eq!(fs::read(path).unwrap(), b"a backup");
    }

    #[test]
    fn of_what_happens_within_a_second_the_trash_keeps_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let id: BackupId = HEX.parse().unwrap();
        let first = upload(id, b"a good backup", "phones");
        for body in [b"a good backup".as_slice(), b"worse", b"w"] {
            files.put(id, &upload(id, body, "phones")).unwrap();
        }
        assert!(files.remove(id, first.at).unwrap());
        files.put(id, &upload(id, b"again", "phones")).unwrap();
        assert!(files.remove(id, first.at).unwrap());

        let mut names: Vec<_> = fs::read_dir(&files.trash)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let (_, kind, second) = parse_name(entry.file_name().to_str().unwrap()).unwrap();
                (
                    second - unix(first.at),
                    kind,
                    fs::read(entry.path()).unwrap(),
                )
            })
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                (0, TrashKind::Replaced, b"a good backup".to_vec()),
                (1, TrashKind::Replaced, b"worse".to_vec()),
                (2, TrashKind::Removed, b"w".to_vec()),
                (3, TrashKind::Removed, b"again".to_vec()),
            ]
        );
    }

    #[test]
    fn a_version_that_has_two_names_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let id: BackupId = HEX.parse().unwrap();
        files.put(id, &upload(id, b"a backup", "phones")).unwrap();
        let left = files.trashed(id, TrashKind::Replaced, 7);
        fs::hard_link(files.backup(id), &left).unwrap();

        let put = files.put(id, &upload(id, b"", "phones")).unwrap();

        assert_eq!(put, Put::Suspicious(Previous::InTrash(0)));
        assert_eq!(files.kept_versions(id).unwrap().len(), 1);
        assert_eq!(fs::read(left).unwrap(), b"a backup");
    }
}
