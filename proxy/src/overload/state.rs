//! The stage in force and the pressures that led to it: written by the control side, read by workers and at a scrape.

use super::stage::{Resource, Stage, Usage};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What workers know of overload. Nothing is in force at first.
#[derive(Default)]
pub(crate) struct OverloadState {
    stage: AtomicU8,
    /// Bits of a share each.
    pressures: [AtomicU64; Resource::ALL.len()],
}

impl OverloadState {
    pub(crate) fn publish(&self, stage: Stage, usage: &Usage) {
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
        self.stage.load(Relaxed) >= Stage::StopKeepAlive as u8
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
