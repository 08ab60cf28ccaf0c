//! One field of the JSON, as it stands there: absent, `null`, of the right type or of a wrong one.
//!
//! The apps do not agree on what a wrong field means, and nothing may get lost, so reading never
//! fails on one: what has a wrong type is kept as it is and written back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A field of type `T`, or what stands in its place.
#[derive(Clone, Default, PartialEq)]
pub enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// What it should be.
    Is(T),
    /// JSON of another type, kept as it is.
    Other(Box<Value>),
}

impl<T> Field<T> {
    /// The value, if it is there and has the right type.
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
    /// What Android takes the field for.
    pub(super) fn on_android(&self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value.clone()),
            Self::Other(value) => T::on_android(value),
            Self::Absent | Self::Null => None,
        }
    }
}

impl<T> Field<Vec<T>> {
    /// The items of a list; none if there is no list.
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
        // By value: strings move and leave no copies behind.
        serde_json::from_value(value)
            .map(Self::Is)
            .map_err(serde::de::Error::custom)
    }
}

/// A Rust type and its type in JSON. Reading a value of the right type does not fail.
pub trait Json: Serialize + DeserializeOwned + Sized {
    /// The type, as it is called in a finding.
    const TYPE: &'static str;
    /// Whether the value has this type.
    fn has_type_of(value: &Value) -> bool;
    /// The same in another spelling, such as the number 1.0 for 1.
    fn respelled(_value: &Value) -> Option<Self> {
        None
    }
    /// What Android takes a value of another type for, if it takes it: numbers and switches in strings,
    /// numbers as strings, and every number for a number (org.json).
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
    const TYPE: &'static str = "true or false";
    fn has_type_of(value: &Value) -> bool {
        value.is_boolean()
    }
    fn on_android(value: &Value) -> Option<Self> {
        value.as_str()?.to_ascii_lowercase().parse().ok()
    }
}

impl Json for u64 {
    const TYPE: &'static str = "a whole number from 0";
    fn has_type_of(value: &Value) -> bool {
        value.is_u64()
    }
    fn respelled(value: &Value) -> Option<Self> {
        let number = value.as_f64().filter(|_| value.is_f64())?;
        // Every such number is a double without a remainder; the text of one has no exponent.
        let is_whole = number.fract() == 0.0 && (0.0..9e15).contains(&number);
        is_whole.then(|| format!("{number:.0}").trim_start_matches('-').parse().ok())?
    }
    /// Without its fraction, and 0 for what is below it.
    fn on_android(value: &Value) -> Option<Self> {
        let number = match value.as_str() {
            Some(text) => parse_java_double(text)?,
            None => value.as_f64()?,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as Java, it takes the nearest number that it can hold"
        )]
        let whole = number as Self;
        Some(whole)
    }
}

/// `Double.parseDouble`, but for numbers in hexadecimal.
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

/// The fields of an object that this version of the schema does not know, in their order.
pub type Unknown = Map<String, Value>;

/// A string that is a secret: wiped when dropped, and cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes over the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for whoever has a reason to see it.
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
