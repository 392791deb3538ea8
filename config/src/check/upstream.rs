//! How backends are spoken with, by traffic and by checks.

use super::text::header_value;
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::{model, schema};
use std::path::PathBuf;

pub(super) fn upstream_protocol(name: schema::UpstreamProtocolName) -> model::UpstreamProtocol {
    match name {
        schema::UpstreamProtocolName::Http1 => model::UpstreamProtocol::Http1,
        schema::UpstreamProtocolName::H2 => model::UpstreamProtocol::H2,
    }
}

/// The proxy's own certificate and key, which it shows to backends.
pub(super) fn own_pair(
    certificate: Option<&At<String>>,
    key: Option<&At<String>>,
    findings: &mut Findings,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            findings.names_pair(certificate, key, Need::Serving);
            Some((certificate.value.clone().into(), key.value.clone().into()))
        }
        (None, None) => None,
        (Some(alone), None) | (None, Some(alone)) => {
            findings.error(
                alone.place,
                "half_a_certificate",
                "`certificate` and `key` go together",
                "write both, or neither",
            );
            None
        }
    }
}

pub(super) fn upstream_tls(
    at: &At<Box<schema::UpstreamTlsSection>>,
    findings: &mut Findings,
) -> Option<model::UpstreamTls> {
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

pub(super) fn proxy_header(section: &schema::ServiceSection, findings: &mut Findings) -> Option<model::ProxyHeader> {
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
