//! Connection limits, global and per client address, with eviction of idle connections.
//!
//! A connection is *active* while one of its requests is being read or answered, and *idle* before
//! the first request (so also in its handshake and with half a header), between requests and after
//! the last. When a limit is reached, the connection that has been evictable for longest loses its
//! slot, so that silent and slow clients cannot keep others out. Evictable are idle connections,
//! and active ones without credentials: a body can be sent a byte at a time without credentials,
//! also on thousands of connections. Once a request on a connection has authenticated, the
//! connection keeps its slot while it is active; deadlines end it then.
//!
//! A client address is an IPv4 address or an IPv6 /64. Trusted proxies carry many clients and are
//! exempt from the limit per address. A connection whose client cancels more requests than
//! `limits.resets` allows is closed (HTTP/2 rapid reset, CVE-2023-44487).
//!
//! Invariant: the table counts exactly the connections that hold a slot and were not evicted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client_address::{ClientAddress, Prefix};
use super::min_rate::MinRate;
use super::response_tracker::ResponseTracker;
use crate::config::Limits;
use crate::lock::lock;
use crate::server::metrics::limit::{Limit, Refusals};

/// The connection slots of a server.
pub(crate) struct ConnectionLimiter {
    limits: ArcSwap<Limits>,
    refusals: Refusals,
    table: Mutex<Table>,
    /// Notified when a slot may have become free or evictable.
    freed: Notify,
}

/// Which limit leaves no slot: all connections under it are active and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// `limits.connections`; one of them will end.
    Total,
    /// `limits.connectionsPerAddress`.
    PerAddress,
}

/// All slots that are taken.
#[derive(Default)]
struct Table {
    /// The next number for a slot, or for a slot that becomes evictable.
    next: u64,
    slots: HashMap<u64, State>,
    /// The slot that has been evictable for longest comes first.
    evictable: BTreeMap<u64, Arc<ConnectionSlot>>,
    addresses: HashMap<Prefix, AddressSlots>,
}

/// The slots of one client address.
#[derive(Default)]
struct AddressSlots {
    count: usize,
    evictable: BTreeSet<u64>,
}

/// The state of a slot that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It can be evicted. The lower the number, the longer it has been evictable.
    Evictable(u64),
    /// It is active and authenticated.
    Pinned,
}

/// The slot of one connection, with the counters that its limits are based on.
pub(crate) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    address: ClientAddress,
    /// Notified when the connection has to end.
    closed: Notify,
    /// Requests and responses in flight.
    active: AtomicUsize,
    requests_started: AtomicU64,
    requests_in_flight: AtomicUsize,
    responses: ResponseTracker,
    /// True once a request on this connection has authenticated.
    authenticated: AtomicBool,
    bytes_written: AtomicU64,
    /// Since when the connection is idle; `None` while it is active.
    idle_since: watch::Sender<Option<Instant>>,
    /// Requests that the client cancelled before they were answered, less those that succeeded.
    resets: AtomicU64,
}

/// A request or response in flight: the connection is active until this is dropped.
pub(crate) struct InFlight {
    slot: Arc<ConnectionSlot>,
    is_request: bool,
    /// Whether dropping this means that the client cancelled a request.
    unanswered: bool,
}

/// Releases the slot when the connection's task ends.
pub(crate) struct SlotGuard(Arc<ConnectionSlot>);

impl ConnectionLimiter {
    pub(crate) fn new(limits: Limits, refusals: Refusals) -> Arc<Self> {
        Arc::new(Self {
            limits: ArcSwap::from_pointee(limits),
            refusals,
            table: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a slot for a connection from `address`, by eviction if a limit is reached. A trusted
    /// proxy (`is_proxy`) has no limit per address.
    ///
    /// # Errors
    /// When a limit is reached and no connection under it can be evicted.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        address: ClientAddress,
        is_proxy: bool,
    ) -> Result<SlotGuard, LimitReached> {
        let prefix = address.prefix();
        let mut table = self.lock();
        let limits = self.limits.load();
        let of_address = table.addresses.get(&prefix);
        let at_most = limits.connections_per_address;
        if !is_proxy && of_address.is_some_and(|of| of.count >= at_most) {
            self.refusals.count(Limit::ConnectionsPerAddress);
            let oldest = of_address.and_then(|of| of.evictable.first().copied());
            table.evict(oldest.ok_or(LimitReached::PerAddress)?);
        } else if table.slots.len() >= limits.connections {
            let oldest = table.evictable.first_key_value().map(|(&since, _)| since);
            table.evict(oldest.ok_or(LimitReached::Total)?);
            self.refusals.count(Limit::Connections);
        }
        let slot = Arc::new(ConnectionSlot {
            limiter: Arc::clone(self),
            number: table.next_number(),
            address,
            closed: Notify::new(),
            active: AtomicUsize::new(0),
            requests_started: AtomicU64::new(0),
            requests_in_flight: AtomicUsize::new(0),
            responses: ResponseTracker::default(),
            authenticated: AtomicBool::new(false),
            bytes_written: AtomicU64::new(0),
            idle_since: watch::channel(Some(Instant::now())).0,
            resets: AtomicU64::new(0),
        });
        table.addresses.entry(prefix).or_default().count += 1;
        table.set_evictable(&slot);
        Ok(SlotGuard(slot))
    }

    /// Evicts the connection that has been evictable for longest, if there is one.
    pub(crate) fn evict_one(&self) {
        let mut table = self.lock();
        if let Some((&since, _)) = table.evictable.first_key_value() {
            table.evict(since);
            self.freed.notify_one();
        }
    }

    /// Changes the limits. Connections that hold a slot keep it.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
        self.freed.notify_one();
    }

    /// Resolves when a slot may be free or evictable.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Passes the notification of [`ConnectionLimiter::freed`] on to another listener that waits.
    pub(crate) fn notify_next(&self) {
        self.freed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Puts a slot at the end of the list of those that can be evicted.
    fn set_evictable(&mut self, slot: &Arc<ConnectionSlot>) {
        self.pin(slot.number);
        let since = self.next_number();
        self.slots.insert(slot.number, State::Evictable(since));
        self.evictable.insert(since, Arc::clone(slot));
        let of_address = self.addresses.entry(slot.address.prefix()).or_default();
        of_address.evictable.insert(since);
    }

    /// Takes a slot off the list of those that can be evicted.
    fn pin(&mut self, number: u64) {
        let Some(state) = self.slots.get_mut(&number) else {
            return;
        };
        let State::Evictable(since) = std::mem::replace(state, State::Pinned) else {
            return;
        };
        if let Some(slot) = self.evictable.remove(&since)
            && let Some(of_address) = self.addresses.get_mut(&slot.address.prefix())
        {
            of_address.evictable.remove(&since);
        }
    }

    fn evict(&mut self, since: u64) {
        if let Some(slot) = self.evictable.get(&since).cloned() {
            self.release(&slot);
            slot.closed.notify_one();
        }
    }

    /// Removes a slot from the table; false if it was removed before, by eviction.
    fn release(&mut self, slot: &ConnectionSlot) -> bool {
        self.pin(slot.number);
        if self.slots.remove(&slot.number).is_none() {
            return false;
        }
        let prefix = slot.address.prefix();
        if let Some(of_address) = self.addresses.get_mut(&prefix) {
            of_address.count -= 1;
            if of_address.count == 0 {
                self.addresses.remove(&prefix);
            }
        }
        true
    }
}

impl SlotGuard {
    /// The slot, shared with the parts that serve the connection.
    pub(crate) fn slot(&self) -> Arc<ConnectionSlot> {
        Arc::clone(&self.0)
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let limiter = &self.0.limiter;
        if limiter.lock().release(&self.0) {
            limiter.freed.notify_one();
        }
    }
}

impl ConnectionSlot {
    /// Marks the connection active; `None` if it was evicted.
    pub(crate) fn start(self: &Arc<Self>) -> Option<InFlight> {
        let mut table = self.limiter.lock();
        if !table.slots.contains_key(&self.number) {
            return None;
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        self.idle_since.send_replace(None);
        if self.authenticated.load(Ordering::Relaxed) {
            table.pin(self.number);
        }
        Some(InFlight {
            slot: Arc::clone(self),
            is_request: false,
            unanswered: false,
        })
    }

    /// As [`ConnectionSlot::start`], for a request.
    pub(crate) fn start_request(self: &Arc<Self>) -> Option<InFlight> {
        // Counted before `idle_since` changes, so that its watchers see it.
        self.requests_started.fetch_add(1, Ordering::Relaxed);
        let mut request = self.start()?;
        request.is_request = true;
        request.unanswered = true;
        self.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        Some(request)
    }

    /// A request has authenticated: the connection keeps its slot while it is active.
    pub(crate) fn mark_authenticated(&self) {
        if self.authenticated.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut table = self.limiter.lock();
        if self.is_active() {
            table.pin(self.number);
        }
    }

    /// How many requests have started since the connection was accepted.
    pub(crate) fn requests_started(&self) -> u64 {
        self.requests_started.load(Ordering::Relaxed)
    }

    /// Resolves when the first request has started.
    pub(crate) async fn first_request(&self) {
        let mut idle = self.idle_since.subscribe();
        while self.requests_started() == 0 {
            // No error is possible: the sender is a field of `self`.
            drop(idle.changed().await);
        }
    }

    /// Whether a request is in flight.
    pub(crate) fn has_request(&self) -> bool {
        self.requests_in_flight.load(Ordering::Relaxed) > 0
    }

    /// Progress of the responses in flight.
    pub(crate) fn responses(&self) -> &ResponseTracker {
        &self.responses
    }

    /// The address of the client, or of the proxy that carries it.
    pub(crate) fn address(&self) -> ClientAddress {
        self.address
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// Counts that the connection reached a limit.
    pub(crate) fn count_refusal(&self, limit: Limit) {
        self.limiter.refusals.count(limit);
    }

    /// Counts bytes that were written to the connection.
    pub(crate) fn add_written(&self, count: usize) {
        self.bytes_written
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Resolves when the connection has to end: it was evicted, or its client has cancelled too
    /// many requests.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Resolves when the connection has been idle for this long without a break.
    pub(crate) async fn idle_for(&self, duration: Duration) {
        let mut since = self.idle_since.subscribe();
        loop {
            let idle = *since.borrow_and_update();
            let Some(idle) = idle else {
                // No error is possible: the sender is a field of `self`.
                drop(since.changed().await);
                continue;
            };
            if timeout_at(idle + duration, since.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Resolves when the connection is idle and its client takes what is still buffered more slowly
    /// than `min_rate`.
    pub(crate) async fn stalled(&self, min_rate: MinRate) {
        loop {
            self.idle_for(Duration::ZERO).await;
            let start = Instant::now();
            let before = self.bytes_written.load(Ordering::Relaxed);
            let mut deadline = min_rate.deadline(start, 0);
            while !self.is_active() {
                sleep_until(deadline).await;
                let written = self.bytes_written.load(Ordering::Relaxed) - before;
                deadline = min_rate.deadline(start, written);
                if deadline <= Instant::now() && !self.is_active() {
                    return;
                }
            }
        }
    }
}

impl InFlight {
    /// The request has its response. A success makes up for one cancelled request: the clients of a
    /// proxy share its connections, and come and go.
    pub(crate) fn responded(mut self, success: bool) {
        self.unanswered = false;
        if success {
            let one_less = |resets: u64| resets.checked_sub(1);
            let resets = &self.slot.resets;
            let _ = resets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let slot = &self.slot;
        let limiter = &slot.limiter;
        if self.is_request {
            slot.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if self.unanswered {
            let resets = slot.resets.fetch_add(1, Ordering::Relaxed) + 1;
            if resets > u64::from(limiter.limits.load().resets) {
                slot.count_refusal(Limit::Resets);
                slot.closed.notify_one();
            }
        }
        let mut table = limiter.lock();
        if slot.active.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        slot.idle_since.send_replace(Some(Instant::now()));
        if table.slots.contains_key(&slot.number) {
            table.set_evictable(slot);
            limiter.freed.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "connection_limiter_tests.rs"]
mod tests;
