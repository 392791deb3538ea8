//! Idle connections of one worker to one backend, last in, first out.

use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timers};
use crate::snapshot::connection_slot::ConnectionSlot;
use ringway_config::model;
use ringway_telemetry::counters::WorkerCounters;
use std::cell::{Cell, RefCell};

/// Idle connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    closed: Cell<bool>,
}

struct Idle {
    stream: Stream,
    slot: ConnectionSlot,
    since: Deadline,
}

impl Pool {
    /// The connection used last that is still good.
    ///
    /// `certain`: ask the kernel too, not only the runtime's readiness, because the request must not be sent on a connection that
    /// is being closed: it could not be repeated.
    pub(crate) fn take(&self, certain: bool, counters: &WorkerCounters) -> Option<(Stream, ConnectionSlot)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut stream, mut slot, .. }) = idle.pop() {
            counters.upstream_idle.subtract(1);
            if stream.is_reusable(certain) {
                slot.end_idle();
                return Some((stream, slot));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly, unless all workers together keep `idle_max` of the backend's: then it closes.
    pub(crate) fn put(
        &self,
        stream: Stream,
        mut slot: ConnectionSlot,
        idle_max: u32,
        now: Deadline,
        counters: &WorkerCounters,
    ) {
        if !self.closed.get() && slot.begin_idle(idle_max) {
            self.idle.borrow_mut().push(Idle { stream, slot, since: now });
            counters.upstream_idle.increment();
        }
    }

    /// Closes what has been idle for too long, or is too old, and what the backend has closed.
    pub(crate) fn expire(&self, limits: &model::Pool, timers: &Timers, counters: &WorkerCounters) {
        let oldest = timers.before(limits.idle_timeout);
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| {
            idle.since >= oldest && !idle.slot.life.is_over(limits, timers) && idle.stream.is_reusable(false)
        });
        counters.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// One of them, in use since `since`, has turned out to be dead: those on which nothing was received since then are closed, so
    /// that not each of them costs a time-out.
    pub(crate) fn doubt(&self, since: Deadline, counters: &WorkerCounters) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|idle| idle.since > since);
        counters.upstream_idle.subtract((before - idle.len()) as u64);
    }

    /// Closes all, and keeps none from now on: the backend was removed from the configuration.
    pub(crate) fn close(&self, counters: &WorkerCounters) {
        self.closed.set(true);
        self.release(counters);
    }

    /// Closes the one that has been idle for longest. `false`: there is none.
    pub(crate) fn close_one(&self, counters: &WorkerCounters) -> bool {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        drop(idle.remove(0));
        counters.upstream_idle.subtract(1);
        true
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Those that are idle now.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all that are idle now; returns how many they were.
    pub(crate) fn release(&self, counters: &WorkerCounters) -> usize {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        counters.upstream_idle.subtract(idle.len() as u64);
        idle.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::net::transport::Transport;
    use crate::net::transport::memory::{Listener, Network};
    use crate::snapshot::connection_life::ConnectionLife;
    use crate::worker::testing::Rig;
    use ringway_ring::Slot;
    use std::net::SocketAddr;
    use std::time::Duration;

    const ONE: &str = "{ name: s, backends: [ { id: a, address: \"10.0.0.1:80\" } ] }";

    /// A backend that accepts, and connections to it.
    struct Backend {
        network: Network,
        listener: Listener,
    }

    impl Backend {
        fn new() -> Self {
            let network = Network::default();
            let listener = network.listen("10.0.0.1:80".parse().unwrap());
            Self { network, listener }
        }

        /// Both ends of a connection, and the address that this one has here.
        async fn connect(&self) -> (Stream, crate::net::transport::memory::Socket, SocketAddr) {
            let here = self.network.connect(self.listener.address()).await.unwrap();
            let (there, address) = self.listener.accept().await.unwrap();
            (Stream::Plain(Transport::Memory(here)), there, address)
        }
    }

    fn slot(rig: &Rig) -> ConnectionSlot {
        ConnectionSlot::take(&rig.worker.view().services[0].service, Slot(0)).unwrap()
    }

    fn address(stream: &Stream) -> SocketAddr {
        let Stream::Plain(transport) = stream else { panic!("it is plain") };
        transport.local_addr().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_used_last_comes_first_and_one_that_its_backend_has_closed_never() {
        let (rig, backend, pool) = (Rig::new(ONE), Backend::new(), Pool::default());
        let (worker, now) = (&rig.worker, rig.worker.timers.now());
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (here, there, address) = backend.connect().await;
            pool.put(here, slot(&rig), 8, now, &worker.counters);
            ends.push((Some(there), address));
        }
        assert_eq!((pool.len(), worker.counters.upstream_idle.get()), (3, 3));
        // The last two are closed by the backend.
        drop(ends[2].0.take());
        drop(ends[1].0.take());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (taken, _slot) = pool.take(true, &worker.counters).unwrap();
        assert_eq!(address(&taken), ends[0].1);
        assert!(pool.take(true, &worker.counters).is_none());
        assert_eq!((pool.len(), worker.counters.upstream_idle.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn workers_keep_no_more_of_a_backend_together_than_one_may() {
        let (rig, backend) = (Rig::new(ONE), Backend::new());
        let (one, other) = (Pool::default(), Pool::default());
        let (counters, now) = (&rig.worker.counters, rig.worker.timers.now());
        let mut ends = Vec::new();
        let mut put = async |pool: &Pool| {
            let (here, there, _) = backend.connect().await;
            ends.push(there);
            pool.put(here, slot(&rig), 3, now, counters);
        };
        for pool in [&one, &one, &other, &other, &one] {
            put(pool).await;
        }
        assert_eq!((one.len(), other.len(), counters.upstream_idle.get()), (2, 1, 3));
        // One that is taken makes room, whoever has taken it; so does one that closes.
        let taken = one.take(true, counters).unwrap();
        put(&other).await;
        assert_eq!((one.len(), other.len()), (1, 2));
        one.put(taken.0, taken.1, 3, now, counters);
        assert_eq!(one.len(), 1, "there is no room for it any more");
        assert!(other.close_one(counters));
        put(&one).await;
        assert_eq!((one.len(), other.len()), (2, 1));
        one.close(counters);
        for _ in 0..3 {
            put(&other).await;
        }
        assert_eq!((one.len(), other.len()), (0, 3));
        other.release(counters);
        put(&other).await;
        assert_eq!(other.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_too_old_is_closed_however_recently_it_was_used() {
        let (rig, backend, pool) = (Rig::new(ONE), Backend::new(), Pool::default());
        let (counters, timers) = (&rig.worker.counters, &rig.worker.timers);
        let limits = |age_max| model::Pool { age_max, ..rig.worker.view().services[0].service.config.pool };
        let (here, _there, _) = backend.connect().await;
        let mut slot = slot(&rig);
        slot.life = ConnectionLife::begin(&limits(Duration::from_secs(1)), timers.now(), || 0);
        rig.pass(Duration::from_secs(10));
        pool.put(here, slot, 8, timers.now(), counters);
        for (age_max, kept) in [(Duration::ZERO, 1), (Duration::from_secs(11), 1), (Duration::from_secs(9), 0)] {
            pool.expire(&limits(age_max), timers, counters);
            assert_eq!((pool.len(), counters.upstream_idle.get()), (kept, kept as u64), "{age_max:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_kept_than_may_be_none_for_too_long_and_none_once_the_backend_has_gone() {
        let (rig, backend, pool) = (Rig::new(ONE), Backend::new(), Pool::default());
        let counters = &rig.worker.counters;
        let mut ends = Vec::new();
        let mut put = async |pool: &Pool| {
            let (here, there, _) = backend.connect().await;
            ends.push(there);
            pool.put(here, slot(&rig), 2, rig.worker.timers.now(), counters);
        };
        for kept in [1, 2, 2] {
            put(&pool).await;
            assert_eq!(pool.len(), kept);
        }
        // Each that is kept is counted among the backend's, and those that are not are not.
        let view = rig.worker.view();
        assert_eq!(view.services[0].service.live.connections.counts().0, 2);
        assert!(pool.close_one(counters));
        rig.pass(Duration::from_secs(10));
        let then = rig.worker.timers.now();
        put(&pool).await;
        let limits = model::Pool { idle_timeout: Duration::from_secs(5), ..view.services[0].service.config.pool };
        pool.expire(&limits, &rig.worker.timers, counters);
        assert_eq!(pool.len(), 1, "the older one has idled for too long");
        pool.doubt(then, counters);
        assert_eq!(pool.len(), 0, "nothing was heard of it since the one in use began");
        pool.close(counters);
        put(&pool).await;
        assert_eq!((pool.len(), counters.upstream_idle.get()), (0, 0));
        assert_eq!(view.services[0].service.live.connections.counts().0, 0);
    }
}
