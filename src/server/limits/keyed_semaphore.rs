//! So many at a time, for each key. Keys that nobody holds or waits for take no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who has a turn, and who waits for one.
pub(super) struct Turns {
    at_once: usize,
    places: Mutex<HashMap<u64, Place>>,
}

/// What those with one key share.
struct Place {
    turn: Arc<Semaphore>,
    /// How many hold the turn or wait for it.
    interested: usize,
}

/// The turn of one; another's when it is dropped.
pub(super) struct Turn<'a> {
    // Dropped before the interest in it.
    _permit: OwnedSemaphorePermit,
    _interest: Interest<'a>,
}

/// Keeps the place of a key, also of one who goes away while it waits.
struct Interest<'a> {
    turns: &'a Turns,
    key: u64,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            places: Mutex::default(),
        }
    }

    /// Waits for the turn, behind those who came before.
    pub(super) async fn take(&self, key: u64) -> Turn<'_> {
        let (turn, interest) = self.interest(key);
        let permit = turn
            .acquire_owned()
            .await
            .expect("a semaphore of turns is never closed");
        Turn {
            _permit: permit,
            _interest: interest,
        }
    }

    fn interest(&self, key: u64) -> (Arc<Semaphore>, Interest<'_>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(key).or_insert_with(|| Place {
            turn: Arc::new(Semaphore::new(self.at_once)),
            interested: 0,
        });
        place.interested += 1;
        (Arc::clone(&place.turn), Interest { turns: self, key })
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        let mut places = self
            .turns
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(&self.key) {
            place.interested -= 1;
            if place.interested == 0 {
                places.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_others_wait_and_nothing_is_left_of_whoever_goes_away() {
        let turns = Turns::new(1);
        let first = turns.take(1).await;
        let mut second = Box::pin(turns.take(1));
        assert!((&mut second).now_or_never().is_none());

        assert!(turns.take(2).now_or_never().is_some(), "another key");
        assert!(turns.take(1).now_or_never().is_none(), "goes away");
        drop(first);
        let second = second.now_or_never().unwrap();

        assert_eq!(turns.places.lock().unwrap().len(), 1);
        drop(second);
        assert!(turns.places.lock().unwrap().is_empty());
    }
}
