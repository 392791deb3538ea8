//! Backends with a cache and a queue each, in virtual time: what is served at once is bounded, the rest waits in order.

use super::cache::Cache;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A request that has ended.
#[derive(Debug)]
pub struct End<T> {
    /// When.
    pub at: f64,
    /// Where.
    pub backend: usize,
    /// When it had arrived.
    pub arrived: f64,
    /// Whose it was.
    pub of: T,
    number: u64,
}

impl<T> PartialEq for End<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for End<T> {}

impl<T> PartialOrd for End<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for End<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

#[derive(Debug)]
struct Backend<T> {
    cache: Cache,
    busy: usize,
    waiting: VecDeque<(f64, f64, T)>,
    /// Requests in it, summed over time until `since`.
    area: f64,
    since: f64,
}

impl<T> Backend<T> {
    fn in_flight(&self) -> usize {
        self.busy + self.waiting.len()
    }

    fn integrate(&mut self, now: f64) {
        self.area += self.in_flight() as f64 * (now - self.since);
        self.since = now;
    }
}

/// All of them.
#[derive(Debug)]
pub struct Queues<T> {
    backends: Vec<Backend<T>>,
    workers: usize,
    ends: BinaryHeap<Reverse<End<T>>>,
    number: u64,
}

impl<T> Queues<T> {
    /// So many, which serve so many requests at once and hold so many keys each.
    #[must_use]
    pub fn new(count: usize, workers: usize, keys: usize) -> Self {
        let one = || Backend { cache: Cache::new(keys), busy: 0, waiting: VecDeque::new(), area: 0.0, since: 0.0 };
        Self { backends: (0..count).map(|_| one()).collect(), workers, ends: BinaryHeap::new(), number: 0 }
    }

    /// Whether its cache had the key; it has now.
    pub fn touch(&mut self, backend: usize, key: u64) -> bool {
        self.backends[backend].cache.touch(key)
    }

    /// A request that takes so long once it is its turn.
    pub fn push(&mut self, backend: usize, now: f64, work: f64, of: T) {
        self.backends[backend].integrate(now);
        if self.backends[backend].busy < self.workers {
            self.backends[backend].busy += 1;
            self.begin(backend, now + work, now, of);
        } else {
            self.backends[backend].waiting.push_back((work, now, of));
        }
    }

    fn begin(&mut self, backend: usize, at: f64, arrived: f64, of: T) {
        self.number += 1;
        self.ends.push(Reverse(End { at, backend, arrived, of, number: self.number }));
    }

    /// The next request that ends until then; what waits behind it begins.
    pub fn pop_until(&mut self, to: f64) -> Option<End<T>> {
        if self.ends.peek()?.0.at > to {
            return None;
        }
        let Reverse(end) = self.ends.pop()?;
        let backend = &mut self.backends[end.backend];
        backend.integrate(end.at);
        match backend.waiting.pop_front() {
            Some((work, arrived, of)) => self.begin(end.backend, end.at + work, arrived, of),
            None => backend.busy -= 1,
        }
        Some(end)
    }

    /// Requests in one.
    #[must_use]
    pub fn in_flight(&self, backend: usize) -> usize {
        self.backends[backend].in_flight()
    }

    /// Requests in each.
    #[must_use]
    pub fn loads(&self) -> Vec<f64> {
        self.backends.iter().map(|backend| backend.in_flight() as f64).collect()
    }

    /// Requests in each, summed over the time since this was asked last.
    pub fn take_areas(&mut self, now: f64) -> Vec<f64> {
        let take = |backend: &mut Backend<T>| {
            backend.integrate(now);
            std::mem::take(&mut backend.area)
        };
        self.backends.iter_mut().map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_worker_waits_its_turn_and_is_in_flight_meanwhile() {
        let mut queues = Queues::new(2, 1, 10);
        queues.push(0, 0.0, 10.0, 'a');
        queues.push(0, 2.0, 10.0, 'b');
        queues.push(1, 3.0, 1.0, 'c');
        assert_eq!(queues.loads(), [2.0, 1.0]);
        let told = |end: Option<End<char>>| end.map(|end| (end.of, end.at, end.arrived));
        assert_eq!(told(queues.pop_until(5.0)), Some(('c', 4.0, 3.0)));
        assert_eq!(told(queues.pop_until(5.0)), None);
        assert_eq!(told(queues.pop_until(30.0)), Some(('a', 10.0, 0.0)));
        // It has waited for eight, and taken ten.
        assert_eq!(told(queues.pop_until(30.0)), Some(('b', 20.0, 2.0)));
        assert_eq!(told(queues.pop_until(30.0)), None);
        assert_eq!(queues.take_areas(30.0), [10.0 + 18.0, 1.0]);
        assert_eq!(queues.take_areas(40.0), [0.0, 0.0]);
    }
}
