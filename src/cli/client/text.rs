//! Text of others, made sanitized for a terminal and for the person before it.

use std::fmt::Write;

use zeroize::Zeroizing;

/// The most characters of somebody else's text in a summary.
const MAX_CHARACTERS: usize = 100;

/// The text with U+FFFD for each character that would act instead of being shown.
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

/// The same, and cut where it is too long for a line.
pub(super) fn truncated(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => sanitized(text.get(..end).unwrap_or_default()) + "…",
        None => sanitized(text),
    }
}

/// JSON that means the same, in which nothing is_unsafe on a terminal. It may hold a private key.
pub(super) fn escaped(json: &[u8]) -> Zeroizing<String> {
    let json = String::from_utf8_lossy(json);
    let escape = |character: char| is_unsafe(character) && !character.is_ascii_whitespace();
    let added = 6 * json.chars().filter(|character| escape(*character)).count();
    let mut text = Zeroizing::new(String::with_capacity(json.len() + added));
    for character in json.chars() {
        if character == '\r' {
            // It stands between two values and would lead back to the beginning of the line.
            text.push(' ');
        } else if escape(character) {
            write!(text, "\\u{:04x}", u32::from(character)).expect("memory can be written to");
        } else {
            text.push(character);
        }
    }
    text
}

/// Whether a character moves the cursor, turns the direction of writing round, or cannot be seen.
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
    fn what_acts_on_a_terminal_is_replaced_and_what_is_too_long_is_cut() {
        assert_eq!(sanitized(UNSAFE), "\u{fffd}".repeat(UNSAFE.chars().count()));
        assert_eq!(truncated("Zoë 日本 🎉"), "Zoë 日本 🎉");
        assert_eq!(truncated(&"ë".repeat(100)), "ë".repeat(100));
        assert_eq!(truncated(&"ë".repeat(101)), "ë".repeat(100) + "…");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let raw = "{\r\n\t\"é\": \"\u{7f}\u{9b}\u{202e}\u{feff}\"}";

        let text = escaped(raw.as_bytes());

        assert_eq!(*text, "{ \n\t\"é\": \"\\u007f\\u009b\\u202e\\ufeff\"}");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&text), value(raw));
    }
}
