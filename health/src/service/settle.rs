//! What follows for all shares from what is known of each backend.

use super::{EVENTS_MAX, ServiceHealth};
use crate::event::{Event, EventKind};
use crate::levels::{self, LevelHealth};
use crate::params::PanicMode;
use std::time::Instant;

impl ServiceHealth {
    /// Each member's own share anew, and what its level has of it.
    fn levels_of_members(&mut self, now: Instant) -> Vec<LevelHealth> {
        let mut levels: Vec<LevelHealth> = Vec::with_capacity(1);
        for member in &mut self.members {
            member.update_share(now);
            let at = match levels.binary_search_by_key(&member.level, |level| level.level) {
                Ok(at) => at,
                Err(at) => {
                    levels.insert(at, LevelHealth { level: member.level, ..LevelHealth::default() });
                    at
                }
            };
            // A part of a weight that is asked for is like a smaller weight: it makes no level less healthy.
            levels[at].weight += member.weight_asked();
            levels[at].healthy += if member.is_healthy() { member.weight_asked() } else { 0 };
            levels[at].built_for += member.weight_built_for(now);
            levels[at].carried += member.weight_carried();
        }
        levels
    }

    /// Works out all shares, those of the levels, and whether there is panic.
    pub(super) fn settle(&mut self, now: Instant) {
        let levels = self.levels_of_members(now);
        let (shares, suffices) = levels::shares(&levels, self.params.overprovisioning_percent);
        let threshold = u64::from(self.params.panic_threshold_percent);
        // A level of no weight is none that lacks any.
        let panics = |level: &LevelHealth| level.healthy * 100 < threshold * level.weight;
        // Several levels that together can carry everything need no panic; one stands for itself.
        let lacking = levels.iter().filter(|level| panics(level) && (levels.len() == 1 || !suffices));
        self.lacking.clear();
        self.lacking.extend(lacking.copied());
        let panic = !self.lacking.is_empty();
        if panic != self.panic {
            self.panic = panic;
            let kind = if panic { EventKind::PanicBegan } else { EventKind::PanicEnded };
            if self.events.len() < EVENTS_MAX {
                self.events.push_back(Event { id: String::new(), kind });
            }
        }
        self.changed |= shares != self.levels;
        self.levels = shares;
        let mut outlasted = Vec::new();
        let mut next_move = None;
        for (index, member) in self.members.iter_mut().enumerate() {
            // In panic the unhealthy take their keys back; the healthy keep their ramps, and what drains goes on draining.
            let in_panic = self.lacking.iter().any(|level| level.level == member.level);
            let share = match (in_panic, self.params.panic_mode) {
                (true, PanicMode::Fail) => 0,
                (true, PanicMode::All) if !member.is_healthy() => member.share_if_healthy(now),
                _ => member.own_share,
            };
            let doubted = !member.is_healthy();
            let last_resort = member.may_be_last_resort();
            let kept = member.keeps_clients;
            let keeping_changed = member.update_keeping(self.params.keep_clients, now);
            if keeping_changed && kept && member.has_kept_long_enough(self.params.keep_clients, now) {
                outlasted.push(index);
            }
            self.changed |= share != member.share || doubted != member.doubted || keeping_changed;
            self.changed |= last_resort != member.last_resort;
            (member.doubted, member.last_resort) = (doubted, last_resort);
            member.share = share;
            next_move = [next_move, member.next_move(self.params.keep_clients, now)].into_iter().flatten().min();
        }
        self.next_move = next_move;
        for index in outlasted {
            self.tell(index, EventKind::ClientsMoved);
        }
    }
}
