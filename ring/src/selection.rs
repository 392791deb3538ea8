//! How far one request has come in looking for a member.

use crate::candidates::{Candidates, Seen};
use crate::hash::{Hash, mix};
use crate::pick_context::PickContext;
use crate::slot::Slot;
use crate::stage::Stage;

/// How far one request has come in looking for a member. Kept for its retries.
#[derive(Debug, Clone)]
pub struct Selection {
    pub(crate) context: PickContext,
    pub(crate) candidates: Candidates,
    pub(crate) stage: Stage,
    /// Index of the level in which the key is at home.
    pub(crate) home: u8,
    /// Index of the level that `candidates` are of: the two change together only.
    level: u8,
    /// Levels that the search has left, as bits.
    pub(crate) visited: u16,
    pub(crate) owner: Option<Slot>,
    /// Members that were given.
    pub(crate) tried: Seen,
    pub(crate) spills: u32,
    pub(crate) skipped: u32,
    /// Numbers drawn in this stage.
    pub(crate) draws: u32,
    /// Numbers drawn before.
    drawn: u32,
    /// As in [`Found`](crate::stage::Found), from the level's first look.
    pub(crate) ramped: bool,
    /// As in [`Found`](crate::stage::Found), from the level's first look.
    pub(crate) doubted: bool,
    /// A member, of any level, had no room.
    pub(crate) full: bool,
}

impl Selection {
    #[inline]
    pub(crate) fn new(context: PickContext, home: u8, candidates: Candidates, stage: Stage) -> Self {
        Self {
            context,
            candidates,
            stage,
            home,
            level: home,
            visited: 0,
            owner: None,
            tried: Seen::default(),
            spills: 0,
            skipped: 0,
            draws: 0,
            drawn: 0,
            ramped: false,
            doubted: false,
            full: false,
        }
    }

    /// Goes to the beginning of a level's candidate sequence.
    pub(crate) fn enter(&mut self, level: u8, candidates: Candidates, stage: Stage) {
        (self.level, self.candidates, self.stage) = (level, candidates, stage);
        (self.drawn, self.draws) = (self.drawn + self.draws, 0);
    }

    /// A number of its own for each call, drawn by chance.
    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        mix(self.number())
    }

    /// A number of its own for each call; it still has to be mixed.
    #[inline]
    pub(crate) fn number(&mut self) -> u64 {
        self.draws += 1;
        let number = u64::from(self.drawn + self.draws);
        self.context.chance.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Index of the level that is looked at.
    #[inline]
    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// The key's owner: the first of its candidate sequence, whatever its health. `None` before the first step.
    #[must_use]
    pub fn owner(&self) -> Option<Slot> {
        self.owner
    }

    /// Members that were passed over because of the bound.
    #[must_use]
    pub fn spills(&self) -> u32 {
        self.spills
    }

    /// The member that has the key, wherever it stands in the sequence, has no room.
    pub fn handle_spill(&mut self) {
        self.spills += 1;
    }

    /// Members that were passed over because of health, drain, ramps or shedding.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// The hash that the candidate sequence follows.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.context.hash
    }

    /// Whether members have been given already: they are not given again, whatever room they have.
    #[must_use]
    pub fn has_tried(&self) -> bool {
        self.tried.len() > 0
    }

    /// The members that were given: they are not given again.
    pub fn tried(&self) -> impl Iterator<Item = Slot> {
        self.tried.iter().map(Slot)
    }

    /// Whether the key was spread over several owners because it is hot.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        self.context.owners > 1
    }
}
