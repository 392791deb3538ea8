//! Which target of a split a request goes to.

use super::affinity_cookie;
use super::hash_key::{self, KeyInput};
use crate::worker::{View, Worker};
use ringway_config::model::{Route, Split};
use ringway_message::RequestHead;

/// The service that a route leads to.
pub(crate) struct Target {
    pub(crate) service: usize,
    /// The split target whose cookie is to hold the client: it was drawn by chance, and its service sets no cookie itself.
    pub(crate) hold: Option<usize>,
}

/// How a split finds the target of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// By the hash of a key.
    Keyed(u64),
    /// A cookie holds the client in the target with this index.
    Held(usize),
    /// By chance.
    Chance,
}

impl Choice {
    /// `key_bytes` gets the key, where there is one.
    pub(crate) fn of(split: &Split, input: &KeyInput<'_>, head: &RequestHead, key_bytes: &mut Vec<u8>) -> Self {
        if hash_key::extract(&split.key, input, key_bytes) {
            return Self::Keyed(ringway_ring::hash_key(key_bytes, 0));
        }
        affinity_cookie::held_target(split, input.buffer, head).map_or(Self::Chance, Self::Held)
    }
}

/// The target that a hash falls into; `None`: none has any weight.
pub(crate) fn fall(split: &Split, hash: u64) -> Option<usize> {
    ringway_ring::choose_split_target(hash, split.targets.iter().map(|target| (target.salt, target.weight)))
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
    let (hash, keyed) = match Choice::of(split, input, head, key_bytes) {
        Choice::Held(index) => return Target { service: split.targets[index].service, hold: None },
        Choice::Keyed(hash) => (hash, true),
        Choice::Chance => (worker.random(), false),
    };
    let Some(index) = fall(split, hash) else {
        return Target { service: route.service, hold: None };
    };
    let service = split.targets[index].service;
    let sets_own = || view.services[service].service.config.affinity_cookie.is_some();
    Target { service, hold: (!keyed && !sets_own()).then_some(index) }
}
