//! `/metrics`: what is read at a scrape; the data path's own counters are rendered by telemetry.

use super::peak_share::peak_share;
use super::reply::{self, Reply};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::dispatcher::{Fullness, ListenerPermits};
use crate::overload::Resource;
use crate::snapshot::{Service, Snapshot};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use ringway_config::model::{Priority, ShedScope};
use ringway_health::{Reason, STATES};
use ringway_ring::{FULL_SHARE, Load, Slot};
use ringway_telemetry::catalogue::{self, Metric};
use ringway_telemetry::counters::{CLASS_NAMES, Cell};
use ringway_telemetry::exposition::{Format, LabelSets, Page};
use ringway_telemetry::listener::{ListenerCounters, TLS_VERSIONS};
use ringway_telemetry::{OfBackends, process};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

type OfListener = fn(&Fullness) -> f64;

const LISTENER_METRICS: [(Metric, OfListener); 4] = [
    (catalogue::LISTENER_CONNECTIONS, |full| full.taken as f64),
    (catalogue::LISTENER_FULL, |full| f64::from(u8::from(full.is_full))),
    (catalogue::LISTENER_FULL_TIMES, |full| full.count as f64),
    (catalogue::LISTENER_FULL_SECONDS, |full| full.time.as_secs_f64()),
];

type Counted = fn(&ListenerCounters) -> &Cell;

const LISTENER_COUNTERS: [(Metric, Counted); 4] = [
    (catalogue::LISTENER_ACCEPTED, |counters| &counters.accepted),
    (catalogue::LISTENER_CLOSED, |counters| &counters.closed),
    (catalogue::LISTENER_RECEIVED_BYTES, |counters| &counters.received_bytes),
    (catalogue::LISTENER_SENT_BYTES, |counters| &counters.sent_bytes),
];

/// By slot, with the shares of the key space.
type OfBackend = fn(&Service, usize, &[f64]) -> f64;

const BACKEND_METRICS: [(Metric, OfBackend); 6] = [
    (catalogue::BACKEND_SHED, |service, index, _| {
        f64::from(service.backends[index].state.load.shed()) / f64::from(FULL_SHARE)
    }),
    (catalogue::BACKEND_CONNECTIONS, |service, index, _| {
        f64::from(service.backends[index].state.connections.load(Relaxed))
    }),
    (catalogue::BACKEND_IN_FLIGHT, |service, index, _| f64::from(service.backends[index].state.load.in_flight())),
    (catalogue::BACKEND_CAP, |service, index, _| match service.backend_set.cap(Slot(index as u16)) {
        u32::MAX => f64::INFINITY,
        cap => f64::from(cap),
    }),
    (catalogue::BACKEND_SHARE, |_, index, shares| shares[index]),
    (catalogue::BACKEND_ACCEPT, |service, index, _| {
        f64::from(service.backends[index].state.load.active_fraction()) / f64::from(FULL_SHARE)
    }),
];

/// Of services whose backends have limits that follow latency.
type OfLoad = fn(&Load) -> f64;

const LIMIT_METRICS: [(Metric, OfLoad); 2] = [
    (catalogue::BACKEND_CONCURRENCY_LIMIT, |load| f64::from(load.limit())),
    (catalogue::BACKEND_CONCURRENCY_LIMITED, |load| load.limited() as f64),
];

/// The metrics, in the form that the client asks for. The page is made beside the thread that checks and reloads.
pub(super) async fn respond(control: &ControlHandle, headers: &HeaderMap) -> Reply {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::of_accept(&accept.join(","));
    let asked = control.clone();
    let Some(page) = control.scrapes().page(format, move || page(&asked, format)).await else {
        return reply::error(StatusCode::INTERNAL_SERVER_ERROR, "the page has ended before its time");
    };
    let mut reply = Response::new(page);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    ringway_page::encoded(reply, headers)
}

/// The page. Samples of one metric stand together: that is the format's rule.
fn page(control: &ControlHandle, format: Format) -> String {
    let snapshot = control.snapshot();
    let (of_backends, reduced) = snapshot.backend_metrics();
    control.metrics().page(format, of_backends, |page| {
        page.single(&catalogue::GENERATION, snapshot.generation as f64);
        page.single(&catalogue::BACKENDS_REDUCED, reduced as f64);
        overload(control, page);
        topology(control, page);
        listeners(control, &snapshot, page);
        page.head(&catalogue::CERTIFICATE_NOT_AFTER);
        for end in &snapshot.certificates {
            let labels = [end.used_by, &end.name, &end.path.display().to_string()];
            page.sample(&catalogue::CERTIFICATE_NOT_AFTER, &labels, end.validity.not_after as f64);
        }
        let shares: Vec<Vec<f64>> = snapshot.services.iter().map(|service| service.backend_set.shares()).collect();
        services(&snapshot, &shares, page);
        if of_backends > OfBackends::Nothing {
            let labels: Vec<LabelSets> = snapshot.services.iter().map(|service| labels(service)).collect();
            backends(&snapshot, &shares, &labels, page);
            if of_backends == OfBackends::All {
                states(&snapshot, &labels, page);
            }
        }
        process::write(page);
    })
}

fn overload(control: &ControlHandle, page: &mut Page) {
    let overload = control.overload();
    page.single(&catalogue::OVERLOAD_STAGE, f64::from(overload.stage() as u8));
    page.head(&catalogue::OVERLOAD_REFUSED);
    for priority in [Priority::Low, Priority::Default, Priority::High] {
        page.sample(&catalogue::OVERLOAD_REFUSED, &[priority.name()], overload.refused_share(priority));
    }
    page.head(&catalogue::OVERLOAD_PRESSURE);
    for resource in Resource::ALL {
        page.sample(&catalogue::OVERLOAD_PRESSURE, &[resource.name()], overload.pressure(resource));
    }
    let lags = || overload.ticks.found();
    of_each_worker(page, &catalogue::WORKER_LAG, lags().map(|found| found.lag.as_secs_f64()));
    of_each_worker(page, &catalogue::WORKER_BUSY, overload.busy.ratios());
    of_each_worker(page, &catalogue::WORKER_STUCK, lags().map(|found| f64::from(u8::from(found.is_stuck))));
}

fn of_each_worker(page: &mut Page, metric: &Metric, numbers: impl Iterator<Item = f64>) {
    page.head(metric);
    for (worker, number) in numbers.enumerate() {
        page.sample(metric, &[&worker.to_string()], number);
    }
}

fn topology(control: &ControlHandle, page: &mut Page) {
    let Some(topology) = control.topology() else { return };
    let age = topology.age.map_or(f64::INFINITY, |age| age.as_secs_f64());
    page.single(&catalogue::TOPOLOGY_AGE, age);
    page.single(&catalogue::TOPOLOGY_REVISION, topology.revision as f64);
    page.single(&catalogue::TOPOLOGY_EPOCH, topology.epoch as f64);
    page.single(&catalogue::TOPOLOGY_CONNECTED, f64::from(u8::from(topology.member.is_some())));
    page.single(&catalogue::TOPOLOGY_STUCK, f64::from(u8::from(topology.stuck.is_some())));
}

fn listeners(control: &ControlHandle, snapshot: &Snapshot, page: &mut Page) {
    let known: HashMap<String, Arc<ListenerPermits>> = control.listener_permits();
    let listeners = snapshot.config.listeners.iter();
    let all: Vec<(&str, &ListenerPermits)> =
        listeners.clone().filter_map(|listener| Some((&*listener.name, &**known.get(&listener.name)?))).collect();
    let with_tls = listeners.filter(|listener| listener.tls.is_some());
    let with_tls: Vec<(&str, &ListenerPermits)> =
        with_tls.filter_map(|listener| Some((&*listener.name, &**known.get(&listener.name)?))).collect();
    let now = ambient::now();
    for (metric, read) in LISTENER_METRICS {
        page.head(&metric);
        all.iter().for_each(|(name, permits)| page.sample(&metric, &[name], read(&permits.fullness(now))));
    }
    for (metric, pick) in LISTENER_COUNTERS {
        page.head(&metric);
        all.iter().for_each(|(name, permits)| page.sample(&metric, &[name], permits.numbers.sum(pick) as f64));
    }
    page.head(&catalogue::LISTENER_REQUESTS);
    for (name, permits) in &all {
        for (class, label) in CLASS_NAMES.iter().enumerate() {
            let sum = permits.numbers.sum(|counters| &counters.requests[class]);
            page.sample(&catalogue::LISTENER_REQUESTS, &[name, label], sum as f64);
        }
    }
    page.head(&catalogue::TLS_HANDSHAKES);
    for (name, permits) in &with_tls {
        for (index, version) in TLS_VERSIONS.iter().enumerate() {
            for (resumed, label) in ["false", "true"].iter().enumerate() {
                let sum = permits.numbers.sum(|counters| &counters.handshakes[index][resumed]);
                page.sample(&catalogue::TLS_HANDSHAKES, &[name, version, label], sum as f64);
            }
        }
    }
    page.head(&catalogue::TLS_HANDSHAKE_ERRORS);
    for (name, permits) in &with_tls {
        for (reason, count) in permits.numbers.handshake_errors() {
            page.sample(&catalogue::TLS_HANDSHAKE_ERRORS, &[name, reason], count as f64);
        }
    }
}

fn services(snapshot: &Snapshot, shares: &[Vec<f64>], page: &mut Page) {
    let services = || snapshot.services.iter().map(|service| (&*service.config.name, service));
    page.head(&catalogue::RING_DIGEST);
    for (name, service) in services() {
        if let Some(digest) = service.ring_digest() {
            page.sample(&catalogue::RING_DIGEST, &[name, &format!("{digest:016x}")], 1.0);
        }
    }
    page.head(&catalogue::PANIC_MODE);
    for (name, service) in services() {
        page.sample(&catalogue::PANIC_MODE, &[name], f64::from(u8::from(service.live.health().is_panic())));
    }
    page.head(&catalogue::BACKENDS_STANDING_OUT);
    for (name, service) in services() {
        let standing_out = service.live.standing_out();
        for reason in Reason::ALL {
            let count = standing_out.count(reason) as f64;
            page.sample(&catalogue::BACKENDS_STANDING_OUT, &[name, reason.name()], count);
        }
    }
    page.head(&catalogue::HOT_KEYS);
    for (name, service) in services() {
        page.sample(&catalogue::HOT_KEYS, &[name], service.live.hot_table.load().len() as f64);
    }
    let in_fleet =
        || services().filter(|(_, service)| service.config.shed.is_some_and(|shed| shed.scope == ShedScope::Fleet));
    let now = ambient::now();
    page.head(&catalogue::FLEET_TABLE_AGE);
    for (name, service) in in_fleet() {
        let age = service.live.fleet_bounds.in_force(now).map_or(f64::INFINITY, |(_, age)| age.as_secs_f64());
        page.sample(&catalogue::FLEET_TABLE_AGE, &[name], age);
    }
    page.head(&catalogue::FLEET_TABLE_REFUSED);
    for (name, service) in in_fleet() {
        page.sample(&catalogue::FLEET_TABLE_REFUSED, &[name], service.live.fleet_bounds.refused().1 as f64);
    }
    page.head(&catalogue::HANDOFF_PROGRESS);
    for (name, service) in services().filter(|(_, service)| service.config.handoff.is_some()) {
        page.sample(&catalogue::HANDOFF_PROGRESS, &[name], service.handoff.progress(now));
    }
    page.head(&catalogue::KEYS_MOVED);
    for (name, service) in services() {
        let (moved, _) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
        page.sample(&catalogue::KEYS_MOVED, &[name], moved);
    }
    page.head(&catalogue::PEAK_SHARE);
    for ((name, service), shares) in services().zip(shares).filter(|((_, service), _)| service.hashes()) {
        page.sample(&catalogue::PEAK_SHARE, &[name], peak_share(service, shares));
    }
}

/// Labels of a service's backends, in slot order.
fn labels(service: &Service) -> LabelSets {
    let mut labels = LabelSets::default();
    for backend in &service.backends {
        labels.push(&[("service", &service.config.name), ("backend", &backend.config.id)]);
    }
    labels
}

fn backends(snapshot: &Snapshot, shares: &[Vec<f64>], labels: &[LabelSets], page: &mut Page) {
    for (metric, read) in BACKEND_METRICS {
        page.head(&metric);
        for ((service, shares), labels) in snapshot.services.iter().zip(shares).zip(labels) {
            for (index, labels) in labels.iter().enumerate() {
                page.labelled(&metric, labels, read(service, index, shares));
            }
        }
    }
    for (metric, read) in LIMIT_METRICS {
        page.head(&metric);
        let services = snapshot.services.iter().zip(labels);
        for (service, labels) in services.filter(|(service, _)| service.config.adaptive_concurrency.is_some()) {
            for (backend, labels) in service.backends.iter().zip(labels.iter()) {
                page.labelled(&metric, labels, read(&backend.state.load));
            }
        }
    }
}

/// The state of each backend, as a set.
fn states(snapshot: &Snapshot, labels: &[LabelSets], page: &mut Page) {
    let (metric, now) = (catalogue::BACKEND_STATE, ambient::now());
    page.head(&metric);
    for (service, labels) in snapshot.services.iter().zip(labels) {
        // Not held while the page is written: results of requests are told under this lock.
        let health = service.live.health();
        let states: Vec<&str> = service
            .backends
            .iter()
            .map(|backend| health.view(&backend.config.id, now).map_or("unknown", |view| view.state))
            .collect();
        drop(health);
        for (labels, state) in labels.iter().zip(states) {
            for name in STATES {
                page.labelled_with(&metric, labels, name, f64::from(u8::from(name == state)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use std::collections::HashSet;

    #[tokio::test]
    async fn samples_of_one_metric_stand_together_behind_their_type() {
        let (control, _receivers) = testing::control(Source::Memory);
        let service = |name: &str| {
            format!(
                "  - name: {name}\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    backends: [ {{ id: a, address: \
                 \"127.0.0.1:1\" }}, {{ id: b, address: \"127.0.0.1:2\" }} ]\n"
            )
        };
        let text = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }}, {{ name: m, address: \"127.0.0.1:0\", service: t }} ]\n\
             services:\n{}{}",
            service("s"),
            service("t")
        );
        control.apply(testing::config(&text)).unwrap();
        control.show_topology(Box::new(Default::default));
        let page = page(&ControlHandle::new(Arc::new(control)), Format::Text);
        let mut types = HashSet::new();
        let mut current = "";
        let mut samples = 0;
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap();
                assert!(types.insert(current), "{current} has two places");
            } else if !line.starts_with('#') && !line.is_empty() {
                assert!(line.starts_with(current), "{line} stands under {current}");
                samples += usize::from(line.contains("service=\"t\""));
            }
        }
        for name in ["ringway_backend_in_flight", "ringway_listener_full", "ringway_ring_digest"] {
            assert!(types.iter().any(|known| known.starts_with(name)), "{name} is missing of {types:?}");
        }
        assert!(samples > 10, "{samples}");
    }
}
