//! Request ids, and where traces go.

use super::text::{as_read, editable_name, header_value, nonempty, nonzero};
use super::upstream::upstream_tls;
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model::{self, TraceEndpoint, Trust};
use crate::schema::{self, TrustName};

/// Fields that are written into requests or responses anyway, or that say what they are.
const OWN: [&str; 16] = [
    "allow",
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "forwarded",
    "host",
    "location",
    "retry-after",
    "set-cookie",
    "traceparent",
    "tracestate",
    "vary",
];
/// The same, by how they begin.
const OWN_PREFIXES: [&str; 4] = ["access-control-", "sec-websocket-", "x-forwarded-", "x-ringway-"];
/// What each request to a collector has; what frames it is nobody's in any case.
const COLLECTOR: [&str; 4] = ["content-encoding", "content-type", "host", "user-agent"];

/// A route does not edit the fields by which requests are marked: there would be two of one name, or none.
pub(super) fn edited_marks(root: &schema::Root, findings: &mut Findings) {
    let traced: &[&str] = if root.tracing.is_some() { &["traceparent", "tracestate"] } else { &[] };
    for listener in root.listeners.value.iter() {
        let id = listener.value.request_id.as_ref().map(|at| &at.value);
        let id_name = id.map(|id| as_read(&id.header.value));
        let certificate = listener.value.tls.as_ref().and_then(|tls| tls.value.client.as_ref());
        if let Some(at) = certificate.map(|client| &client.value.header)
            && id_name.as_ref() == Some(&as_read(&at.value))
        {
            findings.error(
                at.place,
                "own_field",
                format!("`{}` cannot have both the client's certificate and the request's id", at.value),
                "give one of them another `header`",
            );
        }
        let of_request = |name: &str| id_name.as_deref() == Some(name) || traced.contains(&name);
        let of_response = |name: &str| id_name.as_deref() == Some(name) && id.is_some_and(|id| id.respond.value);
        for route in listener.value.routes.value.iter() {
            edits_of(&route.value.request_headers.value, of_request, findings);
            edits_of(&route.value.response_headers.value, of_response, findings);
        }
    }
}

fn edits_of(edits: &schema::HeaderEditsSection, is_mark: impl Fn(&str) -> bool, findings: &mut Findings) {
    let written = edits.set.value.iter().chain(edits.add.value.iter()).map(|at| &at.value.name);
    for at in written.chain(edits.remove.value.iter()).filter(|at| is_mark(&as_read(&at.value))) {
        findings.error(
            at.place,
            "own_field",
            format!("Ringway writes `{}` itself, as `request_id` or `tracing` says: a route cannot edit it", at.value),
            "remove it here, or give `request_id` another `header`",
        );
    }
}

fn trust(name: TrustName) -> Trust {
    match name {
        TrustName::Trusted => Trust::Trusted,
        TrustName::All => Trust::All,
        TrustName::None => Trust::None,
    }
}

pub(super) fn request_id(section: &schema::RequestIdSection, findings: &mut Findings) -> model::RequestId {
    let header = editable_name(&section.header, findings);
    let read = as_read(&header);
    if OWN.contains(&read.as_str()) || OWN_PREFIXES.iter().any(|prefix| read.starts_with(prefix)) {
        findings.error(
            section.header.place,
            "own_field",
            format!("`{header}` is a field that Ringway writes or reads itself: it has no room for an id"),
            "write another name, for example `x-request-id`",
        );
    }
    model::RequestId { header, trust: trust(section.trust.value), respond: section.respond.value }
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
    let headers = section.headers.value.iter().map(|at| {
        let name = editable_name(&at.value.name, findings);
        let is_token = name == "authorization" && section.token_file.is_some();
        if is_token || COLLECTOR.contains(&name.as_str()) {
            findings.error(
                at.value.name.place,
                "own_field",
                format!("the collector is sent `{name}` by Ringway itself"),
                if is_token { "remove it, or `token_file`" } else { "remove it" },
            );
        }
        (name, header_value(&at.value.value, findings))
    });
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
