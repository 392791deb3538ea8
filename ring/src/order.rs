//! The order in which a level's members are asked: one variant per policy, over the level's own indices.

use crate::hash::Hash;
use crate::maglev::Maglev;
use crate::params::PolicyParams;
use crate::rendezvous::Rendezvous;
use crate::ring::{BuildError, Member, Ring, Slot, WEIGHT_MAX};
use crate::round_robin::RoundRobin;
use crate::walk::Walk;

#[derive(Debug)]
pub(crate) enum Order {
    Ring(Ring),
    Maglev(Maglev),
    Rendezvous(Rendezvous),
    RoundRobin(RoundRobin),
    Drawn(Drawn),
    LeastRequest,
    First,
}

/// Members drawn by weight; of two, the better by [`Preference`].
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) alias: Alias,
    pub(crate) preference: Preference,
}

/// Which of two draws is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    /// One draw, no choice.
    None,
    /// Less load for its weight.
    Load,
    /// Lower mean latency times load.
    Cost { decay_millis: u32 },
}

impl Order {
    /// `members` are sorted by id.
    pub(crate) fn build(policy: PolicyParams, members: &[Member<'_>]) -> Result<Self, BuildError> {
        check(members)?;
        let drawn = |preference| {
            let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
            Self::Drawn(Drawn { alias: Alias::build(&weights), preference })
        };
        Ok(match policy {
            PolicyParams::Ring(params) => Self::Ring(Ring::build(members, params)?),
            PolicyParams::Maglev(params) => Self::Maglev(Maglev::build(members, params)?),
            PolicyParams::Rendezvous(params) => Self::Rendezvous(Rendezvous::build(members, params)),
            PolicyParams::RoundRobin => {
                let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
                Self::RoundRobin(RoundRobin::build(&weights))
            }
            PolicyParams::Random => drawn(Preference::None),
            PolicyParams::PowerOfTwo => drawn(Preference::Load),
            PolicyParams::PeakEwma(params) => drawn(Preference::Cost { decay_millis: params.decay_millis }),
            PolicyParams::LeastRequest => Self::LeastRequest,
            PolicyParams::First => Self::First,
        })
    }

    /// A walk from its beginning.
    #[inline]
    pub(crate) fn begin(&self, hash: Hash) -> Walk {
        match self {
            Self::Ring(ring) => ring.walk(hash),
            Self::Maglev(maglev) => maglev.walk(hash),
            _ => Walk::new(0),
        }
    }

    /// The next member of a walk; for orders that have a place to go from.
    #[inline]
    pub(crate) fn step(&self, walk: &mut Walk, hash: Hash, members: usize) -> Option<Slot> {
        match self {
            Self::Ring(ring) => walk.next(ring),
            Self::Maglev(maglev) => maglev.next(walk),
            Self::Rendezvous(rendezvous) => rendezvous.next(hash, walk.seen_mut()),
            Self::First => walk.step(members, members, members, |position| position as u16),
            Self::RoundRobin(_) | Self::Drawn(_) | Self::LeastRequest => None,
        }
    }

    /// Whether [`Order::step`] gives its members.
    #[inline]
    pub(crate) fn is_walked(&self) -> bool {
        !matches!(self, Self::RoundRobin(_) | Self::Drawn(_) | Self::LeastRequest)
    }

    /// Shares of all keys or turns, by index; `weights` are the members'.
    pub(crate) fn shares(&self, weights: &[u32]) -> Vec<f64> {
        match self {
            Self::Ring(ring) => ring.arcs().into_iter().map(|arc| arc as f64 / (1_u64 << 48) as f64).collect(),
            Self::Maglev(maglev) => {
                let size = maglev.table().len().max(1) as f64;
                maglev.counts().into_iter().map(|count| f64::from(count) / size).collect()
            }
            Self::First => {
                let first = weights.iter().position(|&weight| weight > 0);
                (0..weights.len()).map(|index| if Some(index) == first { 1.0 } else { 0.0 }).collect()
            }
            _ => {
                let sum = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>().max(1.0);
                weights.iter().map(|&weight| f64::from(weight) / sum).collect()
            }
        }
    }

    /// Who of the level's members, by index, takes requests at all. One caller at a time.
    pub(crate) fn set_present(&self, is_present: impl Fn(u16) -> bool) {
        if let Self::RoundRobin(turns) = self {
            turns.set_present(is_present);
        }
    }

    /// The owner of a key; none for policies without keys.
    pub(crate) fn owner(&self, hash: Hash) -> Option<Slot> {
        match self {
            Self::Ring(ring) => ring.owner(hash),
            Self::Maglev(maglev) => maglev.owner(hash),
            Self::Rendezvous(rendezvous) => rendezvous.owner(hash),
            _ => None,
        }
    }

    pub(crate) fn digest(&self) -> Option<u64> {
        match self {
            Self::Ring(ring) => Some(ring.digest()),
            Self::Maglev(maglev) => Some(maglev.digest()),
            Self::Rendezvous(rendezvous) => Some(rendezvous.digest()),
            _ => None,
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.memory_bytes(),
            Self::Maglev(maglev) => maglev.memory_bytes(),
            Self::Rendezvous(rendezvous) => rendezvous.memory_bytes(),
            Self::RoundRobin(turns) => turns.schedule().len() * 4,
            Self::Drawn(drawn) => drawn.alias.entries.len() * 8,
            Self::LeastRequest | Self::First => 0,
        }
    }
}

fn check(members: &[Member<'_>]) -> Result<(), BuildError> {
    if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(BuildError::DuplicateId(pair[0].id.to_owned()));
    }
    if let Some(member) = members.iter().find(|member| member.weight > WEIGHT_MAX) {
        return Err(BuildError::Weight { id: member.id.to_owned(), weight: member.weight });
    }
    if members.len() > usize::from(u16::MAX) {
        return Err(BuildError::TooManyMembers(members.len()));
    }
    Ok(())
}

/// Draws by weight in constant time. Source: Walker 1977, in the form of Vose, "A linear algorithm for generating random
/// numbers with a given distribution", 1991.
#[derive(Debug)]
pub(crate) struct Alias {
    /// The share of its own, of 65536, and who has the rest.
    entries: Box<[(u32, u16)]>,
}

impl Alias {
    pub(crate) fn build(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        if total == 0 {
            return Self { entries: Box::default() };
        }
        let count = weights.len() as u64;
        // In units of total / count: exact, so that nobody of weight 0 is ever drawn.
        let mut left: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * count).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&slot| left[slot] < total);
        let mut entries: Vec<(u32, u16)> = (0..weights.len()).map(|slot| (1 << 16, slot as u16)).collect();
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            // Rounded up: a member's share is never rounded to nothing.
            entries[low] = (((left[low] << 16).div_ceil(total)) as u32, high as u16);
            left[high] -= total - left[low];
            if left[high] < total {
                large.pop();
                small.push(high);
            }
        }
        Self { entries: entries.into() }
    }

    #[inline]
    pub(crate) fn draw(&self, random: u64) -> Option<u16> {
        if self.entries.is_empty() {
            return None;
        }
        // The high half chooses the entry (Lemire 2019, without the rejection: the bias is below 2^-16), the low the part.
        let index = (((random >> 32) * self.entries.len() as u64) >> 32) as usize;
        let (own, other) = self.entries[index];
        Some(if (random & 0xffff) < u64::from(own) { index as u16 } else { other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;

    #[test]
    fn draws_follow_weights_and_never_give_nobody() {
        let weights = [100, 0, 300, 1600, 1];
        let alias = Alias::build(&weights);
        let mut counts = [0_u32; 5];
        for number in 0..400_000 {
            counts[usize::from(alias.draw(mix(number)).unwrap_or(1))] += 1;
        }
        let total: u32 = weights.iter().sum();
        assert_eq!(counts[1], 0);
        for (slot, weight) in weights.into_iter().enumerate() {
            let fair = f64::from(weight) / f64::from(total) * 400_000.0;
            assert!((f64::from(counts[slot]) - fair).abs() <= 4.0 * fair.sqrt() + 40.0, "{slot}: {counts:?}");
        }
        assert_eq!(Alias::build(&[0, 0]).draw(5), None);
    }
}
