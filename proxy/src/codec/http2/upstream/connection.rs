//! One HTTP/2 connection to a backend: its task, and how a dead connection is detected.
//!
//! A connection on which a stream has waited in vain, and nothing at all was received, is doubted: it gets no new streams, and a PING.
//! A byte ends the doubt; silence ends the connection, and with it all its streams.

use super::super::driver::{Driver as Socket, End};
use super::super::{Link, REST_TIME};
use crate::dispatcher::Dispatcher;
use crate::net::buffers::Buffer;
use crate::net::stream::Stream;
use crate::net::timer::{Deadline, Timer, Timers};
use crate::snapshot::connection_life::ConnectionLife;
use crate::snapshot::connection_slot::ConnectionSlot;
use ringway_config::model::{Keepalive, Pool, UpstreamFlood};
use ringway_http2::{Config, Connection as Codec, Event, FloodLimits, Reason, Role};
use ringway_message::{Limits, ResponseHead};
use ringway_telemetry::counters::Registry;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Streams on one connection, whatever its peer would allow: as many as `pool.streams_max` may be.
const STREAMS_MAX: u32 = 100;
/// Largest head of a response, and most fields in it.
const RESPONSE_LIMITS: Limits = Limits { head_bytes_max: 64 * 1024, fields_max: 256 };
/// Room for heads that a connection keeps, and bytes of each.
const HEADS_KEPT: usize = 4;
const HEAD_BYTES_KEPT: usize = 4 * 1024;
/// PINGs in a row that may go to a peer that sends neither heads nor data. gRPC's servers end a connection at the third that comes
/// within five minutes of the one before ("too_many_pings").
const PINGS_AT_ONCE: u32 = 2;
/// How long the next one waits.
const PING_REST: Duration = Duration::from_secs(300);
/// How long a connection that is dropped may take to write its GOAWAY.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// A connection that carries many streams. When nothing holds it any more, it sends GOAWAY and closes.
pub(crate) struct Connection {
    pub(super) link: Rc<Link>,
    pub(super) line: Rc<Line>,
    /// Over TLS.
    pub(super) secure: bool,
    /// Whether it has had a stream.
    pub(super) carried: Cell<bool>,
    pub(super) used: Cell<Deadline>,
    pub(super) life: Cell<ConnectionLife>,
    /// It had been given up for another, and serves on in want of that.
    pub(super) revived: Cell<bool>,
    /// Room for heads, which streams use in turn.
    heads: RefCell<Vec<(ResponseHead, Vec<u8>)>>,
}

/// What a backend may send.
fn flood_limits(flood: &UpstreamFlood) -> FloodLimits {
    FloodLimits {
        pings_max: flood.pings_max,
        window_updates_max: flood.window_updates_max,
        empty_data_max: flood.empty_data_max,
        ..FloodLimits::new(Role::Client)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.line.released.set(true);
        self.link.wake_driver();
    }
}

impl Connection {
    /// Begins HTTP/2 on a fresh connection, which is counted by its slot as long as it lives. It is usable once the peer's settings
    /// are known: they say how many streams it takes, and whether it takes extended CONNECT (RFC 8441, 3).
    pub(crate) async fn begin(
        stream: Stream,
        slot: ConnectionSlot,
        dispatcher: &Rc<Dispatcher>,
        keepalive: Keepalive,
        flood: UpstreamFlood,
    ) -> io::Result<Rc<Self>> {
        let (timers, life) = (&dispatcher.timers, Cell::new(slot.life));
        let secure = matches!(stream, Stream::Client(_));
        let slot = Rc::new(slot);
        let line = Rc::new(Line::new(timers, keepalive, Rc::downgrade(&slot)));
        let window = super::super::window_of_all(STREAMS_MAX);
        let config = Config {
            head: RESPONSE_LIMITS,
            streams_max: STREAMS_MAX,
            connection_window: window,
            connection_window_max: window,
            floods: flood_limits(&flood),
            ..Config::new(Role::Client)
        };
        let link = Link::new(Codec::new(config, Rc::clone(&dispatcher.http2_memory)));
        let socket = Socket::new(Rc::clone(&link), stream, Buffer::default(), dispatcher, false);
        let (timer, counters) = (timers.timer(), Arc::clone(&dispatcher.shared.counters));
        let mut driver =
            Driver { socket, line: Rc::clone(&line), timer, phase: Phase::Rest, heard: 0, messages: 0, counters };
        dispatcher.spawn("a shared connection to a backend", async move {
            let _slot = slot;
            // Its streams are notified of the end.
            poll_fn(|context| driver.poll(context)).await;
            driver.line.end();
            driver.socket.end_streams();
            driver.timer.set(GOODBYE_TIME);
            poll_fn(
                |context| {
                    if driver.timer.poll_fired(context) { Poll::Ready(()) } else { driver.socket.poll_close(context) }
                },
            )
            .await;
        });
        let used = Cell::new(timers.now());
        let (carried, revived, heads) = (Cell::new(false), Cell::new(false), RefCell::default());
        let this = Rc::new(Self { link, line, secure, carried, used, life, revived, heads });
        poll_fn(|context| this.line.poll_settings(context)).await?;
        Ok(this)
    }

    /// Whether one more stream can be sent at once, of those that the configuration allows.
    pub(crate) fn has_room(&self, limits: &Pool) -> bool {
        !self.line.closed.get() && !self.line.doubted.get() && self.line.streams.get() < self.streams_max(limits)
    }

    /// Counts one more stream.
    pub(super) fn count_request(&self) {
        let mut life = self.life.get();
        life.count_request();
        self.life.set(life);
    }

    /// Room for a response's head: the bytes, and the spans that point into them.
    pub(super) fn take_head(&self) -> (ResponseHead, Vec<u8>) {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Returns it. A connection keeps little of its busiest moment.
    pub(super) fn give_head(&self, head: (ResponseHead, Vec<u8>)) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS_KEPT && head.1.capacity() <= HEAD_BYTES_KEPT {
            heads.push(head);
        }
    }

    /// Streams at once, as the configuration and the peer allow.
    pub(super) fn streams_max(&self, limits: &Pool) -> usize {
        self.link.ask(Codec::streams_max).min(limits.streams_max as usize)
    }
}

/// State that a connection's task and its streams share.
pub(super) struct Line {
    timers: Rc<Timers>,
    keepalive: Keepalive,
    /// Its own, which is its task's.
    pub(super) slot: Weak<ConnectionSlot>,
    /// It takes no more streams: it has ended, or will once its open streams are over.
    pub(super) closed: Cell<bool>,
    pub(super) doubted: Cell<bool>,
    pub(super) streams: Cell<usize>,
    /// How often bytes have come.
    heard: Cell<u64>,
    /// PINGs since the last head or data.
    pings: Cell<u32>,
    /// Nothing holds it any more.
    released: Cell<bool>,
    /// Whether the peer's first settings have come.
    settings: Cell<bool>,
    /// Wakes the task when the connection is doubted.
    driver: RefCell<Option<Waker>>,
    /// Wakers of the tasks that wait for events of the connection itself.
    waiting: RefCell<Vec<Waker>>,
}

impl Line {
    fn new(timers: &Rc<Timers>, keepalive: Keepalive, slot: Weak<ConnectionSlot>) -> Self {
        Self {
            timers: Rc::clone(timers),
            keepalive,
            slot,
            closed: Cell::new(false),
            doubted: Cell::new(false),
            streams: Cell::new(0),
            heard: Cell::new(0),
            pings: Cell::new(0),
            released: Cell::new(false),
            settings: Cell::new(false),
            driver: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Wakes the task when the peer has changed its settings, or the connection has ended.
    fn wait(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }

    /// It takes no more streams.
    fn end(&self) {
        self.close();
        self.tell();
    }

    fn close(&self) {
        self.closed.set(true);
        self.leave();
    }

    /// It gets no new streams, and is closed once those that it has are over.
    pub(super) fn leave(&self) {
        self.slot.upgrade().iter().for_each(|slot| slot.begin_ending());
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

    /// A mark in what has been received, for [`Line::has_heard_since`].
    pub(super) fn mark(&self) -> Mark {
        Mark { heard: self.heard.get(), at: self.timers.now() }
    }

    fn has_heard_since(&self, mark: Mark) -> bool {
        self.heard.get() != mark.heard
    }

    /// A stream has waited for as long as it may: if nothing was received since, on any stream, the connection is doubted.
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

/// What the connection's timer runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: no stream waits.
    Rest,
    /// There is no stream. It runs on from its last use, until the connection frees what only a busy one needs.
    Idle,
    /// Something must be received, or a PING is sent.
    Quiet,
    /// Something must be received, or the connection is over.
    Pinged,
}

/// The task of a connection.
struct Driver {
    socket: Socket,
    line: Rc<Line>,
    timer: Timer,
    phase: Phase,
    heard: u64,
    /// How often a head or data have come.
    messages: u64,
    counters: Arc<Registry>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.line.end();
    }
}

impl Driver {
    /// Ready once the connection is over, but for its closing.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let line = Rc::clone(&self.line);
        let handle = |event: Event| match event {
            Event::Settings => {
                line.settings.set(true);
                line.tell();
            }
            Event::GoAway { .. } => line.close(),
            Event::Request { .. }
            | Event::Response { .. }
            | Event::Data { .. }
            | Event::Trailers { .. }
            | Event::End { .. }
            | Event::Writable { .. }
            | Event::Reset { .. }
            | Event::Capacity
            | Event::Pong(_) => {}
        };
        if let Poll::Ready(end) = self.socket.poll_read(context, handle) {
            if let End::Broken(error) = end {
                tracing::debug!(%error, "a backend's HTTP/2 is broken");
                error.flood.into_iter().for_each(|flood| self.counters.error("", flood));
            }
            return Poll::Ready(());
        }
        if self.is_dead(context) {
            return Poll::Ready(());
        }
        let idle = self.line.streams.get() == 0;
        if self.line.released.get() || self.line.closed.get() && idle {
            self.socket.link.codec.borrow_mut().go_away(false, Reason::NoError);
            return Poll::Ready(());
        }
        match self.socket.poll_write(context) {
            Ok(_) => Poll::Pending,
            Err(()) => Poll::Ready(()),
        }
    }

    /// Handles PINGs; `true`: the peer has not responded.
    fn is_dead(&mut self, context: &mut Context<'_>) -> bool {
        let line = Rc::clone(&self.line);
        match &mut *line.driver.borrow_mut() {
            Some(waker) if waker.will_wake(context.waker()) => {}
            waker => *waker = Some(context.waker().clone()),
        }
        if std::mem::replace(&mut self.heard, self.socket.heard) != self.socket.heard {
            line.heard.set(self.socket.heard);
            let messages = self.socket.link.ask(Codec::heard_messages);
            if std::mem::replace(&mut self.messages, messages) != messages {
                line.pings.set(0);
            }
            line.doubted.set(false);
            self.phase = Phase::Rest;
        }
        let doubted = line.doubted.get();
        if line.streams.get() == 0 && !doubted {
            let before = std::mem::replace(&mut self.phase, Phase::Idle);
            if before != Phase::Idle && line.keepalive.idle.is_zero() {
                // The timer has not run.
                self.timer.set(REST_TIME);
            }
            if self.timer.poll_fired(context) {
                self.socket.link.codec.borrow_mut().shrink();
            }
            return false;
        }
        match self.phase {
            Phase::Rest | Phase::Idle if !doubted => self.listen(),
            Phase::Rest | Phase::Idle | Phase::Quiet if doubted => self.send_ping(),
            Phase::Rest | Phase::Idle | Phase::Quiet | Phase::Pinged => {}
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
        self.socket.link.codec.borrow_mut().ping(*b"ringway!");
    }
}
