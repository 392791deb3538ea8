//! Where a check goes: the backend's address, or two of them, with the address and the port that the check may have of its own.

use super::connection::connect;
use crate::net::happy_eyeballs::{self, Preference, Preferences};
use crate::net::shortage::Shortage;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A backend, as checks find it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Its address of the other family, if it has one, and what is remembered of the two.
    pub(crate) additional: Option<(SocketAddr, Arc<Preferences>)>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        let additional = |target: &Self| target.additional.as_ref().map(|(address, _)| *address);
        self.address == other.address && additional(self) == additional(other)
    }
}

#[cfg(test)]
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, additional: None }
    }
}

impl Target {
    /// Where a check goes that has an address or a port of its own: an address is one, whatever the backend has.
    pub(super) fn checked(&self, ip: Option<IpAddr>, port: Option<u16>) -> Checked<'_> {
        let with_port = |mut address: SocketAddr| {
            address.set_port(port.unwrap_or(address.port()));
            address
        };
        let additional = self.additional.as_ref().filter(|_| ip.is_none()).map(|(address, preferences)| {
            // On another port, another process may listen to other addresses.
            let preference = if port.is_none() { &preferences.traffic } else { &preferences.checks };
            (with_port(*address), preference)
        });
        let mut address = with_port(self.address);
        address.set_ip(ip.unwrap_or(address.ip()));
        Checked { address, additional }
    }
}

/// Where one check goes.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    /// What its Host, and the name in its TLS, go by as well.
    pub(super) address: SocketAddr,
    additional: Option<(SocketAddr, &'a Preference)>,
}

impl Checked<'_> {
    /// Both of them, where there are two.
    pub(super) fn addresses(&self) -> Option<[SocketAddr; 2]> {
        self.additional.map(|(additional, _)| [self.address, additional])
    }
}

/// A connection, to whichever of two addresses takes it first.
pub(super) async fn open_at(checked: Checked<'_>, time: Duration, shortage: &Shortage) -> io::Result<TcpStream> {
    let open = |address| connect(address, time, shortage);
    let Some((additional, preference)) = checked.additional else { return open(checked.address).await };
    let connecting = happy_eyeballs::connect([checked.address, additional], preference, time, open);
    Ok(Box::pin(connecting).await?.0)
}
