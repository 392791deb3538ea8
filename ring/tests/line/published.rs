//! What is replaced is replaced whole, and freed with its last reader.

use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;
use ringway_ring::{Published, Reader};
use std::sync::Arc;

/// Two numbers that belong together, and how many such there are.
struct Pair {
    one: AtomicU32,
    other: AtomicU32,
    living: loom::sync::Arc<AtomicU32>,
}

impl Pair {
    fn new(number: u32, living: &loom::sync::Arc<AtomicU32>) -> Arc<Self> {
        living.fetch_add(1, Relaxed);
        let pair = Self { one: AtomicU32::new(0), other: AtomicU32::new(0), living: living.clone() };
        // Written as another thread might see them late: nothing but the publication orders them.
        pair.one.store(number, Relaxed);
        pair.other.store(number, Relaxed);
        Arc::new(pair)
    }

    /// Its number, if it is whole.
    fn number(&self) -> u32 {
        let (one, other) = (self.one.load(Relaxed), self.other.load(Relaxed));
        assert_eq!(one, other, "half a value");
        one
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Relaxed);
    }
}

#[test]
fn readers_see_whole_values_in_their_order_and_none_outlives_its_last_reader() {
    loom::model(|| {
        let living = loom::sync::Arc::new(AtomicU32::new(0));
        let published = Arc::new(Published::new(Pair::new(1, &living)));
        let writes = Arc::clone(&published);
        let counted = living.clone();
        let writer = thread::spawn(move || {
            for number in [2, 3] {
                writes.store(Pair::new(number, &counted));
            }
        });
        let mut reader = Reader::new(Arc::clone(&published));
        let (first, second) = (reader.read().number(), reader.read().number());
        assert!((1..=second).contains(&first) && second <= 3, "{first}, then {second}");
        writer.join().unwrap();
        assert_eq!(reader.read().number(), 3, "what is in force is seen by the next look");
        assert_eq!(living.load(Relaxed), 1, "what was replaced is gone");
        assert_eq!(published.load().number(), 3);
        drop((reader, published));
        assert_eq!(living.load(Relaxed), 0);
    });
}

#[test]
fn two_readers_hold_what_they_have_seen_and_nobody_frees_it_under_them() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let living = loom::sync::Arc::new(AtomicU32::new(0));
        let published = Arc::new(Published::new(Pair::new(1, &living)));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let published = Arc::clone(&published);
                thread::spawn(move || {
                    let mut reader = Reader::new(published);
                    let kept = Arc::clone(reader.read());
                    let (seen, now) = (kept.number(), reader.read().number());
                    assert!(seen <= now && kept.number() == seen, "{seen}, {now}");
                })
            })
            .collect();
        published.store(Pair::new(2, &living));
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(living.load(Relaxed), 1);
    });
}
