//! Listeners: what they speak, where, with which certificates and limits.

use super::layer4::{tcp_listener, udp_listener};
use super::names::Names;
use super::route::routes;
use super::text::{self, address, lifetime, name, nonzero, unique};
use super::tracing;
use super::{actions, admin};
use crate::diagnostic::{At, Site};
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, Protocol};
use crate::schema::{self, ProtocolName};
use std::net::SocketAddr;
use std::time::Duration;

/// Most bytes of a frame that a client may send (RFC 9113, 4.2).
const H2_FRAME_BYTES: u64 = 16 * 1024;
/// Resets a second that every client may send, unless it is said otherwise.
const RESETS_MIN: u64 = 100;

pub(super) fn listeners(
    root: &schema::Root,
    services: &Names<'_>,
    findings: &mut Findings,
) -> Vec<Option<model::Listener>> {
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
    let admin = admin.and_then(admin::listens_at);
    let addresses = others.map(|other| &other.value.address).chain(&admin);
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
        keep_alive: keep_alive(&section.keep_alive.value, findings),
        timeouts: client_timeouts(section, findings),
        h2: h2(section, findings),
        errors: actions::error_answers(section, findings),
        compress: section.compress.as_ref().map(|at| Box::new(actions::compress(at, findings))),
        request_id: section.request_id.as_ref().map(|at| tracing::request_id(&at.value, findings)),
    })
}

fn h2(section: &schema::ListenerSection, findings: &mut Findings) -> model::H2 {
    let h2 = &section.h2.value;
    let flood = &h2.flood.value;
    // A block has a frame of HEADERS, then these.
    let (head, frames) = (section.head_bytes_max.value.0, flood.continuations_max.value.0 + 1);
    if h2.enabled.value && head > frames * H2_FRAME_BYTES {
        let message = format!(
            "a head of `head_bytes_max`, {head} bytes, does not fit into {frames} frames: over HTTP/2 it ends its connection"
        );
        let least = head.div_ceil(H2_FRAME_BYTES) - 1;
        let help = format!("write `h2: {{ flood: {{ continuations_max: {least} }} }}`, or more");
        findings.warning(section.head_bytes_max.place, "long_heads", message, help);
    }
    let or_none = |most: u64| if most == 0 { u32::MAX } else { most as u32 };
    model::H2 {
        enabled: h2.enabled.value,
        streams_max: h2.streams_max.value.0 as u32,
        extended_connect: h2.extended_connect.value,
        flood: model::Flood {
            resets_max: flood.resets_max.as_ref().map_or(h2.streams_max.value.0.max(RESETS_MIN), |at| at.value.0)
                as u32,
            resets_total_max: or_none(flood.resets_total_max.value.0),
            malformed_total_max: or_none(flood.malformed_total_max.value.0),
            pings_max: flood.pings_max.value.0 as u32,
            window_updates_max: flood.window_updates_max.value.0 as u32,
            empty_data_max: flood.empty_data_max.value.0 as u32,
            continuations_max: flood.continuations_max.value.0 as u32,
        },
    }
}

fn keep_alive(section: &schema::KeepAliveSection, findings: &mut Findings) -> Option<model::KeepAlive> {
    lifetime(&section.age_max, "age_max", findings);
    let (requests, age) = (section.requests_max.value.0 as u32, section.age_max.value);
    (requests > 0 || !age.is_zero()).then(|| model::KeepAlive {
        requests_max: if requests == 0 { u32::MAX } else { requests },
        age_max: if age.is_zero() { Duration::MAX } else { age },
    })
}

/// How long a client may take, and how slow it may be.
fn client_timeouts(section: &schema::ListenerSection, findings: &mut Findings) -> model::ClientTimeouts {
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
    model::ClientTimeouts {
        idle: timeouts.idle.value,
        head: timeouts.head.value,
        body_idle: timeouts.body_idle.value,
        write_idle: timeouts.write_idle.as_ref().map_or(timeouts.body_idle.value, |at| at.value),
        read_rate_min: timeouts.read_rate_min.value.0 as u32,
        write_rate_min: timeouts.write_rate_min.value.0 as u32,
        rate_window: timeouts.rate_window.value,
        body_total: timeouts.body_total.value,
        write_total: timeouts.write_total.value,
    }
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

fn networks(list: &[At<String>], findings: &mut Findings) -> model::Networks {
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
            network.ok()
        })
        .collect()
}
