//! How backends are spoken with, by traffic and by checks.

use crate::diagnostic::At;
use crate::files::Need;
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
