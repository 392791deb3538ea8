//! Places that client connections take: of the process, of their listener, of the worker that serves them.

use super::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One connection's place. Dropping it gives it back, wherever it is: a connection on its way to another worker has one already.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    /// Places taken on its listener, over all workers.
    listener: Arc<AtomicUsize>,
    worker: usize,
    /// A flow of datagrams takes one descriptor, its backend's; a connection takes two.
    is_flow: bool,
}

impl Seat {
    /// Takes a place, if fewer are taken than the process and the listener may have.
    pub(crate) fn take(
        shared: &Arc<Shared>,
        listener: &Arc<AtomicUsize>,
        worker: usize,
        process_max: usize,
        listener_max: usize,
    ) -> Option<Self> {
        if !enter(&shared.connections, process_max) {
            return None;
        }
        if !enter(listener, listener_max) {
            shared.connections.fetch_sub(1, Relaxed);
            return None;
        }
        shared.open[worker].fetch_add(1, Relaxed);
        Some(Self { shared: Arc::clone(shared), listener: Arc::clone(listener), worker, is_flow: false })
    }

    /// The same for a flow of datagrams.
    pub(crate) fn take_flow(
        shared: &Arc<Shared>,
        listener: &Arc<AtomicUsize>,
        worker: usize,
        process_max: usize,
        listener_max: usize,
    ) -> Option<Self> {
        let mut seat = Self::take(shared, listener, worker, process_max, listener_max)?;
        seat.is_flow = true;
        shared.flows.fetch_add(1, Relaxed);
        Some(seat)
    }

    /// From here on another worker's, so that a burst of connections does not all go to the same one.
    pub(crate) fn move_to(&mut self, worker: usize) {
        self.shared.open[self.worker].fetch_sub(1, Relaxed);
        self.shared.open[worker].fetch_add(1, Relaxed);
        self.worker = worker;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_flow {
            self.shared.flows.fetch_sub(1, Relaxed);
        }
        self.shared.open[self.worker].fetch_sub(1, Relaxed);
        self.listener.fetch_sub(1, Relaxed);
        self.shared.connections.fetch_sub(1, Relaxed);
    }
}

/// Test and count are one step: two workers that ask for the last place must not both get it, nor both be refused.
fn enter(taken: &AtomicUsize, most: usize) -> bool {
    taken.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_place_is_given_once_however_many_ask() {
        let taken = AtomicUsize::new(0);
        let got: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| enter(&taken, 700)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((got, taken.into_inner()), (700, 700));
    }
}
