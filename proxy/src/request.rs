//! From a parsed head to a plan: route, key, place, and the head that goes to whichever backend takes it.

use crate::error::ProxyError;
use crate::http::{self, Client};
use crate::timer::Deadline;
use crate::worker::{Scratch, View};
use crate::{forwarded, key, route};
use ringway_config::model::OnMissing;
use ringway_http1::{Body, BodyLength, Encoding, FieldName, Method, RequestHead, TargetForm, Version, write};
use ringway_ring::{Hash, Selection};
use ringway_telemetry::access::Value;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Small bodies that came with their head are sent with it, and can be sent again.
const REPLAY_BYTES_MAX: usize = 8 * 1024;

/// A request on its way to a backend.
pub(crate) struct Request {
    pub(crate) view: Rc<View>,
    pub(crate) listener: usize,
    pub(crate) service: usize,
    pub(crate) hash: Option<Hash>,
    pub(crate) selection: Selection,
    /// The head as every backend would get it, and the body as far as it came with the head.
    pub(crate) out: Vec<u8>,
    /// Whether `out` is all that has been taken of the request, so that it can be sent again.
    pub(crate) replayable: bool,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// What of the body has not been read from the client.
    pub(crate) body: Body,
    pub(crate) encoding: Encoding,
    /// How many bytes of data the body may still have.
    pub(crate) body_bytes_left: u64,
    pub(crate) started: Instant,
    /// End of the whole exchange.
    pub(crate) limit: Deadline,
    pub(crate) report: Report,
}

/// What the access log wants to know, as it becomes known.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Lengths of method and target, which stand at the start of the head.
    line: (usize, usize),
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) retries: u32,
    pub(crate) backend: Option<usize>,
    pub(crate) connect_micros: Option<u64>,
    pub(crate) head_micros: Option<u64>,
}

/// A request that goes to no backend.
pub(crate) struct Refusal {
    pub(crate) error: ProxyError,
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// Whether the next request's head is known to follow.
    pub(crate) keep_alive: bool,
    line: Vec<u8>,
}

impl Refusal {
    /// Of bytes that are no request: nothing after them can be trusted.
    pub(crate) fn new(error: ProxyError) -> Self {
        Self { error, version: Version::Http11, is_head: false, keep_alive: false, line: Vec::new() }
    }

    fn of(error: ProxyError, buffer: &[u8], head: &RequestHead) -> Self {
        Self {
            error,
            version: head.version,
            is_head: head.method == Method::Head,
            keep_alive: false,
            line: buffer[..head.target.end as usize].to_vec(),
        }
    }
}

/// Plans the request whose head stands at the start of the client's input, and takes the head out of it.
pub(crate) fn plan(
    client: &mut Client,
    view: &Rc<View>,
    listener: usize,
    scratch: &mut Scratch,
) -> Result<Request, Refusal> {
    let http = http::http_of(view, listener);
    let worker = Rc::clone(&client.open.worker);
    let Scratch { request: head, key: key_bytes, .. } = scratch;
    let buffer = client.input.bytes();

    let placed = place(client, view, listener, head, key_bytes);
    let (service, hash, trusted) = match placed {
        Ok(placed) => placed,
        Err(error) => {
            let mut refusal = Refusal::of(error, buffer, head);
            if head.body == BodyLength::None && head.method != Method::Connect {
                refusal.keep_alive = head.keep_alive;
                client.input.consume(head.head_len);
            }
            return Err(refusal);
        }
    };
    let this = &view.services[service].service;

    let mut out = worker.buffers.take_outgoing();
    out.extend_from_slice(head.method_span.of(buffer));
    out.push(b' ');
    let target_start = out.len();
    match (head.forward_target.is_empty(), head.method) {
        // RFC 9112, 3.2.4: an absolute target without a path means the server itself to OPTIONS.
        (true, Method::Options) => out.push(b'*'),
        (true, _) => out.push(b'/'),
        (false, _) => out.extend_from_slice(head.forward_target.of(buffer)),
    }
    let line = (head.method_span.len(), out.len() - target_start);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_host(client, head, &mut out);
    let upgrade = head.upgrade.filter(|_| head.body == BodyLength::None);
    let keep_host = head.form == TargetForm::Origin;
    write::copy_fields(&buffer[..head.head_len], &head.fields, &mut out, |field| match field.kind {
        FieldName::Host => keep_host,
        // 1.0 has no interim answers.
        FieldName::Expect => head.version == Version::Http11,
        FieldName::Ringway => trusted,
        kind => !kind.is_hop_by_hop() && !forwarded::is_forwarding(kind),
    });
    let peer = client.peer.ip().to_canonical();
    forwarded::append(&http.forwarded, trusted, peer, client.peer_text.as_bytes(), buffer, head, &mut out);
    match upgrade {
        Some(protocols) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            write::field(&mut out, "upgrade", protocols.of(buffer));
        }
        None if head.te_trailers => out.extend_from_slice(b"connection: te\r\nte: trailers\r\n"),
        None => {}
    }
    let mut encoding = Encoding::Identity;
    if head.body == BodyLength::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        encoding = Encoding::Chunked;
    }
    out.extend_from_slice(b"\r\n");

    let mut request = Request {
        view: Rc::clone(view),
        listener,
        service,
        hash,
        selection: this.group.begin(hash),
        out,
        replayable: true,
        method: head.method,
        version: head.version,
        keep_alive: head.keep_alive,
        upgrade: upgrade.is_some(),
        body: head.body.into(),
        encoding,
        body_bytes_left: http.body_bytes_max,
        started: Instant::now(),
        limit: client.timer.deadline(this.config.timeouts.request),
        report: Report { line, received_bytes: head.head_len as u64, ..Report::default() },
    };
    client.input.consume(head.head_len);
    request.take_small_body(client).map_err(Refusal::new)?;
    Ok(request)
}

/// Route and key: everything that can refuse a request whose framing is good.
fn place(
    client: &Client,
    view: &View,
    listener: usize,
    head: &RequestHead,
    key_bytes: &mut Vec<u8>,
) -> Result<(usize, Option<Hash>, bool), ProxyError> {
    let http = http::http_of(view, listener);
    let buffer = client.input.bytes();
    if head.method == Method::Connect {
        return Err(ProxyError::ConnectRefused);
    }
    if head.expect_unknown {
        return Err(ProxyError::Expectation);
    }
    if matches!(head.body, BodyLength::Sized(length) if length > http.body_bytes_max) {
        return Err(ProxyError::BodyTooLarge);
    }
    // Routes that do not look at the path are not fooled by it: such paths are the backend's business.
    if http.routes.iter().any(|route| route.path.is_some()) && route::climbs(route::path_of(buffer, head)) {
        return Err(ProxyError::PathTraversal);
    }
    let route = route::find(&http.routes, buffer, head).ok_or(ProxyError::NoRoute)?;
    let service = http.routes[route].service;
    let this = &view.services[service].service;
    let peer = client.peer.ip().to_canonical();
    let trusted = forwarded::is_trusted(&http.forwarded.trusted, peer);
    if !this.hashes() {
        return Ok((service, None, trusted));
    }
    let address = forwarded::client_address(&http.forwarded, peer, buffer, head);
    let input = key::KeyInput { buffer, head, client: address };
    let hash = if key::extract(&this.config.hash_key, &input, key_bytes) {
        ringway_ring::hash_key(key_bytes, this.seed())
    } else {
        match this.config.on_missing {
            OnMissing::Reject => return Err(ProxyError::KeyMissing),
            OnMissing::Random => client.open.worker.random(),
            OnMissing::RoundRobin => this.next_in_turn(),
            OnMissing::SourceIp => {
                key_bytes.clear();
                key::address_key(address, 32, 128, key_bytes);
                ringway_ring::hash_key(key_bytes, this.seed())
            }
        }
    };
    Ok((service, Some(hash), trusted))
}

/// `Host` first (RFC 9110, 7.2), unless the client's own field is copied as it stands.
fn write_host(client: &Client, head: &RequestHead, out: &mut Vec<u8>) {
    let buffer = client.input.bytes();
    let authority = head.authority.of(buffer);
    if authority.is_empty() {
        // HTTP/1.0 without Host: the address that the client has reached is all that is known.
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(client.open.gate.address_text.as_bytes());
        out.extend_from_slice(b"\r\n");
    } else if head.form != TargetForm::Origin {
        write::field(out, "host", authority);
    }
}

impl Request {
    /// A body that came whole with its head, and is small, goes out with it.
    fn take_small_body(&mut self, client: &mut Client) -> Result<(), ProxyError> {
        let input = client.input.bytes();
        if self.body.is_end() || input.is_empty() || input.len() > REPLAY_BYTES_MAX {
            return Ok(());
        }
        if self.body.plain(input.len()).is_some_and(|available| {
            let mut rest = self.body.clone();
            rest.advance(available);
            !rest.is_end()
        }) {
            return Ok(());
        }
        let progress = self.body.transfer(input, &mut self.out, self.encoding).map_err(ProxyError::BadRequest)?;
        self.count_body(progress.data)?;
        self.report.received_bytes += progress.consumed as u64;
        client.input.consume(progress.consumed);
        Ok(())
    }

    /// Counts data of the body against the listener's limit.
    pub(crate) fn count_body(&mut self, data: usize) -> Result<(), ProxyError> {
        self.body_bytes_left = self.body_bytes_left.checked_sub(data as u64).ok_or(ProxyError::BodyTooLarge)?;
        Ok(())
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
        let pairs = [
            ("time_ms", Value::Number(unix_millis())),
            ("client", Value::Word(&client.peer_text)),
            ("listener", Value::Word(client.open.gate.name())),
            ("method", line.get(..method_len).map_or(Value::Nothing, Value::Bytes)),
            ("target", line.get(method_len + 1..method_len + 1 + target_len).map_or(Value::Nothing, Value::Bytes)),
            ("status", Value::Number(u64::from(status))),
            ("reason", error.map_or(Value::Nothing, |error| Value::Word(error.reason()))),
            ("service", Value::Word(&service.config.name)),
            ("key_hash", self.hash.map_or(Value::Nothing, |hash| Value::Word(hex(hash, &mut hash_text)))),
            ("owner", owner.map_or(Value::Nothing, |slot| id(usize::from(slot.0)))),
            ("backend", self.report.backend.map_or(Value::Nothing, id)),
            ("spills", Value::Number(u64::from(self.selection.spills()))),
            ("skipped", Value::Number(u64::from(self.selection.skipped()))),
            ("retries", Value::Number(u64::from(self.report.retries))),
            ("generation", Value::Number(self.view.snapshot.generation)),
            ("received_bytes", Value::Number(self.report.received_bytes)),
            ("sent_bytes", Value::Number(self.report.sent_bytes)),
            ("connect_us", number(self.report.connect_micros)),
            ("upstream_head_us", number(self.report.head_micros)),
            ("duration_us", Value::Number(self.started.elapsed().as_micros() as u64)),
        ];
        worker.log(|log| log.line(&pairs));
    }
}

/// A refused request's line of the access log.
pub(crate) fn log_refusal(client: &Client, refusal: &Refusal) {
    let line = refusal.line.as_slice();
    let mut words = line.splitn(2, |&byte| byte == b' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).map_or(Value::Nothing, Value::Bytes);
    let pairs = [
        ("time_ms", Value::Number(unix_millis())),
        ("client", Value::Word(&client.peer_text)),
        ("listener", Value::Word(client.open.gate.name())),
        ("method", word()),
        ("target", word()),
        ("status", Value::Number(u64::from(refusal.error.status()))),
        ("reason", Value::Word(refusal.error.reason())),
    ];
    client.open.worker.log(|log| log.line(&pairs));
}

pub(crate) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn hex(hash: u64, text: &mut [u8; 16]) -> &str {
    for (index, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(hash >> (60 - 4 * index) & 15) as usize];
    }
    std::str::from_utf8(text).unwrap_or_default()
}
