//! What a set says of itself: where keys belong when all are healthy, which share each member has, how large it is.

use super::{BackendSet, Level, MemberState};
use crate::hash::{Hash, mix};
use crate::load::FULL_SHARE;
use crate::params::PolicyParams;
use crate::policy::Policy;
use crate::ring::Ring;
use crate::slot::Slot;
use crate::stage::Stage;

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
        let home = self.home(hash);
        let order = std::iter::once(home).chain((0..self.levels.len()).filter(move |&level| level != home));
        let mut sequence = Vec::with_capacity(self.members.len());
        for level in order.map(|level| &self.levels[level]) {
            if !self.policy.hashes() {
                break;
            }
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
