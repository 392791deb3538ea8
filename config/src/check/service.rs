//! Services: balance, health, ejection, limits, backends.

use super::text::{address, header_name, header_value, method, name, nonempty, nonzero, path_text, unique};
use crate::decode::{At, Findings};
use crate::diagnostic::Place;
use crate::model::{self, CheckKind, KeySource, OnMissing};
use crate::schema::{self, AllFullName, OnMissingName, OutlierOnName, PolicyName, PresetName};
use ringway_health::{CheckParams, Initial, OutlierOn, OutlierParams, SlowStartParams};
use ringway_ring::{AllFull, BoundParams, PolicyParams, RingParams};
use std::time::Duration;

pub(super) fn services(root: &schema::Root, findings: &mut Findings) -> Vec<Option<model::Service>> {
    if root.services.value.is_empty() && !root.services.value.lost {
        findings.error(
            root.services.place,
            "empty_services",
            "there is no service",
            "add one: `- { name: ..., backends: [ ... ] }`",
        );
    }
    unique(root.services.value.iter().map(|service| &service.value.name), "service", findings);
    root.services.value.iter().map(|service| service_model(&service.value, findings)).collect()
}

fn service_model(section: &schema::ServiceSection, findings: &mut Findings) -> Option<model::Service> {
    name(&section.name, "a service's name", findings);
    let backends = backends(section, findings);
    let balance = &section.balance.value;
    let policy = match balance.policy.value {
        PolicyName::Ring => {
            PolicyParams::Ring(RingParams { points: balance.points.value.0 as u32, seed: seed(balance.seed.as_ref()) })
        }
        PolicyName::RoundRobin => {
            if let Some(keys) = &balance.hash_key {
                findings.warning(
                    keys.place,
                    "unused_hash_key",
                    "round_robin does not look at keys",
                    "write `policy: ring`, or remove `hash_key`",
                );
            }
            PolicyParams::RoundRobin
        }
    };
    let hash_key = match &balance.hash_key {
        None => vec![KeySource::SourceIp { v4_bits: 32, v6_bits: 128 }],
        Some(keys) if keys.value.is_empty() => {
            findings.error(
                keys.place,
                "empty_hash_key",
                "there is no source of a key",
                "add one: `- { header: x-user-id }`",
            );
            Vec::new()
        }
        Some(keys) => keys.value.iter().filter_map(|key| key_source(key, findings)).collect(),
    };
    let bound = bound(&balance.bounded_load.value, balance.policy.value);
    let queue = &balance.bounded_load.value.queue.value;
    nonzero(&queue.timeout, "timeout", findings);
    let timeouts = &section.timeouts.value;
    for (at, name) in
        [(&timeouts.connect, "connect"), (&timeouts.response, "response"), (&timeouts.body_idle, "body_idle")]
    {
        nonzero(at, name, findings);
    }
    let pool = &section.pool.value;
    nonzero(&pool.idle_timeout, "idle_timeout", findings);
    let retry = &section.retry.value;
    Some(model::Service {
        name: section.name.value.clone(),
        policy,
        hash_key,
        on_missing: match balance.on_missing.value {
            OnMissingName::Random => OnMissing::Random,
            OnMissingName::RoundRobin => OnMissing::RoundRobin,
            OnMissingName::SourceIp => OnMissing::SourceIp,
            OnMissingName::Reject => OnMissing::Reject,
        },
        bound,
        queue: model::Queue { length_max: queue.length_max.value.0 as u32, timeout: queue.timeout.value },
        health: section.health.as_ref().and_then(|health| health_check(health, findings)),
        outlier: outlier(section.outlier.as_ref(), findings),
        panic_threshold_percent: section.panic_threshold.value.0,
        slow_start: section.slow_start.as_ref().map(|at| {
            nonzero(&at.value.window, "window", findings);
            SlowStartParams { window: at.value.window.value, initial_percent: at.value.initial_percent.value.0 as u32 }
        }),
        drain_ramp: section.drain_ramp.value,
        timeouts: model::UpstreamTimeouts {
            connect: timeouts.connect.value,
            response: timeouts.response.value,
            request: timeouts.request.value,
            body_idle: timeouts.body_idle.value,
            idle: timeouts.idle.value,
            session: timeouts.session.value,
        },
        retry: model::Retry {
            attempts: retry.attempts.value.0 as u32,
            non_idempotent: retry.non_idempotent.value,
            on_timeout: retry.on_timeout.value,
        },
        pool: model::Pool { idle_max: pool.idle_max.value.0 as usize, idle_timeout: pool.idle_timeout.value },
        backends,
    })
}

fn backends(section: &schema::ServiceSection, findings: &mut Findings) -> Vec<model::Backend> {
    let list = &section.backends.value;
    if list.is_empty() && !list.lost {
        findings.error(
            section.backends.place,
            "empty_service",
            format!("service {:?} has no backend", section.name.value),
            "add one: `- { id: a, address: \"10.0.0.1:8080\" }`",
        );
    }
    if list.len() > usize::from(u16::MAX) {
        findings.error(
            section.backends.place,
            "too_many_backends",
            format!("{} backends", list.len()),
            "a service has at most 65535",
        );
    }
    unique(list.iter().map(|backend| &backend.value.id), "backend", findings);
    if !list.is_empty() && list.iter().all(|backend| backend.value.weight.value.0 == 0 || backend.value.drain.value) {
        findings.warning(
            section.backends.place,
            "nothing_takes_traffic",
            format!("every backend of {:?} is drained", section.name.value),
            "give one a weight above 0",
        );
    }
    list.iter()
        .filter_map(|backend| {
            let backend = &backend.value;
            name(&backend.id, "a backend's id", findings);
            Some(model::Backend {
                id: backend.id.value.clone(),
                address: address(&backend.address, findings).filter(|address| {
                    let good = address.port() != 0;
                    if !good {
                        findings.error(
                            backend.address.place,
                            "bad_address",
                            "a backend has no port 0",
                            "write the port it listens on",
                        );
                    }
                    good
                })?,
                weight: backend.weight.value.0 as u32,
                drain: backend.drain.value,
                requests_max: backend.requests_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
            })
        })
        .collect()
}

fn seed(seed: Option<&At<String>>) -> u64 {
    match seed {
        None => 0,
        // Numbers stand for themselves, so that fleets can be told a number; any other text is hashed to one.
        Some(at) => at.value.parse().unwrap_or_else(|_| xxhash_rust::xxh3::xxh3_64(at.value.as_bytes())),
    }
}

fn bound(section: &schema::BoundSection, policy: PolicyName) -> Option<BoundParams> {
    let slack = match section.preset.value {
        PresetName::Off => return None,
        // In turn, loads are even by themselves; the bound is for keys.
        _ if policy == PolicyName::RoundRobin => return None,
        PresetName::Strict => 0.0,
        PresetName::Balanced => 2.0,
        PresetName::Affinity => 3.0,
    };
    Some(BoundParams {
        factor: section.factor.value.0,
        slack,
        min_slots: section.min_slots.value.0 as u32,
        all_full: match section.all_full.value {
            AllFullName::Owner => AllFull::Owner,
            AllFullName::LeastLoaded => AllFull::LeastLoaded,
            AllFullName::Queue => AllFull::Queue,
            AllFullName::Reject => AllFull::Reject,
        },
    })
}

/// The sources that both kinds of key sections have.
macro_rules! plain_sources {
    ($section:expr, $findings:expr) => {{
        let section = $section;
        let mut sources = Vec::new();
        sources.extend(section.header.as_ref().map(|at| KeySource::Header(header_name(at, $findings))));
        sources.extend(section.cookie.as_ref().map(|at| KeySource::Cookie(nonempty(at, "a cookie's name", $findings))));
        sources
            .extend(section.query.as_ref().map(|at| KeySource::Query(nonempty(at, "a parameter's name", $findings))));
        sources.extend(section.source_ip.as_ref().map(|at| KeySource::SourceIp {
            v4_bits: at.value.v4_bits.value.0 as u8,
            v6_bits: at.value.v6_bits.value.0 as u8,
        }));
        sources.extend(section.path.as_ref().map(|_| KeySource::Path));
        sources.extend(section.uri.as_ref().map(|_| KeySource::Uri));
        sources.extend(section.host.as_ref().map(|_| KeySource::Host));
        sources.extend(section.method.as_ref().map(|_| KeySource::Method));
        sources
    }};
}

fn key_source(at: &At<schema::KeySection>, findings: &mut Findings) -> Option<KeySource> {
    let mut sources = plain_sources!(&at.value, findings);
    if let Some(all) = &at.value.all {
        let parts: Vec<KeySource> = all
            .value
            .iter()
            .filter_map(|part| {
                let sources = plain_sources!(&part.value, findings);
                exactly_one(sources, part.place, findings)
            })
            .collect();
        if all.value.is_empty() {
            findings.error(
                all.place,
                "empty_hash_key",
                "there is no part of a key",
                "add some: `all: [ { host: {} }, { path: {} } ]`",
            );
        }
        sources.push(KeySource::All(parts));
    }
    exactly_one(sources, at.place, findings)
}

fn exactly_one(mut sources: Vec<KeySource>, place: Place, findings: &mut Findings) -> Option<KeySource> {
    if sources.len() != 1 {
        findings.error(
            place,
            "one_key_source",
            format!("{} sources where there must be one", sources.len()),
            "write one list entry for each source; `all: [ ... ]` joins several",
        );
        return None;
    }
    sources.pop()
}

fn health_check(at: &At<schema::HealthSection>, findings: &mut Findings) -> Option<model::HealthCheck> {
    let section = &at.value;
    let kind = match (&section.http, &section.tcp) {
        (Some(http), None) => http_check(&http.value, findings)?,
        (None, Some(_)) => CheckKind::Tcp,
        (Some(_), Some(tcp)) => {
            findings.error(tcp.place, "two_checks", "`http` and `tcp` exclude each other", "keep one of the two");
            return None;
        }
        (None, None) => {
            findings.error(
                at.place,
                "no_check",
                "it does not say what to check",
                "add `http: { path: /healthz }` or `tcp: {}`",
            );
            return None;
        }
    };
    let or_interval = |at: &Option<At<Duration>>| at.as_ref().map_or(section.interval.value, |at| at.value);
    let intervals = [Some(&section.interval), section.interval_down.as_ref(), section.interval_transition.as_ref()];
    for interval in intervals.into_iter().flatten() {
        if interval.value < Duration::from_millis(10) {
            findings.error(
                interval.place,
                "bad_duration",
                "checks cannot be less than 10 ms apart",
                "write for example `2s`",
            );
        }
    }
    nonzero(&section.timeout, "timeout", findings);
    let shortest =
        section.interval.value.min(or_interval(&section.interval_down)).min(or_interval(&section.interval_transition));
    if section.timeout.value > shortest {
        findings.warning(
            section.timeout.place,
            "timeout_above_interval",
            "a check may take longer than its interval: the next waits for it",
            "write a shorter `timeout`, or a longer `interval`",
        );
    }
    Some(model::HealthCheck {
        params: CheckParams {
            interval: section.interval.value,
            interval_down: or_interval(&section.interval_down),
            interval_transition: or_interval(&section.interval_transition),
            timeout: section.timeout.value,
            rise: section.rise.value.0 as u32,
            fall: section.fall.value.0 as u32,
            jitter: section.jitter.value.0 as f64 / 100.0,
            initial: match section.initial.value {
                schema::InitialName::Up => Initial::Up,
                schema::InitialName::Down => Initial::Down,
            },
        },
        kind,
        port: section.port.as_ref().map(|at| at.value.0 as u16),
    })
}

fn http_check(section: &schema::HttpCheckSection, findings: &mut Findings) -> Option<CheckKind> {
    let path = path_text(&section.path, findings);
    let mut expect: Vec<(u16, u16)> = section.expect.value.iter().filter_map(|at| status_range(at, findings)).collect();
    if expect.is_empty() {
        expect.push((200, 399));
    }
    let headers = section
        .headers
        .value
        .iter()
        .map(|header| (header_name(&header.value.name, findings), header_value(&header.value.value, findings)))
        .collect();
    let host = section.host.as_ref().map(|at| header_value(at, findings));
    Some(CheckKind::Http { method: method(&section.method, findings), path: path?, host, headers, expect })
}

fn status_range(at: &At<String>, findings: &mut Findings) -> Option<(u16, u16)> {
    let (low, high) = at.value.split_once('-').unwrap_or((&at.value, &at.value));
    let range = low.trim().parse().ok().zip(high.trim().parse().ok());
    match range {
        Some((low, high)) if (100..=599).contains(&low) && low <= high && high <= 599 => Some((low, high)),
        _ => {
            findings.error(
                at.place,
                "bad_status",
                format!("`{}` is not a status or a range of them", at.value),
                "write for example `200` or `200-299`",
            );
            None
        }
    }
}

fn outlier(section: Option<&At<schema::OutlierSection>>, findings: &mut Findings) -> OutlierParams {
    let Some(at) = section else { return OutlierParams { on: OutlierOn::Connection, ..OutlierParams::default() } };
    let section = &at.value;
    nonzero(&section.base_ejection, "base_ejection", findings);
    if section.max_ejection.value < section.base_ejection.value {
        findings.error(
            section.max_ejection.place,
            "out_of_range",
            "`max_ejection` is shorter than `base_ejection`",
            "write at least the base",
        );
    }
    OutlierParams {
        on: match section.on.value {
            OutlierOnName::Connection => OutlierOn::Connection,
            OutlierOnName::Gateway => OutlierOn::Gateway,
            OutlierOnName::ServerErrors => OutlierOn::ServerErrors,
        },
        consecutive_failures: section.consecutive_failures.value.0 as u32,
        base_ejection: section.base_ejection.value,
        max_ejection: section.max_ejection.value,
        jitter: f64::from(section.jitter.value.0) / 100.0,
        max_ejection_percent: section.max_ejection_percent.value.0,
    }
}
