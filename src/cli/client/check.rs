//! `client check`: the whole life of a backup against a live server, for people and for cron.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::Access;
use crate::backup::{App, Contents, MasterKey, Password, ThreemaId};
use crate::cli::terminal::say;
use crate::cli::{block_on, now};
use crate::client::{Life, OnFailure, Outcome, Phone, ServerUrl};

/// Contacts in the made-up backups: about 8 kB.
const CONTACTS: [u32; 2] = [20, 21];

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// The server's address, as typed into the app
    #[arg(value_name = "URL")]
    server: ServerUrl,
    #[command(flatten)]
    access: Access,
    /// Behave as this app only: android or ios [default: first the one, then the other]
    #[arg(long = "as", value_name = "APP")]
    app: Option<App>,
    /// Take the remaining steps when one has failed
    #[arg(long)]
    keep_going: bool,
    /// Print nothing when all is well (for cron)
    #[arg(long)]
    quiet: bool,
    /// Print a JSON object for each step, one on a line
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut all_well = true;
        let secret = self.access.secret()?;
        for app in self.app.map_or(App::ALL.to_vec(), |app| vec![app]) {
            let phone = self.access.phone(app, &self.server, secret.as_ref())?;
            all_well &= block_on(self.live(app, &phone))?;
        }
        Ok(if all_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Lives through it as one app, with an identity and a password that nobody else has.
    async fn live(&self, app: App, phone: &Phone) -> anyhow::Result<bool> {
        let identity = ThreemaId::random();
        let mut password = Zeroizing::new(vec![0; 32]);
        getrandom::fill(&mut password).context("draw a password")?;
        let key = MasterKey::derive(&Password::new(password), &identity);
        let [first, second] = CONTACTS
            .map(|contacts| Contents::sample(&identity, contacts, app, now()).to_document());
        let on_failure = if self.keep_going {
            OnFailure::GoOn
        } else {
            OnFailure::Stop
        };
        let mut written = Ok(());
        let tell = |outcome: Outcome| {
            if let Some(line) = self.line(app, outcome)
                && written.is_ok()
            {
                written = say(line);
            }
        };
        let life = Life::new(&key, first, second);
        let all_well = life.live(phone, on_failure, tell).await;
        written?;
        Ok(all_well)
    }

    /// What is printed about a step.
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
