//! From the sections to the model: everything that a shape cannot say. Listeners and routes here, services in
//! [`service`], the small texts (addresses, names, paths) in [`text`].

mod actions;
mod control;
mod cookies;
mod edges;
pub(crate) use control::file_backends;
mod health;
mod key;
mod layer4;
mod names;
mod service;
mod text;
mod tries;
mod upstream;

use crate::diagnostic::At;
use crate::diagnostic::Site;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, HostMatch, PathMatch, Protocol};
use crate::schema::{self, ProtocolName};
use names::{Names, service_index};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use text::{address, header_name, literal, method, name, nonzero, path_text, unique};

/// Builds the model. `None` if anything is an error.
pub(crate) fn check(root: &schema::Root, findings: &mut Findings) -> Option<model::Config> {
    let services = service::services(root, findings);
    let names = root.services.value.iter().enumerate();
    let names = Names {
        index: names.map(|(index, service)| (service.value.name.value.as_str(), index)).collect(),
        complete: !root.services.value.lost && (!root.services.value.is_empty() || root.control.is_some()),
    };
    let admin = admin(root, findings);
    let listeners = listeners(root, &names, findings);
    addresses(root, admin.as_ref(), findings);
    layer4::check(root, &listeners, findings);
    edges::listeners(root, findings);
    tries::routes(root, findings);
    let services: Vec<Option<model::Service>> = services;
    let listeners = listeners.into_iter().map(|listener| {
        let mut listener = listener?;
        if let Protocol::Http(http) = &mut listener.protocol {
            for split in http.routes.iter_mut().filter_map(|route| route.split.as_mut()) {
                if split.key.is_empty()
                    && let Some(Some(first)) = split.arms.first().and_then(|arm| services.get(arm.service))
                {
                    split.key = first.hash_key.clone();
                }
                cookies::hold_arms(split, &services);
            }
        }
        Some(listener)
    });
    let listeners: Vec<Option<model::Listener>> = listeners.collect();
    cookies::collisions(root, &listeners, &services, findings);
    let access_log = access_log(&root.access_log.value, findings);
    findings.names_file(root.shadow.as_ref(), FileUse::Shadow, Need::Serving);
    nonzero(&root.drain_timeout, "drain_timeout", findings);
    let drain_spread = drain_spread(root, findings);
    let control = control::control(root, findings);
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
        zone: root.zone.as_ref().map(|at| at.value.clone()),
        shadow: root.shadow.as_ref().map(|at| at.value.clone().into()),
        drain_delay: root.drain_delay.value,
        drain_timeout: root.drain_timeout.value,
        drain_spread,
        control,
        listeners: listeners.into_iter().flatten().collect(),
        services: services.into_iter().flatten().collect(),
    })
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
    for host in admin.hosts.value.iter() {
        if host.value.is_empty() || host.value.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':' | '*')) {
            findings.error(
                host.place,
                "bad_host",
                format!("`{}` is not a host", host.value),
                "write the name alone, for example `proxy-1.example.com`",
            );
        }
    }
    let hosts = admin.hosts.value.iter().map(|host| host.value.to_ascii_lowercase()).collect();
    admin.enabled.value.then_some(model::Admin { address, site: Site::at(admin.address.place), hosts })
}

fn access_log(section: &schema::AccessLogSection, findings: &mut Findings) -> model::AccessLog {
    let is_file = !matches!(section.target.value.as_str(), "stdout" | "stderr");
    if is_file && section.format.value != schema::AccessLogFormat::Off {
        findings.names_file(Some(&section.target), FileUse::Log, Need::Serving);
    }
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
    // Datagrams and connections have ports of their own.
    let mut taken: HashMap<(SocketAddr, bool), &str> = HashMap::new();
    if let Some(admin) = admin {
        taken.insert((admin.address, false), "admin");
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

fn listeners(root: &schema::Root, services: &Names<'_>, findings: &mut Findings) -> Vec<Option<model::Listener>> {
    // The fleet may have none yet.
    if root.listeners.value.is_empty() && !root.listeners.value.lost && root.control.is_none() {
        findings.error(
            root.listeners.place,
            "empty_listeners",
            "there is no listener",
            "add one: `- { name: web, address: \"0.0.0.0:8080\", service: ... }`",
        );
    }
    unique(root.listeners.value.iter().map(|listener| &listener.value.name), "listener", findings);
    let list = root.listeners.value.iter();
    let models = list.map(|listener| {
        let v6_only = v6_only(&listener.value, root, findings);
        listener_model(&listener.value, v6_only, services, findings)
    });
    models.collect()
}

/// Whether a listener leaves IPv4 to others.
fn v6_only(section: &schema::ListenerSection, root: &schema::Root, findings: &mut Findings) -> bool {
    let Ok(address) = section.address.value.parse::<SocketAddr>() else { return false };
    let takes_both = address.is_ipv6() && address.ip().is_unspecified();
    if let Some(said) = &section.v6_only {
        if !(takes_both || (said.value && address.is_ipv6())) {
            findings.error(
                said.place,
                "bad_v6_only",
                format!("`{}` has one family in any case: `v6_only` is for `[::]`", section.address.value),
                format!("remove it, or write `address: \"[::]:{}\"`", address.port()),
            );
        }
        return said.value;
    }
    if !takes_both {
        return address.is_ipv6();
    }
    if address.port() == 0 {
        return false;
    }
    let is_udp = |section: &schema::ListenerSection| section.protocol.value == ProtocolName::Udp;
    let rival = |at: &At<String>| {
        let rival = at.value.parse::<SocketAddr>();
        rival.is_ok_and(|rival| rival.is_ipv4() && rival.port() == address.port()).then(|| at.value.clone())
    };
    let others = root.listeners.value.iter().filter(|other| is_udp(&other.value) == is_udp(section));
    let admin = Some(&root.admin.value).filter(|admin| admin.enabled.value && !is_udp(section));
    let addresses = others.map(|other| &other.value.address).chain(admin.map(|admin| &admin.address));
    let Some(other) = addresses.filter_map(rival).next() else { return false };
    findings.warning(
        section.address.place,
        "v6_only",
        format!("`{}` takes IPv6 alone, because `{other}` has the same port", section.address.value),
        "write `v6_only: true` to say so, or give the other its own port",
    );
    true
}

fn listener_model(
    section: &schema::ListenerSection,
    v6_only: bool,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<model::Listener> {
    name(&section.name, "a listener's name", findings);
    let address = address(&section.address, findings);
    let routes = routes(section, services, findings);
    let protocol = match section.protocol.value {
        ProtocolName::Http => Protocol::Http(http_listener(section, routes?, findings)?),
        ProtocolName::Tcp => Protocol::Tcp(tcp_listener(section, routes?, findings)),
        ProtocolName::Udp => Protocol::Udp(udp_listener(section, &routes?, findings)?),
    };
    let proxy_protocol = networks(&section.proxy_protocol.value, findings);
    let mut tls = section.tls.as_ref().and_then(|at| listener_tls(at, section.protocol.value, findings));
    if let Some(tls) = tls.as_mut().filter(|_| !section.h2.value.enabled.value) {
        tls.alpn.retain(|name| *name != "h2");
    }
    Some(model::Listener {
        name: section.name.value.clone(),
        address: address?,
        site: Site::at(section.address.place),
        v6_only,
        protocol,
        tls,
        proxy_protocol,
        connections_max: section.connections_max.value.0 as usize,
        reject_when_full: section.when_full.value == schema::WhenFullName::Reject,
        connections_per_ip_max: section.connections_per_ip_max.value.0 as u32,
    })
}

fn tcp_listener(
    section: &schema::ListenerSection,
    routes: Vec<model::Route>,
    findings: &mut Findings,
) -> model::TcpListener {
    let mut listener = model::TcpListener { service: None, names: Vec::new() };
    for route in routes {
        if route.actions.is_some()
            || route.split.is_some()
            || route.path.is_some()
            || !route.methods.is_empty()
            || !route.headers.is_empty()
        {
            findings.error(
                section.routes.place,
                "tcp_conditions",
                "a tcp listener cannot look into its traffic further than the name that a TLS client asks for",
                "keep `match: { host: ... }` and `service: ...` alone, or write `protocol: http`",
            );
        }
        match route.host {
            Some(host) => listener.names.push((host, route.service)),
            None => {
                listener.service.get_or_insert(route.service);
            }
        }
    }
    listener
}

fn udp_listener(
    section: &schema::ListenerSection,
    routes: &[model::Route],
    findings: &mut Findings,
) -> Option<model::UdpListener> {
    let plain = |route: &model::Route| {
        route.host.is_none() && route.path.is_none() && route.split.is_none() && route.actions.is_none()
    };
    let [route] = routes else {
        findings.error(
            section.routes.place,
            "udp_conditions",
            "a udp listener has one service",
            "write `service: ...`",
        );
        return None;
    };
    if !plain(route) || !route.methods.is_empty() || !route.headers.is_empty() {
        findings.error(
            section.routes.place,
            "udp_conditions",
            "a udp listener cannot look into its traffic",
            "write `service: ...` instead of `routes`",
        );
    }
    for at in section.tls.iter().map(|at| at.place).chain(section.proxy_protocol.value.first().map(|at| at.place)) {
        findings.error(at, "udp_conditions", "a udp listener speaks neither TLS nor the PROXY protocol", "remove it");
    }
    nonzero(&section.udp.value.idle, "idle", findings);
    Some(model::UdpListener {
        service: route.service,
        idle: section.udp.value.idle.value,
        flows_max: section.udp.value.flows_max.value.0 as usize,
        quic: section.udp.value.quic_connection_id.as_ref().map(|at| model::QuicIds {
            length: at.value.length.value.0 as usize,
            ids_max: at.value.ids_max.value.0 as usize,
        }),
    })
}

fn listener_tls(
    at: &At<schema::ListenerTlsSection>,
    protocol: ProtocolName,
    findings: &mut Findings,
) -> Option<model::ListenerTls> {
    let section = &at.value;
    if section.certificates.value.is_empty() {
        if section.certificates.value.lost {
            return None;
        }
        findings.error(
            section.certificates.place,
            "no_certificate",
            "TLS needs a certificate",
            "add one: `- { certificate: server.pem, key: server.key }`",
        );
        return None;
    }
    for at in section.certificates.value.iter() {
        findings.names_pair(&at.value.certificate, &at.value.key, Need::Serving);
        findings.names_file(at.value.ocsp.as_ref(), FileUse::Ocsp, Need::Serving);
    }
    findings.names_file(section.client.as_ref().map(|at| &at.value.ca), FileUse::Authorities, Need::Serving);
    let alpn = match (&section.alpn, protocol) {
        (_, ProtocolName::Tcp | ProtocolName::Udp) => Vec::new(),
        (None, _) => vec!["h2", "http/1.1"],
        (Some(list), _) => {
            let name = |name: &schema::AlpnName| if *name == schema::AlpnName::H2 { "h2" } else { "http/1.1" };
            list.value.iter().map(|at| name(&at.value)).collect()
        }
    };
    Some(model::ListenerTls {
        certificates: section
            .certificates
            .value
            .iter()
            .map(|at| model::Certificate {
                certificate: at.value.certificate.value.clone().into(),
                key: at.value.key.value.clone().into(),
                ocsp: at.value.ocsp.as_ref().map(|at| at.value.clone().into()),
            })
            .collect(),
        tls12: section.min_version.value == schema::TlsVersionName::Tls12,
        alpn,
        reject_unknown: section.unknown_sni.value == schema::UnknownSniName::Reject,
        client: section.client.as_ref().map(|at| model::ClientCertificates {
            ca: at.value.ca.value.clone().into(),
            required: at.value.certificate.value == schema::ClientCertificateName::Required,
            header: text::editable_name(&at.value.header, findings),
        }),
    })
}

fn routes(
    section: &schema::ListenerSection,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<Vec<model::Route>> {
    match (&section.service, &section.routes.value[..]) {
        (Some(service), []) => {
            let service = service_index(service, services, findings)?;
            Some(vec![model::Route {
                host: None,
                path: None,
                methods: Vec::new(),
                headers: Vec::new(),
                service,
                split: None,
                actions: None,
            }])
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
        // Perhaps there are some that could not be read.
        (None, []) if section.routes.value.lost => None,
        (None, []) => {
            findings.absent(
                section.place,
                "no_route",
                format!("listener {:?} leads nowhere", section.name.value),
                "add `service: ...` or `routes:`",
            );
            None
        }
        (None, routes) => {
            let built: Vec<_> = routes.iter().map(|route| route_model(route, services, findings)).collect();
            let catch_all = routes.iter().position(|route| catches_all(&route.value, findings));
            if let Some(next) = catch_all.and_then(|index| routes.get(index + 1)) {
                findings.warning(
                    next.place,
                    "unreachable_route",
                    "no request comes as far as this route: the one before takes all",
                    "put the route without conditions last",
                );
            }
            let built: Option<Vec<model::Route>> = built.into_iter().collect();
            if let (Some(built), Some(last), ProtocolName::Http) = (&built, catch_all, section.protocol.value) {
                prefixes_before(&built[..=last], routes, findings);
            }
            built
        }
    }
}

/// Whether a route has no condition, not even one that could not be read.
fn catches_all(route: &schema::RouteSection, findings: &Findings) -> bool {
    let conditions = &route.r#match.value;
    conditions.host.is_none()
        && conditions.path.is_none()
        && conditions.path_prefix.is_none()
        && conditions.method.is_none()
        && conditions.methods.value.is_empty()
        && !conditions.methods.value.lost
        && conditions.headers.value.is_empty()
        && !conditions.headers.value.lost
        && !findings.is_lost(conditions.place)
        && !findings.is_lost(route.place)
}

/// Prefixes are compared with the path as the client wrote it: `//admin`, `/./admin` and `/%61dmin` are no `/admin`, and the
/// route that takes all (the last here) takes them too, unchanged. Told once a listener, of the first route that is passed by
/// so and does something else than the last one.
fn prefixes_before(routes: &[model::Route], sections: &[At<schema::RouteSection>], findings: &mut Findings) {
    let Some((last, before)) = routes.split_last() else { return };
    for (route, section) in before.iter().zip(sections) {
        let Some(prefix) = &section.value.r#match.value.path_prefix else { continue };
        let same = route.service == last.service
            && format!("{:?} {:?}", route.split, route.actions) == format!("{:?} {:?}", last.split, last.actions);
        if prefix.value != "/" && !same {
            let path = prefix.value.trim_end_matches('/');
            findings.warning(
                prefix.place,
                "prefix_is_no_wall",
                format!("paths such as `/{path}` and `/.{path}` are not below `{path}`: the route without conditions takes them"),
                "if this route keeps anybody out, give the last one a `path_prefix` too: what matches no route is answered 404",
            );
            return;
        }
    }
}

fn route_model(at: &At<schema::RouteSection>, services: &Names<'_>, findings: &mut Findings) -> Option<model::Route> {
    let section = &at.value;
    let target = if section.redirect.is_some() && section.service.is_none() && section.split.value.is_empty() {
        // Nobody is asked.
        Some((0, None))
    } else {
        target(at, services, findings)
    };
    let conditions = &section.r#match.value;
    let host = conditions.host.as_ref().map(|host| {
        let text = host.value.to_ascii_lowercase();
        // With or without the dot of the root, it is one name.
        let text = text.strip_suffix('.').unwrap_or(&text);
        let bare = text.strip_prefix("*.").unwrap_or(text);
        if bare.is_empty() || bare.contains(['*', '/', ' ']) || bare.contains(':') && !bare.starts_with('[') {
            findings.error(
                host.place,
                "bad_host",
                format!("`{}` is not a host", host.value),
                "write `api.example.com` or `*.example.com`, without port",
            );
        }
        if text.starts_with("*.") { HostMatch::Suffix(text[1..].to_owned()) } else { HostMatch::Exact(text.to_owned()) }
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
        (Some(path), None) => {
            let prefix = path.value.split('*').next().unwrap_or_default();
            let prefix = if prefix.len() > 1 { prefix.trim_end_matches('/') } else { "/" };
            literal(path, format!("write `path_prefix: {prefix}` for all that is below it"), findings);
            path_text(path, findings).map(PathMatch::Exact)
        }
        (None, Some(path)) => {
            literal(path, "leave it out: a prefix matches all that is below it".to_owned(), findings);
            path_text(path, findings).map(PathMatch::Prefix)
        }
        (None, None) => None,
    };
    let methods: Vec<String> =
        conditions.method.iter().chain(conditions.methods.value.iter()).map(|at| method(at, findings)).collect();
    let headers = conditions
        .headers
        .value
        .iter()
        .inspect(|header| {
            if let Some(value) = &header.value.value {
                literal(value, "leave `value` out where any will do".to_owned(), findings);
            }
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|header| model::HeaderMatch {
            name: header_name(&header.value.name, findings),
            value: header.value.value.as_ref().map(|value| value.value.clone()),
        })
        .collect();
    let actions = actions::actions(section, path.as_ref(), services, findings);
    if let (Some(redirect), true) = (&section.redirect, section.service.is_some() || !section.split.value.is_empty()) {
        findings.error(
            redirect.place,
            "redirect_and_service",
            "a redirection goes to no service",
            "remove `redirect`, or `service` and `split`",
        );
    }
    let (service, split) = target?;
    Some(model::Route { host, path, methods, headers, service, split, actions })
}

/// The service of a route, or the arms of its split.
fn target(
    at: &At<schema::RouteSection>,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Option<(usize, Option<model::Split>)> {
    let section = &at.value;
    let key = section.split_key.as_ref().map(|keys| key::sources(keys, findings));
    match (&section.service, &section.split.value[..]) {
        (Some(service), []) => {
            if let Some(keys) = &section.split_key {
                findings.warning(keys.place, "unused_split_key", "there is no split", "write `split:`, or remove this");
            }
            Some((service_index(service, services, findings)?, None))
        }
        (Some(service), _) => {
            findings.error(
                service.place,
                "service_and_split",
                "`service` and `split` exclude each other",
                "make it an arm of the split",
            );
            None
        }
        (None, []) if section.split.value.lost => None,
        (None, []) => {
            findings.absent(at.place, "no_service", "the route leads nowhere", "add `service: ...`");
            None
        }
        (None, arms) => {
            unique(arms.iter().map(|arm| &arm.value.service), "arm", findings);
            if arms.iter().all(|arm| arm.value.weight.value.0 == 0) {
                findings.error(
                    section.split.place,
                    "empty_split",
                    "every arm has weight 0",
                    "give one a weight above 0",
                );
            }
            let built: Vec<Option<model::SplitArm>> = arms
                .iter()
                .map(|arm| {
                    Some(model::SplitArm {
                        service: service_index(&arm.value.service, services, findings)?,
                        weight: arm.value.weight.value.0 as u32,
                        salt: xxhash_rust::xxh3::xxh3_64(arm.value.service.value.as_bytes()),
                        cookie: None,
                    })
                })
                .collect();
            let arms: Option<Vec<model::SplitArm>> = built.into_iter().collect();
            let arms = arms?;
            // Filled in when the services are known, if nothing is said here.
            Some((arms.first()?.service, Some(model::Split { arms, key: key.unwrap_or_default() })))
        }
    }
}

fn http_listener(
    section: &schema::ListenerSection,
    routes: Vec<model::Route>,
    findings: &mut Findings,
) -> Option<model::HttpListener> {
    let forwarded = &section.forwarded.value;
    let trusted = networks(&forwarded.trusted.value, findings);
    let explain_allow = networks(&section.explain_allow.value, findings);
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
    for (at, name) in [
        (&timeouts.idle, "idle"),
        (&timeouts.head, "head"),
        (&timeouts.body_idle, "body_idle"),
        (&timeouts.rate_window, "rate_window"),
    ] {
        nonzero(at, name, findings);
    }
    if let Some(at) = &timeouts.write_idle {
        nonzero(at, "write_idle", findings);
    }
    Some(model::HttpListener {
        routes,
        forwarded: model::Forwarded {
            trusted,
            source: match forwarded.source.value {
                schema::ForwardedSourceName::XForwardedFor => model::ForwardedSource::XForwardedFor,
                schema::ForwardedSourceName::Forwarded => model::ForwardedSource::Forwarded,
            },
            x_forwarded: forwarded.x_forwarded.value,
            forwarded: forwarded.forwarded.value,
        },
        head_bytes_max: head.value.0 as usize,
        fields_max: section.fields_max.value.0 as usize,
        explain_allow,
        body_bytes_max: section.body_bytes_max.as_ref().map_or(u64::MAX, |at| at.value.0),
        allow_half_close: section.allow_half_close.value,
        timeouts: model::ClientTimeouts {
            idle: timeouts.idle.value,
            head: timeouts.head.value,
            body_idle: timeouts.body_idle.value,
            write_idle: timeouts.write_idle.as_ref().map_or(timeouts.body_idle.value, |at| at.value),
            read_rate_min: timeouts.read_rate_min.value.0 as u32,
            write_rate_min: timeouts.write_rate_min.value.0 as u32,
            rate_window: timeouts.rate_window.value,
            body_total: timeouts.body_total.value,
            write_total: timeouts.write_total.value,
        },
        h2: model::H2 {
            enabled: section.h2.value.enabled.value,
            streams_max: section.h2.value.streams_max.value.0 as u32,
            extended_connect: section.h2.value.extended_connect.value,
        },
        errors: actions::error_answers(section, findings),
        compress: section.compress.as_ref().map(|at| Box::new(actions::compress(at, findings))),
    })
}

fn networks(list: &[At<String>], findings: &mut Findings) -> Vec<ipnet::IpNet> {
    list.iter()
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
            network.ok().map(canonical)
        })
        .collect()
}

/// A network of IPv4 addresses mapped into IPv6 is the IPv4 network: addresses are compared in that form.
fn canonical(network: ipnet::IpNet) -> ipnet::IpNet {
    let mapped = match network {
        ipnet::IpNet::V4(_) => None,
        ipnet::IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
    };
    mapped.and_then(|(address, bits)| ipnet::Ipv4Net::new(address, bits).ok()).map_or(network, Into::into)
}
