//! The search for a member, as a state machine: what a request asks of a member now, and what follows when a look found none.
//!
//! [`Stage`] is the state. A look goes through one level's members and asks of each what the stage says; looks know nothing of
//! what comes after them, and change no stage. When a look has found no member (left), [`Stage::follow`] alone says where the
//! search goes on. It is a pure function of the stage and of what was [`Found`].
//!
//! ```text
//!   begin, key is hot                    begin, restart
//!          |                                   |
//!          v        looked at once             v        only ramps or shedding refused the key
//!      HotOwners --------------------------> Strict ------------------------------------> Relaxed
//!                                            ^ |  \                                       /   |
//!                                            | |   \ members believed down are left      /    |
//!                                            | |    `--------------> Panic <------------'     |
//!                                            | |                       |                      |
//!                     Strict, another level: +-+-----------------------+----------------------+
//!                     a level is left          |
//!                                              | no level is left
//!               +------------------------------+--------------+-----------------------------+
//!               | a member was full:           | a member     | a member was full:          | no member
//!               | owner takes all              | was full:    | queue, reject               | was full
//!               v                              | least loaded |                             |
//!      .-> OverBound, from the home level on   v              v                             v
//!      |      |       |                   LeastLoaded     Exhausted                     Exhausted
//!      `------'       `-> no level left:  (of all levels  ("all full")                  ("none")
//!    a level is left      Exhausted        at once; stays)
//! ```
//!
//! It ends: each arrow makes [`Stage::left`] smaller, and a look gives each member once at most, since members that were given and
//! members that were full are not looked at again.

use crate::params::AllFull;

/// What a request asks of a member: the state of its search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// One of a hot key's owners, below its bound.
    HotOwners,
    /// The key is below the member's accept share, and the member below its bound.
    Strict,
    /// As `Strict`, but ramps and shedding count for nothing.
    Relaxed,
    /// As `Relaxed`, and members that are believed to be down are asked too, because health is not to be relied on.
    Panic,
    /// As `Panic`, but beyond the bound: only hard limits count.
    OverBound,
    /// Of all members below their hard limits, the least loaded.
    LeastLoaded,
    /// There is no member left to ask.
    Exhausted,
}

/// What a look came upon that found no member (left).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Members of this level refused the key only because of a ramp or of shedding.
    pub(crate) ramped: bool,
    /// Members of this level are believed to be down, and would be asked if there is no other.
    pub(crate) doubted: bool,
    /// There is a level that has not been looked at.
    pub(crate) level_left: bool,
    /// A member, of any level, had no room.
    pub(crate) full: bool,
}

/// Where the search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// In the same level, where its candidate sequence stands.
    Continue(Stage),
    /// In the same level, at the beginning of its candidate sequence.
    SameLevel(Stage),
    /// In the next level that has not been looked at.
    OtherLevel(Stage),
    /// In the home level, and then in all others again.
    AllLevels(Stage),
    /// In no level: the stage looks at all of them, or at none.
    End(Stage),
}

impl Stage {
    /// What follows on a look in this stage that found no member (left). The first line that fits decides.
    #[inline]
    pub(crate) fn follow(self, found: Found, all_full: AllFull) -> Next {
        match (self, found) {
            (Self::HotOwners, _) => Next::Continue(Self::Strict),
            (Self::Strict, Found { ramped: true, .. }) => Next::SameLevel(Self::Relaxed),
            (Self::Strict | Self::Relaxed, Found { doubted: true, .. }) => Next::SameLevel(Self::Panic),
            (Self::Strict | Self::Relaxed | Self::Panic, Found { level_left: true, .. }) => {
                Next::OtherLevel(Self::Strict)
            }
            (Self::Strict | Self::Relaxed | Self::Panic, Found { full: true, .. }) => match all_full {
                AllFull::Owner => Next::AllLevels(Self::OverBound),
                AllFull::LeastLoaded => Next::End(Self::LeastLoaded),
                AllFull::Queue | AllFull::Reject => Next::End(Self::Exhausted),
            },
            (Self::OverBound, Found { level_left: true, .. }) => Next::OtherLevel(Self::OverBound),
            (Self::Strict | Self::Relaxed | Self::Panic | Self::OverBound, _) => Next::End(Self::Exhausted),
            // Asked again, the least loaded are looked at again: a member may have room by then.
            (Self::LeastLoaded, _) => Next::End(Self::LeastLoaded),
            (Self::Exhausted, _) => Next::End(Self::Exhausted),
        }
    }

    /// What is still to come: the search through all levels, then how many of them, then stages within one. Each step of
    /// [`Stage::follow`] makes it smaller, but for the two stages that nothing follows.
    pub(crate) fn left(self, levels: u32) -> (u8, u32, u8) {
        match self {
            Self::HotOwners => (2, levels, 3),
            Self::Strict => (2, levels, 2),
            Self::Relaxed => (2, levels, 1),
            Self::Panic => (2, levels, 0),
            Self::OverBound => (1, levels, 0),
            Self::LeastLoaded | Self::Exhausted => (0, 0, 0),
        }
    }

    /// Whether ramps and shedding count for nothing.
    #[inline]
    pub(crate) fn is_relaxed(self) -> bool {
        !matches!(self, Self::HotOwners | Self::Strict)
    }

    /// Whether members that are believed to be down are asked too.
    #[inline]
    pub(crate) fn asks_doubted(self) -> bool {
        !matches!(self, Self::HotOwners | Self::Strict | Self::Relaxed)
    }
}

impl Next {
    /// The stage in which the search goes on.
    #[inline]
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Continue(stage)
            | Self::SameLevel(stage)
            | Self::OtherLevel(stage)
            | Self::AllLevels(stage)
            | Self::End(stage) => stage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AllFull::{LeastLoaded, Owner, Queue, Reject};
    use proptest::prelude::*;

    const STAGES: [Stage; 7] = [
        Stage::HotOwners,
        Stage::Strict,
        Stage::Relaxed,
        Stage::Panic,
        Stage::OverBound,
        Stage::LeastLoaded,
        Stage::Exhausted,
    ];
    const CHOICES: [AllFull; 4] = [Owner, LeastLoaded, Queue, Reject];

    /// All that a look may come upon: ramped, doubted, level left, full, as `R`, `D`, `L`, `F`; `.` is not.
    fn every_found() -> impl Iterator<Item = (String, Found)> {
        (0..16).map(|bits: u8| {
            let has = |bit: u8| bits >> bit & 1 == 1;
            let found = Found { ramped: has(3), doubted: has(2), level_left: has(1), full: has(0) };
            let letters = [(3, 'R'), (2, 'D'), (1, 'L'), (0, 'F')];
            (letters.into_iter().map(|(bit, letter)| if has(bit) { letter } else { '.' }).collect(), found)
        })
    }

    /// Every arrow of the drawing: the stage, what was found (`*`: either), what is done when all are full, what follows.
    const ARROWS: &[(Stage, &str, &[AllFull], Next)] = &[
        (Stage::HotOwners, "****", &CHOICES, Next::Continue(Stage::Strict)),
        (Stage::Strict, "R***", &CHOICES, Next::SameLevel(Stage::Relaxed)),
        (Stage::Strict, ".D**", &CHOICES, Next::SameLevel(Stage::Panic)),
        (Stage::Strict, "..L*", &CHOICES, Next::OtherLevel(Stage::Strict)),
        (Stage::Strict, "...F", &[Owner], Next::AllLevels(Stage::OverBound)),
        (Stage::Strict, "...F", &[LeastLoaded], Next::End(Stage::LeastLoaded)),
        (Stage::Strict, "...F", &[Queue, Reject], Next::End(Stage::Exhausted)),
        (Stage::Strict, "....", &CHOICES, Next::End(Stage::Exhausted)),
        (Stage::Relaxed, "*D**", &CHOICES, Next::SameLevel(Stage::Panic)),
        (Stage::Relaxed, "*.L*", &CHOICES, Next::OtherLevel(Stage::Strict)),
        (Stage::Relaxed, "*..F", &[Owner], Next::AllLevels(Stage::OverBound)),
        (Stage::Relaxed, "*..F", &[LeastLoaded], Next::End(Stage::LeastLoaded)),
        (Stage::Relaxed, "*..F", &[Queue, Reject], Next::End(Stage::Exhausted)),
        (Stage::Relaxed, "*...", &CHOICES, Next::End(Stage::Exhausted)),
        (Stage::Panic, "**L*", &CHOICES, Next::OtherLevel(Stage::Strict)),
        (Stage::Panic, "**.F", &[Owner], Next::AllLevels(Stage::OverBound)),
        (Stage::Panic, "**.F", &[LeastLoaded], Next::End(Stage::LeastLoaded)),
        (Stage::Panic, "**.F", &[Queue, Reject], Next::End(Stage::Exhausted)),
        (Stage::Panic, "**..", &CHOICES, Next::End(Stage::Exhausted)),
        (Stage::OverBound, "**L*", &CHOICES, Next::OtherLevel(Stage::OverBound)),
        (Stage::OverBound, "**.*", &CHOICES, Next::End(Stage::Exhausted)),
        (Stage::LeastLoaded, "****", &CHOICES, Next::End(Stage::LeastLoaded)),
        (Stage::Exhausted, "****", &CHOICES, Next::End(Stage::Exhausted)),
    ];

    fn fits(pattern: &str, letters: &str) -> bool {
        pattern.chars().zip(letters.chars()).all(|(wanted, is)| wanted == '*' || wanted == is)
    }

    #[test]
    fn every_stage_and_finding_has_one_arrow_of_the_table_and_follows_it() {
        for stage in STAGES {
            for (letters, found) in every_found() {
                for all_full in CHOICES {
                    let arrows: Vec<Next> = ARROWS
                        .iter()
                        .filter(|(from, pattern, choices, _)| {
                            *from == stage && fits(pattern, &letters) && choices.contains(&all_full)
                        })
                        .map(|arrow| arrow.3)
                        .collect();
                    assert_eq!(arrows, [stage.follow(found, all_full)], "{stage:?} {letters} {all_full:?}");
                }
            }
        }
    }

    #[test]
    fn each_stage_asks_no_more_of_a_member_than_the_one_before() {
        let asks = STAGES.map(|stage| (stage.is_relaxed(), stage.asks_doubted()));
        let (no, yes) = (false, true);
        assert_eq!(asks, [(no, no), (no, no), (yes, no), (yes, yes), (yes, yes), (yes, yes), (yes, yes)]);
    }

    proptest! {
        /// Whatever looks come upon, and however often a look ends: the number of steps has a bound, and every one counts down.
        #[test]
        fn every_search_ends_because_each_step_leaves_less_to_do(
            hot in any::<bool>(),
            levels in 1_u32..=16,
            all_full in prop::sample::select(CHOICES.to_vec()),
            looks in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut stage = if hot { Stage::HotOwners } else { Stage::Strict };
            // This one included.
            let mut levels_left = levels;
            let mut looks = looks.into_iter();
            let mut steps = 0;
            while !matches!(stage, Stage::LeastLoaded | Stage::Exhausted) {
                let (ramped, doubted, full) = looks.next().unwrap_or((true, true, true));
                let found = Found { ramped, doubted, level_left: levels_left > 1, full };
                let next = stage.follow(found, all_full);
                let before = stage.left(levels_left);
                match next {
                    Next::Continue(_) | Next::SameLevel(_) => {}
                    Next::OtherLevel(_) => levels_left -= 1,
                    Next::AllLevels(_) => levels_left = levels,
                    Next::End(_) => levels_left = 0,
                }
                stage = next.stage();
                prop_assert!(stage.left(levels_left) < before, "{stage:?} after {before:?}");
                steps += 1;
            }
            // Three stages in each level, each level beyond its bound, the hot owners.
            prop_assert!(steps <= 4 * levels + 1, "{steps} of {levels}");
        }
    }
}
