//! From a parsed head to a request that is ready to send: route, key, admission, and the head that goes to the chosen backend.

use crate::ambient;
use crate::codec::end::ClientEnd;
use crate::codec::grpc::{grpc_timeout, is_grpc};
use crate::codec::http1::Http1;
use crate::codec::http2::Outgoing;
use crate::codec::source::Source;
use crate::codec::websocket;
use crate::dispatcher::Scratch;
use crate::error::ProxyError;
use crate::exchange::actions;
use crate::exchange::client::Client;
use crate::exchange::compress;
use crate::exchange::local_reply::LocalReply;
use crate::net::timer::Deadline;
use crate::routing::admission::{Admitted, pick_context};
use crate::routing::affinity_cookie::{self, Value as CookieValue};
use crate::routing::forwarded;
use crate::routing::forwarded::Origin;
use crate::routing::hash_key;
use crate::snapshot::{Service, Snapshot};
use crate::upstream::in_flight::BackendSearch;
use crate::upstream::refusals::Refusals;
use crate::upstream::retry::Retries;
use crate::worker::{View, Worker};
use ringway_config::model::{Actions, Compress, ContentCoding, HttpListener, UpstreamProtocol};
use ringway_http1::{Body, Encoding};
use ringway_message::{
    BodyLength, FieldName, HeadWriter, Line, Method, RequestHead, ResponseHead, Span, TargetForm, Version,
};
use ringway_ring::{Hash, Selection, Slot};
use ringway_telemetry::access::Value;
use std::rc::Rc;
use std::time::{Duration, Instant};

mod copied;
mod kept;
mod route;

use crate::routing::rate_limit::Admission;
pub(crate) use copied::Copied;
use kept::Kept;
use route::{Routed, Unrouted, route_of, upgrade_of};

/// Small bodies that came with their head are sent with it.
const JOINED_BYTES_MAX: usize = 8 * 1024;

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
    /// Backends that have not taken it.
    pub(crate) refusals: Refusals,
    /// Its retries, as far as they are limited.
    pub(crate) retries: Retries,
}

/// What the access log needs, as it becomes known.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Lengths of method and target, which stand at the start of the head.
    line: (usize, usize),
    /// The client, where a trusted hop has named another than the peer.
    client: Option<Box<str>>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) retries: u32,
    pub(crate) backend: Option<usize>,
    pub(crate) connect_micros: Option<u64>,
    pub(crate) head_micros: Option<u64>,
}

/// Prepares the request of this head, whose spans point into `bytes`. Boxed: it is half a kilobyte, and is moved often.
pub(crate) fn prepare(
    client: &Client,
    bytes: &[u8],
    view: &Rc<View>,
    listener: usize,
    scratch: &mut Scratch,
) -> Result<Box<Request>, Box<LocalReply>> {
    let http = view.http(listener);
    let worker = &client.open.worker;
    let Scratch { request: head, key: key_bytes, .. } = scratch;
    let started = ambient::now();

    let routed = route_of(client, bytes, view, listener, head, key_bytes, started);
    let Routed { route, service, origin, hold, explain, admitted } = match routed {
        Ok(routed) => routed,
        Err(Unrouted(why, service)) => {
            let mut refusal = LocalReply::of(why, bytes, head);
            refusal.client = named_client(client, forwarded::origin(&http.forwarded, &client.peer, bytes, head));
            if let Some(service) = service {
                refusal.service = view.services[service].service.config.name.as_str().into();
            }
            return Err(refusal);
        }
    };
    let actions = http.routes[route].actions.as_deref();
    let worker_service = &view.services[service];
    let this = &worker_service.service;
    let Admitted { key, sticky, set_cookie, admission } = admitted;
    let ask = pick_context(worker, worker_service, key);
    let mirrored = actions
        .and_then(|actions| actions.mirror)
        .is_some_and(|mirror| view.services[mirror.service].service.config.protocol == UpstreamProtocol::H2);
    let written = write_head(client, bytes, head, (http, this, actions), (&view.snapshot, mirrored), origin);
    let Written { out, line, authority, protocols, chunked, encoding } = written;

    let mut response_lines = actions.map(|actions| actions::response_lines(actions, bytes, head)).unwrap_or_default();
    let targets = http.routes[route].split.as_ref().map(|split| &split.targets);
    if let Some(cookie) = hold.and_then(|arm| targets?.get(arm)?.cookie.as_ref()) {
        let mut lines = HeadWriter::new(response_lines, Vec::new(), false);
        // Its presence is the whole message: it has no value of its own.
        affinity_cookie::write(cookie, CookieValue(0), &mut lines);
        (response_lines, _) = lines.into_parts();
    }
    let (out, lines) = out.into_parts();
    Ok(Box::new(Request {
        routed_by: Rc::clone(view),
        view: Rc::clone(view),
        listener,
        route,
        service,
        hash: key.map(|key| key.hash),
        keyed: key.is_some_and(|key| key.keyed),
        selection: this.group.begin(ask),
        sticky,
        set_cookie,
        response_lines,
        // Without chunks, nothing would show where a body of unknown length was cut off.
        coding: compression(http, route)
            .filter(|_| head.version != Version::Http10)
            .and_then(|rule| compress::choose(rule, bytes, head)),
        explain,
        admission,
        head_len: out.len(),
        out,
        lines,
        authority,
        target_sensitive: head.target_sensitive,
        replayable: true,
        is_terminated: false,
        trailers: HeadWriter::new(Vec::new(), Vec::new(), true),
        chunked,
        joined: 0,
        kept: None,
        method: head.method,
        version: head.version,
        keep_alive: head.keep_alive,
        upgrade: protocols.is_some(),
        protocols: protocols.unwrap_or_default(),
        grpc: is_grpc(bytes, head),
        encoding,
        body_bytes_left: actions.and_then(|actions| actions.body_bytes_max).unwrap_or(http.body_bytes_max),
        started,
        limit: limit(client, head, bytes, actions.and_then(|actions| actions.timeout), this),
        refusals: Refusals::default(),
        retries: Retries::default(),
        report: Report {
            line,
            client: named_client(client, origin),
            received_bytes: head.head_len as u64,
            ..Report::default()
        },
    }))
}

/// A head for any backend of the service.
struct Written {
    out: HeadWriter,
    /// Lengths of method and target, which stand at its start.
    line: (usize, usize),
    /// Where in it the authority stands, if its lines are indexed.
    authority: Span,
    /// Where in it the protocols stand that may be switched to.
    protocols: Option<(usize, usize)>,
    /// Its text declares a chunked body.
    chunked: bool,
    /// How the body goes with it.
    encoding: Encoding,
}

/// Writes the request line. Returns the lengths of method and target.
fn write_line(head: &RequestHead, bytes: &[u8], actions: Option<&Actions>, text: &mut Vec<u8>) -> (usize, usize) {
    // An extended CONNECT is a GET with an upgrade elsewhere (RFC 8441, 5).
    let method = if head.protocol.is_some() { b"GET" } else { head.method_span.of(bytes) };
    text.extend_from_slice(method);
    text.push(b' ');
    let target_start = text.len();
    match (head.forward_target.is_empty(), head.method) {
        // RFC 9112, 3.2.4: an absolute target without a path means the server itself to OPTIONS.
        (true, Method::Options) => text.push(b'*'),
        (true, _) => text.push(b'/'),
        (false, _) => match actions.and_then(|actions| actions.rewrite.as_ref()) {
            Some(rewrite) => actions::write_target(rewrite, head.forward_target.of(bytes), text),
            None => text.extend_from_slice(head.forward_target.of(bytes)),
        },
    }
    let line = (method.len(), text.len() - target_start);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    line
}

/// Writes the forwarded head: the client's fields, without those that are for this hop or that the client may not set, and those that
/// Ringway and the route add.
fn write_head(
    client: &Client,
    bytes: &[u8],
    head: &RequestHead,
    (http, this, actions): (&HttpListener, &Service, Option<&Actions>),
    (snapshot, mirrored): (&Snapshot, bool),
    origin: Origin,
) -> Written {
    let trusted = origin.trusted;
    let http2 = this.config.protocol == UpstreamProtocol::H2;
    let mut out = client.open.worker.buffers.take_writer(http2 || mirrored);
    let line = write_line(head, bytes, actions, out.text_mut());
    let edits = actions.map(|actions| &actions.request);
    let drops = |name: &[u8]| edits.is_some_and(|edits| actions::drops(edits, name));
    let host = edits.and_then(|edits| edits.host.as_ref());
    let (keep_host, authority) = write_host(client, bytes, head, host.map(String::as_bytes), &mut out);
    let upgrade = upgrade_of(this, head, bytes);
    let chunked = head.body == BodyLength::Chunked || !http2 && announces_trailers(head);
    let certificate = client.peer.certificate.as_ref();
    out.copy(bytes, &head.fields, |field| match field.kind {
        _ if drops(field.name.of(bytes)) => false,
        // Only Ringway may set these fields, here or on another listener, except for a trusted hop.
        _ if certificate.is_some_and(|(name, _)| ringway_message::reads_as(field.name.of(bytes), name)) => false,
        _ if !trusted && snapshot.is_identity(field.name.of(bytes)) => false,
        FieldName::Host => keep_host,
        FieldName::ContentLength => !chunked,
        // 1.0 has no informational responses.
        FieldName::Expect => head.version != Version::Http10,
        FieldName::Ringway => trusted,
        kind => !kind.is_hop_by_hop() && !kind.is_forwarding(),
    });
    forwarded::append(&http.forwarded, origin, &client.peer, bytes, head, &mut out);
    if let Some((name, fingerprint)) = certificate.filter(|(_, fingerprint)| !fingerprint.is_empty()) {
        out.field(name, fingerprint.as_bytes());
    }
    let asked = write_upgrade(head, bytes, upgrade, &mut out);
    if let Some(edits) = edits {
        out.append(edits.lines.as_bytes());
    }
    if chunked {
        out.hop_field("transfer-encoding", b"chunked");
    }
    out.text_mut().extend_from_slice(b"\r\n");
    // HTTP/2 frames bodies by itself.
    let encoding = if chunked && !http2 { Encoding::Chunked } else { Encoding::Identity };
    Written { out, line, authority, protocols: asked, chunked, encoding }
}

/// Writes the authority, as the route says it or as the client does. Gives whether the client's field stays where it stands, and
/// where the authority is otherwise.
fn write_host(
    client: &Client,
    bytes: &[u8],
    head: &RequestHead,
    host: Option<&[u8]>,
    out: &mut HeadWriter,
) -> (bool, Span) {
    // What the client has sent for it may stay, if it is all that there is.
    let keep = head.form == TargetForm::Origin
        && host.is_none()
        && head.version != Version::Http2
        && !out.is_indexed()
        && !head.authority.is_empty();
    let start = out.text().len() as u32 + "host: ".len() as u32;
    match host {
        Some(host) => out.hop_field("host", host),
        None if keep => {}
        None if head.authority.is_empty() => {
            // HTTP/1.0 without Host: the address that the client has reached is all that is known.
            out.hop_field("host", client.open.active_listener.address_text.as_bytes());
        }
        None => out.hop_field("host", head.authority.of(bytes)),
    }
    (keep, Span { start, end: (out.text().len() as u32).saturating_sub(2).max(start) })
}

/// Writes what is asked of this hop: an upgrade, or trailers. Gives where the protocols stand that may be switched to.
fn write_upgrade(
    head: &RequestHead,
    bytes: &[u8],
    upgrade: Option<Span>,
    out: &mut HeadWriter,
) -> Option<(usize, usize)> {
    let mut asked = None;
    match upgrade {
        Some(protocols) => {
            out.hop_field("connection", b"upgrade");
            out.hop_field("upgrade", protocols.of(bytes));
            let end = out.text().len() - 2;
            asked = Some((end - protocols.len(), end));
            let websocket =
                head.protocol.is_some_and(|protocol| protocol.of(bytes).eq_ignore_ascii_case(websocket::PROTOCOL));
            if websocket && head.value_of(bytes, b"sec-websocket-key").is_none() {
                out.field("sec-websocket-key", websocket::KEY);
            }
        }
        None if head.te_trailers => {
            out.hop_field("connection", b"te");
            out.field("te", b"trailers");
        }
        None => {}
    }
    asked
}

/// Whether a body that came over HTTP/2 with its length announces trailers: HTTP/1.1 has them only behind chunks, so it goes in chunks
/// then.
fn announces_trailers(head: &RequestHead) -> bool {
    head.version == Version::Http2
        && matches!(head.body, BodyLength::Sized(length) if length > 0)
        && head.fields.iter().any(|field| field.kind == FieldName::Trailer)
}

/// The client for the access log, where a trusted hop has named another than the peer.
fn named_client(client: &Client, origin: Origin) -> Option<Box<str>> {
    let named = origin.address != client.peer.ip() && client.open.worker.logs_access();
    named.then(|| origin.address.to_string().into())
}

/// The rule by which a route's responses are compressed, if they are.
fn compression(http: &HttpListener, route: usize) -> Option<&Compress> {
    let of_route = http.routes[route].actions.as_ref().and_then(|actions| actions.compress.as_deref());
    of_route.or(http.compress.as_deref()).filter(|rule| !rule.algorithms.is_empty())
}

/// End of the whole exchange: the route's limit or the service's, or the client's if that is earlier.
fn limit(
    client: &Client,
    head: &RequestHead,
    buffer: &[u8],
    of_route: Option<Duration>,
    service: &Service,
) -> Deadline {
    let limit = client.timer.deadline(of_route.unwrap_or(service.config.timeouts.request));
    match head.value_of(buffer, b"grpc-timeout").and_then(grpc_timeout) {
        Some(timeout) => limit.min(client.timer.deadline(timeout.max(Duration::from_millis(1)))),
        None => limit,
    }
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
        let keep = |name: &[u8]| !self.routed_by.snapshot.is_identity(name);
        let progress = end.transfer(&mut self.out, self.encoding, keep).map_err(ProxyError::BadRequest)?;
        self.is_terminated = progress.done;
        self.count_body(progress.data)?;
        self.joined = progress.data;
        self.report.received_bytes += progress.consumed as u64;
        Ok(())
    }

    /// Takes what has come behind the body: it is sent with each attempt.
    pub(crate) fn take_trailers(&mut self, end: &mut ClientEnd) {
        if self.trailers.lines().is_empty() {
            let snapshot = &self.routed_by.snapshot;
            end.write_trailers(&mut self.trailers, |name| !snapshot.is_identity(name));
        }
    }

    /// Whether the request is idempotent.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() || self.view.services[self.service].service.config.retry.non_idempotent
    }

    /// How much of its body may be kept to be sent again.
    fn body_bytes_max(&self) -> usize {
        self.view.services[self.service].service.config.retry.body_bytes_max
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
        let Self { view, service, selection, report, refusals, .. } = self;
        BackendSearch { worker, view, service, selection, backend: &mut report.backend, refusals }
    }

    /// What its route does besides forwarding it.
    pub(crate) fn actions(&self) -> Option<&Actions> {
        self.routed_by.http(self.listener).routes[self.route].actions.as_deref()
    }

    /// Whether a 101 switches to a protocol that the client has offered, and names it (RFC 9110, 7.8): any other response is no
    /// tunnel.
    pub(crate) fn is_granted(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        let asked = self.out.get(self.protocols.0..self.protocols.1).unwrap_or_default();
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

    /// The cookie and the explanation that the response carries, each line with its end.
    pub(crate) fn append_fields(&self, out: &mut HeadWriter) {
        let service = &self.view.services[self.service].service;
        if let (Some(value), Some(cookie)) = (self.set_cookie, &service.config.affinity_cookie) {
            affinity_cookie::write(cookie, value, out);
        }
        out.append(&self.response_lines);
        if self.explain {
            self.append_explanation(service, out);
        }
    }

    /// Requested rarely, by people: this may format.
    #[cold]
    fn append_explanation(&self, service: &Service, out: &mut HeadWriter) {
        let id = |index: usize| service.backends[index].config.id.as_str();
        let owner = self.selection.owner().filter(|_| self.hash.is_some()).map_or("-", |slot| id(usize::from(slot.0)));
        let backend = self.report.backend.map_or("-", id);
        let hash = self.hash.map_or("-".to_owned(), |hash| format!("{hash:016x}"));
        out.field(
            "x-ringway-explain",
            format!(
                "service={}; policy={}; key={}; hash={hash}; owner={owner}; backend={backend}; \
                 spills={}; skipped={}; hot={}; retries={}; generation={}",
                service.config.name,
                service.config.policy.name(),
                if self.keyed { "present" } else { "missing" },
                self.selection.spills(),
                self.selection.skipped(),
                u8::from(self.selection.is_hot()),
                self.report.retries,
                self.view.snapshot.generation,
            )
            .as_bytes(),
        );
    }

    /// Writes the request's line of the access log.
    pub(crate) fn log(&self, client: &Client, status: u16, error: Option<ProxyError>) {
        let worker = &client.open.worker;
        if !worker.logs_access() {
            return;
        }
        let service = &self.view.services[self.service].service;
        let id = |index: usize| Value::Word(&service.backends[index].config.id);
        let owner = self.hash.and(self.selection.owner());
        let mut hash_text = [0; 16];
        let (method_len, target_len) = self.report.line;
        let line = &self.out[..];
        let number = |value: Option<u64>| value.map_or(Value::Nothing, Value::Number);
        let listener = client.open.active_listener.name();
        let pairs = [
            ("time_ms", Value::Number(ambient::unix_millis())),
            ("client", Value::Word(self.report.client.as_deref().unwrap_or(&client.peer.text))),
            ("listener", Value::Word(&listener)),
            ("method", line.get(..method_len).map_or(Value::Nothing, Value::Bytes)),
            ("target", line.get(method_len + 1..method_len + 1 + target_len).map_or(Value::Nothing, Value::Bytes)),
            ("status", Value::Number(u64::from(status))),
            ("reason", error.map_or(Value::Nothing, |error| Value::Word(error.reason()))),
            ("service", Value::Word(&service.config.name)),
            ("key_hash", self.hash.map_or(Value::Nothing, |hash| Value::Word(hash_key::hex(hash, &mut hash_text)))),
            ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
            ("backend", self.report.backend.map_or(Value::Nothing, id)),
            ("spills", Value::Number(u64::from(self.selection.spills()))),
            ("skipped", Value::Number(u64::from(self.selection.skipped()))),
            ("hot", Value::Number(u64::from(self.selection.is_hot()))),
            ("retries", Value::Number(u64::from(self.report.retries))),
            ("generation", Value::Number(self.view.snapshot.generation)),
            ("received_bytes", Value::Number(self.report.received_bytes)),
            ("sent_bytes", Value::Number(self.report.sent_bytes)),
            ("connect_us", number(self.report.connect_micros)),
            ("upstream_head_us", number(self.report.head_micros)),
            ("duration_us", Value::Number(ambient::since(self.started).as_micros() as u64)),
            ("connection_id", client.peer.logged_id()),
        ];
        worker.log(|log| log.line(&pairs));
    }
}
