//! `/metrics`: what is read at a scrape; the data path's own counters are rendered by telemetry.

use super::peak_share::peak_share;
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::dispatcher::Fullness;
use crate::overload::Resource;
use crate::snapshot::{Service, Snapshot};
use ringway_config::model::Priority;
use ringway_ring::{FULL_SHARE, Load, Slot};
use ringway_telemetry::Sample;
use ringway_telemetry::catalogue::{self, Metric};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

type OfListener = fn(&Fullness) -> f64;

const LISTENER_METRICS: [(Metric, OfListener); 4] = [
    (catalogue::LISTENER_CONNECTIONS, |full| full.taken as f64),
    (catalogue::LISTENER_FULL, |full| f64::from(u8::from(full.is_full))),
    (catalogue::LISTENER_FULL_TIMES, |full| full.count as f64),
    (catalogue::LISTENER_FULL_SECONDS, |full| full.time.as_secs_f64()),
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

/// The metrics page. Samples of one metric stand together: that is the format's rule.
pub(super) fn page(control: &ControlHandle) -> String {
    let snapshot = control.snapshot();
    let mut samples = vec![(catalogue::GENERATION, Vec::new(), snapshot.generation as f64)];
    overload(control, &mut samples);
    topology(control, &mut samples);
    listeners(control, &snapshot, &mut samples);
    for end in &snapshot.certificates {
        let labels = vec![end.used_by.to_owned(), end.name.clone(), end.path.display().to_string()];
        samples.push((catalogue::CERTIFICATE_NOT_AFTER, labels, end.validity.not_after as f64));
    }
    let shares: Vec<Vec<f64>> = snapshot.services.iter().map(|service| service.backend_set.shares()).collect();
    services(&snapshot, &shares, &mut samples);
    backends(&snapshot, &shares, &mut samples);
    control.render(&samples)
}

fn overload(control: &ControlHandle, samples: &mut Vec<Sample>) {
    let overload = control.overload();
    samples.push((catalogue::OVERLOAD_STAGE, Vec::new(), f64::from(overload.stage() as u8)));
    for priority in [Priority::Low, Priority::Default, Priority::High] {
        let labels = vec![priority.name().to_owned()];
        samples.push((catalogue::OVERLOAD_REFUSED, labels, overload.refused_share(priority)));
    }
    for resource in Resource::ALL {
        samples.push((catalogue::OVERLOAD_PRESSURE, vec![resource.name().to_owned()], overload.pressure(resource)));
    }
    for (worker, found) in overload.ticks.found().enumerate() {
        samples.push((catalogue::WORKER_LAG, vec![worker.to_string()], found.lag.as_secs_f64()));
    }
    for (worker, found) in overload.ticks.found().enumerate() {
        samples.push((catalogue::WORKER_STUCK, vec![worker.to_string()], f64::from(u8::from(found.is_stuck))));
    }
}

fn topology(control: &ControlHandle, samples: &mut Vec<Sample>) {
    let Some(topology) = control.topology() else { return };
    let age = topology.age.map_or(f64::INFINITY, |age| age.as_secs_f64());
    samples.push((catalogue::TOPOLOGY_AGE, Vec::new(), age));
    samples.push((catalogue::TOPOLOGY_REVISION, Vec::new(), topology.revision as f64));
    samples.push((catalogue::TOPOLOGY_EPOCH, Vec::new(), topology.epoch as f64));
    samples.push((catalogue::TOPOLOGY_CONNECTED, Vec::new(), f64::from(u8::from(topology.member.is_some()))));
    samples.push((catalogue::TOPOLOGY_STUCK, Vec::new(), f64::from(u8::from(topology.stuck.is_some()))));
}

fn listeners(control: &ControlHandle, snapshot: &Snapshot, samples: &mut Vec<Sample>) {
    let fullness = control.fullness(ambient::now());
    for (metric, read) in LISTENER_METRICS {
        for listener in &snapshot.config.listeners {
            if let Some(full) = fullness.get(&listener.name) {
                samples.push((metric, vec![listener.name.clone()], read(full)));
            }
        }
    }
}

fn services(snapshot: &Snapshot, shares: &[Vec<f64>], samples: &mut Vec<Sample>) {
    let name = |service: &Service| vec![service.config.name.clone()];
    for service in &snapshot.services {
        if let Some(digest) = service.ring_digest() {
            samples.push((catalogue::RING_DIGEST, vec![service.config.name.clone(), format!("{digest:016x}")], 1.0));
        }
    }
    for service in &snapshot.services {
        let panic = f64::from(u8::from(service.live.health().is_panic()));
        samples.push((catalogue::PANIC_MODE, name(service), panic));
    }
    for service in &snapshot.services {
        samples.push((catalogue::HOT_KEYS, name(service), service.live.hot_table.load().len() as f64));
    }
    for service in &snapshot.services {
        let (moved, _) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push((catalogue::KEYS_MOVED, name(service), moved));
    }
    for (service, shares) in snapshot.services.iter().zip(shares).filter(|(service, _)| service.hashes()) {
        samples.push((catalogue::PEAK_SHARE, name(service), peak_share(service, shares)));
    }
}

fn backends(snapshot: &Snapshot, shares: &[Vec<f64>], samples: &mut Vec<Sample>) {
    for (metric, read) in BACKEND_METRICS {
        for (service, shares) in snapshot.services.iter().zip(shares) {
            for (index, backend) in service.backends.iter().enumerate() {
                let labels = vec![service.config.name.clone(), backend.config.id.clone()];
                samples.push((metric, labels, read(service, index, shares)));
            }
        }
    }
    for (metric, read) in LIMIT_METRICS {
        for service in snapshot.services.iter().filter(|service| service.config.adaptive_concurrency.is_some()) {
            for backend in &service.backends {
                let labels = vec![service.config.name.clone(), backend.config.id.clone()];
                samples.push((metric, labels, read(&backend.state.load)));
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
    use std::sync::Arc;

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
        let page = page(&ControlHandle::new(Arc::new(control)));
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
