//! Networks that something is allowed to, or believed of.

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::IpAddr;

/// A list of networks, ready to be asked: however many there are, an address is looked up by halves.
///
/// An IPv4 address that is mapped into IPv6 is the IPv4 address, in the list and when it is asked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Networks {
    listed: Vec<IpNet>,
    /// First and last addresses, in order, none in touch with another.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// One, or an address alone, as a file has it; `None`: it is neither.
    #[must_use]
    pub fn one(text: &str) -> Option<Self> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.ok().map(|network| Self::from_iter([network]))
    }

    /// Whether an address is in one of them.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // Nothing is asked where nothing is listed, as in most files.
        !self.listed.is_empty()
            && match address.to_canonical() {
                IpAddr::V4(address) => has(&self.v4, address.to_bits()),
                IpAddr::V6(address) => has(&self.v6, address.to_bits()),
            }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        let listed: Vec<IpNet> = networks.into_iter().map(canonical).collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &listed {
            match network {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        Self { v4: joined(v4), v6: joined(v6), listed }
    }
}

/// As the file lists them.
impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listed.fmt(f)
    }
}

fn has<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|index| address <= ranges[index].1)
}

/// Ranges in order, those that overlap as one. Networks overlap only where one holds the other.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
            _ => joined.push(range),
        }
    }
    joined.into()
}

/// A network of IPv4 addresses mapped into IPv6 is the IPv4 network.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V4(_) => None,
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
    };
    mapped.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(network, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn an_address_is_in_a_network_up_to_both_of_its_ends() {
        let list = networks(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "::ffff:198.51.100.0/120"]);
        for (address, is_in) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.2.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:192.0.2.7", true),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::1", false),
            ("198.51.100.255", true),
            ("198.51.101.0", false),
        ] {
            assert_eq!(list.contains(address.parse().unwrap()), is_in, "{address}");
        }
        let all = networks(&["0.0.0.0/0"]);
        assert!(all.contains([255, 255, 255, 255].into()) && !all.contains("::1".parse().unwrap()));
        assert!(!Networks::default().contains([10, 0, 0, 1].into()) && Networks::default().is_empty());
    }

    proptest! {
        #[test]
        fn a_list_has_what_any_of_its_networks_has(
            list in proptest::collection::vec((0_u32..1 << 6, 24_u8..=32), 0..20),
            address in 0_u32..1 << 6,
        ) {
            // Close together, so that they meet.
            let near = |bits: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 | bits << 4);
            let list: Vec<IpNet> =
                list.into_iter().map(|(bits, len)| IpNet::new(near(bits).into(), len).unwrap()).collect();
            let address = IpAddr::from(near(address));
            let any = list.iter().any(|network| network.contains(&address));
            prop_assert_eq!(list.iter().copied().collect::<Networks>().contains(address), any);
            let v6: Vec<IpNet> = list.iter().map(|network| {
                let IpAddr::V4(v4) = network.addr() else { unreachable!() };
                IpNet::new(std::net::Ipv6Addr::from_bits(u128::from(v4.to_bits()) << 90).into(), network.prefix_len() + 6).unwrap()
            }).collect();
            let IpAddr::V4(v4) = address else { unreachable!() };
            let address = IpAddr::from(std::net::Ipv6Addr::from_bits(u128::from(v4.to_bits()) << 90));
            let any = v6.iter().any(|network| network.contains(&address));
            prop_assert_eq!(v6.into_iter().collect::<Networks>().contains(address), any);
        }
    }
}
