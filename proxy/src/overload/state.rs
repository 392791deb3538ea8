//! The stage in force and the pressures that led to it: written by the control side, read by workers and at a scrape.

use super::stage::{Resource, Stage, Usage};
use super::ticks::Ticks;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What workers know of overload, and tell. Nothing is in force at first.
pub(crate) struct OverloadState {
    stage: AtomicU8,
    /// Memory, connections or descriptors are to be saved.
    saves: AtomicBool,
    /// Bits of a share each.
    pressures: [AtomicU64; Resource::ALL.len()],
    /// When workers have looked at what is due.
    pub(crate) ticks: Ticks,
}

impl OverloadState {
    /// Of a process with so many workers, which begins.
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        Self {
            stage: AtomicU8::default(),
            saves: AtomicBool::default(),
            pressures: <_>::default(),
            ticks: Ticks::new(workers, now),
        }
    }

    /// `saves`: whether connections end with their next response.
    pub(crate) fn publish(&self, stage: Stage, saves: bool, usage: &Usage) {
        self.saves.store(saves, Relaxed);
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

    /// Whether new requests, sessions and flows are refused.
    #[inline]
    pub(crate) fn refuses_requests(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::RefuseRequests as u8
    }

    /// Whether new connections wait in the kernel's queue.
    #[inline]
    pub(crate) fn stops_accepting(&self) -> bool {
        self.stage.load(Relaxed) >= Stage::StopAccepting as u8
    }
}
