//! Client connections by address, over all workers. Bounded by the connections that are open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 64;
/// The table of a shard is freed once it is empty and has had room for more clients than these.
const CLIENTS_KEPT: usize = 32;

type Shard = Mutex<HashMap<(Arc<str>, IpAddr), u32>>;

/// How many connections each client address has on each listener: counted without a limit too, so that one that comes into force knows those
/// that are open.
pub(crate) struct PerIp {
    shards: Box<[Shard]>,
}

impl Default for PerIp {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl PerIp {
    /// Counts a connection, if its address has fewer than `most` already: until [`PerIp::leave`].
    pub(crate) fn enter(&self, listener: &Arc<str>, address: IpAddr, most: u32) -> bool {
        let address = client_of(address);
        let mut counts = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((Arc::clone(listener), address)).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    /// A connection that was counted has ended.
    pub(crate) fn leave(&self, listener: &Arc<str>, address: IpAddr) {
        let address = client_of(address);
        let mut counts = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(listener), address);
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
                // A burst that has gone leaves no table of its size.
                if counts.is_empty() && counts.capacity() > CLIENTS_KEPT {
                    counts.shrink_to_fit();
                }
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

/// An IPv6 client is its /64: that is what one subscriber is given.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_address_and_given_back() {
        let per_ip = PerIp::default();
        let (web, other): (Arc<str>, Arc<str>) = ("web".into(), "other".into());
        let enter = |text: &str| per_ip.enter(&web, text.parse().unwrap(), 2);
        let leave = |text: &str| per_ip.leave(&web, text.parse().unwrap());
        assert!(enter("192.0.2.1") && enter("::ffff:192.0.2.1") && !enter("192.0.2.1"));
        assert!(enter("192.0.2.2"));
        leave("192.0.2.1");
        assert!(enter("192.0.2.1") && !enter("192.0.2.1"));
        // One /64 is one client; another listener counts apart.
        assert!(enter("2001:db8::1") && enter("2001:db8::2") && !enter("2001:db8::3"));
        assert!(per_ip.enter(&other, "192.0.2.1".parse().unwrap(), 1));
        for text in ["::ffff:192.0.2.1", "192.0.2.1", "2001:db8::3", "2001:db8::4", "192.0.2.2"] {
            leave(text);
        }
        per_ip.leave(&other, "192.0.2.1".parse().unwrap());
        assert!(per_ip.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
