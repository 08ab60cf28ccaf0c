//! Fault injection: every system call of the write path fails, in the built program, with every
//! error that fits. The client is told, the old backup stays, nothing is left behind, and the next
//! upload is served as if nothing had happened.
//!
//! `REQUESTS` says for each request which calls it makes and what a fault in each of them may do; a
//! test compares it with the calls that the program really makes.
//!
//! Over 500 lines: one table of all system calls of the write path.

use std::fs;

use self::Effect::{EitherStays, IsMade, OldIsKept, OldStays};
use self::Target::{
    Backup, BackupDescriptor, Backups, FreeName, LockedBackup, TempFile, Tmp, Trash, TrashedBackup,
};
use crate::strace::{Strace, end_of, is_end};
use crate::support::process::{ServerProcess, lock_is_waited_for};
use crate::support::wire::{Answer, Client, Protocol};
use crate::support::{ID, Listening, Site, backup_path, names, now};

tests! {
    no_failing_call_of_an_upload_that_creates_leaves_anything_behind: tokio [STRACE_OF_SERVERS];
    no_failing_call_of_an_upload_that_replaces_harms_the_old_backup: tokio [STRACE_OF_SERVERS];
    no_failing_call_of_an_upload_that_looks_wrong_loses_the_old_backup: tokio [STRACE_OF_SERVERS];
    no_failing_call_of_a_removal_harms_the_backup: tokio [STRACE_OF_SERVERS];
    no_failing_call_of_a_restore_makes_a_phone_believe_that_its_backup_is_gone: tokio [STRACE_OF_SERVERS];
    the_faults_are_of_every_call_that_is_made_and_the_answer_comes_last: tokio [STRACE_OF_SERVERS];
}

const OLD: &[u8] = b"the old backup, of which every byte counts";
const NEW: &[u8] = b"the new one, of another length";
const NEXT: &[u8] = b"and the one after";
/// Less than half of the old one.
const WRONG: &[u8] = b"much too small";

/// A request, and what it asks of the system.
struct Request {
    name: &'static str,
    method: &'static str,
    /// Whether there is a backup before.
    old: bool,
    success: u16,
    calls: &'static [Call],
}

/// A system call, and what happens when it fails.
struct Call {
    /// Its name, or a pattern of names as strace takes them.
    name: &'static str,
    on: Target,
    /// Which calls of one thread on this target fail, as strace takes it.
    when: &'static str,
    /// The errors, as strace takes them, and what each of them does to the request.
    errors: &'static [(Effect, &'static [&'static str])],
    /// The step that the log names.
    step: &'static str,
}

/// What a call is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    TempFile,
    /// The backup, by its name.
    Backup,
    /// The backup, opened.
    BackupDescriptor,
    /// The backup, by its name, looked at while its lock is held.
    LockedBackup,
    TrashedBackup,
    /// A name in the trash that may be free, looked at while the backup's lock is held.
    FreeName,
    /// The directory.
    Backups,
    /// The directory.
    Trash,
    /// The directory.
    Tmp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The request is refused, and nothing has changed.
    OldStays,
    /// The request is refused, and nothing has changed, but that the old backup is perhaps in the
    /// trash, too.
    OldIsKept,
    /// The request is refused, and is carried out or is not: the fault strikes after the rename.
    EitherStays,
    /// The call is made again, or another one instead of it, and the request succeeds.
    IsMade,
}

const REQUESTS: [Request; 5] = [
    Request {
        name: "an upload that creates",
        method: "PUT",
        old: false,
        success: 201,
        calls: &[
            // How much is free (`quotas.minFreeBytes`). What cannot be measured refuses no upload.
            Call {
                name: "statfs",
                on: Tmp,
                when: "1",
                errors: &[(IsMade, &["EACCES", "EIO", "ENOSYS"])],
                step: "",
            },
            CREATE_TEMP_FILE,
            WRITE,
            SET_TIME,
            STAT_FOR_CHECKSUM,
            KEEP_CHECKSUM,
            FSYNC,
            OPEN_BACKUP,
            Call {
                name: "statx",
                on: Backups,
                when: "1+",
                errors: &[(OldStays, &["EIO", "EACCES"])],
                step: "open backup",
            },
            Call {
                name: "renameat2",
                on: TempFile,
                when: "1",
                errors: &[
                    (OldStays, RENAME_ERRORS),
                    // Another process was faster.
                    (IsMade, &["EEXIST"]),
                    (IsMade, NO_EXCLUSIVE_RENAME),
                ],
                step: "rename",
            },
            OPEN_BACKUPS,
            FSYNC_BACKUPS,
            STAT_BACKUPS,
            Call {
                // Before, when it looks like a new one, and after, when it is on the disk.
                errors: &[(IsMade, &["EACCES", "EIO"])],
                ..LOOK
            },
        ],
    },
    Request {
        name: "an upload that replaces",
        method: "PUT",
        old: true,
        success: 204,
        calls: &[
            CREATE_TEMP_FILE,
            WRITE,
            SET_TIME,
            STAT_FOR_CHECKSUM,
            KEEP_CHECKSUM,
            FSYNC,
            OPEN_BACKUP,
            LOCK,
            STAT_DESCRIPTOR,
            LOOK_UNDER_LOCK,
            STAT_REPLACED,
            READ_UPLOADER,
            Call {
                name: "/^rename",
                on: TempFile,
                when: "1",
                errors: &[(OldStays, RENAME_ERRORS)],
                step: "rename",
            },
            OPEN_BACKUPS,
            FSYNC_BACKUPS,
            STAT_BACKUPS,
            LOOK,
        ],
    },
    Request {
        name: "an upload that looks wrong",
        method: "PUT",
        old: true,
        success: 204,
        calls: &[
            CREATE_TEMP_FILE,
            WRITE,
            SET_TIME,
            STAT_FOR_CHECKSUM,
            KEEP_CHECKSUM,
            FSYNC,
            OPEN_BACKUP,
            LOCK,
            STAT_DESCRIPTOR,
            LOOK_UNDER_LOCK,
            STAT_REPLACED,
            READ_UPLOADER,
            Call {
                // How much is free. What cannot be measured loses no version.
                name: "statfs",
                on: Tmp,
                when: "1",
                errors: &[(IsMade, &["EACCES", "EIO", "ENOSYS"])],
                step: "",
            },
            Call {
                name: "openat",
                on: Trash,
                when: "1",
                errors: &[(OldStays, OPEN_ERRORS), (OldStays, &["EINTR"])],
                step: "list trash",
            },
            Call {
                // The C library looks before it reads.
                name: "newfstatat",
                on: Trash,
                when: "1",
                errors: &[(OldStays, &["EIO", "ENOMEM"])],
                step: "list trash",
            },
            Call {
                name: "getdents64",
                on: Trash,
                when: "1",
                errors: &[(OldStays, &["EIO"])],
                step: "list trash",
            },
            Call {
                // Those before are two of the descriptor and one of the backup's name.
                when: "4",
                ..LOOK_FOR_FREE_NAME
            },
            Call {
                name: "/^link",
                on: TrashedBackup,
                when: "1",
                errors: &[
                    (OldStays, &["EDQUOT", "EIO", "ENOSPC", "EROFS"]),
                    // A file system without a second name for this file: it is copied. And another
                    // process that was faster.
                    (
                        IsMade,
                        &[
                            "EPERM",
                            "EACCES",
                            "EOPNOTSUPP",
                            "ENOSYS",
                            "EINVAL",
                            "EMLINK",
                            "EXDEV",
                            "EEXIST",
                        ],
                    ),
                ],
                step: "link into trash",
            },
            Call {
                name: "openat",
                on: Trash,
                when: "2",
                errors: &[(OldIsKept, OPEN_ERRORS), (IsMade, &["EINTR"])],
                step: "open directory",
            },
            Call {
                name: "fsync",
                on: Trash,
                when: "1",
                errors: &[(OldIsKept, FSYNC_ERRORS), (IsMade, &["EINTR"])],
                step: "fsync directory",
            },
            Call {
                errors: &[(OldIsKept, &["EIO"])],
                on: Trash,
                ..STAT_BACKUPS
            },
            Call {
                name: "/^rename",
                on: TempFile,
                when: "1",
                errors: &[(OldIsKept, RENAME_ERRORS)],
                step: "rename",
            },
            OPEN_BACKUPS,
            FSYNC_BACKUPS,
            STAT_BACKUPS,
            LOOK,
        ],
    },
    Request {
        name: "a removal",
        method: "DELETE",
        old: true,
        success: 204,
        calls: &[
            OPEN_BACKUP,
            LOCK,
            STAT_DESCRIPTOR,
            LOOK_UNDER_LOCK,
            LOOK_FOR_FREE_NAME,
            Call {
                name: "renameat2",
                on: TrashedBackup,
                when: "1",
                errors: &[
                    (OldStays, RENAME_ERRORS),
                    (IsMade, &["EEXIST"]),
                    (IsMade, NO_EXCLUSIVE_RENAME),
                ],
                step: "rename into trash",
            },
            Call {
                name: "openat",
                on: Trash,
                when: "1",
                errors: &[(EitherStays, OPEN_ERRORS), (IsMade, &["EINTR"])],
                step: "open directory",
            },
            Call {
                name: "fsync",
                on: Trash,
                when: "1",
                errors: &[
                    (EitherStays, FSYNC_ERRORS),
                    (IsMade, &["EINTR"]),
                    (IsMade, NO_SYNC_OF_DIRECTORIES),
                ],
                step: "fsync directory",
            },
            Call {
                on: Trash,
                ..STAT_BACKUPS
            },
            OPEN_BACKUPS,
            FSYNC_BACKUPS,
            STAT_BACKUPS,
            LOOK,
        ],
    },
    Request {
        // Not a write, but a phone that is told 404 instead of 500 takes its backup for lost.
        name: "a restore",
        method: "GET",
        old: true,
        success: 200,
        calls: &[
            Call {
                name: "openat",
                on: Backup,
                when: "1",
                errors: &[(OldStays, OPEN_ERRORS), (IsMade, &["EINTR"])],
                step: "open backup",
            },
            STAT_DESCRIPTOR,
            Call {
                name: "read",
                on: BackupDescriptor,
                when: "1",
                errors: &[(OldStays, &["EIO", "ENOMEM"]), (IsMade, &["EINTR"])],
                step: "read backup",
            },
        ],
    },
];

const OPEN_ERRORS: &[&str] = &["EACCES", "EIO", "EMFILE", "ENFILE", "ENOMEM"];
const FSYNC_ERRORS: &[&str] = &["EIO", "ENOSPC", "EDQUOT", "EROFS"];
/// What a file system or a sandbox returns in place of a call that it lacks.
const NO_EXCLUSIVE_RENAME: &[&str] = &["EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM"];
const NO_SYNC_OF_DIRECTORIES: &[&str] = &["EINVAL", "ENOSYS", "EOPNOTSUPP", "EBADF"];
const RENAME_ERRORS: &[&str] = &["EACCES", "EDQUOT", "EIO", "ENOSPC", "EROFS"];
const CREATE_TEMP_FILE: Call = Call {
    name: "openat",
    on: TempFile,
    when: "1",
    errors: &[
        (
            OldStays,
            &[
                "EACCES", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS",
            ],
        ),
        (IsMade, &["EINTR"]),
    ],
    step: "create temporary file",
};

const WRITE: Call = Call {
    name: "pwrite64",
    on: TempFile,
    when: "1",
    errors: &[
        (OldStays, &["EDQUOT", "EFBIG", "EIO", "ENOSPC"]),
        (IsMade, &["EINTR"]),
    ],
    step: "write temporary file",
};

const FSYNC: Call = Call {
    name: "fsync",
    on: TempFile,
    when: "1",
    errors: &[(OldStays, FSYNC_ERRORS), (IsMade, &["EINTR"])],
    step: "fsync temporary file",
};

const OPEN_BACKUP: Call = Call {
    name: "openat",
    on: Backup,
    when: "1",
    errors: &[(OldStays, OPEN_ERRORS), (IsMade, &["EINTR"])],
    step: "open backup",
};

const LOCK: Call = Call {
    name: "flock",
    on: BackupDescriptor,
    when: "1",
    errors: &[
        (OldStays, &["EIO", "ENOMEM"]),
        (IsMade, &["EINTR"]),
        // A file system without locks, and one that locks only what is open for writing.
        (
            IsMade,
            &["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EPERM", "EBADF"],
        ),
    ],
    step: "lock backup",
};

const STAT_DESCRIPTOR: Call = Call {
    name: "statx",
    on: BackupDescriptor,
    when: "1",
    errors: &[(OldStays, &["EIO", "ENOMEM"])],
    step: "stat backup",
};

const LOOK_UNDER_LOCK: Call = Call {
    name: "statx",
    on: LockedBackup,
    // The first is the one of the descriptor.
    when: "2",
    errors: &[
        (OldStays, &["EACCES", "EIO"]),
        // As if another process had removed it: everything is looked up again.
        (IsMade, &["ENOENT"]),
    ],
    step: "stat backup",
};

/// Whether a version came into the trash within the same second.
const LOOK_FOR_FREE_NAME: Call = Call {
    name: "statx",
    on: FreeName,
    // Those before are of the descriptor and of the backup's name.
    when: "3",
    errors: &[(OldStays, &["EACCES", "EIO"])],
    step: "stat backup",
};

/// How long the backup is that is about to be replaced.
const STAT_REPLACED: Call = Call {
    name: "statx",
    on: BackupDescriptor,
    when: "2",
    errors: &[(OldStays, &["EIO", "ENOMEM"])],
    step: "stat backup",
};

/// Who uploaded it. Where nobody knows, that is no reason to suspect anything.
const READ_UPLOADER: Call = Call {
    name: "fgetxattr",
    on: BackupDescriptor,
    when: "1",
    errors: &[(IsMade, &["ENODATA", "EOPNOTSUPP", "EPERM", "E2BIG", "EIO"])],
    step: "",
};

/// Each look-up fails, in whichever thread it happens.
const LOOK: Call = Call {
    name: "statx",
    on: Backup,
    when: "1+",
    errors: &[(OldStays, &["EACCES", "EIO"])],
    step: "stat backup",
};

/// From here on, the new name is there, but the disk may not have it.
const OPEN_BACKUPS: Call = Call {
    name: "openat",
    on: Backups,
    when: "1",
    errors: &[(EitherStays, OPEN_ERRORS), (IsMade, &["EINTR"])],
    step: "open directory",
};

const FSYNC_BACKUPS: Call = Call {
    name: "fsync",
    on: Backups,
    when: "1",
    errors: &[
        (EitherStays, FSYNC_ERRORS),
        (IsMade, &["EINTR"]),
        (IsMade, NO_SYNC_OF_DIRECTORIES),
    ],
    step: "fsync directory",
};

/// An XFS that has shut down admits it only here.
const STAT_BACKUPS: Call = Call {
    name: "fstat",
    on: Backups,
    when: "1",
    errors: &[(EitherStays, &["EIO"])],
    step: "fsync directory",
};

/// Without the time of the server's clock, a backup is stored with that of the file system's.
const SET_TIME: Call = Call {
    name: "utimensat",
    on: TempFile,
    when: "1",
    errors: &[(
        IsMade,
        &["EPERM", "EACCES", "EINVAL", "ENOSYS", "EROFS", "EIO"],
    )],
    step: "",
};

/// Without a checksum, a backup is stored all the same.
const STAT_FOR_CHECKSUM: Call = Call {
    name: "fstat",
    on: TempFile,
    when: "1",
    errors: &[(IsMade, &["EIO", "ENOMEM"])],
    step: "",
};

const KEEP_CHECKSUM: Call = Call {
    name: "fsetxattr",
    on: TempFile,
    when: "1",
    errors: &[(
        IsMade,
        &["EOPNOTSUPP", "EPERM", "E2BIG", "ENOSPC", "EDQUOT", "EIO"],
    )],
    step: "",
};

impl Target {
    /// What `-P` of strace must name so that only calls on this are struck: nothing where `when`
    /// alone says it.
    ///
    /// The server knows the data directory by a symbolic link, which a descriptor's path does not
    /// contain.
    fn filter(self, site: &Site) -> Option<String> {
        let named = site.folder().join("link");
        let resolved = fs::canonicalize(site.data()).unwrap();
        let path = match self {
            TempFile | TrashedBackup | FreeName => return None,
            Backup | LockedBackup => named.join("backups").join(ID),
            BackupDescriptor => resolved.join("backups").join(ID),
            Backups => named.join("backups"),
            Trash => named.join("trash"),
            Tmp => named.join("tmp"),
        };
        Some(path.to_str().unwrap().to_owned())
    }

    /// Whether a line of strace's log is of a call on this.
    fn is_in(self, line: &str) -> bool {
        let any = |marks: &[String]| marks.iter().any(|mark| line.contains(mark));
        match self {
            TempFile => any(&["/link/tmp/.".into(), "/data/tmp/.".into()]),
            Backup | LockedBackup => {
                any(&[format!("/link/backups/{ID}\"")]) && !TrashedBackup.is_in(line)
            }
            BackupDescriptor => any(&[format!("/data/backups/{ID}>")]),
            TrashedBackup | FreeName => any(&[format!("/link/trash/{ID}.")]),
            Backups => any(&["/link/backups\"".into(), "/data/backups>".into()]),
            Trash => any(&["/link/trash\"".into(), "/data/trash>".into()]),
            Tmp => any(&["/link/tmp\"".into()]),
        }
    }
}

impl Call {
    /// Whether a line of strace's log is of this call.
    fn is_in(&self, line: &str) -> bool {
        let call = line.split_once('(').map_or("", |(before, _)| before);
        let call = call.split_whitespace().last().unwrap_or_default();
        let named = match self.name.strip_prefix("/^") {
            Some(start) => call.starts_with(start),
            None => call == self.name,
        };
        named && self.on.is_in(line)
    }
}

impl Request {
    fn body(&self) -> &'static [u8] {
        match self.method {
            "PUT" if self.looks_wrong() => WRONG,
            "PUT" => NEW,
            _ => b"",
        }
    }

    fn looks_wrong(&self) -> bool {
        let mut calls = self.calls.iter();
        calls.any(|call| (call.name, call.on) == ("/^link", TrashedBackup))
    }
}

/// A server, and a phone on one connection to it.
struct Patient {
    server: ServerProcess,
    phone: Client,
}

impl Patient {
    async fn start() -> Self {
        let site = Site::new().with(serde_json::json!({
            "storage": { "files": { "directory": "link" } },
        }));
        fs::create_dir(site.data()).unwrap();
        std::os::unix::fs::symlink("data", site.folder().join("link")).unwrap();
        let server = ServerProcess::start(site);
        let mut phone = server.phone(Protocol::Http1).await;
        // The first request verifies the credentials and remembers them.
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        Self { server, phone }
    }

    fn site(&self) -> &Site {
        self.server.site()
    }

    /// Puts the old backup where the request expects one, and nothing else anywhere.
    fn prepare(&self, request: &Request) {
        let data = self.site().data();
        for folder in ["backups", "trash"] {
            for name in names(&data.join(folder)) {
                fs::remove_file(data.join(folder).join(name)).unwrap();
            }
        }
        if request.old {
            self.site().place_backup(ID, OLD, now());
        }
    }

    async fn send(&mut self, request: &Request) -> Answer {
        let path = backup_path();
        self.phone
            .send(request.method, &path, &[], request.body())
            .await
    }

    /// Sends the request while one of its calls fails; the answer, and strace's log.
    async fn send_struck(
        &mut self,
        request: &Request,
        call: &Call,
        error: &str,
    ) -> (Answer, Vec<String>) {
        let trace = format!("trace={}", call.name);
        let inject = format!("inject={}:error={error}:when={}", call.name, call.when);
        let filter = call.on.filter(self.site());
        let mut arguments = vec!["-e", &trace, "-e", &inject];
        if let Some(filter) = &filter {
            arguments.extend(["-P", filter]);
        }
        if ![LockedBackup, FreeName].contains(&call.on) {
            let strace = Strace::attach(&self.server, &arguments);
            let answer = self.send(request).await;
            return (answer, strace.detach());
        }
        // Attached only when the store waits for the lock: every call is then one under the lock.
        let file = self.site().backup_file(ID);
        let lock = fs::File::open(&file).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (path, server) = (backup_path(), &self.server);
        let sent = self.phone.send(request.method, &path, &[], request.body());
        let unlocked = async {
            lock_is_waited_for(&file).await;
            let strace = Strace::attach(server, &arguments);
            drop(lock);
            strace
        };
        let (answer, strace) = tokio::join!(sent, unlocked);
        (answer, strace.detach())
    }

    /// What is on disk now: the backup, and what lies in the trash; makes sure that there is
    /// nothing else.
    fn kept(&self, case: &str) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let data = self.site().data();
        let read = |folder: &str, name: &String| fs::read(data.join(folder).join(name)).unwrap();
        assert!(names(&data.join("tmp")).is_empty(), "{case}");
        let backups = names(&data.join("backups"));
        assert!(backups.iter().all(|name| name == ID), "{case}: {backups:?}");
        let trash = names(&data.join("trash"));
        (
            backups.first().map(|name| read("backups", name)),
            trash.iter().map(|name| read("trash", name)).collect(),
        )
    }

    /// One fault, and everything that has to be so afterwards.
    async fn survives(&mut self, request: &Request, call: &Call, error: &str, effect: Effect) {
        let case = format!("{}, {} on {:?}: {error}", request.name, call.name, call.on);
        self.prepare(request);

        let (answer, log) = self.send_struck(request, call, error).await;

        let struck: Vec<_> = log
            .iter()
            .filter(|line| line.contains("(INJECTED)") && !is_end(line))
            .collect();
        assert!(
            struck.iter().any(|line| call.is_in(line)),
            "{case}: did not strike: {log:#?}"
        );
        for line in struck {
            // What strikes a name each time strikes what it leads to, too.
            let led_to = call.on == Backup && BackupDescriptor.is_in(line);
            assert!(call.is_in(line) || led_to, "{case}: struck {line}");
        }
        self.assert_answered(&case, (request, call), &answer, error, effect);
        let told = self.server.log_through_request(request.method);
        assert!(!told.concat().contains(ID), "{case}: {told:#?}");
        if effect != IsMade {
            let failed =
                |line: &String| line.contains("ERROR storage failed") && line.contains(call.step);
            assert!(told.iter().any(failed), "{case}: {told:#?}");
        }
        self.assert_kept(&case, request, effect).await;

        // The cause is gone: full service, on the same connection.
        let next = self.phone.send("PUT", &backup_path(), &[], NEXT).await;
        assert!([201, 204].contains(&next.status), "{case}: {next:?}");
        let read = self.phone.ask("GET", &backup_path(), &[]).await;
        assert!(read.status == 200 && read.body == NEXT, "{case}: {read:?}");
        self.server.log_through_request("PUT");
        self.server.log_through_request("GET");
    }

    fn assert_answered(
        &self,
        case: &str,
        (request, call): (&Request, &Call),
        answer: &Answer,
        error: &str,
        effect: Effect,
    ) {
        let full = ["ENOSPC", "EDQUOT"].contains(&error);
        // A missing right means this only where a directory is changed.
        let changes = ["create temporary file", "rename", "rename into trash"];
        let read_only = error == "EROFS" || error == "EACCES" && changes.contains(&call.step);
        let (status, text) = match effect {
            IsMade => (request.success, answer.text()),
            OldStays | OldIsKept | EitherStays if full => (507, "no space left\n"),
            OldStays | OldIsKept | EitherStays if read_only => (503, "the storage is read-only\n"),
            OldStays | OldIsKept | EitherStays => (500, "the storage failed\n"),
        };
        assert_eq!((answer.status, answer.text()), (status, text), "{case}");
        if effect != IsMade {
            answer.assert_refused(status);
        }
    }

    async fn assert_kept(&mut self, case: &str, request: &Request, effect: Effect) {
        let (backup, trash) = self.kept(case);
        let unchanged = (request.old.then(|| OLD.to_vec()), Vec::new());
        let carried_out = match request.method {
            "PUT" if request.looks_wrong() => (Some(WRONG.to_vec()), vec![OLD.to_vec()]),
            "PUT" => (Some(NEW.to_vec()), Vec::new()),
            "DELETE" => (None, vec![OLD.to_vec()]),
            _ => unchanged.clone(),
        };
        let expected = match effect {
            OldStays => vec![unchanged],
            OldIsKept => vec![unchanged, (Some(OLD.to_vec()), vec![OLD.to_vec()])],
            IsMade => vec![carried_out],
            // A version that looks wrong is in the place of the old one only when that is kept.
            EitherStays => vec![
                unchanged.clone(),
                (unchanged.0, carried_out.1.clone()),
                carried_out,
            ],
        };
        let kept = (backup, trash);
        assert!(expected.contains(&kept), "{case}: {kept:?}");

        let read = self.phone.ask("GET", &backup_path(), &[]).await;
        self.server.log_through_request("GET");
        match kept.0 {
            Some(backup) => assert!(
                read.status == 200 && read.body == backup,
                "{case}: {read:?}"
            ),
            None => assert_eq!(read.status, 404, "{case}"),
        }
    }
}

async fn every_fault_of(request: &Request) {
    let mut patient = Patient::start().await;
    patient.server.log_through_request("GET");
    for call in request.calls {
        for (effect, errors) in call.errors {
            for error in *errors {
                patient.survives(request, call, error, *effect).await;
            }
        }
    }
    let Patient { server, phone } = patient;
    drop(phone);
    server.has_no_new_descriptors().await;
}

async fn no_failing_call_of_an_upload_that_creates_leaves_anything_behind() {
    every_fault_of(&REQUESTS[0]).await;
}

async fn no_failing_call_of_an_upload_that_replaces_harms_the_old_backup() {
    every_fault_of(&REQUESTS[1]).await;
}

async fn no_failing_call_of_an_upload_that_looks_wrong_loses_the_old_backup() {
    every_fault_of(&REQUESTS[2]).await;
}

async fn no_failing_call_of_a_removal_harms_the_backup() {
    every_fault_of(&REQUESTS[3]).await;
}

async fn no_failing_call_of_a_restore_makes_a_phone_believe_that_its_backup_is_gone() {
    every_fault_of(&REQUESTS[4]).await;
}

async fn the_faults_are_of_every_call_that_is_made_and_the_answer_comes_last() {
    let mut patient = Patient::start().await;
    for request in &REQUESTS {
        patient.prepare(request);
        let strace = Strace::attach(&patient.server, &["-e", "trace=%file,%desc,%network"]);
        let answer = patient.send(request).await;
        let log = strace.detach();

        assert_eq!(answer.status, request.success);
        for line in log.iter().filter(|line| is_of_the_store(line)) {
            let known = request.calls.iter().any(|call| call.is_in(line));
            assert!(known, "{}: no fault strikes {line}", request.name);
        }
        let mut done = 0;
        for call in request.calls {
            // dav-server looks when it likes, and what is under the lock does not stand in the log.
            let anywhere = call.name == "statx" && [Backup, LockedBackup].contains(&call.on);
            let from = if anywhere { 0 } else { done };
            let made = (from..log.len()).find(|&at| call.is_in(&log[at]));
            let Some(made) = made else {
                panic!(
                    "{}: no {} on {:?} in its turn: {log:#?}",
                    request.name, call.name, call.on
                );
            };
            if !anywhere {
                done = end_of(&log, made);
            }
        }
        let answered = log.iter().position(|line| is_sent(line));
        assert!(
            answered.is_some_and(|answered| done < answered),
            "{}: {log:#?}",
            request.name
        );
    }
}

/// Whether a line of strace's log is of a call on the data directory that can fail and is listened
/// to.
fn is_of_the_store(line: &str) -> bool {
    let harmless = ["close(", "fcntl(", "lseek("];
    !is_end(line)
        && (line.contains("/link/") || line.contains("/data/"))
        && !harmless.iter().any(|call| line.contains(call))
}

/// Whether a line of strace's log is of something that goes out to a client.
fn is_sent(line: &str) -> bool {
    let sends = ["sendto(", "sendmsg(", "write(", "writev("];
    line.contains("<socket:[") && sends.iter().any(|call| line.contains(call))
}
