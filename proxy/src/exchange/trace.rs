//! A request whose trace is recorded: its spans, from its head to its end. The request is a span, each try is one below it (hedges too),
//! and so is each wait for room. Names and attributes are those of OpenTelemetry's semantic conventions for HTTP, 1.23 and later, and
//! `ringway.*`.

use super::marks::Place;
use super::span_attributes::{Beginning, attributes, error_type, method_of, name_of};
use super::tapped::{Ended, Tapped};
use super::trace_parts::{Part, Try};
use crate::ambient;
use crate::codec::grpc::{grpc_status, is_grpc, is_server_error};
use crate::worker::{View, Worker};
use ringway_config::model::{PathMatch, Tracing};
use ringway_message::{ResponseHead, TraceParent, Version, trace_state};
use ringway_telemetry::traces::{Attributes, Kind, Span};
use std::rc::Rc;
use std::time::Instant;

/// Spans below that of the request; more tries are not recorded.
const PARTS_MAX: usize = 64;
/// What spans have of `tracestate`; backends get all of it. Whoever passes it on passes on as much at least (W3C, 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// What is recorded of a request.
pub(crate) struct Trace {
    /// Its place in its trace, if it goes to the exporter.
    place: Option<Place>,
    /// What operators see who look at this one.
    pub(super) tapped: Option<Box<Tapped>>,
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
    /// What a call of gRPC has come to.
    grpc: Option<u32>,
    is_call: bool,
    /// Queries are told.
    with_query: bool,
}

impl Trace {
    /// Begins to record a request, if its trace is recorded or somebody looks at it.
    #[inline(never)]
    pub(crate) fn begin(recorded: Option<(&Place, &Tracing)>, beginning: &Beginning<'_>) -> Option<Box<Self>> {
        let Beginning { bytes, head, route, started, .. } = *beginning;
        let tapped = Tapped::begin(beginning);
        let (place, tracing) = recorded.map(|(place, tracing)| (*place, tracing)).unzip();
        if place.is_none() && tapped.is_none() {
            return None;
        }
        let with_query = tracing.is_some_and(|tracing| tracing.query);
        let since = ambient::since(started).as_nanos() as u64;
        let has_state = place.is_some_and(|place| place.has_state);
        let state = if has_state { trace_state(bytes, head, STATE_BYTES_MAX) } else { Vec::new() };
        Some(Box::new(Self {
            place,
            tapped,
            state: state.into(),
            started,
            started_nanos: ambient::unix_nanos().saturating_sub(since),
            method: method_of(head.method),
            route: match route {
                Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => path.as_str().into(),
                None => Box::default(),
            },
            attributes: attributes(with_query, beginning),
            with_query,
            is_call: head.version == Version::Http2 && is_grpc(bytes, head),
            parts: Vec::new(),
            current: None,
            hedge: None,
            tries: 0,
            grpc: None,
        }))
    }

    /// The id of a trace that is recorded: what an exemplar names.
    pub(crate) fn id(&self) -> Option<[u8; 16]> {
        self.place.map(|place| place.own.trace_id)
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
        let (connected, answered) = (None, None);
        let resend = self.tries;
        let attempt =
            Try { view, service, backend, resend, is_hedge, connected, answered, status: 0, grpc: None, error: None };
        self.tries += 1;
        let added = self.add(worker, Some(attempt))?;
        // What nobody exports is no span that a backend could be told of.
        if self.place.is_some() {
            TraceParent::overwrite_span(&self.parts[added].id, traceparent);
        }
        Some(added)
    }

    fn add(&mut self, worker: &Worker, attempt: Option<Try>) -> Option<usize> {
        if self.parts.len() >= PARTS_MAX {
            return None;
        }
        self.parts.push(Part { id: worker.ids.short(), began: ambient::now(), ended: None, attempt });
        self.note(self.parts.len() - 1);
        Some(self.parts.len() - 1)
    }

    /// Whoever looks sees how far it has come, should they look no longer before it ends.
    fn note(&self, index: usize) {
        if let Some(tapped) = &self.tapped {
            tapped.note(index, self.parts.get(index).map(Part::step));
        }
    }

    /// A wait for room begins, or ends.
    pub(super) fn begin_wait(&mut self, worker: &Worker) {
        self.end_try();
        self.add(worker, None);
    }

    pub(super) fn end_wait(&mut self) {
        if let Some(part) = self.parts.last_mut().filter(|part| part.attempt.is_none()) {
            part.ended = Some(ambient::now());
            self.note(self.parts.len() - 1);
        }
    }

    /// The current try has a connection: a new one, or one that has been used.
    pub(super) fn handle_connection(&mut self, is_reused: bool) {
        let Some(index) = self.current else { return };
        if let Some(attempt) = &mut self.parts[index].attempt {
            attempt.connected = Some((ambient::now(), is_reused));
        }
        self.note(index);
    }

    /// The response of the current try has begun.
    pub(super) fn handle_response(&mut self, status: u16) {
        let Some(index) = self.current else { return };
        if let Some(attempt) = &mut self.parts[index].attempt {
            (attempt.status, attempt.answered) = (status, Some(ambient::now()));
        }
        self.note(index);
    }

    /// The head of a final response.
    pub(super) fn handle_head(&mut self, head: &ResponseHead, bytes: &[u8]) {
        if let Some(tapped) = &mut self.tapped {
            tapped.handle_head(head, bytes);
        }
    }

    /// What has become of a call of gRPC.
    pub(super) fn handle_grpc(&mut self, code: u32) {
        self.attributes.text("rpc.system", b"grpc");
        self.attributes.number("rpc.grpc.status_code", u64::from(code));
        self.grpc = Some(code);
        if let Some(attempt) = self.current.and_then(|index| self.parts.get_mut(index)?.attempt.as_mut()) {
            attempt.grpc = Some(code);
        }
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
            self.note(self.parts.len());
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
        let Some(index) = index else { return };
        let Some(part) = self.parts.get_mut(index) else { return };
        part.ended = Some(ambient::now());
        if let Some(attempt) = &mut part.attempt {
            attempt.status = attempt.status.max(status);
            attempt.error = attempt.error.or(reason);
        }
        self.note(index);
    }

    /// The request is over: its spans go to the exporter. `status` 0 is no response; `reason` says why Ringway itself gave it, or why it
    /// is none, or not whole.
    /// `target`: what backends are asked for.
    pub(super) fn end(&mut self, worker: &Worker, status: u16, reason: Option<&'static str>, target: &[u8]) {
        let ended = ambient::now();
        // A call that Ringway refuses is told by its code: the response has the status 200.
        let is_refused = self.is_call && self.grpc.is_none() && reason.is_some() && status >= 400;
        if is_refused {
            self.handle_grpc(grpc_status(status).parse().unwrap_or_default());
        }
        if status > 0 {
            let shown = if is_refused { 200 } else { status };
            self.attributes.number("http.response.status_code", u64::from(shown));
        }
        if let Some(reason) = reason {
            self.attributes.text("ringway.reason", reason.as_bytes());
        }
        let is_cut_off = (1..400).contains(&status) && reason.is_some();
        if is_cut_off && let Some(reason) = reason {
            self.fail_try(reason);
        }
        // What a response of 400 says is the client's fault, and so it is with codes of gRPC.
        let failed_call = self.grpc.filter(|code| is_server_error(*code));
        let is_error = status == 0 || status >= 500 || is_cut_off || failed_call.is_some();
        if is_error {
            let mut buffer = itoa::Buffer::new();
            let kind = match failed_call {
                Some(code) if reason.is_none() => buffer.format(code),
                _ => error_type(status, reason, &mut buffer),
            };
            self.attributes.text("error.type", kind.as_bytes());
        }
        if let Some(tapped) = self.tapped.take() {
            let ended = Ended { status, reason, started: self.started, at: ended };
            tapped.end(&ended, self.parts.iter().map(Part::step));
        }
        if let Some(place) = self.place {
            self.export(worker, &place, (ended, is_error), self.shown(target));
        }
    }

    /// A target without its query, unless that is to be told.
    fn shown<'t>(&self, target: &'t [u8]) -> &'t [u8] {
        let end = target.iter().position(|byte| *byte == b'?').filter(|_| !self.with_query);
        end.map_or(target, |end| &target[..end])
    }

    fn export(&self, worker: &Worker, place: &Place, (ended, is_error): (Instant, bool), target: &[u8]) {
        worker.spans(self.parts.len() as u64 + 1, |batch| {
            for part in &self.parts {
                let attributes =
                    part.attempt.as_ref().map(|attempt| attempt.attributes(self.method, target)).unwrap_or_default();
                batch.add(&self.span(place, part, ended, &attributes));
            }
            let parent = place.parent.map(|parent| (parent, true));
            let separator = if self.route.is_empty() { "" } else { " " };
            batch.add(&Span {
                trace_id: place.own.trace_id,
                span_id: place.own.span_id,
                parent,
                state: &self.state,
                name: [name_of(self.method), separator, &self.route],
                kind: Kind::Server,
                start_nanos: self.started_nanos,
                end_nanos: self.nanos(ended),
                attributes: &self.attributes,
                is_error,
                is_random: place.own.random,
            });
        });
    }

    fn span<'a>(&'a self, place: &Place, part: &Part, ended: Instant, attributes: &'a Attributes) -> Span<'a> {
        let (name, kind) = match &part.attempt {
            Some(_) => (name_of(self.method), Kind::Client),
            None => ("queue", Kind::Internal),
        };
        Span {
            trace_id: place.own.trace_id,
            span_id: part.id,
            parent: Some((place.own.span_id, false)),
            state: &self.state,
            name: [name, "", ""],
            kind,
            start_nanos: self.nanos(part.began),
            end_nanos: self.nanos(part.ended.unwrap_or(ended)),
            attributes,
            is_error: part.attempt.as_ref().is_some_and(Try::is_error),
            is_random: place.own.random,
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        self.started_nanos + at.saturating_duration_since(self.started).as_nanos() as u64
    }
}
