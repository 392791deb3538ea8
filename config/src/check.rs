//! From the sections to the model: everything that a shape cannot say. The file as a whole here, listeners in [`listener`], their
//! routes in [`route`], services in [`service`], the small texts (addresses, names, paths) in [`text`].

mod access_log;
mod actions;
mod admin;
mod backend;
mod balance;
mod control;
mod cookies;
mod edges;
mod handoff;
pub(crate) use backend::{is_plain, registered};
pub(crate) use control::file_backends;
mod health;
mod key;
mod layer4;
mod listener;
mod names;
mod overload;
mod route;
mod service;
mod text;
mod tracing;
mod tries;
mod upstream;

use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, LogTarget, Protocol};
use crate::schema::{self, MetricsBackendsName, ProtocolName};
use names::Names;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use text::nonzero;

/// Builds the model. `None` if anything is an error.
pub(crate) fn check(root: &schema::Root, findings: &mut Findings) -> Option<model::Config> {
    let services = service::services(root, findings);
    let names = root.services.value.iter().enumerate();
    let names = Names {
        index: names.map(|(index, service)| (service.value.name.value.as_str(), index)).collect(),
        complete: !root.services.value.lost && (!root.services.value.is_empty() || root.control.is_some()),
    };
    let admin = admin::admin(&root.admin.value, findings);
    let listeners = listener::listeners(root, &names, findings);
    addresses(root, admin.as_ref(), findings);
    layer4::check(root, &listeners, findings);
    edges::listeners(root, findings);
    tries::routes(root, findings);
    tracing::edited_marks(root, findings);
    handoff::written_by_listeners(root, findings);
    let listeners: Vec<Option<model::Listener>> =
        listeners.into_iter().map(|listener| listener.map(|listener| with_splits(listener, &services))).collect();
    cookies::collisions(root, &listeners, &services, findings);
    let access_log = access_log(&root.access_log.value, findings);
    let tracing = root.tracing.as_ref().and_then(|at| tracing::tracing(&at.value, findings));
    findings.names_file(root.shadow.as_ref(), FileUse::Shadow, Need::Serving);
    nonzero(&root.drain_timeout, "drain_timeout", findings);
    let drain_spread = drain_spread(root, findings);
    let overload = overload::overload(&root.overload.value, findings);
    let outlier_interval = overload::outlier_warnings(&root.outlier_warnings.value, findings);
    let control = control::control(root, findings);
    balance::fleet_scopes(root, control.as_ref(), findings);
    if findings.has_errors() {
        return None;
    }
    Some(model::Config {
        admin,
        process: model::Process {
            workers: root.workers.value.0 as usize,
            connections_max: root.connections_max.value.0 as usize,
        },
        overload,
        outlier_interval,
        access_log,
        metrics: metrics(&root.metrics.value),
        tracing,
        zone: root.zone.as_ref().map(|at| at.value.clone()),
        shadow: root.shadow.as_ref().map(|at| at.value.clone().into()),
        drain_delay: root.drain_delay.value,
        drain_timeout: root.drain_timeout.value,
        drain_spread,
        control,
        listeners: listeners.into_iter().flatten().collect(),
        services: services.into_iter().flatten().map(Arc::new).collect(),
    })
}

/// Splits without a key of their own have that of their first target.
fn with_splits(mut listener: model::Listener, services: &[Option<model::Service>]) -> model::Listener {
    if let Protocol::Http(http) = &mut listener.protocol {
        for split in http.routes.iter_mut().filter_map(|route| route.split.as_mut()) {
            if split.key.is_empty()
                && let Some(Some(first)) = split.targets.first().and_then(|target| services.get(target.service))
            {
                split.key = first.hash_key.clone();
            }
            cookies::hold_targets(split, services);
        }
    }
    listener
}

fn drain_spread(root: &schema::Root, findings: &mut Findings) -> Duration {
    let timeout = root.drain_timeout.value;
    let Some(spread) = &root.drain_spread else { return timeout / 4 };
    if spread.value > timeout {
        findings.error(
            spread.place,
            "bad_duration",
            format!("`drain_spread` is longer than `drain_timeout`, which is {timeout:?}: connections would be cut before their time"),
            "write at most half of `drain_timeout`, or nothing",
        );
    }
    spread.value
}

fn metrics(section: &schema::MetricsSection) -> model::Metrics {
    match section.backends.value {
        MetricsBackendsName::Auto => model::Metrics::FullUpTo(section.full_backends_max.value.0 as usize),
        MetricsBackendsName::Full => model::Metrics::Full,
        MetricsBackendsName::Basic => model::Metrics::Basic,
        MetricsBackendsName::None => model::Metrics::Nothing,
    }
}

fn access_log(section: &schema::AccessLogSection, findings: &mut Findings) -> model::AccessLog {
    let target = LogTarget::parse(&section.target.value);
    if target.is_none() {
        findings.error(
            section.target.place,
            "bad_target",
            format!("`{}` is not a syslog server", section.target.value),
            "write `syslog`, `syslog:/dev/log`, `syslog+udp://10.0.0.1:514` or `syslog+tcp://10.0.0.1:601`",
        );
    }
    if matches!(target, Some(LogTarget::File(_))) && section.format.value != schema::AccessLogFormat::Off {
        findings.names_file(Some(&section.target), FileUse::Log, Need::Serving);
    }
    model::AccessLog {
        format: match section.format.value {
            schema::AccessLogFormat::Off => model::AccessLogFormat::Off,
            schema::AccessLogFormat::Json => model::AccessLogFormat::Json,
            schema::AccessLogFormat::Text | schema::AccessLogFormat::Combined => model::AccessLogFormat::Text,
        },
        line: access_log::line(section, findings),
        // Without a target there is no model.
        target: target.unwrap_or(LogTarget::Stdout),
        only: section.only.as_ref().map(|at| only(at, findings)),
    }
}

fn only(at: &At<schema::OnlySection>, findings: &mut Findings) -> model::AccessLogOnly {
    let section = &at.value;
    let only = model::AccessLogOnly {
        statuses: section.status.value.iter().filter_map(|at| statuses(at, findings)).collect(),
        slower_than: section.slower_than.as_ref().map(|at| at.value),
        sample: section.sample.value.0 / 100.0,
    };
    if section.status.value.is_empty() && !section.status.value.lost && only.slower_than.is_none() && only.sample == 0.0
    {
        findings.error(
            at.place,
            "empty_only",
            "the access log would have no lines",
            "write for example `{ status: [ 5xx ], sample: 1% }`, or `format: off`",
        );
    }
    only
}

/// `5xx`, or a status or a range of them.
fn statuses(at: &At<String>, findings: &mut Findings) -> Option<(u16, u16)> {
    match at.value.as_bytes() {
        [class @ b'1'..=b'5', b'x', b'x'] => {
            let low = u16::from(class - b'0') * 100;
            Some((low, low + 99))
        }
        _ => health::status_range(at, findings),
    }
}

/// Two listeners on one address, or a listener on the admin's.
fn addresses(root: &schema::Root, admin: Option<&model::Admin>, findings: &mut Findings) {
    // Datagrams and connections have ports of their own.
    let mut taken: HashMap<(SocketAddr, bool), &str> = HashMap::new();
    if let Some(address) = admin.and_then(|admin| admin.address) {
        taken.insert((address, false), "admin");
    }
    for listener in root.listeners.value.iter() {
        let at = &listener.value.address;
        let Ok(address) = at.value.parse::<SocketAddr>() else { continue };
        if address.port() == 0 {
            continue;
        }
        let udp = listener.value.protocol.value == ProtocolName::Udp;
        if let Some(other) = taken.insert((address, udp), &listener.value.name.value) {
            findings.error(
                at.place,
                "duplicate_address",
                format!("{address} is already the address of {other:?}"),
                "give each listener its own address or port",
            );
        }
    }
}
