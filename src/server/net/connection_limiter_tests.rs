//! Unit tests of the connection limiter.

use super::*;

const OFFICE: &str = "192.0.2.1:1";
const HOME: &str = "192.0.2.2:1";

fn limiter(connections: usize, per_address: usize) -> Arc<ConnectionLimiter> {
    let config = crate::config::Config::from_json(b"{}", std::path::Path::new("c")).unwrap();
    let limits = Limits {
        connections,
        connections_per_address: per_address,
        resets: 2,
        ..config.limits
    };
    ConnectionLimiter::new(limits, Refusals::default())
}

fn acquire(limiter: &Arc<ConnectionLimiter>, from: &str) -> Result<SlotGuard, LimitReached> {
    limiter.acquire(ClientAddress::of_peer(from.parse().unwrap()), false)
}

/// A connection on which a request has authenticated.
fn acquire_authenticated(limiter: &Arc<ConnectionLimiter>, from: &str) -> SlotGuard {
    let held = acquire(limiter, from).unwrap();
    held.slot().mark_authenticated();
    held
}

fn is_evicted(held: &SlotGuard) -> bool {
    let table = held.0.limiter.lock();
    !table.slots.contains_key(&held.0.number)
}

#[tokio::test]
async fn the_connection_that_is_idle_for_longest_is_evicted() {
    let limiter = limiter(3, 3);
    let active = acquire_authenticated(&limiter, OFFICE);
    let first = acquire_authenticated(&limiter, OFFICE);
    let second = acquire(&limiter, HOME).unwrap();
    let in_flight = active.slot().start().unwrap();
    // It was active a moment ago.
    drop(first.slot().start().unwrap());

    let third = acquire(&limiter, HOME).unwrap();
    assert!(is_evicted(&second) && !is_evicted(&first) && !is_evicted(&active));
    second.slot().closed().await;
    let fourth = acquire(&limiter, HOME).unwrap();
    assert!(is_evicted(&first) && !is_evicted(&third) && !is_evicted(&active));
    assert!(first.slot().start().is_none());

    let all: Vec<_> = [&third, &fourth]
        .map(|held| {
            let in_flight = held.slot().start().unwrap();
            held.slot().mark_authenticated();
            in_flight
        })
        .into();
    assert_eq!(acquire(&limiter, HOME).err(), Some(LimitReached::Total));
    drop(in_flight);
    limiter.freed().await;
    drop(acquire(&limiter, HOME).unwrap());
    assert!(is_evicted(&active));
    drop((all, active, first, second, third, fourth));
    let table = limiter.lock();
    assert!(table.addresses.is_empty());
    assert_eq!((table.slots.len(), table.evictable.len()), (0, 0));
}

#[tokio::test]
async fn an_address_takes_no_slot_from_others() {
    let limiter = limiter(10, 2);
    let home = acquire(&limiter, HOME).unwrap();
    let office: Vec<_> = (0..2).map(|_| acquire(&limiter, OFFICE).unwrap()).collect();
    let another = acquire(&limiter, OFFICE).unwrap();
    assert!(is_evicted(&office[0]) && !is_evicted(&office[1]) && !is_evicted(&home));

    let in_flight = [&office[1], &another].map(|held| {
        held.slot().mark_authenticated();
        held.slot().start().unwrap()
    });
    assert_eq!(
        acquire(&limiter, OFFICE).err(),
        Some(LimitReached::PerAddress)
    );
    drop(in_flight);
    assert!(acquire(&limiter, OFFICE).is_ok());
}

#[tokio::test]
async fn an_active_connection_without_credentials_is_evicted_too() {
    let limiter = limiter(2, 2);
    let unauthenticated = acquire(&limiter, OFFICE).unwrap();
    let authenticated = acquire(&limiter, HOME).unwrap();
    let in_flight =
        [&unauthenticated, &authenticated].map(|held| held.slot().start_request().unwrap());
    authenticated.slot().mark_authenticated();

    let idle = acquire(&limiter, HOME).unwrap();
    assert!(is_evicted(&unauthenticated) && !is_evicted(&authenticated));
    let last = acquire(&limiter, OFFICE).unwrap();
    assert!(is_evicted(&idle) && !is_evicted(&authenticated));
    drop((in_flight, unauthenticated, authenticated, idle, last));
    assert_eq!(limiter.lock().evictable.len(), 0);
}

#[tokio::test]
async fn requests_that_succeed_make_up_for_cancelled_ones() {
    let limiter = limiter(2, 2);
    let held = acquire(&limiter, HOME).unwrap();
    for _ in 0..9 {
        drop(held.slot().start_request().unwrap());
        held.slot().start_request().unwrap().responded(true);
    }
    let slot = held.slot();
    assert!(
        tokio::time::timeout(Duration::ZERO, slot.closed())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_connection_with_too_many_cancelled_requests_ends() {
    let limiter = limiter(2, 2);
    let held = acquire(&limiter, HOME).unwrap();
    for _ in 0..9 {
        held.slot().start_request().unwrap().responded(false);
        drop(held.slot().start().unwrap());
    }
    for resets in 1..=3 {
        drop(held.slot().start_request().unwrap());
        let slot = held.slot();
        let lost = tokio::time::timeout(Duration::ZERO, slot.closed()).await;
        assert_eq!(lost.is_ok(), resets == 3);
    }
}

#[tokio::test(start_paused = true)]
async fn time_while_active_is_not_idle() {
    let limiter = limiter(2, 2);
    let held = acquire(&limiter, HOME).unwrap();
    let slot = held.slot();
    let start = Instant::now();
    let in_flight = async {
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(9)).await;
            let in_flight = slot.start().unwrap();
            tokio::time::advance(Duration::from_secs(30)).await;
            drop(in_flight);
        }
    };

    let idle = slot.idle_for(Duration::from_secs(10));
    tokio::join!(idle, in_flight);

    assert_eq!(start.elapsed(), Duration::from_secs(3 * 39 + 10));
}
