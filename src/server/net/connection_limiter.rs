//! Who may be connected: so many in all, so many from one address, and whoever is idle makes room.
//!
//! A connection is at work while one of its requests is being read or answered, and idle before, between and
//! after: also in its handshake, and with half a header. Where all places are taken, the connection that has been
//! spare for longest loses its own, so that silent and slow clients cannot keep others out. Spare is whoever is
//! idle, and whoever is at work for a stranger: a body can be dripped without credentials, also by thousands. Once
//! somebody was let in on a connection, it keeps its place while it is at work: its deadlines end it.
//!
//! Invariant: the numbers and the spare ones are those of the connections that were not put out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::Limits;
use crate::server::metrics::limit::{Limit, Refusals};
use crate::server::net::client_address::{ClientAddress, Prefix};
use crate::server::net::metered_body::Answers;
use crate::server::net::rate_limited_stream::Pace;

/// All places of a server.
pub(crate) struct Places {
    limits: ArcSwap<Limits>,
    refusals: Refusals,
    taken: Mutex<Taken>,
    /// Told when one may have become free.
    freed: Notify,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are at work; one of them will be free.
    ForAnybody,
    /// All that an address may have are at work.
    ForThisAddress,
}

#[derive(Default)]
struct Taken {
    count: usize,
    /// Counts connections that become spare: the lower, the longer it is.
    next: u64,
    spare: BTreeMap<u64, Arc<Place>>,
    addresses: HashMap<Prefix, OfAddress>,
}

#[derive(Default)]
struct OfAddress {
    count: usize,
    spare: BTreeSet<u64>,
}

/// What one connection has a place by.
pub(crate) struct Place {
    places: Arc<Places>,
    address: ClientAddress,
    state: Mutex<State>,
    out: Notify,
    busy: AtomicUsize,
    /// How many requests it ever had, and how many are under way.
    begun: AtomicU64,
    requests: AtomicUsize,
    answers: Answers,
    /// Whether anybody was let in on it.
    known: AtomicBool,
    written: AtomicU64,
    /// Since when the connection is idle; `None` while it is at work.
    idle_since: watch::Sender<Option<Instant>>,
    resets: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Whoever needs a place may have this one.
    Spare(u64),
    Kept,
    Out,
}

/// The connection is at work until this is dropped.
pub(crate) struct Work {
    place: Arc<Place>,
    is_request: bool,
    /// Whether the client goes away from a request when this is dropped.
    unanswered: bool,
}

/// Gives the place back when the connection's task ends.
pub(crate) struct Held(Arc<Place>);

impl Places {
    pub(crate) fn new(limits: Limits, refusals: Refusals) -> Arc<Self> {
        Arc::new(Self {
            limits: ArcSwap::from_pointee(limits),
            refusals,
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place for a connection from `address`, if need be a spare one. Through a proxy come many clients, so that it
    /// may have all places.
    pub(crate) fn take(
        self: &Arc<Self>,
        address: ClientAddress,
        is_proxy: bool,
    ) -> Result<Held, NoPlace> {
        let prefix = address.prefix();
        let mut taken = self.taken();
        let of_address = taken.addresses.get(&prefix);
        let limits = self.limits.load();
        let most = limits.connections_per_address;
        let too_many = !is_proxy && of_address.is_some_and(|of| of.count >= most);
        if too_many {
            self.refusals.count(Limit::ConnectionsPerAddress);
            let spare = of_address.and_then(|of| of.spare.first().copied());
            taken.put_out(spare.ok_or(NoPlace::ForThisAddress)?);
        } else if taken.count >= limits.connections {
            let spare = taken.spare.first_key_value().map(|(&since, _)| since);
            taken.put_out(spare.ok_or(NoPlace::ForAnybody)?);
            self.refusals.count(Limit::Connections);
        }
        taken.count += 1;
        taken.addresses.entry(prefix).or_default().count += 1;
        let place = Arc::new(Place {
            places: Arc::clone(self),
            address,
            state: Mutex::new(State::Kept),
            out: Notify::new(),
            busy: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            answers: Answers::default(),
            known: AtomicBool::new(false),
            written: AtomicU64::new(0),
            idle_since: watch::channel(Some(Instant::now())).0,
            resets: AtomicU64::new(0),
        });
        taken.spare(&place);
        Ok(Held(place))
    }

    /// Puts out whoever has been spare for longest, if anybody is.
    pub(crate) fn make_room(&self) {
        let mut taken = self.taken();
        if let Some((&since, _)) = taken.spare.first_key_value() {
            taken.put_out(since);
            self.freed.notify_one();
        }
    }

    /// Changes how many there may be. Nobody who has a place loses it.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
        self.freed.notify_one();
    }

    /// Done when there may be a place again.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Says that the place of which [`Places::freed`] told is not needed by whoever heard it.
    pub(crate) fn pass_on(&self) {
        self.freed.notify_one();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whoever needs a place may have this one from now on.
    fn spare(&mut self, place: &Arc<Place>) {
        let since = self.next;
        self.next += 1;
        *place.state() = State::Spare(since);
        self.spare.insert(since, Arc::clone(place));
        let of_address = self.addresses.entry(place.address.prefix()).or_default();
        of_address.spare.insert(since);
    }

    /// Takes the connection that became spare at `since` off the list.
    fn keep(&mut self, since: u64) -> Option<Arc<Place>> {
        let place = self.spare.remove(&since)?;
        if let Some(of_address) = self.addresses.get_mut(&place.address.prefix()) {
            of_address.spare.remove(&since);
        }
        *place.state() = State::Kept;
        Some(place)
    }

    fn put_out(&mut self, since: u64) {
        let Some(place) = self.keep(since) else {
            return;
        };
        *place.state() = State::Out;
        self.forget(place.address.prefix());
        place.out.notify_one();
    }

    fn forget(&mut self, prefix: Prefix) {
        self.count -= 1;
        if let Some(of_address) = self.addresses.get_mut(&prefix) {
            of_address.count -= 1;
            if of_address.count == 0 {
                self.addresses.remove(&prefix);
            }
        }
    }
}

impl Held {
    /// The place itself, for whoever works for the connection.
    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let place = &self.0;
        let mut taken = place.places.taken();
        let before = *place.state();
        match before {
            State::Out => return,
            State::Spare(since) => drop(taken.keep(since)),
            State::Kept => {}
        }
        *place.state() = State::Out;
        taken.forget(place.address.prefix());
        place.places.freed.notify_one();
    }
}

impl Place {
    /// The connection is at work from now on; `None` when it has no place any more.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Work> {
        let mut taken = self.places.taken();
        let before = *self.state();
        if before == State::Out {
            return None;
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.idle_since.send_replace(None);
        if let State::Spare(since) = before
            && self.known.load(Ordering::Relaxed)
        {
            drop(taken.keep(since));
        }
        Some(Work {
            place: Arc::clone(self),
            is_request: false,
            unanswered: false,
        })
    }

    /// As [`Place::begin`], for a request.
    pub(crate) fn begin_request(self: &Arc<Self>) -> Option<Work> {
        // Before anybody hears of it.
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut work = self.begin()?;
        work.is_request = true;
        work.unanswered = true;
        self.requests.fetch_add(1, Ordering::Relaxed);
        Some(work)
    }

    /// Somebody was let in: the connection keeps its place while it is at work.
    pub(crate) fn let_in(&self) {
        if self.known.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut taken = self.places.taken();
        let before = *self.state();
        if let State::Spare(since) = before
            && self.is_busy()
        {
            drop(taken.keep(since));
        }
    }

    /// How many requests there ever were.
    pub(crate) fn requests_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Done when there has been a request.
    pub(crate) async fn asked(&self) {
        let mut since = self.idle_since.subscribe();
        while self.requests_begun() == 0 {
            // The sender is in `self`.
            drop(since.changed().await);
        }
    }

    /// Whether one is under way.
    pub(crate) fn has_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// The answers that are being taken.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Where the connection comes from.
    pub(crate) fn address(&self) -> ClientAddress {
        self.address
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Counts that the connection came up against this.
    pub(crate) fn refused(&self, limit: Limit) {
        self.places.refusals.count(limit);
    }

    pub(crate) fn wrote(&self, count: usize) {
        self.written.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Done when the place is somebody else's, or the client has given up too many requests.
    pub(crate) async fn lost(&self) {
        self.out.notified().await;
    }

    /// Done when the connection has been idle for so long without a break.
    pub(crate) async fn idle_for(&self, duration: Duration) {
        let mut since = self.idle_since.subscribe();
        loop {
            let idle = *since.borrow_and_update();
            let Some(idle) = idle else {
                // The sender is in `self`.
                drop(since.changed().await);
                continue;
            };
            if timeout_at(idle + duration, since.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Done when the connection is idle and its client takes what is still on its way more slowly than `pace`.
    pub(crate) async fn stuck(&self, pace: Pace) {
        loop {
            self.idle_for(Duration::ZERO).await;
            let start = Instant::now();
            let before = self.written.load(Ordering::Relaxed);
            let mut deadline = pace.deadline(start, 0);
            while !self.is_busy() {
                sleep_until(deadline).await;
                let written = self.written.load(Ordering::Relaxed) - before;
                deadline = pace.deadline(start, written);
                if deadline <= Instant::now() && !self.is_busy() {
                    return;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// The request has its answer. One that was carried out makes up for one that was given up: the clients of a
    /// proxy share its connections, and come and go.
    pub(crate) fn answered(mut self, success: bool) {
        self.unanswered = false;
        if success {
            let one_less = |resets: u64| resets.checked_sub(1);
            let resets = &self.place.resets;
            let _ = resets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let place = &self.place;
        if self.is_request {
            place.requests.fetch_sub(1, Ordering::Relaxed);
        }
        if self.unanswered {
            let resets = place.resets.fetch_add(1, Ordering::Relaxed) + 1;
            if resets > u64::from(place.places.limits.load().resets) {
                place.refused(Limit::Resets);
                place.out.notify_one();
            }
        }
        let mut taken = place.places.taken();
        if place.busy.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        place.idle_since.send_replace(Some(Instant::now()));
        let before = *place.state();
        match before {
            State::Out => return,
            // To the end of the list.
            State::Spare(since) => drop(taken.keep(since)),
            State::Kept => {}
        }
        taken.spare(place);
        place.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: &str = "192.0.2.1:1";
    const HOME: &str = "192.0.2.2:1";

    fn places(connections: usize, per_address: usize) -> Arc<Places> {
        let config = crate::config::Config::from_json(b"{}", std::path::Path::new("c")).unwrap();
        let limits = Limits {
            connections,
            connections_per_address: per_address,
            resets: 2,
            ..config.limits
        };
        Places::new(limits, Refusals::default())
    }

    fn take(places: &Arc<Places>, from: &str) -> Result<Held, NoPlace> {
        places.take(ClientAddress::of_peer(from.parse().unwrap()), false)
    }

    /// A connection from there on which somebody was let in.
    fn take_known(places: &Arc<Places>, from: &str) -> Held {
        let held = take(places, from).unwrap();
        held.place().let_in();
        held
    }

    fn is_out(held: &Held) -> bool {
        *held.0.state() == State::Out
    }

    #[tokio::test]
    async fn whoever_is_idle_for_longest_makes_room() {
        let places = places(3, 3);
        let at_work = take_known(&places, OFFICE);
        let first = take_known(&places, OFFICE);
        let second = take(&places, HOME).unwrap();
        let work = at_work.place().begin().unwrap();
        // It was at work a moment ago.
        drop(first.place().begin().unwrap());

        let third = take(&places, HOME).unwrap();
        assert!(is_out(&second) && !is_out(&first) && !is_out(&at_work));
        second.place().lost().await;
        let fourth = take(&places, HOME).unwrap();
        assert!(is_out(&first) && !is_out(&third) && !is_out(&at_work));
        assert!(first.place().begin().is_none());

        let all: Vec<_> = [&third, &fourth]
            .map(|held| {
                let work = held.place().begin().unwrap();
                held.place().let_in();
                work
            })
            .into();
        assert_eq!(take(&places, HOME).err(), Some(NoPlace::ForAnybody));
        drop(work);
        places.freed().await;
        drop(take(&places, HOME).unwrap());
        assert!(is_out(&at_work));
        drop((all, at_work, first, second, third, fourth));
        let taken = places.taken();
        assert!(taken.addresses.is_empty());
        assert_eq!((taken.count, taken.spare.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_address_takes_no_place_from_others() {
        let places = places(10, 2);
        let home = take(&places, HOME).unwrap();
        let office: Vec<_> = (0..2).map(|_| take(&places, OFFICE).unwrap()).collect();
        let another = take(&places, OFFICE).unwrap();
        assert!(is_out(&office[0]) && !is_out(&office[1]) && !is_out(&home));

        let work = [&office[1], &another].map(|held| {
            held.place().let_in();
            held.place().begin().unwrap()
        });
        assert_eq!(take(&places, OFFICE).err(), Some(NoPlace::ForThisAddress));
        drop(work);
        assert!(take(&places, OFFICE).is_ok());
    }

    #[tokio::test]
    async fn whoever_works_for_a_stranger_makes_room_too() {
        let places = places(2, 2);
        let stranger = take(&places, OFFICE).unwrap();
        let known = take(&places, HOME).unwrap();
        let works = [&stranger, &known].map(|held| held.place().begin_request().unwrap());
        known.place().let_in();

        let idle = take(&places, HOME).unwrap();
        assert!(is_out(&stranger) && !is_out(&known));
        let last = take(&places, OFFICE).unwrap();
        assert!(is_out(&idle) && !is_out(&known));
        drop((works, stranger, known, idle, last));
        assert_eq!(places.taken().spare.len(), 0);
    }

    #[tokio::test]
    async fn requests_that_are_carried_out_make_up_for_those_given_up() {
        let places = places(2, 2);
        let held = take(&places, HOME).unwrap();
        for _ in 0..9 {
            drop(held.place().begin_request().unwrap());
            held.place().begin_request().unwrap().answered(true);
        }
        let place = held.place();
        assert!(
            tokio::time::timeout(Duration::ZERO, place.lost())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn whoever_gives_up_too_many_requests_is_lost() {
        let places = places(2, 2);
        let held = take(&places, HOME).unwrap();
        for _ in 0..9 {
            held.place().begin_request().unwrap().answered(false);
            drop(held.place().begin().unwrap());
        }
        for resets in 1..=3 {
            drop(held.place().begin_request().unwrap());
            let place = held.place();
            let lost = tokio::time::timeout(Duration::ZERO, place.lost()).await;
            assert_eq!(lost.is_ok(), resets == 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_at_work_is_not_idle() {
        let places = places(2, 2);
        let held = take(&places, HOME).unwrap();
        let place = held.place();
        let start = Instant::now();
        let work = async {
            for _ in 0..3 {
                tokio::time::advance(Duration::from_secs(9)).await;
                let work = place.begin().unwrap();
                tokio::time::advance(Duration::from_secs(30)).await;
                drop(work);
            }
        };

        let idle = place.idle_for(Duration::from_secs(10));
        tokio::join!(idle, work);

        assert_eq!(start.elapsed(), Duration::from_secs(3 * 39 + 10));
    }
}
