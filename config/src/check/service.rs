//! Services: balance, health, ejection, limits, backends.

use super::health::{health_check, outlier};
use super::key::sources;
use super::text::{address, header_value, name, nonzero, unique};
use super::upstream::{own_pair, upstream_protocol};
use super::{cookies, edges, tries};
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, KeySource, OnMissing};
use crate::schema::{self, AllFullName, OnMissingName, PolicyName, PresetName};
use ringway_health::{PanicMode, SlowStartParams};
use ringway_ring::{
    AllFull, BoundParams, HOLD_MILLIS_MAX, HotParams, MaglevParams, PeakEwmaParams, PolicyParams, RendezvousParams,
    RingParams, ShedParams, TABLE_SIZE_MAX, is_prime,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) fn services(root: &schema::Root, findings: &mut Findings) -> Vec<Option<model::Service>> {
    if root.services.value.is_empty() && !root.services.value.lost && root.control.is_none() {
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
    if let Some(keys) = balance.hash_key.as_ref().filter(|_| !policy.hashes()) {
        findings.warning(
            keys.place,
            "unused_hash_key",
            format!("{} does not look at keys", policy.name()),
            "write `policy: ring`, or remove `hash_key`",
        );
    }
    let hash_key = match &balance.hash_key {
        None => vec![KeySource::SourceIp { v4_bits: 32, v6_bits: 128 }],
        Some(keys) => sources(keys, findings),
    };
    let hot_keys = balance.hot_keys.as_ref().map(|at| hot_keys(&at.value, findings));
    if let Some(at) = balance.hot_keys.as_ref().filter(|_| !policy.hashes()) {
        findings.warning(
            at.place,
            "unused_hot_keys",
            format!("{} does not look at keys", policy.name()),
            "write `policy: ring`, or remove `hot_keys`",
        );
    }
    let bound = bound(&balance.bounded_load.value, policy);
    let queue = &balance.bounded_load.value.queue.value;
    nonzero(&queue.timeout, "timeout", findings);
    let timeouts = &section.timeouts.value;
    for (at, name) in
        [(&timeouts.connect, "connect"), (&timeouts.response, "response"), (&timeouts.body_idle, "body_idle")]
    {
        nonzero(at, name, findings);
    }
    let keepalive = &section.http2.value.keepalive.value;
    nonzero(&keepalive.timeout, "timeout", findings);
    let pool = &section.pool.value;
    nonzero(&pool.idle_timeout, "idle_timeout", findings);
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
        on_missing: match balance.on_missing.value {
            OnMissingName::Random => OnMissing::Random,
            OnMissingName::RoundRobin => OnMissing::RoundRobin,
            OnMissingName::SourceIp => OnMissing::SourceIp,
            OnMissingName::Reject => OnMissing::Reject,
        },
        bound,
        all_full: match balance.bounded_load.value.all_full.value {
            AllFullName::Owner => AllFull::Owner,
            AllFullName::LeastLoaded => AllFull::LeastLoaded,
            AllFullName::Queue => AllFull::Queue,
            AllFullName::Reject => AllFull::Reject,
        },
        queue: model::Queue { length_max: queue.length_max.value.0 as u32, timeout: queue.timeout.value },
        affinity_cookie,
        hot_keys,
        shed: balance.shed.as_ref().map(|at| ShedParams {
            target: at.value.target.value.0,
            share_max: f64::from(at.value.max.value.0) / 100.0,
        }),
        protocol: upstream_protocol(section.protocol.value),
        keepalive: model::Keepalive { idle: keepalive.idle.value, timeout: keepalive.timeout.value },
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
        drain_ramp: section.drain_ramp.value,
        keep_clients: keep_clients(section, findings),
        close_on_down: section.on_down.value == schema::OnDownName::Close,
        timeouts: model::UpstreamTimeouts {
            connect: timeouts.connect.value,
            response: timeouts.response.value,
            request: timeouts.request.value,
            body_idle: timeouts.body_idle.value,
            idle: timeouts.idle.value,
            session: timeouts.session.value,
            tcp_user_timeout: timeouts.tcp_user_timeout.value,
        },
        retry,
        hedge,
        requests_max: section.limits.value.requests_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        connections_max: section.limits.value.connections_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        pending_max: section.limits.value.pending_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        retries_max: section.limits.value.retries_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
        rate_limit: section.rate_limit.as_ref().map(|at| rate_limit(&at.value, findings)),
        pool: model::Pool { idle_max: pool.idle_max.value.0 as usize, idle_timeout: pool.idle_timeout.value },
        backends,
    })
}

/// What is spoken with backends.
/// A check that goes where the traffic goes speaks as the traffic does, unless it says otherwise.
fn as_the_traffic(
    health: &mut model::HealthCheck,
    section: &schema::HealthSection,
    protocol: model::UpstreamProtocol,
    tls: Option<&model::UpstreamTls>,
    header: Option<model::ProxyHeader>,
    findings: &mut Findings,
) {
    if health.port.is_none() {
        // As with the PROXY header: who has not thought of it should.
        if let (Some(at), Some(own)) = (&section.tls, tls)
            && own.own.is_some()
            && health.tls.as_ref().is_some_and(|check| check.own.is_none())
            && at.value.certificate.is_none()
            && at.value.key.is_none()
        {
            findings.warning(
                at.place,
                "check_without_certificate",
                "checks show no certificate, although the traffic to the same port does",
                "write `certificate` and `key` here as well, or remove `tls` from `health`: then checks do as the traffic",
            );
        }
        health.tls = health.tls.take().or(tls.cloned());
        let says = section.http.as_ref().is_some_and(|at| at.value.protocol.is_some());
        if let (false, model::CheckKind::Http(http)) = (says, &mut health.kind) {
            http.protocol = protocol;
        }
    }
    let elsewhere = section.port.as_ref().map(|at| at.place).or(section.address.as_ref().map(|at| at.place));
    match (elsewhere, &section.proxy_protocol, header) {
        (None, None, header) => health.proxy_protocol = header,
        // As HAProxy does; but who has not thought of it should.
        (Some(place), None, Some(_)) => findings.warning(
            place,
            "check_without_proxy_header",
            "checks that go elsewhere than the traffic begin with no PROXY header, although the traffic does",
            "write `proxy_protocol: off` in `health` if that is right, else `v1` or `v2`",
        ),
        (Some(_), None, None) | (_, Some(_), _) => {}
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

fn upstream_tls(at: &At<schema::UpstreamTlsSection>, findings: &mut Findings) -> Option<model::UpstreamTls> {
    let section = &at.value;
    let own = own_pair(section.certificate.as_ref(), section.key.as_ref(), findings);
    if section.verify.value {
        findings.names_file(section.ca.as_ref(), FileUse::Authorities, Need::Serving);
    }
    Some(model::UpstreamTls {
        sni: section.sni.as_ref().map(|at| header_value(at, findings)),
        ca: section.ca.as_ref().map(|at| at.value.clone().into()),
        verify: section.verify.value,
        ignore_unexpected_eof: section.ignore_unexpected_eof.value,
        own,
    })
}

fn proxy_header(section: &schema::ServiceSection, findings: &mut Findings) -> Option<model::ProxyHeader> {
    let (at, unique_id) = (&section.proxy_protocol, &section.proxy_protocol_unique_id);
    let header = match at.value {
        schema::ProxyHeaderName::Off => None,
        schema::ProxyHeaderName::V1 => Some(model::ProxyHeader::V1),
        schema::ProxyHeaderName::V2 => Some(model::ProxyHeader::V2 { unique_id: unique_id.value }),
    };
    if unique_id.value && !matches!(header, Some(model::ProxyHeader::V2 { .. })) {
        findings.error(
            unique_id.place,
            "unique_id_without_v2",
            "only version 2 of the PROXY header has a place for an id",
            "write `proxy_protocol: v2`, or remove this",
        );
    }
    let header = header?;
    if section.protocol.value == schema::UpstreamProtocolName::H2 {
        findings.error(
            at.place,
            "shared_proxy_protocol",
            "connections of `protocol: h2` are shared by clients: a PROXY header could name only one of them",
            "remove `proxy_protocol`, or write `protocol: http1`; `x-forwarded-for` names the client of each request",
        );
    }
    Some(header)
}

/// With a control plane (`fleet`), a service's backends may all be registered there, and none be so yet.
fn backends(
    section: &schema::ServiceSection,
    zone: Option<&str>,
    fleet: bool,
    findings: &mut Findings,
) -> Vec<model::Backend> {
    let list = &section.backends.value;
    if list.is_empty() && !list.lost && !fleet {
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
    shared_addresses(list, findings);
    if !list.is_empty()
        && !list.lost
        && list
            .iter()
            .map(|backend| &backend.value)
            .all(|backend| backend.weight.value.0 == 0 || backend.drain.value || backend.maintenance.value)
    {
        findings.warning(
            section.backends.place,
            "nothing_takes_traffic",
            format!("every backend of {:?} is drained", section.name.value),
            "give one a weight above 0",
        );
    }
    // Backends that are registered come one by one: a backup may be the first.
    if !fleet && !list.is_empty() && !list.lost && list.iter().all(|backend| backend.value.tier.value.0 > 0) {
        let lowest = list.iter().map(|backend| backend.value.tier.value.0).min().unwrap_or(0);
        findings.error(
            section.backends.place,
            "empty_tier",
            format!("tier 0 of {:?} has no backend: the lowest is {lowest}", section.name.value),
            "write `tier: 0` for the backends that take the traffic (or leave it out)",
        );
    }
    if section.zone_aware.value && zone.is_none() && !fleet {
        findings.error(
            section.zone_aware.place,
            "no_zone",
            "nobody said which zone this proxy stands in",
            "write `zone: ...` at the top of the file, or remove `zone_aware`",
        );
    }
    list.iter()
        .filter_map(|backend| {
            let backend = &backend.value;
            let foreign = section.zone_aware.value && backend.zone.as_ref().map(|at| at.value.as_str()) != zone;
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
                drain: backend.drain.value || backend.maintenance.value,
                maintenance: backend.maintenance.value,
                requests_max: backend.requests_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
                connections_max: backend.connections_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
                pending_max: backend.pending_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
                retries_max: backend.retries_max.as_ref().map_or(u32::MAX, |at| at.value.0 as u32),
                tier: backend.tier.value.0 as u8,
                zone: backend.zone.as_ref().map(|at| at.value.clone()),
                level: backend.tier.value.0 as u8 * 2 + u8::from(foreign),
            })
        })
        .collect()
}

/// Two ids on one address are one backend that is checked, counted and bounded twice.
fn shared_addresses(list: &[At<schema::BackendSection>], findings: &mut Findings) {
    let mut seen: HashMap<SocketAddr, &str> = HashMap::new();
    for backend in list {
        let (id, at) = (&backend.value.id.value, &backend.value.address);
        let Ok(address) = at.value.parse::<SocketAddr>() else { continue };
        if let Some(other) = seen.insert(address, id).filter(|other| other != id) {
            findings.warning(
                at.place,
                "shared_address",
                format!("{address} is the address of {other:?} already: one backend with two shares, two loads and two healths"),
                "correct the address; for a larger share, give one of them a higher `weight` and remove the other",
            );
        }
    }
}

/// Every level has a table of its own; who gets no entry there is asked only when all the others have failed or are full.
fn members_without_entry(
    balance: &schema::BalanceSection,
    table_size: u32,
    backends: &[model::Backend],
    findings: &mut Findings,
) {
    let mut members: Vec<&model::Backend> = backends.iter().collect();
    members.sort_by(|a, b| (a.level, &a.id).cmp(&(b.level, &b.id)));
    for level in members.chunk_by(|a, b| a.level == b.level) {
        let weights: Vec<u32> = level.iter().map(|backend| backend.weight).collect();
        let (none, wanted) = ringway_ring::without_entry(&weights, table_size);
        let Some(&first) = none.first() else { continue };
        let others = if none.len() > 1 { format!(" and {} more", none.len() - 1) } else { String::new() };
        let enough =
            u32::try_from(wanted).ok().and_then(|wanted| (wanted..=TABLE_SIZE_MAX).find(|&size| is_prime(size)));
        findings.warning(
            balance.table_size.place,
            "no_table_entry",
            format!("{:?}{others}: no entry of {table_size}, so no keys while others are up", level[first].id),
            match enough {
                Some(size) => format!("write `{size}`, or let the weights differ less"),
                None => "let the weights differ less".to_owned(),
            },
        );
    }
}

fn seed(seed: Option<&At<String>>) -> u64 {
    match seed {
        None => 0,
        // Numbers stand for themselves, so that fleets can be told a number; any other text is hashed to one.
        Some(at) => at.value.parse().unwrap_or_else(|_| xxhash_rust::xxh3::xxh3_64(at.value.as_bytes())),
    }
}

fn policy(balance: &schema::BalanceSection, section: &schema::ServiceSection, findings: &mut Findings) -> PolicyParams {
    let seed = seed(balance.seed.as_ref());
    match balance.policy.value {
        PolicyName::Ring => PolicyParams::Ring(RingParams { points: balance.points.value.0 as u32, seed }),
        PolicyName::Maglev => {
            let at = &balance.table_size;
            let size = at.value.0 as u32;
            let members = section.backends.value.len() as u32;
            if !is_prime(size) {
                let next = (size..).find(|&size| is_prime(size)).unwrap_or(65_537);
                let help = format!("write `{next}`");
                findings.error(at.place, "bad_table_size", format!("{size} is not a prime"), help);
            } else if size < members.saturating_mul(100) {
                let next = (members.saturating_mul(100)..).find(|&size| is_prime(size)).unwrap_or(65_537);
                findings.warning(
                    at.place,
                    "small_table",
                    format!("{size} entries are few for {members} backends: shares will be uneven"),
                    format!("write `{}`", next.min(TABLE_SIZE_MAX)),
                );
            }
            PolicyParams::Maglev(MaglevParams { table_size: size, seed })
        }
        PolicyName::Hrw => {
            let members = section.backends.value.len();
            if members > 32 {
                findings.warning(
                    balance.policy.place,
                    "slow_policy",
                    format!("hrw looks at each of {members} backends for each request"),
                    "write `policy: ring` above 32 backends",
                );
            }
            PolicyParams::Rendezvous(RendezvousParams { seed })
        }
        PolicyName::RoundRobin => PolicyParams::RoundRobin,
        PolicyName::Random => PolicyParams::Random,
        PolicyName::P2c => PolicyParams::PowerOfTwo,
        PolicyName::LeastRequest => PolicyParams::LeastRequest,
        PolicyName::PeakEwma => {
            nonzero(&balance.decay, "decay", findings);
            let decay_millis = u32::try_from(balance.decay.value.as_millis()).unwrap_or(u32::MAX);
            PolicyParams::PeakEwma(PeakEwmaParams { decay_millis })
        }
        PolicyName::First => PolicyParams::First,
    }
}

fn penalty(balance: &schema::BalanceSection, findings: &mut Findings) -> model::Penalty {
    nonzero(&balance.penalty, "penalty", findings);
    let most = Duration::from_millis(u64::from(HOLD_MILLIS_MAX));
    for (at, name) in [(&balance.penalty, "penalty"), (&balance.retry_after_max, "retry_after_max")] {
        if at.value > most {
            let message = format!("`{name}` is longer than an hour: a backend would be left alone for good");
            findings.error(at.place, "bad_duration", message, "write `1h` or less; `5m` is usual");
        }
    }
    model::Penalty { latency: balance.penalty.value, retry_after_max: balance.retry_after_max.value }
}

fn hot_keys(section: &schema::HotKeysSection, findings: &mut Findings) -> HotParams {
    if section.leave.value.0 > section.enter.value.0 {
        findings.error(
            section.leave.place,
            "out_of_range",
            "`leave` is above `enter`: a key would become hot and cold at once",
            "write less than `enter`",
        );
    }
    HotParams {
        enter: section.enter.value.0,
        leave: section.leave.value.0,
        keys_max: section.keys_max.value.0 as usize,
        volume_min: section.min_volume.value.0,
    }
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

fn bound(section: &schema::BoundSection, policy: PolicyParams) -> Option<BoundParams> {
    let slack = match section.preset.value {
        PresetName::Off => return None,
        // Without keys, loads are even by themselves.
        _ if !policy.hashes() => return None,
        PresetName::Strict => 0.0,
        PresetName::Balanced => 2.0,
        PresetName::Affinity => 3.0,
    };
    Some(BoundParams { factor: section.factor.value.0, slack, min_slots: section.min_slots.value.0 as u32 })
}
