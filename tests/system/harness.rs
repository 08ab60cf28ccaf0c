//! Test harness: runs the tests whose needs are met, and reports the others as ignored.
//!
//! The command line and the output are those of libtest, as far as `cargo test` and nextest use
//! them. libtest-mimic, the crate for this, is not used because it depends on all default features
//! of clap, which the program is built without: the tests would test another build.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use tokio::runtime::Builder;

use crate::needs::Need;

/// A test, and what it needs.
pub(crate) struct Test {
    /// With the path of its module, as `system::proxies::…`.
    pub(crate) path: &'static str,
    pub(crate) needs: &'static [&'static Need],
    pub(crate) run: fn(),
}

/// Registers the tests of a module: for each its name, how its function runs, and what it needs.
///
/// `blocking` calls the function; `tokio` runs the future that it returns on a runtime of one
/// thread, and `tokio_2` on one of two threads.
macro_rules! tests {
    ($($name:ident: $flavour:ident [$($need:ident),* $(,)?];)*) => {
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$(
            $crate::harness::Test {
                path: concat!(module_path!(), "::", stringify!($name)),
                needs: &[$(&$crate::needs::$need),*],
                run: tests!(@$flavour $name),
            },
        )*];
    };
    (@blocking $name:ident) => { $name };
    (@tokio $name:ident) => { || $crate::harness::on_one_thread($name()) };
    (@tokio_2 $name:ident) => { || $crate::harness::on_two_threads($name()) };
}

/// As `#[tokio::test]`.
pub(crate) fn on_one_thread(test: impl Future<Output = ()>) {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test);
}

/// As `#[tokio::test(flavor = "multi_thread", worker_threads = 2)]`.
pub(crate) fn on_two_threads(test: impl Future<Output = ()>) {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test);
}

impl Test {
    fn name(&self) -> &'static str {
        self.path.split_once("::").unwrap().1
    }

    /// The names of its needs that this machine does not meet.
    fn missing(&self) -> Vec<&'static str> {
        let missing = self.needs.iter().filter(|need| !need.is_met());
        missing.map(|need| need.name).collect()
    }
}

/// Which tests run, besides those whose needs are met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ignored {
    /// None: they are reported.
    Reported,
    /// Those that are ignored otherwise, and they alone; they fail.
    Only,
    /// Those that are ignored otherwise, too; they fail.
    Included,
}

/// The command line.
struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    is_exact: bool,
    is_list: bool,
    ignored: Ignored,
    threads: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let mut options = Self {
            filters: Vec::new(),
            skips: Vec::new(),
            is_exact: false,
            is_list: false,
            ignored: Ignored::Reported,
            threads: number(std::env::var("RUST_TEST_THREADS").ok())?.unwrap_or(cores),
        };
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            match name {
                "--exact" => options.is_exact = true,
                "--list" => options.is_list = true,
                "--ignored" => options.ignored = Ignored::Only,
                "--include-ignored" => options.ignored = Ignored::Included,
                "--skip" => options.skips.extend(value.or_else(|| arguments.next())),
                "--test-threads" => {
                    let threads = number(value.or_else(|| arguments.next()))?;
                    options.threads = threads.unwrap_or(cores);
                }
                // Nothing is captured, and there is one format.
                "--nocapture" | "--no-capture" | "--show-output" | "--test" | "-q" | "--quiet" => {}
                "--format" | "--color" => drop(value.or_else(|| arguments.next())),
                option if option.starts_with('-') => {
                    return Err(format!("{option}: the system tests have no such option"));
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    fn selects(&self, test: &Test) -> bool {
        let name = test.name();
        let is_match = |filter: &String| {
            if self.is_exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(is_match))
            && !self.skips.iter().any(is_match)
            && (self.ignored != Ignored::Only || !is_required() && !test.missing().is_empty())
    }
}

fn number(text: Option<String>) -> Result<Option<usize>, String> {
    let parse = |text: String| match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text}: must be a number of threads from 1")),
    };
    text.map(parse).transpose()
}

/// Whether a missing need is a failure.
fn is_required() -> bool {
    std::env::var_os("REQUIRE_ALL_TESTS").is_some()
}

enum Outcome {
    Passed,
    Failed(String),
    /// For want of these needs.
    Ignored(Vec<&'static str>),
}

/// Runs all tests that the command line asks for.
pub(crate) fn run(modules: &[&'static [Test]]) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            println!("error: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let all: Vec<_> = modules.iter().copied().flatten().collect();
    let selected: Vec<_> = all.iter().filter(|test| options.selects(test)).collect();
    if options.is_list {
        for test in selected {
            println!("{}: test", test.name());
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    println!("\nrunning {} tests", selected.len());
    let mut summary = Summary::default();
    let queue = Mutex::new(selected.iter());
    let (sender, outcomes) = channel();
    thread::scope(|scope| {
        for _ in 0..options.threads {
            let sender = sender.clone();
            scope.spawn(|| work(&queue, options.ignored, sender));
        }
        drop(sender);
        for (name, outcome) in outcomes {
            summary.add(name, outcome);
        }
    });
    summary.print_failures();
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if summary.failed.is_empty() {
            "ok"
        } else {
            "FAILED"
        },
        summary.passed,
        summary.failed.len(),
        summary.ignored,
        all.len() - selected.len(),
        started.elapsed().as_secs_f64(),
    );
    summary.print_ignored(selected.len());
    if summary.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        // As libtest has it.
        ExitCode::from(101)
    }
}

/// Runs tests until there are no more.
fn work<'a>(
    queue: &Mutex<impl Iterator<Item = &'a &'a &'static Test>>,
    ignored: Ignored,
    outcomes: Sender<(&'static str, Outcome)>,
) {
    loop {
        let next = queue.lock().unwrap().next();
        let Some(test) = next else {
            return;
        };
        let outcome = outcome_of(test, ignored);
        outcomes.send((test.name(), outcome)).unwrap();
    }
}

fn outcome_of(test: &'static Test, ignored: Ignored) -> Outcome {
    let missing = test.missing();
    if !missing.is_empty() {
        if !is_required() && ignored == Ignored::Reported {
            return Outcome::Ignored(missing);
        }
        let needs = missing.join(" and ");
        return Outcome::Failed(format!("needs {needs}, which this machine lacks"));
    }
    // A thread of its own, so that a panic has the name of the test.
    let thread = thread::Builder::new().name(test.name().to_owned());
    match thread.spawn(test.run).unwrap().join() {
        Ok(()) => Outcome::Passed,
        Err(panic) => Outcome::Failed(message_of(&*panic)),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

#[derive(Default)]
struct Summary {
    passed: usize,
    failed: Vec<(&'static str, String)>,
    ignored: usize,
    /// For how many of the ignored tests each need is missing.
    missing: BTreeMap<&'static str, usize>,
}

impl Summary {
    fn add(&mut self, name: &'static str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Outcome::Failed(message) => {
                println!("test {name} ... FAILED");
                self.failed.push((name, message));
            }
            Outcome::Ignored(missing) => {
                println!("test {name} ... ignored, needs {}", missing.join(" and "));
                self.ignored += 1;
                for need in missing {
                    *self.missing.entry(need).or_default() += 1;
                }
            }
        }
    }

    fn print_failures(&self) {
        if self.failed.is_empty() {
            return;
        }
        println!("\nfailures:\n");
        for (name, message) in &self.failed {
            println!("---- {name} ----\n{message}\n");
        }
        println!("\nfailures:");
        for (name, _) in &self.failed {
            println!("    {name}");
        }
    }

    /// One line that names what was missing.
    fn print_ignored(&self, selected: usize) {
        if self.ignored == 0 {
            return;
        }
        let needs = self.missing.iter();
        let needs: Vec<_> = needs
            .map(|(need, tests)| format!("{need} ({tests})"))
            .collect();
        println!(
            "skipped {} of {selected} system tests for want of {}; REQUIRE_ALL_TESTS=1 makes that a failure",
            self.ignored,
            needs.join(", ")
        );
    }
}
