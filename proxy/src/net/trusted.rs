//! Trusted networks: the hops in front whose forwarding fields are believed.

use ipnet::IpNet;
use std::net::IpAddr;

/// Whether an address is in one of the networks, which are canonical.
pub(crate) fn is_trusted(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
