//! The stage in force and the pressures that led to it: written by the control side, read by workers and at a scrape.

use super::busy::Busy;
use super::own_work::Changes;
use super::shed::Shed;
use super::stage::{Resource, Stage, Usage};
use super::ticks::Ticks;
use ringway_config::model::Priority;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What workers know of overload, and tell. Nothing is in force at first.
pub(crate) struct OverloadState {
    stage: AtomicU8,
    /// Memory, connections or descriptors are to be saved.
    saves: AtomicBool,
    /// What share of each priority is refused, of `u32::MAX`; by [`Priority`].
    shed: [AtomicU32; 3],
    /// Bits of a share each.
    pressures: [AtomicU64; Resource::ALL.len()],
    /// When workers have looked at what is due.
    pub(crate) ticks: Ticks,
    /// How busy they are.
    pub(crate) busy: Busy,
    /// Changes of the configuration that are being read and built.
    pub(crate) changes: Changes,
}

impl OverloadState {
    /// Of a process with so many workers, which begins.
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        Self {
            stage: AtomicU8::default(),
            saves: AtomicBool::default(),
            shed: <_>::default(),
            pressures: <_>::default(),
            ticks: Ticks::new(workers, now),
            busy: Busy::new(workers),
            changes: Changes::default(),
        }
    }

    /// `saves`: whether connections end with their next response. `shed` holds in [`Stage::ShedLowPriority`].
    pub(crate) fn publish(&self, stage: Stage, saves: bool, shed: Shed, usage: &Usage) {
        self.saves.store(saves, Relaxed);
        for priority in [Priority::Low, Priority::Default, Priority::High] {
            let share = match stage {
                Stage::Normal | Stage::StopKeepAlive => 0.0,
                Stage::ShedLowPriority => shed.share(priority),
                Stage::RefuseRequests | Stage::StopAccepting => 1.0,
            };
            self.shed[priority as usize].store((share * f64::from(u32::MAX)) as u32, Relaxed);
        }
        self.stage.store(stage as u8, Relaxed);
        for resource in Resource::ALL {
            self.pressures[resource as usize].store(usage.pressure(resource).to_bits(), Relaxed);
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Relaxed))
    }

    /// How much of a resource was used at the last look.
    pub(crate) fn pressure(&self, resource: Resource) -> f64 {
        f64::from_bits(self.pressures[resource as usize].load(Relaxed))
    }

    /// Whether connections end with their next response.
    #[inline]
    pub(crate) fn stops_keep_alive(&self) -> bool {
        self.saves.load(Relaxed)
    }

    /// Whether new requests, sessions and flows are refused, some or all: [`OverloadState::refuses`] says which.
    #[inline]
    pub(crate) fn sheds(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::ShedLowPriority as u8
    }

    /// Whether all of them are.
    pub(crate) fn refuses_all(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::RefuseRequests as u8
    }

    /// Whether one of this priority is, by chance: `random` is a number of all that there are.
    pub(crate) fn refuses(&self, priority: Priority, random: u64) -> bool {
        let share = self.shed[priority as usize].load(Relaxed);
        // All are all.
        share == u32::MAX || (random >> 32) < u64::from(share)
    }

    /// What share of this priority is refused.
    pub(crate) fn refused_share(&self, priority: Priority) -> f64 {
        f64::from(self.shed[priority as usize].load(Relaxed)) / f64::from(u32::MAX)
    }

    /// Whether new connections wait in the kernel's queue.
    #[inline]
    pub(crate) fn stops_accepting(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::StopAccepting as u8
    }
}

#[cfg(test)]
mod tests {
    use super::super::shed::tests::config;
    use super::*;
    use crate::ambient;

    /// Memory at so many thousandths, with a way from 80 % to 90 %.
    fn under(per_mille: u64) -> OverloadState {
        let mut usage = Usage::default();
        usage.set(Resource::Memory, Some((per_mille, 1_000)));
        let state = OverloadState::new(1, ambient::now());
        state.publish(Stage::ShedLowPriority, false, Shed::of(&usage, &config()), &usage);
        state
    }

    #[test]
    fn the_lowest_numbers_of_all_are_refused_as_many_as_the_share_says() {
        let lowest = |share: f64| (share * u64::MAX as f64) as u64;
        let half = under(825);
        for (random, is_refused) in [(0, true), (lowest(0.499), true), (lowest(0.501), false), (u64::MAX, false)] {
            assert_eq!(half.refuses(Priority::Low, random), is_refused, "{random}");
        }
        for random in [0, u64::MAX] {
            assert!(!half.refuses(Priority::Default, random) && !half.refuses(Priority::High, random));
            assert!(under(870).refuses(Priority::Low, random), "all are all");
        }
    }
}
