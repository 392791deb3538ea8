//! A request on its way to a backend: what is known of it, and what of its body is kept to be sent again.

use crate::ambient;
use crate::codec::end::ClientEnd;
use crate::codec::grpc::GRPC_STATUS;
use crate::codec::http1::Http1;
use crate::codec::http2::Outgoing;
use crate::codec::source::Source;
use crate::codec::websocket;
use crate::dispatcher::SessionState;
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::marks::Marked;
use crate::exchange::trace::Trace;
use crate::net::timer::Deadline;
use crate::routing::affinity_cookie::Value as CookieValue;
use crate::routing::rate_limit::Admission;
use crate::upstream::failover::Failover;
use crate::upstream::in_flight::Try;
use crate::upstream::retry::Retries;
use crate::upstream::search::BackendSearch;
use crate::worker::{SessionEntry, View, Worker};
use memchr::memmem;
use ringway_config::model::{Actions, Compress, ContentCoding, HttpListener, Mirror};
use ringway_http1::{Body, Encoding};
use ringway_message::{FieldName, HeadWriter, Line, Method, ResponseHead, Span, Version};
use ringway_ring::{Hash, Selection, Slot};
use std::rc::Rc;
use std::time::Instant;

mod call;
mod copied;
mod hand_over;
mod handed;
mod head;
mod head_lines;
mod kept;
mod log;
mod prepare;
mod route;
mod trailers;

pub(crate) use copied::Copied;
pub(crate) use handed::Handed;
use kept::Kept;
pub(crate) use prepare::prepare;
pub(crate) use route::{Matched, match_route};
use trailers::TrailerRules;

/// Small bodies that came with their head are sent with it.
const JOINED_BYTES_MAX: usize = 8 * 1024;

/// No longer body is copied for a mirror.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// A request on its way to a backend.
pub(crate) struct Request {
    /// The version by which it was read and routed: `listener` and `route` belong to it.
    pub(crate) routed_by: Rc<View>,
    /// The version whose backends it goes to: the same, or a newer one if it had to wait. `service` and slots belong to it.
    pub(crate) view: Rc<View>,
    pub(crate) listener: usize,
    /// Which of the listener's routes.
    route: usize,
    pub(crate) service: usize,
    pub(crate) hash: Option<Hash>,
    /// Whether the hash is that of a key of the request's own.
    pub(crate) keyed: bool,
    pub(crate) selection: Selection,
    /// A change under way has moved its key.
    pub(crate) handed: Option<Box<Handed>>,
    /// The backend that an affinity cookie names, under a policy without keys.
    pub(crate) sticky: Option<Slot>,
    /// An affinity cookie that the response sets.
    pub(crate) set_cookie: Option<CookieValue>,
    /// Header lines that the response gets from its route.
    pub(crate) response_lines: Vec<u8>,
    /// The coding that the response may be compressed in.
    pub(crate) coding: Option<ContentCoding>,
    /// The response explains the request's routing.
    pub(crate) explain: bool,
    /// The service's limit on requests counts this one.
    pub(crate) admission: Option<Admission>,
    /// The head as every backend would get it, and the part of the body that came with the head.
    pub(crate) out: Vec<u8>,
    /// How much of that is the head.
    pub(crate) head_len: usize,
    /// Where the head's fields stand in it, if it goes over HTTP/2.
    pub(crate) lines: Vec<Line>,
    authority: Span,
    /// Target and authority came marked as never to be indexed.
    target_sensitive: bool,
    /// Whether `out` is all that has been taken of the request, so that it can be sent again.
    pub(crate) replayable: bool,
    /// The last chunk of a body that goes in chunks has been written.
    pub(crate) is_terminated: bool,
    /// What follows the body, once that is known.
    pub(crate) trailers: HeadWriter,
    /// The head's text declares a chunked body, as it does over HTTP/1.1.
    chunked: bool,
    /// Data of a body that has joined its head.
    joined: usize,
    /// The part of `out` that is body which was sent after its head.
    kept: Option<Kept>,
    /// A copy of it is made once all of its body has come.
    pub(super) mirror: Option<Mirror>,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Where in `out` the protocols stand that may be switched to.
    protocols: (usize, usize),
    /// A gRPC call, which may be a long dialogue.
    pub(crate) grpc: bool,
    /// How the body goes to the backend.
    pub(crate) encoding: Encoding,
    /// How many bytes of data the body may still have.
    pub(crate) body_bytes_left: u64,
    pub(crate) started: Instant,
    /// End of the whole exchange.
    pub(crate) limit: Deadline,
    pub(crate) report: Report,
    /// In the table of what is under way.
    pub(crate) entry: SessionEntry,
    /// What is recorded of it, if it is traced.
    pub(crate) trace: Option<Box<Trace>>,
    /// The last try, once its response has been read whole, until it is counted.
    pub(crate) ended_try: Option<Try>,
    /// Backends that have not taken it.
    pub(crate) failover: Failover,
    /// Its retries, as far as they are limited.
    pub(crate) retries: Retries,
}

/// What the access log needs, as it becomes known.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Lengths of method and target, which stand at the start of the head.
    line: (usize, usize),
    /// Where its marks stand in the head.
    marked: Marked,
    /// The client, where a trusted hop has named another than the peer.
    client: Option<Box<str>>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) retries: u32,
    pub(crate) backend: Option<usize>,
    pub(crate) connect_micros: Option<u64>,
    pub(crate) head_micros: Option<u64>,
    /// What a call of gRPC has come to.
    pub(crate) grpc_status: Option<u32>,
}

/// The rule by which a route's responses are compressed, if they are.
#[inline]
fn compression(http: &HttpListener, route: usize) -> Option<&Compress> {
    let of_route = http.routes[route].actions.as_ref().and_then(|actions| actions.compress.as_deref());
    of_route.or(http.compress.as_deref()).filter(|rule| !rule.algorithms.is_empty())
}

impl Request {
    /// A body that came whole with its head, and is small, goes out with it.
    pub(crate) fn take_small_body(&mut self, client: &mut Client) -> Result<(), ProxyError> {
        let end = &mut client.end;
        if end.is_over() {
            return Ok(());
        }
        let is_small = match end {
            ClientEnd::Http1(Http1 { input, body, .. }) => {
                let here = input.len();
                let rest =
                    || if let Body::Sized(left) = *body { left <= here as u64 } else { body.plain(here).is_none() };
                (1..=JOINED_BYTES_MAX).contains(&here) && rest()
            }
            ClientEnd::Http2(_) => {
                end.ends_here() && end.with_data(<[u8]>::len).unwrap_or_default() <= JOINED_BYTES_MAX
            }
        };
        if !is_small {
            return Ok(());
        }
        let rules = TrailerRules::of(&self.routed_by, self.listener, self.route);
        let keep = |name: &[u8]| rules.keeps_of_request(name);
        let progress = end.transfer(&mut self.out, self.encoding, keep).map_err(ProxyError::BadRequest)?;
        self.is_terminated = progress.done;
        self.count_body(progress.data)?;
        self.joined = progress.data;
        self.report.received_bytes += progress.consumed as u64;
        Ok(())
    }

    /// There is a connection to its backend: a new one, or one that has been used.
    pub(crate) fn handle_connection(&mut self, is_reused: bool) {
        self.failover.handle_taken();
        self.entry.set_state(SessionState::Waiting);
        if let Some(trace) = &mut self.trace {
            trace.handle_connection(is_reused);
        }
    }

    /// Takes what has come behind the body: it is sent with each attempt.
    pub(crate) fn take_trailers(&mut self, end: &mut ClientEnd) {
        if self.trailers.lines().is_empty() {
            let rules = TrailerRules::of(&self.routed_by, self.listener, self.route);
            end.write_trailers(&mut self.trailers, |name| rules.keeps_of_request(name));
        }
    }

    /// Gives back what counts against the service's limits, before the client has the end of the response: its next request may come
    /// as soon as it has.
    pub(super) fn free_limits(&mut self) {
        self.admission = None;
        self.retries.end();
    }

    /// Counts the last try as ended now, if its response has been read whole and it has not been counted yet.
    #[inline]
    pub(super) fn count_try(&mut self) {
        if let Some(ended) = self.ended_try.take() {
            ended.count(&self.view.services[self.service], ambient::now());
            if let Some(trace) = &mut self.trace {
                trace.end_try();
            }
        }
    }

    /// A try begins on a backend.
    #[inline]
    pub(super) fn begin_try(&mut self, worker: &Worker, backend: usize) {
        self.report.grpc_status = None;
        if let Some(trace) = &mut self.trace {
            let place = self.report.marked.parent;
            let traceparent = self.out.get_mut(place.start as usize..place.end as usize).unwrap_or_default();
            trace.begin_try(worker, (&self.view, self.service, backend), traceparent);
        }
    }

    /// The head of the final response, where something is recorded.
    #[inline]
    pub(super) fn note_head(&mut self, head: &ResponseHead, bytes: &[u8]) {
        if let Some(trace) = &mut self.trace {
            trace.handle_head(head, bytes);
        }
        // A call that fails at once has no trailers.
        self.note_grpc(|| {
            let mut fields = head.fields.iter();
            fields.find(|field| field.name.of(bytes) == GRPC_STATUS).map(|field| field.value.of(bytes))
        });
    }

    /// Its key's hash, if it has a key.
    #[inline]
    pub(crate) fn key(&self) -> Option<Hash> {
        self.hash.filter(|_| self.keyed)
    }

    /// Whether the request is idempotent.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() || self.view.services[self.service].service.config.retry.non_idempotent
    }

    /// How much of its body may be kept to be sent again, or copied.
    fn body_bytes_max(&self) -> usize {
        let for_retries = self.view.services[self.service].service.config.retry.body_bytes_max;
        if self.mirror.is_some() { for_retries.max(COPIED_BYTES_MAX) } else { for_retries }
    }

    /// No copy is waited for any more, and all of `out` has been sent: what was kept for the copy alone is released.
    pub(super) fn end_mirror(&mut self) {
        self.mirror = None;
        if self.kept.as_ref().map_or(0, Kept::data) + self.joined > self.body_bytes_max() {
            self.forget();
        }
    }

    /// Whether all of it is at hand, with no more of a body than what is copied.
    pub(super) fn is_copyable(&self) -> bool {
        let body = self.joined + self.kept.as_ref().map_or(0, Kept::data);
        self.replayable && !self.upgrade && body <= COPIED_BYTES_MAX
    }

    /// Whether it can be sent again once `out` has been sent.
    pub(crate) fn is_resendable(&self) -> bool {
        self.replayable && self.joined <= self.body_bytes_max()
    }

    /// Whether so much more of the body, with so many bytes, may be added to `out`, and counts it; if not, the request cannot be
    /// sent again from here on, and nothing of its body is kept. All of `out` has been sent. `left`: how much of the body is still
    /// to come, if its length is known.
    pub(crate) fn keep(&mut self, worker: &Rc<Worker>, (data, bytes): (usize, usize), left: Option<u64>) -> bool {
        let (from, data_max) = (self.out.len(), self.body_bytes_max());
        // The part of a chunked body that came with its head has joined it, and counts.
        let has = self.joined + self.kept.as_ref().map_or(0, Kept::data);
        // Nothing is kept of a body that is known to be too long.
        let rest = left.unwrap_or(data as u64);
        let too_long = rest.saturating_add(has as u64) > data_max as u64;
        let kept = self.replayable
            && !too_long
            && self.kept.get_or_insert_with(|| Kept::new(worker, from)).take((data, bytes), data_max - self.joined);
        if !kept {
            self.forget();
        }
        kept
    }

    /// It is not sent again: what was kept for that is released. All of `out` has been sent.
    pub(crate) fn forget(&mut self) {
        self.replayable = false;
        if let Some(kept) = self.kept.take() {
            self.out.truncate(kept.from);
            self.out.shrink_to(kept.from.max(4096));
        }
    }

    /// Its head, in the form that HTTP/2 needs.
    pub(crate) fn outgoing(&self) -> Outgoing<'_> {
        let (from, to) = self.protocols;
        let protocol = self.upgrade.then(|| self.out.get(from..to).unwrap_or_default());
        let authority = (self.authority, self.target_sensitive);
        Outgoing::new(self.method, &self.out, self.report.line, authority, &self.lines, protocol)
    }

    /// Its candidate sequence, and where in it the request is.
    pub(crate) fn search<'a>(&'a mut self, worker: &'a Worker) -> BackendSearch<'a> {
        let Self { view, service, selection, report, failover, .. } = self;
        BackendSearch { worker, view, service, selection, backend: &mut report.backend, failover }
    }

    /// The field in which its response has its id, in place of what the backend says there.
    pub(crate) fn responded_id(&self) -> Option<&str> {
        let rule = self.routed_by.http(self.listener).request_id.as_ref();
        rule.filter(|rule| rule.respond).map(|rule| rule.header.as_str())
    }

    /// What may stand behind its body, and behind its response's.
    pub(super) fn trailer_rules(&self) -> TrailerRules<'_> {
        TrailerRules::of(&self.routed_by, self.listener, self.route)
    }

    /// What its route does besides forwarding it.
    pub(crate) fn actions(&self) -> Option<&Actions> {
        self.routed_by.http(self.listener).routes[self.route].actions.as_deref()
    }

    /// Whether a 101 switches to a protocol that the client has offered, and names it (RFC 9110, 7.8): any other response is no
    /// tunnel.
    pub(crate) fn is_granted(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        let asked = self.out.get(self.protocols.0..self.protocols.1).unwrap_or_default();
        // The key of this handshake is Ringway's own: nobody else looks whether the backend has understood it (RFC 6455, 4.1).
        let is_ours =
            self.version == Version::Http2 && memmem::find(&self.out[..self.head_len], websocket::KEY).is_some();
        let mut fields = head.fields.iter();
        let mut accepts = || {
            let accept = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-accept"));
            accept.is_some_and(|field| field.value.of(bytes) == websocket::accept(websocket::KEY))
        };
        if is_ours && !accepts() {
            return false;
        }
        let names = |list: &'_ [u8]| {
            list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let asked = names(asked);
        let granted: Vec<Vec<u8>> = head
            .fields
            .iter()
            .filter(|field| field.kind == FieldName::Upgrade)
            .flat_map(|field| names(field.value.of(bytes)))
            .collect();
        !granted.is_empty()
            && granted.iter().all(|one| !one.is_empty() && asked.iter().any(|name| name.eq_ignore_ascii_case(one)))
    }

    /// Whether its client may half-close and still wait for the response.
    pub(crate) fn may_half_close(&self) -> bool {
        self.routed_by.http(self.listener).allow_half_close
    }

    /// How its response is compressed, if it is.
    pub(crate) fn compression(&self) -> Option<&Compress> {
        compression(self.routed_by.http(self.listener), self.route)
    }

    /// Counts data of the body against the listener's limit.
    pub(crate) fn count_body(&mut self, data: usize) -> Result<(), ProxyError> {
        self.body_bytes_left = self.body_bytes_left.checked_sub(data as u64).ok_or(ProxyError::BodyTooLarge)?;
        Ok(())
    }
}
