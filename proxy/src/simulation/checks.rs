//! Invariants that hold whenever the world is idle: counts match the scripts' side of the network, limits are kept, and at the end
//! everything has been released.

use super::handing;
use super::ledger::Said;
use super::setup::SERVICES;
use super::world::World;
use crate::ambient;
use crate::net::transport::memory::Wire;
use crate::snapshot::{Backend, Service};
use ringway_config::model::KEPT_BYTES_MAX;
use std::sync::atomic::Ordering::Relaxed;

/// Ringway's own bound on the work it has begun beside requests.
const COPIES_MAX: usize = 1024;

/// At any time between two steps.
pub(super) fn at_any_time(world: &World) {
    let mut wrong = Vec::new();
    clients(world, &mut wrong);
    for service in &world.snapshot().services {
        upstreams(world, service, &mut wrong);
        limits(world, service, &mut wrong);
    }
    workers(world, &mut wrong);
    leaving(world, &mut wrong);
    streams(world, &mut wrong);
    handing::at_any_time(world, &mut wrong);
    wrong.iter().for_each(|what| world.ledger().violation(what));
}

/// Connections that the proxy holds, as the network shows them, and as it counts them itself.
fn clients(world: &World, wrong: &mut Vec<String>) {
    let mut all = 0;
    for (address, (_, permits)) in &*world.listeners.borrow() {
        let held = world.network.wires_to(*address).iter().filter(|wire| wire.is_held_by_acceptor()).count();
        let queued = world.network.queued_at(*address);
        let taken = permits.fullness(ambient::now()).taken;
        all += taken;
        // A connection that waits for a permit has been accepted, one a worker; some get a local reply as they are turned away.
        let farewells: u32 = world.loops.borrow().iter().map(|one| one.frontend().farewells.get()).sum();
        let most = held - queued;
        let least = most.saturating_sub(farewells as usize + world.shared.workers);
        if taken < least || taken > most {
            wrong.push(format!(
                "{taken} places are taken at {address}, and {held} connections are held, {queued} not accepted yet"
            ));
        }
        let limit = world.setup().limits.clients as usize;
        if address.port() == 80 && limit > 0 && taken > limit {
            wrong.push(format!("{taken} places are taken at {address}, and {limit} may be"));
        }
    }
    let counted = world.shared.occupancy.connections.load(Relaxed);
    let open: usize = world.shared.occupancy.open.iter().map(|open| open.load(Relaxed)).sum();
    let tasks: usize = world.workers.borrow().iter().map(|worker| worker.counts().1).sum();
    let counters: u64 = world.workers.borrow().iter().map(|worker| worker.counters.connections.get()).sum();
    if [counted, open, tasks, counters as usize] != [all; 4] {
        wrong.push(format!(
            "{all} places are taken; the process counts {counted}, workers {open} and {tasks}, metrics {counters}"
        ));
    }
}

/// Requests in flight on a service's backends, and connections to them.
fn upstreams(world: &World, service: &Service, wrong: &mut Vec<String>) {
    let name = service.config.name.as_str();
    let shared = service.config.protocol == ringway_config::model::UpstreamProtocol::H2;
    let (mut open, mut in_flight_all) = (0, 0);
    for backend in &service.backends {
        let wires = world.network.wires_to(backend.config.address);
        let held = wires.iter().filter(|wire| wire.is_held_by_connector()).count();
        let connecting = world.network.connecting_to(backend.config.address);
        let idle: usize = world.workers.borrow().iter().map(|worker| worker.idle_to(name, &backend.config.id)).sum();
        let in_flight = backend.state.load.in_flight() as usize;
        let connections = backend.state.connections.load(Relaxed) as usize;
        let (_, wanting) = service.live.connections.counts();
        let id = &backend.config.id;
        let used = held + connecting - idle.min(held);
        in_flight_all += in_flight;
        open += connections;
        if connections != held + connecting {
            wrong.push(format!(
                "{id}: {connections} connections are counted, {held} are held and {connecting} being opened"
            ));
        }
        // A request that waits until another connection has been closed has its reservation already.
        if !shared && (in_flight < used || in_flight > used + wanting as usize) {
            wrong.push(format!(
                "{id}: {in_flight} requests are in flight, and {used} connections in use ({held} held, {connecting} being opened, {idle} idle)"
            ));
        }
        let config = &backend.config;
        for (what, count, most) in [
            ("connections", connections as u32, config.connections_max),
            ("retries", backend.state.retrying.load(Relaxed), config.retries_max),
            ("waiting", backend.state.pending.load(Relaxed), config.pending_max),
        ] {
            // A limit that was lowered holds for new ones.
            if count > most && !world.was_lowered() {
                wrong.push(format!("{id}: {count} {what}, and {most} may be"));
            }
        }
    }
    let waiting = service.live.line.waiting();
    let has_room = |backend: &Backend| {
        let (load, config) = (&backend.state.load, &backend.config);
        load.active_fraction() > 0 && !config.drain && load.in_flight() < config.requests_max
    };
    let simple = world.setup().has_simple_queue() && !world.was_unreachable() && service.backends.iter().any(has_room);
    if waiting > 0 && !shared && (simple || in_flight_all == 0 && !world.was_changed()) {
        let room: Vec<_> = service.backends.iter().filter(|backend| has_room(backend)).collect();
        let told = room
            .iter()
            .map(|backend| (&backend.config.id, backend.state.load.in_flight(), backend.state.load.active_fraction()));
        wrong.push(format!("{name}: {waiting} wait for room, and there is some: {:?}", told.collect::<Vec<_>>()));
    }
    let (counted, _) = service.live.connections.counts();
    if (counted as usize) < open {
        wrong.push(format!("{name}: {counted} connections are counted, and {open} are its backends'"));
    }
    let total = service.live.total.sum() as usize;
    if total < in_flight_all {
        wrong.push(format!("{name}: {total} requests are in flight, and {in_flight_all} on its backends"));
    }
    if world.setup().gone.is_empty() && !world.was_changed() && (total != in_flight_all || counted as usize != open) {
        wrong.push(format!(
            "{name}: {total} in flight and {counted} connections; backends have {in_flight_all} and {open}"
        ));
    }
}

fn limits(world: &World, service: &Service, wrong: &mut Vec<String>) {
    let (live, config) = (&service.live, &service.config);
    for (what, count, most) in [
        ("requests", live.admitted.load(Relaxed), config.requests_max),
        ("connections", live.connections.counts().0, config.connections_max),
        ("connected", live.connected.held(), config.connections_max),
        ("waiting", live.pending.load(Relaxed), config.pending_max),
        ("retries", live.retrying.load(Relaxed), config.retries_max),
        ("queued", live.line.waiting(), config.queue.length_max),
    ] {
        if count > most && !world.was_lowered() {
            wrong.push(format!("{}: {count} {what}, and {most} may be", config.name));
        }
    }
}

/// No work is under way for a client that has left.
fn leaving(world: &World, wrong: &mut Vec<String>) {
    let ledger = world.ledger();
    for ((backend, _), (id, wire)) in &*world.serving.borrow() {
        let Some(record) = ledger.records.get(id) else { continue };
        let all = record.tries.iter().any(|made| made.said == Said::All);
        if record.gone && !all && wire.is_held_by_connector() {
            wrong.push(format!("request {id} is in flight on {backend}, and its client has left"));
        }
    }
}

/// Streams that backends serve are in flight, and their clients are connected.
fn streams(world: &World, wrong: &mut Vec<String>) {
    let (ledger, snapshot) = (world.ledger(), world.snapshot());
    let streams = world.streams.borrow();
    for (backend, id, number) in &*streams {
        let Some(record) = ledger.records.get(id) else { continue };
        let is_at_it = record.tries.get(*number).is_some_and(|made| made.said == Said::Something && !made.stale);
        if record.gone && is_at_it {
            wrong.push(format!("request {id} is in flight on {backend}, and its client has left"));
        }
    }
    for backend in
        snapshot.services.iter().filter(|service| service.config.name == "grpc").flat_map(|service| &service.backends)
    {
        let id = &backend.config.id;
        let at_it = |made: &&(String, u64, usize)| {
            let tries = ledger.records.get(&made.1).map(|record| &record.tries);
            // A backend whose connection is dead is not notified that the stream is given up.
            made.0 == *id && tries.is_some_and(|tries| tries[made.2].said == Said::Something && !tries[made.2].stale)
        };
        let (count, in_flight) = (streams.iter().filter(at_it).count(), backend.state.load.in_flight() as usize);
        if in_flight < count {
            wrong.push(format!("{id}: {in_flight} requests are in flight, and it is at {count}"));
        }
    }
}

fn workers(world: &World, wrong: &mut Vec<String>) {
    for worker in &*world.workers.borrow() {
        let (idle, _) = worker.counts();
        let index = worker.index;
        if worker.counters.upstream_idle.get() != idle as u64 {
            wrong.push(format!(
                "worker {index}: {} idle connections are counted, and {idle} kept",
                worker.counters.upstream_idle.get()
            ));
        }
        for service in &worker.view().services {
            let most = service.service.config.pool.streams_max as usize;
            for (connections, streams) in service.upstreams.iter().map(|upstream| upstream.shared.counts()) {
                if streams > connections * most {
                    wrong.push(format!(
                        "worker {index}: {streams} streams on {connections} connections, each of which may have {most}"
                    ));
                }
            }
        }
        if worker.kept_bytes.get() > KEPT_BYTES_MAX || worker.mirroring.get() > COPIES_MAX {
            wrong.push(format!(
                "worker {index}: {} bytes kept, {} copies",
                worker.kept_bytes.get(),
                worker.mirroring.get()
            ));
        }
    }
}

/// No client is connected any more: no work goes on.
pub(super) fn after_the_last_request(world: &World) {
    at_any_time(world);
    let mut wrong = Vec::new();
    for service in &world.snapshot().services {
        let (live, name) = (&service.live, &service.config.name);
        let counts = [
            ("in flight", live.total.sum()),
            ("admitted", u64::from(live.admitted.load(Relaxed))),
            ("retrying", u64::from(live.retrying.load(Relaxed))),
            ("waiting", u64::from(live.pending.load(Relaxed))),
            ("connected", u64::from(live.connected.held())),
            ("queued", u64::from(live.line.waiting())),
            ("wanting", u64::from(live.connections.counts().1)),
        ];
        wrong.extend(
            counts
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(what, count)| format!("{name}: {count} {what} in the end")),
        );
        for backend in &service.backends {
            let state = &backend.state;
            let counts = [
                ("in flight", state.load.in_flight()),
                ("retrying", state.retrying.load(Relaxed)),
                ("waiting", state.pending.load(Relaxed)),
            ];
            let kept = counts.iter().filter(|(_, count)| *count > 0);
            wrong.extend(kept.map(|(what, count)| format!("{}: {count} {what} in the end", state.id)));
        }
    }
    for one in &*world.loops.borrow() {
        let (worker, frontend) = (one.worker(), one.frontend());
        let counts = [
            ("bytes kept", worker.kept_bytes.get()),
            ("copies", worker.mirroring.get()),
            ("answers being compressed", worker.compressing.get()),
            ("large buffers out", worker.buffers.large_out()),
            ("sessions listed", worker.sessions.counts().1),
            ("farewells", frontend.farewells.get() as usize),
        ];
        let kept = counts.iter().filter(|(_, count)| *count > 0);
        wrong.extend(kept.map(|(what, count)| format!("worker {}: {count} {what} in the end", worker.index)));
    }
    wrong.iter().for_each(|what| world.ledger().violation(what));
}

/// The world has been idle for minutes, and no client is connected.
pub(super) fn at_rest(world: &World) {
    after_the_last_request(world);
    let mut wrong = Vec::new();
    let held = world
        .network
        .wires()
        .iter()
        .filter(|wire| wire.is_held_by_connector() || Wire::is_held_by_acceptor(wire))
        .count();
    if held > 0 {
        wrong.push(format!("{held} connections are held in the end"));
    }
    for service in &world.snapshot().services {
        let open = service.live.connections.counts().0;
        if open > 0 {
            wrong.push(format!("{}: {open} connections are counted in the end", service.config.name));
        }
    }
    for one in &*world.loops.borrow() {
        let (worker, frontend) = (one.worker(), one.frontend());
        let (timers, tasks) = (worker.timers.in_use(), frontend.streams.waiting());
        if timers > 0 || tasks > 0 {
            wrong.push(format!("worker {}: {timers} timers and {tasks} tasks in the end", worker.index));
        }
        let listed = worker.sessions.counts().0;
        if listed > 0 {
            wrong.push(format!("worker {}: {listed} connections are listed in the end", worker.index));
        }
    }
    debug_assert_eq!(SERVICES.len(), 3);
    handing::at_rest(world, &mut wrong);
    wrong.iter().for_each(|what| world.ledger().violation(what));
}
