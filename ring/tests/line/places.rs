//! Places on a member: never more than there may be, never one that is hidden, in any order.

use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;
use ringway_ring::{BackendSet, Line, Load, MemberSpec, PickContext, PolicyParams, Selection, Slot, Total};
use std::sync::Arc;

/// A member with so many places, which so many workers give out.
struct Fleet {
    group: BackendSet,
    load: Arc<Load>,
    total: Arc<Total>,
    line: Line,
}

impl Fleet {
    fn new(places: u32, workers: usize) -> loom::sync::Arc<Self> {
        let (load, total) = (Arc::new(Load::new("a")), Arc::new(Total::new(workers)));
        let member = MemberSpec { id: "a", weight: 100, requests_max: places, level: 0, load: Arc::clone(&load) };
        let group = BackendSet::build(PolicyParams::LeastRequest, None, [member], Arc::clone(&total)).unwrap();
        loom::sync::Arc::new(Self { group, load, total, line: Line::default() })
    }

    fn take(&self, worker: usize) -> bool {
        let mut selection: Selection = self.group.begin(PickContext::default());
        self.group.reserve(&mut selection, Slot(0), true, worker)
    }

    fn is_idle(&self) -> bool {
        self.load.in_flight() == 0 && self.total.sum() == 0
    }
}

#[test]
fn places_are_never_given_twice_and_all_come_back() {
    loom::model(|| {
        let (fleet, held) = (Fleet::new(1, 2), loom::sync::Arc::new(AtomicU32::new(0)));
        let work = |worker: usize| {
            let (fleet, held) = (fleet.clone(), held.clone());
            move || {
                let taken = fleet.take(worker);
                if taken {
                    assert_eq!(held.fetch_add(1, Relaxed), 0, "the only place is given twice");
                    held.fetch_sub(1, Relaxed);
                    fleet.group.release(Slot(0), worker);
                }
                taken
            }
        };
        let (other, mine) = (thread::spawn(work(0)), work(1));
        let taken = mine();
        assert!(other.join().unwrap() || taken, "who comes first finds the place");
        assert!(fleet.is_idle());
    });
}

/// One has the place and gives it back, one waits for it, and one looks whether there is a place and goes away if there is none.
/// The place must not be free in the end while somebody sleeps for it.
#[test]
fn a_look_hides_no_place_from_a_waiter() {
    let mut model = loom::model::Builder::new();
    // All orders of three threads take minutes; those with few switches are the ones that go wrong.
    model.preemption_bound = Some(3);
    model.check(|| {
        let fleet = Fleet::new(1, 3);
        assert!(fleet.take(0));
        // How often somebody was woken.
        let wakes = loom::sync::Arc::new(AtomicU32::new(0));
        let gives_back = |worker: usize| {
            let (fleet, wakes) = (fleet.clone(), wakes.clone());
            move || {
                fleet.group.release(Slot(0), worker);
                if fleet.line.handle_release() {
                    wakes.fetch_add(1, Relaxed);
                }
            }
        };
        let release = gives_back(0);
        let releaser = thread::spawn(release);
        let looks = fleet.clone();
        let give_back = gives_back(2);
        let looker = thread::spawn(move || {
            // Found, it is used and given back like any other.
            if looks.take(2) {
                give_back();
            }
        });
        assert!(fleet.line.enter(8));
        fleet.line.look();
        let mut found = fleet.take(1);
        // Woken, it looks again.
        let heard = if found { 0 } else { wakes.fetch_add(0, Relaxed) };
        if heard > 0 {
            fleet.line.look();
            found = fleet.take(1);
        }
        releaser.join().unwrap();
        looker.join().unwrap();
        let wakes = wakes.fetch_add(0, Relaxed);
        assert!(found || wakes > heard, "the place is free, and who waits for it sleeps");
        fleet.line.leave();
    });
}
