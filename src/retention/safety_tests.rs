//! Unit tests of `safety.rs`.

use super::*;

#[test]
fn more_than_half_of_any_number_are_too_many() {
    for (expired, of, refused) in [
        (0, 0, false),
        (0, 5, false),
        (1, 1, true),
        (1, 2, false),
        (2, 2, true),
        (2, 3, true),
        (3, 5, true),
        (3, 6, false),
        (5, 10, false),
        (6, 10, true),
    ] {
        let refusal = refused.then_some(Refusal::TooMany { expired, of });
        assert_eq!(
            check_expired_count(expired, of, 0),
            refusal,
            "{expired} of {of}"
        );
    }
    let refusal = check_expired_count(2, 3, 0).unwrap();
    assert_eq!(
        refusal.to_string(),
        "2 of 3 backups would be removed at once, more than half"
    );
}

#[test]
fn more_than_ten_and_more_than_a_fifth_are_too_many() {
    assert_eq!(check_expired_count(10, 20, 0), None);
    assert_eq!(check_expired_count(11, 55, 0), None);
    let refusal = check_expired_count(11, 54, 0).unwrap();
    let expected = Refusal::TooMany {
        expired: 11,
        of: 54,
    };
    assert_eq!(refusal, expected);
    assert_eq!(
        refusal.to_string(),
        "11 of 54 backups would be removed at once, more than a fifth"
    );
}

#[test]
fn what_expired_lately_is_part_of_the_same_removal() {
    let mut state = State::default();
    let day = 20_000 * DAY;
    assert_eq!(expired_lately(&state, day, 0), 0);
    // One of three a day, as after a slow mistake; and a trash that keeps nothing.
    add_expired(&mut state, day, 0, 1);
    assert_eq!(expired_lately(&state, day + DAY, 0), 1);
    let expected = Refusal::TooMany { expired: 2, of: 3 };
    assert_eq!(check_expired_count(1, 2, 1), Some(expected));
    assert_eq!(check_expired_count(0, 2, 1), None);

    add_expired(&mut state, day + 1, 0, 4);
    add_expired(&mut state, day + DAY, 0, 2);
    assert_eq!(state.expired.len(), 2);
    assert_eq!(expired_lately(&state, day + DAY, 0), 7);
    assert_eq!(expired_lately(&state, day + 8 * DAY, 0), 2);
    assert_eq!(expired_lately(&state, day + 8 * DAY, 30 * DAY), 7);
    // The backups of more than a month ago are no part of it, however long the trash keeps them.
    assert_eq!(expired_lately(&state, day + 40 * DAY, 365 * DAY), 0);
    add_expired(&mut state, day + 8 * DAY, 0, 0);
    assert_eq!(state.expired.len(), 1);
    // A clock that was ahead does not make them count for ever.
    add_expired(&mut state, day, 0, 0);
    assert_eq!(state.expired[0].last, day);
}

#[test]
fn a_first_sweep_waits_a_week_for_a_person() {
    let check = |waited, expired, trash| {
        let first = FirstSweep {
            waited,
            invalid_state: false,
        };
        check_first_sweep(Some(first), expired, 10, trash)
    };
    let refusal = |expired, trash| {
        Some(Refusal::FirstSweep {
            expired,
            of: 10,
            trash,
        })
    };

    assert_eq!(check(0, 10, 1), refusal(10, 1));
    assert_eq!(check(FIRST_WAIT - 1, 1, 0), refusal(1, 0));
    assert_eq!(check(0, 0, 1), refusal(0, 1));
    assert_eq!(check(0, 0, 0), None);
    assert_eq!(check(FIRST_WAIT, 10, 1), None);
    assert_eq!(check_first_sweep(None, 10, 10, 1), None);
}
