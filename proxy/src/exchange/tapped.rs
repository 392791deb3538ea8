//! A request that an operator looks at: its whole life, as one line of JSON. Nothing here is on the way of requests that nobody looks at.

use super::span_attributes::Beginning;
use crate::ambient;
use crate::dispatcher::{Arrived, Followed};
use crate::routing::hash_key;
use bytes::Bytes;
use ringway_config::model;
use ringway_message::{Field, ResponseHead, Span, Version};
use ringway_ring::Hash;
use serde_json::{Value, json};
use std::time::Instant;

/// Fields that are told of a head, and bytes of each text; the rest is only counted.
const FIELDS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 1024;

/// Fields whose values are told to whoever may operate: they say how a message travels, not who sends it.
const TOLD: [&str; 26] = [
    "accept",
    "accept-encoding",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "grpc-status",
    "grpc-timeout",
    "host",
    "retry-after",
    "server",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];
/// Fields with one of these in their names are secrets: nobody is told their values.
const SECRETS: [&str; 8] = ["auth", "cookie", "token", "secret", "password", "api-key", "session", "signature"];

/// A request that somebody looks at.
pub(crate) struct Tapped {
    followed: Vec<Followed>,
    /// The heads without values of fields, and with them, as far as somebody is shown them.
    heads: [Option<Heads>; 2],
    route: Value,
    service: Option<String>,
    /// Where it went; `None`: Ringway has responded itself at once.
    pub(super) routing: Option<Routing>,
}

/// What is told of the head of a request, and of that of its response.
struct Heads {
    request: Value,
    response_fields: Value,
}

/// Where a request went, and why there.
pub(crate) struct Routing {
    pub(super) hash: Option<Hash>,
    pub(super) owner: Option<String>,
    pub(super) candidates: Option<Vec<String>>,
    pub(super) backend: Option<String>,
    pub(super) spills: u64,
    pub(super) skipped: u64,
    pub(super) retries: u32,
    pub(super) generation: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// A step on its way: a wait for room, or a try.
pub(super) struct Step<'a> {
    pub(super) kind: &'static str,
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    /// Its service's name, and the backend.
    pub(super) backend: Option<(&'a str, &'a model::Backend)>,
    /// When there was a connection, and whether it had been used before.
    pub(super) connected: Option<(Instant, bool)>,
    pub(super) answered: Option<Instant>,
    pub(super) status: u16,
    pub(super) error: Option<&'static str>,
}

/// How it has ended.
pub(super) struct Ended {
    /// 0: no response.
    pub(super) status: u16,
    pub(super) reason: Option<&'static str>,
    pub(super) started: Instant,
    pub(super) at: Instant,
}

impl Tapped {
    /// What is told of a request, if somebody wants to see it.
    pub(super) fn begin(beginning: &Beginning<'_>) -> Option<Box<Self>> {
        let Beginning { client, bytes, head, origin, number, service, hash, .. } = *beginning;
        let worker = &client.open.worker;
        if !worker.taps.is_armed() {
            return None;
        }
        let listener = client.open.active_listener.name();
        let field = |name: &str| head.value_of(bytes, name.as_bytes());
        let followed = worker.taps.follow(&Arrived {
            listener: &listener,
            service,
            route: number,
            method: head.method_span.of(bytes),
            path: head.path.of(bytes),
            client: origin.address,
            hash,
            field: &field,
        });
        if followed.is_empty() {
            return None;
        }
        let heads = |shows_values: bool| {
            let is_shown = followed.iter().any(|followed| followed.shows_values() == shows_values);
            let request = is_shown.then(|| request(beginning, &listener, shows_values))?;
            Some(Heads { request, response_fields: Value::Null })
        };
        Some(Box::new(Self {
            heads: [false, true].map(heads),
            route: json!({ "number": number, "path": beginning.route.map(path) }),
            service: service.map(str::to_owned),
            routing: None,
            followed,
        }))
    }

    /// The head of the response that the client gets.
    pub(super) fn handle_head(&mut self, head: &ResponseHead, bytes: &[u8]) {
        for (heads, shows_values) in self.heads.iter_mut().zip([false, true]) {
            if let Some(heads) = heads {
                heads.response_fields = fields(&head.fields, bytes, shows_values);
            }
        }
    }

    /// It has ended: its life is told to those who want it as it was.
    pub(super) fn end<'a>(mut self: Box<Self>, ended: &Ended, steps: impl Iterator<Item = Step<'a>>) {
        let duration = ended.at.saturating_duration_since(ended.started);
        self.followed.retain_mut(|followed| followed.takes_end(ended.status, duration));
        if self.followed.is_empty() {
            return;
        }
        let steps: Vec<Value> = steps.map(|step| step.json(ended)).collect();
        let mut life = json!({
            "route": self.route.take(), "service": self.service, "steps": steps,
            "response": { "status": (ended.status > 0).then_some(ended.status), "reason": ended.reason },
            "duration_seconds": duration.as_secs_f64(),
        });
        if let (Some(routing), Some(life)) = (&self.routing, life.as_object_mut())
            && let Value::Object(more) = routing.json()
        {
            life.extend(more);
        }
        let lines = self.heads.map(|heads| heads.map(|heads| heads.line(&mut life)));
        for followed in self.followed {
            if let Some(line) = &lines[usize::from(followed.shows_values())] {
                followed.tell(line.clone());
            }
        }
    }
}

impl Heads {
    /// A life with these heads, as a line.
    fn line(self, life: &mut Value) -> Bytes {
        life["request"] = self.request;
        life["response"]["fields"] = self.response_fields;
        Bytes::from(format!("{life}\n"))
    }
}

impl Routing {
    fn json(&self) -> Value {
        json!({
            "key_hash": self.hash.map(|hash| hash_key::hex(hash, &mut [0; 16]).to_owned()),
            "owner": self.owner, "candidates": self.candidates, "backend": self.backend, "spills": self.spills,
            "skipped": self.skipped, "retries": self.retries, "generation": self.generation,
            "received_bytes": self.received_bytes, "sent_bytes": self.sent_bytes,
        })
    }
}

impl Step<'_> {
    /// Times are seconds since the request began.
    fn json(&self, ended: &Ended) -> Value {
        let at = |at: Instant| at.saturating_duration_since(ended.started).as_secs_f64();
        let mut step = json!({
            "kind": self.kind, "began_seconds": at(self.began), "ended_seconds": at(self.ended.unwrap_or(ended.at)),
        });
        if let (Some((service, backend)), Some(step)) = (self.backend, step.as_object_mut())
            && let Value::Object(more) = json!({
                "service": service, "backend": backend.id, "address": backend.address.to_string(),
                "connection": self.connected.map(|(_, is_reused)| if is_reused { "reused" } else { "new" }),
                "connected_seconds": self.connected.map(|(connected, _)| at(connected)),
                "response_seconds": self.answered.map(at),
                "status": (self.status > 0).then_some(self.status), "error": self.error,
            })
        {
            step.extend(more);
        }
        step
    }
}

fn path(path: &model::PathMatch) -> String {
    match path {
        model::PathMatch::Exact(path) => path.clone(),
        model::PathMatch::Prefix(path) => format!("{path}*"),
    }
}

/// What the client has sent, up to its body.
fn request(beginning: &Beginning<'_>, listener: &str, shows_values: bool) -> Value {
    let Beginning { client, bytes, head, origin, started, .. } = *beginning;
    let since = ambient::since(started).as_secs_f64();
    let tls = client.open.entry.tls().map(
        |tls| json!({ "version": tls.version, "resumed": tls.is_resumed, "server_name": client.peer.server_name }),
    );
    let version = match head.version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    };
    // A query may hold secrets, as values of fields do.
    let query = (!head.query.is_empty()).then(|| {
        if shows_values {
            json!(text(head.query, bytes, TARGET_BYTES_MAX))
        } else {
            json!({ "bytes": head.query.len() })
        }
    });
    json!({
        "at": ambient::unix_nanos() as f64 / 1e9 - since, "listener": listener, "peer": client.peer.address.to_string(),
        "client": origin.address.to_string(), "tls": tls, "protocol": version,
        "method": text(head.method_span, bytes, TEXT_BYTES_MAX), "path": text(head.path, bytes, TARGET_BYTES_MAX),
        "query": query, "authority": text(head.authority, bytes, TEXT_BYTES_MAX),
        "fields": fields(&head.fields, bytes, shows_values),
    })
}

/// Fields by name and value, or by name and length where the value is nobody's to see.
fn fields(fields: &[Field], bytes: &[u8], shows_values: bool) -> Value {
    let tell = |field: &Field| {
        let name = text(field.name, bytes, TEXT_BYTES_MAX).to_ascii_lowercase();
        if is_told(&name, shows_values) {
            json!({ "name": name, "value": text(field.value, bytes, TEXT_BYTES_MAX) })
        } else {
            json!({ "name": name, "bytes": field.value.len() })
        }
    };
    let mut told: Vec<Value> = fields.iter().take(FIELDS_MAX).map(tell).collect();
    if fields.len() > FIELDS_MAX {
        told.push(json!({ "left_out": fields.len() - FIELDS_MAX }));
    }
    Value::Array(told)
}

/// `name` is in lower case.
fn is_told(name: &str, shows_values: bool) -> bool {
    TOLD.contains(&name) || shows_values && !SECRETS.iter().any(|secret| name.contains(secret))
}

/// A text of others, cut where it is long.
fn text(span: Span, bytes: &[u8], bytes_max: usize) -> String {
    let whole = span.of(bytes);
    let mut text = String::from_utf8_lossy(&whole[..whole.len().min(bytes_max)]).into_owned();
    if whole.len() > bytes_max {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_message::FieldName;

    #[test]
    fn secrets_are_told_to_nobody_and_other_values_only_where_that_is_asked_for() {
        for name in ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-csrf-token"] {
            assert!(!is_told(name, false) && !is_told(name, true), "{name}");
        }
        assert!(is_told("host", false) && is_told("content-type", false));
        assert!(!is_told("x-user", false) && is_told("x-user", true) && !is_told("referer", false));
        // None of those that are told to everybody is one that is told to nobody.
        assert!(TOLD.iter().all(|name| !SECRETS.iter().any(|secret| name.contains(secret))));
        assert!(TOLD.is_sorted());
    }

    #[test]
    fn heads_are_bounded_whatever_is_in_them() {
        let bytes = [b"x-user".as_slice(), &[0xff; 60_000]].concat();
        let (name, value) = (Span { start: 0, end: 6 }, Span { start: 6, end: bytes.len() as u32 });
        let field = |value| Field { name, value, kind: FieldName::Other, sensitive: false };
        let told = fields(&vec![field(value); 1000], &bytes, true);
        let told = told.as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!((told.len(), &told[FIELDS_MAX]["left_out"]), (FIELDS_MAX + 1, &(1000 - FIELDS_MAX).into()));
        assert!(told[0]["value"].as_str().is_some_and(|value| value.len() <= TEXT_BYTES_MAX * 3 + 3));
        assert_eq!(fields(&[field(value)], &bytes, false)[0], json!({ "name": "x-user", "bytes": 60_000 }));
    }
}
