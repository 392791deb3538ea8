//! A request that goes to no backend, and the response that its client gets.

use super::actions::DirectResponse;
use super::client::Client;
use super::error_response;
use super::marks::Marks;
use super::outcome::Next;
use super::span_attributes::Beginning;
use super::trace::Trace;
use crate::ambient;
use crate::dispatcher::Dispatcher;
use crate::error::ProxyError;
use ringway_config::model::{HttpListener, Tracing};
use ringway_message::{Method, RequestHead, Version, write_hex};
use ringway_telemetry::access::{Field, More, Value};
use ringway_telemetry::counters::class_of;
use std::rc::Rc;
use std::time::Duration;

/// Why a request goes to no backend.
pub(crate) enum Cause {
    /// It is refused because of an error.
    Error(ProxyError),
    /// Its route has a direct response.
    Answer(DirectResponse),
}

/// A request that goes to no backend.
pub(crate) struct LocalReply {
    pub(crate) why: Cause,
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// Whether the next request's head is known to follow.
    pub(crate) keep_alive: bool,
    /// The place of its route among its listener's, if one was found.
    pub(super) route: Option<usize>,
    /// Empty if no service was chosen.
    pub(crate) service: Box<str>,
    /// The client, where a trusted hop has named another than the peer.
    pub(super) client: Option<Box<str>>,
    /// The request's id.
    id: Option<Box<[u8]>>,
    /// A header line with it, where the response has it.
    lines: Vec<u8>,
    /// That of its trace, recorded or not.
    trace_id: Option<[u8; 16]>,
    trace: Option<Box<Trace>>,
    line: Vec<u8>,
    /// The head, where the access log may want fields of it.
    head: Box<[u8]>,
}

/// Bytes of a first line that are logged.
const LINE_BYTES_MAX: usize = 2048;

/// Method and target of what is no request, whatever is wrong with it: the first word, if it could be a method, and what follows up to a version.
fn first_line(bytes: &[u8]) -> Vec<u8> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = &bytes[begin..];
    let end = line.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
    let line = line[..end.unwrap_or(line.len().min(LINE_BYTES_MAX))].trim_ascii_end();
    let is_method = |word: &[u8]| (1..=32).contains(&word.len()) && word.iter().all(u8::is_ascii_alphabetic);
    match line.iter().position(|byte| *byte == b' ') {
        Some(space) if is_method(&line[..space]) => {
            let version = line.windows(6).rposition(|part| part == b" HTTP/").filter(|at| *at >= space);
            line[..version.unwrap_or(line.len())].to_vec()
        }
        // Without a method.
        _ => [b" ", line].concat(),
    }
}

impl LocalReply {
    /// For bytes that are no request: nothing after them can be trusted.
    pub(crate) fn new(error: ProxyError) -> Box<Self> {
        Box::new(Self {
            why: Cause::Error(error),
            version: Version::Http11,
            is_head: false,
            keep_alive: false,
            route: None,
            service: Box::default(),
            client: None,
            id: None,
            lines: Vec::new(),
            trace_id: None,
            trace: None,
            line: Vec::new(),
            head: Box::default(),
        })
    }

    /// Tells what there is to tell of what is no request: its first line, as far as there is one, and an id of its own.
    #[cold]
    pub(crate) fn told_by(
        mut self: Box<Self>,
        bytes: &[u8],
        http: &HttpListener,
        dispatcher: &Dispatcher,
    ) -> Box<Self> {
        self.line = first_line(bytes);
        let marks = Marks::of((http, None), false, dispatcher, b"", &RequestHead::default());
        self.id = marks.id().map(Into::into);
        marks.write_response(&mut self.lines);
        self
    }

    /// For a stream of HTTP/2, whose connection goes on.
    pub(crate) fn of_stream(error: ProxyError) -> Box<Self> {
        let mut refusal = Self::new(error);
        refusal.version = Version::Http2;
        refusal
    }

    /// Whether a body that is here may be skipped, so that the connection can be reused.
    pub(crate) fn keeps_order(&self) -> bool {
        match self.why {
            Cause::Error(error) => error.keeps_order(),
            Cause::Answer(_) => true,
        }
    }

    pub(super) fn of(why: Cause, bytes: &[u8], head: &RequestHead) -> Box<Self> {
        let mut line = head.method_span.of(bytes).to_vec();
        line.push(b' ');
        line.extend_from_slice(head.target.of(bytes));
        Box::new(Self {
            why,
            version: head.version,
            is_head: head.method == Method::Head,
            keep_alive: false,
            route: None,
            service: Box::default(),
            client: None,
            id: None,
            lines: Vec::new(),
            trace_id: None,
            trace: None,
            line,
            head: Box::default(),
        })
    }

    /// Takes over the fields of the head, as the client has sent them, as lines below one without a request.
    #[cold]
    pub(super) fn keep_head(&mut self, bytes: &[u8], head: &RequestHead) {
        let mut lines = b"\r\n".to_vec();
        for field in &head.fields {
            for part in [field.name.of(bytes), b": ", field.value.of(bytes), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        self.head = lines.into();
    }

    /// Takes over what marks the request.
    pub(super) fn mark(&mut self, marks: &Marks<'_>, tracing: Option<&Tracing>, beginning: &Beginning<'_>) {
        self.id = marks.id().map(Into::into);
        self.trace_id = marks.trace_id();
        marks.write_response(&mut self.lines);
        self.trace = Trace::begin(marks.recorded().zip(tracing), beginning);
    }

    /// Sends the response to a request that goes to no backend, and logs it. Returns what follows on the client's connection.
    pub(crate) async fn send(&mut self, client: &mut Client) -> Next {
        let worker = Rc::clone(&client.open.worker);
        if let Cause::Error(error) = &self.why {
            worker.shared.counters.error(&self.service, error.reason());
        }
        let keep_alive = self.keep_alive && !client.open.ends_with_response();
        let listener = worker.listener(&client.open.active_listener);
        let pages = listener.as_ref().map_or(&[][..], |(view, listener)| &view.http(*listener).errors);
        let mut out = client.own_head();
        let reply = match &self.why {
            Cause::Error(error) => {
                error_response::write(*error, self.version, keep_alive, self.is_head, &self.lines, pages, &mut out)
            }
            Cause::Answer(direct_response) => {
                error_response::write_direct(direct_response, self.version, keep_alive, &self.lines, &mut out)
            }
        };
        let bytes = out.text().len() as u64;
        let sent = client.send(reply, out).await;
        let class =
            if matches!(self.why, Cause::Error(ProxyError::ClientClosed)) { 0 } else { class_of(self.status()) };
        client.open.active_listener.counters.count(class, 0, if sent { bytes } else { 0 });
        self.log(client);
        if let Some(mut trace) = self.trace.take() {
            let reason = match &self.why {
                Cause::Error(error) => Some(error.reason()),
                Cause::Answer(_) => None,
            };
            trace.end(&worker, self.status(), reason, b"");
        }
        match (sent, keep_alive) {
            (true, true) => Next::Request,
            (true, false) => Next::Linger,
            (false, _) => Next::Abort,
        }
    }

    fn status(&self) -> u16 {
        match &self.why {
            Cause::Error(error) => error.status(),
            Cause::Answer(direct_response) => direct_response.status,
        }
    }

    /// The access log line of a request that goes to no backend.
    fn log(&self, client: &Client) {
        let reason = match &self.why {
            Cause::Error(error) => Value::Word(error.reason()),
            Cause::Answer(_) => Value::Nothing,
        };
        // It has taken no time.
        if !client.open.worker.wants_line(self.status(), Duration::ZERO) {
            return;
        }
        let line = self.line.as_slice();
        let mut words = line.splitn(2, |&byte| byte == b' ');
        let mut word = || words.next().filter(|word| !word.is_empty()).map_or(Value::Nothing, Value::Bytes);
        let listener = client.open.active_listener.name();
        let pairs = [
            (Field::TIME_MS, Value::Number(ambient::unix_millis())),
            (Field::CLIENT, Value::Word(self.client.as_deref().unwrap_or(client.open.peer.text()))),
            (Field::LISTENER, Value::Word(&listener)),
            (Field::METHOD, word()),
            (Field::TARGET, word()),
            (Field::STATUS, Value::Number(u64::from(self.status()))),
            (Field::REASON, reason),
            (Field::SERVICE, if self.service.is_empty() { Value::Nothing } else { Value::Word(&self.service) }),
        ];
        let id = self.id.as_deref().map(|id| (Field::REQUEST_ID, Value::Bytes(id)));
        let mut digits = [0; 32];
        let trace_id = self.trace_id.map(|trace_id| {
            write_hex(&trace_id, &mut digits);
            (Field::TRACE_ID, Value::Bytes(&digits))
        });
        let peer = &client.open.peer;
        let more = || More {
            fields: [
                (Field::PEER, Value::Word(peer.text())),
                (Field::PROTOCOL, Value::Word(self.version.name())),
                (Field::ROUTE, self.route.map_or(Value::Nothing, |route| Value::Number(route as u64 + 1))),
                (Field::TRIES, Value::Number(0)),
                (Field::TLS_VERSION, peer.tls_version()),
                (Field::TLS_CIPHER, peer.tls_cipher()),
                (Field::SNI, peer.logged_name()),
            ],
            head: &self.head,
        };
        client.open.worker.log(|log| log.line(pairs.into_iter().chain(id).chain(trace_id), more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_what_is_no_request_is_told_as_far_as_it_is_one() {
        for (bytes, line) in [
            (&b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n"[..], &b"GET /a"[..]),
            (b"\r\n\r\nPOST /b HTTP/9.9\r\n", b"POST /b"),
            (b"GET /a b HTTP/1.1\r\n", b"GET /a b"),
            (b"GET /no-version\n", b"GET /no-version"),
            (b"GET  HTTP/1.1\r\n", b"GET "),
            (b"\x16\x03\x01 x", b" \x16\x03\x01 x"),
            (b"hello", b" hello"),
            (b"", b" "),
            (b"\r\n", b" "),
        ] {
            assert_eq!(first_line(bytes), line, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(first_line(&[b'a'; 10_000]).len(), LINE_BYTES_MAX + 1);
    }
}
