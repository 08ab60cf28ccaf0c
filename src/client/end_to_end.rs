//! The whole life of a backup against a live server: what an operator runs to know that phones can
//! back up and restore there.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Error, Phone};
use crate::backup::{
    BackupId, BackupKey, Document, INFLATE_LIMIT, MasterKey, Nonce, OpenError, SealedBackup, open,
    seal,
};

/// How long a step may take, unless something else is said.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// A step in the life of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `GET config`.
    Config,
    /// `PUT`, of a backup that was not there.
    Put,
    /// `GET`.
    Get,
    /// Opening what came back, and comparing it with what was sent.
    Compare,
    /// `PUT` of another document under the same id.
    Overwrite,
    /// `GET`, opening and comparing: it is the second document.
    GetAgain,
    /// `DELETE`.
    Delete,
    /// `GET`, which has to find nothing.
    VerifyDeleted,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 8] = [
        Self::Config,
        Self::Put,
        Self::Get,
        Self::Compare,
        Self::Overwrite,
        Self::GetAgain,
        Self::Delete,
        Self::VerifyDeleted,
    ];

    /// What it means to the person with the phone.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Config => "activate: ask the server for its config",
            Self::Put => "back up: encrypt and upload",
            Self::Get => "restore: download",
            Self::Compare => "decrypt, and compare with what was backed up",
            Self::Overwrite => "back up again, replacing the first",
            Self::GetAgain => "restore again: it is the second",
            Self::Delete => "turn Safe off: delete the backup",
            Self::VerifyDeleted => "look again: it is gone",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Config => "config",
            Self::Put => "put",
            Self::Get => "get",
            Self::Compare => "compare",
            Self::Overwrite => "overwrite",
            Self::GetAgain => "get again",
            Self::Delete => "delete",
            Self::VerifyDeleted => "gone",
        })
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server refused, or could not be reached.
    #[error(transparent)]
    Phone(#[from] Error),
    /// What came back does not open.
    #[error("what came back does not open")]
    Open(#[from] OpenError),
    /// It opens, and is another document.
    #[error("what came back is not what was backed up")]
    Different,
    /// It could be read after it was deleted.
    #[error("the backup is still there after it was deleted")]
    StillThere,
    /// There is nothing to compare: the download failed.
    #[error("nothing came back that could be compared")]
    Nothing,
    /// There is nothing that could be deleted or be gone.
    #[error("no upload succeeded, so this step says nothing")]
    NothingUploaded,
    /// The step was broken off.
    #[error("took longer than {} second{}", .0.as_secs(), if .0.as_secs() == 1 { "" } else { "s" })]
    TooSlow(Duration),
}

/// What became of a step.
#[derive(Debug)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// How long it took.
    pub took: Duration,
    /// What is to be said about it, or why it failed.
    pub result: Result<String, Failure>,
}

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Leave out the remaining steps. What was uploaded is deleted nevertheless.
    Stop,
    /// Take them.
    Continue,
}

/// A made-up person who backs up twice.
pub struct EndToEndTest {
    id: BackupId,
    key: BackupKey,
    first: Document,
    second: Document,
    downloaded: Option<bytes::Bytes>,
    uploads: Uploads,
    step_limit: Duration,
}

/// What may be on the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploads {
    /// No upload was begun.
    None,
    /// One was begun, and its answer was lost or bad: it may have arrived all the same.
    Uncertain,
    /// One succeeded.
    Some,
}

impl EndToEndTest {
    /// A life with these two documents, one after the other.
    #[must_use]
    pub fn new(key: &MasterKey, first: Document, second: Document) -> Self {
        Self {
            id: key.backup_id(),
            key: key.backup_key(),
            first,
            second,
            downloaded: None,
            uploads: Uploads::None,
            step_limit: STEP_LIMIT,
        }
    }

    /// The same life with another bound for each step.
    #[must_use]
    pub fn with_step_limit(mut self, limit: Duration) -> Self {
        self.step_limit = limit;
        self
    }

    /// Takes the steps with `phone`, and hands the outcome of each to `tell`. Returns whether all went
    /// well.
    pub async fn run(
        mut self,
        phone: &Phone,
        on_failure: OnFailure,
        mut report: impl FnMut(Outcome),
    ) -> bool {
        let mut all_passed = true;
        for step in Step::ALL {
            let is_stopped = !all_passed && on_failure == OnFailure::Stop;
            let is_cleanup = self.uploads != Uploads::None && step == Step::Delete;
            if is_stopped && !is_cleanup {
                continue;
            }
            let started = Instant::now();
            let limit = self.step_limit;
            let mut result = tokio::time::timeout(limit, self.perform(step, phone))
                .await
                .unwrap_or(Err(Failure::TooSlow(limit)));
            let may_be_missing = is_stopped || self.uploads == Uploads::Uncertain;
            if step == Step::Delete
                && may_be_missing
                && matches!(result, Err(Failure::Phone(Error::NotFound)))
            {
                result = Ok("there was none".into());
            }
            all_passed &= result.is_ok();
            report(Outcome {
                step,
                took: started.elapsed(),
                result,
            });
        }
        all_passed
    }

    async fn perform(&mut self, step: Step, phone: &Phone) -> Result<String, Failure> {
        match step {
            Step::Config => {
                let config = phone.config().await?;
                return Ok(format!(
                    "up to {} bytes, kept for {} days",
                    config.max_backup_bytes, config.retention_days
                ));
            }
            Step::Put => return self.put(phone, self.seal(&self.first)).await,
            Step::Get => {
                let backup = phone.get(self.id).await?;
                let length = backup.len();
                self.downloaded = Some(backup);
                return Ok(format!("{length} bytes"));
            }
            Step::Compare => {
                let backup = self.downloaded.take().ok_or(Failure::Nothing)?;
                self.compare(backup, &self.first)?;
            }
            Step::Overwrite => return self.put(phone, self.seal(&self.second)).await,
            Step::GetAgain => {
                let backup = phone.get(self.id).await?;
                let length = backup.len();
                self.compare(backup, &self.second)?;
                return Ok(format!("{length} bytes"));
            }
            Step::Delete if self.uploads == Uploads::None => return Err(Failure::NothingUploaded),
            Step::Delete => phone.delete(self.id).await?,
            Step::VerifyDeleted if self.uploads != Uploads::Some => {
                return Err(Failure::NothingUploaded);
            }
            Step::VerifyDeleted => match phone.get(self.id).await {
                Err(Error::NotFound) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(Failure::StillThere),
            },
        }
        Ok(String::new())
    }

    fn seal(&self, document: &Document) -> SealedBackup {
        seal(document, &self.key, Nonce::random())
    }

    async fn put(&mut self, phone: &Phone, backup: SealedBackup) -> Result<String, Failure> {
        phone.check_before_put(&backup).await?;
        if self.uploads == Uploads::None {
            self.uploads = Uploads::Uncertain;
        }
        phone.upload(self.id, &backup).await?;
        self.uploads = Uploads::Some;
        Ok(format!("{} bytes", backup.as_bytes().len()))
    }

    fn compare(&self, backup: bytes::Bytes, expected: &Document) -> Result<(), Failure> {
        let document = open(SealedBackup::try_from(backup)?, &self.key, INFLATE_LIMIT)?;
        if document.json() == expected.json() {
            Ok(())
        } else {
            Err(Failure::Different)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_failure_names_its_cause_once() {
        let cause = OpenError::WrongPasswordOrDamaged.to_string();
        let failure = Failure::from(OpenError::WrongPasswordOrDamaged);
        assert_eq!(failure.to_string(), "what came back does not open");
        assert_eq!(failure.source().unwrap().to_string(), cause);
    }
}
