//! What the exchanges of one worker share.

use super::active_listener::ActiveListener;
use super::ahead::Openings;
use super::booked::Booked;
use super::pool::Pool;
use super::sessions::Sessions;
use super::succession::{Backends, Succession};
use super::view::{Upstream, View, WorkerLive, WorkerService};
use crate::ambient;
use crate::codec::http2;
use crate::dispatcher::{Command, Dispatcher, ListenerId, Shared};
use crate::planted::{self, Fault};
use crate::snapshot::{Backend, Service, Snapshot, sets_up_alike};
use ringway_ring::Reader;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{Notify, mpsc};

/// A worker's own state. Never leaves its thread. The part that does not depend on what is served is its [`Dispatcher`].
pub(crate) struct Worker {
    pub(crate) dispatcher: Rc<Dispatcher>,
    draining: Cell<bool>,
    view: RefCell<Rc<View>>,
    snapshots: RefCell<Reader<Snapshot>>,
    pub(crate) listening: RefCell<HashMap<ListenerId, Rc<ActiveListener>, BuildHasherDefault<DefaultHasher>>>,
    /// Connections that are opened before a request needs them.
    pub(crate) openings: Openings,
    /// Names of the services whose keys are counted now: those that have been asked for lately.
    in_use: Rc<RefCell<Vec<Box<str>>>>,
    /// Until when the time of keys is booked that are in flight.
    pub(super) booked: Rc<Booked>,
    /// What they and their requests are, for who asks.
    pub(crate) sessions: Rc<Sessions>,
    /// Client connections that are open.
    pub(super) open: Cell<usize>,
    /// Accept loops that have a socket.
    accepting: Cell<usize>,
    /// A connection or an accept loop has ended.
    pub(crate) all_closed: Notify,
}

impl Deref for Worker {
    type Target = Dispatcher;

    #[inline]
    fn deref(&self) -> &Dispatcher {
        &self.dispatcher
    }
}

/// See [`Worker::accepting`].
pub(crate) struct Accepting(Rc<Worker>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.set(self.0.accepting.get() - 1);
        self.0.all_closed.notify_one();
    }
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let mut snapshots = Reader::new(Arc::clone(&shared.current));
        let snapshot = Arc::clone(snapshots.read());
        let dispatcher = Dispatcher::new(index, shared);
        let timers = Rc::clone(&dispatcher.timers);
        let sessions = Sessions::new(index, Rc::clone(&timers));
        let none = View { snapshot: Arc::clone(&snapshot), services: Box::default(), timers };
        let worker = Self {
            dispatcher,
            draining: Cell::new(false),
            view: RefCell::new(Rc::new(none)),
            snapshots: RefCell::new(snapshots),
            listening: RefCell::default(),
            openings: Openings::default(),
            in_use: Rc::default(),
            booked: Rc::default(),
            sessions,
            open: Cell::new(0),
            accepting: Cell::new(0),
            all_closed: Notify::new(),
        };
        let view = worker.build_view(snapshot);
        *worker.view.borrow_mut() = Rc::new(view);
        Rc::new(worker)
    }

    /// The snapshot in force, read once per request.
    pub(crate) fn view(&self) -> Rc<View> {
        let mut snapshots = self.snapshots.borrow_mut();
        let snapshot = snapshots.read();
        let view = self.view.borrow();
        if Arc::ptr_eq(snapshot, &view.snapshot) {
            return Rc::clone(&view);
        }
        let fresh = Rc::new(self.build_view(Arc::clone(snapshot)));
        drop(view);
        *self.view.borrow_mut() = Rc::clone(&fresh);
        fresh
    }

    /// The view of a version, by what differs from the one before: a service that is the same keeps its part whole, of the others
    /// each backend that is the same keeps its connections. What is left over is closed.
    fn build_view(&self, snapshot: Arc<Snapshot>) -> View {
        let before = Rc::clone(&self.view.borrow());
        let mut succession = Succession::of(&before);
        let parts =
            snapshot.services.iter().enumerate().map(|(index, service)| match succession.find(index, service) {
                Some(old) if Arc::ptr_eq(&old.service, service) => Rc::clone(old),
                old => Rc::new(self.part_of(service, old.map(Rc::as_ref), &mut succession.gone)),
            });
        let services: Box<[_]> = parts.collect();
        for upstream in succession.finish() {
            if !planted::is_planted(Fault::RemovedIdleCounted) {
                upstream.pool.close(&self.counters);
                upstream.shared.close();
            }
        }
        View { services, snapshot, timers: Rc::clone(&self.timers) }
    }

    /// This worker's part of a service that is new, or has changed.
    fn part_of(
        &self,
        service: &Arc<Service>,
        old: Option<&WorkerService>,
        gone: &mut Vec<Rc<Upstream>>,
    ) -> WorkerService {
        let name = service.config.name.as_str();
        let live = match old {
            Some(old) => Rc::clone(&old.live),
            None => Rc::new(WorkerLive::new(self.shared.counters.service(name), &self.in_use, &self.booked)),
        };
        let same_transport = old.is_some_and(|old| old.service.transport == service.transport);
        let mut before = Backends::of(old);
        let same_limits = old.is_some_and(|old| sets_up_alike(&old.service.config, &service.config));
        let of = |backend: &Backend| {
            let found = before.find(backend, gone);
            let goes_on = |known: &Backend| same_transport && backend.has_addresses_of(known);
            let usable = found.filter(|(known, _)| goes_on(known)).map(|(_, upstream)| upstream);
            if let Some(same) = usable.filter(|_| same_limits) {
                return Rc::clone(same);
            }
            // A backend that has moved keeps its counters.
            let counters = found.map(|(_, upstream)| Arc::clone(&upstream.counters));
            gone.extend(found.map(|(_, upstream)| Rc::clone(upstream)));
            let counters = counters.unwrap_or_else(|| self.shared.counters.backend(name, &backend.config.id));
            let shared = usable.map(|before| http2::Shared::succeeding(&before.shared)).unwrap_or_default();
            Rc::new(Upstream { pool: Pool::default(), shared, ahead: <_>::default(), counters })
        };
        let upstreams = service.backends.iter().map(of).collect();
        before.finish(gone);
        let this =
            WorkerService { service: Arc::clone(service), counters: Arc::clone(&live.counters), live, upstreams };
        if !service.config.spread.is_empty() {
            this.begin_use();
        }
        this
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Connections end after their current request from now on.
    pub(crate) fn set_draining(&self) {
        self.draining.set(true);
    }

    /// Counts an accept loop for as long as the value lives.
    pub(crate) fn accepting(self: &Rc<Self>) -> Accepting {
        self.accepting.set(self.accepting.get() + 1);
        Accepting(Rc::clone(self))
    }

    /// Whether idle connections of a closing listener close one by one.
    pub(super) fn spreads(&self) -> bool {
        !self.view().snapshot.config.drain_spread.is_zero()
    }

    /// Nothing is open, about to be accepted, or on its way here from another worker.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.get() == 0 && self.accepting.get() == 0 && self.shared.occupancy.open[self.index].load(Relaxed) == 0
    }

    /// The listener that is open for a key now.
    pub(crate) fn listening_on(&self, key: &ListenerId) -> Option<Rc<ActiveListener>> {
        self.listening.borrow().get(key).cloned()
    }

    /// A worker that has clearly fewer connections than this one. The kernel spreads connections over the workers'
    /// sockets by a hash: with few connections, one worker may get most of them while another idles.
    pub(crate) fn less_busy(&self) -> Option<(usize, &mpsc::UnboundedSender<Command>)> {
        if self.shared.workers == 1 || self.is_draining() {
            return None;
        }
        let counts = || self.shared.occupancy.open.iter().map(|open| open.load(Relaxed)).enumerate();
        // The connection that is about to be passed on is counted here already.
        let own = self.shared.occupancy.open[self.index].load(Relaxed).saturating_sub(1);
        let is_clear = |(_, fewest): &(usize, usize)| own > fewest + 1 + fewest / 8;
        let (mut index, _) = counts().min_by_key(|(_, open)| *open).filter(is_clear)?;
        // One that does not look at what is due would not look at this either.
        let now = ambient::now();
        let answers = |worker: usize| self.shared.overload.ticks.answers(worker, now);
        if !answers(index) {
            (index, _) =
                counts().filter(|(worker, _)| answers(*worker)).min_by_key(|(_, open)| *open).filter(is_clear)?;
        }
        Some((index, self.shared.commands.get()?.get(index)?))
    }

    /// Closes connections to backends that have idled for too long.
    pub(crate) fn expire_idle(&self) {
        for service in &self.view().services {
            let limits = &service.service.config.pool;
            for upstream in &service.upstreams {
                upstream.pool.expire(limits, &self.timers, &self.counters);
                upstream.shared.expire(limits, &self.timers, self.shared.workers);
            }
        }
    }

    /// Closes the connections to backends that are idle; returns how many they were.
    pub(crate) fn release_idle(&self) -> usize {
        let view = self.view();
        let upstreams = view.services.iter().flat_map(|service| &service.upstreams);
        upstreams.map(|upstream| upstream.pool.release(&self.counters)).sum()
    }

    /// Closes an idle connection to a service's backend, or to any of them. `false`: there is none.
    pub(crate) fn close_idle(&self, service: &str, backend: Option<&str>) -> bool {
        let view = self.view();
        let close = |upstream: &Rc<Upstream>| upstream.pool.close_one(&self.counters) || upstream.shared.close_one();
        let Some(service) = view.service(service) else { return false };
        match backend {
            Some(backend) => service.upstream(backend).is_some_and(close),
            None => service.upstreams.iter().any(close),
        }
    }

    /// Idle connections to a service's backend, one that several share counted among them.
    #[cfg(test)]
    pub(crate) fn idle_to(&self, service: &str, backend: &str) -> usize {
        let view = self.view();
        let upstream = view.service(service).and_then(|service| service.upstream(backend));
        upstream.map_or(0, |upstream| upstream.pool.len())
    }

    /// All idle connections, and client connections that are open.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let view = self.view();
        let upstreams = view.services.iter().flat_map(|service| &service.upstreams);
        (upstreams.map(|upstream| upstream.pool.len()).sum(), self.open.get())
    }

    /// Reports to the drivers of the checks which keys this worker has seen, and takes over which are hot: for services that have been
    /// asked for lately, for the others there is nothing to say.
    pub(crate) fn report_hot_keys(&self) {
        let mut in_use = self.in_use.take();
        if in_use.is_empty() {
            return;
        }
        in_use.sort_unstable();
        in_use.dedup();
        let view = self.view();
        in_use.retain(|name| view.service(name).is_some_and(|this| this.stays_in_use(self.report_hot_keys_of(this))));
        self.in_use.borrow_mut().append(&mut in_use);
    }

    /// `true`: there will be more to report, or to take over.
    fn report_hot_keys_of(&self, this: &WorkerService) -> bool {
        let Some(params) = this.service.config.hot_keys else {
            drop((this.live.sketch.take(), this.live.hot.take()));
            return false;
        };
        let least = params.leave / this.service.backends.len().max(1) as f64 / 2.0;
        let mut sketch = this.live.sketch.borrow_mut();
        sketch.handle_time(self.timers.millis(), params.half_life_millis);
        let (report, remembers) = (sketch.report(least), !sketch.is_empty());
        drop(sketch);
        let live = &this.service.live;
        let mut hot = live.hot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let had_work = hot.has_work();
        hot.handle_report(self.index, report);
        let begins = hot.has_work() && !had_work;
        drop(hot);
        if begins {
            // Its driver has had nothing to do.
            live.health_changed.notify_one();
        }
        let table = live.hot_table.load();
        let keeps = remembers || !table.is_empty() || !this.service.config.spread.is_empty();
        *this.live.hot.borrow_mut() = table;
        keeps
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::testing::Rig;
    use std::rc::Rc;

    fn services(a: &str, others: &str) -> String {
        format!(
            "{{ name: s, backends: [ {{ id: a, address: \"{a}\" }}, {{ id: b, address: \"10.0.0.2:80\" }} ] }}{others}"
        )
    }

    #[test]
    fn a_view_is_rebuilt_once_a_version_and_keeps_the_pools_of_what_is_the_same() {
        let mut rig = Rig::new(&services("10.0.0.1:80", ""));
        let first = rig.worker.view();
        assert!(Rc::ptr_eq(&first, &rig.worker.view()));
        rig.apply(&services("10.0.0.9:80", ", { name: t, backends: [ { id: a, address: \"10.0.0.3:80\" } ] }"));
        let second = rig.worker.view();
        assert!(!Rc::ptr_eq(&first, &second) && Rc::ptr_eq(&second, &rig.worker.view()));
        let upstreams = |view: &super::View, index: usize| Rc::clone(&view.services[0].upstreams[index]);
        let (moved, stayed) = (0, 1);
        assert!(Rc::ptr_eq(&upstreams(&first, stayed), &upstreams(&second, stayed)));
        // A connection to the address of before is of no use; what was counted of the backend is.
        let (before, now) = (upstreams(&first, moved), upstreams(&second, moved));
        assert!(!Rc::ptr_eq(&before, &now) && std::sync::Arc::ptr_eq(&before.counters, &now.counters));
        assert!(Rc::ptr_eq(&first.services[0].live, &second.services[0].live));
        assert_eq!((first.services.len(), second.services.len()), (1, 2));
    }

    #[test]
    fn what_goes_on_in_the_next_version_is_found_wherever_it_stands_and_the_rest_is_closed() {
        let backends = |list: &[(&str, u16)]| {
            let list = list.iter().map(|(id, port)| format!("{{ id: {id}, address: \"10.0.0.1:{port}\" }}"));
            list.collect::<Vec<_>>().join(", ")
        };
        let service =
            |name: &str, list: &[(&str, u16)]| format!("{{ name: {name}, backends: [ {} ] }}", backends(list));
        let all = [("b", 2), ("d", 4), ("f", 6), ("h", 8)];
        let first = [service("s", &all), service("t", &[("a", 1)]), service("u", &[("a", 1)])];
        let mut rig = Rig::new(&first.join(", "));
        let before = rig.worker.view();
        // Others come before, between and behind those that stay; `d` moves, `f` goes; services stand elsewhere, `t` goes.
        let next = [("a", 1), ("b", 2), ("c", 3), ("d", 9), ("g", 7), ("h", 8), ("i", 9)];
        rig.apply(&[service("u", &[("a", 1)]), service("s", &next), service("v", &[("a", 1)])].join(", "));
        let now = rig.worker.view();
        let part = |view: &super::View, name: &str| Rc::clone(view.service(name).unwrap());
        assert!(Rc::ptr_eq(&part(&before, "u"), &part(&now, "u")));
        let upstream = |view: &super::View, name: &str, id: &str| Rc::clone(part(view, name).upstream(id).unwrap());
        for id in ["b", "h"] {
            assert!(Rc::ptr_eq(&upstream(&before, "s", id), &upstream(&now, "s", id)), "{id}");
            assert!(!upstream(&now, "s", id).pool.is_closed());
        }
        let (old, new) = (upstream(&before, "s", "d"), upstream(&now, "s", "d"));
        assert!(!Rc::ptr_eq(&old, &new) && std::sync::Arc::ptr_eq(&old.counters, &new.counters));
        for gone in [old, upstream(&before, "s", "f"), upstream(&before, "t", "a")] {
            assert!(gone.pool.is_closed());
        }
        assert!(Rc::ptr_eq(&part(&before, "s").live, &part(&now, "s").live));
        // Gone and come again before this worker has looked: another, which what was before does not count for.
        rig.apply(&[service("s", &[("b", 2)]), service("v", &[("a", 1)])].join(", "));
        rig.apply(&[service("u", &[("a", 1)]), service("s", &next), service("v", &[("a", 1)])].join(", "));
        let again = rig.worker.view();
        // Something has still run on that backend: its state was kept.
        for id in ["b", "h"] {
            assert!(Rc::ptr_eq(&upstream(&now, "s", id), &upstream(&again, "s", id)));
        }
        let (old, new) = (upstream(&now, "u", "a"), upstream(&again, "u", "a"));
        assert!(!Rc::ptr_eq(&old, &new) && old.pool.is_closed() && !new.pool.is_closed());
        assert!(!Rc::ptr_eq(&part(&now, "u").live, &part(&again, "u").live));
    }

    #[test]
    fn connections_go_on_as_long_as_the_backend_has_the_addresses_that_they_may_lead_to() {
        let service = |addresses: &str| format!("{{ name: s, backends: [ {{ id: a, {addresses} }} ] }}");
        let (four, six) = ("address: \"10.0.0.1:1\"", "address: \"[::1]:1\"");
        let (both, turned) = (format!("{four}, additional_{six}"), format!("{six}, additional_{four}"));
        let other = format!("{four}, additional_address: \"[::2]:1\"");
        let mut rig = Rig::new(&service(four));
        for (next, goes_on) in [
            (both.as_str(), true),
            (&turned, true),
            (six, false),
            (&both, true),
            (&other, false),
            (four, false),
            (&other, true),
        ] {
            let before = Rc::clone(rig.worker.view().services[0].upstream("a").unwrap());
            rig.apply(&service(next));
            let now = Rc::clone(rig.worker.view().services[0].upstream("a").unwrap());
            assert_eq!((Rc::ptr_eq(&before, &now), before.pool.is_closed()), (goes_on, !goes_on), "{next}");
        }
    }

    #[test]
    fn a_hot_key_that_workers_report_is_taken_over_by_all() {
        let service = "{ name: s, balance: { hash_key: [ { header: x } ], hot_keys: {} }, \
                       backends: [ { id: a, address: \"10.0.0.1:80\" }, { id: b, address: \"10.0.0.2:80\" } ] }";
        let rig = Rig::new(service);
        let view = rig.worker.view();
        let this = &view.services[0];
        (0..1_000).for_each(|_| this.count_key(7, 1_000));
        rig.worker.report_hot_keys();
        let params = this.service.config.hot_keys.expect("it looks for them");
        assert!(this.service.live.hot.lock().is_ok_and(|mut hot| hot.update(&params, 2)));
        let table = [(7, 2)].into_iter().collect();
        this.service.live.hot_table.store(std::sync::Arc::new(table));
        rig.worker.report_hot_keys();
        assert_eq!(this.live.hot.borrow().get(&7), Some(&2));
    }
}
