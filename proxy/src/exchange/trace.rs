//! A request whose trace is recorded: its spans, from its head to its end. The request is a span, each try is one below it (hedges too),
//! and so is each wait for room. Names and attributes are those of OpenTelemetry's semantic conventions for HTTP, 1.23 and later, and
//! `ringway.*`.

use super::client::Client;
use super::marks::Place;
use crate::ambient;
use crate::routes::path_of;
use crate::routing::forwarded::Origin;
use crate::worker::{View, Worker};
use ringway_config::model::{PathMatch, Tracing};
use ringway_message::{Authority, Method, RequestHead, Span as Bytes, TraceParent, Version, default_port, trace_state};
use ringway_telemetry::traces::{Attributes, Kind, Span};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// Spans below that of the request; more tries are not recorded.
const PARTS_MAX: usize = 64;
/// What spans have of `tracestate`; backends get all of it. Whoever passes it on passes on as much at least (W3C, 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// What is recorded of a request.
pub(crate) struct Trace {
    place: Place,
    state: Box<[u8]>,
    started: Instant,
    /// When that was, in nanoseconds of Unix time.
    started_nanos: u64,
    method: &'static str,
    /// The path that the route matches, in the configuration's words.
    route: Box<str>,
    pub(super) attributes: Attributes,
    parts: Vec<Part>,
    /// The try whose response is, or would be, the client's.
    current: Option<usize>,
    /// A second try beside it.
    hedge: Option<usize>,
    tries: u32,
}

/// A span below the request's.
struct Part {
    id: [u8; 8],
    began: Instant,
    ended: Option<Instant>,
    /// `None`: it waits for room.
    attempt: Option<Try>,
}

/// A try of the request.
struct Try {
    view: Rc<View>,
    service: usize,
    backend: usize,
    /// Tries before it.
    resend: u32,
    is_hedge: bool,
    /// 0: no response has begun.
    status: u16,
    error: Option<&'static str>,
}

/// What there is to know of a request at its beginning.
pub(crate) struct Beginning<'a> {
    pub(crate) client: &'a Client,
    pub(crate) bytes: &'a [u8],
    pub(crate) head: &'a RequestHead,
    pub(crate) origin: Origin,
    pub(crate) started: Instant,
    pub(crate) route: Option<&'a PathMatch>,
}

impl Trace {
    /// Begins to record a request.
    pub(crate) fn begin(place: Place, tracing: &Tracing, beginning: &Beginning<'_>) -> Box<Self> {
        let Beginning { bytes, head, route, started, .. } = *beginning;
        let since = ambient::since(started).as_nanos() as u64;
        let state = if place.has_state { trace_state(bytes, head, STATE_BYTES_MAX) } else { Vec::new() };
        Box::new(Self {
            place,
            state: state.into(),
            started,
            started_nanos: ambient::unix_nanos().saturating_sub(since),
            method: method_of(head.method),
            route: match route {
                Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => path.as_str().into(),
                None => Box::default(),
            },
            attributes: attributes(tracing.query, beginning),
            parts: Vec::new(),
            current: None,
            hedge: None,
            tries: 0,
        })
    }

    /// The id of a trace that is recorded: what an exemplar names.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.place.own.trace_id
    }

    /// A try begins on a backend: its request says so in `traceparent`, which stands there.
    pub(super) fn begin_try(&mut self, worker: &Worker, to: (&Rc<View>, usize, usize), traceparent: &mut [u8]) {
        self.end_try();
        self.current = self.add_try(worker, to, false, traceparent);
    }

    /// The same of a second try beside the current one.
    pub(super) fn begin_hedge(&mut self, worker: &Worker, to: (&Rc<View>, usize, usize), traceparent: &mut [u8]) {
        self.hedge = self.add_try(worker, to, true, traceparent);
    }

    fn add_try(
        &mut self,
        worker: &Worker,
        (view, service, backend): (&Rc<View>, usize, usize),
        is_hedge: bool,
        traceparent: &mut [u8],
    ) -> Option<usize> {
        let view = Rc::clone(view);
        let attempt = Try { view, service, backend, resend: self.tries, is_hedge, status: 0, error: None };
        self.tries += 1;
        let added = self.add(worker, Some(attempt))?;
        TraceParent::overwrite_span(&self.parts[added].id, traceparent);
        Some(added)
    }

    fn add(&mut self, worker: &Worker, attempt: Option<Try>) -> Option<usize> {
        if self.parts.len() >= PARTS_MAX {
            return None;
        }
        self.parts.push(Part { id: worker.ids.short(), began: ambient::now(), ended: None, attempt });
        Some(self.parts.len() - 1)
    }

    /// A wait for room begins, or ends.
    pub(super) fn begin_wait(&mut self, worker: &Worker) {
        self.end_try();
        self.add(worker, None);
    }

    pub(super) fn end_wait(&mut self) {
        if let Some(part) = self.parts.last_mut().filter(|part| part.attempt.is_none()) {
            part.ended = Some(ambient::now());
        }
    }

    /// The response of the current try has begun.
    pub(super) fn handle_response(&mut self, status: u16) {
        if let Some(attempt) = self.current.and_then(|index| self.parts[index].attempt.as_mut()) {
            attempt.status = status;
        }
    }

    /// What has become of a call of gRPC.
    pub(super) fn handle_grpc(&mut self, status: u32) {
        self.attributes.text("rpc.system", b"grpc");
        self.attributes.number("rpc.grpc.status_code", u64::from(status));
    }

    /// The current try has failed.
    pub(super) fn fail_try(&mut self, reason: &'static str) {
        let current = self.current.take();
        self.end_part(current, 0, Some(reason));
    }

    /// The current try, or the second one, was none: its backend has no room, and got nothing of the request.
    pub(super) fn take_back_try(&mut self) {
        let current = self.current.take();
        self.take_back(current);
    }

    pub(super) fn take_back_hedge(&mut self) {
        let hedge = self.hedge.take();
        self.take_back(hedge);
    }

    fn take_back(&mut self, index: Option<usize>) {
        self.tries = self.tries.saturating_sub(1);
        // Nothing has begun behind it.
        if index.is_some_and(|index| index + 1 == self.parts.len()) {
            self.parts.pop();
        }
    }

    /// The current try is over, as far as it has come.
    pub(super) fn end_try(&mut self) {
        let current = self.current.take();
        self.end_part(current, 0, None);
    }

    /// The second try is over: with the status of a response that is not taken, if it had one, or for a reason.
    pub(super) fn end_hedge(&mut self, status: u16, reason: Option<&'static str>) {
        let hedge = self.hedge.take();
        self.end_part(hedge, status, reason);
    }

    /// The second try's response is taken; the first one is over in the same way.
    pub(super) fn take_hedge(&mut self, status: u16, reason: Option<&'static str>) {
        let first = std::mem::replace(&mut self.current, self.hedge.take());
        self.end_part(first, status, reason);
    }

    fn end_part(&mut self, index: Option<usize>, status: u16, reason: Option<&'static str>) {
        let Some(part) = index.and_then(|index| self.parts.get_mut(index)) else { return };
        part.ended = Some(ambient::now());
        if let Some(attempt) = &mut part.attempt {
            attempt.status = attempt.status.max(status);
            attempt.error = attempt.error.or(reason);
        }
    }

    /// The request is over: its spans go to the exporter. `status` 0 is no response; `reason` says why Ringway itself gave it, or why it
    /// is none, or not whole.
    pub(super) fn end(&mut self, worker: &Worker, status: u16, reason: Option<&'static str>) {
        let ended = ambient::now();
        if status > 0 {
            self.attributes.number("http.response.status_code", u64::from(status));
        }
        if let Some(reason) = reason {
            self.attributes.text("ringway.reason", reason.as_bytes());
        }
        let is_cut_off = (1..400).contains(&status) && reason.is_some();
        if is_cut_off && let Some(reason) = reason {
            self.fail_try(reason);
        }
        // What a response of 400 says is the client's fault.
        let is_error = status == 0 || status >= 500 || is_cut_off;
        if is_error {
            self.attributes.text("error.type", error_type(status, reason, &mut itoa::Buffer::new()).as_bytes());
        }
        worker.spans(self.parts.len() as u64 + 1, |batch| {
            for part in &self.parts {
                let attributes =
                    part.attempt.as_ref().map(|attempt| attempt.attributes(self.method)).unwrap_or_default();
                batch.add(&self.span(part, ended, &attributes));
            }
            let parent = self.place.parent.map(|parent| (parent, true));
            let separator = if self.route.is_empty() { "" } else { " " };
            batch.add(&Span {
                trace_id: self.id(),
                span_id: self.place.own.span_id,
                parent,
                state: &self.state,
                name: [name_of(self.method), separator, &self.route],
                kind: Kind::Server,
                start_nanos: self.started_nanos,
                end_nanos: self.nanos(ended),
                attributes: &self.attributes,
                is_error,
                is_random: self.place.own.random,
            });
        });
    }

    fn span<'a>(&'a self, part: &Part, ended: Instant, attributes: &'a Attributes) -> Span<'a> {
        let (name, kind) = match &part.attempt {
            Some(_) => (name_of(self.method), Kind::Client),
            None => ("queue", Kind::Internal),
        };
        Span {
            trace_id: self.id(),
            span_id: part.id,
            parent: Some((self.place.own.span_id, false)),
            state: &self.state,
            name: [name, "", ""],
            kind,
            start_nanos: self.nanos(part.began),
            end_nanos: self.nanos(part.ended.unwrap_or(ended)),
            attributes,
            is_error: part.attempt.as_ref().is_some_and(Try::is_error),
            is_random: self.place.own.random,
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        self.started_nanos + at.saturating_duration_since(self.started).as_nanos() as u64
    }
}

impl Try {
    /// To a client, a response of 400 or more is an error.
    fn is_error(&self) -> bool {
        self.error.is_some() || self.status >= 400
    }

    fn attributes(&self, method: &str) -> Attributes {
        let mut attributes = Attributes::with_capacity(256);
        attributes.text("http.request.method", method.as_bytes());
        let service = &self.view.services[self.service].service;
        if let Some(backend) = service.backends.get(self.backend) {
            address_of(&backend.config.address, &mut attributes);
            attributes.text("ringway.backend", backend.config.id.as_bytes());
        }
        if self.status > 0 {
            attributes.number("http.response.status_code", u64::from(self.status));
        }
        if self.is_error() {
            let text = error_type(self.status, self.error, &mut itoa::Buffer::new()).to_owned();
            attributes.text("error.type", text.as_bytes());
        }
        if self.resend > 0 {
            attributes.number("http.request.resend_count", u64::from(self.resend));
        }
        if self.is_hedge {
            attributes.text("ringway.try", b"hedge");
        }
        attributes
    }
}

fn address_of(address: &SocketAddr, attributes: &mut Attributes) {
    attributes.text("server.address", address.ip().to_string().as_bytes());
    attributes.number("server.port", u64::from(address.port()));
}

/// What `error.type` says: a reason, else the status.
fn error_type<'t>(status: u16, reason: Option<&'static str>, text: &'t mut itoa::Buffer) -> &'t str {
    match reason {
        Some(reason) => reason,
        None => text.format(status),
    }
}

/// A method that is not known is any token: no name for many.
fn method_of(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Connect => "CONNECT",
        Method::Patch => "PATCH",
        Method::Other => "_OTHER",
    }
}

/// A span's name, or its beginning.
fn name_of(method: &'static str) -> &'static str {
    if method == "_OTHER" { "HTTP" } else { method }
}

/// What the head says.
fn attributes(with_query: bool, beginning: &Beginning<'_>) -> Attributes {
    let Beginning { client, bytes, head, origin, route, .. } = beginning;
    let mut attributes = Attributes::with_capacity(1024);
    let mut text = |key: &str, value: &[u8]| {
        if !value.is_empty() {
            attributes.text(key, value);
        }
    };
    text("http.request.method", method_of(head.method).as_bytes());
    if head.method == Method::Other {
        text("http.request.method_original", head.method_span.of(bytes));
    }
    text("url.scheme", if origin.secure { b"https" } else { b"http" });
    text("url.path", path_of(bytes, head));
    if with_query {
        let (path, target) = (head.path, head.forward_target);
        // The question mark stands between the two.
        text("url.query", Bytes { start: (path.end + 1).min(target.end), end: target.end }.of(bytes));
    }
    if let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = route {
        text("http.route", path.as_bytes());
    }
    let version = match head.version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
        Version::Http2 => "2",
    };
    text("network.protocol.version", version.as_bytes());
    text("user_agent.original", head.value_of(bytes, b"user-agent").unwrap_or_default());
    text("ringway.listener", client.open.active_listener.name().as_bytes());
    if origin.address == client.peer.ip() {
        text("client.address", client.peer.text.as_bytes());
    } else {
        text("client.address", origin.address.to_string().as_bytes());
        text("network.peer.address", client.peer.text.as_bytes());
    }
    let authority = Authority::new(head.authority.of(bytes));
    text("server.address", authority.host());
    if let Some(port) = authority.port(default_port(origin.secure)) {
        attributes.number("server.port", u64::from(port));
    }
    attributes
}
