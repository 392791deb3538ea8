//! Active checks and ejection.

use super::key::regex;
use super::text::{editable_name, header_name, header_value, method, nonzero, path_text};
use super::upstream::{own_pair, upstream_protocol};
use crate::decode::duration_text;
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, Capture, CheckKind, HttpCheck, UpstreamProtocol};
use crate::schema::{self, OutlierOnName};
use ringway_health::{
    CheckParams, FailurePercentageParams, Initial, LatencyParams, OutlierOn, OutlierParams, SuccessRateParams,
};
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn health_check(at: &At<Box<schema::HealthSection>>, findings: &mut Findings) -> Option<model::HealthCheck> {
    let section = &at.value;
    let places = [
        section.http.as_ref().map(|at| at.place),
        section.grpc.as_ref().map(|at| at.place),
        section.tcp.as_ref().map(|at| at.place),
    ];
    if let Some(second) = places.iter().flatten().nth(1) {
        findings.error(*second, "two_checks", "`http`, `grpc` and `tcp` exclude one another", "keep one of them");
        return None;
    }
    let kind = check_kind(at, findings)?;
    let kind_answers = !matches!(kind, CheckKind::Tcp);
    let address = section.address.as_ref().and_then(|at| ip_address(at, findings));
    let params = check_params(section, findings);
    if let Some(tls) = section.tls.as_ref().filter(|at| at.value.verify.value) {
        findings.names_file(tls.value.ca.as_ref(), FileUse::Authorities, Need::Serving);
    }
    Some(model::HealthCheck {
        params,
        kind,
        port: section.port.as_ref().map(|at| at.value.0 as u16),
        address,
        tls: section.tls.as_ref().map(|at| model::UpstreamTls {
            sni: at.value.sni.as_ref().map(|at| header_value(at, findings)),
            ca: at.value.ca.as_ref().map(|at| at.value.clone().into()),
            verify: at.value.verify.value,
            // A check's response is judged by what it holds.
            ignore_unexpected_eof: true,
            own: own_pair(at.value.certificate.as_ref(), at.value.key.as_ref(), findings),
        }),
        proxy_protocol: section.proxy_protocol.as_ref().and_then(|at| match at.value {
            schema::ProxyHeaderName::Off => None,
            schema::ProxyHeaderName::V1 => Some(model::ProxyHeader::V1),
            schema::ProxyHeaderName::V2 => Some(model::ProxyHeader::V2 { unique_id: false }),
        }),
        agent: section.agent.as_ref().map(|at| agent(&at.value, section, findings)),
        reuse_connection: section.reuse_connection.value && kind_answers,
        concurrency: section.concurrency.value.0 as usize,
    })
}

/// What is checked: exactly one of `http`, `grpc` and `tcp`.
fn check_kind(at: &At<Box<schema::HealthSection>>, findings: &mut Findings) -> Option<CheckKind> {
    let section = &at.value;
    Some(match (&section.http, &section.grpc, &section.tcp) {
        (Some(http), ..) => http_check(&http.value, findings)?,
        (None, Some(grpc), _) => CheckKind::Grpc {
            service: grpc.value.service.as_ref().map_or_else(String::new, |at| header_value(at, findings)),
            authority: grpc.value.authority.as_ref().map(|at| header_value(at, findings)),
        },
        (None, None, Some(_)) => CheckKind::Tcp,
        (None, None, None) => {
            findings.absent(
                at.place,
                "no_check",
                "it does not say what to check",
                "add `http: { path: /healthz }`, `grpc: {}` or `tcp: {}`",
            );
            return None;
        }
    })
}

/// How often a backend is checked, for how long, and how many results in a row decide.
fn check_params(section: &schema::HealthSection, findings: &mut Findings) -> CheckParams {
    let or_interval = |at: &Option<At<Duration>>| at.as_ref().map_or(section.interval.value, |at| at.value);
    let intervals = [Some(&section.interval), section.interval_down.as_ref(), section.interval_transition.as_ref()];
    intervals.into_iter().flatten().for_each(|interval| far_enough_apart(interval, findings));
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
    CheckParams {
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
    }
}

/// A check that goes where the traffic goes speaks as the traffic does, unless it says otherwise.
pub(super) fn as_the_traffic(
    health: &mut model::HealthCheck,
    section: &schema::HealthSection,
    protocol: UpstreamProtocol,
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
        if let (false, CheckKind::Http(http)) = (says, &mut health.kind) {
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

fn ip_address(at: &At<String>, findings: &mut Findings) -> Option<IpAddr> {
    let parsed = at.value.parse().ok();
    if parsed.is_none() {
        let message = format!("`{}` is not an IP address", at.value);
        findings.error(at.place, "bad_address", message, "write for example `10.0.0.1`; the port is `port`");
    }
    parsed
}

fn far_enough_apart(interval: &At<Duration>, findings: &mut Findings) {
    if interval.value < Duration::from_millis(10) {
        findings.error(
            interval.place,
            "bad_duration",
            "checks cannot be less than 10 ms apart",
            "write for example `2s`",
        );
    }
}

fn agent(section: &schema::AgentSection, checks: &schema::HealthSection, findings: &mut Findings) -> model::Agent {
    let interval = section.interval.as_ref().unwrap_or(&checks.interval);
    let timeout = section.timeout.as_ref().unwrap_or(&checks.timeout);
    section.interval.iter().for_each(|interval| far_enough_apart(interval, findings));
    section.timeout.iter().for_each(|timeout| nonzero(timeout, "timeout", findings));
    // The checks' own pair is warned of there.
    if timeout.value > interval.value
        && let Some(said) = section.timeout.as_ref().or(section.interval.as_ref())
    {
        findings.warning(
            said.place,
            "timeout_above_interval",
            format!(
                "an agent may take {} for its answer, and is asked every {}: the next question waits for it",
                duration_text(timeout.value),
                duration_text(interval.value)
            ),
            "write a shorter `timeout`, or a longer `interval`",
        );
    }
    model::Agent {
        port: section.port.value.0 as u16,
        address: section.address.as_ref().and_then(|at| ip_address(at, findings)),
        interval: interval.value,
        timeout: timeout.value,
        send: section.send.as_ref().map_or_else(String::new, |at| at.value.0.clone()),
    }
}

fn http_check(section: &schema::HttpCheckSection, findings: &mut Findings) -> Option<CheckKind> {
    let path = path_text(&section.path, findings);
    let mut expect: Vec<(u16, u16)> = section.expect.value.iter().filter_map(|at| status_range(at, findings)).collect();
    if expect.is_empty() {
        expect.push((200, 399));
    }
    let mut host = section.host.as_ref().map(|at| header_value(at, findings));
    let mut headers = Vec::new();
    for header in section.headers.value.iter().map(|at| &at.value) {
        let (name, value) = (editable_name(&header.name, findings), header_value(&header.value, findings));
        if name != "host" {
            headers.push((name, value));
        } else if host.replace(value).is_some() {
            findings.error(
                header.name.place,
                "two_hosts",
                "a request has one `Host`, and another is said already",
                "keep one of them; `host: ...` is the short form",
            );
        }
    }
    let body = match (&section.body, &section.body_regex) {
        (Some(_), Some(at)) => {
            findings.error(at.place, "two_bodies", "`body` and `body_regex` exclude each other", "keep one of the two");
            None
        }
        (Some(at), None) => regex(&At { value: regex::escape(&at.value), place: at.place }, findings).map(Capture),
        (None, Some(at)) => regex(at, findings).map(Capture),
        (None, None) => None,
    };
    let weight_header = header_name(&section.weight_header, findings);
    let method = method(&section.method, findings);
    // Absent, the service's: see `as_the_traffic`.
    let protocol = section.protocol.as_ref().map_or(UpstreamProtocol::Http1, |at| upstream_protocol(at.value));
    Some(CheckKind::Http(HttpCheck { protocol, method, path: path?, host, headers, expect, body, weight_header }))
}

pub(super) fn status_range(at: &At<String>, findings: &mut Findings) -> Option<(u16, u16)> {
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

pub(super) fn outlier(section: Option<&At<Box<schema::OutlierSection>>>, findings: &mut Findings) -> OutlierParams {
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
    nonzero(&section.interval, "interval", findings);
    if let Some(detector) = &section.failure_percentage
        && detector.value.threshold.value.0 == 0
    {
        findings.error(
            detector.value.threshold.place,
            "out_of_range",
            "a threshold of 0 % would eject everybody",
            "write a percentage from 1 to 100",
        );
    }
    OutlierParams {
        on: match section.on.value {
            OutlierOnName::Connection => OutlierOn::Connection,
            OutlierOnName::Gateway => OutlierOn::Gateway,
            OutlierOnName::ServerErrors => OutlierOn::ServerErrors,
        },
        consecutive_failures: section.consecutive_failures.value.0 as u32,
        consecutive_local_failures: section.consecutive_local_failures.as_ref().map(|at| at.value.0 as u32),
        failure_percentage: section.failure_percentage.as_ref().map(|at| FailurePercentageParams {
            threshold: at.value.threshold.value.0,
            hosts_min: at.value.min_hosts.value.0 as u32,
            volume_min: at.value.min_volume.value.0 as u32,
        }),
        success_rate: section.success_rate.as_ref().map(|at| SuccessRateParams {
            deviations: at.value.deviations.value.0,
            hosts_min: at.value.min_hosts.value.0 as u32,
            volume_min: at.value.min_volume.value.0 as u32,
        }),
        latency: section.latency.as_ref().map(|at| LatencyParams {
            factor: at.value.factor.value.0,
            least: at.value.least.value,
            hosts_min: at.value.min_hosts.value.0 as u32,
            volume_min: at.value.min_volume.value.0 as u32,
        }),
        interval: section.interval.value,
        retry_after_max: section.retry_after_max.value,
        return_on_check: section.return_on_check.value,
        base_ejection: section.base_ejection.value,
        max_ejection: section.max_ejection.value,
        jitter: f64::from(section.jitter.value.0) / 100.0,
        max_ejection_percent: section.max_ejection_percent.value.0,
    }
}
