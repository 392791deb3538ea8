//! A service that proxies report of, by the ring that they have: what they see of it, and the tables that follow.

use super::load_members::{Members, RingVotes, Settled};
use super::load_size::Room;
use super::load_votes::Votes;
use crate::loads::{Position, RingTable, ServiceLoad};
use ringway_ring::{FleetLoads, FleetParams, FleetTable, FleetTotals};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Rings of a service that have a table: one for each zone, twice while a change is on its way.
pub(super) const RINGS_MAX: usize = 32;

/// See the module.
#[derive(Default)]
pub(super) struct LoadRings {
    pub(super) rings: BTreeMap<u64, LoadRing>,
}

/// What is known of a service whose proxies have this ring.
pub(super) struct LoadRing {
    pub(super) loads: FleetLoads,
    pub(super) heard: Instant,
    /// It is one of those that have a table.
    pub(super) has_table: bool,
    settled: Settled,
    params: Arc<FleetParams>,
    revision: u64,
    /// Where what was adopted has come from: a proxy without a table comes before all that have one.
    adopted: Option<Option<Position>>,
}

impl LoadRings {
    /// Has rings of which proxies tell different members have those that they are to have: `known`, where the topology has it, or those of most.
    pub(super) fn settle(
        &mut self,
        votes: Option<&BTreeMap<u64, RingVotes<'_>>>,
        known: impl Fn() -> Option<Members>,
        room: &mut Room,
        now: Instant,
    ) {
        for (digest, ring) in &mut self.rings {
            let Some(votes) = votes.and_then(|votes| votes.get(digest)) else { continue };
            let is_new = ring.loads.wants_table();
            if let Some(members) = ring.settled.poll(votes, &known, is_new, now)
                && room.exchange(ring.members().count, members.count)
            {
                ring.have(members);
            }
        }
    }

    /// The tables that are new, by ring.
    pub(super) fn step(
        &mut self,
        votes: Option<&BTreeMap<u64, RingVotes<'_>>>,
        position: Position,
        millis: u64,
        now: Instant,
    ) -> Vec<(u64, RingTable)> {
        let totals = self.totals(millis);
        let chosen = self.chosen(votes);
        let mut tables = Vec::new();
        for (digest, ring) in &mut self.rings {
            let is_chosen = chosen.contains(digest);
            ring.has_table &= is_chosen;
            let votes = votes.and_then(|votes| votes.get(digest)?.get(&ring.members()));
            let Some(votes) = votes.filter(|_| is_chosen) else { continue };
            if let Some(params) = votes.params(&ring.params) {
                ring.params = Arc::clone(params);
            }
            let Some(totals) = totals.get(&ring.members()) else { continue };
            let changed = ring.loads.step_among(&ring.params, totals, millis);
            // Until its first step the table of before holds.
            if ring.loads.wants_table() || !changed && ring.has_table {
                continue;
            }
            (ring.heard, ring.has_table) = (now, true);
            let table = Arc::new(FleetTable::clone(ring.loads.table()));
            tables.push((*digest, RingTable { revision: ring.revision, position, table }));
        }
        tables
    }

    /// What the members get by all rings that are made of them.
    fn totals(&mut self, millis: u64) -> BTreeMap<Members, FleetTotals> {
        let mut totals: BTreeMap<Members, FleetTotals> = BTreeMap::new();
        for ring in self.rings.values_mut() {
            ring.loads.smooth(millis);
            let members = ring.members();
            totals.entry(members).or_insert_with(|| FleetTotals::new(members.count)).add(&ring.loads);
        }
        totals
    }

    /// Those that may have a table: of most proxies; of as many, those that have one already, and then those of the latest revision.
    fn chosen(&self, votes: Option<&BTreeMap<u64, RingVotes<'_>>>) -> Vec<u64> {
        let mut rings: Vec<_> = self.rings.iter().collect();
        if rings.len() > RINGS_MAX {
            let count = |digest: &u64, ring: &LoadRing| {
                votes.and_then(|votes| votes.get(digest)?.get(&ring.members())).map_or(0, Votes::count)
            };
            rings.sort_by_key(|(digest, ring)| Reverse((count(digest, ring), ring.has_table, ring.revision)));
        }
        rings.into_iter().take(RINGS_MAX).map(|(digest, _)| *digest).collect()
    }
}

impl LoadRing {
    /// Goes on from the table of this ring that is known here.
    pub(super) fn new(service: &ServiceLoad, before: Option<(Position, &Arc<FleetTable>)>, now: Instant) -> Self {
        let members = Members::of(service);
        let mut loads = FleetLoads::new(members.count);
        if let Some((_, table)) = before {
            loads.adopt(FleetTable::clone(table));
        }
        let adopted = before.map(|(position, _)| Some(position));
        Self {
            loads,
            heard: now,
            has_table: before.is_some(),
            settled: Settled::new(members),
            params: Arc::new(service.params),
            revision: service.revision,
            adopted,
        }
    }

    /// Rings with the same load the same members.
    pub(super) fn members(&self) -> Members {
        self.settled.members
    }

    /// It has other members from now on: what was reported is of others, and so is what each shed, unless they are as many. Of who had
    /// the place of a member nothing is known otherwise.
    fn have(&mut self, members: Members) {
        let table = FleetTable::clone(self.loads.table());
        self.loads = FleetLoads::new(members.count);
        self.has_table &= table.shed.len() == members.count;
        self.loads.adopt(table);
        self.settled.set(members);
    }

    /// What a table of it is made for now.
    pub(super) fn params(&self) -> &Arc<FleetParams> {
        &self.params
    }

    /// A proxy has it at this revision.
    pub(super) fn handle_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Takes what was in force at a proxy, under an earlier leader or for the members that were before, or by what it has seen alone: shares
    /// go on from there. `true`: it is of use, and is to be told.
    pub(super) fn handle_in_force(&mut self, holds: Option<Position>, table: Option<FleetTable>) -> bool {
        if !self.loads.wants_table() || Some(holds) <= self.adopted {
            return false;
        }
        match table.filter(|table| table.shed.len() == self.members().count) {
            Some(table) => {
                self.loads.adopt(table);
                self.adopted = Some(holds);
                false
            }
            None => true,
        }
    }
}
