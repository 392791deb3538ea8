//! No wake-up is lost, in any order that the memory model allows: `RUSTFLAGS="--cfg loom" cargo test -p ringway-ring --test
//! line --target-dir target/loom`.
//!
//! Beside it, in the same command: places are given once and hidden from nobody, and what is published is seen whole.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "line/limits.rs"]
mod limits;
#[path = "line/places.rs"]
mod places;
#[path = "line/published.rs"]
mod published;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use loom::thread;
use ringway_ring::Line;

#[test]
fn a_waiter_finds_the_place_or_is_woken_for_it() {
    loom::model(|| {
        let (line, taken, woken) =
            (Arc::new(Line::default()), Arc::new(AtomicU32::new(1)), Arc::new(AtomicBool::new(false)));
        let releaser = {
            let (line, taken, woken) = (Arc::clone(&line), Arc::clone(&taken), Arc::clone(&woken));
            thread::spawn(move || {
                taken.fetch_sub(1, Relaxed);
                if line.handle_release() {
                    woken.store(true, Relaxed);
                }
            })
        };
        assert!(line.enter(8));
        line.look();
        let found = taken.fetch_add(1, Relaxed) == 0;
        releaser.join().unwrap();
        assert!(found || woken.load(Relaxed), "the place is free, and who waits for it sleeps");
        line.leave();
    });
}

#[test]
fn one_of_two_that_give_places_back_wakes_the_waiter() {
    let mut model = loom::model::Builder::new();
    // All orders of three threads take minutes; those with few switches are the ones that go wrong.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (line, taken, woken) =
            (Arc::new(Line::default()), Arc::new(AtomicU32::new(2)), Arc::new(AtomicBool::new(false)));
        let releasers: Vec<_> = (0..2)
            .map(|_| {
                let (line, taken, woken) = (Arc::clone(&line), Arc::clone(&taken), Arc::clone(&woken));
                thread::spawn(move || {
                    taken.fetch_sub(1, Relaxed);
                    if line.handle_release() {
                        woken.store(true, Relaxed);
                    }
                })
            })
            .collect();
        assert!(line.enter(8));
        line.look();
        let found = taken.fetch_add(1, Relaxed) < 2;
        releasers.into_iter().for_each(|releaser| releaser.join().unwrap());
        assert!(found || woken.load(Relaxed));
    });
}
