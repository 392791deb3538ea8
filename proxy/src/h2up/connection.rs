//! One HTTP/2 connection to a backend: what drives it, and how it is found out that nobody is at its other end any more.
//!
//! A connection on which a stream has waited in vain, and nothing at all was heard, is doubted: it gets no new streams, and a PING.
//! A byte ends the doubt; silence ends the connection, and with it all its streams.

use super::{ANSWER_BYTES_MAX, STREAMS_MAX};
use crate::connections::ConnectionSlot;
use crate::h2watch::Scanner;
use crate::stream::Stream;
use crate::timer::{Deadline, Timer, Timers};
use crate::worker::Worker;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use ringway_config::model::Keepalive;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Window of a stream: what a client that does not read leaves here.
const STREAM_WINDOW: u32 = 64 * 1024;
/// All streams' together: the stalled ones take nothing from the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
const SEND_BUFFER: usize = 64 * 1024;
/// PINGs in a row that may go to a peer that sends neither heads nor data. gRPC's servers end a connection at the third that comes
/// within five minutes of the one before ("too_many_pings").
const PINGS_AT_ONCE: u32 = 2;
/// How long the next one waits.
const PING_REST: Duration = Duration::from_secs(300);

/// A connection that carries many streams.
pub(crate) struct Connection {
    pub(super) send: SendRequest<Bytes>,
    pub(super) line: Rc<Line>,
    /// Over TLS.
    pub(super) secure: bool,
    /// Whether it has had a stream.
    pub(super) carried: Cell<bool>,
    pub(super) used: Cell<Deadline>,
}

impl Connection {
    /// Begins HTTP/2 on a fresh connection, which is counted by its slot as long as it lives. It is of use once the peer's settings
    /// are known: they say how many streams it takes, and whether it takes extended CONNECT (RFC 8441, 3).
    pub(crate) async fn begin(
        stream: Stream,
        slot: ConnectionSlot,
        worker: &Worker,
        keepalive: Keepalive,
    ) -> io::Result<Rc<Self>> {
        let timers = &worker.timers;
        let secure = matches!(stream, Stream::Client(_));
        let line = Rc::new(Line::new(timers, keepalive));
        let io = Heard { stream, line: Rc::clone(&line), frames: Scanner::default() };
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(ANSWER_BYTES_MAX)
            .initial_max_send_streams(STREAMS_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(io::Error::other)?;
        let ping = connection.ping_pong();
        let timer = timers.timer();
        let mut driver =
            Driver { connection, line: Rc::clone(&line), ping, timer, phase: Phase::Rest, pinging: false, heard: 0 };
        worker.spawn("a shared connection to a backend", async move {
            let _slot = slot;
            // Its streams are told of the end.
            poll_fn(|context| driver.poll(context)).await;
        });
        let used = Cell::new(timers.now());
        let this = Rc::new(Self { send, line, secure, carried: Cell::new(false), used });
        poll_fn(|context| this.line.poll_settings(context)).await?;
        Ok(this)
    }

    /// Whether one more stream can be sent at once.
    pub(crate) fn has_room(&self) -> bool {
        !self.line.closed.get() && !self.line.doubted.get() && self.line.streams.get() < self.streams_max()
    }

    /// Whether it has more streams than its peer takes at the moment: some of them will not be sent.
    pub(super) fn is_over_full(&self) -> bool {
        self.line.streams.get() > self.streams_max()
    }

    pub(super) fn streams_max(&self) -> usize {
        self.send.current_max_send_streams().min(STREAMS_MAX)
    }
}

/// What a connection's task and its streams know of each other.
pub(super) struct Line {
    timers: Rc<Timers>,
    keepalive: Keepalive,
    /// It takes no more streams: it has ended, or will once those that it has are over.
    pub(super) closed: Cell<bool>,
    doubted: Cell<bool>,
    pub(super) streams: Cell<usize>,
    /// How often bytes have come.
    heard: Cell<u64>,
    /// PINGs since the last head or data.
    pings: Cell<u32>,
    /// Whether the peer's first settings have come, and whether they are in force.
    settings_read: Cell<bool>,
    settings: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    /// Of those who wait for news of the connection itself.
    waiting: RefCell<Vec<Waker>>,
}

impl Line {
    fn new(timers: &Rc<Timers>, keepalive: Keepalive) -> Self {
        Self {
            timers: Rc::clone(timers),
            keepalive,
            closed: Cell::new(false),
            doubted: Cell::new(false),
            streams: Cell::new(0),
            heard: Cell::new(0),
            pings: Cell::new(0),
            settings_read: Cell::new(false),
            settings: Cell::new(false),
            driver: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Wakes the task when the peer has changed its settings, or the connection has ended.
    pub(super) fn wait(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }

    fn tell(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn poll_settings(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.closed.get() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        if self.settings.get() {
            return Poll::Ready(Ok(()));
        }
        self.wait(context);
        Poll::Pending
    }

    /// A mark in what has been heard, for [`Line::has_heard_since`].
    pub(super) fn mark(&self) -> Mark {
        Mark { heard: self.heard.get(), at: self.timers.now() }
    }

    fn has_heard_since(&self, mark: Mark) -> bool {
        self.heard.get() != mark.heard
    }

    /// A stream has waited for as long as it may: if nothing was heard since, of any stream, the connection is doubted.
    pub(super) fn handle_timeout(&self, since: Mark) {
        if !self.has_heard_since(since) && !self.doubted.replace(true) {
            let driver = self.driver.borrow();
            driver.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// A stream is given up that has waited since then: its client may have waited in vain as well.
    pub(super) fn handle_given_up(&self, since: Mark) {
        if since.at < self.timers.before(self.keepalive.timeout) {
            self.handle_timeout(since);
        }
    }
}

/// See [`Line::mark`].
#[derive(Clone, Copy)]
pub(super) struct Mark {
    heard: u64,
    at: Deadline,
}

/// The connection below the library: notes what comes.
struct Heard {
    stream: Stream,
    line: Rc<Line>,
    frames: Scanner,
}

impl AsyncRead for Heard {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, line, frames } = self.get_mut();
        let before = space.filled().len();
        ready!(Pin::new(stream).poll_read(context, space))?;
        let bytes = &space.filled()[before..];
        if !bytes.is_empty() {
            line.heard.set(line.heard.get() + 1);
            let first = !line.settings_read.get();
            let mut found = 0;
            frames.scan(bytes, |frame| {
                found += 1;
                match frame.kind {
                    // DATA, HEADERS.
                    0 | 1 => line.pings.set(0),
                    // GOAWAY.
                    7 => line.closed.set(true),
                    _ => {}
                }
            });
            // SETTINGS come first (RFC 9113, 3.4): what follows them tells that they are whole, or that nothing is missing.
            if first && (found > 1 || frames.is_between()) {
                line.settings_read.set(true);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// What the connection's timer runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: no stream waits.
    Rest,
    /// Something is to be heard, or a PING is sent.
    Quiet,
    /// Something is to be heard, or the connection is over.
    Pinged,
}

/// The task of a connection.
struct Driver {
    connection: h2::client::Connection<Heard, Bytes>,
    line: Rc<Line>,
    ping: Option<PingPong>,
    timer: Timer,
    phase: Phase,
    /// The library has a PING under way, and takes no other.
    pinging: bool,
    heard: u64,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.line.closed.set(true);
        self.line.tell();
    }
}

impl Driver {
    /// Ready once the connection is over; its streams are told when it is dropped.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let streams_max = self.connection.max_concurrent_send_streams();
        if Pin::new(&mut self.connection).poll(context).is_ready() {
            return Poll::Ready(());
        }
        let line = &self.line;
        let first = line.settings_read.get() && !line.settings.replace(line.settings_read.get());
        if first || self.connection.max_concurrent_send_streams() != streams_max {
            line.tell();
        }
        if self.is_dead(context) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sees to PINGs; `true`: nobody has answered.
    fn is_dead(&mut self, context: &mut Context<'_>) -> bool {
        if self.pinging && self.ping.as_mut().is_none_or(|ping| ping.poll_pong(context).is_ready()) {
            self.pinging = false;
        }
        let line = Rc::clone(&self.line);
        match &mut *line.driver.borrow_mut() {
            Some(waker) if waker.will_wake(context.waker()) => {}
            waker => *waker = Some(context.waker().clone()),
        }
        let heard = line.heard.get();
        if std::mem::replace(&mut self.heard, heard) != heard {
            line.doubted.set(false);
            self.phase = Phase::Rest;
        }
        let doubted = line.doubted.get();
        if line.streams.get() == 0 && !doubted {
            self.phase = Phase::Rest;
            return false;
        }
        match self.phase {
            Phase::Rest if !doubted => self.listen(),
            Phase::Rest | Phase::Quiet if doubted => self.send_ping(),
            Phase::Rest | Phase::Quiet | Phase::Pinged => {}
        }
        if !self.timer.poll_fired(context) {
            return false;
        }
        if self.phase == Phase::Pinged {
            return true;
        }
        self.send_ping();
        self.timer.poll_fired(context)
    }

    fn listen(&mut self) {
        self.phase = Phase::Quiet;
        let idle = self.line.keepalive.idle;
        let rests = !idle.is_zero() && self.line.pings.get() >= PINGS_AT_ONCE;
        // Zero is never.
        self.timer.set(if rests { idle.max(PING_REST) } else { idle });
    }

    fn send_ping(&mut self) {
        self.phase = Phase::Pinged;
        self.timer.set(self.line.keepalive.timeout);
        self.line.pings.set(self.line.pings.get().saturating_add(1));
        // One that is still to be answered asks for this one as well.
        if !self.pinging
            && let Some(ping) = &mut self.ping
        {
            self.pinging = ping.send_ping(Ping::opaque()).is_ok();
        }
    }
}
