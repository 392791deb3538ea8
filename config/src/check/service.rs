//! Services as a whole; their parts are in `balance`, `backend`, `health`, `upstream`, `tries`.

use super::backend::backends;
use super::balance::{bound, hot_keys, members_without_entry, penalty, policy, shed};
use super::handoff::handoff;
use super::health::{as_the_traffic, health_check, outlier};
use super::key::sources;
use super::text::{lifetime, name, nonzero, unique};
use super::upstream::{proxy_header, upstream_protocol, upstream_tls};
use super::{cookies, edges, route, tries};
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::model::{self, KeySource, OnMissing};
use crate::schema::{self, AllFullName, OnMissingName};
use ringway_health::{PanicMode, SlowStartParams};
use ringway_ring::{AllFull, ConcurrencyParams, PolicyParams};
use std::time::Duration;

pub(super) fn services(root: &schema::Root, findings: &mut Findings) -> Vec<Option<model::Service>> {
    let missing = root.services.value.is_empty() && !root.services.value.lost && root.control.is_none();
    if missing && !only_redirects(root) {
        findings.error(
            root.services.place,
            "empty_services",
            "there is no service",
            "add one: `- { name: ..., backends: [ ... ] }`",
        );
    }
    unique(root.services.value.iter().map(|service| &service.value.name), "service", findings);
    let zone = root.zone.as_ref().map(|at| at.value.as_str());
    let fleet = root.control.is_some();
    root.services.value.iter().map(|service| service_model(&service.value, zone, fleet, findings)).collect()
}

/// Whether all that listeners take is sent elsewhere, so that no service is needed.
fn only_redirects(root: &schema::Root) -> bool {
    let mut listeners = root.listeners.value.iter().map(|listener| &listener.value);
    !root.listeners.value.is_empty()
        && listeners.all(|listener| {
            let mut routes = listener.routes.value.iter().map(|route| &route.value);
            listener.service.is_none()
                && !listener.routes.value.is_empty()
                && routes.all(|route| route.redirect.is_some() && route.service.is_none())
        })
}

fn service_model(
    section: &schema::ServiceSection,
    zone: Option<&str>,
    fleet: bool,
    findings: &mut Findings,
) -> Option<model::Service> {
    name(&section.name, "a service's name", findings);
    let backends = backends(section, zone, fleet, findings);
    edges::service(section, fleet, findings);
    let balance = &section.balance.value;
    let policy = policy(balance, section, findings);
    if let PolicyParams::Maglev(params) = policy {
        members_without_entry(balance, params.table_size, &backends, findings);
    }
    let affinity_cookie = balance
        .affinity_cookie
        .as_ref()
        .and_then(|at| cookies::affinity_cookie(&section.name.value, &at.value, findings));
    unused_keys(&section.balance, policy, findings);
    let hash_key = match &balance.hash_key {
        None => vec![KeySource::SourceIp { v4_bits: 32, v6_bits: 128 }],
        Some(keys) => sources(keys, findings),
    };
    let hot_keys = hot_keys(&balance.hot_keys.value, policy, findings);
    let bound = bound(&balance.bounded_load.value, policy);
    let queue = &balance.bounded_load.value.queue.value;
    nonzero(&queue.timeout, "timeout", findings);
    let keepalive = &section.http2.value.keepalive.value;
    nonzero(&keepalive.timeout, "timeout", findings);
    let pool = &section.pool.value;
    nonzero(&pool.idle_timeout, "idle_timeout", findings);
    lifetime(&pool.age_max, "age_max", findings);
    idle_min(section, findings);
    let retry = tries::retry(section, findings);
    let hedge = tries::hedge(section, &retry, findings);
    let tls = section.tls.as_ref().and_then(|at| upstream_tls(at, findings));
    let proxy_protocol = proxy_header(section, findings);
    let mut health = section.health.as_ref().and_then(|health| health_check(health, findings));
    if let (Some(health), Some(at)) = (health.as_mut(), &section.health) {
        let protocol = upstream_protocol(section.protocol.value);
        as_the_traffic(health, &at.value, protocol, tls.as_ref(), proxy_protocol, findings);
    }
    Some(model::Service {
        name: section.name.value.clone(),
        policy,
        penalty: penalty(balance, findings),
        hash_key,
        on_missing: on_missing(balance.on_missing.value),
        bound,
        all_full: all_full(balance.bounded_load.value.all_full.value),
        queue: model::Queue { length_max: queue.length_max.value.0 as u32, timeout: queue.timeout.value },
        affinity_cookie,
        hot_keys,
        spread: Vec::new(),
        shed: balance.shed.as_ref().map(|at| shed(&at.value, policy, findings)),
        protocol: upstream_protocol(section.protocol.value),
        priority: route::priority(section.priority.value),
        keepalive: model::Keepalive { idle: keepalive.idle.value, timeout: keepalive.timeout.value },
        flood: upstream_flood(&section.http2.value.flood.value),
        tls,
        proxy_protocol,
        health,
        outlier: outlier(section.outlier.as_ref(), findings),
        panic_threshold_percent: section.panic_threshold.value.0,
        panic_mode: match section.panic_mode.value {
            schema::PanicModeName::All => PanicMode::All,
            schema::PanicModeName::Fail => PanicMode::Fail,
        },
        overprovisioning_percent: section.overprovisioning.value.0 as u32,
        slow_start: section.slow_start.as_ref().map(|at| {
            nonzero(&at.value.window, "window", findings);
            SlowStartParams { window: at.value.window.value, initial_percent: at.value.initial_percent.value.0 as u32 }
        }),
        handoff: handoff(section, policy, findings),
        drain_ramp: section.drain_ramp.value,
        keep_clients: keep_clients(section, findings),
        close_on_down: section.on_down.value == schema::OnDownName::Close,
        timeouts: upstream_timeouts(section, findings),
        retry,
        hedge,
        requests_max: section.limits.value.requests_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        connections_max: section.limits.value.connections_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        pending_max: section.limits.value.pending_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        retries_max: section.limits.value.retries_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        adaptive_concurrency: section.adaptive_concurrency.as_ref().map(|at| adaptive_concurrency(&at.value, findings)),
        rate_limit: section.rate_limit.as_ref().map(|at| rate_limit(&at.value, findings)),
        pool: model::Pool {
            idle_max: pool.idle_max.value.0 as u32,
            idle_min: pool.idle_min.value.0 as u32,
            idle_timeout: pool.idle_timeout.value,
            age_max: pool.age_max.value,
            requests_max: match pool.requests_max.value.0 as u32 {
                0 => u32::MAX,
                most => most,
            },
            streams_max: pool.streams_max.value.0 as u32,
        },
        zone_aware: section.zone_aware.value,
        backends,
    })
}

/// Settings about keys, of a policy that looks at none.
fn unused_keys(at: &At<schema::BalanceSection>, policy: PolicyParams, findings: &mut Findings) {
    let balance = &at.value;
    if let Some(keys) = balance.hash_key.as_ref().filter(|_| !policy.hashes()) {
        findings.warning(
            keys.place,
            "unused_hash_key",
            format!("{} does not look at keys", policy.name()),
            "write `policy: ring`, or remove `hash_key`",
        );
    }
    // Of a default, the place is the section's.
    if balance.hot_keys.place != at.place && balance.hot_keys.value.enabled.value && !policy.hashes() {
        findings.warning(
            balance.hot_keys.place,
            "unused_hot_keys",
            format!("{} does not look at keys", policy.name()),
            "write `policy: ring`, or remove `hot_keys`",
        );
    }
}

fn on_missing(name: OnMissingName) -> OnMissing {
    match name {
        OnMissingName::Random => OnMissing::Random,
        OnMissingName::RoundRobin => OnMissing::RoundRobin,
        OnMissingName::SourceIp => OnMissing::SourceIp,
        OnMissingName::Reject => OnMissing::Reject,
    }
}

fn all_full(name: AllFullName) -> AllFull {
    match name {
        AllFullName::Owner => AllFull::Owner,
        AllFullName::LeastLoaded => AllFull::LeastLoaded,
        AllFullName::Queue => AllFull::Queue,
        AllFullName::Reject => AllFull::Reject,
    }
}

fn upstream_timeouts(section: &schema::ServiceSection, findings: &mut Findings) -> model::UpstreamTimeouts {
    let timeouts = &section.timeouts.value;
    for (at, name) in
        [(&timeouts.connect, "connect"), (&timeouts.response, "response"), (&timeouts.body_idle, "body_idle")]
    {
        nonzero(at, name, findings);
    }
    model::UpstreamTimeouts {
        connect: timeouts.connect.value,
        response: timeouts.response.value,
        request: timeouts.request.value,
        body_idle: timeouts.body_idle.value,
        idle: timeouts.idle.value,
        session: timeouts.session.value,
        tcp_user_timeout: timeouts.tcp_user_timeout.value,
    }
}

/// How long a drained backend keeps the clients of its cookies; `None` is not at all.
fn keep_clients(section: &schema::ServiceSection, findings: &mut Findings) -> Option<Duration> {
    let timeout = &section.drain_timeout;
    let on_drain = section.balance.value.affinity_cookie.as_ref().map(|at| &at.value.on_drain);
    let keeps = on_drain.is_some_and(|at| at.value == schema::OnDrainName::Keep);
    if !timeout.value.is_zero() && !keeps {
        let (message, help) = match on_drain {
            None => ("no cookie binds clients to backends here", "add `balance.affinity_cookie`, or remove this"),
            Some(_) => ("clients do not stay on drained backends here", "write `on_drain: keep`, or remove this"),
        };
        findings.warning(timeout.place, "without_effect", message, help);
    }
    keeps.then(|| if timeout.value.is_zero() { Duration::MAX } else { timeout.value })
}

/// Connections that are opened before there is a request.
fn idle_min(section: &schema::ServiceSection, findings: &mut Findings) {
    let (least, most) = (&section.pool.value.idle_min, section.pool.value.idle_max.value.0);
    if least.value.0 > most {
        findings.error(
            least.place,
            "out_of_range",
            format!("no more than {most} are kept idle: that is `idle_max`"),
            format!("write at most {most}, or a higher `idle_max`"),
        );
    }
    if least.value.0 > 0 && section.proxy_protocol.value != schema::ProxyHeaderName::Off {
        findings.error(
            least.place,
            "idle_min_for_one_client",
            "with a PROXY header a connection is one client's: none can be opened before the client is known",
            "remove it, or `proxy_protocol`",
        );
    }
}

fn adaptive_concurrency(section: &schema::AdaptiveConcurrencySection, findings: &mut Findings) -> ConcurrencyParams {
    let (limit_min, limit_max) = (section.limit_min.value.0 as u32, section.limit_max.value.0 as u32);
    if limit_min > limit_max {
        findings.error(
            section.limit_min.place,
            "out_of_range",
            format!("it is more than `limit_max`, {limit_max}"),
            format!("write at most {limit_max}, or a higher `limit_max`"),
        );
    }
    ConcurrencyParams { limit_min, limit_max, tolerance: section.tolerance.value.0 }
}

fn rate_limit(section: &schema::RateLimitSection, findings: &mut Findings) -> model::RateLimit {
    nonzero(&section.per, "per", findings);
    let requests = section.requests.value.0 as u32;
    model::RateLimit {
        interval: section.per.value / requests.max(1),
        burst: section.burst.as_ref().map_or(requests, |at| at.value.0 as u32),
        key: match &section.key {
            None => vec![KeySource::SourceIp { v4_bits: 32, v6_bits: 64 }],
            Some(keys) => sources(keys, findings),
        },
        keys_max: section.keys_max.value.0 as usize,
    }
}

fn upstream_flood(section: &schema::UpstreamFloodSection) -> model::UpstreamFlood {
    model::UpstreamFlood {
        pings_max: section.pings_max.value.0 as u32,
        window_updates_max: section.window_updates_max.value.0 as u32,
        empty_data_max: section.empty_data_max.value.0 as u32,
    }
}
