//! Request ids, and where traces go.

use super::text::{editable_name, header_value, nonempty, nonzero};
use super::upstream::upstream_tls;
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, TraceEndpoint, Trust};
use crate::schema::{self, TrustName};

fn trust(name: TrustName) -> Trust {
    match name {
        TrustName::Trusted => Trust::Trusted,
        TrustName::All => Trust::All,
        TrustName::None => Trust::None,
    }
}

pub(super) fn request_id(section: &schema::RequestIdSection, findings: &mut Findings) -> model::RequestId {
    model::RequestId {
        header: editable_name(&section.header, findings),
        trust: trust(section.trust.value),
        respond: section.respond.value,
    }
}

/// `None`: the endpoint is none.
pub(super) fn tracing(section: &schema::TracingSection, findings: &mut Findings) -> Option<model::Tracing> {
    let endpoint = endpoint(&section.endpoint, findings);
    nonzero(&section.timeout, "timeout", findings);
    findings.names_file(section.token_file.as_ref(), FileUse::Secret, Need::Serving);
    if let (Some(tls), Some(false)) = (&section.tls, endpoint.as_ref().map(|endpoint| endpoint.server.tls)) {
        findings.error(
            tls.place,
            "tls_without_https",
            "the collector is not spoken to by TLS",
            "write `https://` in `endpoint`, or remove `tls`",
        );
    }
    let attributes = section
        .attributes
        .value
        .iter()
        .map(|at| (nonempty(&at.value.name, "an attribute's name", findings), at.value.value.value.clone()));
    let attributes = attributes.collect();
    let headers = section
        .headers
        .value
        .iter()
        .map(|at| (editable_name(&at.value.name, findings), header_value(&at.value.value, findings)));
    Some(model::Tracing {
        headers: headers.collect(),
        endpoint: endpoint?,
        sample: section.sample.value.0 / 100.0,
        trust: trust(section.trust.value),
        query: section.query.value,
        service_name: nonempty(&section.service_name, "`service_name`", findings),
        attributes,
        token_file: section.token_file.as_ref().map(|at| at.value.clone().into()),
        gzip: section.gzip.value,
        timeout: section.timeout.value,
        tls: section.tls.as_ref().and_then(|at| upstream_tls(at, findings)),
    })
}

fn endpoint(at: &At<schema::Url>, findings: &mut Findings) -> Option<TraceEndpoint> {
    let endpoint = TraceEndpoint::parse(at.value.as_ref());
    if endpoint.is_none() {
        findings.error(
            at.place,
            "bad_endpoint",
            format!("`{}` is not the URL of a collector", at.value.as_ref()),
            "write for example `http://127.0.0.1:4318/v1/traces`",
        );
    }
    endpoint
}
