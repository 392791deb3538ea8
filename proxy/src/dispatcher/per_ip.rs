//! Client connections by address, over all workers. Bounded by the connections that are open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 64;

type Shard = Mutex<HashMap<(Arc<str>, IpAddr), u32>>;

/// How many connections each client address has on each listener: counted without a limit too, so that one that comes into force knows those
/// that are open.
pub(crate) struct PerIp {
    shards: Box<[Shard]>,
}

/// One connection's permit: return it by [`PerIp::leave`].
#[derive(Debug)]
pub(crate) struct Place(Arc<str>, IpAddr);

impl Default for PerIp {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl PerIp {
    /// Counts a connection, if its address has fewer than `most` already. An IPv6 client is its /64: that is what one
    /// subscriber is given.
    pub(crate) fn enter(&self, listener: &Arc<str>, address: IpAddr, most: u32) -> Option<Place> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        };
        let mut counts = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((Arc::clone(listener), address)).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(listener), address))
    }

    /// Returns a permit: its connection has ended.
    pub(crate) fn leave(&self, place: Place) {
        let Place(listener, address) = place;
        let mut counts = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let key = (listener, address);
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }

    fn shard(&self, address: IpAddr) -> &Shard {
        let hash = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        &self.shards[(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_address_and_given_back() {
        let per_ip = PerIp::default();
        let web: Arc<str> = "web".into();
        let enter = |text: &str| per_ip.enter(&web, text.parse().unwrap(), 2);
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && enter("192.0.2.1").is_none());
        let neighbour = enter("192.0.2.2");
        assert!(neighbour.is_some());
        per_ip.leave(first.unwrap());
        let again = enter("192.0.2.1");
        assert!(again.is_some());
        // One /64 is one client; another listener counts apart.
        let six = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(six.0.is_some() && six.1.is_some() && enter("2001:db8::3").is_none());
        let other = per_ip.enter(&"other".into(), "192.0.2.1".parse().unwrap(), 1);
        assert!(other.is_some());
        for place in [second, again, six.0, six.1, neighbour, other] {
            per_ip.leave(place.unwrap());
        }
        assert!(per_ip.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
