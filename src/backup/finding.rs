//! What may be found in a document, and how it is looked through.

use std::fmt;

use super::document::List;
use super::field::{Field, Json, Unknown};

use Effect::{Fails, Fine, Loses};

/// What one app does about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads the document as it is meant.
    Fine,
    /// It goes on, but something of the document does not arrive. The text goes on after its name.
    Loses(&'static str),
    /// It cannot restore the document.
    Fails,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// An app would ignore something.
    Warning,
    /// An app would fail to restore.
    Error,
}

/// Something in a document that an app would not restore as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: a path such as `contacts[3].identity`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
    /// What Android does.
    pub android: Effect,
    /// What iOS does.
    pub ios: Effect,
}

impl Finding {
    /// The worse of what the two apps do.
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

/// What happens if a field is not what it should be.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) absent: Effects,
    pub(super) null: Effects,
    pub(super) wrong: Effects,
}

const NONE: Effects = (Fine, Fine);
/// Both apps need it.
pub(super) const REQUIRED: Rule = Rule::same((Fails, Fails));
/// A text that may be absent. Android makes a text of whatever stands there.
pub(super) const STRING: Rule = Rule {
    null: (Loses("takes the word null for it"), Fine),
    ..Rule::wrong((Fine, Fails))
};
/// A number that may be absent.
pub(super) const NUMBER: Rule = Rule::wrong((Loses("takes its default"), Fails));
/// A switch that may be absent.
pub(super) const BOOL: Rule = NUMBER;
/// A list that may be absent.
pub(super) const LIST: Rule = Rule::wrong((Loses("ignores the list"), Fails));

impl Rule {
    /// The same for all three.
    pub(super) const fn same(effects: Effects) -> Self {
        Self {
            absent: effects,
            null: effects,
            wrong: effects,
        }
    }

    /// It may be absent or null, but not of another type.
    pub(super) const fn wrong(effects: Effects) -> Self {
        Self {
            wrong: effects,
            ..Self::same(NONE)
        }
    }

    /// An item of a list: iOS takes nothing else there, not even null.
    pub(super) const fn entry(android: Effect) -> Self {
        Self::same((android, Fails))
    }

    /// iOS does not know the field.
    pub(super) const fn android_only(self) -> Self {
        Self {
            absent: (self.absent.0, Fine),
            null: (self.null.0, Fine),
            wrong: (self.wrong.0, Fine),
        }
    }

    /// Android does not know the field.
    pub(super) const fn ios_only(self) -> Self {
        Self {
            absent: (Fine, self.absent.1),
            null: (Fine, self.null.1),
            wrong: (Fine, self.wrong.1),
        }
    }
}

/// The longest key that a path shows whole, in bytes. The schema's own are shorter.
const MAX_KEY_LENGTH: usize = 64;

/// Where in the document we are, and what was found so far.
#[derive(Default)]
pub(super) struct Walker {
    path: String,
    pub(super) findings: Vec<Finding>,
}

impl Walker {
    /// Looks at the field `key` of an object: by its rule if it is not what it should be, otherwise
    /// more closely.
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
                    self.note("a whole number with a fraction", unsure);
                    check(&whole, self);
                }
                None => {
                    let (mut android, mut ios) = rule.wrong;
                    if let Some(taken) = T::on_android(value) {
                        // Android looks at it as at any other, and so does iOS if the type does not matter
                        // to it. What they find there is part of this finding.
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

    /// Looks at each item of a list.
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

    /// Notes each field that the schema does not have.
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

    /// There is nothing more to look at.
    pub(super) fn accept<T>(_: &T, _: &mut Self) {}
}
