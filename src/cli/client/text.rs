//! Sanitising of untrusted text for a terminal: control, bidirectional and invisible characters.

use std::fmt::Write;

use zeroize::Zeroizing;

/// Number of characters to which untrusted text is truncated in a summary.
const MAX_CHARACTERS: usize = 100;

/// Replaces each unsafe character by U+FFFD.
pub(super) fn sanitized(text: &str) -> String {
    let replaced = |character| {
        if is_unsafe(character) {
            '\u{fffd}'
        } else {
            character
        }
    };
    text.chars().map(replaced).collect()
}

/// Replaces unsafe characters, and truncates the text to [`MAX_CHARACTERS`].
pub(super) fn truncated(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => sanitized(text.get(..end).unwrap_or_default()) + "…",
        None => sanitized(text),
    }
}

/// Escapes unsafe characters in JSON without changing its meaning. The text may contain a private
/// key and is wiped when dropped.
pub(super) fn escaped(json: &[u8]) -> Zeroizing<String> {
    let json = String::from_utf8_lossy(json);
    let escape = |character: char| is_unsafe(character) && !character.is_ascii_whitespace();
    let added = 6 * json.chars().filter(|character| escape(*character)).count();
    let mut text = Zeroizing::new(String::with_capacity(json.len() + added));
    for character in json.chars() {
        if character == '\r' {
            // In valid JSON it is whitespace; on a terminal it would return to the start of the
            // line.
            text.push(' ');
        } else if escape(character) {
            write!(text, "\\u{:04x}", u32::from(character)).expect("memory can be written to");
        } else {
            text.push(character);
        }
    }
    text
}

/// Whether a character controls the terminal, changes the text direction, or is invisible.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSAFE: &str = "\u{0}\u{1b}\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2060}\u{2069}\u{feff}";

    #[test]
    fn unsafe_characters_are_replaced_and_long_text_is_truncated() {
        assert_eq!(sanitized(UNSAFE), "\u{fffd}".repeat(UNSAFE.chars().count()));
        assert_eq!(truncated("Zoë 日本 🎉"), "Zoë 日本 🎉");
        assert_eq!(truncated(&"ë".repeat(100)), "ë".repeat(100));
        assert_eq!(truncated(&"ë".repeat(101)), "ë".repeat(100) + "…");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let raw = "{\r\n\t\"é\": \"\u{7f}\u{9b}\u{202e}\u{feff}\"}";

        let text = escaped(raw.as_bytes());

        assert_eq!(*text, "{ \n\t\"é\": \"\\u007f\\u009b\\u202e\\ufeff\"}");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&text), value(raw));
    }
}
