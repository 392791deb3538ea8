//! A copy that is to hand a key over: one at a time of each key, and only what arrives counts.

use super::handoff::Window;
use ringway_ring::Hash;
use std::sync::Arc;

/// A copy of a request of a key, on its way to the next owner. Dropped, it has failed: the key is where it was, and its next request is
/// copied.
#[derive(Debug)]
pub(crate) struct CopyOfKey {
    window: Arc<Window>,
    hash: Hash,
}

impl CopyOfKey {
    /// `None`: one is under way, or has just arrived.
    pub(crate) fn begin(window: &Arc<Window>, hash: Hash) -> Option<Self> {
        if !window.copying.begin(hash) {
            return None;
        }
        let copy = Self { window: Arc::clone(window), hash };
        (!window.has_handed(hash)).then_some(copy)
    }

    /// It has been answered: the key is the next owner's from now on.
    pub(crate) fn arrive(self) {
        self.window.hand_over(self.hash);
    }
}

impl Drop for CopyOfKey {
    fn drop(&mut self) {
        self.window.copying.end(self.hash);
    }
}
