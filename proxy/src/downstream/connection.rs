//! A client's HTTP/1.1 connection between its requests: waits for heads, turns each into a [`Request`], closes gracefully.

use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::codec::http2::PREFACE;
use crate::dispatcher::Scratch;
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::local_reply::LocalReply;
use crate::exchange::request::{self, Request};
use crate::net::client_hello::TLS_HANDSHAKE;
use crate::net::stream::Stream;
use crate::net::timer::Span;
use crate::worker::View;
use ringway_config::model::HttpListener;
use ringway_http1::{Body, parse_request_on};
use ringway_message::{Limits, Method};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// How long, and for how many bytes, a client may go on sending after a response that closes: closing at once would
/// reset the connection, and the response with it.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's connection.
pub(super) struct Connection {
    pub(super) client: Client,
    /// What the wait for a head goes by, as of the last request.
    wait: Wait,
}

/// Result of waiting for a request.
pub(super) enum Arrival {
    Request(Box<Request>),
    Refused(Box<LocalReply>),
    /// The HTTP/2 preface, without TLS.
    Http2,
    /// TLS, on a port without TLS.
    Tls,
    Closed,
}

/// What a connection that waits for a head goes by: limits of its listener, of which all others are looked up when a request has come.
struct Wait {
    head_bytes_max: u32,
    idle: Span,
    head: Span,
    /// Whether a request has come, and, on a listener that closes, whether the time to close has been set.
    asked: bool,
    leaving: bool,
}

impl Wait {
    fn of(http: &HttpListener, asked: bool, leaving: bool) -> Self {
        let head_bytes_max = http.head_bytes_max.try_into().unwrap_or(u32::MAX);
        let timeouts = &http.timeouts;
        Self { head_bytes_max, idle: timeouts.idle.into(), head: timeouts.head.into(), asked, leaving }
    }
}

fn limits_of(http: &HttpListener) -> Limits {
    Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max }
}

impl Connection {
    /// One that begins.
    pub(super) fn new(client: Client, view: &View, listener: usize) -> Self {
        let http = view.http(listener);
        let wait = Wait::of(http, false, false);
        client.timer.set_span(wait.head);
        Self { client, wait }
    }

    /// A request has been served.
    pub(super) fn wait_for_next(&mut self) {
        let Http1 { input, resume, .. } = self.http1();
        resume.reset();
        // Part of the next head may be here already.
        let idle = input.is_empty();
        self.client.timer.set_span(if idle { self.wait.idle } else { self.wait.head });
    }

    pub(super) fn http1(&mut self) -> &mut Http1 {
        self.client.end.http1()
    }

    /// Waits for a whole head. Holds no buffer while nothing has come.
    pub(super) fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let worker = Rc::clone(&self.client.open.worker);
        // TLS records that belong to no response, such as session tickets.
        self.http1().stream.poll_drive(context);
        loop {
            if !self.http1().input.is_empty() {
                match self.parse() {
                    Some(arrival) => return Poll::Ready(arrival),
                    None if self.http1().input.capacity() == 0 => return Poll::Ready(Arrival::Closed),
                    None => {}
                }
            } else if !self.http1().input.is_allocated() {
                let Http1 { stream, input, .. } = self.http1();
                match stream.poll_read_ready(context) {
                    Poll::Ready(Ok(())) => *input = worker.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Closed),
                    Poll::Pending => {
                        if self.client.open.ends_with_response() && !std::mem::replace(&mut self.wait.leaving, true) {
                            self.client.timer.shorten(self.client.open.leave_after(self.wait.asked));
                        }
                        // Between requests nothing is lost by closing, unless a request has just arrived.
                        return if !self.client.timer.poll_fired(context) || self.http1().stream.has_unread() {
                            Poll::Pending
                        } else {
                            Poll::Ready(Arrival::Closed)
                        };
                    }
                }
            }
            // One more than the limit, so that a head of exactly that length is told from a longer one.
            let bytes_max = self.wait.head_bytes_max as usize + 1;
            let Http1 { stream, input, .. } = self.client.end.http1();
            let was_empty = input.is_empty();
            match input.poll_read(stream, bytes_max, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Closed),
                Poll::Ready(Ok(count)) => {
                    worker.counters.received_bytes.add(count as u64);
                    if was_empty {
                        self.client.timer.set_span(self.wait.head);
                    }
                }
                Poll::Pending if input.is_empty() => {
                    worker.buffers.give(std::mem::take(input));
                }
                Poll::Pending if self.client.timer.poll_fired(context) => {
                    let refusal = LocalReply::new(ProxyError::HeadTimeout);
                    let Some((view, listener)) = worker.listener(&self.client.open.active_listener) else {
                        return Poll::Ready(Arrival::Refused(refusal));
                    };
                    let told = refusal.told_by(input.bytes(), view.http(listener), &worker);
                    return Poll::Ready(Arrival::Refused(told));
                }
                Poll::Pending => {
                    self.client.open.entry.set_receiving();
                    return Poll::Pending;
                }
            }
        }
    }

    /// `None`: the head is not complete.
    fn parse(&mut self) -> Option<Arrival> {
        let worker = Rc::clone(&self.client.open.worker);
        let Some((view, listener)) = worker.listener(&self.client.open.active_listener) else {
            return Some(Arrival::Closed);
        };
        // The listener may have changed since the last request.
        let http = view.http(listener);
        self.wait = Wait::of(http, self.wait.asked, self.wait.leaving);
        let limits = limits_of(http);
        let mut scratch = worker.scratch.borrow_mut();
        let Http1 { input, resume, .. } = self.client.end.http1();
        match parse_request_on(input.bytes(), &limits, resume, &mut scratch.request) {
            Ok(false) => None,
            Err(error) => Some(match self.other_protocol(http.h2.enabled) {
                Some(None) => return None,
                Some(Some(arrival)) => arrival,
                None => {
                    let bytes = self.client.end.http1().input.bytes();
                    let refusal = LocalReply::new(ProxyError::BadRequest(error));
                    Arrival::Refused(refusal.told_by(bytes, http, &worker))
                }
            }),
            Ok(true) => Some(match self.prepare(&view, listener, &mut scratch) {
                Ok(request) => {
                    (self.wait.asked, self.wait.leaving) = (true, false);
                    Arrival::Request(request)
                }
                Err(refusal) => Arrival::Refused(refusal),
            }),
        }
    }

    /// Prepares the request whose head stands at the start of the input, and takes the head out of it.
    fn prepare(
        &mut self,
        view: &Rc<View>,
        listener: usize,
        scratch: &mut Scratch,
    ) -> Result<Box<Request>, Box<LocalReply>> {
        let ClientEnd::Http1(Http1 { input, .. }) = &self.client.end else {
            return Err(LocalReply::new(ProxyError::ClientClosed));
        };
        let routed_by = request::prepare(&self.client, input.bytes(), view, listener, scratch);
        let head = &scratch.request;
        let Http1 { input, body, .. } = self.client.end.http1();
        *body = head.body.into();
        match routed_by {
            Ok(mut request) => {
                input.consume(head.head_len);
                request.take_small_body(&mut self.client).map_err(LocalReply::new)?;
                Ok(request)
            }
            Err(mut refusal) => {
                // Where the body is here to its end, the next request's head is known to follow.
                let rest = Body::from(head.body).rest_len(&input.bytes()[head.head_len..]);
                if let Some(rest) = rest.filter(|_| head.method != Method::Connect && refusal.keeps_order()) {
                    refusal.keep_alive = head.keep_alive;
                    input.consume(head.head_len + rest);
                }
                Err(refusal)
            }
        }
    }

    /// What the first bytes are, if not HTTP/1.1; `Some(None)`: not known yet.
    #[cold]
    fn other_protocol(&mut self, h2: bool) -> Option<Option<Arrival>> {
        let Http1 { stream, input, .. } = self.http1();
        let bytes = input.bytes();
        if !matches!(stream, Stream::Plain(_)) {
            return None;
        }
        if bytes.starts_with(&[TLS_HANDSHAKE, 3]) {
            return Some(Some(Arrival::Tls));
        }
        let common = bytes.len().min(PREFACE.len());
        if h2 && bytes[..common] == PREFACE[..common] {
            return Some((common == PREFACE.len()).then_some(Arrival::Http2));
        }
        None
    }

    /// Whether closing now loses nothing of what has been sent: nothing that the client sends waits to be read, and no layer has an end of its
    /// own to send.
    ///
    /// `certain`: ask the kernel too, not only the runtime's readiness.
    pub(super) fn has_nothing_unread(&mut self, certain: bool) -> bool {
        let stream = &mut self.http1().stream;
        let holds = stream.needs_close_notify() || stream.has_sent_more() || certain && stream.has_unread();
        !holds
    }

    /// Closes the writing side and reads on for a while, so that the client sees the response and not a reset.
    pub(super) async fn linger(&mut self) {
        let worker = Rc::clone(&self.client.open.worker);
        let Client { end, timer, .. } = &mut self.client;
        let Http1 { stream, input, .. } = end.http1();
        if !input.is_allocated() {
            *input = worker.buffers.take();
        }
        let mut budget = LINGER_BYTES;
        timer.set(LINGER_TIME);
        poll_fn(|context| {
            // A client that reads nothing keeps TLS from sending close_notify.
            let over = timer.poll_fired(context);
            if Pin::new(&mut *stream).poll_shutdown(context).is_pending() {
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
            loop {
                let held = input.len();
                input.consume(held);
                match input.poll_read(stream, 0, context) {
                    Poll::Ready(Ok(count)) if count > 0 && count <= budget => budget -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if over => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}
