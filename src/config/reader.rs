//! Reader for the JSON tree of a configuration. It collects all problems instead of stopping at the
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::environment;

/// One problem in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key, such as `tls.certificateFile`, or the name of the environment variable.
    pub place: String,
    /// What is wrong, and what is expected.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.text)
    }
}

/// A JSON object, and the names of the environment variables that set values in it.
pub(super) struct Tree {
    root: Value,
    /// Maps the path of a key to the variable that set it.
    variables: BTreeMap<String, String>,
}

impl Tree {
    /// Parses JSON; a duplicate key is an error.
    pub(super) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let UniqueKeys(root) = serde_json::from_slice(text)?;
        Ok(Self {
            root,
            variables: BTreeMap::new(),
        })
    }

    /// Sets the key of a variable to the variable's value. A parent that is not an object stays as
    /// it is, and is reported when it is read.
    pub(super) fn set(&mut self, variable: &str, text: String) {
        let keys = environment::keys(variable);
        self.variables.insert(keys.join("."), variable.to_owned());
        let mut target = &mut self.root;
        for key in keys {
            let Value::Object(object) = target else {
                return;
            };
            target = object.entry(key).or_insert(Value::Null);
            if target.is_null() {
                *target = Value::Object(Map::new());
            }
        }
        *target = Value::String(text);
    }

    /// A reader for the keys of the outermost object.
    pub(super) fn reader(&self) -> Reader<'_> {
        let mut reader = Reader {
            values: None,
            prefix: String::new(),
            used: BTreeSet::new(),
            variables: &self.variables,
            problems: Vec::new(),
        };
        reader.values = self.root.as_object();
        if reader.values.is_none() {
            let text = "must be a JSON object".into();
            reader.problems.push(Problem {
                place: "the file".into(),
                text,
            });
        }
        reader
    }
}

/// Reads the keys of one object. Each method reads one key and reports a problem if its value is
/// invalid; keys that were never read are reported as unknown.
pub(super) struct Reader<'a> {
    values: Option<&'a Map<String, Value>>,
    prefix: String,
    used: BTreeSet<&'static str>,
    variables: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// An integer within `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = self.value(key) else {
            return default;
        };
        let number = match value.as_str() {
            Some(text) if self.is_variable(key) => text.trim().parse().ok(),
            _ => value.as_u64(),
        };
        match number {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.problem(key, &format!("must be an integer from {least} to {most}"));
                default
            }
        }
    }

    /// As [`Self::number`], as `usize`; larger values are capped.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> usize {
        usize::try_from(self.number(key, default, range)).unwrap_or(usize::MAX)
    }

    /// A boolean.
    pub(super) fn bool(&mut self, key: &'static str, default: bool) -> bool {
        let value = match self.value(key) {
            None => Some(default),
            Some(Value::Bool(value)) => Some(*value),
            Some(Value::String(text)) if self.is_variable(key) => text.trim().parse().ok(),
            Some(_) => None,
        };
        value.unwrap_or_else(|| {
            self.problem(key, "must be true or false");
            default
        })
    }

    /// A string, parsed; `None` if the key has no value or an invalid one.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = self.value(key)?.as_str() else {
            self.problem(key, "must be a string");
            return None;
        };
        parse(text)
            .map_err(|problem| self.problem(key, &problem))
            .ok()
    }

    /// A string, parsed.
    pub(super) fn string<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.optional(key, &parse).unwrap_or_else(|| {
            parse(default).unwrap_or_else(|_| unreachable!("defaults are valid"))
        })
    }

    /// An array of strings, each parsed; in a variable, they are separated by commas. Only an array
    /// without a default may be empty.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let texts: Vec<String> = match self.value(key) {
            None => default.iter().map(|&text| text.into()).collect(),
            Some(Value::String(text))
                if self.is_variable(key) && default.is_empty() && text.trim().is_empty() =>
            {
                Vec::new()
            }
            Some(Value::String(text)) if self.is_variable(key) => {
                text.split(',').map(|part| part.trim().into()).collect()
            }
            Some(Value::Array(values))
                if values.iter().all(Value::is_string)
                    && (default.is_empty() || !values.is_empty()) =>
            {
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(Into::into)
                    .collect()
            }
            Some(_) => {
                self.problem(key, "must be an array of strings with at least one entry");
                return Vec::new();
            }
        };
        let parsed = texts
            .iter()
            .enumerate()
            .map(|(position, text)| parse(text).map_err(|problem| (position, problem)));
        let (good, bad): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
        for (position, problem) in bad.into_iter().filter_map(Result::err) {
            let place = self.place(key);
            let place = if self.is_variable(key) {
                place
            } else {
                format!("{place}[{position}]")
            };
            self.problems.push(Problem {
                place,
                text: problem,
            });
        }
        good.into_iter().filter_map(Result::ok).collect()
    }

    /// True if the value of `key` is this string.
    pub(super) fn equals(&mut self, key: &'static str, word: &str) -> bool {
        self.value(key).and_then(Value::as_str) == Some(word)
    }

    /// True if `key` has a value. A variable set to an empty string and an empty array count as
    /// none.
    pub(super) fn is_set(&mut self, key: &'static str) -> bool {
        let is_variable = self.is_variable(key);
        let is_empty = |value: &Value| match value {
            Value::String(text) => is_variable && text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        };
        self.value(key).is_some_and(|value| !is_empty(value))
    }

    /// Reads the object at `key`; a missing object counts as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        let values = match self.value(key) {
            None => None,
            Some(Value::Object(values)) => Some(values),
            Some(_) => {
                self.problem(key, "must be an object");
                None
            }
        };
        let mut inner = Reader {
            values,
            prefix: format!("{}{key}.", self.prefix),
            used: BTreeSet::new(),
            variables: self.variables,
            problems: Vec::new(),
        };
        let result = read(&mut inner);
        self.problems.extend(inner.finish());
        result
    }

    /// Reports a problem at `key`.
    pub(super) fn problem(&mut self, key: &str, text: &str) {
        let place = self.place(key);
        self.problems.push(Problem {
            place,
            text: text.into(),
        });
    }

    /// Returns all problems, with the unknown keys at the end.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let keys = self.values.into_iter().flat_map(Map::keys);
        let unknown: Vec<_> = keys
            .filter(|key| !self.used.contains(key.as_str()))
            .collect();
        for key in unknown {
            let known: Vec<_> = self.used.iter().copied().collect();
            self.problem(
                key,
                &format!("unknown key (known keys: {})", known.join(", ")),
            );
        }
        self.problems
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.used.insert(key);
        self.values?.get(key).filter(|value| !value.is_null())
    }

    fn is_variable(&self, key: &str) -> bool {
        self.variables
            .contains_key(&format!("{}{key}", self.prefix))
    }

    fn place(&self, key: &str) -> String {
        let path = format!("{}{key}", self.prefix);
        self.variables.get(&path).cloned().unwrap_or(path)
    }
}

/// A JSON value without duplicate keys in its objects (serde_json would silently use the last one).
struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Value;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(UniqueKeys(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(values.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
                let mut values = Map::new();
                while let Some((key, UniqueKeys(value))) = object.next_entry::<String, _>()? {
                    if values.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate key \"{key}\"")));
                    }
                    values.insert(key, value);
                }
                Ok(values.into())
            }
        }
        deserializer.deserialize_any(Values).map(Self)
    }
}
