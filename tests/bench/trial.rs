//! Trial of another way to write, with bare system calls on both sides: a spare file that is
//! overwritten and then exchanged with the backup (`renameat2`, `RENAME_EXCHANGE`), instead of a
//! new file and a rename. The result is in docs/DURABILITY.md.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bare::BackupPaths;
use crate::{BODY, compare};

/// Runs the trial on the disk of `folder`, and on XFS if it can be mounted.
pub(crate) fn run(folder: &Path) {
    try_on("this disk", &folder.join("trial"));
    match Xfs::mount(folder) {
        Some(disk) => try_on("XFS on a loop device", &disk.mounted.join("trial")),
        None => println!("*** SKIPPED: the trial on XFS needs mkfs.xfs and the right to mount ***"),
    }
}

fn try_on(disk: &str, folder: &Path) {
    const ROUNDS: u32 = 10;
    const EACH: u32 = 200;
    let paths = BackupPaths::make(folder, 0);
    // After these rounds, both files have their final size.
    (0..2).for_each(|_| paths.exchange(&BODY));
    println!("trial on {disk}");
    let ways: [(&str, &dyn Fn()); 2] = [
        ("  new file and rename      ", &|| {
            (0..EACH).for_each(|_| paths.overwrite(&BODY));
        }),
        ("  spare file and exchange  ", &|| {
            (0..EACH).for_each(|_| paths.exchange(&BODY));
        }),
    ];
    let costs = compare(&ways, ROUNDS, EACH);
    println!("  ratio of CPU                {:.2}", costs[1] / costs[0]);
}

/// An XFS file system in a file; unmounted when dropped.
struct Xfs {
    mounted: PathBuf,
}

impl Xfs {
    fn mount(folder: &Path) -> Option<Self> {
        let image = folder.join("xfs");
        let mounted = folder.join("mounted");
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        let runs = |command: &mut Command| command.output().is_ok_and(|ran| ran.status.success());
        let is_there = runs(Command::new("mkfs.xfs").arg("-q").arg(&image))
            && runs(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .args([&image, &mounted]),
            );
        is_there.then_some(Self { mounted })
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mounted).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
