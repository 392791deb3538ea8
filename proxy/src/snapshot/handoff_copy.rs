//! What is under way for a key that is handed over: a copy, one at a time of each key, of which only what arrives counts; and changes at its
//! previous owner.

use super::ServiceLive;
use super::handoff::Window;
use ringway_ring::{ChangesUnderWay, CopyPlace, Hash};
use std::sync::Arc;
use std::time::Instant;

/// A copy of a request of a key, on its way to the next owner. Dropped, it was not sent: the key is where it was, and its next request is
/// copied.
#[derive(Debug)]
pub(crate) struct CopyOfKey {
    window: Arc<Window>,
    hash: Hash,
}

impl CopyOfKey {
    /// `Err`: one is under way, or has just arrived; or the last one brought nothing, not long before `now`.
    pub(crate) fn begin(window: &Arc<Window>, hash: Hash, now: Instant) -> Result<Self, CopyPlace> {
        if window.waits(hash, now) {
            return Err(CopyPlace::Waits);
        }
        if !window.copying.begin(hash) {
            return Err(CopyPlace::UnderWay);
        }
        let copy = Self { window: Arc::clone(window), hash };
        // Since the key was looked for: the next owner has it, and who has seen that reads there.
        if window.has_handed(hash) { Err(CopyPlace::Arrived) } else { Ok(copy) }
    }

    /// It has been answered: the key is the next owner's from now on.
    pub(crate) fn arrive(self) {
        self.window.hand_over(self.hash);
    }

    /// It has brought nothing: the next one waits.
    pub(crate) fn fail(self, now: Instant) {
        self.window.refuse(self.hash, now);
    }
}

impl Drop for CopyOfKey {
    fn drop(&mut self) {
        self.window.copying.end(self.hash);
    }
}

/// A request that may change what its key stands for, as long as it may be under way at the key's previous owner: meanwhile the key stays
/// there, or its next owner might be told what was before.
pub(crate) struct ChangeOfKey {
    live: Arc<ServiceLive>,
    hash: Hash,
}

impl ChangeOfKey {
    pub(crate) fn begin(live: &Arc<ServiceLive>, hash: Hash) -> Self {
        live.handoff_changes.get_or_init(ChangesUnderWay::default).begin(hash);
        Self { live: Arc::clone(live), hash }
    }

    /// How many there are of a key.
    pub(crate) fn count(live: &ServiceLive, hash: Hash) -> u32 {
        live.handoff_changes.get().map_or(0, |changes| changes.count(hash))
    }
}

impl Drop for ChangeOfKey {
    fn drop(&mut self) {
        if let Some(changes) = self.live.handoff_changes.get() {
            changes.end(self.hash);
        }
    }
}
