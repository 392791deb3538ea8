//! How a request goes from member to member: the state machine of [`Stage`] is driven here, and looks at members for it.
//!
//! The looks are in `keyed` (along a key's candidate sequence), `weighted` (drawn by weight) and `least_loaded`.

use super::{ALL_KEYS, BackendSet, LEVEL_SALT, Level, MemberState, Pick, PickContext};
use crate::candidates::Seen;
use crate::hash::{Hash, mix};
use crate::selection::Selection;
use crate::slot::Slot;
use crate::stage::{Found, Next, Stage};
use crate::sum::Sum;
use std::sync::atomic::Ordering::Relaxed;

impl BackendSet {
    /// Begins to look for a member.
    #[inline]
    #[must_use]
    pub fn begin(&self, ask: PickContext) -> Selection {
        let home = self.home(ask.hash);
        let candidates = self.levels[home].policy.begin(ask.hash);
        let stage = if ask.owners > 1 && self.policy.hashes() { Stage::HotOwners } else { Stage::Strict };
        Selection::new(ask, home as u8, candidates, stage)
    }

    /// The level in which a key is at home: the same key always in the same, as long as shares stand.
    #[inline]
    pub(super) fn home(&self, hash: Hash) -> usize {
        if self.levels.len() == 1 {
            return 0;
        }
        let place = (mix(hash ^ LEVEL_SALT) >> 48) as u32;
        debug_assert!(place < ALL_KEYS);
        let home = self.levels.iter().position(|level| place < level.up_to.load(Relaxed));
        home.unwrap_or(self.levels.len() - 1)
    }

    /// Looks from the beginning again, because a wait may have made room. Members that were tried stay tried.
    pub fn restart(&self, selection: &mut Selection) {
        selection.visited = 0;
        (selection.spills, selection.skipped) = (0, 0);
        (selection.ramped, selection.doubted, selection.full) = (false, false, false);
        self.enter(selection, selection.home, Stage::Strict);
    }

    /// Looks from the beginning again, and members that were given may be given again.
    pub fn forgive(&self, selection: &mut Selection) {
        selection.tried = Seen::default();
        self.restart(selection);
    }

    /// Looks from the beginning for what another set has looked for before; `tried` are the slots here of those that were given
    /// there.
    #[must_use]
    pub fn begin_again(&self, before: &Selection, tried: impl IntoIterator<Item = Slot>) -> Selection {
        // A request that came with a key has drawn no number, and may need one here.
        let chance = if before.context.chance == 0 { mix(before.context.hash) } else { before.context.chance };
        let mut selection = self.begin(PickContext { chance, ..before.context });
        for slot in tried {
            if !selection.tried.contains(slot.0) {
                selection.tried.insert(slot.0, self.members.len());
            }
        }
        selection
    }

    /// A member that was given has turned out to have no room, for a reason that is not known here. Its place is to be given back;
    /// it counts as full, not as tried: after a [`BackendSet::restart`] it may be given again.
    pub fn handle_full(&self, selection: &mut Selection, slot: Slot) {
        self.pass_over(&self.levels[usize::from(selection.level())], selection, slot);
        // No candidate sequence passes it by: it would be given for ever.
        if selection.stage == Stage::LeastLoaded {
            return;
        }
        selection.tried.remove(slot.0);
    }

    /// Begins a stage in a level: a candidate sequence is of the level that it was begun in, and of no other.
    fn enter(&self, selection: &mut Selection, level: u8, stage: Stage) {
        let candidates = self.levels[usize::from(level)].policy.begin(selection.context.hash);
        selection.enter(level, candidates, stage);
    }

    /// The next member that takes the request, its place reserved. `shard` is the calling worker's index.
    ///
    /// Called again after a member has failed, it goes on where it was: never to the same member twice.
    #[inline]
    pub fn next(&self, selection: &mut Selection, shard: usize) -> Pick {
        loop {
            match selection.stage {
                Stage::HotOwners => {
                    if let Some(pick) = self.try_hot_owner(selection, shard) {
                        return pick;
                    }
                }
                Stage::Strict | Stage::Relaxed | Stage::Panic | Stage::OverBound => {
                    let level = &self.levels[usize::from(selection.level())];
                    let load = self.shared_load(level);
                    while let Some(slot) = self.candidate(level, selection, load) {
                        if let Some(pick) = self.try_member(level, selection, slot, load, shard) {
                            return pick;
                        }
                    }
                    self.advance(selection);
                }
                Stage::LeastLoaded => return self.least_loaded(selection, shard),
                Stage::Exhausted => return if selection.full { Pick::AllFull } else { Pick::None },
            }
        }
    }

    /// Looks at a hot key's owners, once: whether one of them is had or not, the key's own candidate sequence follows.
    fn try_hot_owner(&self, selection: &mut Selection, shard: usize) -> Option<Pick> {
        let level = &self.levels[usize::from(selection.level())];
        let owner = self.hot_owner(level, selection);
        selection.stage = Stage::HotOwners.follow(Found::default(), self.all_full).stage();
        self.try_member(level, selection, owner?, self.shared_load(level), shard)
    }

    /// Reserves a place on the member, or notes that it has none.
    #[inline]
    fn try_member(
        &self,
        level: &Level,
        selection: &mut Selection,
        slot: Slot,
        load: u64,
        shard: usize,
    ) -> Option<Pick> {
        let member = &self.members[usize::from(slot.0)];
        let Some(sum) = member.load.reserve(self.cap_now(level, member, load, selection)) else {
            self.pass_over(level, selection, slot);
            return None;
        };
        Some(self.reserved(selection, slot, sum, shard))
    }

    /// One step of the state machine: a look has found no member (left).
    #[cold]
    fn advance(&self, selection: &mut Selection) {
        let visited = selection.visited | 1 << selection.level();
        let other_level = (0..self.levels.len() as u8).find(|level| visited >> level & 1 == 0);
        let next = selection.stage.follow(self.found(selection, other_level.is_some()), self.all_full);
        let before = selection.stage.left(self.levels_left(selection));
        match (next, other_level) {
            (Next::Continue(stage) | Next::End(stage), _) => selection.stage = stage,
            (Next::SameLevel(stage), _) => self.enter(selection, selection.level(), stage),
            (Next::OtherLevel(stage), Some(level)) => {
                selection.visited = visited;
                (selection.ramped, selection.doubted) = (false, false);
                self.enter(selection, level, stage);
            }
            // Nothing is there to go on with: it is followed only where a level is left.
            (Next::OtherLevel(_), None) => selection.stage = Stage::Exhausted,
            (Next::AllLevels(stage), _) => {
                // Asked again, for a retry, it is full only if a member still has no room.
                (selection.visited, selection.full) = (0, false);
                (selection.ramped, selection.doubted) = (false, false);
                self.enter(selection, selection.home, stage);
            }
        }
        debug_assert!(
            selection.stage.left(self.levels_left(selection)) < before,
            "invariant: each step leaves less to do: {next:?} after {before:?}"
        );
    }

    /// What the look that is over came upon.
    fn found(&self, selection: &Selection, level_left: bool) -> Found {
        let level = &self.levels[usize::from(selection.level())];
        // Looks of policies without a candidate sequence say nothing of the members that they pass over.
        let doubted = if selection.stage == Stage::Strict && !level.policy.has_sequence() {
            self.any_doubted(level, selection)
        } else {
            selection.doubted
        };
        Found { ramped: selection.ramped, doubted, level_left, full: selection.full }
    }

    /// Levels that the search has not left.
    fn levels_left(&self, selection: &Selection) -> u32 {
        self.levels.len() as u32 - selection.visited.count_ones()
    }

    /// What the member may carry in the stage that the selection is in.
    #[inline]
    pub(super) fn cap_now(&self, level: &Level, member: &MemberState, load: u64, selection: &Selection) -> u32 {
        if selection.stage == Stage::OverBound { member.requests_max() } else { self.cap_of(level, member, load) }
    }

    /// Notes that a member has no room. Policies without a candidate sequence have to be told not to choose it again.
    #[cold]
    pub(super) fn pass_over(&self, level: &Level, selection: &mut Selection, slot: Slot) {
        if !level.policy.has_sequence() && !selection.candidates.seen().contains(slot.0) {
            selection.candidates.seen_mut().insert(slot.0, self.members.len());
        }
        if matches!(selection.stage, Stage::HotOwners | Stage::Strict) {
            selection.spills += 1;
            self.members[usize::from(slot.0)].load.handle_full();
        }
        selection.full = true;
    }

    #[inline]
    pub(super) fn reserved(&self, selection: &mut Selection, slot: Slot, sum: Sum, shard: usize) -> Pick {
        self.total.add(sum, shard, 1);
        selection.tried.insert(slot.0, self.members.len());
        Pick::Backend(slot)
    }

    /// Whether a member of the level that is believed to be down has not been tried.
    pub(super) fn any_doubted(&self, level: &Level, selection: &Selection) -> bool {
        let all_doubted = level.all_doubted.load(Relaxed);
        let mut members = level.slots.iter().map(|&slot| (slot, &self.members[usize::from(slot)]));
        members.any(|(slot, member)| {
            member.effective_weight() > 0
                && (all_doubted || member.load.is_doubted())
                && !selection.tried.contains(slot)
        })
    }
}
