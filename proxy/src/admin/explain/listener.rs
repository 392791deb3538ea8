//! Which listener a request comes to.

use super::described::{Described, DescribedError};
use ringway_config::model::{Config, Listener, Protocol};
use std::collections::HashMap;
use std::net::SocketAddr;

/// The listener that gets it: the one that is named; else the only one that speaks HTTP, or the one at the port of its host.
pub(super) fn listener_of(
    config: &Config,
    bound: &HashMap<String, SocketAddr>,
    described: &Described,
) -> Result<usize, DescribedError> {
    let names = |list: Vec<&Listener>| list.into_iter().map(|listener| listener.name.clone()).collect();
    let position = |wanted: &Listener| config.listeners.iter().position(|listener| std::ptr::eq(listener, wanted));
    let all: Vec<&Listener> = config.listeners.iter().collect();
    if let Some(wanted) = &described.listener {
        let found = config.listeners.iter().position(|listener| listener.name == *wanted);
        return found.ok_or_else(|| DescribedError::NoListener { wanted: wanted.clone(), names: names(all) });
    }
    let speaks_http = |listener: &&Listener| matches!(listener.protocol, Protocol::Http(_));
    let http: Vec<&Listener> = config.listeners.iter().filter(speaks_http).collect();
    let port = |listener: &Listener| bound.get(&listener.name).unwrap_or(&listener.address).port();
    let at_port = |wanted: u16| http.iter().copied().filter(|listener| port(listener) == wanted).collect::<Vec<_>>();
    let candidates = match described.port().map(at_port) {
        Some(at_port) if !at_port.is_empty() => at_port,
        _ => http,
    };
    match candidates.as_slice() {
        [only] => position(only).ok_or_else(|| DescribedError::SeveralListeners(names(all))),
        [] if all.len() == 1 => Ok(0),
        [] => Err(DescribedError::SeveralListeners(names(all))),
        _ => Err(DescribedError::SeveralListeners(names(candidates))),
    }
}
