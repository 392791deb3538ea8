//! A request that an operator looks at: its whole life, as one line of JSON. Nothing here is on the way of requests that nobody looks at.

use super::span_attributes::Beginning;
use super::told_head::{KeptFields, KeptTarget};
use crate::ambient;
use crate::dispatcher::{Arrived, Followed, Tap, TlsSession, UnderWay};
use crate::routing::hash_key;
use crate::worker::View;
use bytes::Bytes;
use ringway_config::model;
use ringway_message::{ResponseHead, Version};
use ringway_ring::{Hash, Selection, Slot};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Candidates that are told of a key, and the most backends of a service of which they are found out.
const CANDIDATES_TOLD: usize = 8;
const SEQUENCE_BACKENDS_MAX: usize = 2_000;

/// A request that somebody looks at.
pub(crate) struct Tapped {
    begun: Rc<Begun>,
    response: KeptFields,
    /// Where it went; `None`: Ringway has responded itself at once.
    pub(super) routing: Option<Routing>,
}

/// What is known of it from its beginning on, and what has become of it since: told of one that has not ended when a tap does.
struct Begun {
    followed: RefCell<Vec<Followed>>,
    request: Kept,
    route: Value,
    service: Option<String>,
    hash: Option<Hash>,
    started: Instant,
    /// Its waits and tries so far.
    steps: RefCell<Vec<Value>>,
    /// Of the response that it gets; 0: none has begun.
    status: Cell<u16>,
}

/// What the client has sent, up to its body: it is told once it is known that somebody wants it.
struct Kept {
    /// Unix time, in seconds.
    at: f64,
    listener: Arc<str>,
    peer: SocketAddr,
    client: IpAddr,
    tls: Option<(TlsSession, Option<Box<str>>)>,
    version: Version,
    target: KeptTarget,
    fields: KeptFields,
}

/// Where a request went, and why there.
pub(crate) struct Routing {
    pub(crate) hash: Option<Hash>,
    pub(crate) owner: Option<String>,
    /// What became of a key that is handed over.
    pub(crate) handoff: Option<&'static str>,
    pub(crate) candidates: Option<Vec<String>>,
    pub(crate) backend: Option<String>,
    pub(crate) spills: u64,
    pub(crate) skipped: u64,
    pub(crate) retries: u32,
    pub(crate) generation: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

/// A step on its way: a wait for room, or a try.
pub(crate) struct Step<'a> {
    pub(crate) kind: &'static str,
    pub(crate) began: Instant,
    pub(crate) ended: Option<Instant>,
    /// Its service's name, and the backend.
    pub(crate) backend: Option<(&'a str, &'a model::Backend)>,
    /// When there was a connection, and whether it had been used before.
    pub(crate) connected: Option<(Instant, bool)>,
    pub(crate) answered: Option<Instant>,
    pub(crate) status: u16,
    pub(crate) error: Option<&'static str>,
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
        let has = |name: &str, value: &[u8]| {
            head.values_of(bytes, name.as_bytes()).any(|is| is == value)
                // HTTP/2 has it elsewhere, and so has an absolute target.
                || name == "host" && head.authority.of(bytes).eq_ignore_ascii_case(value)
        };
        let mut followed = worker.taps.follow(&Arrived {
            listener: &listener,
            service,
            route: number,
            method: head.method_span.of(bytes),
            path: head.path.of(bytes),
            client: origin.address,
            hash,
            has: &has,
        });
        if followed.is_empty() {
            return None;
        }
        let request = Kept::new(beginning, listener);
        let kept_bytes = request.target.bytes() + request.fields.bytes();
        followed.retain_mut(|followed| followed.keep(kept_bytes));
        if followed.is_empty() {
            return None;
        }
        let begun = Rc::new(Begun {
            followed: RefCell::new(followed),
            request,
            route: json!({ "number": number, "path": beginning.route.map(path) }),
            service: service.map(str::to_owned),
            hash,
            started: beginning.started,
            steps: RefCell::default(),
            status: Cell::default(),
        });
        let under_way: Rc<dyn UnderWay> = begun.clone();
        worker.taps.note(&under_way);
        Some(Box::new(Self { begun, response: KeptFields::default(), routing: None }))
    }

    /// The head of the response that the client gets.
    pub(super) fn handle_head(&mut self, head: &ResponseHead, bytes: &[u8]) {
        self.response = KeptFields::new(&head.fields, bytes, false);
        let kept_bytes = self.response.bytes();
        self.begun.followed.borrow_mut().retain_mut(|followed| followed.keep(kept_bytes));
        self.begun.status.set(head.status);
    }

    /// Its step of that number has begun, has come further, or was none.
    pub(super) fn note(&self, index: usize, step: Option<Step<'_>>) {
        let mut steps = self.begun.steps.borrow_mut();
        let Some(step) = step.map(|step| step.json(self.begun.started, None)) else { return steps.truncate(index) };
        match steps.get_mut(index) {
            Some(known) => *known = step,
            None => steps.push(step),
        }
    }

    /// It has ended: its life is told to those who want it as it was.
    pub(super) fn end<'a>(self, ended: &Ended, steps: impl Iterator<Item = Step<'a>>) {
        let duration = ended.at.saturating_duration_since(ended.started);
        let begun = &*self.begun;
        let mut followed = begun.followed.take();
        followed.retain_mut(|followed| followed.takes_end(ended.status, duration));
        if followed.is_empty() {
            return;
        }
        let steps: Vec<Value> = steps.map(|step| step.json(ended.started, Some(ended.at))).collect();
        let mut life = json!({
            "route": begun.route, "service": begun.service, "steps": steps,
            "response": { "status": (ended.status > 0).then_some(ended.status), "reason": ended.reason },
            "duration_seconds": duration.as_secs_f64(),
        });
        if let (Some(routing), Some(life)) = (&self.routing, life.as_object_mut())
            && let Value::Object(more) = routing.json()
        {
            life.extend(more);
        }
        let mut lines = [None, None];
        for followed in followed {
            let shows_values = followed.shows_values();
            let line = lines[usize::from(shows_values)].get_or_insert_with(|| {
                life["request"] = begun.request.tell(shows_values);
                life["response"]["fields"] = self.response.tell(shows_values);
                Bytes::from(format!("{life}\n"))
            });
            followed.tell(line.clone());
        }
    }
}

impl UnderWay for Begun {
    fn tell_so_far(&self, tap: &Arc<Tap>) {
        let duration = ambient::since(self.started);
        let mut all = self.followed.borrow_mut();
        for mut followed in all.extract_if(.., |followed| followed.is_of(tap)) {
            if followed.takes_so_far(self.status.get(), duration) {
                let life = json!({
                    "unfinished": true, "request": self.request.tell(followed.shows_values()),
                    "route": self.route, "service": self.service, "steps": *self.steps.borrow(),
                    "key_hash": self.hash.map(|hash| hash_key::hex(hash, &mut [0; 16]).to_owned()),
                    "response": { "status": Some(self.status.get()).filter(|status| *status > 0) },
                    "duration_seconds": duration.as_secs_f64(),
                });
                followed.tell(Bytes::from(format!("{life}\n")));
            }
        }
    }
}

impl Routing {
    /// Where a service's backends were looked for.
    pub(crate) fn of(
        view: &View,
        service: usize,
        hash: Option<Hash>,
        selection: &Selection,
        backend: Option<usize>,
    ) -> Self {
        let service = &view.services[service].service;
        let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.clone();
        let hashed = hash.filter(|_| service.config.policy.hashes());
        // The whole sequence is made for the first of it: not of thousands.
        let few = hashed.filter(|_| service.backends.len() <= SEQUENCE_BACKENDS_MAX);
        let candidates =
            few.map(|hash| service.backend_set.sequence(hash).into_iter().take(CANDIDATES_TOLD).map(id).collect());
        Self {
            hash,
            owner: hashed.and(selection.owner()).map(id),
            handoff: None,
            candidates,
            backend: backend.map(|index| service.backends[index].config.id.clone()),
            spills: u64::from(selection.spills()),
            skipped: u64::from(selection.skipped()),
            retries: 0,
            generation: view.snapshot.generation,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "key_hash": self.hash.map(|hash| hash_key::hex(hash, &mut [0; 16]).to_owned()),
            "owner": self.owner, "handoff": self.handoff, "candidates": self.candidates, "backend": self.backend, "spills": self.spills,
            "skipped": self.skipped, "retries": self.retries, "generation": self.generation,
            "received_bytes": self.received_bytes, "sent_bytes": self.sent_bytes,
        })
    }
}

impl Step<'_> {
    /// Times are seconds since the request began. `ended`: when that has ended, if it has.
    pub(crate) fn json(&self, started: Instant, ended: Option<Instant>) -> Value {
        let at = |at: Instant| at.saturating_duration_since(started).as_secs_f64();
        let mut step = json!({
            "kind": self.kind, "began_seconds": at(self.began), "ended_seconds": self.ended.or(ended).map(at),
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

impl Kept {
    fn new(beginning: &Beginning<'_>, listener: Arc<str>) -> Self {
        let Beginning { client, bytes, head, origin, started, .. } = *beginning;
        let since = ambient::since(started).as_secs_f64();
        let server_name = || client.open.peer.server_name.as_deref().map(Into::into);
        Self {
            at: ambient::unix_nanos() as f64 / 1e9 - since,
            listener,
            peer: client.open.peer.address(),
            client: origin.address,
            tls: client.open.entry.tls().map(|tls| (tls, server_name())),
            version: head.version,
            target: KeptTarget::new(
                bytes,
                (head.method_span, head.path, head.query, head.authority),
                head.target_sensitive,
            ),
            fields: KeptFields::new(&head.fields, bytes, head.target_sensitive),
        }
    }

    fn tell(&self, shows_values: bool) -> Value {
        let tls = self
            .tls
            .as_ref()
            .map(|(tls, name)| json!({ "version": tls.version(), "resumed": tls.is_resumed, "server_name": name }));
        let version = match self.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        };
        let mut told = json!({
            "at": self.at, "listener": &*self.listener, "peer": self.peer.to_string(),
            "client": self.client.to_string(), "tls": tls, "protocol": version,
            "fields": self.fields.tell(shows_values),
        });
        if let (Some(told), Value::Object(target)) = (told.as_object_mut(), self.target.tell(shows_values)) {
            told.extend(target);
        }
        told
    }
}
