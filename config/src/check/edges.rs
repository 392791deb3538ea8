//! Numbers that are right alone and contradict each other: a floor above its ceiling, a wait that outlives what waits, a detector
//! that can never act. What would only never be reached is warned of; the file works without it.

use crate::decode::duration_text;
use crate::diagnostic::At;
use crate::diagnostic::Place;
use crate::findings::Findings;
use crate::schema;
use std::collections::HashMap;
use std::time::Duration;

/// What of a service concerns itself alone. `fleet`: backends that are registered may come to those of the file.
pub(super) fn service(section: &schema::ServiceSection, fleet: bool, findings: &mut Findings) {
    if let Some(at) = &section.outlier {
        let backends = section.backends.value.iter().filter(|backend| backend.value.weight.value.0 > 0).count();
        let known = !fleet && !section.backends.value.lost && backends > 0;
        detectors(&at.value, known.then_some(backends), findings);
        ejections(section, &at.value, findings);
    }
    if section.panic_mode.value == schema::PanicModeName::Fail && section.panic_threshold.value.0 == 0 {
        findings.warning(
            section.panic_mode.place,
            "never_acts",
            "with `panic_threshold: 0` there is no panic, whatever is done then",
            "write a threshold above 0, or remove this",
        );
    }
    if let Some(health) = section.health.as_ref().map(|at| &at.value)
        && health.reuse_connection.value
        && health.tcp.is_some()
    {
        findings.warning(
            health.reuse_connection.place,
            "without_effect",
            "a check of `tcp` is the connection: there is none to keep",
            "check `http` or `grpc`, or remove this",
        );
    }
    drains(section, findings);
    agents(section, findings);
    limits(section, findings);
    queue_outlives(
        section,
        &section.timeouts.value.request,
        "`timeouts.request`",
        section.balance.value.bounded_load.value.queue.value.timeout.place,
        findings,
    );
}

/// Detectors that compare backends need enough of them.
fn detectors(section: &schema::OutlierSection, backends: Option<usize>, findings: &mut Findings) {
    let Some(backends) = backends else { return };
    let (failure, success, latency) =
        (section.failure_percentage.as_ref(), section.success_rate.as_ref(), section.latency.as_ref());
    let hosts = [
        ("failure_percentage", failure.map(|at| &at.value.min_hosts)),
        ("success_rate", success.map(|at| &at.value.min_hosts)),
        ("latency", latency.map(|at| &at.value.min_hosts)),
    ];
    let mut enough = true;
    for (name, at) in hosts.into_iter().filter_map(|(name, at)| Some((name, at?))) {
        if at.value.0 > backends as u64 {
            enough &= name != "success_rate";
            findings.warning(
                at.place,
                "never_acts",
                format!("`{name}` can never eject: it wants {} backends, and {backends} can take traffic", at.value.0),
                format!("write `min_hosts: {backends}` or less, or remove `{name}`"),
            );
        }
    }
    // Of n numbers, none is further from their mean than so many of their standard deviations: that is one of which all others differ.
    let furthest = ((backends - 1) as f64).sqrt();
    if let Some(at) = success.map(|at| &at.value.deviations).filter(|at| enough && at.value.0 >= furthest) {
        findings.warning(
            at.place,
            "never_acts",
            format!(
                "`success_rate` can never eject: of {backends} backends, none is {} standard deviations from the mean",
                at.value.0
            ),
            format!("write less than {:.2}, or use `failure_percentage`", furthest.max(0.01)),
        );
    }
}

fn ejections(section: &schema::ServiceSection, outlier: &schema::OutlierSection, findings: &mut Findings) {
    let (wish, most) = (&outlier.retry_after_max, &outlier.max_ejection);
    if wish.value > most.value {
        findings.warning(
            wish.place,
            "floor_above_ceiling",
            format!(
                "no ejection is longer than `max_ejection`, which is {}: no longer `Retry-After` is obeyed",
                duration_text(most.value)
            ),
            "write at most that, or a longer `max_ejection`",
        );
    }
    if outlier.return_on_check.value && section.health.is_none() {
        findings.warning(
            outlier.return_on_check.place,
            "never_acts",
            "there are no checks that could end an ejection",
            "add `health`, or remove this",
        );
    }
}

fn drains(section: &schema::ServiceSection, findings: &mut Findings) {
    let (timeout, ramp) = (&section.drain_timeout, &section.drain_ramp);
    if !timeout.value.is_zero() && timeout.value < ramp.value {
        findings.warning(
            timeout.place,
            "floor_above_ceiling",
            format!(
                "a drained backend still takes keys when this is over: `drain_ramp` is {}",
                duration_text(ramp.value)
            ),
            "write at least `drain_ramp`",
        );
    }
}

/// An agent is something else than the backend that it speaks of.
fn agents(section: &schema::ServiceSection, findings: &mut Findings) {
    let Some(health) = section.health.as_ref().map(|at| &at.value) else { return };
    let Some(agent) = health.agent.as_ref().map(|at| &at.value) else { return };
    let host = agent.address.as_ref().or(health.address.as_ref()).map(|at| at.value.as_str());
    let own_port = health.port.as_ref().map(|at| at.value.0);
    let is_backend = section.backends.value.iter().any(|backend| {
        let Ok(address) = backend.value.address.value.parse::<std::net::SocketAddr>() else { return false };
        let same = |host: Option<&str>| host.is_none_or(|host| host.parse() == Ok(address.ip()));
        let checked = same(health.address.as_ref().map(|at| at.value.as_str())) && same(host);
        same(host) && u64::from(address.port()) == agent.port.value.0 || checked && own_port == Some(agent.port.value.0)
    });
    if is_backend {
        findings.warning(
            agent.port.place,
            "agent_is_the_backend",
            "that is where the traffic or its checks go: an agent is a service of its own, which answers a line of words",
            "write the agent's port, or remove `agent`",
        );
    }
}

fn limits(section: &schema::ServiceSection, findings: &mut Findings) {
    let bound = &section.balance.value.bounded_load.value;
    let floor = bound.min_slots.as_ref().filter(|_| bound.preset.value != schema::PresetName::Off);
    for backend in section.backends.value.iter().map(|at| &at.value) {
        let (Some(most), Some(floor)) = (&backend.requests_max, floor) else { continue };
        if floor.value.0 > most.value.0 {
            findings.warning(
                most.place,
                "floor_above_ceiling",
                format!(
                    "`bounded_load.min_slots` lets a backend always carry {}, and this one never more than {}",
                    floor.value.0, most.value.0
                ),
                format!("write `min_slots: {}` or less, or a higher `requests_max`", most.value.0),
            );
        }
    }
    let of_service = &section.limits.value;
    for backend in section.backends.value.iter().map(|at| &at.value) {
        for (most, all, name) in [
            (&backend.requests_max, &of_service.requests_max, "requests_max"),
            (&backend.connections_max, &of_service.connections_max, "connections_max"),
            (&backend.pending_max, &of_service.pending_max, "pending_max"),
        ] {
            let (Some(most), Some(all)) = (most, all) else { continue };
            if all.value.0 < most.value.0 {
                findings.warning(
                    most.place,
                    "never_acts",
                    format!("the service as a whole takes {} at once: this is never reached", all.value.0),
                    format!("write at most {}, or a higher `limits.{name}`", all.value.0),
                );
            }
        }
    }
    races(section, findings);
}

/// Of a backend that loses each race nothing more is known than how long it was waited for.
fn races(section: &schema::ServiceSection, findings: &mut Findings) {
    let latency = section.outlier.as_ref().and_then(|outlier| outlier.value.latency.as_ref());
    let (Some(hedge), Some(latency)) = (&section.hedge, latency) else { return };
    let (after, least) = (&hedge.value.after, &latency.value.least);
    if least.value > after.value {
        findings.warning(
            least.place,
            "never_acts",
            format!(
                "a backend that is slower than `hedge.after` loses its requests to others then: no more than {} is known of it",
                duration_text(after.value)
            ),
            format!("write `least` below {}, or a longer `hedge.after`", duration_text(after.value)),
        );
    }
}

/// Over HTTP/2 a worker shares its connections with no other: each needs one of its own.
fn shared_connections(root: &schema::Root, findings: &mut Findings) {
    let workers = root.workers.value.0;
    let shared = |service: &&schema::ServiceSection| service.protocol.value == schema::UpstreamProtocolName::H2;
    for service in root.services.value.iter().map(|at| &at.value).filter(shared) {
        let of_backends = service.backends.value.iter().filter_map(|backend| backend.value.connections_max.as_ref());
        for most in service.limits.value.connections_max.iter().chain(of_backends) {
            // How many workers there are by default is not known here.
            if most.value.0 < workers {
                findings.warning(
                    most.place,
                    "too_few_to_share",
                    format!(
                        "with `protocol: h2` each of the {workers} workers needs a connection of its own to a backend"
                    ),
                    format!("write at least {workers}, or fewer `workers`"),
                );
            }
        }
    }
}

/// Whether a request that waits for a place may have no time left for anything else.
fn queue_outlives(
    section: &schema::ServiceSection,
    whole: &At<Duration>,
    named: &str,
    place: Place,
    findings: &mut Findings,
) {
    let bound = &section.balance.value.bounded_load.value;
    let wait = &bound.queue.value.timeout;
    if bound.all_full.value == schema::AllFullName::Queue && !whole.value.is_zero() && wait.value >= whole.value {
        findings.warning(
            place,
            "queue_outlives_request",
            format!(
                "a request may wait {} for a place, and its whole time ({named}) is {}: it would be over before",
                duration_text(wait.value),
                duration_text(whole.value)
            ),
            format!("write a `queue.timeout` well below {}, or raise {named}", duration_text(whole.value)),
        );
    }
}

/// What of listeners and their routes contradicts the process or the services.
pub(super) fn listeners(root: &schema::Root, findings: &mut Findings) {
    shared_connections(root, findings);
    let services: HashMap<&str, &schema::ServiceSection> =
        root.services.value.iter().map(|at| (at.value.name.value.as_str(), &at.value)).collect();
    for listener in root.listeners.value.iter().map(|at| &at.value) {
        connections(root, listener, findings);
        for route in listener.routes.value.iter().map(|at| &at.value) {
            let Some(timeout) = &route.timeout else { continue };
            let targets = route.split.value.iter().map(|target| &target.value.service);
            for name in route.service.iter().chain(targets) {
                if let Some(service) = services.get(name.value.as_str()) {
                    queue_outlives(service, timeout, "the route's `timeout`", timeout.place, findings);
                }
            }
        }
    }
}

fn connections(root: &schema::Root, listener: &schema::ListenerSection, findings: &mut Findings) {
    let (own, per_ip, all) =
        (&listener.connections_max, &listener.connections_per_ip_max, root.connections_max.value.0);
    if own.value.0 > all {
        findings.warning(
            own.place,
            "never_acts",
            format!(
                "the process as a whole takes {all} connections (`connections_max` at the top): this is never reached"
            ),
            format!("write at most {all}, or more at the top"),
        );
    }
    let most = if own.value.0 == 0 { all } else { own.value.0.min(all) };
    if per_ip.value.0 > most {
        findings.warning(
            per_ip.place,
            "never_acts",
            format!("all addresses together have {most} connections at most: this is never reached"),
            format!("write less than {most}"),
        );
    }
    if listener.protocol.value == schema::ProtocolName::Udp && listener.when_full.value == schema::WhenFullName::Reject
    {
        findings.warning(
            listener.when_full.place,
            "never_acts",
            "datagrams have no connections: a new flow takes the place of one that was never answered",
            "remove this; the limit is `udp: { flows_max: ... }`",
        );
    }
}
