//! What is held together with others: never too many, and none is hidden by who takes one for nothing.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use loom::thread;
use ringway_ring::{Line, SharedLimit};

/// One takes the only place, finds no use for it and gives it back; one waits for it. The place must not be free in the end while
/// somebody sleeps for it.
#[test]
fn a_place_taken_for_nothing_is_hidden_from_no_other() {
    loom::model(|| {
        let (limit, line, woken) =
            (Arc::new(SharedLimit::default()), Arc::new(Line::default()), Arc::new(AtomicBool::new(false)));
        let other = {
            let (limit, line, woken) = (Arc::clone(&limit), Arc::clone(&line), Arc::clone(&woken));
            thread::spawn(move || {
                let Some(held) = limit.take(1) else { return };
                if limit.give_back_unused(held) && line.waiting() > 0 {
                    woken.store(true, Relaxed);
                }
            })
        };
        assert!(line.enter(8));
        line.look();
        let found = limit.take(1);
        other.join().unwrap();
        assert!(found.is_some() || woken.load(Relaxed), "the place is free, and who waits for it sleeps");
        line.leave();
    });
}

#[test]
fn no_more_are_held_than_may_be() {
    loom::model(|| {
        let (limit, at_once) = (Arc::new(SharedLimit::default()), Arc::new(AtomicU32::new(0)));
        let work = || {
            let (limit, at_once) = (Arc::clone(&limit), Arc::clone(&at_once));
            move || {
                let Some(held) = limit.take(1) else { return false };
                assert_eq!(at_once.fetch_add(1, Relaxed), 0, "two have the only one");
                at_once.fetch_sub(1, Relaxed);
                limit.give_back(held);
                true
            }
        };
        let (other, mine) = (thread::spawn(work()), work());
        let taken = mine();
        assert!(other.join().unwrap() || taken, "who comes first has it");
        assert_eq!(limit.held(), 0);
    });
}
