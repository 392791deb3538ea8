//! Connections to backends that are opened before a request needs one (`pool.idle_min`): TCP, TLS and what HTTP/2 begins with.
//!
//! Once a second a worker looks at what it has, and begins what is missing of its part, at some time within the next second: neither workers
//! nor proxies that learn at once of a backend that has come up all turn to it at once. A failure is no request's and blames nobody; the
//! next try waits longer each time.

use super::{Connector, open_shared};
use crate::error::ProxyError;
use crate::net::timer::Deadline;
use crate::snapshot::Backend;
use crate::snapshot::connection_slot::{ConnectionSlot, OpeningAhead};
use crate::worker::{Seen, Upstream, Worker, WorkerService, part_of};
use ringway_config::model::UpstreamProtocol;
use ringway_ring::Slot;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Openings are spread over this time.
const SPREAD: Duration = Duration::from_secs(1);
/// Of `idle_timeout`: what is opened at once is not all to be too old at once.
const AGE_DRAWN: u32 = 10;

/// One that is under way, counted as long as this lives.
struct Begun {
    worker: Rc<Worker>,
    upstream: Rc<Upstream>,
    /// Number of the look that has begun it.
    look: u32,
}

impl Begun {
    fn begin(worker: &Rc<Worker>, upstream: &Rc<Upstream>, look: u32) -> Self {
        worker.openings.begin();
        upstream.ahead.begin();
        Self { worker: Rc::clone(worker), upstream: Rc::clone(upstream), look }
    }

    fn handle(&self, opened: Result<(), ProxyError>) {
        let (timers, ahead) = (&self.worker.timers, &self.upstream.ahead);
        match opened {
            Ok(()) => {
                self.upstream.counters.preconnects.increment();
                ahead.handle_open();
            }
            Err(ProxyError::LocalShortage) => self.worker.openings.handle_shortage(timers),
            Err(_) => ahead.handle_failure(self.look, timers, self.worker.random()),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.worker.openings.end();
        self.upstream.ahead.end();
    }
}

/// Begins to open what is missing. As much as may be under way at once: the next look goes on from there.
pub(crate) fn keep_open(worker: &Rc<Worker>) {
    let view = worker.view();
    let keeps = |service: &&Rc<WorkerService>| service.service.config.pool.idle_min > 0;
    let all = view.services.iter().filter(keeps).map(|service| service.upstreams.len()).sum();
    if all == 0 || !may_open(worker) {
        return;
    }
    let first = worker.openings.first(all);
    let backends = || {
        view.services.iter().filter(keeps).flat_map(|this| (0..this.upstreams.len()).map(move |index| (this, index)))
    };
    for (number, (service, index)) in backends().enumerate().cycle().skip(first).take(all) {
        if !worker.openings.has_room() {
            return worker.openings.stop_at(number);
        }
        begin(worker, service, index);
    }
}

/// Begins what is missing to one backend.
fn begin(worker: &Rc<Worker>, service: &Rc<WorkerService>, index: usize) {
    let upstream = &service.upstreams[index];
    if !is_usable(&service.service.backends[index]) {
        return upstream.ahead.reset();
    }
    let missing = missing(worker, service, index);
    if missing == 0 {
        return;
    }
    let look = upstream.ahead.next_look();
    for _ in 0..missing {
        let begun = Begun::begin(worker, upstream, look);
        let opens = open_one(begun, Rc::clone(service), Slot(index as u16));
        worker.spawn("the opening of a connection ahead", opens);
    }
}

/// Not while the worker drains, or anything is short.
fn may_open(worker: &Worker) -> bool {
    !worker.is_draining()
        && !worker.shared.overload.stops_keep_alive()
        && !worker.openings.is_paused(&worker.timers)
        && worker.shared.shortage.bears_more()
}

/// Whether it takes new requests, and is believed to be up.
fn is_usable(backend: &Backend) -> bool {
    let load = &backend.state.load;
    let takes = backend.config.weight > 0 && !backend.config.drain && !backend.config.maintenance;
    takes && load.active_fraction() > 0 && !load.is_doubted()
}

/// How many this worker begins to open now.
fn missing(worker: &Worker, service: &WorkerService, index: usize) -> u32 {
    let pool = &service.service.config.pool;
    let upstream = &service.upstreams[index];
    let idle = match service.service.config.protocol {
        UpstreamProtocol::Http1 => upstream.pool.len(),
        UpstreamProtocol::H2 => upstream.shared.len(),
    };
    let turn = xxhash_rust::xxh3::xxh3_64(service.service.backends[index].config.id.as_bytes());
    let part = part_of(pool.idle_min, worker.index, worker.shared.workers, turn);
    let seen = Seen { idle: idle as u32, requests: upstream.counters.requests.get() };
    upstream.ahead.due(part, seen, &worker.timers, worker.random())
}

/// The newest version of a worker's part that has this backend, and where: another one may be in force since the opening was begun.
fn newest(
    worker: &Worker,
    service: &WorkerService,
    slot: Slot,
    upstream: &Rc<Upstream>,
) -> Option<(Rc<WorkerService>, Slot)> {
    let view = worker.view();
    let name = &service.service.config.name;
    let this = view.service(name)?;
    let slot = this.service.slot_of(&service.service.backends[usize::from(slot.0)].config.id)?;
    Rc::ptr_eq(&this.upstreams[usize::from(slot.0)], upstream).then(|| (Rc::clone(this), slot))
}

/// Opens one, and keeps it.
async fn open_one(begun: Begun, service: Rc<WorkerService>, slot: Slot) {
    let worker = &begun.worker;
    let wait = SPREAD * (worker.random() % 1000) as u32 / 1000;
    tokio::time::sleep(wait).await;
    let Some((service, slot)) = newest(worker, &service, slot, &begun.upstream) else { return };
    let is_wanted = service.service.config.pool.idle_min > 0
        && is_usable(&service.service.backends[usize::from(slot.0)])
        && may_open(worker);
    if is_wanted && let Some(opened) = open(worker, &service, slot, &begun.upstream).await {
        begun.handle(opened);
    }
}

/// Opens one; none if there is no room for it: an idle connection elsewhere does not give way to another that is idle, and this one gives
/// way to what a request needs.
async fn open(
    worker: &Rc<Worker>,
    service: &WorkerService,
    slot: Slot,
    upstream: &Rc<Upstream>,
) -> Option<Result<(), ProxyError>> {
    let connections = &service.service.live.connections;
    let _ahead = OpeningAhead::begin(connections);
    tokio::select! {
        biased;
        opened = open_in_room(worker, service, slot, upstream) => opened,
        () = connections.wanted() => None,
    }
}

async fn open_in_room(
    worker: &Rc<Worker>,
    service: &WorkerService,
    slot: Slot,
    upstream: &Rc<Upstream>,
) -> Option<Result<(), ProxyError>> {
    let this = &service.service;
    let mut counted = ConnectionSlot::take(this, slot)?;
    match this.config.protocol {
        UpstreamProtocol::H2 => {
            let opening = upstream.shared.open_ahead();
            let (worker, this) = (Rc::clone(worker), (Arc::clone(this), Arc::clone(&service.counters)));
            Some(open_shared(worker, this, slot, Rc::clone(upstream), opening, Some(counted)).await)
        }
        UpstreamProtocol::Http1 => {
            let pool = &this.config.pool;
            // Counted as idle from now on: it is not opened to find out that there are as many as are kept.
            counted.begin_idle(pool.idle_max).then_some(())?;
            let timer = worker.timer();
            let reach = Connector { worker, service, slot, peer: None, limit: Deadline::NEVER, timer: &timer };
            let (stream, counted) = match reach.open_on(counted, false).await {
                Ok(opened) => opened,
                Err(error) => return Some(Err(error)),
            };
            let drawn = pool.idle_timeout / AGE_DRAWN * (worker.random() % 1000) as u32 / 1000;
            upstream.pool.put(stream, counted, pool.idle_max, worker.timers.before(drawn), &worker.counters);
            // A request may wait for a connection: this one can give way.
            this.live.tell_room();
            Some(Ok(()))
        }
    }
}
