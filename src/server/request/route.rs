//! Request paths and the resources they name.
//!
//! Paths are compared byte for byte, without decoding, joining or normalization, so that each
//! resource has one spelling (a collection also the one with a trailing slash).

use crate::account::Role;
use crate::backup::BackupId;

const READ_ONLY: &[&str] = &["GET", "HEAD", "OPTIONS", "PROPFIND"];

/// A resource of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The base path: the landing page, and the collection that contains the others.
    Root,
    /// The document that the apps request before every upload.
    Config,
    /// The collection of backups.
    Backups,
    /// One backup.
    Backup(BackupId),
    /// There is no such resource.
    Unknown,
}

impl Route {
    /// The resource that `path` names under `base`, which starts and ends with a slash.
    pub(crate) fn parse(base: &str, path: &str) -> Self {
        let Some(inner) = path.strip_prefix(base) else {
            let is_base = base
                .strip_suffix('/')
                .is_some_and(|bare| !bare.is_empty() && bare == path);
            return if is_base { Self::Root } else { Self::Unknown };
        };
        match inner {
            "" => Self::Root,
            "config" => Self::Config,
            "backups" | "backups/" => Self::Backups,
            other => other
                .strip_prefix("backups/")
                .and_then(|id| id.parse().ok())
                .map_or(Self::Unknown, Self::Backup),
        }
    }

    /// The canonical path of this resource under `base`.
    pub(crate) fn path(&self, base: &str) -> String {
        match self {
            Self::Root | Self::Unknown => base.to_owned(),
            Self::Config => format!("{base}config"),
            Self::Backups => format!("{base}backups/"),
            Self::Backup(id) => format!("{base}backups/{}", id.to_hex()),
        }
    }

    /// The methods of this resource that an account with this role may use; `None` if there is no
    /// such resource.
    pub(crate) fn methods_of(&self, role: Role) -> Option<&'static [&'static str]> {
        match self {
            Self::Backup(_) if !role.may_write() => Some(READ_ONLY),
            Self::Root | Self::Config | Self::Backups | Self::Backup(_) | Self::Unknown => {
                self.methods()
            }
        }
    }

    /// The methods of this resource; `None` if there is no such resource.
    pub(crate) fn methods(&self) -> Option<&'static [&'static str]> {
        const COLLECTION: &[&str] = &["OPTIONS", "PROPFIND"];
        const BACKUP: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PROPFIND", "PUT"];
        match self {
            Self::Root | Self::Config => Some(READ_ONLY),
            Self::Backups => Some(COLLECTION),
            Self::Backup(_) => Some(BACKUP),
            Self::Unknown => None,
        }
    }

    /// The label of the route in logs and metrics; never an id.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Config => "config",
            Self::Backups => "backups",
            Self::Backup(_) => "backup",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3";

    #[test]
    fn every_resource_has_its_paths() {
        let backup = Route::Backup(ID.parse().unwrap());
        for base in ["/", "/safe/", "/a/b/"] {
            assert_eq!(Route::parse(base, base), Route::Root);
            assert_eq!(Route::parse(base, &format!("{base}config")), Route::Config);
            assert_eq!(
                Route::parse(base, &format!("{base}backups")),
                Route::Backups
            );
            assert_eq!(
                Route::parse(base, &format!("{base}backups/")),
                Route::Backups
            );
            assert_eq!(Route::parse(base, &format!("{base}backups/{ID}")), backup);
            for route in [Route::Root, Route::Config, Route::Backups, backup] {
                assert_eq!(Route::parse(base, &route.path(base)), route);
            }
        }
        assert_eq!(Route::parse("/safe/", "/safe"), Route::Root);
    }

    #[test]
    fn no_other_spelling_is_a_resource() {
        let upper = ID.to_uppercase();
        let shorter = ID.get(1..).unwrap();
        for path in [
            "",
            "//",
            "*",
            "/config/",
            "/Config",
            "//config",
            "/config%20",
            "/%63onfig",
            "/backups//",
            "/backups/x",
            "/backups/../config",
            "/./config",
            &format!("/backups/{upper}"),
            &format!("/backups/{shorter}"),
            &format!("/backups/{ID}0"),
            &format!("/backups/{ID}/"),
            &format!("/backups/{ID}%0a"),
            &format!("/backups%2f{ID}"),
            &format!("/backups/../backups/{ID}"),
            &format!("/backups//{ID}"),
        ] {
            assert_eq!(Route::parse("/", path), Route::Unknown, "{path}");
        }
        for path in [
            "/",
            "/config",
            "/safeXconfig",
            "/safe/x",
            "/saf",
            "/safe//config",
        ] {
            assert_eq!(Route::parse("/safe/", path), Route::Unknown, "{path}");
        }
    }
}
