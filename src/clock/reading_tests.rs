//! Unit tests of `reading.rs`. `tests/it/retention/clocks.rs` has what follows for backups.

use super::*;
use crate::clock::corrected;
use crate::state::Correction;

const NOW: u64 = 20_000 * DAY;

fn known(time: u64) -> State {
    State {
        highest_time: Some(time),
        ..State::default()
    }
}

fn command(time: u64) -> Reading {
    Reading::of_command(at(time))
}

/// A server that has run for a day since its first accepted reading at [`NOW`].
fn server(time: u64) -> Reading {
    let run = Run {
        started: NOW,
        known: NOW + DAY,
        ran: DAY,
        highest: NOW + DAY,
        is_confirmed: true,
        ..Run::default()
    };
    Reading {
        system: at(time),
        run: Some(run),
    }
}

#[test]
fn a_reading_is_accepted_near_the_known_time_to_the_second() {
    let state = known(NOW);
    let ahead = |seconds| Verdict::Ahead { seconds };
    let behind = |seconds| Verdict::Behind { seconds };
    for (time, verdict) in [
        (NOW, Verdict::Right),
        (NOW - TOLERANCE, Verdict::Right),
        (NOW - TOLERANCE - 1, behind(TOLERANCE + 1)),
        (0, behind(NOW)),
        (NOW + MAX_OFF, Verdict::Right),
        (NOW + MAX_OFF + 1, ahead(MAX_OFF + 1)),
    ] {
        assert_eq!(command(time).judge(&state), verdict, "{time}");
    }
    let slack = SLACK + DAY / MAX_DRIFT;
    for (time, verdict) in [
        (NOW + DAY, Verdict::Right),
        (NOW + DAY - TOLERANCE - 1, behind(TOLERANCE + 1)),
        (NOW + DAY + slack, Verdict::Right),
        (NOW + DAY + slack + 1, ahead(slack + 1)),
    ] {
        assert_eq!(server(time).judge(&state), verdict, "{time}");
    }
    // Without a state any clock is the first one, unless it cannot be right.
    for (time, is_accepted) in [
        (NOT_BEFORE, true),
        (NOT_BEFORE - 1, false),
        (NOW * 2, true),
        (NOT_AFTER + 1, false),
    ] {
        let verdict = command(time).judge(&State::default());
        assert_eq!(verdict.is_accepted(), is_accepted, "{time}: {verdict:?}");
    }
}

#[test]
fn an_operator_accepts_a_doubtful_clock_only() {
    let mut state = known(NOW);
    for time in [NOW, NOW + MAX_OFF, NOW - TOLERANCE, 0, NOT_AFTER + 1] {
        assert!(!accept_by_operator(&mut state, at(time)));
        assert_eq!(state, known(NOW), "{time}");
    }

    assert!(accept_by_operator(&mut state, at(NOW + 9 * DAY)));
    assert_eq!(state.highest_time, Some(NOW + 9 * DAY));
    assert_eq!(state.clock.acceptances, 1);
    let correction = Correction {
        from: NOW - DAY,
        until: NOW + 9 * DAY - 1,
        shift: 9 * DAY,
    };
    assert_eq!(state.clock.corrections, [correction]);
    // Back by less than it was ahead: that much of the correction is taken back.
    assert!(accept_by_operator(&mut state, at(NOW + 2 * DAY)));
    assert_eq!(state.clock.corrections[0].shift, 2 * DAY);
    assert_eq!(state.highest_time, Some(NOW + 2 * DAY));
}

#[test]
fn corrections_are_bounded_and_forgotten_when_nothing_depends_on_them() {
    let mut state = known(NOW);
    for jump in 1..=40 {
        assert!(accept_by_operator(&mut state, at(NOW + jump * 2 * DAY)));
    }
    let all = &state.clock.corrections;
    assert_eq!(all.len(), 16);
    // What is merged is corrected by no less.
    assert!(corrected(all, NOW) >= NOW + 2 * DAY);
    assert_eq!(corrected(all, NOW - 2 * DAY), NOW - 2 * DAY);

    crate::clock::forget_old_corrections(&mut state, NOW + 80 * DAY, 187 * DAY);
    assert_eq!(state.clock.corrections.len(), 16);
    crate::clock::forget_old_corrections(&mut state, NOW + 400 * DAY, 187 * DAY);
    assert!(state.clock.corrections.is_empty());
}

#[test]
fn a_command_marks_nothing_before_the_known_time() {
    let mut state = known(NOW);
    assert_eq!(now_for_command(&state, at(NOW + 7)), at(NOW + 7));
    assert_eq!(now_for_command(&state, at(0)), at(NOW + STALE));
    state.clock.estimated = Some(TimeSpan {
        from: NOW,
        until: NOW + DAY,
    });
    assert_eq!(now_for_command(&state, at(0)), at(NOW + DAY + STALE));
    let absurd = known(u64::MAX);
    assert_eq!(now_for_command(&absurd, at(NOW)), at(NOW));
    assert!(now_for_command(&absurd, at(0)) > at(NOT_BEFORE));
}
