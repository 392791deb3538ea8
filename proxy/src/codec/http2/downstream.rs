//! HTTP/2 towards clients (RFC 9113): the connection, and each of its streams as a client of its own.

use super::driver::{Driver, End, UNWRITTEN_MAX};
use super::{Link, REST_TIME, Stream};
use crate::codec::end::{ClientEnd, Gone, Source};
use crate::codec::grpc;
use crate::codec::local_reply::LocalReply;
use crate::codec::tunnel::Duplex;
use crate::downstream::http1::{self, Client, Peer};
use crate::net::buffers::Buffer;
use crate::net::timer::Timer;
use crate::worker::{OpenConnection, View, Worker};
use ringway_http1::{Encoding, Progress};
use ringway_http2::hpack::encode;
use ringway_http2::{Config, Connection as Codec, Event, HeadKind, Reason, Role, StreamKey};
use ringway_message::{BodyLength, HeadWriter, Limits, Method, ParseError, RequestHead};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a peer may take to close after us.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How long a peer may take to say that it has heard GOAWAY, and to take what is queued for it, once no stream is served.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How many streams are served, and the timer that runs while none is.
struct Activity {
    streams: Cell<usize>,
    /// How often one has begun or ended.
    turns: Cell<u64>,
    timer: Timer,
    /// How long it runs then: less once the connection ends.
    idle: Cell<Duration>,
    /// It runs for a first part of that, after which the connection gives back what only a busy one needs: what comes after.
    rest: Cell<Option<Duration>>,
}

impl Activity {
    /// No stream is served.
    fn idle(&self) {
        let idle = self.idle.get();
        // Zero is for ever.
        let rest = (idle.is_zero() || idle > REST_TIME).then(|| idle.saturating_sub(REST_TIME));
        self.rest.set(rest);
        self.timer.set(if rest.is_some() { REST_TIME } else { idle });
    }
}

/// A stream that is served.
struct Active(Rc<Activity>);

impl Active {
    fn begin(activity: &Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        activity.turns.set(activity.turns.get() + 1);
        Self(Rc::clone(activity))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.turns.set(self.0.turns.get() + 1);
        if self.0.streams.get() == 0 {
            self.0.idle();
        }
    }
}

/// A client's connection.
struct Serving {
    driver: Driver,
    open: Rc<OpenConnection>,
    peer: Rc<Peer>,
    activity: Rc<Activity>,
    /// Whether the client's first SETTINGS have come: it speaks HTTP/2, and may idle.
    begun: bool,
    /// Whether a request has come.
    asked: bool,
    /// It has sent more than anybody may of something.
    floods: bool,
    /// The client has been told to go.
    closing: bool,
    /// On a listener that goes: when the client is told, at the latest, and the turns at that time.
    leave: Option<(Timer, u64)>,
}

/// Serves a connection to its end. What has been read of it already comes first.
pub(crate) async fn serve(
    open: Rc<OpenConnection>,
    stream: crate::net::stream::Stream,
    read: Buffer,
    peer: Rc<Peer>,
    view: &Rc<View>,
    listener: usize,
) {
    let worker = Rc::clone(&open.worker);
    let http = http1::http_of(view, listener);
    let timer = worker.timer();
    timer.set(http.timeouts.head);
    let idle = Cell::new(http.timeouts.idle);
    let activity = Activity { streams: Cell::new(0), turns: Cell::new(0), timer, idle, rest: Cell::new(None) };
    let activity = Rc::new(activity);
    let config = Config {
        head: Limits { head_bytes_max: http.head_bytes_max, fields_max: http.fields_max },
        streams_max: http.h2.streams_max,
        // That of all streams: stalled ones take nothing from others.
        connection_window: super::window_of_all(http.h2.streams_max),
        connection_window_max: super::window_of_all(http.h2.streams_max),
        extended_connect: http.h2.extended_connect,
        ..Config::new(Role::Server)
    };
    let link = Link::new(Codec::new(config, Rc::clone(&worker.http2_memory)));
    let driver = Driver::new(link, stream, read, &worker, true);
    let mut serving = Serving {
        driver,
        open,
        peer,
        activity,
        begun: false,
        asked: false,
        floods: false,
        closing: false,
        leave: None,
    };
    poll_fn(|context| serving.poll(context)).await;
    let Serving { mut driver, floods, .. } = serving;
    driver.end_streams();
    let linger = worker.timer();
    linger.set(LINGER_TIME);
    // Looked at first: a peer that reads nothing keeps TLS from saying goodbye.
    poll_fn(|context| match linger.poll_fired(context) {
        true => Poll::Ready(()),
        false if floods => driver.poll_hold(context),
        false => driver.poll_close(context),
    })
    .await;
}

impl Serving {
    /// Ready once the connection is over, but for its goodbye.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { driver, open, peer, activity, asked, .. } = self;
        let link = Rc::clone(&driver.link);
        let handle = |event: Event| match event {
            Event::Request { key, fault } => {
                *asked = true;
                begin(&link, key, fault, open, peer, activity);
            }
            // The client's own goodbye: what it has asked for is answered.
            Event::Response { .. }
            | Event::Data { .. }
            | Event::Trailers { .. }
            | Event::End { .. }
            | Event::Writable { .. }
            | Event::Reset { .. }
            | Event::Capacity
            | Event::Settings
            | Event::GoAway { .. }
            | Event::Pong(_) => {}
        };
        let ended = driver.poll_read(context, handle);
        if let Poll::Ready(end) = ended {
            if let End::Broken(error) = end
                && let Some(flood) = error.flood
            {
                self.open.worker.shared.cells.error("", flood);
                self.floods = true;
            }
            return Poll::Ready(());
        }
        if self.poll_leave(context).is_ready() {
            return Poll::Ready(());
        }
        match self.driver.poll_write(context) {
            Err(()) => Poll::Ready(()),
            Ok(true) if self.closing && self.driver.link.ask(Codec::is_over) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Tells the client to go, where it is time for that. Ready once it has had the time to.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { driver, open, activity, begun, asked, closing, leave, .. } = self;
        let link = &driver.link;
        if !*begun && link.ask(Codec::settings_came) {
            *begun = true;
            activity.idle();
        }
        // Polled in any case: it is also what wakes this task when the worker drains.
        let mut fired = activity.timer.poll_fired(context);
        if !*begun {
            // It has not said a word of HTTP/2.
            return if fired { Poll::Ready(()) } else { Poll::Pending };
        }
        if fired && activity.streams.get() > 0 {
            // It runs for nothing as long as streams are served; one that has fired would wake nobody.
            activity.timer.set(activity.idle.get());
            fired = activity.timer.poll_fired(context);
        } else if fired && let Some(rest) = activity.rest.take() {
            link.codec.borrow_mut().shrink();
            activity.timer.set(rest);
            fired = activity.timer.poll_fired(context);
        }
        let idle = fired;
        if *closing {
            // The last goodbye has been said: a peer that does not close is left.
            return if idle { Poll::Ready(()) } else { Poll::Pending };
        }
        let told = open.is_closing() && {
            let (timer, turns) = leave.get_or_insert_with(|| {
                let timer = open.worker.timer();
                timer.shorten(open.leave_after(*asked));
                (timer, activity.turns.get())
            });
            // A busy one is told along with its next answer.
            timer.poll_fired(context) || *turns != activity.turns.get()
        };
        if told || idle {
            *closing = true;
            link.codec.borrow_mut().go_away(true, Reason::NoError);
            activity.idle.set(CLOSE_TIME);
            activity.rest.set(None);
            activity.timer.set(CLOSE_TIME);
            // One that has fired wakes nobody until it is asked again.
            activity.timer.poll_fired(context);
        }
        Poll::Pending
    }
}

/// Serves a stream, as a client of its own.
fn begin(
    link: &Rc<Link>,
    key: StreamKey,
    fault: Option<ParseError>,
    open: &Rc<OpenConnection>,
    peer: &Rc<Peer>,
    activity: &Rc<Activity>,
) {
    let stream = Stream::new(link, key);
    let active = Active::begin(activity);
    let job = Job { stream, fault, open: Rc::clone(open), peer: Rc::clone(peer), active };
    open.worker.streams.serve(&open.worker, job);
}

/// A stream to be served.
struct Job {
    stream: Stream,
    fault: Option<ParseError>,
    open: Rc<OpenConnection>,
    peer: Rc<Peer>,
    active: Active,
}

/// Tasks that serve streams, one after the other: a task is some kilobytes, which are not taken and given back for each
/// stream.
#[derive(Default)]
pub(crate) struct StreamTasks(Rc<RefCell<Vec<Rc<StreamTask>>>>);

/// A task that waits for its next stream.
#[derive(Default)]
struct StreamTask {
    job: RefCell<Option<Job>>,
    /// There is no next one.
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl StreamTask {
    /// Waits for the next job; `None`: there is none.
    fn poll_job(&self, context: &Context<'_>) -> Poll<Option<Job>> {
        let job = self.job.take();
        if job.is_some() || self.is_over.get() {
            return Poll::Ready(job);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        self.waker.borrow().iter().for_each(Waker::wake_by_ref);
    }
}

/// Tasks that wait, at most, per worker.
const TASKS_KEPT: usize = 1024;

impl StreamTasks {
    fn serve(&self, worker: &Worker, job: Job) {
        let idle = self.0.borrow_mut().pop();
        if let Some(task) = idle {
            *task.job.borrow_mut() = Some(job);
            task.wake();
            return;
        }
        let task = Rc::new(StreamTask { job: RefCell::new(Some(job)), ..StreamTask::default() });
        worker.spawn("a stream of HTTP/2", run_streams(Rc::clone(&self.0), task));
    }

    /// Those that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.borrow().len()
    }

    /// Lets go of half of those that wait.
    pub(crate) fn trim(&self) {
        let mut idle = self.0.borrow_mut();
        let keep = idle.len() / 2;
        for task in idle.drain(keep..) {
            task.is_over.set(true);
            task.wake();
        }
    }
}

async fn run_streams(idle: Rc<RefCell<Vec<Rc<StreamTask>>>>, task: Rc<StreamTask>) {
    // All in one future: what is awaited inside is not moved.
    while let Some(job) = poll_fn(|context| task.poll_job(context)).await {
        let Job { stream, fault, open, peer, active } = job;
        if let Some((view, listener)) = open.worker.listener(&open.gate) {
            let mut client = Client::new(open, ClientEnd::Http2(Downstream::new(stream)), peer, &view, listener);
            client.serve_stream(fault, &view, listener).await;
        } else {
            // Nobody has looked at it: it may be sent elsewhere.
            stream.reset(Reason::RefusedStream);
        }
        drop(active);
        if idle.borrow().len() >= TASKS_KEPT {
            return;
        }
        idle.borrow_mut().push(Rc::clone(&task));
    }
}

/// A client's stream: its request, and the response to it.
pub(crate) struct Downstream {
    stream: Stream,
    /// What of the request's data has not been taken, if its length is known.
    left: Option<u64>,
    /// It is a tunnel, or asks to be one: its bytes are no body.
    tunnel: bool,
    /// A call of gRPC, whose errors are told in its own way.
    grpc: bool,
    /// An answer of ours has no body, and says nothing of one.
    bodiless: bool,
    /// All of the response has been said.
    ended: bool,
}

impl Downstream {
    fn new(stream: Stream) -> Self {
        Self { stream, left: None, tunnel: false, grpc: false, bodiless: false, ended: false }
    }

    /// Whether the client takes so little of what waits for it, of whatever stream, that it is not read on either.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.stream.link.ask(|codec| codec.output().len()) > UNWRITTEN_MAX
    }

    /// Whether it asks to be a tunnel: any success says that it is one (RFC 8441, 5).
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Nothing is known of the request but that it is refused, perhaps not even its method: the answer has no body.
    pub(crate) fn handle_fault(&mut self) {
        self.bodiless = true;
    }

    /// Whether the client has taken it back.
    pub(crate) fn is_gone(&self) -> bool {
        self.stream.ended().is_some()
    }

    /// Ready once the client has taken it back, or its connection has ended.
    pub(crate) fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        self.stream.poll_ended(context).map(|_| ())
    }

    /// Takes the request's head.
    pub(crate) fn take_request(&mut self, head: &mut RequestHead, arena: &mut Vec<u8>) -> bool {
        if !self.stream.take_request(head, arena) {
            return false;
        }
        head.head_len = arena.len();
        if let Some(protocol) = head.protocol {
            // An extended CONNECT is an upgrade elsewhere (RFC 8441, 5).
            self.tunnel = true;
            (head.method, head.upgrade, head.body) = (Method::Get, Some(protocol), BodyLength::None);
        }
        self.left = match head.body {
            BodyLength::None => Some(0),
            BodyLength::Sized(length) => Some(length),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        self.grpc = grpc::is_grpc(arena, head);
        true
    }

    /// Ready once more of the request has come, or its end.
    pub(crate) fn poll_more(&self, context: &Context<'_>) -> Poll<Result<(), Gone>> {
        self.stream.poll_more(context).map(|more| more.map_err(|_| Gone))
    }

    /// Sends a head whose lines stand in `head`. `ends`: nothing follows it.
    pub(crate) fn send_head(
        &mut self,
        status: u16,
        head: &HeadWriter,
        ends: bool,
        block: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        block.clear();
        encode::status(block, status);
        write_lines(head, block);
        let kind = if status < 200 { HeadKind::Informational } else { HeadKind::Final };
        self.ended |= ends;
        self.stream.send_head(block, kind, ends)
    }

    /// Sends data of the response; `ends`: once all of it is taken, nothing follows.
    pub(crate) fn poll_send(&mut self, bytes: &[u8], ends: bool, context: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let sent = self.stream.poll_send(bytes, ends, context);
        self.ended |= ends && matches!(sent, Poll::Ready(Ok(count)) if count == bytes.len());
        sent
    }

    /// Whether all of the response has been said.
    pub(crate) fn is_answered(&self) -> bool {
        self.ended
    }

    /// Ends the response, perhaps with trailers.
    pub(crate) fn end(&mut self, trailers: &HeadWriter, block: &mut Vec<u8>) -> Result<(), Gone> {
        self.ended = true;
        if trailers.lines().is_empty() {
            return self
                .stream
                .link
                .tell(|codec| codec.send_data(self.stream.key, b"", true))
                .map(|_| ())
                .map_err(|_| Gone);
        }
        block.clear();
        write_lines(trailers, block);
        self.stream.send_head(block, HeadKind::Trailers, true)
    }

    /// Sends an answer of ours: in the form that clients of gRPC read, where this is one.
    pub(crate) fn answer(&mut self, answer: LocalReply, head: &HeadWriter, block: &mut Vec<u8>) -> Result<bool, Gone> {
        let named = |name: &[u8]| {
            let mut lines = head.lines().iter();
            lines.find(|line| line.name.of(head.text()) == name).map(|line| line.value.of(head.text()))
        };
        let Some(reason) = named(b"x-ringway-reason").filter(|_| self.grpc) else {
            if self.bodiless {
                block.clear();
                encode::status(block, answer.status);
                let told = |name: &[u8]| !matches!(name, b"content-length" | b"content-type");
                for line in head.lines().iter().filter(|line| told(line.name.of(head.text()))) {
                    encode::field(block, line.name.of(head.text()), line.value.of(head.text()), false);
                }
                self.ended = true;
                return self.stream.send_head(block, HeadKind::Final, true).map(|()| true);
            }
            let ends = head.text().len() == answer.body_from;
            return self.send_head(answer.status, head, ends, block).map(|()| ends);
        };
        block.clear();
        // Who reads gRPC looks at its own status.
        encode::status(block, 200);
        for line in head.lines() {
            let name = line.name.of(head.text());
            if !matches!(name, b"content-length" | b"content-type") {
                encode::field(block, name, line.value.of(head.text()), false);
            }
        }
        encode::field(block, b"content-type", b"application/grpc", false);
        encode::field(block, b"grpc-status", grpc::grpc_status(answer.status).as_bytes(), false);
        encode::field(block, b"grpc-message", reason, false);
        self.ended = true;
        self.stream.send_head(block, HeadKind::Final, true)?;
        Ok(true)
    }

    /// What has been sent is cut off: the client must see that.
    pub(crate) fn abort(&self) {
        // RFC 9113, 8.5: what has broken off behind a tunnel.
        self.stream.reset(if self.tunnel { Reason::ConnectError } else { Reason::InternalError });
    }
}

/// Encodes lines as they stand.
fn write_lines(head: &HeadWriter, block: &mut Vec<u8>) {
    for line in head.lines() {
        encode::field(block, line.name.of(head.text()), line.value.of(head.text()), line.sensitive);
    }
}

impl Source for Downstream {
    fn is_over(&self) -> bool {
        self.tunnel || self.left == Some(0) || self.stream.is_drained()
    }

    fn is_finished(&self) -> bool {
        self.tunnel || self.stream.is_drained() && !self.stream.has_trailers()
    }

    fn ends_here(&self) -> bool {
        self.stream.is_received() && self.stream.shows_all() && !self.stream.has_trailers()
    }

    fn left(&self) -> Option<u64> {
        self.left
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        Some(self.stream.with_data(doing))
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        self.stream.consume(count);
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        let progress = self.stream.transfer(out, encoding, keep);
        self.left = self.left.map(|left| left.saturating_sub(progress.data as u64));
        Ok(progress)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.tunnel { Poll::Ready(Ok(())) } else { self.stream.poll_end(context) }
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        self.stream.write_trailers(out, keep);
    }
}

impl Duplex for Downstream {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_fill(buffer, context)
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_more(context).map(|more| more.map_err(super::reset_error))
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_send(bytes, false, context).map_err(super::gone_error)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        self.stream.poll_send(b"", true, context).map_ok(|_| ()).map_err(super::gone_error)
    }

    fn poll_drive(&mut self, _: &mut Context<'_>) {}

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_ended(context).map(|_| ())
    }
}
