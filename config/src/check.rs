//! From the sections to the model: everything that a shape cannot say.

use crate::decode::{At, Findings};
use crate::diagnostic::{Place, closest};
use crate::model::{self, CheckKind, HostMatch, KeySource, OnMissing, PathMatch, Protocol};
use crate::schema::{self, AllFullName, OnMissingName, OutlierOnName, PolicyName, PresetName, ProtocolName};
use ringway_health::{CheckParams, Initial, OutlierOn, OutlierParams, SlowStartParams};
use ringway_ring::{AllFull, BoundParams, PolicyParams, RingParams};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The services' names.
struct Names<'a> {
    index: HashMap<&'a str, usize>,
    /// Every service could be read: a name that is not here is nobody's.
    complete: bool,
}

/// Builds the model. `None` if anything is an error.
pub(crate) fn check(root: &schema::Root, findings: &mut Findings) -> Option<model::Config> {
    let services = services(root, findings);
    let names = root.services.value.iter().enumerate();
    let names = Names {
        index: names.map(|(index, service)| (service.value.name.value.as_str(), index)).collect(),
        complete: !root.services.value.lost && !root.services.value.is_empty(),
    };
    let admin = admin(root, findings);
    let listeners = listeners(root, &names, findings);
    addresses(root, admin.as_ref(), findings);
    let access_log = access_log(&root.access_log.value);
    nonzero(&root.drain_timeout, "drain_timeout", findings);
    if findings.has_errors() {
        return None;
    }
    Some(model::Config {
        admin,
        process: model::Process {
            workers: root.workers.value.0 as usize,
            connections_max: root.connections_max.value.0 as usize,
        },
        access_log,
        drain_timeout: root.drain_timeout.value,
        listeners: listeners.into_iter().flatten().collect(),
        services: services.into_iter().flatten().collect(),
    })
}

fn admin(root: &schema::Root, findings: &mut Findings) -> Option<model::Admin> {
    let admin = &root.admin.value;
    let address = address(&admin.address, findings)?;
    if admin.enabled.value && !address.ip().is_loopback() {
        findings.warning(
            admin.address.place,
            "admin_exposed",
            "the admin listener can be reached from other machines, and has no authentication",
            "write `127.0.0.1:9901`",
        );
    }
    admin.enabled.value.then_some(model::Admin { address })
}

fn access_log(section: &schema::AccessLogSection) -> model::AccessLog {
    model::AccessLog {
        format: match section.format.value {
            schema::AccessLogFormat::Off => model::AccessLogFormat::Off,
            schema::AccessLogFormat::Json => model::AccessLogFormat::Json,
            schema::AccessLogFormat::Text => model::AccessLogFormat::Text,
        },
        target: match section.target.value.as_str() {
            "stdout" => model::LogTarget::Stdout,
            "stderr" => model::LogTarget::Stderr,
            path => model::LogTarget::File(path.into()),
        },
    }
}

/// Two listeners on one address, or a listener on the admin's.
fn addresses(root: &schema::Root, admin: Option<&model::Admin>, findings: &mut Findings) {
    let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
    if let Some(admin) = admin {
        taken.insert(admin.address, "admin");
    }
    for listener in root.listeners.value.iter() {
        let at = &listener.value.address;
        let Ok(address) = at.value.parse::<SocketAddr>() else { continue };
        if address.port() == 0 {
            continue;
        }
        if let Some(other) = taken.insert(address, &listener.value.name.value) {
            findings.error(
                at.place,
                "duplicate_address",
                format!("{address} is already the address of {other:?}"),
                "give each listener its own address or port",
            );
        }
    }
}

fn listeners(root: &schema::Root, services: &Names<'_>, findings: &mut Findings) -> Vec<Option<model::Listener>> {
    if root.listeners.value.is_empty() && !root.listeners.value.lost {
        findings.error(
            root.listeners.place,
            "empty_listeners",
            "there is no listener",
            "add one: `- { name: web, address: \"0.0.0.0:8080\", service: ... }`",
        );
    }
    unique(root.listeners.value.iter().map(|listener| &listener.value.name), "listener", findings);
    root.listeners.value.iter().map(|listener| listener_model(&listener.value, services, findings)).collect()
}

fn listener_model(
    section: &schema::ListenerSection,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<model::Listener> {
    name(&section.name, "a listener's name", findings);
    let address = address(&section.address, findings);
    let routes = routes(section, services, findings);
    let protocol = match section.protocol.value {
        ProtocolName::Http => Protocol::Http(http_listener(section, routes?, findings)?),
        ProtocolName::Tcp => {
            let [route] = routes?.try_into().ok()?;
            let conditions =
                route.host.is_some() || route.path.is_some() || !route.methods.is_empty() || !route.headers.is_empty();
            if conditions {
                findings.error(
                    section.routes.place,
                    "tcp_conditions",
                    "a tcp listener cannot look into its traffic",
                    "write `service: ...` instead of `routes`, or `protocol: http`",
                );
            }
            Protocol::Tcp(model::TcpListener { service: route.service })
        }
    };
    Some(model::Listener {
        name: section.name.value.clone(),
        address: address?,
        protocol,
        connections_max: section.connections_max.value.0 as usize,
    })
}

fn routes(
    section: &schema::ListenerSection,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<Vec<model::Route>> {
    let tcp = section.protocol.value == ProtocolName::Tcp;
    match (&section.service, &section.routes.value[..]) {
        (Some(service), []) => {
            let service = service_index(service, services, findings)?;
            Some(vec![model::Route { host: None, path: None, methods: Vec::new(), headers: Vec::new(), service }])
        }
        (Some(service), _) => {
            findings.error(
                service.place,
                "service_and_routes",
                "`service` and `routes` exclude each other",
                "make it the last route: `- { service: ... }`",
            );
            None
        }
        (None, []) => {
            findings.error(
                section.place,
                "no_route",
                format!("listener {:?} leads nowhere", section.name.value),
                "add `service: ...` or `routes:`",
            );
            None
        }
        (None, routes) => {
            if tcp && routes.len() > 1 {
                findings.error(
                    routes[1].place,
                    "tcp_conditions",
                    "a tcp listener has one service",
                    "write `service: ...`",
                );
            }
            let built: Vec<_> = routes.iter().map(|route| route_model(&route.value, services, findings)).collect();
            let built: Option<Vec<model::Route>> = built.into_iter().collect();
            for (index, route) in built.iter().flatten().enumerate() {
                let catches_all = route.host.is_none()
                    && route.path.is_none()
                    && route.methods.is_empty()
                    && route.headers.is_empty();
                if catches_all && let Some(next) = routes.get(index + 1).filter(|_| !tcp) {
                    findings.warning(
                        next.place,
                        "unreachable_route",
                        "no request comes as far as this route: the one before takes all",
                        "put the route without conditions last",
                    );
                    break;
                }
            }
            built
        }
    }
}

fn route_model(section: &schema::RouteSection, services: &Names<'_>, findings: &mut Findings) -> Option<model::Route> {
    let service = service_index(&section.service, services, findings);
    let conditions = &section.r#match.value;
    let host = conditions.host.as_ref().map(|host| {
        let text = host.value.to_ascii_lowercase();
        let bare = text.strip_prefix("*.").unwrap_or(&text);
        if bare.is_empty() || bare.contains(['*', '/', ' ']) || bare.contains(':') && !bare.starts_with('[') {
            findings.error(
                host.place,
                "bad_host",
                format!("`{}` is not a host", host.value),
                "write `api.example.com` or `*.example.com`, without port",
            );
        }
        if text.starts_with("*.") { HostMatch::Suffix(text[1..].to_owned()) } else { HostMatch::Exact(text) }
    });
    let path = match (&conditions.path, &conditions.path_prefix) {
        (Some(path), Some(_)) => {
            findings.error(
                path.place,
                "path_and_prefix",
                "`path` and `path_prefix` exclude each other",
                "keep one of the two",
            );
            None
        }
        (Some(path), None) => path_text(path, findings).map(PathMatch::Exact),
        (None, Some(path)) => path_text(path, findings).map(PathMatch::Prefix),
        (None, None) => None,
    };
    let methods: Vec<String> =
        conditions.method.iter().chain(conditions.methods.value.iter()).map(|at| method(at, findings)).collect();
    let headers = conditions
        .headers
        .value
        .iter()
        .map(|header| model::HeaderMatch {
            name: header_name(&header.value.name, findings),
            value: header.value.value.as_ref().map(|value| value.value.clone()),
        })
        .collect();
    Some(model::Route { host, path, methods, headers, service: service? })
}

fn service_index(at: &At<String>, services: &Names<'_>, findings: &mut Findings) -> Option<usize> {
    if let Some(&index) = services.index.get(at.value.as_str()) {
        return Some(index);
    }
    // Perhaps it is the one that could not be read: its own finding will do.
    if services.complete {
        let help = match closest(&at.value, services.index.keys().copied()) {
            Some(name) => format!("write `{name}`"),
            None => {
                let mut names: Vec<&str> = services.index.keys().copied().collect();
                names.sort_unstable();
                format!("the services are `{}`", names.join("`, `"))
            }
        };
        findings.error(at.place, "dangling_service", format!("there is no service {:?}", at.value), help);
    }
    None
}

fn http_listener(
    section: &schema::ListenerSection,
    routes: Vec<model::Route>,
    findings: &mut Findings,
) -> Option<model::HttpListener> {
    let forwarded = &section.forwarded.value;
    let trusted: Vec<_> = forwarded
        .trusted
        .value
        .iter()
        .filter_map(|at| {
            let network = at.value.parse().or_else(|_| at.value.parse::<std::net::IpAddr>().map(Into::into));
            if network.is_err() {
                findings.error(
                    at.place,
                    "bad_network",
                    format!("`{}` is not a network", at.value),
                    "write for example `10.0.0.0/8` or `::1/128`",
                );
            }
            network.ok()
        })
        .collect();
    let head = &section.head_bytes_max;
    if !(256..=1024 * 1024).contains(&head.value.0) {
        findings.error(
            head.place,
            "out_of_range",
            format!("{} bytes are out of range", head.value.0),
            "write a size from 256 to 1MiB",
        );
    }
    let timeouts = &section.timeouts.value;
    for (at, name) in [(&timeouts.idle, "idle"), (&timeouts.head, "head"), (&timeouts.body_idle, "body_idle")] {
        nonzero(at, name, findings);
    }
    Some(model::HttpListener {
        routes,
        forwarded: model::Forwarded {
            trusted,
            x_forwarded: forwarded.x_forwarded.value,
            forwarded: forwarded.forwarded.value,
        },
        head_bytes_max: head.value.0 as usize,
        fields_max: section.fields_max.value.0 as usize,
        body_bytes_max: section.body_bytes_max.as_ref().map_or(u64::MAX, |at| at.value.0),
        timeouts: model::ClientTimeouts {
            idle: timeouts.idle.value,
            head: timeouts.head.value,
            body_idle: timeouts.body_idle.value,
        },
    })
}

fn services(root: &schema::Root, findings: &mut Findings) -> Vec<Option<model::Service>> {
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
    let bound = bound(&balance.bounded_load.value, balance.policy.value, findings);
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

fn bound(section: &schema::BoundSection, policy: PolicyName, findings: &mut Findings) -> Option<BoundParams> {
    let slack = match section.preset.value {
        PresetName::Off => return None,
        // In turn, loads are even by themselves; the bound is for keys.
        _ if policy == PolicyName::RoundRobin => return None,
        PresetName::Strict => 0.0,
        PresetName::Balanced => 2.0,
        PresetName::Affinity => 3.0,
    };
    let _ = findings;
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

fn address(at: &At<String>, findings: &mut Findings) -> Option<SocketAddr> {
    if let Ok(address) = at.value.parse() {
        return Some(address);
    }
    let text = at.value.as_str();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port_good = port.parse::<u16>().is_ok();
    let (message, help) = if host.is_empty() && port_good {
        (
            format!("`{text}` has no IP address"),
            format!("write `\"0.0.0.0:{port}\"` for all of IPv4, `\"127.0.0.1:{port}\"` for this machine only"),
        )
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        (format!("`{text}` has no port"), "write it as `\"10.0.0.1:8080\"` or `\"[::1]:8080\"`".to_owned())
    } else if port_good && !host.starts_with(|c: char| c.is_ascii_digit() || c == '[') {
        (
            format!("`{text}` has a name where there must be an IP address"),
            "write the IP address: names are not looked up here".to_owned(),
        )
    } else {
        (format!("`{text}` is not an address"), "write it as `\"10.0.0.1:8080\"` or `\"[::1]:8080\"`".to_owned())
    };
    findings.error(at.place, "bad_address", message, help);
    None
}

fn name(at: &At<String>, what: &str, findings: &mut Findings) {
    let good =
        !at.value.is_empty() && at.value.len() <= 256 && !at.value.chars().any(|c| c.is_control() || c.is_whitespace());
    if !good {
        findings.error(
            at.place,
            "bad_name",
            format!("{what} is empty, too long, or has spaces"),
            "write 1 to 256 characters without spaces",
        );
    }
}

fn nonempty(at: &At<String>, what: &str, findings: &mut Findings) -> String {
    if at.value.is_empty() || at.value.chars().any(|c| c.is_control() || matches!(c, ' ' | ';' | '=' | '&')) {
        findings.error(at.place, "bad_name", format!("`{}` is not {what}", at.value), "write the plain name");
    }
    at.value.clone()
}

fn unique<'a>(names: impl Iterator<Item = &'a At<String>>, what: &str, findings: &mut Findings) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for at in names {
        if let Some(line) = seen.insert(&at.value, at.place.line) {
            let code = if what == "backend" { "duplicate_id" } else { "duplicate_name" };
            findings.error(
                at.place,
                code,
                format!("{what} {:?} is already defined in line {line}", at.value),
                "give each its own",
            );
        }
    }
}

fn nonzero(at: &At<Duration>, what: &str, findings: &mut Findings) {
    if at.value.is_zero() {
        findings.error(at.place, "bad_duration", format!("`{what}` cannot be zero"), "write for example `1s`");
    }
}

fn path_text(at: &At<String>, findings: &mut Findings) -> Option<String> {
    let good = at.value.starts_with('/') && at.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !good {
        findings.error(
            at.place,
            "bad_path",
            format!("`{}` is not a path", at.value),
            "a path begins with `/`; spaces are written `%20`",
        );
        return None;
    }
    Some(at.value.clone())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn method(at: &At<String>, findings: &mut Findings) -> String {
    if !is_token(&at.value) {
        findings.error(at.place, "bad_method", format!("`{}` is not a method", at.value), "write for example `GET`");
    } else if at.value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        findings.error(
            at.place,
            "bad_method",
            format!("`{}` is not a method: methods are case-sensitive", at.value),
            format!("write `{}`", at.value.to_ascii_uppercase()),
        );
    }
    at.value.clone()
}

fn header_name(at: &At<String>, findings: &mut Findings) -> String {
    if !is_token(&at.value) {
        findings.error(
            at.place,
            "bad_header",
            format!("`{}` is not a field's name", at.value),
            "write for example `x-user-id`",
        );
    }
    at.value.to_ascii_lowercase()
}

fn header_value(at: &At<String>, findings: &mut Findings) -> String {
    if at.value.chars().any(|c| c.is_control()) {
        findings.error(at.place, "bad_header", "a field's value has no control characters", "write it in one line");
    }
    at.value.clone()
}
