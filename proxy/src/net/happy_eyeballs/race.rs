//! The order of two attempts to connect, of which the first that succeeds is taken: no sockets, and the time is an argument.
//!
//! Source: RFC 8305, section 5.

use std::time::{Duration, Instant};

/// Two attempts, by their places in the order in which they are made: 0 and 1.
#[derive(Debug)]
pub(super) struct Race {
    delay: Duration,
    attempts: [Attempt; 2],
    /// When the second begins although the first has not failed.
    second_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    NotBegun,
    UnderWay,
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin this attempt, beside the other where that is under way.
    Begin(usize),
    /// Wait for an attempt, and no longer than until then.
    Wait(Option<Instant>),
    /// Both have failed.
    Lost,
}

impl Race {
    /// `delay`: how long the first has to itself.
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, attempts: [Attempt::NotBegun; 2], second_at: None }
    }

    /// An attempt has failed.
    pub(super) fn handle_failure(&mut self, attempt: usize) {
        self.attempts[attempt] = Attempt::Failed;
    }

    /// Asked again until there is something to wait for.
    pub(super) fn poll(&mut self, now: Instant) -> Step {
        let begun = match (self.attempts, self.second_at) {
            ([Attempt::NotBegun, _], _) => {
                self.second_at = Some(now + self.delay);
                0
            }
            // Nothing is left that it could be in the way of.
            ([Attempt::Failed, Attempt::NotBegun], _) => 1,
            ([Attempt::UnderWay, Attempt::NotBegun], Some(at)) if now >= at => 1,
            ([Attempt::UnderWay, Attempt::NotBegun], at) => return Step::Wait(at),
            ([Attempt::Failed, Attempt::Failed], _) => return Step::Lost,
            _ => return Step::Wait(None),
        };
        self.attempts[begun] = Attempt::UnderWay;
        Step::Begin(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use proptest::prelude::*;

    const DELAY: Duration = Duration::from_millis(250);

    /// What becomes of an attempt: after so many milliseconds it stands (`true`) or has failed; `None`: nothing ever comes.
    type Fate = Option<(u64, bool)>;

    /// Plays a race to its end. When each attempt began, and which stood first and when, in milliseconds.
    fn played(fates: [Fate; 2]) -> ([Option<u64>; 2], Option<(usize, u64)>) {
        let started = ambient::now();
        let (mut race, mut now, mut begun) = (Race::new(DELAY), started, [None; 2]);
        let millis = |at: Instant| (at - started).as_millis() as u64;
        let mut over = [false; 2];
        loop {
            match race.poll(now) {
                Step::Begin(attempt) => {
                    assert_eq!(begun[attempt], None, "an attempt begins once");
                    begun[attempt] = Some(millis(now));
                }
                Step::Lost => return (begun, None),
                Step::Wait(until) => {
                    let ends = |attempt: usize| {
                        let (after, stands) = fates[attempt]?;
                        let at = begun[attempt].filter(|_| !over[attempt])? + after;
                        Some((at, attempt, stands))
                    };
                    let next = (0..2).filter_map(ends).min_by_key(|(at, attempt, _)| (*at, *attempt));
                    match (next, until.map(millis)) {
                        (Some((at, attempt, stands)), until) if until.is_none_or(|until| at <= until) => {
                            now = started + Duration::from_millis(at);
                            if stands {
                                return (begun, Some((attempt, at)));
                            }
                            over[attempt] = true;
                            race.handle_failure(attempt);
                        }
                        (_, Some(until)) => now = started + Duration::from_millis(until),
                        (_, None) => return (begun, None),
                    }
                }
            }
        }
    }

    #[test]
    fn the_second_begins_when_the_first_has_failed_or_has_had_its_time() {
        for (fates, expected) in [
            ([Some((10, true)), None], ([Some(0), None], Some((0, 10)))),
            ([Some((250, true)), Some((0, true))], ([Some(0), None], Some((0, 250)))),
            ([Some((10, false)), Some((10, true))], ([Some(0), Some(10)], Some((1, 20)))),
            ([None, Some((10, true))], ([Some(0), Some(250)], Some((1, 260)))),
            ([Some((300, true)), Some((100, true))], ([Some(0), Some(250)], Some((0, 300)))),
            ([Some((300, false)), Some((100, true))], ([Some(0), Some(250)], Some((1, 350)))),
            ([Some((300, true)), Some((10, false))], ([Some(0), Some(250)], Some((0, 300)))),
            ([Some((5, false)), Some((5, false))], ([Some(0), Some(5)], None)),
            ([None, Some((5, false))], ([Some(0), Some(250)], None)),
            ([None, None], ([Some(0), Some(250)], None)),
        ] {
            assert_eq!(played(fates), expected, "{fates:?}");
        }
    }

    proptest! {
        #[test]
        fn whoever_can_be_reached_is_and_as_early_as_the_delay_allows(
            first in prop::option::of((0_u64..600, any::<bool>())),
            second in prop::option::of((0_u64..600, any::<bool>())),
        ) {
            let (begun, won) = played([first, second]);
            let second_at = match first {
                Some((after, false)) => after.min(250),
                _ => 250,
            };
            let stands = |fate: Fate, at: u64| fate.filter(|(_, stands)| *stands).map(|(after, _)| at + after);
            let (one, other) = (stands(first, 0), stands(second, second_at));
            let best = match (one, other) {
                (Some(one), Some(other)) if one > 250 && other < one => Some((1, other)),
                (Some(one), _) => Some((0, one)),
                (None, other) => other.map(|at| (1, at)),
            };
            prop_assert_eq!(won, best);
            prop_assert_eq!(begun[0], Some(0));
            prop_assert!(begun[1].is_none_or(|at| at == second_at));
            // The second is spared where the first was in time.
            prop_assert_eq!(begun[1].is_none(), one.is_some_and(|one| one <= 250));
        }
    }
}
