//! `scrub`: reads every backup and reports damaged ones, whether a server is running or not.

use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::audit::Audit;
use super::runtime::{self, block_on, exit_code, open_store};
use super::terminal::{self, say, warn};
use crate::config::Config;
use crate::scrub::{Finding, scrub};
use crate::state::State;
use crate::store::{Access, Opened};
use crate::time::unix;

#[derive(Debug, Args)]
pub(super) struct Scrub {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Scrub {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let Opened { store, .. } = open_store(config, Access::Read)?;
        let audit = Audit::begin_best_effort(config, "scrub");
        let mut damaged = Vec::new();
        let mut scrubbed = block_on(async {
            let count = store.list().count().await;
            let bar = terminal::progress(count as u64, "reading");
            let scrubbed = scrub(&*store, None, |id, finding| {
                bar.inc(1);
                damaged.extend(finding.map(|finding| (id, finding)));
            })
            .await?;
            bar.finish_and_clear();
            Ok(scrubbed)
        })?;
        scrubbed.finished = unix(runtime::now());
        // What cannot be recorded is reported. It is no failure: a scrub reads, also where nothing can
        // be written.
        audit
            .with("sound", scrubbed.sound)
            .with("damaged", damaged.len())
            .done();
        if self.json {
            let damaged: Vec<_> = damaged
                .iter()
                .map(|(id, finding)| json!({ "id": id.to_hex(), "finding": finding }))
                .collect();
            say(json!({ "sound": scrubbed.sound, "damaged": damaged }))?;
        } else {
            for (id, finding) in &damaged {
                let text = match finding {
                    Finding::Short => "too short to be a backup",
                    Finding::Changed => "changed without an upload",
                    Finding::Unreadable => "cannot be read",
                };
                say(format!("{}  {text}", id.to_hex()))?;
            }
            say(format!(
                "{} sound, {} damaged",
                scrubbed.sound,
                damaged.len()
            ))?;
        }
        // Last: printing the findings matters more than recording them.
        let recorded = open_store(config, Access::Command).and_then(|Opened { state, .. }| {
            let change = move |state: &mut State| state.scrub = Some(scrubbed);
            block_on(async { Ok(state.update(change).await?) })
        });
        if let Err(error) = recorded {
            warn(&format!("error: {error:#}; the result was not recorded"));
        }
        Ok(exit_code(damaged.is_empty()))
    }
}
