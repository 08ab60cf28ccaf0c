//! Known time: which readings of the system clock to believe.
//!
//! Backups are removed by age, and ages come from clocks. A board without a battery boots in 1970,
//! NTP corrects a clock by weeks, an operator mistypes a year. Three rules keep such clocks from
//! removing backups:
//!
//! 1. The *known time* never exceeds the true one, as far as clocks were right before: the highest
//!    time that was accepted (`State::highest_time`), plus the time that the machine has run since.
//!    What is stored or removed carries the clock's time, but never one before the known time
//!    ([`Clock::now`]).
//! 2. A reading is *accepted* only near the known time ([`Verdict`]): at most five minutes behind,
//!    and ahead at most an hour within a run and a day at its first reading. A jump ahead that is
//!    larger stays in the state, also across restarts, until the clock is back, until as much time
//!    has really passed, or until an operator accepts it. Sweeps remove nothing meanwhile.
//! 3. Where the known time turns out to have been too early, a correction remembers which times
//!    were taken from it, and by how much they are too early (`corrections.rs`). If a jump is over
//!    because its time has passed, all earlier times are corrected, so nothing ages by more than
//!    what has passed.
//!
//! Time is an argument here: a [`Reading`] is what one process knows at one moment.

mod corrections;
mod reading;
mod run;

pub use corrections::{corrected, forget_old_corrections};
pub use reading::{Reading, Verdict, accept_by_operator, highest_time, now_for_command};
pub use run::{Clock, since_boot};
