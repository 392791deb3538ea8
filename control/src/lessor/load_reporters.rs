//! Proxies that report their loads, and what each has reported last.

use super::load_members::{Members, RingVotes};
use super::load_size::Held;
use crate::loads::Position;
use ringway_ring::FleetParams;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A proxy that has reported of a service within this time has that ring: it may tell of its services in several reports.
pub(super) const LIVE: Duration = Duration::from_secs(2);

/// A proxy that reports.
pub(super) struct Reporter {
    pub(super) instance: u64,
    pub(super) seq: u64,
    pub(super) at: Instant,
    /// Services that it reports of.
    pub(super) services: BTreeMap<String, Told>,
    /// What its reports take here, and the members that they tell of.
    pub(super) held: Held,
    pub(super) holds: Option<Position>,
    pub(super) refused: Option<(Instant, String)>,
}

/// What a proxy has reported of a service last.
pub(super) struct Told {
    pub(super) at: Instant,
    pub(super) digest: u64,
    pub(super) members: Members,
    pub(super) params: Arc<FleetParams>,
    pub(super) held: Held,
}

/// By service and ring, the proxies that have it.
pub(super) fn votes(
    reporters: &BTreeMap<String, Reporter>,
    now: Instant,
) -> BTreeMap<&str, BTreeMap<u64, RingVotes<'_>>> {
    let mut votes: BTreeMap<&str, BTreeMap<u64, RingVotes<'_>>> = BTreeMap::new();
    let live = reporters.values().filter(|reporter| now.saturating_duration_since(reporter.at) < LIVE);
    for (service, told) in live.flat_map(|reporter| &reporter.services) {
        let ring = votes.entry(service).or_default().entry(told.digest).or_default();
        ring.entry(told.members).or_default().add(&told.params);
    }
    votes
}
