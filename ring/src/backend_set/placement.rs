//! What a set says of itself: where keys belong when all are healthy, which share each member has, how large it is.

use super::{BackendSet, Level, MemberState};
use crate::hash::{Hash, mix};
use crate::load::FULL_SHARE;
use crate::params::PolicyParams;
use crate::policy::Policy;
use crate::ring::Ring;
use crate::slot::Slot;
use crate::stage::Stage;

/// What a step round a circle costs, in comparisons: it passes members that were met before.
const STEP_COST: u64 = 20;

impl Level {
    /// What the look at one more member costs, in comparisons of members.
    fn look_cost(&self) -> u64 {
        match &*self.policy {
            Policy::Rendezvous(_) => self.slots.len() as u64,
            _ => STEP_COST,
        }
    }
}

impl BackendSet {
    /// The ring of the most preferred level, if the policy has one.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        match &*self.levels[0].policy {
            Policy::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> PolicyParams {
        self.policy
    }

    pub(crate) fn level_policies(&self) -> impl Iterator<Item = (u8, &Policy, &[u16])> {
        self.levels.iter().map(|level| (level.key, &*level.policy, &*level.slots))
    }

    /// A number that two sets share exactly if they place every key alike when all are healthy. None without keys.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        let mut digests = self.levels.iter().map(|level| level.policy.digest());
        let first = digests.next()??;
        // One level is its own digest; more are folded, their keys included.
        Some(
            self.levels.iter().zip(digests).fold(first, |all, (level, next)| {
                mix(all ^ u64::from(level.key)).wrapping_add(next.unwrap_or_default())
            }),
        )
    }

    /// Whether two sets place every key alike when all are healthy, as their digests say; of rings that are made of each other this
    /// takes no time.
    #[must_use]
    pub fn places_alike(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Level, &Level)| {
            one.key == other.key
                && match (&*one.policy, &*other.policy) {
                    (Policy::Ring(one), Policy::Ring(other)) => one.places_alike(other),
                    (one, other) => one.digest() == other.digest(),
                }
        };
        let keyless = !self.policy.hashes() && !other.policy.hashes();
        keyless || self.levels.len() == other.levels.len() && self.levels.iter().zip(&other.levels).all(alike)
    }

    /// The member that a key belongs to when all are healthy. None without keys.
    #[must_use]
    pub fn owner(&self, hash: Hash) -> Option<Slot> {
        let level = &self.levels[self.home(hash)];
        level.policy.owner(hash).map(|index| Slot(level.slots[usize::from(index.0)]))
    }

    /// The member that takes a key as long as none carries anything: its owner, or where that takes no new keys (it drains, it is down) the
    /// next of its candidate sequence that does. None without keys.
    #[must_use]
    pub fn taker(&self, hash: Hash) -> Option<Slot> {
        self.taker_at_cost(hash, &mut 0)
    }

    /// What it costs at most to find a key's owner, in comparisons of members.
    pub(crate) fn look_cost(&self) -> u64 {
        self.levels.iter().map(Level::look_cost).max().unwrap_or(0)
    }

    /// As [`Self::taker`]; adds what it has cost, in comparisons of members.
    pub(crate) fn taker_at_cost(&self, hash: Hash, cost: &mut u64) -> Option<Slot> {
        let of_owner = self.levels[self.home(hash)].look_cost();
        *cost += of_owner;
        let owner = self.owner(hash).filter(|slot| self.accepts(*slot, hash));
        owner.or_else(|| self.order(hash).find_map(|level| self.taker_of(level, hash, cost)))
    }

    fn taker_of(&self, level: &Level, hash: Hash, cost: &mut u64) -> Option<Slot> {
        let at = |index: usize| Slot(level.slots[index]);
        let mut candidates = level.policy.begin(hash);
        if let Policy::Rendezvous(_) = &*level.policy {
            // Each of its steps looks at all members: those that take nothing are left out beforehand, so that one is enough.
            let weighs = |index: &usize| self.members[usize::from(at(*index).0)].weight > 0;
            let idle = (0..level.slots.len()).filter(weighs).filter(|&index| !self.accepts(at(index), hash));
            idle.for_each(|index| candidates.seen_mut().insert(index as u16, level.slots.len()));
        }
        loop {
            *cost += level.look_cost();
            let index = level.policy.step(&mut candidates, hash, level.slots.len())?;
            let slot = at(usize::from(index.0));
            if self.accepts(slot, hash) {
                return Some(slot);
            }
        }
    }

    /// The levels in the order in which a key goes through them. None without keys.
    fn order(&self, hash: Hash) -> impl Iterator<Item = &Level> {
        let home = self.home(hash);
        let levels = if self.policy.hashes() { self.levels.len() } else { 0 };
        let others = (0..levels).filter(move |&level| level != home);
        std::iter::once(home).take(levels).chain(others).map(|level| &self.levels[level])
    }

    /// Whether every member takes all keys that it owns.
    #[must_use]
    pub(crate) fn takes_all(&self) -> bool {
        self.members.iter().all(|member| member.weight == 0 || member.load.active_fraction() == FULL_SHARE)
    }

    /// The member that a key belongs to when all are healthy, if `keeps` says that it keeps the clients it has although it takes
    /// nothing new. A level of which no member takes anything new is not forgotten for that.
    #[must_use]
    pub fn kept_owner(&self, hash: Hash, keeps: impl Fn(Slot) -> bool) -> Option<Slot> {
        let home = self.home(hash);
        let left = self.levels[..home].iter().filter(|level| self.total.eligible(level.key) == 0);
        let owners = left.chain([&self.levels[home]]).filter_map(|level| {
            let index = level.policy.owner(hash)?;
            Some(Slot(level.slots[usize::from(index.0)]))
        });
        owners.into_iter().find(|slot| keeps(*slot))
    }

    /// A key's whole sequence of members, healthy or not, level after level: what spill, skip and retry follow.
    #[must_use]
    pub fn sequence(&self, hash: Hash) -> Vec<Slot> {
        let mut sequence = Vec::with_capacity(self.members.len());
        for level in self.order(hash) {
            let mut candidates = level.policy.begin(hash);
            while let Some(index) = level.policy.step(&mut candidates, hash, level.slots.len()) {
                sequence.push(Slot(level.slots[usize::from(index.0)]));
            }
        }
        sequence
    }

    /// Whether a member's accept threshold takes a key now: health, drain, ramps and shedding.
    #[must_use]
    pub fn accepts(&self, slot: Slot, hash: Hash) -> bool {
        let member = &self.members[usize::from(slot.0)];
        member.weight > 0 && member.load.accepts(hash, Stage::Strict)
    }

    /// A member's level, by its key.
    #[must_use]
    pub fn level(&self, slot: Slot) -> u8 {
        self.levels[usize::from(self.members[usize::from(slot.0)].level)].key
    }

    /// Shares of all keys (without keys: of all turns) that the members own when all are healthy, in slot order.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.members.len()];
        for (level, (_, of_level)) in self.levels.iter().zip(self.level_shares()) {
            let weights: Vec<u32> = level.slots.iter().map(|&slot| self.members[usize::from(slot)].weight).collect();
            for (&slot, share) in level.slots.iter().zip(level.policy.shares(&weights)) {
                shares[usize::from(slot)] = share * of_level;
            }
        }
        shares
    }

    /// Bytes that the orders take on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.policy.memory_bytes()).sum()
    }

    /// Members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members that take keys now, in any level.
    #[must_use]
    pub fn eligible_members(&self) -> usize {
        self.members.iter().filter(|member| member.effective_weight() > 0).count()
    }

    /// Members that a key may go to: those that take keys now in a level, by the share of the keys that the level has. At least one.
    #[must_use]
    pub fn members_of_a_key(&self) -> usize {
        let eligible = |key: u8| {
            let level = self.levels.iter().filter(|level| level.key == key);
            let members = level.flat_map(|level| level.slots.iter()).map(|&slot| &self.members[usize::from(slot)]);
            members.filter(|member| member.effective_weight() > 0).count() as f64
        };
        let members: f64 = self.level_shares().into_iter().map(|(key, share)| share * eligible(key)).sum();
        (members.round() as usize).max(1)
    }

    /// Share of the total weight that is eligible now, 0 to 1.
    #[must_use]
    pub fn eligible_share(&self) -> f64 {
        let all: u64 = self.members.iter().map(|member| u64::from(member.weight) * u64::from(FULL_SHARE)).sum();
        let eligible: u64 = self.members.iter().map(MemberState::effective_weight).sum();
        if all == 0 { 0.0 } else { eligible as f64 / all as f64 }
    }
}
