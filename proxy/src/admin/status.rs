//! `/status`: what is in force and how it does, as JSON. Documented in docs/operations.md; fields are only ever added.

use super::peak_share::peak_share;
use super::{changes, fleet_table, hot_keys, standing_out};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::apply::overrides::Overrides;
use crate::snapshot::{Backend, Service, Snapshot};
use ringway_config::model::{Priority, Protocol};
use ringway_health::ServiceHealth;
use ringway_ring::{FULL_SHARE, Load, PolicyParams, Slot};
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// The whole status.
pub(super) fn status(control: &ControlHandle) -> Value {
    let snapshot = control.snapshot();
    let now = ambient::now();
    let overrides = control.overrides();
    let services = snapshot.services.iter().map(|service| service_status(control, service, &overrides, now));
    let services: Vec<Value> = services.collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": control.uptime().as_secs_f64(),
        "generation": snapshot.generation,
        "draining": control.is_draining(),
        "overload": control.overload().stage().name(),
        "overload_refused": {
            "low": control.overload().refused_share(Priority::Low),
            "default": control.overload().refused_share(Priority::Default),
            "high": control.overload().refused_share(Priority::High),
        },
        "workers": control.workers(),
        "topology": control.topology().map(|topology| topology.json()),
        "last_reload": control.last_reload().json(),
        "listeners": listeners(control, &snapshot, now),
        "certificates": certificates(&snapshot),
        "services": services,
    })
}

fn listeners(control: &ControlHandle, snapshot: &Snapshot, now: Instant) -> Vec<Value> {
    let (addresses, fullness) = (control.addresses(), control.fullness(now));
    let listeners = snapshot.config.listeners.iter().map(|listener| {
        let protocol = match listener.protocol {
            Protocol::Http(_) => "http",
            Protocol::Tcp(_) => "tcp",
            Protocol::Udp(_) => "udp",
        };
        let address = addresses.get(&listener.name).unwrap_or(&listener.address);
        let full = fullness.get(&listener.name);
        json!({
            "name": listener.name, "address": address.to_string(), "protocol": protocol,
            "connections": full.map_or(0, |full| full.taken), "full": full.is_some_and(|full| full.is_full),
        })
    });
    listeners.collect()
}

fn certificates(snapshot: &Snapshot) -> Vec<Value> {
    let certificates = snapshot.certificates.iter().map(|end| {
        json!({
            "used_by": end.used_by, "name": end.name, "file": end.path.display().to_string(),
            "not_before_unix_seconds": end.validity.not_before, "not_after_unix_seconds": end.validity.not_after,
            "state": end.validity.standing(ambient::time_of_day()).as_str(),
        })
    });
    certificates.collect()
}

fn service_status(control: &ControlHandle, service: &Service, overrides: &Overrides, now: Instant) -> Value {
    let shares = service.backend_set.shares();
    let health = service.live.health();
    let backends: Vec<Value> = (0..service.backends.len())
        .map(|index| {
            let mut status = backend_status(control, service, &health, index, shares[index], now);
            let key = (service.config.name.clone(), service.backends[index].config.id.clone());
            status["override"] = overrides.backends.get(&key).map_or(Value::Null, changes::of_status);
            status
        })
        .collect();
    let (moved, moved_generation) = *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner);
    let (compared, would_move) = control.counters().shadow_counts(&service.config.name);
    let hot_keys = hot_keys::of(service).into_iter();
    let hot_keys: Vec<Value> = hot_keys
        .map(|key| {
            json!({
                "hash": format!("{:016x}", key.hash), "share": key.share, "owners": key.owners,
                "by_hand_seconds_left": key.by_hand().map(|left| left.as_secs_f64()),
            })
        })
        .collect();
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
        "fleet_table": fleet_table::of(service, now),
        "peak_share_ratio": peak_share(service, &shares),
        "handoffs": service.handoff.json(now),
        "keys_moved": { "percent": moved * 100.0, "generation": moved_generation },
        "shadow": (compared > 0).then(|| json!({
            "compared": compared, "would_move": would_move, "percent": would_move as f64 * 100.0 / compared as f64,
        })),
        "ring_digest": service.ring_digest().map(|digest| format!("{digest:016x}")),
        "in_flight": service.live.total.sum(),
        "waiting": service.live.line.waiting(),
        "panic": health.is_panic(),
        "checks_late_seconds": service.live.check_delay.recent(now).as_secs_f64(),
        "stands_out": standing_out::of_service(service),
        "backends": backends,
    })
}

/// `index` is the backend's slot, `share` what it has of the key space.
fn backend_status(
    control: &ControlHandle,
    service: &Service,
    health: &ServiceHealth,
    index: usize,
    share: f64,
    now: Instant,
) -> Value {
    let backend = &service.backends[index];
    let has_agent = service.config.health.as_ref().is_some_and(|health| health.agent.is_some());
    let view = health.view(&backend.config.id, now);
    let load = &backend.state.load;
    json!({
        "id": backend.config.id,
        "address": backend.config.address.to_string(),
        "additional_address": backend.config.additional_address.map(|address| address.to_string()),
        "first_address": first_address(backend),
        "weight": backend.config.weight,
        "state": view.as_ref().map_or("unknown", |view| view.state),
        "last_change": view.as_ref().and_then(|view| view.last_change).map(|(kind, ago)| json!({
            "to": kind.name(), "reason": kind.reason(), "text": kind.to_string(), "seconds_ago": ago.as_secs_f64(),
        })),
        "stands_out": standing_out::of_backend(service, &backend.config.id, |since| {
            ("since_seconds", json!(now.saturating_duration_since(since).as_secs_f64()))
        }),
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
        "accept_share": f64::from(load.active_fraction()) / f64::from(FULL_SHARE),
        "in_flight": load.in_flight(),
        "cap": cap_json(service.backend_set.cap(Slot(index as u16))),
        "concurrency_limit": cap_json(load.limit()),
        "ring_share": share,
        "requests": control.counters().backend_requests(&service.config.name, &backend.config.id),
        "spills": control.counters().backend_spills(&service.config.name, &backend.config.id),
    })
}

/// Of two addresses, the one to which the next connection is tried first.
fn first_address(backend: &Backend) -> Option<String> {
    let addresses = [backend.config.address, backend.config.additional_address?];
    let [first, _] = backend.state.preferences.traffic.order(addresses, ambient::now());
    Some(first.to_string())
}

/// Mean latency as `peak_ewma` sees it; absent under other policies.
fn latency_seconds(control: &ControlHandle, service: &Service, load: &Load) -> Option<f64> {
    let PolicyParams::PeakEwma(params) = service.config.policy else { return None };
    let now = control.uptime().as_millis() as u32;
    Some(f64::from(load.latency_micros(now, params.decay_millis)) / 1e6)
}

/// No limit is `null`.
fn cap_json(cap: u32) -> Value {
    if cap == u32::MAX { Value::Null } else { json!(cap) }
}
