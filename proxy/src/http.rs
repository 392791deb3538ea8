//! A client's HTTP/1.1 connection: waits for heads, turns each into a [`Request`], has it exchanged, closes in peace.

use crate::buffers::Buffer;
use crate::error::ProxyError;
use crate::exchange::{self, Next};
use crate::request::{Refusal, Request};
use crate::timer::Timer;
use crate::worker::{OpenConnection, View};
use crate::{answer, request};
use ringway_config::model::{ClientTimeouts, HttpListener, Protocol};
use ringway_http1::{Limits, parse_request};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// How long, and for how many bytes, a client may go on sending after an answer that closes: closing at once would
/// reset the connection, and the answer with it.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) open: OpenConnection,
    pub(crate) stream: TcpStream,
    pub(crate) timer: Timer,
    /// Bytes read and not yet dealt with.
    pub(crate) input: Buffer,
    pub(crate) peer: SocketAddr,
    /// The peer's address without port, as text.
    pub(crate) peer_text: String,
    /// How far the input has been searched for the end of a head.
    searched: usize,
    /// Limits of the listener, as of the last request.
    limits: Limits,
    timeouts: ClientTimeouts,
}

/// What came of waiting for a request.
#[allow(clippy::large_enum_variant, reason = "moved once per request; boxing it would allocate once per request")]
enum Arrival {
    Request(Request),
    Refused(Refusal),
    Closed,
}

/// Serves a connection to its end.
pub(crate) async fn serve(open: OpenConnection, stream: TcpStream, peer: SocketAddr, view: Rc<View>, listener: usize) {
    let timer = open.worker.timer();
    let peer_text = peer.ip().to_canonical().to_string();
    let http = http_of(&view, listener);
    let (limits, timeouts) = (limits_of(http), http.timeouts);
    let input = Buffer::default();
    let mut client = Client { open, stream, timer, input, peer, peer_text, searched: 0, limits, timeouts };
    client.timer.set(timeouts.head);
    drop(view);
    client.run().await;
    let worker = Rc::clone(&client.open.worker);
    worker.buffers.give(std::mem::take(&mut client.input));
}

/// The listener's HTTP part.
pub(crate) fn http_of(view: &View, listener: usize) -> &HttpListener {
    match &view.snapshot.config.listeners[listener].protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp(_) => unreachable!("invariant: a gate's protocol is part of its identity"),
    }
}

fn limits_of(http: &HttpListener) -> Limits {
    Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max }
}

impl Client {
    async fn run(&mut self) {
        loop {
            match poll_fn(|context| self.poll_request(context)).await {
                Arrival::Closed => return,
                Arrival::Refused(refusal) => {
                    if !self.refuse(&refusal).await {
                        return;
                    }
                }
                Arrival::Request(mut request) => match exchange::run(self, &mut request).await {
                    Next::Request => {}
                    Next::Abort => return,
                    // Bytes that nobody will read would turn the close into a reset.
                    Next::Close if self.has_unread() => return self.linger().await,
                    Next::Close => return,
                    Next::Linger => return self.linger().await,
                },
            }
            self.searched = 0;
            // Part of the next head may be here already.
            self.timer.set(if self.input.is_empty() { self.timeouts.idle } else { self.timeouts.head });
        }
    }

    /// Waits for a whole head. Holds no buffer while nothing has come.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let worker = Rc::clone(&self.open.worker);
        loop {
            if !self.input.is_empty() {
                match self.parse() {
                    Some(arrival) => return Poll::Ready(arrival),
                    None if self.input.capacity() == 0 => return Poll::Ready(Arrival::Closed),
                    None => {}
                }
            } else if !self.input.is_allocated() {
                match self.stream.poll_read_ready(context) {
                    Poll::Ready(Ok(())) => self.input = worker.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Closed),
                    // Between requests nothing is lost by closing, unless one has just arrived.
                    Poll::Pending if self.open.is_closing() || self.timer.poll_fired(context) => {
                        return if self.has_unread() { Poll::Pending } else { Poll::Ready(Arrival::Closed) };
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            let was_empty = self.input.is_empty();
            let bytes_max = self.head_bytes_max();
            match self.input.poll_read(&mut self.stream, bytes_max, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Closed),
                Poll::Ready(Ok(count)) => {
                    worker.cells.received_bytes.add(count as u64);
                    if was_empty {
                        self.timer.set(self.timeouts.head);
                    }
                }
                Poll::Pending if self.input.is_empty() => {
                    worker.buffers.give(std::mem::take(&mut self.input));
                }
                Poll::Pending if self.timer.poll_fired(context) => {
                    return Poll::Ready(Arrival::Refused(Refusal::new(ProxyError::HeadTimeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether the kernel holds bytes that the runtime has not told of yet: it will.
    fn has_unread(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        socket2::SockRef::from(&self.stream).peek(&mut byte).is_ok_and(|count| count > 0)
    }

    /// One more than the limit, so that a head of just that length is told from a longer one.
    fn head_bytes_max(&self) -> usize {
        self.limits.head_bytes_max + 1
    }

    /// `None`: the head is not complete.
    fn parse(&mut self) -> Option<Arrival> {
        let fresh = &self.input.bytes()[self.searched..];
        // Parsing again is worth it only once another line has ended, or the limit is near.
        if self.searched > 0 && memchr::memchr(b'\n', fresh).is_none() && self.input.len() < self.head_bytes_max() {
            self.searched = self.input.len();
            return None;
        }
        let worker = Rc::clone(&self.open.worker);
        let Some((view, listener)) = worker.listener(&self.open.gate) else { return Some(Arrival::Closed) };
        // The listener may have changed since the last request.
        let http = http_of(&view, listener);
        (self.limits, self.timeouts) = (limits_of(http), http.timeouts);
        let limits = self.limits;
        let mut scratch = worker.scratch.borrow_mut();
        match parse_request(self.input.bytes(), &limits, &mut scratch.request) {
            Ok(false) => {
                self.searched = self.input.len();
                None
            }
            Err(error) => Some(Arrival::Refused(Refusal::new(ProxyError::BadRequest(error)))),
            Ok(true) => Some(match request::plan(self, &view, listener, &mut scratch) {
                Ok(request) => Arrival::Request(request),
                Err(refusal) => Arrival::Refused(refusal),
            }),
        }
    }

    /// Answers a request that goes to no backend. Gives whether the connection goes on.
    async fn refuse(&mut self, refusal: &Refusal) -> bool {
        let worker = Rc::clone(&self.open.worker);
        worker.shared.cells.error(&refusal.service, refusal.error.reason());
        let keep_alive = refusal.keep_alive && !self.open.is_closing();
        let mut out = worker.buffers.take_outgoing();
        answer::write(refusal.error, refusal.version, keep_alive, refusal.is_head, b"", &mut out);
        let sent = self.send(&out).await;
        worker.buffers.give_outgoing(out);
        request::log_refusal(self, refusal);
        if sent && !keep_alive {
            self.linger().await;
        }
        sent && keep_alive
    }

    /// Writes all of it, or gives up when the client does not read.
    pub(crate) async fn send(&mut self, out: &[u8]) -> bool {
        let mut sent = 0;
        self.timer.set(Duration::from_secs(10));
        let result = poll_fn(|context| {
            while sent < out.len() {
                match Pin::new(&mut self.stream).poll_write(context, &out[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => sent += count,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(true)
        })
        .await;
        self.open.worker.cells.sent_bytes.add(sent as u64);
        result
    }

    /// Closes the writing side and reads on for a while, so that the client sees the answer and not a reset.
    async fn linger(&mut self) {
        let worker = Rc::clone(&self.open.worker);
        if !self.input.is_allocated() {
            self.input = worker.buffers.take();
        }
        let mut budget = LINGER_BYTES;
        self.timer.set(LINGER_TIME);
        poll_fn(|context| {
            if Pin::new(&mut self.stream).poll_shutdown(context).is_pending() {
                return Poll::Pending;
            }
            loop {
                let held = self.input.len();
                self.input.consume(held);
                match self.input.poll_read(&mut self.stream, 0, context) {
                    Poll::Ready(Ok(count)) if count > 0 && count <= budget => budget -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if self.timer.poll_fired(context) || worker.is_draining() => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}
