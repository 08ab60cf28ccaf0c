//! JSON fields that keep their exact state: absent, `null`, of the expected type or of another one.
//!
//! The apps do not agree on what a wrong field means, and nothing may get lost. So deserialisation
//! never fails on a wrong type: the value is kept as it is and written back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A JSON field that should have the type `T`.
#[derive(Clone, Default, PartialEq)]
pub enum Field<T> {
    /// The key is missing.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A value of the expected type.
    Is(T),
    /// A JSON value of another type, kept as it is.
    Other(Box<Value>),
}

impl<T> Field<T> {
    /// The value, if it is present and has the expected type.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Null | Self::Other(_) => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Json + Clone> Field<T> {
    /// The value that Android reads from the field; `None` where it uses its default.
    pub(super) fn on_android(&self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value.clone()),
            Self::Other(value) => T::on_android(value),
            Self::Absent | Self::Null => None,
        }
    }
}

impl<T> Field<Vec<T>> {
    /// The items of the list; no items if the field is not a list.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.get().into_iter().flatten()
    }
}

impl<T> From<T> for Field<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

impl From<&str> for Field<String> {
    fn from(text: &str) -> Self {
        Self::Is(text.to_owned())
    }
}

impl<T: Json> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_unit(),
            Self::Is(value) => value.serialize(serializer),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Json> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::Null);
        }
        if !T::has_type_of(&value) {
            return Ok(Self::Other(Box::new(value)));
        }
        // By value: strings are moved and leave no copies in memory.
        serde_json::from_value(value)
            .map(Self::Is)
            .map_err(serde::de::Error::custom)
    }
}

/// A Rust type with its JSON type. Deserialising a value of that JSON type does not fail.
pub trait Json: Serialize + DeserializeOwned + Sized {
    /// The JSON type's name in a finding, with its article.
    const TYPE: &'static str;
    /// Whether the value has this type.
    fn has_type_of(value: &Value) -> bool;
    /// The same value from another spelling, such as 1 from the number 1.0.
    fn respelled(_value: &Value) -> Option<Self> {
        None
    }
    /// The value that Android reads from another JSON type, if it accepts it: numbers and booleans
    /// from strings, strings from numbers, and any number for a number (org.json).
    fn on_android(_value: &Value) -> Option<Self> {
        None
    }
}

impl Json for String {
    const TYPE: &'static str = "a string";
    fn has_type_of(value: &Value) -> bool {
        value.is_string()
    }
    fn on_android(value: &Value) -> Option<Self> {
        value.is_number().then(|| value.to_string())
    }
}

impl Json for bool {
    const TYPE: &'static str = "a boolean";
    fn has_type_of(value: &Value) -> bool {
        value.is_boolean()
    }
    fn on_android(value: &Value) -> Option<Self> {
        value.as_str()?.to_ascii_lowercase().parse().ok()
    }
}

impl Json for u64 {
    const TYPE: &'static str = "an unsigned integer";
    fn has_type_of(value: &Value) -> bool {
        value.is_u64()
    }
    fn respelled(value: &Value) -> Option<Self> {
        let number = value.as_f64().filter(|_| value.is_f64())?;
        // In this range every integer is a double, and `{:.0}` formats it without an exponent.
        let is_whole = number.fract() == 0.0 && (0.0..9e15).contains(&number);
        is_whole.then(|| format!("{number:.0}").trim_start_matches('-').parse().ok())?
    }
    /// The number without its fraction, and 0 for a negative one.
    fn on_android(value: &Value) -> Option<Self> {
        let number = match value.as_str() {
            Some(text) => parse_java_double(text)?,
            None => value.as_f64()?,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as in Java, the conversion saturates"
        )]
        let whole = number as Self;
        Some(whole)
    }
}

/// Java's `Double.parseDouble`, except for hexadecimal numbers.
fn parse_java_double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|character| character <= ' ');
    match text.trim_start_matches(['+', '-']) {
        "NaN" => Some(f64::NAN),
        "Infinity" => text.replace("Infinity", "inf").parse().ok(),
        digits if digits.starts_with(|first: char| first == '.' || first.is_ascii_digit()) => {
            let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
            number.parse().ok()
        }
        _ => None,
    }
}

impl<T: Json> Json for Vec<Field<T>> {
    const TYPE: &'static str = "a list";
    fn has_type_of(value: &Value) -> bool {
        value.is_array()
    }
}

impl<T: Json> Json for Box<T> {
    const TYPE: &'static str = T::TYPE;
    fn has_type_of(value: &Value) -> bool {
        T::has_type_of(value)
    }
}

/// The fields of an object that the schema does not define, in their original order.
pub type Unknown = Map<String, Value>;

/// A secret string: wiped from memory when dropped, and without `Debug` and `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes ownership of the string.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The string itself. Every call is an access to the secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Serialize for SecretString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Json for SecretString {
    const TYPE: &'static str = String::TYPE;
    fn has_type_of(value: &Value) -> bool {
        String::has_type_of(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn android_takes_a_number_as_java_does() {
        for (value, expected) in [
            (json!("1"), Some(1)),
            (json!(" +1.9e0 "), Some(1)),
            (json!("\n.5d"), Some(0)),
            (json!("2f"), Some(2)),
            (json!("-3"), Some(0)),
            (json!("NaN"), Some(0)),
            (json!("Infinity"), Some(u64::MAX)),
            (json!("-Infinity"), Some(0)),
            (json!(1.5), Some(1)),
            (json!(-1), Some(0)),
            (json!(1e300), Some(u64::MAX)),
            (json!("nan"), None),
            (json!("inf"), None),
            (json!("infinity"), None),
            (json!("++1"), None),
            (json!("1\u{a0}"), None),
            (json!("1 d"), None),
            (json!("d"), None),
            (json!(""), None),
            (json!(true), None),
            (json!([1]), None),
        ] {
            assert_eq!(u64::on_android(&value), expected, "{value}");
        }
    }
}
