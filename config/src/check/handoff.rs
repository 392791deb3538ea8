//! Hand-off of keys: what it needs, and what its fields may say.

use super::text::{FRAMING, as_read, editable_name, nonzero};
use crate::diagnostic::{At, Place};
use crate::findings::Findings;
use crate::model::{Handoff, HandoffCopy, SafeMethod};
use crate::schema::{self, SafeMethodName};
use ringway_ring::PolicyParams;
use std::time::Duration;

/// Longest window: for so long a change is not over.
const WINDOW_MAX: Duration = Duration::from_secs(3600);

/// Fields that clients, or Ringway itself, say something else in.
const TAKEN: [&str; 72] = [
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "b3",
    "baggage",
    "cache-control",
    "cdn-loop",
    "cf-connecting-ip",
    "cookie",
    "date",
    "depth",
    "destination",
    "dnt",
    "dpop",
    "early-data",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "last-event-id",
    "last-modified",
    "link",
    "location",
    "lock-token",
    "max-forwards",
    "origin",
    "origin-agent-cluster",
    "overwrite",
    "pragma",
    "prefer",
    "priority",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "save-data",
    "server",
    "server-timing",
    "set-cookie",
    "signature",
    "signature-input",
    "strict-transport-security",
    "timeout",
    "traceparent",
    "tracestate",
    "true-client-ip",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-correlation-id",
    "x-csrf-token",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "x-rewrite-url",
    "x-ringway-explain",
    "x-ringway-handoff",
    "x-ringway-weight",
];
/// The same, by how they begin.
const TAKEN_PREFIXES: [&str; 8] =
    ["accept", "access-control-", "content-", "grpc-", "if-", "sec-", "x-b3-", "x-forwarded-"];

/// `None`: keys move at once.
pub(super) fn handoff(
    section: &schema::ServiceSection,
    policy: PolicyParams,
    findings: &mut Findings,
) -> Option<Handoff> {
    let at = section.handoff.as_ref()?;
    let handoff = &at.value;
    keys(at.place, section, policy, findings);
    nonzero(&handoff.window, "window", findings);
    if handoff.window.value > WINDOW_MAX {
        let message = "`window` is longer than an hour: a change would hardly ever be over";
        findings.error(handoff.window.place, "bad_duration", message, "write `1h` or less; `60s` is usual");
    }
    let copy = &handoff.copy.value;
    let method = |at: &At<SafeMethodName>| match at.value {
        SafeMethodName::Get => SafeMethod::Get,
        SafeMethodName::Head => SafeMethod::Head,
        SafeMethodName::Options => SafeMethod::Options,
    };
    Some(Handoff {
        window: handoff.window.value,
        copy: HandoffCopy {
            methods: match &copy.methods {
                None => vec![SafeMethod::Get],
                Some(methods) => methods.value.iter().map(method).collect(),
            },
            percent: copy.percent.value.0,
            in_flight_max: copy.in_flight_max.value.0 as u32,
            credentials: copy.credentials.value,
        },
        header: header(&handoff.header, findings),
    })
}

/// What is handed over are keys.
fn keys(place: Place, section: &schema::ServiceSection, policy: PolicyParams, findings: &mut Findings) {
    let balance = &section.balance.value;
    if !policy.hashes() {
        findings.error(
            place,
            "handoff_without_keys",
            format!("there is nothing to hand off: {} does not look at keys", policy.name()),
            "write `balance: { policy: ring, hash_key: [ ... ] }`, or remove `handoff`",
        );
    } else if balance.affinity_cookie.is_some() {
        findings.warning(
            place,
            "without_effect",
            "a cookie keeps each client on its backend here: nothing is handed off",
            "remove `balance.affinity_cookie`, or this",
        );
    } else if balance.hash_key.is_none() {
        findings.error(
            place,
            "handoff_without_keys",
            "without `hash_key` a key is a client's address, of which no backend has anything to hand off",
            "write what is cached by, for example `balance: { hash_key: [ { path: {} } ] }`, or remove `handoff`",
        );
    }
}

/// It is nobody's to write but ours, however backends read it.
fn header(at: &At<String>, findings: &mut Findings) -> String {
    let name = editable_name(at, findings);
    let read = as_read(&name);
    let is_taken = TAKEN.contains(&read.as_str()) || TAKEN_PREFIXES.iter().any(|prefix| read.starts_with(prefix));
    // What frames messages is told already, unless it is spelled otherwise.
    let frames = FRAMING.contains(&read.as_str());
    if is_taken && !frames || frames && read != name {
        own_field(at, format!("`{name}` says something else to backends"), findings);
    }
    name
}

fn own_field(at: &At<String>, message: String, findings: &mut Findings) {
    findings.error(at.place, "own_field", message, "write a name of its own, for example `x-ringway-previous-owner`");
}

/// Listeners write no field of that name: what clients send of it goes to no backend, and there would be two of it.
pub(super) fn written_by_listeners(root: &schema::Root, findings: &mut Findings) {
    let sections = root.services.value.iter().filter_map(|service| service.value.handoff.as_ref());
    let headers: Vec<_> = sections.map(|section| &section.value.header).map(|at| (as_read(&at.value), at)).collect();
    if headers.is_empty() {
        return;
    }
    let (mut written, mut edited) = (Vec::new(), Vec::new());
    for listener in root.listeners.value.iter() {
        let id = listener.value.request_id.as_ref().map(|at| &at.value.header);
        let tls = listener.value.tls.as_ref().and_then(|tls| tls.value.client.as_ref());
        let names = id.into_iter().chain(tls.map(|client| &client.value.header));
        written.extend(names.map(|at| as_read(&at.value)));
        for route in listener.value.routes.value.iter() {
            let edits = &route.value.request_headers.value;
            edited.extend(edits.set.value.iter().chain(edits.add.value.iter()).map(|at| &at.value.name));
        }
    }
    for (_, at) in headers.iter().filter(|(read, _)| written.contains(read)) {
        let message =
            format!("`{}` is the field of a listener's `request_id`, or of its clients' certificates", at.value);
        own_field(at, message, findings);
    }
    for at in edited.into_iter().filter(|at| headers.iter().any(|(read, _)| *read == as_read(&at.value))) {
        findings.error(
            at.place,
            "own_field",
            format!("Ringway writes `{}` itself, as `handoff` says: a route cannot write it", at.value),
            "remove it here, or give `handoff` another `header`",
        );
    }
}
