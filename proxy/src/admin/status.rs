//! `/status`: what is in force and how it goes, as JSON. Documented in docs/operations.md; fields are only ever added.

use crate::ambient;
use crate::apply::control::{Applied, Control, ReloadError};
use crate::dispatcher::Fullness;
use crate::snapshot::Service;
use ringway_ring::{FULL_SHARE, HotKeys, Load, PolicyParams, Slot};
use ringway_telemetry::catalogue::{self, Metric};
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, UNIX_EPOCH};

/// What came of the last reload.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastReload(Value);

impl LastReload {
    pub(crate) fn new(result: &str, outcome: &Result<Applied, ReloadError>) -> Self {
        let at = ambient::time_of_day().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut value = json!({ "result": result, "unix_seconds": at });
        match outcome {
            Ok(applied) => {
                value["generation"] = json!(applied.generation);
                value["changes"] = json!(applied.diff.changes);
                value["needs_restart"] = json!(applied.diff.needs_restart);
                value["moved"] = applied
                    .moved
                    .iter()
                    .map(|(service, movement)| json!({ "service": service, "percent": movement.moved * 100.0 }))
                    .collect();
            }
            Err(error) => {
                value["error"] = json!(error.to_string());
                if let ReloadError::Invalid(diagnostics) | ReloadError::Bind(diagnostics) = error {
                    value["diagnostics"] = json!(diagnostics);
                }
            }
        }
        Self(value)
    }

    /// Whether a change came into force by it.
    pub(crate) fn was_applied(&self) -> bool {
        self.0["result"] == "applied"
    }

    pub(crate) fn json(&self) -> &Value {
        &self.0
    }
}

/// The whole status.
pub(crate) fn status(control: &Control) -> Value {
    let snapshot = control.current.load();
    let bound = control.bound();
    let now = ambient::now();
    let fullness = control.fullness(now);
    let listeners: Vec<Value> = snapshot
        .config
        .listeners
        .iter()
        .map(|listener| {
            let protocol = match listener.protocol {
                ringway_config::model::Protocol::Http(_) => "http",
                ringway_config::model::Protocol::Tcp(_) => "tcp",
                ringway_config::model::Protocol::Udp(_) => "udp",
            };
            let address = bound.get(&listener.name).unwrap_or(&listener.address);
            let full = fullness.get(&listener.name);
            json!({
                "name": listener.name, "address": address.to_string(), "protocol": protocol,
                "connections": full.map_or(0, |full| full.taken), "full": full.is_some_and(|full| full.is_full),
            })
        })
        .collect();
    let certificates: Vec<Value> = snapshot
        .certificates
        .iter()
        .map(|end| {
            json!({
                "used_by": end.used_by, "name": end.name, "file": end.path.display().to_string(),
                "not_before_unix_seconds": end.validity.not_before, "not_after_unix_seconds": end.validity.not_after,
                "state": end.validity.standing(ambient::time_of_day()).as_str(),
            })
        })
        .collect();
    let services: Vec<Value> = snapshot.services.iter().map(|service| service_status(control, service, now)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": ambient::since(control.started).as_secs_f64(),
        "generation": snapshot.generation,
        "draining": control.draining.load(Relaxed),
        "workers": control.workers,
        "topology": control.topology.get().map(|topology| topology().json()),
        "last_reload": control.last_reload().json(),
        "listeners": listeners,
        "certificates": certificates,
        "services": services,
    })
}

fn service_status(control: &Control, service: &Service, now: Instant) -> Value {
    let shares = service.group.shares();
    let has_agent = service.config.health.as_ref().is_some_and(|health| health.agent.is_some());
    let health = service.live.health();
    let backends: Vec<Value> = service
        .backends
        .iter()
        .enumerate()
        .map(|(index, backend)| {
            let view = health.view(&backend.config.id, now);
            let load = &backend.state.load;
            json!({
                "id": backend.config.id,
                "address": backend.config.address.to_string(),
                "weight": backend.config.weight,
                "state": view.as_ref().map_or("unknown", |view| view.state),
                "last_change": view.as_ref().and_then(|view| view.last_change).map(|(kind, ago)| json!({
                    "to": kind.name(), "reason": kind.reason(), "text": kind.to_string(), "seconds_ago": ago.as_secs_f64(),
                })),
                "check_failure": view.as_ref().and_then(|view| view.check_failure).map(|failure| failure.to_string()),
                "consecutive_failures": view.as_ref().map_or(0, |view| view.consecutive_failures),
                "ejected_for_seconds": view.as_ref().and_then(|view| view.ejected_for).map(|left| left.as_secs_f64()),
                "tier": backend.config.tier,
                "zone": backend.config.zone,
                "checked_weight_percent": view.as_ref().map_or(100, |view| view.percent),
                "agent": view.as_ref().filter(|_| has_agent).map(|view| view.agent),
                "keeps_clients": view.as_ref().is_some_and(|view| view.keeps_clients),
                "shed_share": f64::from(load.shed()) / f64::from(FULL_SHARE),
                "connections": backend.state.connections.load(Relaxed),
                "mean_latency_seconds": latency_seconds(control, service, load),
                "accept_share": f64::from(load.lifecycle()) / f64::from(FULL_SHARE),
                "in_flight": load.in_flight(),
                "cap": cap_json(service.group.cap(Slot(index as u16))),
                "ring_share": shares[index],
                "requests": control.metrics.cells.backend_requests(&service.config.name, &backend.config.id),
            })
        })
        .collect();
    let (moved, moved_generation) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
    let (compared, would_move) = control.metrics.cells.shadow_counts(&service.config.name);
    let hot = service.live.hot.lock().unwrap_or_else(PoisonError::into_inner);
    let hot_keys: Vec<Value> = if service.config.hot_keys.is_some() { hot_json(service, &hot) } else { Vec::new() };
    let level_shares: Vec<Value> = health
        .level_shares()
        .iter()
        .map(|(level, share)| json!({ "tier": level / 2, "own_zone": level % 2 == 0, "share": share }))
        .collect();
    json!({
        "name": service.config.name,
        "policy": service.config.policy.name(),
        "levels": level_shares,
        "hot_keys": hot_keys,
        "peak_share_ratio": peak_share(service, &shares),
        "keys_moved": { "percent": moved * 100.0, "generation": moved_generation },
        "shadow": (compared > 0).then(|| json!({
            "compared": compared, "would_move": would_move, "percent": would_move as f64 * 100.0 / compared as f64,
        })),
        "ring_digest": service.ring_digest().map(|digest| format!("{digest:016x}")),
        "in_flight": service.live.total.sum(),
        "waiting": service.live.line.waiting(),
        "panic": health.is_panic(),
        "backends": backends,
    })
}

fn hot_json(service: &Service, hot: &HotKeys) -> Vec<Value> {
    let mut keys: Vec<_> = hot.keys().iter().collect();
    keys.sort_by(|(_, a), (_, b)| b.share.total_cmp(&a.share));
    keys.into_iter()
        .map(|(hash, key)| {
            let owners: Vec<&str> = service
                .group
                .sequence(*hash)
                .into_iter()
                .take(usize::from(key.owners))
                .map(|slot| service.backends[usize::from(slot.0)].config.id.as_str())
                .collect();
            json!({ "hash": format!("{hash:016x}"), "share": key.share, "owners": owners })
        })
        .collect()
}

/// Largest share of the key space for its weight, over the fair one. 1 is perfectly even.
fn peak_share(service: &Service, shares: &[f64]) -> f64 {
    // Lower tiers own nothing while the first is healthy: fairness is among those that own.
    let owns = |index: &usize| service.group.level(Slot(*index as u16)) == service.group.level_shares()[0].0;
    let indices: Vec<usize> = (0..shares.len()).filter(owns).collect();
    let weight = |index: usize| f64::from(service.backends[index].config.weight);
    let all: f64 = indices.iter().map(|&index| weight(index)).sum();
    let ratios = indices.iter().filter(|&&index| weight(index) > 0.0).map(|&index| shares[index] * all / weight(index));
    ratios.fold(0.0, f64::max)
}

/// Mean latency as `peak_ewma` sees it; absent under other policies.
fn latency_seconds(control: &Control, service: &Service, load: &Load) -> Option<f64> {
    let PolicyParams::PeakEwma(params) = service.config.policy else { return None };
    let now = ambient::since(control.started).as_millis() as u32;
    Some(f64::from(load.latency_micros(now, params.decay_millis)) / 1e6)
}

/// No limit is `null`.
fn cap_json(cap: u32) -> Value {
    if cap == u32::MAX { Value::Null } else { json!(cap) }
}

type OfListener = fn(&Fullness) -> f64;

const LISTENER_METRICS: [(Metric, OfListener); 4] = [
    (catalogue::LISTENER_CONNECTIONS, |full| full.taken as f64),
    (catalogue::LISTENER_FULL, |full| f64::from(u8::from(full.is_full))),
    (catalogue::LISTENER_FULL_TIMES, |full| full.count as f64),
    (catalogue::LISTENER_FULL_SECONDS, |full| full.time.as_secs_f64()),
];

/// The metrics page.
pub(crate) fn metrics(control: &Control) -> String {
    let snapshot = control.current.load();
    let mut samples = vec![(catalogue::GENERATION, Vec::new(), snapshot.generation as f64)];
    if let Some(topology) = control.topology.get().map(|topology| topology()) {
        let age = topology.age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        samples.push((catalogue::TOPOLOGY_AGE, Vec::new(), age));
        samples.push((catalogue::TOPOLOGY_REVISION, Vec::new(), topology.revision as f64));
        samples.push((catalogue::TOPOLOGY_EPOCH, Vec::new(), topology.epoch as f64));
        samples.push((catalogue::TOPOLOGY_CONNECTED, Vec::new(), f64::from(u8::from(topology.member.is_some()))));
        samples.push((catalogue::TOPOLOGY_STUCK, Vec::new(), f64::from(u8::from(topology.stuck.is_some()))));
    }
    let fullness = control.fullness(ambient::now());
    for (metric, read) in LISTENER_METRICS {
        for listener in &snapshot.config.listeners {
            if let Some(full) = fullness.get(&listener.name) {
                samples.push((metric, vec![listener.name.clone()], read(full)));
            }
        }
    }
    for end in &snapshot.certificates {
        let labels = vec![end.used_by.to_owned(), end.name.clone(), end.path.display().to_string()];
        samples.push((catalogue::CERTIFICATE_NOT_AFTER, labels, end.validity.not_after as f64));
    }
    for service in &snapshot.services {
        if let Some(digest) = service.ring_digest() {
            samples.push((catalogue::RING_DIGEST, vec![service.config.name.clone(), format!("{digest:016x}")], 1.0));
        }
    }
    for service in &snapshot.services {
        let panic = if service.live.health().is_panic() { 1.0 } else { 0.0 };
        samples.push((catalogue::PANIC_MODE, vec![service.config.name.clone()], panic));
    }
    for service in &snapshot.services {
        let hot = service.live.hot_table.load().len() as f64;
        samples.push((catalogue::HOT_KEYS, vec![service.config.name.clone()], hot));
    }
    for service in &snapshot.services {
        let (moved, _) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push((catalogue::KEYS_MOVED, vec![service.config.name.clone()], moved));
    }
    for service in snapshot.services.iter().filter(|service| service.hashes()) {
        let peak = peak_share(service, &service.group.shares());
        samples.push((catalogue::PEAK_SHARE, vec![service.config.name.clone()], peak));
    }
    type Read = fn(&Service, usize, &[f64]) -> f64;
    let reads: [(Metric, Read); 6] = [
        (catalogue::BACKEND_SHED, |service, index, _| {
            f64::from(service.backends[index].state.load.shed()) / f64::from(FULL_SHARE)
        }),
        (catalogue::BACKEND_CONNECTIONS, |service, index, _| {
            f64::from(service.backends[index].state.connections.load(Relaxed))
        }),
        (catalogue::BACKEND_IN_FLIGHT, |service, index, _| f64::from(service.backends[index].state.load.in_flight())),
        (catalogue::BACKEND_CAP, |service, index, _| match service.group.cap(Slot(index as u16)) {
            u32::MAX => f64::INFINITY,
            cap => f64::from(cap),
        }),
        (catalogue::BACKEND_SHARE, |_, index, shares| shares[index]),
        (catalogue::BACKEND_ACCEPT, |service, index, _| {
            f64::from(service.backends[index].state.load.lifecycle()) / f64::from(FULL_SHARE)
        }),
    ];
    let shares: Vec<Vec<f64>> = snapshot.services.iter().map(|service| service.group.shares()).collect();
    for (metric, read) in reads {
        for (service, shares) in snapshot.services.iter().zip(&shares) {
            for (index, backend) in service.backends.iter().enumerate() {
                let labels = vec![service.config.name.clone(), backend.config.id.clone()];
                samples.push((metric, labels, read(service, index, shares)));
            }
        }
    }
    control.metrics.render(&samples)
}
