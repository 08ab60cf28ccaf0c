//! `client check`: the end-to-end test against a live server, for operators and for cron.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::access::Access;
use crate::backup::{App, Contents, MasterKey, Password, ThreemaId};
use crate::cli::argument::RedactedErrors;
use crate::cli::runtime::{AUTHORITY_HINT, block_on, now};
use crate::cli::terminal::{is_broken_pipe, say, warn};
use crate::client::{EndToEndTest, Failure, OnFailure, Outcome, Phone, STEP_LIMIT, ServerUrl};

/// Number of contacts in the two made-up backups, of about 7 kB each.
const CONTACTS: [u32; 2] = [20, 21];

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// The server's address, as typed into the app
    #[arg(value_name = "URL", value_parser = RedactedErrors(ServerUrl::from_str))]
    server: ServerUrl,
    #[command(flatten)]
    access: Access,
    /// Emulate only this app: android or ios [default: both, one after the other]
    #[arg(long = "as", value_name = "APP")]
    app: Option<App>,
    /// Run the remaining steps after a failure
    #[arg(long)]
    keep_going: bool,
    /// Time limit of a step
    #[arg(long, value_name = "SECONDS", default_value_t = STEP_LIMIT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// Print failed steps only (for cron)
    #[arg(long)]
    quiet: bool,
    /// Print one JSON object per line for each step
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// The results so far.
struct Results {
    all_passed: bool,
    /// True if a step failed because the issuer of the server's certificate is not trusted.
    unknown_authority: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut results = Results {
            all_passed: true,
            unknown_authority: false,
        };
        let secret = self.access.secret()?;
        for app in self.app.map_or(App::ALL.to_vec(), |app| vec![app]) {
            let phone = self.access.phone(app, &self.server, secret.as_ref())?;
            block_on(self.run_as(app, &phone, &mut results))?;
        }
        if results.unknown_authority {
            warn(AUTHORITY_HINT);
        }
        Ok(if results.all_passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Runs the test as one app, with a random Threema ID and a random password.
    async fn run_as(&self, app: App, phone: &Phone, results: &mut Results) -> anyhow::Result<()> {
        let identity = ThreemaId::random();
        let mut password = Zeroizing::new(vec![0; 32]);
        getrandom::fill(&mut password).context("generate a password")?;
        let key = MasterKey::derive(&Password::new(password), &identity);
        let [first, second] = CONTACTS
            .map(|contacts| Contents::sample(&identity, contacts, app, now()).to_document());
        let on_failure = if self.keep_going {
            OnFailure::Continue
        } else {
            OnFailure::Stop
        };
        let mut written = Ok(());
        let unknown_authority = &mut results.unknown_authority;
        let report = |outcome: Outcome| {
            *unknown_authority |= matches!(&outcome.result,
                Err(Failure::Phone(error)) if error.is_unknown_authority());
            if let Some(line) = self.line(app, outcome)
                && written.is_ok()
            {
                written = say(line);
            }
        };
        let limit = Duration::from_secs(self.timeout);
        let test = EndToEndTest::new(&key, first, second).with_step_limit(limit);
        results.all_passed &= test.run(phone, on_failure, report).await;
        // A closed pipe says nothing about the server: the exit code still reports the result.
        written.or_else(|error| {
            if is_broken_pipe(&error) {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// The printed line for a step; `None` if `--quiet` hides it.
    fn line(&self, app: App, outcome: Outcome) -> Option<String> {
        let Outcome { step, took, result } = outcome;
        let milliseconds = took.as_millis();
        let (word, ok) = if result.is_ok() {
            ("ok", true)
        } else {
            ("FAILED", false)
        };
        // With its causes: "cannot be reached" alone does not say why.
        let text = result.unwrap_or_else(|failure| format!("{:#}", anyhow::Error::new(failure)));
        if self.json {
            let line = json!({
                "app": app.name(),
                "step": step.to_string(),
                "ok": ok,
                "milliseconds": u64::try_from(milliseconds).unwrap_or(u64::MAX),
                "text": text,
            });
            return Some(line.to_string());
        }
        let line = format!("{app:<7}  {step:<9}  {word:<6}  {milliseconds:>5} ms  {text}");
        (!ok || !self.quiet).then(|| line.trim_end().to_owned())
    }
}
