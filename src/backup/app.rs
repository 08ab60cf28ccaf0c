//! The two mobile apps, Android and iOS.
//!
//! They share one backup format and differ in which fields they write and in how strictly they
//! read them (docs/FORMAT.md §5).

use std::fmt;
use std::str::FromStr;

/// A Threema app that creates and restores backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// Threema for Android, from 6.2.
    Android,
    /// Threema for iOS.
    Ios,
}

impl App {
    /// Both apps.
    pub const ALL: [Self; 2] = [Self::Android, Self::Ios];

    /// The app's name on the command line and in JSON: `android` or `ios`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Android => "android",
            Self::Ios => "ios",
        }
    }
}

impl FromStr for App {
    type Err = UnknownApp;

    fn from_str(text: &str) -> Result<Self, UnknownApp> {
        let mut apps = Self::ALL.into_iter();
        apps.find(|app| app.name() == text).ok_or(UnknownApp)
    }
}

impl fmt::Display for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Android => "Android",
            Self::Ios => "iOS",
        })
    }
}

/// The error of parsing an [`App`] from any string but `android` and `ios`.
#[derive(Debug, thiserror::Error)]
#[error("unknown app: expected android or ios")]
pub struct UnknownApp;
