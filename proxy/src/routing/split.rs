//! Which target of a split a request goes to.

use super::affinity_cookie;
use super::hash_key::{self, KeyInput};
use crate::worker::{View, Worker};
use ringway_config::model::Route;
use ringway_message::RequestHead;

/// The service that a route leads to.
pub(crate) struct Target {
    pub(crate) service: usize,
    /// The split target whose cookie is to hold the client: it was drawn by chance, and its service sets no cookie itself.
    pub(crate) hold: Option<usize>,
}

/// The service of a route: of a split, the target that the key falls into; without a key, the one that a cookie holds the client in, or
/// chance.
pub(crate) fn target_of(
    route: &Route,
    view: &View,
    input: &KeyInput<'_>,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
    worker: &Worker,
) -> Target {
    let Some(split) = &route.split else { return Target { service: route.service, hold: None } };
    let keyed = hash_key::extract(&split.key, input, key_bytes);
    if !keyed && let Some(index) = affinity_cookie::held_target(split, input.buffer, head) {
        return Target { service: split.targets[index].service, hold: None };
    }
    let hash = if keyed { ringway_ring::hash_key(key_bytes, 0) } else { worker.random() };
    let targets = split.targets.iter().map(|target| (target.salt, target.weight));
    let Some(index) = ringway_ring::choose_split_target(hash, targets) else {
        return Target { service: route.service, hold: None };
    };
    let service = split.targets[index].service;
    let sets_own = || view.services[service].service.config.affinity_cookie.is_some();
    Target { service, hold: (!keyed && !sets_own()).then_some(index) }
}
