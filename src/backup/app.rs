//! The two apps. They speak the same format and differ in what they write and how they read it.

use std::fmt;
use std::str::FromStr;

/// An app that makes and restores backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// Threema for Android, from 6.2.
    Android,
    /// Threema for iOS.
    Ios,
}

impl App {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Android, Self::Ios];

    /// The name on the command line and in JSON.
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

/// A text that names no app.
#[derive(Debug, thiserror::Error)]
#[error("an app is android or ios")]
pub struct UnknownApp;
