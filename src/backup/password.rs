//! The password of a backup, and the apps' password checks (docs/FORMAT.md §6).

use std::fmt;

use zeroize::Zeroizing;

/// Length of the shortest password that the apps accept: in UTF-16 units on Android, in grapheme
/// clusters on iOS (docs/FORMAT.md §6).
const MIN_LENGTH: usize = 8;
/// Length of the longest password that Android accepts, in UTF-16 units (docs/FORMAT.md §6).
const MAX_LENGTH: usize = 4096;
/// Length up to which the apps reject a password of digits alone as bad (docs/FORMAT.md §6).
const MAX_BAD_DIGITS: usize = 15;

/// The password of a backup, as the user typed it. Wiped from memory when dropped, and without
/// `Debug` and `Display`.
///
/// The bytes are used as they are: no app trims or normalises (Unicode) them.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes ownership of the UTF-8 bytes of a password.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The warnings that the apps would show for this password. They are no reason to reject it: a
    /// backup may have been made under other rules (an MDM can set a pattern instead), and both
    /// apps let users continue.
    ///
    /// Both apps also have a list of about 20,000 common passwords, which is not part of this
    /// program. Bytes that are not UTF-8 give no warnings: no user can have typed them.
    #[must_use]
    pub fn concerns(&self) -> Vec<PasswordConcern> {
        let Ok(text) = str::from_utf8(&self.0) else {
            return Vec::new();
        };
        let length = text.encode_utf16().count();
        let too_short = length < MIN_LENGTH;
        let mut characters = text.chars().flat_map(char::to_lowercase);
        let first = characters.next();
        let one_character = first.is_some() && characters.all(|other| Some(other) == first);
        let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
        [
            (too_short, PasswordConcern::TooShort),
            (
                !too_short && grapheme_count(text) < MIN_LENGTH,
                PasswordConcern::TooShortForIos,
            ),
            (length > MAX_LENGTH, PasswordConcern::TooLong),
            (
                length > 1 && one_character,
                PasswordConcern::OneCharacterRepeated,
            ),
            (
                (1..=MAX_BAD_DIGITS).contains(&length) && digits_only,
                PasswordConcern::DigitsOnly,
            ),
            (text.contains('\0'), PasswordConcern::Nul),
            (
                text.starts_with(BYTE_ORDER_MARK),
                PasswordConcern::ByteOrderMark,
            ),
        ]
        .into_iter()
        .filter_map(|(found, concern)| found.then_some(concern))
        .collect()
    }
}

/// The number of extended grapheme clusters (Unicode UAX #29), which is how Swift counts
/// characters. Exact for Latin, Greek, Cyrillic, Hebrew, Arabic, Korean and Japanese script and for
/// emoji.
fn grapheme_count(text: &str) -> usize {
    let mut length = 0;
    let mut before = '\0';
    let mut is_half_a_flag = false;
    for character in text.chars() {
        let is_flag = is_regional_indicator(character);
        let joins = length > 0
            && (extends(character)
                || before == ZERO_WIDTH_JOINER
                || (before, character) == ('\r', '\n')
                || (is_flag && is_half_a_flag));
        length += usize::from(!joins);
        is_half_a_flag = is_flag && !joins;
        before = character;
    }
    length
}

/// Zero-width joiner: combines two emoji into one.
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Byte order mark; elsewhere than at the start of a text, a zero-width no-break space.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether the character is a regional indicator, two of which make a flag.
fn is_regional_indicator(character: char) -> bool {
    ('\u{1f1e6}'..='\u{1f1ff}').contains(&character)
}

/// Whether the character extends the cluster before it: a combining mark, joiner, variation
/// selector or skin tone modifier.
fn extends(character: char) -> bool {
    matches!(
        character,
        '\u{300}'..='\u{36f}'
            | '\u{483}'..='\u{489}'
            | '\u{591}'..='\u{5bd}'
            | '\u{64b}'..='\u{65f}'
            | '\u{1160}'..='\u{11ff}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{200c}'..=ZERO_WIDTH_JOINER
            | '\u{20d0}'..='\u{20ff}'
            | '\u{3099}'..='\u{309a}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{fe20}'..='\u{fe2f}'
            | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{e0020}'..='\u{e007f}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

/// A warning of the apps about a password (Android 6.4.2 `CheckBadPasswordUseCase`, iOS 7.2
/// `ThreemaSafePasswordValidator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordConcern {
    /// Fewer than 8 characters: the restore dialogs of both apps reject it.
    TooShort,
    /// Long enough for Android, which counts each part of an emoji and each combining accent, but
    /// not for iOS.
    TooShortForIos,
    /// More than 4096 characters: Android rejects it.
    TooLong,
    /// One character repeated; iOS ignores case.
    OneCharacterRepeated,
    /// At most 15 characters, all of them digits.
    DigitsOnly,
    /// Contains U+0000, at which iOS truncates the password.
    Nul,
    /// Begins with a byte order mark, which some editors write at the start of a file.
    ByteOrderMark,
}

impl fmt::Display for PasswordConcern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooShort => {
                "it has fewer than 8 characters, and the apps' restore dialogs reject it"
            }
            Self::TooShortForIos => {
                "it has fewer than 8 characters as iOS counts them, and the restore dialog of iOS rejects it"
            }
            Self::TooLong => "it has more than 4096 characters, and Android rejects it",
            Self::OneCharacterRepeated => {
                "it is one character repeated, which the apps call a bad password"
            }
            Self::DigitsOnly => {
                "it has only digits, at most 15, which the apps call a bad password"
            }
            Self::Nul => "it contains the character U+0000, at which iOS truncates it",
            Self::ByteOrderMark => {
                "it begins with a byte order mark (U+FEFF), which is part of it and cannot be typed"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PasswordConcern::{
        ByteOrderMark, DigitsOnly, Nul, OneCharacterRepeated, TooLong, TooShort, TooShortForIos,
    };
    use super::*;

    /// The passwords of iOS's own tests (`SafeTests.swift`), except those on its list of common
    /// ones.
    #[test]
    fn password_concerns_are_those_of_the_apps() {
        for (password, expected) in [
            ("", &[TooShort][..]),
            ("1", &[TooShort, DigitsOnly]),
            ("aaaaaaaa", &[OneCharacterRepeated]),
            ("aAaAaAaA", &[OneCharacterRepeated]),
            ("        ", &[OneCharacterRepeated]),
            ("11111111", &[OneCharacterRepeated, DigitsOnly]),
            ("7777777777777777", &[OneCharacterRepeated]),
            ("83497585", &[DigitsOnly]),
            ("123456789012345", &[DigitsOnly]),
            ("83497 8", &[TooShort]),
            ("1111111w", &[]),
            ("1234567890123456", &[]),
            ("834975 8", &[]),
            ("shootdeathstar", &[]),
            ("pass\0word", &[Nul]),
            // Eight UTF-16 units, and seven characters.
            ("sesame🔒", &[TooShortForIos]),
            ("sesam🔒", &[TooShort]),
            ("sesame!🔒", &[]),
            // Accents as combining characters.
            ("e\u{301}o\u{301}e\u{301}o\u{301}", &[TooShortForIos]),
            ("éoéoéoéo", &[]),
            // A combining accent at the start is a character by itself.
            ("\u{301}sesame!", &[]),
            ("👩🏽‍💻👩🏽‍💻", &[TooShortForIos]),
            ("🇨🇭🇨🇦 swiss", &[]),
            ("🇨🇭🇨🇦 swis", &[TooShortForIos]),
            ("\u{feff}sesame!", &[ByteOrderMark]),
        ] {
            assert_eq!(
                Password::from(password).concerns(),
                expected,
                "{password:?}"
            );
        }
        let long = "ab".repeat(2_048);
        assert_eq!(Password::from(long.as_str()).concerns(), []);
        assert_eq!(
            Password::from(format!("{long}c").as_str()).concerns(),
            [TooLong]
        );
        let bytes = Password::new(Zeroizing::new(vec![0xff; 4]));
        assert_eq!(bytes.concerns(), []);
    }
}
