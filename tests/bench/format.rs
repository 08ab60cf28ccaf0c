//! Benchmark of the backup format: key derivation, sealing and opening at three sizes, and key
//! derivation compared with OpenSSL and libsodium, alternating in one run.
//!
//! Run by `cargo bench --bench format`; `--short` runs fewer rounds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints its figures and panics on any error"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, Divan, black_box};
use threema_safe_server::backup::{
    App, BackupKey, Contents, Document, INFLATE_LIMIT, MasterKey, Nonce, SealedBackup, open, seal,
};
use zeroize::Zeroizing;

/// Sizes of a document in KiB: a new user's, an average one and the largest.
const SIZES: [usize; 3] = [2, 50, 500];
/// Threema's published master key for the password and the Threema ID that are derived here.
const PUBLISHED: &str = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c351c3d8d752fb6e1fd3199ead7f0895d6e3893ff691f2a5ee1976ed0897fc2f66";

fn main() {
    let short = std::env::args().any(|argument| argument == "--short");
    let (time, rounds) = if short { (1, 5) } else { (5, 25) };
    Divan::default()
        .max_time(Duration::from_secs(time))
        .run_benches();
    compare(rounds);
}

fn derive() -> MasterKey {
    MasterKey::derive(&"shootdeathstar".into(), &"ECHOECHO".parse().unwrap())
}

fn key() -> BackupKey {
    BackupKey::from_bytes([7; 32])
}

/// A sample document, padded to `size` KiB.
fn document(size: usize) -> Document {
    let identity = "ECHOECHO".parse().unwrap();
    let contacts = u32::try_from((size - 2) * 3).unwrap();
    let mut sample = Contents::sample(&identity, contacts, App::Android, UNIX_EPOCH);
    let missing = (size << 10).saturating_sub(sample.to_document().json().len());
    let filler = "x".repeat(missing.saturating_sub(r#","filler":"""#.len()));
    sample.unknown.insert("filler".into(), filler.into());
    let document = sample.to_document();
    assert!(
        document.json().len().abs_diff(size << 10) <= 512,
        "{}",
        document.json().len()
    );
    document
}

#[divan::bench(name = "derive")]
fn bench_derive(bencher: Bencher<'_, '_>) {
    bencher.bench(derive);
}

#[divan::bench(name = "seal_kib", args = SIZES)]
fn bench_seal(bencher: Bencher<'_, '_>, size: usize) {
    let document = document(size);
    bencher
        .counter(BytesCount::new(document.json().len()))
        .bench(|| seal(black_box(&document), &key(), Nonce::from_bytes([1; 24])));
}

#[divan::bench(name = "open_kib", args = SIZES)]
fn bench_open(bencher: Bencher<'_, '_>, size: usize) {
    let sealed = seal(&document(size), &key(), Nonce::from_bytes([1; 24]));
    let bytes = sealed.as_bytes().to_vec();
    bencher
        .counter(BytesCount::new(bytes.len()))
        .with_inputs(|| SealedBackup::try_from(Bytes::from(bytes.clone())).unwrap())
        .bench_values(|sealed| open(sealed, &key(), INFLATE_LIMIT).unwrap());
}

/// Compares the fastest derivation of each implementation, alternating.
fn compare(rounds: u32) {
    let available = Command::new("python3")
        .args(["-c", "import nacl"])
        .stderr(Stdio::null())
        .status();
    if !available.is_ok_and(|status| status.success()) {
        println!(
            "*** SKIPPED: no comparison with OpenSSL and libsodium; it needs python3 with PyNaCl ***"
        );
        return;
    }
    let mut other = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/bench/derive.py"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = other.stdin.take().unwrap();
    let mut answers = BufReader::new(other.stdout.take().unwrap());
    let mut ask = |name: &str| {
        writeln!(questions, "{name}").unwrap();
        let mut answer = Zeroizing::new(String::new());
        answers.read_line(&mut answer).unwrap();
        let (took, key) = answer.trim().split_once(' ').unwrap();
        assert_eq!(key, PUBLISHED, "{name}");
        Duration::from_nanos(took.parse().unwrap())
    };
    let (mut own, mut openssl, mut libsodium) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..rounds {
        let started = Instant::now();
        let key = black_box(derive());
        let took = started.elapsed();
        assert!(PUBLISHED.starts_with(&key.backup_id().to_hex()));
        own = own.min(took);
        openssl = openssl.min(ask("openssl"));
        libsodium = libsodium.min(ask("libsodium"));
    }
    drop(questions);
    assert!(other.wait().unwrap().success());

    let [own, openssl, libsodium] =
        [own, openssl, libsodium].map(|time| time.as_secs_f64() * 1_000.0);
    println!(
        "derive, best of {rounds}: {own:.1} ms; OpenSSL {openssl:.1} ms; libsodium {libsodium:.1} ms"
    );
    println!(
        "  {:.2} times as fast as OpenSSL (goal: at least 1.3)",
        openssl / own
    );
    println!(
        "  {:.2} times libsodium's time (goal: at most 1.1)",
        own / libsodium
    );
}
