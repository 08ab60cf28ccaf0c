//! Test harness: runs the tests whose needs are met, and reports the others as ignored.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
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

/// How many tests were ignored, and for how many of them each need was missing.
#[derive(Default)]
struct Skipped {
    tests: u64,
    needs: BTreeMap<&'static str, u64>,
}

/// Runs all tests that the command line asks for.
pub(crate) fn run(modules: &[&'static [Test]]) -> ExitCode {
    let arguments = Arguments::from_args();
    let skipped = Arc::new(Mutex::new(Skipped::default()));
    let trials = modules
        .iter()
        .copied()
        .flatten()
        .map(|test| trial(test, &arguments, &skipped))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let skipped = skipped.lock().unwrap();
    if skipped.tests > 0 {
        let run = conclusion.num_passed + conclusion.num_failed + conclusion.num_ignored;
        let needs = skipped
            .needs
            .iter()
            .map(|(need, tests)| format!("{need} ({tests})"));
        println!(
            "skipped {} of {run} system tests for want of {}; REQUIRE_ALL_TESTS=1 makes that a failure",
            skipped.tests,
            needs.collect::<Vec<_>>().join(", ")
        );
    }
    conclusion.exit_code()
}

fn trial(test: &'static Test, arguments: &Arguments, skipped: &Arc<Mutex<Skipped>>) -> Trial {
    let (_, name) = test.path.split_once("::").unwrap();
    let missing = || {
        let missing = test.needs.iter().filter(|need| !need.is_met());
        missing.map(|need| need.name).collect::<Vec<_>>()
    };
    let is_required = std::env::var_os("REQUIRE_ALL_TESTS").is_some();
    let is_asked_for = arguments.ignored || arguments.include_ignored;
    // A list says which tests are ignored before any of them runs: nextest asks for it.
    let is_ignored = (arguments.list || arguments.ignored) && !is_required && !missing().is_empty();
    let skipped = Arc::clone(skipped);
    let run = move || -> Result<Completion, Failed> {
        let missing = missing();
        if missing.is_empty() {
            (test.run)();
            return Ok(Completion::Completed);
        }
        let reason = format!("needs {}", missing.join(" and "));
        if is_required || is_asked_for {
            return Err(format!("{reason}, which this machine lacks").into());
        }
        let mut skipped = skipped.lock().unwrap();
        skipped.tests += 1;
        for need in missing {
            *skipped.needs.entry(need).or_default() += 1;
        }
        Ok(Completion::ignored_with(reason))
    };
    Trial::ignorable_test(name, run).with_ignored_flag(is_ignored)
}
