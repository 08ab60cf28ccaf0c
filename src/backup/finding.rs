//! Findings of the document validation, the rules for a field, and the walk over a document.

use std::fmt;

use super::document::List;
use super::field::{Field, Json, Unknown};

use Effect::{Fails, Fine, Loses};

/// The effect of a finding on the restore by one app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The app restores everything that the document means.
    Fine,
    /// The app restores the document, but loses a part of it. The text continues a sentence that
    /// begins with the app's name.
    Loses(&'static str),
    /// The app cannot restore the document.
    Fails,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// At least one app would lose a part of the document.
    Warning,
    /// At least one app would fail to restore the document.
    Error,
}

/// A part of a document that at least one app would not restore as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path in the document, such as `contacts[3].identity`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
    /// The effect on Android.
    pub android: Effect,
    /// The effect on iOS.
    pub ios: Effect,
}

impl Finding {
    /// The severity of the worse of the two effects.
    #[must_use]
    pub fn grade(&self) -> Grade {
        if self.android == Fails || self.ios == Fails {
            Grade::Error
        } else {
            Grade::Warning
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade() {
            Grade::Warning => "warning",
            Grade::Error => "error",
        };
        write!(formatter, "{grade}: {}: {}", self.path, self.problem)?;
        let clause = |effect| match effect {
            Fine => None,
            Loses(what) => Some(what),
            Fails => Some("cannot restore the backup"),
        };
        match (clause(self.android), clause(self.ios)) {
            (Some(android), Some(ios)) if android == ios => {
                write!(formatter, "; Android and iOS: {android}")
            }
            (Some(android), Some(ios)) => {
                write!(formatter, "; Android: {android}; iOS: {ios}")
            }
            (Some(android), None) => write!(formatter, "; Android: {android}"),
            (None, Some(ios)) => write!(formatter, "; iOS: {ios}"),
            (None, None) => Ok(()),
        }
    }
}

/// Effects on Android and on iOS.
pub(super) type Effects = (Effect, Effect);

/// The effects of a field that is absent, `null` or of a wrong type.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) absent: Effects,
    pub(super) null: Effects,
    pub(super) wrong: Effects,
}

const NONE: Effects = (Fine, Fine);
/// A field that both apps require.
pub(super) const REQUIRED: Rule = Rule::same((Fails, Fails));
/// An optional string. Android converts any other value to a string, and `null` to "null".
pub(super) const STRING: Rule = Rule {
    null: (Loses("uses the word null"), Fine),
    ..Rule::wrong((Fine, Fails))
};
/// An optional number.
pub(super) const NUMBER: Rule = Rule::wrong((Loses("uses its default"), Fails));
/// An optional boolean.
pub(super) const BOOL: Rule = NUMBER;
/// An optional list.
pub(super) const LIST: Rule = Rule::wrong((Loses("ignores the list"), Fails));

impl Rule {
    /// The same effects for an absent, a `null` and a wrong field.
    pub(super) const fn same(effects: Effects) -> Self {
        Self {
            absent: effects,
            null: effects,
            wrong: effects,
        }
    }

    /// The field may be absent or `null`, but not of another type.
    pub(super) const fn wrong(effects: Effects) -> Self {
        Self {
            wrong: effects,
            ..Self::same(NONE)
        }
    }

    /// An item of a list: iOS accepts no other type there, and no `null`.
    pub(super) const fn entry(android: Effect) -> Self {
        Self::same((android, Fails))
    }

    /// The same rule for a field that iOS ignores.
    pub(super) const fn android_only(self) -> Self {
        Self {
            absent: (self.absent.0, Fine),
            null: (self.null.0, Fine),
            wrong: (self.wrong.0, Fine),
        }
    }

    /// The same rule for a field that Android ignores.
    pub(super) const fn ios_only(self) -> Self {
        Self {
            absent: (Fine, self.absent.1),
            null: (Fine, self.null.1),
            wrong: (Fine, self.wrong.1),
        }
    }
}

/// Length of the longest key that a path shows whole, in bytes. All keys of the schema are shorter.
const MAX_KEY_LENGTH: usize = 64;

/// A walk over a document: the current path, and the findings so far.
#[derive(Default)]
pub(super) struct Walker {
    path: String,
    pub(super) findings: Vec<Finding>,
}

impl Walker {
    /// Visits the field `key` of an object: applies `check` to a value of the expected type, and
    /// `rule` to everything else.
    pub(super) fn field<T: Json>(
        &mut self,
        key: &str,
        field: &Field<T>,
        rule: Rule,
        check: impl FnOnce(&T, &mut Self),
    ) {
        let length = self.path.len();
        if length > 0 && !key.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(key);
        match field {
            Field::Is(value) => check(value, self),
            Field::Absent => self.note("missing", rule.absent),
            Field::Null => self.note("null", rule.null),
            Field::Other(value) => match T::respelled(value) {
                Some(whole) => {
                    let unsure = (Fine, Loses("may not be able to read it"));
                    self.note("an integer with a fraction", unsure);
                    check(&whole, self);
                }
                None => {
                    let (mut android, mut ios) = rule.wrong;
                    if let Some(taken) = T::on_android(value) {
                        // Android handles it like a value of the right type, and so does iOS where
                        // it ignores the type. What `check` finds is merged into this finding.
                        let before = self.findings.len();
                        check(&taken, self);
                        let found = self.findings.split_off(before);
                        let first = |effect: fn(&Finding) -> Effect| {
                            let mut effects = found.iter().map(effect);
                            effects.find(|effect| *effect != Fine).unwrap_or(Fine)
                        };
                        android = first(|finding| finding.android);
                        if ios == Fine {
                            ios = first(|finding| finding.ios);
                        }
                    }
                    self.note(format!("not {}", T::TYPE), (android, ios));
                }
            },
        }
        self.path.truncate(length);
    }

    /// Visits each item of a list.
    pub(super) fn items<T: Json>(
        &mut self,
        list: &List<T>,
        rule: Rule,
        mut check: impl FnMut(&T, &mut Self),
    ) {
        for (number, item) in list.iter().enumerate() {
            self.field(&format!("[{number}]"), item, rule, &mut check);
        }
    }

    /// Records a finding for each field that is not in the schema.
    pub(super) fn unknown(&mut self, fields: &Unknown) {
        let ignored = Loses("ignores it");
        for key in fields.keys() {
            let length = self.path.len();
            let is_word = |character: char| character.is_alphanumeric() || "_-".contains(character);
            let (word, rest) = key.split_at(key.ceil_char_boundary(MAX_KEY_LENGTH.min(key.len())));
            let cut = if rest.is_empty() { "" } else { "…" };
            if !word.is_empty() && word.chars().all(is_word) {
                let dot = if length > 0 { "." } else { "" };
                self.path.extend([dot, word, cut]);
            } else {
                self.path.push_str(&format!("[{word:?}{cut}]"));
            }
            self.note("not in the schema", (ignored, ignored));
            self.path.truncate(length);
        }
    }

    /// Records a finding at the current path, unless neither app is affected.
    pub(super) fn note(&mut self, problem: impl Into<String>, (android, ios): Effects) {
        if (android, ios) != NONE {
            self.findings.push(Finding {
                path: self.path.clone(),
                problem: problem.into(),
                android,
                ios,
            });
        }
    }

    /// The check that accepts every value.
    pub(super) fn accept<T>(_: &T, _: &mut Self) {}
}
