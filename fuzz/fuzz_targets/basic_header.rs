//! The `Authorization` header: authentication succeeds exactly with the right credentials.
//!
//! All secrets are stored like generated ones, whose verification costs one SHA-256.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use threema_safe_server::account::{Authenticator, Caller, Credentials, Role};
use threema_safe_server_fuzz::installation::{add_account, scratch};
use tokio::runtime::{Builder, Runtime};

/// An account: its name and role, and base64 of name and secret in the charsets that the apps use.
struct TestAccount {
    name: &'static str,
    role: Role,
    base64: &'static [&'static str],
}

const ACCOUNTS: [TestAccount; 3] = [
    // phone:secret
    TestAccount {
        name: "phone",
        role: Role::Phone,
        base64: &["cGhvbmU6c2VjcmV0"],
    },
    // operator:sec:ret
    TestAccount {
        name: "operator",
        role: Role::Operator,
        base64: &["b3BlcmF0b3I6c2VjOnJldA"],
    },
    // jörg:pässwort, in UTF-8 and in ISO-8859-1.
    TestAccount {
        name: "jörg",
        role: Role::Phone,
        base64: &["asO2cmc6cMOkc3N3b3J0", "avZyZzpw5HNzd29ydA"],
    },
];

struct Fixture {
    authenticator: Authenticator,
    runtime: Runtime,
    _folder: TempDir,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = scratch();
    let file = folder.path().join("accounts.json");
    add_account(&file, "phone", Role::Phone, "secret", false);
    add_account(&file, "operator", Role::Operator, "sec:ret", false);
    add_account(&file, "jörg", Role::Phone, "pässwort", false);
    add_account(&file, "gone", Role::Operator, "secret", true);
    Fixture {
        authenticator: Authenticator::open(&file).expect("the accounts were just written"),
        runtime: Builder::new_current_thread()
            .build()
            .expect("a runtime starts"),
        _folder: folder,
    }
});

fuzz_target!(|header: &[u8]| {
    let expected = account_of(header);
    let Some(credentials) = Credentials::parse(header) else {
        assert!(expected.is_none(), "valid credentials are not parsed");
        return;
    };
    // Twice, because verified credentials are cached.
    for _ in 0..2 {
        let caller = verify(&credentials);
        match (&caller, expected) {
            (None, None) => {}
            (Some(caller), Some(owner)) => {
                let name = caller.name().map(|name| name.as_str());
                assert_eq!((name, caller.role()), (Some(owner.name), owner.role));
            }
            (Some(caller), None) => {
                panic!("authenticated without the right credentials: {caller:?}")
            }
            (None, Some(owner)) => panic!("rejected with the right credentials: {}", owner.name),
        }
    }
});

/// The account of this header, found without decoding: the scheme in any case, at least one space,
/// and the base64 of name and secret, of whose padding any part may be missing.
fn account_of(header: &[u8]) -> Option<&'static TestAccount> {
    let text = str::from_utf8(header).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let rest = rest.trim_matches(|character: char| character.is_ascii_whitespace());
    ACCOUNTS.iter().find(|account| {
        account.base64.iter().any(|base64| {
            let padding = rest.strip_prefix(base64);
            let full = "=".repeat((4 - base64.len() % 4) % 4);
            padding.is_some_and(|padding| full.starts_with(padding))
        })
    })
}

/// Verifies in a runtime: the accounts file is checked on a thread that may block.
fn verify(credentials: &Credentials) -> Option<Caller> {
    FIXTURE
        .runtime
        .block_on(FIXTURE.authenticator.verify(credentials))
}
