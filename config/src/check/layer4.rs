//! What `tcp` and `udp` listeners cannot give to the services that they lead to: requests to look into, names of servers, headers
//! in front of datagrams. A service says what it wants, a listener what it has; here the two meet.

use super::text::nonzero;
use crate::diagnostic::At;
use crate::diagnostic::Place;
use crate::findings::Findings;
use crate::model::{self, Listener, Protocol};
use crate::schema::{self, KeyPartSection, KeySection, ProtocolName};

/// What a source of a key is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A request.
    Request(&'static str),
    /// The name that a TLS client asks for.
    Name,
    /// An address, which everybody has.
    Address,
}

/// What a listener has to give.
#[derive(Debug, Clone, Copy, Default)]
struct Gives {
    request: bool,
    name: bool,
}

impl Gives {
    fn of(section: &schema::ListenerSection) -> Self {
        match section.protocol.value {
            ProtocolName::Http => Self {
                request: true,
                // A PROXY header may tell it.
                name: section.tls.is_some() || !section.proxy_protocol.value.is_empty(),
            },
            ProtocolName::Tcp => Self { request: false, name: true },
            ProtocolName::Udp => Self::default(),
        }
    }

    fn has(self, need: Need) -> bool {
        match need {
            Need::Request(_) => self.request,
            Need::Name => self.name,
            Need::Address => true,
        }
    }
}

/// A listener that leads to a service.
struct Way<'a> {
    name: &'a str,
    protocol: ProtocolName,
    gives: Gives,
}

impl Way<'_> {
    fn speaks(&self) -> &'static str {
        match self.protocol {
            ProtocolName::Http => "http",
            ProtocolName::Tcp => "tcp",
            ProtocolName::Udp => "udp",
        }
    }
}

/// Holds the services against the listeners that lead to them. A listener that could not be read leads nowhere.
pub(super) fn check(root: &schema::Root, listeners: &[Option<Listener>], findings: &mut Findings) {
    let mut ways: Vec<Vec<Way<'_>>> = root.services.value.iter().map(|_| Vec::new()).collect();
    for (at, listener) in root.listeners.value.iter().zip(listeners) {
        let mut services: Vec<usize> = listener.iter().flat_map(services_of).collect();
        services.sort_unstable();
        services.dedup();
        for service in services {
            let (name, protocol) = (&*at.value.name.value, at.value.protocol.value);
            ways[service].push(Way { name, protocol, gives: Gives::of(&at.value) });
        }
    }
    for (service, ways) in root.services.value.iter().zip(&ways) {
        keys(&service.value, ways, findings);
        streams_only(&service.value, ways, findings);
        requests_only(&service.value, ways, findings);
    }
}

/// The services that a listener leads to, some of them several times.
fn services_of(listener: &Listener) -> Vec<usize> {
    match &listener.protocol {
        Protocol::Http(http) => http
            .routes
            .iter()
            .flat_map(|route| {
                // A redirection asks nobody.
                let redirects = route.actions.as_ref().is_some_and(|actions| actions.redirect.is_some());
                let arms = route.split.iter().flat_map(|split| &split.targets).map(|target| target.service);
                (!redirects).then_some(route.service).into_iter().chain(arms)
            })
            .collect(),
        Protocol::Tcp(tcp) => tcp.service.into_iter().chain(tcp.names.iter().map(|(_, named)| *named)).collect(),
        Protocol::Udp(udp) => vec![udp.service],
    }
}

/// Sources of keys that a session or a flow never has.
fn keys(service: &schema::ServiceSection, ways: &[Way<'_>], findings: &mut Findings) {
    let by_key = matches!(
        service.balance.value.policy.value,
        schema::PolicyName::Ring | schema::PolicyName::Maglev | schema::PolicyName::Hrw
    );
    let hash_key = service.balance.value.hash_key.iter().filter(|_| by_key);
    let rate_key = service.rate_limit.iter().filter_map(|at| at.value.key.as_ref());
    for key in hash_key.chain(rate_key).flat_map(|list| list.value.iter()) {
        for (place, need) in needs(key) {
            key_source(place, need, ways, findings);
        }
    }
    let cookie = service.balance.value.affinity_cookie.as_ref();
    if let (Some(at), Some(way)) = (cookie, ways.first())
        && !ways.iter().any(|way| way.gives.request)
    {
        findings.error(
            at.place,
            "key_out_of_reach",
            format!("listener {:?} speaks {}: there are no cookies", way.name, way.speaks()),
            "remove `affinity_cookie`; a session or a flow stays on its backend in any case",
        );
    }
}

fn key_source(place: Place, need: Need, ways: &[Way<'_>], findings: &mut Findings) {
    let raw = |way: &&Way<'_>| way.protocol != ProtocolName::Http;
    let Some(way) = ways.iter().filter(raw).find(|way| !way.gives.has(need)) else { return };
    let what = match need {
        Need::Request(what) => what,
        Need::Name => "sni",
        Need::Address => return,
    };
    let message = format!("listener {:?} speaks {}: it cannot give `{what}`", way.name, way.speaks());
    let can = match way.protocol {
        ProtocolName::Udp => "`source_ip: {}`",
        ProtocolName::Tcp | ProtocolName::Http => "`source_ip: {}`, or `sni: {}` where clients speak TLS",
    };
    if ways.iter().any(|way| way.gives.has(need)) {
        let help = format!(
            "it is never there for {}: the next source counts, or `on_missing`; it can give {can}",
            way.speaks()
        );
        findings.warning(place, "key_out_of_reach", message, help);
    } else {
        findings.error(place, "key_out_of_reach", message, format!("write {can}"));
    }
}

/// The first need of each kind that a source has, and where it is written.
fn needs(at: &At<KeySection>) -> Vec<(Place, Need)> {
    let KeySection { header, cookie, source_ip, path, regex, uri, query, host, method, sni, all, place: _ } = &at.value;
    let plain = need([
        (header.is_some(), Need::Request("header")),
        (cookie.is_some(), Need::Request("cookie")),
        (path.is_some(), Need::Request("path")),
        (regex.is_some(), Need::Request("regex")),
        (uri.is_some(), Need::Request("uri")),
        (query.is_some(), Need::Request("query")),
        (host.is_some(), Need::Request("host")),
        (method.is_some(), Need::Request("method")),
        (sni.is_some(), Need::Name),
        (source_ip.is_some(), Need::Address),
    ]);
    let parts = all.iter().flat_map(|all| all.value.iter()).filter_map(part);
    plain.map(|need| (at.place, need)).into_iter().chain(parts).collect()
}

fn part(at: &At<KeyPartSection>) -> Option<(Place, Need)> {
    let KeyPartSection { header, cookie, source_ip, path, regex, uri, query, host, method, sni, place: _ } = &at.value;
    let need = need([
        (header.is_some(), Need::Request("header")),
        (cookie.is_some(), Need::Request("cookie")),
        (path.is_some(), Need::Request("path")),
        (regex.is_some(), Need::Request("regex")),
        (uri.is_some(), Need::Request("uri")),
        (query.is_some(), Need::Request("query")),
        (host.is_some(), Need::Request("host")),
        (method.is_some(), Need::Request("method")),
        (sni.is_some(), Need::Name),
        (source_ip.is_some(), Need::Address),
    ]);
    need.map(|need| (at.place, need))
}

fn need(there: [(bool, Need); 10]) -> Option<Need> {
    there.into_iter().find_map(|(there, need)| there.then_some(need))
}

/// What only a stream can begin with.
fn streams_only(service: &schema::ServiceSection, ways: &[Way<'_>], findings: &mut Findings) {
    let Some(way) = ways.iter().find(|way| way.protocol == ProtocolName::Udp) else { return };
    let header = &service.proxy_protocol;
    let places = [
        (header.value != schema::ProxyHeaderName::Off).then_some((header.place, "PROXY header", "proxy_protocol")),
        service.tls.as_ref().map(|at| (at.place, "TLS", "tls")),
    ];
    for (place, what, field) in places.into_iter().flatten() {
        findings.error(
            place,
            "udp_conditions",
            format!("listener {:?} speaks udp: its datagrams go to backends as they are, without {what}", way.name),
            format!("remove `{field}`, or give {:?} a service of its own", way.name),
        );
    }
}

/// What only responses can be timed for.
fn requests_only(service: &schema::ServiceSection, ways: &[Way<'_>], findings: &mut Findings) {
    let idle_min = &service.pool.value.idle_min;
    if let (true, Some(way)) = (idle_min.value.0 > 0, ways.first())
        && !ways.iter().any(|way| way.protocol == ProtocolName::Http)
    {
        findings.error(
            idle_min.place,
            "not_http",
            format!("listener {:?} speaks {}: each session has a connection of its own", way.name, way.speaks()),
            "remove it",
        );
    }
    let Some(way) = ways.iter().find(|way| way.protocol != ProtocolName::Http) else { return };
    if let Some(at) = &service.handoff {
        findings.error(
            at.place,
            "not_http",
            format!("listener {:?} speaks {}: there are no requests to hand keys off with", way.name, way.speaks()),
            format!("remove `handoff`, or give {:?} a service of its own", way.name),
        );
    }
    let Some(at) = &service.adaptive_concurrency else { return };
    findings.error(
        at.place,
        "not_http",
        format!(
            "listener {:?} speaks {}: there are no responses whose latency a limit could follow",
            way.name,
            way.speaks()
        ),
        format!("remove `adaptive_concurrency`, or give {:?} a service of its own", way.name),
    );
}

pub(super) fn tcp_listener(
    section: &schema::ListenerSection,
    routes: Vec<model::Route>,
    findings: &mut Findings,
) -> model::TcpListener {
    let mut listener = model::TcpListener { service: None, names: Vec::new() };
    for route in routes {
        if route.actions.is_some()
            || route.priority.is_some()
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

pub(super) fn udp_listener(
    section: &schema::ListenerSection,
    routes: &[model::Route],
    findings: &mut Findings,
) -> Option<model::UdpListener> {
    let plain = |route: &model::Route| {
        route.host.is_none()
            && route.path.is_none()
            && route.split.is_none()
            && route.actions.is_none()
            && route.priority.is_none()
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
