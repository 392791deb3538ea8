//! How many requests wait for room, so that one which gives a place back never overlooks one that has just begun to wait.
//!
//! One gives a place back and then looks whether any waits; the other says that it waits and then looks for a place.
//! Both write one word and read another, and processors may read early: without a fence on both sides each can miss the
//! other's write, and the place stays empty while a request waits for it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};

/// Requests that wait for room, in number.
#[derive(Debug)]
pub struct Line {
    waiting: AtomicU32,
    /// Places given back while a request waited.
    releases: AtomicU64,
}

impl Default for Line {
    fn default() -> Self {
        Self { waiting: AtomicU32::new(0), releases: AtomicU64::new(0) }
    }
}

impl Line {
    /// Begins to wait, if fewer than so many do. A request that has entered looks for a place ([`Line::look`]) before it
    /// sleeps, and [leaves](Line::leave) in the end.
    pub fn enter(&self, length_max: u32) -> bool {
        // One that was raised first and lowered again would turn others away for which there is room.
        self.waiting.fetch_update(Relaxed, Relaxed, |waiting| (waiting < length_max).then_some(waiting + 1)).is_ok()
    }

    /// Waits no more.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Between the registration for the next wake-up and the look for a place. Gives the number of releases so far.
    pub fn look(&self) -> u64 {
        fence(SeqCst);
        self.releases.load(Relaxed)
    }

    /// A place has been given back. Whether a waiting request is to be woken for it.
    #[inline]
    #[must_use]
    pub fn handle_release(&self) -> bool {
        fence(SeqCst);
        let any_waits = self.waiting.load(Relaxed) > 0;
        if any_waits {
            self.releases.fetch_add(1, Relaxed);
        }
        any_waits
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn as_many_wait_as_may_and_releases_count_while_any_does() {
        let line = Line::default();
        assert!(!line.handle_release() && line.look() == 0);
        assert!(line.enter(2) && line.enter(2) && !line.enter(2));
        assert_eq!(line.waiting(), 2);
        assert!(line.handle_release() && line.handle_release());
        assert_eq!(line.look(), 2);
        line.leave();
        assert!(line.enter(2) && !line.enter(0));
        line.leave();
        line.leave();
        assert!(!line.handle_release());
        assert_eq!((line.waiting(), line.look()), (0, 2));
    }
}
