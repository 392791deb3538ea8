//! Places on a listener. Who has proven nothing yet is a class of its own, with a bound of its own: silent connections push out each
//! other, never those that have shown who they are.
//!
//! ```text
//! accept -> enter: silent -> spoke: its first byte came -> prove: a certificate, a token, a call that is meant for us
//!                    '-----------------'---- evicted where there is no place: the silent first, of the address that has most
//! ```
//!
//! Addresses that are known (of members) have places that strangers cannot take.
#![warn(missing_docs)]

use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two lines of a kind that a stranger can cause.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Silent connections that go at once when the process has no descriptor left.
const SHED: usize = 32;

/// How many, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that have proven who they are.
    pub proven_max: usize,
    /// Those of them from addresses that are not known.
    pub proven_strangers_max: usize,
    /// Connections that have proven nothing, from addresses that are not known.
    pub unproven_max: usize,
    /// From one address, known or not.
    pub unproven_per_address_max: usize,
    /// Who has not spoken has this long, before a newcomer may have its place.
    pub silent_grace: Duration,
    /// The same of who has begun to, to go on: a handshake on a loaded machine.
    pub spoken_grace: Duration,
    /// Until the first byte is there.
    pub first_byte: Duration,
    /// Until the proof is; `None`: the server looks after it.
    pub proof: Option<Duration>,
}

impl Limits {
    /// No more than `share` of a hundred of this process's descriptors, half of them for connections that have proven nothing: logs and files need some
    /// too.
    pub fn within_descriptors(mut self, share: u64) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let half = usize::try_from(limit / 200 * share).unwrap_or(usize::MAX).max(16);
        for count in [&mut self.proven_max, &mut self.proven_strangers_max, &mut self.unproven_max] {
            *count = (*count).min(half);
        }
        self.unproven_per_address_max = self.unproven_per_address_max.min(half);
        self
    }
}

/// The places of one listener.
pub struct Places {
    limits: Limits,
    known: ArcSwap<HashSet<IpAddr>>,
    table: Mutex<Table>,
    evicted: AtomicU64,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Of strangers, and of known addresses.
    unproven: [Class; 2],
    proven: [usize; 2],
}

#[derive(Default)]
struct Class {
    silent: Queue,
    spoken: Queue,
}

/// Connections in the order of their coming, by address.
#[derive(Default)]
struct Queue {
    by_address: HashMap<IpAddr, BTreeMap<u64, Seat>>,
    /// Sizes and addresses: the last has most.
    crowds: BTreeSet<(usize, IpAddr)>,
    len: usize,
}

struct Seat {
    since: Instant,
    notice: Arc<Notify>,
}

impl Queue {
    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, address: IpAddr, id: u64, seat: Seat) {
        let seats = self.by_address.entry(address).or_default();
        self.crowds.remove(&(seats.len(), address));
        seats.insert(id, seat);
        self.crowds.insert((seats.len(), address));
        self.len += 1;
    }

    fn remove(&mut self, address: IpAddr, id: u64) -> Option<Seat> {
        let seats = self.by_address.get_mut(&address)?;
        let before = seats.len();
        let seat = seats.remove(&id)?;
        self.crowds.remove(&(before, address));
        self.len -= 1;
        match seats.len() {
            0 => drop(self.by_address.remove(&address)),
            left => drop(self.crowds.insert((left, address))),
        }
        Some(seat)
    }

    /// Sends the oldest of an address away, or of the address that has most.
    fn evict(&mut self, address: Option<IpAddr>, now: Instant, grace: Duration) -> bool {
        let Some(address) = address.or_else(|| self.crowds.last().map(|(_, address)| *address)) else { return false };
        let oldest = self.by_address.get(&address).and_then(|seats| seats.iter().next());
        let due = oldest.filter(|(_, seat)| now.saturating_duration_since(seat.since) >= grace).map(|(id, _)| *id);
        match due.and_then(|id| self.remove(address, id)) {
            Some(seat) => {
                seat.notice.notify_one();
                true
            }
            None => false,
        }
    }
}

impl Class {
    /// Makes room for one more.
    fn room(&mut self, address: IpAddr, limits: &Limits, known: bool, now: Instant) -> Option<bool> {
        let crowded = self.silent.of(address) + self.spoken.of(address) >= limits.unproven_per_address_max;
        // Known addresses are few, and bounded each.
        let full = !known && self.silent.len + self.spoken.len >= limits.unproven_max;
        if !crowded && !full {
            return Some(false);
        }
        let of = crowded.then_some(address);
        (self.silent.evict(of, now, limits.silent_grace) || self.spoken.evict(of, now, limits.spoken_grace))
            .then_some(true)
    }
}

/// A connection's place, until it is dropped.
pub struct Place {
    places: Arc<Places>,
    id: u64,
    address: IpAddr,
    known: bool,
    notice: Arc<Notify>,
    proven: AtomicBool,
}

/// Why a connection is not served on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has ended by itself.
    Served,
    /// Another has its place.
    Evicted,
    /// Not a byte came.
    Silent,
    /// It has not shown who it is.
    Unproven,
}

impl Places {
    /// As many as these.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, known: ArcSwap::default(), table: Mutex::default(), evicted: AtomicU64::new(0) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections from these addresses have places of their own from now on.
    pub fn know(&self, addresses: HashSet<IpAddr>) {
        self.known.store(Arc::new(addresses.into_iter().map(origin).collect()));
    }

    /// How many have proven nothing yet, and how many of those had to go for others.
    pub fn unproven(&self) -> (usize, u64) {
        let table = self.table();
        let count = table.unproven.iter().map(|class| class.silent.len + class.spoken.len).sum();
        (count, self.evicted.load(Relaxed))
    }

    /// A place for a newcomer; `None`: all are taken by others that came a moment ago and speak.
    pub fn enter(self: &Arc<Self>, from: IpAddr, now: Instant) -> Option<Arc<Place>> {
        let address = origin(from);
        let known = self.known.load().contains(&address);
        let mut table = self.table();
        if table.unproven[usize::from(known)].room(address, &self.limits, known, now)? {
            self.evicted.fetch_add(1, Relaxed);
        }
        let (id, notice) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        let seat = Seat { since: now, notice: Arc::clone(&notice) };
        table.unproven[usize::from(known)].silent.insert(address, id, seat);
        Some(Arc::new(Place { places: Arc::clone(self), id, address, known, notice, proven: AtomicBool::new(false) }))
    }

    /// The process has no descriptor left: silent connections give theirs back.
    pub fn shed(&self, now: Instant) {
        let mut table = self.table();
        for _ in 0..SHED {
            // Strangers first.
            if !table.unproven.iter_mut().any(|class| class.silent.evict(None, now, Duration::ZERO)) {
                return;
            }
            self.evicted.fetch_add(1, Relaxed);
        }
    }
}

/// Whose a connection is: one machine has a whole /64 of IPv6.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

impl Place {
    fn class<'a>(&self, table: &'a mut Table) -> &'a mut Class {
        &mut table.unproven[usize::from(self.known)]
    }

    /// Its first byte is there.
    pub fn spoke(&self) {
        let mut table = self.places.table();
        let class = self.class(&mut table);
        if let Some(seat) = class.silent.remove(self.address, self.id) {
            class.spoken.insert(self.address, self.id, seat);
        }
    }

    /// It has shown who it is; `false`: it has no place any more, or all are taken by others that have.
    pub fn prove(&self) -> bool {
        // Set under the lock: looked at without it for each request of a connection.
        if self.proven.load(Relaxed) {
            return true;
        }
        let limits = &self.places.limits;
        let mut table = self.places.table();
        let limit = if self.known { limits.proven_max } else { limits.proven_strangers_max };
        if self.proven.load(Relaxed) {
            return true;
        }
        if table.proven[usize::from(self.known)] >= limit {
            return false;
        }
        let class = self.class(&mut table);
        let seat = class.silent.remove(self.address, self.id);
        if seat.or_else(|| class.spoken.remove(self.address, self.id)).is_none() {
            return false;
        }
        table.proven[usize::from(self.known)] += 1;
        self.proven.store(true, Relaxed);
        self.notice.notify_one();
        true
    }

    /// Serves the connection for as long as it has this place.
    pub async fn hold<F: Future<Output = ()> + ?Sized>(&self, mut served: Pin<Box<F>>) -> Ended {
        // In a box of its own, which is gone when the connection has proven who it is: ten thousand watchers do not hold the memory.
        let mut probation = Box::pin(self.probation());
        let ended = tokio::select! {
            biased;
            () = &mut served => return Ended::Served,
            ended = &mut probation => ended,
        };
        drop(probation);
        match ended {
            Some(ended) => ended,
            None => {
                served.await;
                Ended::Served
            }
        }
    }

    /// Returns when the place is lost, or `None` when it is sure.
    async fn probation(&self) -> Option<Ended> {
        let limits = &self.places.limits;
        if tokio::time::timeout(limits.first_byte, self.notice.notified()).await.is_ok() {
            return self.noticed();
        }
        if self.is_silent() {
            return Some(Ended::Silent);
        }
        match limits.proof {
            None => self.notice.notified().await,
            Some(proof) => {
                if tokio::time::timeout(proof.saturating_sub(limits.first_byte), self.notice.notified()).await.is_err()
                    && !self.proven.load(Relaxed)
                {
                    return Some(Ended::Unproven);
                }
            }
        }
        self.noticed()
    }

    fn noticed(&self) -> Option<Ended> {
        if self.proven.load(Relaxed) { None } else { Some(Ended::Evicted) }
    }

    fn is_silent(&self) -> bool {
        let mut table = self.places.table();
        let silent = &self.class(&mut table).silent;
        silent.by_address.get(&self.address).is_some_and(|seats| seats.contains_key(&self.id))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        if *self.proven.get_mut() {
            table.proven[usize::from(self.known)] -= 1;
        } else {
            let class = &mut table.unproven[usize::from(self.known)];
            drop(class.silent.remove(self.address, self.id));
            drop(class.spoken.remove(self.address, self.id));
        }
    }
}

/// Lines of a kind that strangers cause, thousands in a second if they like: one in ten seconds, with how many were left out.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<(Option<Instant>, u64)>);

impl Rarely {
    /// How many lines have been left out since the last; `None`: this one is to be, too.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.saturating_duration_since(last) < SAY_EVERY) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        proven_max: 6,
        proven_strangers_max: 3,
        unproven_max: 8,
        unproven_per_address_max: 4,
        silent_grace: Duration::ZERO,
        spoken_grace: GRACE,
        first_byte: Duration::from_secs(2),
        proof: Some(Duration::from_secs(10)),
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_flood_of_silent_connections_takes_no_place_from_a_peer_that_speaks() {
        let places = Places::new(LIMITS);
        let now = Instant::now();
        let spoken = places.enter(address(1), now).unwrap();
        spoken.spoke();
        let flood: Vec<_> =
            (0..1000_u32).map(|index| places.enter(address((index % 250) as u8), now).unwrap()).collect();
        assert_eq!(places.unproven().0, 8);
        assert!(spoken.prove(), "it still has its place");
        assert!(!flood[0].prove(), "the oldest has none");
        assert!(flood[999].prove(), "the newest has one");
        drop(flood);
        assert_eq!(places.unproven().0, 0);
    }

    #[test]
    fn known_addresses_have_places_that_strangers_cannot_take() {
        let places = Places::new(LIMITS);
        places.know(HashSet::from([address(1)]));
        let now = Instant::now();
        let strangers: Vec<_> = (2..100).filter_map(|last| places.enter(address(last), now)).collect();
        strangers.iter().for_each(|stranger| stranger.spoke());
        let proven = strangers.iter().filter(|stranger| stranger.prove()).count();
        assert_eq!(proven, LIMITS.proven_strangers_max);
        for _ in 0..LIMITS.proven_max {
            let member = places.enter(address(1), now).unwrap();
            assert!(member.prove());
            std::mem::forget(member);
        }
        assert!(!places.enter(address(1), now).unwrap().prove());
    }

    #[test]
    fn a_peer_that_speaks_has_a_second_before_another_takes_its_place() {
        let places = Places::new(LIMITS);
        let now = Instant::now();
        let held: Vec<_> = (0..4).map(|_| places.enter(address(1), now).unwrap()).collect();
        held.iter().for_each(|place| place.spoke());
        assert!(places.enter(address(1), now).is_none());
        assert!(places.enter(address(2), now).is_some(), "others are not concerned");
        assert!(places.enter(address(1), now + GRACE).is_some());
        assert!(!held[0].prove() && held[1].prove());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_byte_ends_and_one_that_has_proven_itself_stays() {
        let places = Places::new(LIMITS);
        let enter = || places.enter(address(1), Instant::now()).unwrap();
        let never = || Box::pin(std::future::pending::<()>());
        assert_eq!(enter().hold(never()).await, Ended::Silent);
        let slow = enter();
        slow.spoke();
        assert_eq!(slow.hold(never()).await, Ended::Unproven);
        let proven = enter();
        assert!(proven.prove());
        assert!(tokio::time::timeout(Duration::from_secs(3600), proven.hold(never())).await.is_err());
        let oldest = enter();
        let newer: Vec<_> = (0..4).map(|_| enter()).collect();
        assert_eq!(oldest.hold(never()).await, Ended::Evicted);
        drop(newer);
    }

    proptest! {
        /// Whatever comes and goes, counts are those of what is there, and bounds hold.
        #[test]
        fn bounds_hold_whatever_comes_and_goes(steps in proptest::collection::vec((0..5_u8, 0..12_u8, 0..64_usize), 1..400)) {
            let places = Places::new(LIMITS);
            places.know(HashSet::from([address(0), address(1)]));
            let mut now = Instant::now();
            let mut held: Vec<Arc<Place>> = Vec::new();
            for (step, last, index) in steps {
                match (step, held.len()) {
                    (0 | 1, _) | (_, 0) => held.extend(places.enter(address(last), now)),
                    (2, len) => held[index % len].spoke(),
                    (3, len) => drop(held[index % len].prove()),
                    (_, len) => drop(held.swap_remove(index % len)),
                }
                now += Duration::from_millis(u64::from(last) * 40);
                let table = places.table();
                let [strangers, known] = &table.unproven;
                prop_assert!(strangers.silent.len + strangers.spoken.len <= LIMITS.unproven_max);
                prop_assert!(known.silent.len + known.spoken.len <= 2 * LIMITS.unproven_per_address_max);
                for class in &table.unproven {
                    for queue in [&class.silent, &class.spoken] {
                        prop_assert_eq!(queue.len, queue.by_address.values().map(BTreeMap::len).sum::<usize>());
                        prop_assert_eq!(queue.len, queue.crowds.iter().map(|(count, _)| *count).sum::<usize>());
                    }
                }
                prop_assert!(table.proven[0] <= LIMITS.proven_strangers_max && table.proven[1] <= LIMITS.proven_max);
            }
            drop(held);
            let table = places.table();
            prop_assert_eq!(table.proven, [0, 0]);
            prop_assert!(table.unproven.iter().all(|class| class.silent.len + class.spoken.len == 0));
        }
    }
}
