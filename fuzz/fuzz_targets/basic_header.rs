//! The value of an `Authorization` header: only the right credentials get in, and they always do.
//!
//! All secrets are of the generated kind, which costs one SHA-256 to verify.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use threema_safe_server::account::{Caller, Credentials, Gate, Role};
use threema_safe_server_fuzz::site::{add_account, scratch};
use tokio::runtime::{Builder, Runtime};

/// Somebody with an account: a name, and base64 of name and secret in the charsets that phones use.
struct Somebody {
    name: &'static str,
    role: Role,
    base64: &'static [&'static str],
}

const EVERYBODY: [Somebody; 3] = [
    // phone:secret
    Somebody {
        name: "phone",
        role: Role::Phone,
        base64: &["cGhvbmU6c2VjcmV0"],
    },
    // operator:sec:ret
    Somebody {
        name: "operator",
        role: Role::Operator,
        base64: &["b3BlcmF0b3I6c2VjOnJldA"],
    },
    // jörg:pässwort, in UTF-8 and in ISO-8859-1.
    Somebody {
        name: "jörg",
        role: Role::Phone,
        base64: &["asO2cmc6cMOkc3N3b3J0", "avZyZzpw5HNzd29ydA"],
    },
];

struct Office {
    gate: Gate,
    runtime: Runtime,
    _folder: TempDir,
}

static OFFICE: LazyLock<Office> = LazyLock::new(|| {
    let folder = scratch();
    let file = folder.path().join("accounts.json");
    add_account(&file, "phone", Role::Phone, "secret", false);
    add_account(&file, "operator", Role::Operator, "sec:ret", false);
    add_account(&file, "jörg", Role::Phone, "pässwort", false);
    add_account(&file, "gone", Role::Operator, "secret", true);
    Office {
        gate: Gate::open(&file).expect("the accounts were just written"),
        runtime: Builder::new_current_thread()
            .build()
            .expect("a runtime starts"),
        _folder: folder,
    }
});

fuzz_target!(|header: &[u8]| {
    let expected = owner(header);
    let Some(credentials) = Credentials::parse(header) else {
        assert!(expected.is_none(), "right credentials are not read");
        return;
    };
    // Twice, because who was verified is remembered.
    for _ in 0..2 {
        let caller = verify(&credentials);
        match (&caller, expected) {
            (None, None) => {}
            (Some(caller), Some(owner)) => {
                let name = caller.name().map(|name| name.as_str());
                assert_eq!((name, caller.role()), (Some(owner.name), owner.role));
            }
            (Some(caller), None) => panic!("let in without the right credentials: {caller:?}"),
            (None, Some(owner)) => panic!("kept out with the right credentials: {}", owner.name),
        }
    }
});

/// Who sends this header, found without decoding: the scheme in any case, at least one space, and the one base64 of
/// name and secret, of whose padding any part may be missing.
fn owner(header: &[u8]) -> Option<&'static Somebody> {
    let text = str::from_utf8(header).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let rest = rest.trim_matches(|character: char| character.is_ascii_whitespace());
    EVERYBODY.iter().find(|somebody| {
        somebody.base64.iter().any(|base64| {
            let padding = rest.strip_prefix(base64);
            let full = "=".repeat((4 - base64.len() % 4) % 4);
            padding.is_some_and(|padding| full.starts_with(padding))
        })
    })
}

/// Verifies in a runtime: the accounts file is checked on a thread that may block.
fn verify(credentials: &Credentials) -> Option<Caller> {
    OFFICE.runtime.block_on(OFFICE.gate.verify(credentials))
}
