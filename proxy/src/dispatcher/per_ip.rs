//! Client connections by address, over all workers. Bounded by the connections that are open.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SHARDS: usize = 64;
/// A table is freed once it is empty and has had room for more clients than these.
const CLIENTS_KEPT: usize = 32;

/// How many connections each client address has on each listener: counted without a limit too, so that one that comes into force knows those
/// that are open.
///
/// Until any listener has had a limit, each worker counts what it serves, under a lock that no other one asks for. The first limit puts these
/// counts together, and from then on all workers count in one place.
pub(crate) struct PerIp {
    own: Box<[Own]>,
    shards: Box<[Mutex<Counts>]>,
    /// Workers no longer count for themselves.
    limited: AtomicBool,
    /// Their counts have been put together.
    together: Once,
    seed: Seed,
}

/// What a worker counts, on cache lines that no other one touches.
#[repr(align(128))]
struct Own(Mutex<Counts>);

type Counts = HashMap<Place, u32, Seed>;

/// A client's address, at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place([u8; 24]);

impl Place {
    /// An IPv6 client is its /64: that is what one subscriber is given.
    fn of(listener: u64, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
        };
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&listener.to_le_bytes());
        bytes[8..].copy_from_slice(&address.to_le_bytes());
        Self(bytes)
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.0);
    }
}

/// Where hashes begin: no client knows it, so none can choose addresses that collide.
#[derive(Debug, Clone, Copy)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Seed {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl PerIp {
    /// Of a process with so many workers. `secret` seeds its hashes.
    pub(crate) fn new(workers: usize, secret: u64) -> Self {
        let counts = || Mutex::new(Counts::with_hasher(Seed(secret)));
        Self {
            own: (0..workers).map(|_| Own(counts())).collect(),
            shards: (0..SHARDS).map(|_| counts()).collect(),
            limited: AtomicBool::new(false),
            together: Once::new(),
            seed: Seed(secret),
        }
    }

    /// Counts a connection that this worker serves, if its address has fewer than `most` already, until [`PerIp::leave`]; `u32::MAX` is no
    /// limit. `listener` is a number that no other listener has. `false`: it is not counted.
    pub(crate) fn enter(&self, worker: usize, listener: u64, address: IpAddr, most: u32) -> bool {
        let place = Place::of(listener, address);
        if most != u32::MAX {
            self.together.call_once(|| self.put_together());
        } else {
            let mut own = locked(&self.own[worker].0);
            // Looked at under the lock: what is counted here before the counts are put together is among them.
            if !self.limited.load(Relaxed) {
                *own.entry(place).or_default() += 1;
                return true;
            }
        }
        let mut counts = locked(self.shard(&place));
        let count = counts.entry(place).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    /// A connection that this worker has served, and counted, has ended.
    pub(crate) fn leave(&self, worker: usize, listener: u64, address: IpAddr) {
        let place = Place::of(listener, address);
        let is_own = !self.together.is_completed() && take_one(&mut locked(&self.own[worker].0), &place);
        if !is_own {
            take_one(&mut locked(self.shard(&place)), &place);
        }
    }

    /// Each worker's lock is held until its counts are where they are looked for next.
    fn put_together(&self) {
        self.limited.store(true, Relaxed);
        for own in &self.own {
            let mut own = locked(&own.0);
            for (place, count) in own.drain() {
                *locked(self.shard(&place)).entry(place).or_default() += count;
            }
            own.shrink_to_fit();
        }
    }

    fn shard(&self, place: &Place) -> &Mutex<Counts> {
        // By other bits of the hash than the tables go by, which are the lowest and the seven highest.
        &self.shards[(self.seed.hash_one(place) >> 32) as usize % SHARDS]
    }
}

fn locked(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `false`: there is none.
fn take_one(counts: &mut Counts, place: &Place) -> bool {
    let Some(count) = counts.get_mut(place) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(place);
        // A burst that has gone leaves no table of its size.
        if counts.is_empty() && counts.capacity() > CLIENTS_KEPT {
            counts.shrink_to_fit();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: u64 = 1;
    const NO_LIMIT: u32 = u32::MAX;

    fn is_empty(per_ip: &PerIp) -> bool {
        let own = per_ip.own.iter().map(|own| &own.0);
        own.chain(&per_ip.shards).all(|counts| locked(counts).is_empty())
    }

    #[test]
    fn places_are_limited_by_address_and_given_back() {
        let per_ip = PerIp::new(1, 7);
        let enter = |text: &str| per_ip.enter(0, WEB, text.parse().unwrap(), 2);
        let leave = |text: &str| per_ip.leave(0, WEB, text.parse().unwrap());
        assert!(enter("192.0.2.1") && enter("::ffff:192.0.2.1") && !enter("192.0.2.1"));
        assert!(enter("192.0.2.2"));
        leave("192.0.2.1");
        assert!(enter("192.0.2.1") && !enter("192.0.2.1"));
        // One /64 is one client; another listener counts apart.
        assert!(enter("2001:db8::1") && enter("2001:db8::2") && !enter("2001:db8::3"));
        assert!(per_ip.enter(0, WEB + 1, "192.0.2.1".parse().unwrap(), 1));
        for text in ["::ffff:192.0.2.1", "192.0.2.1", "2001:db8::3", "2001:db8::4", "192.0.2.2"] {
            leave(text);
        }
        per_ip.leave(0, WEB + 1, "192.0.2.1".parse().unwrap());
        assert!(is_empty(&per_ip));
    }

    #[test]
    fn clients_are_spread_over_all_shards_whatever_network_they_are_of() {
        let per_ip = PerIp::new(1, 7);
        for network in [0x0000_ffff_0a00_0000_u128, 0x2001_0db8_0000_0000_0000_0000_0000_0000, 0xfd00 << 112] {
            let step = if network >> 64 == 0 { 1 } else { 1 << 64 };
            let clients = (0..1_000).map(|number| std::net::Ipv6Addr::from_bits(network + number * step));
            let mut used: Vec<*const _> =
                clients.map(|client| std::ptr::from_ref(per_ip.shard(&Place::of(WEB, client.into())))).collect();
            used.sort_unstable();
            used.dedup();
            assert!(used.len() > SHARDS / 2, "{network:x}: {}", used.len());
        }
    }

    #[test]
    fn a_limit_counts_those_that_every_worker_had_before_it_and_each_is_given_back_once() {
        let per_ip = PerIp::new(3, 7);
        let address = "192.0.2.1".parse().unwrap();
        let enter = |worker, most| per_ip.enter(worker, WEB, address, most);
        assert!((0..6).all(|number| enter(number % 3, NO_LIMIT)));
        assert!(!enter(0, 6) && enter(2, 7));
        // Who has no limit, as a proxy that is trusted, is counted as well.
        assert!(enter(1, NO_LIMIT) && !enter(1, 8));
        per_ip.leave(0, WEB, address);
        assert!(enter(1, 8) && !enter(0, 8));
        (0..8).for_each(|number| per_ip.leave(number % 3, WEB, address));
        assert!(is_empty(&per_ip));
    }

    #[test]
    fn connections_that_come_and_go_while_a_limit_comes_into_force_are_all_counted() {
        for _ in 0..50 {
            let per_ip = PerIp::new(3, 7);
            let address = "192.0.2.1".parse().unwrap();
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for worker in 0..3 {
                    let (per_ip, start) = (&per_ip, &start);
                    scope.spawn(move || {
                        start.wait();
                        for number in 0..300 {
                            assert!(per_ip.enter(worker, WEB, address, NO_LIMIT));
                            if number % 3 == 0 {
                                per_ip.leave(worker, WEB, address);
                            }
                        }
                    });
                }
                start.wait();
                assert!(!per_ip.enter(0, WEB, address, 0));
            });
            // Of the 600 that are left each has a place, and there is no other.
            assert!(!per_ip.enter(0, WEB, address, 600) && per_ip.enter(0, WEB, address, 601));
            per_ip.leave(0, WEB, address);
            (0..600).for_each(|number| per_ip.leave(number % 3, WEB, address));
            assert!(is_empty(&per_ip));
        }
    }
}
