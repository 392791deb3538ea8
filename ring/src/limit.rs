//! A limit on what is held together, which is taken before it is known whether what it is taken for is to be had.
//!
//! A request takes one of its service's places, and then looks for one on a backend. If all of those are full, it gives the first back: for a
//! moment that place was hidden from other requests, which may have looked just then, found none, and sleep. Nothing would wake them, since
//! nothing has been released. So a request that is denied leaves a mark and looks again, and one that gives back an unused place looks for
//! marks: both write one word and read another, with a fence in between.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst, fence};

/// How many are held, and how often one was denied.
#[derive(Debug)]
pub struct SharedLimit {
    held: AtomicU32,
    denied: AtomicU32,
}

/// One that is held: how often others had been denied before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it is given back"]
pub struct Held(u32);

impl Default for SharedLimit {
    fn default() -> Self {
        Self { held: AtomicU32::new(0), denied: AtomicU32::new(0) }
    }
}

impl SharedLimit {
    /// Takes one, if fewer than so many are held. `None`: a caller that waits for one is woken by the next that gives one back.
    pub fn take(&self, limit: u32) -> Option<Held> {
        self.take_below(limit).or_else(|| {
            self.denied.fetch_add(1, Relaxed);
            fence(SeqCst);
            self.take_below(limit)
        })
    }

    fn take_below(&self, limit: u32) -> Option<Held> {
        // Read before one is taken; a caller that is denied for it reads after that: hence no Relaxed below.
        let denied = self.denied.load(Relaxed);
        let taken = self.held.fetch_update(AcqRel, Acquire, |held| (held < limit).then_some(held + 1));
        taken.is_ok().then_some(Held(denied))
    }

    /// Gives one back that has been used: a waiting request is to be woken in any case.
    pub fn give_back(&self, _: Held) {
        self.held.fetch_sub(1, Relaxed);
    }

    /// Gives one back that could not be used. Whether others were denied meanwhile, of which one is to be woken: only then, or two
    /// requests that find nothing would wake each other for ever.
    #[must_use]
    pub fn give_back_unused(&self, held: Held) -> bool {
        self.held.fetch_sub(1, Relaxed);
        fence(SeqCst);
        self.denied.load(Relaxed) != held.0
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn giving_back_unused_notifies_those_denied_meanwhile_and_no_others() {
        let limit = SharedLimit::default();
        let held = limit.take(1).unwrap();
        assert!(!limit.give_back_unused(held), "nobody was denied");
        let held = limit.take(1).unwrap();
        assert_eq!(limit.take(1), None);
        assert!(limit.give_back_unused(held), "one was");
        // That one comes, finds nothing either, and wakes nobody: no circle.
        let held = limit.take(1).unwrap();
        assert!(!limit.give_back_unused(held));
        let held = limit.take(1).unwrap();
        limit.give_back(held);
        assert_eq!(limit.held(), 0);
        assert_eq!(limit.take(0), None);
    }
}
