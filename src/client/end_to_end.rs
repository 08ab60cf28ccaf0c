//! End-to-end test against a live server: uploads, downloads, replaces and deletes a made-up
//! backup, so that an operator knows that phones can back up and restore there.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Error, Phone};
use crate::backup::{
    BackupId, BackupKey, Document, INFLATE_LIMIT, MasterKey, Nonce, OpenError, SealedBackup, open,
    seal,
};

/// Default time limit of each step.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// A step of the end-to-end test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `GET config`.
    Config,
    /// `PUT` of a new backup.
    Put,
    /// `GET` of the backup.
    Get,
    /// Opens the downloaded backup, and compares it with the uploaded one.
    Compare,
    /// `PUT` of another document under the same id.
    Overwrite,
    /// `GET` of the backup, which has to be the second document.
    GetAgain,
    /// `DELETE` of the backup.
    Delete,
    /// `GET` of the backup, which has to give 404.
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

    /// What the step means for the user of a phone.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Config => "activate Safe: request the server's config",
            Self::Put => "back up: encrypt and upload",
            Self::Get => "restore: download",
            Self::Compare => "decrypt, and compare with the uploaded backup",
            Self::Overwrite => "back up again, replacing the first",
            Self::GetAgain => "restore again, and compare with the second",
            Self::Delete => "turn Safe off: delete the backup",
            Self::VerifyDeleted => "verify that the backup is deleted",
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

/// The reason for which a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request failed.
    #[error(transparent)]
    Phone(#[from] Error),
    /// The downloaded backup cannot be opened.
    #[error("the downloaded backup cannot be opened")]
    Open(#[from] OpenError),
    /// The downloaded backup can be opened, and contains another document.
    #[error("the downloaded backup differs from the uploaded one")]
    Different,
    /// The backup could be downloaded after it was deleted.
    #[error("the backup still exists after it was deleted")]
    StillThere,
    /// The download failed, so that there is no backup to compare.
    #[error("no backup was downloaded, so there is nothing to compare")]
    NothingDownloaded,
    /// No upload succeeded, so that there is no backup whose deletion could be tested.
    #[error("no upload succeeded, so this step proves nothing")]
    NothingUploaded,
    /// The step exceeded its time limit.
    #[error("took longer than {} second{}", .0.as_secs(), if .0.as_secs() == 1 { "" } else { "s" })]
    TooSlow(Duration),
}

/// The outcome of a step.
#[derive(Debug)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// The step's duration.
    pub took: Duration,
    /// Details for the operator, or the reason for the failure.
    pub result: Result<String, Failure>,
}

/// The reaction to a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Skip the remaining steps, except the deletion of an uploaded backup.
    Stop,
    /// Run the remaining steps.
    Continue,
}

/// The end-to-end test: two backups of a made-up user under one id.
pub struct EndToEndTest {
    id: BackupId,
    key: BackupKey,
    first: Document,
    second: Document,
    downloaded: Option<bytes::Bytes>,
    uploads: Uploads,
    step_limit: Duration,
}

/// Whether the server may hold an uploaded backup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploads {
    /// No upload was started.
    None,
    /// An upload was started and failed: the backup may have arrived nevertheless.
    Uncertain,
    /// An upload succeeded.
    Some,
}

impl EndToEndTest {
    /// Creates a test that uploads `first` and then replaces it by `second`.
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

    /// Sets the time limit of each step, which is [`STEP_LIMIT`] by default.
    #[must_use]
    pub fn with_step_limit(mut self, limit: Duration) -> Self {
        self.step_limit = limit;
        self
    }

    /// Runs the steps with `phone`, and calls `report` with the outcome of each. Returns whether
    /// all steps passed.
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
                result = Ok("no backup existed".into());
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
                let backup = self.downloaded.take().ok_or(Failure::NothingDownloaded)?;
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
        assert_eq!(
            failure.to_string(),
            "the downloaded backup cannot be opened"
        );
        assert_eq!(failure.source().unwrap().to_string(), cause);
    }
}
