//! HTTP Basic credentials: the value of an `Authorization` header (RFC 7617).
//!
//! The RFC leaves the charset open, and the apps differ: iOS, Desktop and Android up to 6.1 send
//! UTF-8, Android from 6.2 (OkHttp) sends ISO-8859-1. So credentials are verified in both
//! decodings.

use std::hash::{Hash, Hasher};

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Unverified credentials: a user name and a password in the charset the client sent them in. Wiped
/// when dropped.
pub struct Credentials(Zeroizing<Vec<u8>>);

/// Hashes the bytes as sent: the same credentials in two charsets have two hashes.
impl Hash for Credentials {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

/// Credentials decoded with one charset.
pub(super) struct Decoding {
    pub(super) name: String,
    pub(super) password: Zeroizing<String>,
}

impl Credentials {
    /// Parses the value of an `Authorization` header; `None` unless it is `Basic` and the Base64 of
    /// a text with a colon. Base64 padding is optional.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, rest) = header.split_at_checked("Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let decoded = Zeroizing::new(BASE64.decode(rest.trim_ascii()).ok()?);
        decoded.contains(&b':').then_some(Self(decoded))
    }

    /// `name:password` as sent, after Base64.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The claimed user name, as the key for rate limits: the same in both charsets. Empty if there
    /// is none.
    #[must_use]
    pub fn name(&self) -> String {
        self.decodings()
            .next()
            .map_or_else(String::new, |decoding| decoding.name)
    }

    /// The credentials decoded as UTF-8 if they are valid UTF-8, then as ISO-8859-1 if they are not
    /// ASCII.
    pub(super) fn decodings(&self) -> impl Iterator<Item = Decoding> + use<> {
        let utf_8 = str::from_utf8(&self.0)
            .ok()
            .map(|text| Zeroizing::new(text.to_owned()));
        let latin_1 = (!self.0.is_ascii())
            .then(|| Zeroizing::new(self.0.iter().map(|&byte| char::from(byte)).collect()));
        [utf_8, latin_1].into_iter().flatten().filter_map(|text| {
            let (name, password) = text.split_once(':')?;
            Some(Decoding {
                name: name.into(),
                password: Zeroizing::new(password.to_owned()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decodings(header: &str) -> Option<Vec<(String, String)>> {
        let decodings = Credentials::parse(header.as_bytes())?.decodings();
        Some(
            decodings
                .map(|decoding| (decoding.name, decoding.password.to_string()))
                .collect(),
        )
    }

    fn one(name: &str, password: &str) -> Option<Vec<(String, String)>> {
        Some(vec![(name.into(), password.into())])
    }

    #[test]
    fn the_apps_test_vector_is_read() {
        // Android `ThreemaSafeServerInfoTest.kt`.
        assert_eq!(
            decodings("Basic dXNlcm5hbWU6cGFzc3dvcmQ="),
            one("username", "password")
        );
        assert_eq!(
            decodings("bAsIc   dXNlcm5hbWU6cGFzc3dvcmQ"),
            one("username", "password")
        );
    }

    #[test]
    fn a_password_may_contain_colons_and_both_parts_may_be_empty() {
        assert_eq!(decodings("Basic YTpiOmM="), one("a", "b:c"));
        assert_eq!(decodings("Basic Og=="), one("", ""));
    }

    #[test]
    fn both_charsets_are_decoded() {
        // "jörg:pässwort", in UTF-8 and in ISO-8859-1.
        let utf_8 = decodings("Basic asO2cmc6cMOkc3N3b3J0").unwrap();
        assert_eq!(utf_8[0], ("jörg".into(), "pässwort".into()));
        assert_eq!(
            decodings("Basic avZyZzpw5HNzd29ydA=="),
            one("jörg", "pässwort")
        );
        for header in ["Basic asO2cmc6cMOkc3N3b3J0", "Basic avZyZzpw5HNzd29ydA=="] {
            let credentials = Credentials::parse(header.as_bytes()).unwrap();
            assert_eq!(credentials.name(), "jörg");
        }
    }

    #[test]
    fn other_headers_contain_no_credentials() {
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic !!!!",
            "Token YTpi",
            "BasicYTpi",
            "Basic bm9jb2xvbg==",
        ] {
            assert_eq!(decodings(bad), None, "{bad:?}");
        }
    }
}
