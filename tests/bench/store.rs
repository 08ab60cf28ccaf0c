//! Benchmark of the store, compared with loops of the same system calls: a durable overwrite, many
//! concurrent ones, and a sweep over a million backups.
//!
//! Run by `cargo bench`, on the disk of `target/`. Both sides of a ratio alternate in one run,
//! because machines are noisy. `--short` runs fewer rounds with a tenth of the backups, and omits
//! the trial of another way to write. The arguments `overwrite`, `parallel`, `sweep` and `trial`
//! select one part. The benchmark fails if a ratio is far beyond its goal.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints its figures, panics on any error, and its files need not survive a crash"
)]

mod bare;
mod serving;
mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use threema_safe_server::backup::BackupId;
use threema_safe_server::retention::{Mode, Retention, sweep};
use threema_safe_server::state::{Scrubbed, StateFile};
use threema_safe_server::store::{FileStore, KeepReplaced, Store, Upload, Uploader};
use tokio::runtime::Runtime;

use crate::bare::BackupPaths;
use crate::serving::{ServerProcess, client_config, cpu, get_config, memory, prepare, request};

/// Goal for the store's CPU time of an overwrite, as a ratio to the bare loop's.
const OVERWRITE_GOAL: f64 = 1.25;
/// Goal for the time of a sweep, as a ratio to the bare loop's.
const SWEEP_GOAL: f64 = 1.5;
/// Factor beyond a goal above which the deviation is no longer noise.
const TOLERANCE: f64 = 1.5;
/// A backup of 32 KiB: about a hundred contacts.
static BODY: [u8; 32 << 10] = [7; 32 << 10];
/// The directory of this process in `/proc`.
const SELF: &str = "/proc/self";
/// The age of a backup that has expired.
const TOO_OLD: Duration = Duration::from_secs(188 * 24 * 60 * 60);
/// Time limit for a sweep.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, parts): (Vec<_>, Vec<_>) = arguments
        .iter()
        .map(String::as_str)
        .partition(|argument| argument.starts_with('-'));
    // Cargo adds an option of its own, which is ignored.
    let short = options.contains(&"--short");
    let is_selected = |part| parts.is_empty() || parts.contains(&part);
    // Not /tmp, which is in memory on some systems.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Arc::new(FileStore::open(&folder.path().join("data")).unwrap());

    let mut missed = false;
    let mut holds = |ratio, goal| missed |= ratio > goal * TOLERANCE;
    if is_selected("overwrite") {
        let count = if short { 200 } else { 2_000 };
        holds(overwrite(&store, folder.path(), count), OVERWRITE_GOAL);
    }
    if is_selected("parallel") {
        parallel(&store, folder.path(), if short { 3 } else { 10 });
    }
    if is_selected("sweep") {
        let count = if short { 100_000 } else { 1_000_000 };
        holds(sweeps(folder.path(), count), SWEEP_GOAL);
    }
    if is_selected("trial") && !short {
        trial::run(folder.path());
    }
    if missed {
        println!("a goal is exceeded by more than the tolerance");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

fn id(number: u32) -> BackupId {
    let mut bytes = [0xab; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    BackupId::from_bytes(bytes)
}

/// An upload as the server hands it to the store: the version that it replaces would be kept if the
/// change looked wrong.
fn upload(id: BackupId) -> Upload {
    Upload {
        uploader: Some(Uploader::of(id, Some("phones"))),
        keep: Some(KeepReplaced {
            every: false,
            room: u64::MAX,
            min_free: 64 << 20,
        }),
        ..Upload::new(Bytes::from_static(&BODY), SystemTime::now())
    }
}

fn put(runtime: &Runtime, store: &Arc<FileStore>, tasks: u32, each: u32) {
    let tasks: Vec<_> = (0..tasks)
        .map(|number| {
            let store = Arc::clone(store);
            runtime.spawn(async move {
                for _ in 0..each {
                    let id = id(number);
                    store.put(id, upload(id)).await.unwrap();
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Sequential durable overwrites; returns the ratio of CPU times. The third variant measures the
/// cost of a blocking thread, which the store needs because the runtime's threads must not wait for
/// a disk.
fn overwrite(store: &Arc<FileStore>, folder: &Path, count: u32) -> f64 {
    const ROUNDS: u32 = 10;
    let runtime = runtime();
    let paths = Arc::new(BackupPaths::make(&folder.join("bare"), 0));
    put(&runtime, store, 1, 1);
    let each = count / ROUNDS;
    let bare = || (0..each).for_each(|_| paths.overwrite(&BODY));
    let bare_blocking = || {
        let paths = Arc::clone(&paths);
        let task = runtime.spawn(async move {
            for _ in 0..each {
                let paths = Arc::clone(&paths);
                let blocking = tokio::task::spawn_blocking(move || paths.overwrite(&BODY));
                blocking.await.unwrap();
            }
        });
        runtime.block_on(task).unwrap();
    };
    let ways: [(&str, &dyn Fn()); 3] = [
        ("overwrite of 32 KiB        ", &|| {
            put(&runtime, store, 1, each);
        }),
        ("  bare system calls        ", &bare),
        ("  the same, on such threads", &bare_blocking),
    ];
    let costs = compare(&ways, ROUNDS, each);
    let ratio = costs[0] / costs[1];
    println!("  ratio of CPU                {ratio:.2} (at most {OVERWRITE_GOAL})");
    ratio
}

/// Runs several variants alternately; prints the cost of each, and returns the CPU times.
fn compare(ways: &[(&str, &dyn Fn())], rounds: u32, each: u32) -> Vec<f64> {
    let mut spent = vec![(Duration::ZERO, Duration::ZERO); ways.len()];
    for _ in 0..rounds {
        for ((_, work), (cpu_time, took)) in ways.iter().zip(&mut spent) {
            let (started, before) = (Instant::now(), cpu(SELF));
            work();
            *cpu_time += cpu(SELF) - before;
            *took += started.elapsed();
        }
    }
    let microseconds = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(rounds * each);
    for ((name, _), (cpu_time, took)) in ways.iter().zip(&spent) {
        println!(
            "{name} {:.0} µs of CPU, {:.0} µs in all",
            microseconds(*cpu_time),
            microseconds(*took)
        );
    }
    let cpu_times = spent.iter().map(|(cpu_time, _)| microseconds(*cpu_time));
    cpu_times.collect()
}

/// Concurrent durable overwrites, compared with as many threads with bare system calls.
fn parallel(store: &Arc<FileStore>, folder: &Path, rounds: u32) {
    let runtime = runtime();
    for writers in [1, 8, 32, 400] {
        let each = (400 / writers).clamp(2, 50);
        let targets: Vec<_> = (0..writers)
            .map(|number| BackupPaths::make(&folder.join("bare"), number))
            .collect();
        put(&runtime, store, writers, 1);
        let mut took = [Duration::ZERO; 2];
        for _ in 0..rounds {
            let started = Instant::now();
            put(&runtime, store, writers, each);
            took[0] += started.elapsed();
            let started = Instant::now();
            std::thread::scope(|scope| {
                for paths in &targets {
                    scope.spawn(|| (0..each).for_each(|_| paths.overwrite(&BODY)));
                }
            });
            took[1] += started.elapsed();
        }
        let rates = took.map(|took| f64::from(writers * each * rounds) / took.as_secs_f64());
        println!(
            "{writers:3} overwrites at once       {:.0} a second, bare threads {:.0}: {:.2} times",
            rates[0],
            rates[1],
            rates[0] / rates[1]
        );
    }
}

/// Sweeps over `count` backups; returns the ratio of times.
fn sweeps(folder: &Path, count: u32) -> f64 {
    const FEW: u32 = 10_000;
    let folder = folder.join("server");
    std::fs::create_dir(&folder).unwrap();
    let client = Client::prepare(&folder);
    let data = folder.join("data");
    let backups = data.join("backups");
    drop(FileStore::open(&data).unwrap());

    fill(&backups, 0..FEW);
    let few = client.during_a_sweep(&folder).peak;
    fill(&backups, FEW..count);
    let ratio = sweep_beside_bare(&data, count);

    let mut sweeping = Vec::new();
    let mut idle = Vec::new();
    let mut many = 0;
    for _ in 0..3 {
        let mut round = client.during_a_sweep(&folder);
        sweeping.append(&mut round.sweeping);
        idle.append(&mut round.idle);
        many = many.max(round.peak);
    }
    println!(
        "  peak memory of a server     {} KiB over {FEW} backups, {} KiB over {count}",
        few >> 10,
        many >> 10
    );
    for (name, part) in [("half", 0.5), ("99 of 100", 0.99)] {
        let [sweeping, idle] = [&mut sweeping, &mut idle].map(|all| quantile(all, part));
        println!(
            "  GET config during it        {name} within {:.1} ms, {:.1} ms when idle: {:.2} times",
            sweeping * 1e3,
            idle * 1e3,
            sweeping / idle
        );
    }
    println!("  requests during sweeps      {}", sweeping.len());
    empty(&backups, count);
    ratio
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index below the number of values"
)]
fn quantile(all: &mut [Duration], part: f64) -> f64 {
    all.sort_unstable();
    all[((all.len() - 1) as f64 * part) as usize].as_secs_f64()
}

/// Calls `work` with every backup's path, on all cores.
fn with_paths(backups: &Path, numbers: std::ops::Range<u32>, work: impl Fn(PathBuf) + Sync) {
    let threads = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for first in 0..threads {
            let numbers = numbers.clone().skip(first).step_by(threads);
            let work = &work;
            scope.spawn(move || numbers.for_each(|number| work(backups.join(id(number).to_hex()))));
        }
    });
}

/// Creates backups and flushes them to disk, so that no writes are pending during the measurement.
fn fill(backups: &Path, numbers: std::ops::Range<u32>) {
    with_paths(backups, numbers, |path| {
        std::fs::write(path, [7; 64]).unwrap();
    });
    rustix::fs::syncfs(std::fs::File::open(backups).unwrap()).unwrap();
}

fn empty(backups: &Path, count: u32) {
    with_paths(backups, 0..count, |path| {
        std::fs::remove_file(path).unwrap();
    });
}

/// Sweeps that find one expired backup each, which is typical for a large store.
fn sweep_beside_bare(data: &Path, count: u32) -> f64 {
    let runtime = runtime();
    let backups = data.join("backups");
    let swept = || {
        let state = StateFile::in_directory(data);
        let retention = Retention::of_days(180, 7, 7);
        let store = FileStore::open(data).unwrap();
        let started = Instant::now();
        let swept = runtime.spawn(async move {
            // Each round is another day for the check of numbers: as if confirmed.
            sweep(&store, &state, retention, SystemTime::now(), Mode::Force).await
        });
        let report = runtime.block_on(swept).unwrap().unwrap();
        let took = started.elapsed();
        assert_eq!((report.kept, report.removed), (count.into(), 1));
        took
    };
    let bare = || {
        let started = Instant::now();
        assert!(bare::sweep(&backups) >= count.into());
        started.elapsed()
    };
    let mut took = [Vec::new(), Vec::new()];
    // The first round warms up. The order alternates, because the second one profits from the
    // caches.
    for round in 0..=6 {
        let expired = std::fs::File::create(backups.join(id(count + round).to_hex())).unwrap();
        expired.set_modified(SystemTime::now() - TOO_OLD).unwrap();
        let pair = if round % 2 == 0 {
            let swept = swept();
            [swept, bare()]
        } else {
            let bare = bare();
            [swept(), bare]
        };
        if round > 0 {
            took[0].push(pair[0]);
            took[1].push(pair[1]);
        }
    }
    let [swept, bare] = took.each_mut().map(|all| quantile(all, 0.5));
    let ratio = swept / bare;
    println!(
        "sweep over {count} backups   {:.0} ms, bare readdir and stat {:.0} ms (medians of 6)",
        swept * 1e3,
        bare * 1e3
    );
    println!("  ratio of time               {ratio:.2} (at most {SWEEP_GOAL})");
    ratio
}

/// A client that sends requests continuously.
struct Client {
    client: Arc<rustls::ClientConfig>,
    request: String,
}

/// Response times of a server during a sweep and when idle, and its peak memory in bytes.
struct Round {
    sweeping: Vec<Duration>,
    idle: Vec<Duration>,
    peak: u64,
}

impl Client {
    fn prepare(folder: &Path) -> Self {
        let credentials = prepare(folder);
        Self {
            client: client_config(folder),
            request: request(&credentials),
        }
    }

    fn get_config(&self, server: &ServerProcess) -> Duration {
        let started = Instant::now();
        get_config(server.address, &self.client, &self.request);
        started.elapsed()
    }

    /// Starts a server, which sweeps at once, and sends requests until the sweep has ended; then
    /// sends as many again, but at least a hundred.
    fn during_a_sweep(&self, folder: &Path) -> Round {
        let state = StateFile::in_directory(&folder.join("data"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // No scrub: it would be measured too.
        let scrub = Scrubbed {
            finished: now.as_secs(),
            ..Scrubbed::default()
        };
        state
            .update(|state| {
                state.last_sweep = None;
                state.scrub = Some(scrub);
            })
            .unwrap();
        let server = ServerProcess::start(folder);
        let started = Instant::now();
        let mut sweeping = Vec::new();
        while state.load().unwrap().last_sweep.is_none() {
            sweeping.push(self.get_config(&server));
            assert!(started.elapsed() < SWEEP_TIMEOUT, "the sweep does not end");
        }
        let idle = (0..sweeping.len().max(100)).map(|_| self.get_config(&server));
        Round {
            idle: idle.collect(),
            sweeping,
            peak: memory(&server.proc_directory(), "VmHWM"),
        }
    }
}
