//! Identifiers: a string is accepted exactly if it has the one valid spelling, and is returned
//! unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use threema_safe_server::backup::{BackupId, ThreemaId};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    // An independent implementation of the rules.
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_backup_id = text.len() == 64 && text.bytes().all(hexadecimal);
    match text.parse::<BackupId>() {
        Ok(id) => {
            assert!(is_backup_id, "an invalid backup id was accepted: {text:?}");
            assert_eq!(id.to_hex(), text, "a backup id is returned differently");
        }
        Err(_) => assert!(!is_backup_id, "a valid backup id was rejected: {text:?}"),
    }

    let capital = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'Z');
    let rest = text.strip_prefix('*').or_else(|| text.get(1..));
    let first = text.bytes().next().unwrap_or_default();
    let is_threema_id = (capital(first) || first == b'*')
        && rest.is_some_and(|rest| rest.len() == 7 && rest.bytes().all(capital));
    match text.parse::<ThreemaId>() {
        Ok(id) => {
            assert!(
                is_threema_id,
                "an invalid Threema ID was accepted: {text:?}"
            );
            assert_eq!(
                id.as_bytes(),
                text.as_bytes(),
                "a Threema ID is returned differently"
            );
        }
        Err(_) => assert!(!is_threema_id, "a valid Threema ID was rejected: {text:?}"),
    }
});
