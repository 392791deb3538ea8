//! A service's backends as requests see them: who is next for this key, and has he room?

use crate::hash::{Hash, mix};
use crate::load::{FULL_SHARE, Load, Total};
use crate::params::{AllFull, BoundParams, PolicyParams};
use crate::ring::{BuildError, Member, Ring, Slot, WEIGHT_MAX};
use crate::round_robin::RoundRobin;
use crate::walk::{Seen, Walk};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A member as a group is built from it.
#[derive(Debug, Clone)]
pub struct GroupMember<'a> {
    /// Stable identity.
    pub id: &'a str,
    /// In percent; 100 is normal, 0 takes nothing.
    pub weight: u32,
    /// Hard limit on its requests in flight; `u32::MAX` is none.
    pub requests_max: u32,
    /// What is known of it right now.
    pub load: Arc<Load>,
}

/// Members, their order, their bound. Immutable but for the loads.
#[derive(Debug)]
pub struct Group {
    order: Order,
    bound: Option<BoundParams>,
    /// In slot order.
    seats: Box<[Seat]>,
    total: Arc<Total>,
    /// Sum over members of weight times lifecycle share: the denominator of every fair share. Ejected, drained and
    /// foreign members are not in it.
    eligible: AtomicU64,
}

#[derive(Debug)]
struct Seat {
    load: Arc<Load>,
    weight: u32,
    requests_max: u32,
}

#[derive(Debug)]
enum Order {
    Ring(Ring),
    RoundRobin(RoundRobin),
}

/// How far one request has come in looking for a member. Kept for its retries.
#[derive(Debug, Clone)]
pub struct Selection {
    hash: Hash,
    walk: Walk,
    stage: Stage,
    owner: Option<Slot>,
    /// Members that were given.
    tried: Seen,
    spills: u32,
    skipped: u32,
    /// Somebody refused the key only because of a ramp or of shedding.
    ramped: bool,
    /// Somebody had no room.
    full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Thresholds and bound.
    Strict,
    /// No thresholds but health and drain; bound.
    Relaxed,
    /// Beyond the bound, as the policy says.
    Forced,
    Over,
}

/// What a step gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// A place is reserved there; give it back by [`Group::release`].
    Backend(Slot),
    /// Members are eligible, but none has room.
    AllFull,
    /// No member is eligible, or all that are have been tried.
    None,
}

impl Group {
    /// Builds a group. Members are put into the order of their ids: their slots.
    ///
    /// # Errors
    /// As [`Ring::build`].
    pub fn build<'a>(
        policy: PolicyParams,
        bound: Option<BoundParams>,
        members: impl IntoIterator<Item = GroupMember<'a>>,
        total: Arc<Total>,
    ) -> Result<Self, BuildError> {
        let mut members: Vec<GroupMember<'a>> = members.into_iter().collect();
        members.sort_by(|a, b| a.id.cmp(b.id));
        let order = match policy {
            PolicyParams::Ring(params) => {
                let members: Vec<Member<'_>> =
                    members.iter().map(|member| Member { id: member.id, weight: member.weight }).collect();
                Order::Ring(Ring::build(&members, params)?)
            }
            PolicyParams::RoundRobin => {
                if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
                    return Err(BuildError::DuplicateId(pair[0].id.to_owned()));
                }
                if let Some(member) = members.iter().find(|member| member.weight > WEIGHT_MAX) {
                    return Err(BuildError::Weight { id: member.id.to_owned(), weight: member.weight });
                }
                if members.len() > usize::from(u16::MAX) {
                    return Err(BuildError::TooManyMembers(members.len()));
                }
                let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
                Order::RoundRobin(RoundRobin::build(&weights))
            }
        };
        let seats = members
            .into_iter()
            .map(|member| Seat { load: member.load, weight: member.weight, requests_max: member.requests_max })
            .collect();
        let group = Self { order, bound, seats, total, eligible: AtomicU64::new(0) };
        group.refresh();
        Ok(group)
    }

    /// Works the denominator out anew. Call it after any lifecycle share has changed.
    pub fn refresh(&self) {
        let eligible = self.seats.iter().map(Seat::claim).sum();
        self.eligible.store(eligible, Relaxed);
    }

    /// Begins to look for a member. `hash` is the key's; without one (round robin) the turn decides.
    #[inline]
    #[must_use]
    pub fn begin(&self, hash: Option<Hash>) -> Selection {
        let (hash, walk) = match &self.order {
            Order::Ring(ring) => {
                let hash = hash.unwrap_or_default();
                (hash, ring.walk(hash))
            }
            Order::RoundRobin(turns) => {
                let (turn, walk) = turns.turn();
                // Ramps take their share of turns as they take their share of keys.
                (hash.unwrap_or_else(|| mix(turn as u64)), walk)
            }
        };
        Selection {
            hash,
            walk,
            stage: Stage::Strict,
            owner: None,
            tried: Seen::default(),
            spills: 0,
            skipped: 0,
            ramped: false,
            full: false,
        }
    }

    /// Looks from the beginning again, because a wait may have made room; who was tried stays tried.
    pub fn restart(&self, selection: &mut Selection) {
        selection.walk = self.walk(selection.hash);
        selection.stage = Stage::Strict;
        (selection.spills, selection.skipped) = (0, 0);
        (selection.ramped, selection.full) = (false, false);
    }

    fn walk(&self, hash: Hash) -> Walk {
        match &self.order {
            Order::Ring(ring) => ring.walk(hash),
            Order::RoundRobin(turns) => turns.turn().1,
        }
    }

    /// The next member that takes the request, its place reserved. `shard` is the calling worker's index.
    ///
    /// Called again after a member has failed, it goes on where it was: never to the same member twice.
    #[inline]
    pub fn next(&self, selection: &mut Selection, shard: usize) -> Pick {
        let sum = self.total.sum();
        loop {
            while let Some(slot) = self.step(&mut selection.walk) {
                if selection.owner.is_none() {
                    selection.owner = Some(slot);
                }
                if selection.tried.contains(slot.0) {
                    continue;
                }
                let seat = &self.seats[usize::from(slot.0)];
                if !seat.load.accepts(selection.hash, selection.stage != Stage::Strict) {
                    if selection.stage == Stage::Strict {
                        selection.skipped += 1;
                        selection.ramped |= seat.load.lifecycle() > 0;
                    }
                    continue;
                }
                let cap = if selection.stage == Stage::Forced { seat.requests_max } else { self.cap_of(seat, sum) };
                if !seat.load.reserve(cap) {
                    if selection.stage == Stage::Strict {
                        selection.spills += 1;
                    }
                    selection.full = true;
                    continue;
                }
                return self.reserved(selection, slot, shard);
            }
            match self.next_stage(selection, shard) {
                Ok(()) => {}
                Err(pick) => return pick,
            }
        }
    }

    /// What follows when a stage's walk is over.
    #[cold]
    fn next_stage(&self, selection: &mut Selection, shard: usize) -> Result<(), Pick> {
        let all_full = self.bound.map_or(AllFull::Reject, |bound| bound.all_full);
        selection.stage = match selection.stage {
            Stage::Strict if selection.ramped => Stage::Relaxed,
            Stage::Strict | Stage::Relaxed if selection.full => match all_full {
                AllFull::Owner => Stage::Forced,
                AllFull::LeastLoaded => {
                    selection.stage = Stage::Over;
                    return Err(self.least_loaded(selection, shard));
                }
                AllFull::Queue | AllFull::Reject => Stage::Over,
            },
            _ => Stage::Over,
        };
        if selection.stage == Stage::Over {
            let pick = if selection.full { Pick::AllFull } else { Pick::None };
            // Asked again, for a retry, there is nobody left.
            selection.full = false;
            return Err(pick);
        }
        selection.walk = self.walk(selection.hash);
        if selection.stage == Stage::Forced {
            selection.full = false;
        }
        Ok(())
    }

    /// The eligible member with the least load for its weight, whatever its cap.
    fn least_loaded(&self, selection: &mut Selection, shard: usize) -> Pick {
        let candidates = || {
            self.seats.iter().enumerate().filter_map(|(index, seat)| {
                let slot = u16::try_from(index).ok()?;
                let good = seat.claim() > 0 && !selection.tried.contains(slot);
                good.then_some((slot, seat))
            })
        };
        let best = candidates()
            .filter(|(_, seat)| seat.load.in_flight() < seat.requests_max)
            .min_by_key(|(_, seat)| u64::from(seat.load.in_flight()) * u64::from(WEIGHT_MAX) / u64::from(seat.weight));
        match best {
            Some((slot, seat)) if seat.load.reserve(seat.requests_max) => self.reserved(selection, Slot(slot), shard),
            _ if candidates().next().is_some() => Pick::AllFull,
            _ => Pick::None,
        }
    }

    fn reserved(&self, selection: &mut Selection, slot: Slot, shard: usize) -> Pick {
        self.total.add(shard, 1);
        selection.tried.insert(slot.0, self.seats.len());
        Pick::Backend(slot)
    }

    /// Gives a place back: the request has ended.
    #[inline]
    pub fn release(&self, slot: Slot, shard: usize) {
        self.seats[usize::from(slot.0)].load.release();
        self.total.add(shard, -1);
    }

    #[inline]
    fn step(&self, walk: &mut Walk) -> Option<Slot> {
        match &self.order {
            Order::Ring(ring) => walk.next(ring),
            Order::RoundRobin(turns) => turns.next(walk),
        }
    }

    /// The load that a member may carry now, the request being placed included.
    #[must_use]
    pub fn cap(&self, slot: Slot) -> u32 {
        self.cap_of(&self.seats[usize::from(slot.0)], self.total.sum())
    }

    /// `max(min_slots, ceil(factor * a + slack * sqrt(a)))`, with `a` the fair share of the load, this request
    /// included; at most `requests_max`.
    #[inline]
    fn cap_of(&self, seat: &Seat, total: u64) -> u32 {
        let Some(bound) = self.bound else { return seat.requests_max };
        let eligible = self.eligible.load(Relaxed);
        if eligible == 0 {
            return bound.min_slots.min(seat.requests_max);
        }
        // Floating point cannot overflow here, and 53 bits are exact far beyond any real load; what rounding adds to
        // a whole number is taken off again before it is rounded up.
        let fair = (total + 1) as f64 * seat.claim() as f64 / eligible as f64;
        let cap = bound.factor * fair + bound.slack * fair.sqrt();
        let cap = (cap * (1.0 - 1e-12)).ceil() as u32;
        cap.max(bound.min_slots).min(seat.requests_max)
    }

    /// The ring, if the policy has one.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        match &self.order {
            Order::Ring(ring) => Some(ring),
            Order::RoundRobin(_) => None,
        }
    }

    /// Shares of all keys (round robin: of all turns) that the members own, in slot order.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        match &self.order {
            Order::Ring(ring) => ring.arcs().into_iter().map(|arc| arc as f64 / (1_u64 << 48) as f64).collect(),
            Order::RoundRobin(_) => {
                let sum = self.seats.iter().map(|seat| f64::from(seat.weight)).sum::<f64>().max(1.0);
                self.seats.iter().map(|seat| f64::from(seat.weight) / sum).collect()
            }
        }
    }

    /// Members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Share of the total weight that is eligible now, 0 to 1.
    #[must_use]
    pub fn eligible_share(&self) -> f64 {
        let all: u64 = self.seats.iter().map(|seat| u64::from(seat.weight) * u64::from(FULL_SHARE)).sum();
        if all == 0 { 0.0 } else { self.eligible.load(Relaxed) as f64 / all as f64 }
    }
}

impl Seat {
    /// Weight times lifecycle share.
    #[inline]
    fn claim(&self) -> u64 {
        u64::from(self.weight) * u64::from(self.load.lifecycle())
    }
}

impl Selection {
    /// The key's owner: the first of its walk, whatever its health. `None` before the first step.
    #[must_use]
    pub fn owner(&self) -> Option<Slot> {
        self.owner
    }

    /// Members that were passed over because of the bound.
    #[must_use]
    pub fn spills(&self) -> u32 {
        self.spills
    }

    /// Members that were passed over because of health, drain, ramps or shedding.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// The hash that the walk follows.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
