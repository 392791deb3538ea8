//! Connections to backends that are opened before a request needs one (`pool.idle_min`): TCP, TLS and what HTTP/2 begins with.
//!
//! Once a second a worker looks at what it has, and begins what is missing of its part, at some time within the next second: neither workers
//! nor proxies that learn at once of a backend that has come up all turn to it at once. A failure is no request's and blames nobody; the
//! next try waits longer each time.

use super::{Connector, open_shared};
use crate::net::timer::Deadline;
use crate::snapshot::Backend;
use crate::snapshot::connection_slot::ConnectionSlot;
use crate::worker::{Upstream, Worker, WorkerService, part_of};
use ringway_config::model::UpstreamProtocol;
use ringway_ring::Slot;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Openings are spread over this time.
const SPREAD: Duration = Duration::from_secs(1);

/// Begins to open what is missing.
pub(crate) fn keep_open(worker: &Rc<Worker>) {
    if !may_open(worker) {
        return;
    }
    for service in worker.view().services.iter().filter(|service| service.service.config.pool.idle_min > 0) {
        let usable = |index: &usize| is_usable(&service.service.backends[*index]);
        for index in (0..service.service.backends.len()).filter(usable) {
            for _ in 0..missing(worker, service, index) {
                service.upstreams[index].ahead.begin();
                let opens = open_one(Rc::clone(worker), Rc::clone(service), Slot(index as u16));
                worker.spawn("the opening of a connection ahead", opens);
            }
        }
    }
}

/// Not while the worker drains, or anything is short.
fn may_open(worker: &Worker) -> bool {
    !worker.is_draining() && !worker.shared.overload.stops_keep_alive() && !worker.shared.shortage.is_tight()
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
    let part = part_of(pool.idle_min, worker.index, worker.shared.workers, index);
    upstream.ahead.due(part, idle as u32, &worker.timers)
}

/// Opens one, and keeps it.
async fn open_one(worker: Rc<Worker>, service: Rc<WorkerService>, slot: Slot) {
    let wait = SPREAD * (worker.random() % 1000) as u32 / 1000;
    tokio::time::sleep(wait).await;
    let index = usize::from(slot.0);
    let upstream = &service.upstreams[index];
    let is_wanted = service.service.is_newest() && is_usable(&service.service.backends[index]) && may_open(&worker);
    let is_open = if is_wanted { open(&worker, &service, slot, upstream).await } else { None };
    if is_open == Some(true) {
        upstream.counters.preconnects.increment();
    }
    upstream.ahead.end(is_open, &worker.timers, worker.random());
}

/// Whether it is open; none if there is no room for it: an idle connection elsewhere does not give way to another that is idle.
async fn open(worker: &Rc<Worker>, service: &WorkerService, slot: Slot, upstream: &Rc<Upstream>) -> Option<bool> {
    let this = &service.service;
    let mut counted = ConnectionSlot::take(this, slot)?;
    match this.config.protocol {
        UpstreamProtocol::H2 => {
            let opening = upstream.shared.open_ahead();
            Some(
                open_shared(Rc::clone(worker), Arc::clone(this), slot, Rc::clone(upstream), opening, Some(counted))
                    .await,
            )
        }
        UpstreamProtocol::Http1 => {
            // Counted as idle from now on: it is not opened to find out that there are as many as are kept.
            counted.begin_idle(this.config.pool.idle_max).then_some(())?;
            let timer = worker.timer();
            let reach = Connector { worker, service, slot, peer: None, limit: Deadline::NEVER, timer: &timer };
            let opened = reach.open_on(counted).await;
            let is_open = opened.is_ok();
            if let Ok((stream, counted)) = opened {
                let now = worker.timers.now();
                upstream.pool.put(stream, counted, this.config.pool.idle_max, now, &worker.counters);
                // A request may wait for a connection: this one can give way.
                this.live.tell_room();
            }
            Some(is_open)
        }
    }
}
