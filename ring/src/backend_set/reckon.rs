//! What a set works out of its members when active fractions change: which of them share the load, which part of its keys each takes, and how
//! keys are divided among levels.

use super::{ALL_KEYS, BackendSet, Level, MemberState, accept};
use crate::load::{FULL_SHARE, Load};
use crate::sum::{LEVELS_MAX, Sum};
use crate::total::InForce;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl BackendSet {
    /// Puts the set into force: from now on caps, also those of sets of before, are worked out over its members. Requests on
    /// other members count for none of these.
    pub fn install(&self) {
        let mut in_force = self.total.in_force();
        let loads: Vec<Arc<Load>> = self.members.iter().map(|member| Arc::clone(&member.load)).collect();
        let mut mine: Vec<*const Load> = loads.iter().map(Arc::as_ptr).collect();
        mine.sort_unstable();
        let gone = in_force.loads.iter().filter(|load| mine.binary_search(&Arc::as_ptr(load)).is_err());
        gone.for_each(|load| self.total.count_in(load, Sum::ELSEWHERE));
        *in_force = InForce { group: self.number, loads };
        self.reckon();
    }

    /// Works out anew which members share the load. Call it after any active fraction has changed. Of a set that is not in force it
    /// does nothing.
    pub fn refresh(&self) {
        let in_force = self.total.in_force();
        if in_force.group == self.number {
            self.reckon();
        }
    }

    /// Under the total's lock, so that no two sets mix.
    fn reckon(&self) {
        let key = |member: &MemberState| self.levels[usize::from(member.level)].key;
        // In panic those that are up share the load while there are any: the others are asked, but not relied on.
        let mut is_up = [false; LEVELS_MAX];
        for member in self.members.iter().filter(|member| member.effective_weight() > 0) {
            is_up[usize::from(key(member))] |= !member.load.is_doubted();
        }
        let mut eligible = [0; LEVELS_MAX];
        for member in &self.members {
            let key = key(member);
            let counts = !(member.load.is_doubted() && is_up[usize::from(key)]);
            let weight = if counts { member.effective_weight() } else { 0 };
            eligible[usize::from(key)] += weight;
            self.total.count_in(&member.load, if weight > 0 { Sum::of_level(key) } else { Sum::ELSEWHERE });
        }
        self.total.set_eligible(eligible);
        for level in &self.levels {
            let is_present = |member: &MemberState| {
                member.effective_weight() > 0 && !(member.load.is_doubted() && is_up[usize::from(level.key)])
            };
            let members = || level.slots.iter().map(|&slot| &self.members[usize::from(slot)]);
            if level.policy.follows_weights() {
                let weights = members().map(|member| if is_present(member) { member.effective_weight() } else { 0 });
                level.policy.set_weights(&weights.collect::<Vec<_>>());
            }
            level.all_doubted.store(!is_up[usize::from(level.key)], Relaxed);
            let present: Vec<&MemberState> = members().filter(|member| is_present(member)).collect();
            let shares =
                present.iter().map(|member| (f64::from(member.weight), f64::from(member.load.active_fraction())));
            let accepts = accept::shares(&shares.collect::<Vec<_>>(), self.policy.hashes());
            for (member, accept) in present.iter().zip(accepts) {
                member.load.set_accept((accept * f64::from(FULL_SHARE)).round().max(1.0) as u16);
            }
        }
    }

    /// Divides the keys among the levels: for each level's key the share, 0 to 1, that has its home there. Levels that are
    /// not named have none; what the shares leave goes to the last level.
    pub fn set_level_shares(&self, shares: &[(u8, f64)]) {
        let mut sum = 0.0;
        for level in &self.levels {
            sum += shares.iter().find(|(key, _)| *key == level.key).map_or(0.0, |(_, share)| *share);
            level.up_to.store(((sum * f64::from(ALL_KEYS)).round() as u32).min(ALL_KEYS), Relaxed);
        }
    }

    /// Share of the keys that has its home in each level, with the level's key, most preferred first.
    #[must_use]
    pub fn level_shares(&self) -> Vec<(u8, f64)> {
        let mut before = 0;
        let last = self.levels.len() - 1;
        let share = |(index, level): (usize, &Level)| {
            let up_to = if index == last { ALL_KEYS } else { level.up_to.load(Relaxed).max(before) };
            let share = f64::from(up_to - before) / f64::from(ALL_KEYS);
            before = up_to;
            (level.key, share)
        };
        self.levels.iter().enumerate().map(share).collect()
    }
}
