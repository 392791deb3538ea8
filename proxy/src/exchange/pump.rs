//! A request's bytes up, its answer's bytes down.
//!
//! Both directions are driven by one task: [`Exchange`] is two small state machines over two ends, polled together,
//! so that a body can still be going up while its answer comes down.

use super::attempt::{Attempt, Part};
use super::{Next, wish};
use crate::ambient;
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::http1::Http1;
use crate::codec::source::Source;
use crate::codec::tunnel::{self, Duplex, Way};
use crate::error::ProxyError;
use crate::exchange::client::Client;
use crate::exchange::compress::Compressor;
use crate::exchange::request::Request;
use crate::net::buffers::Buffer;
use crate::net::timer::Deadline;
use crate::upstream::in_flight::InFlight;
use ringway_health::Outcome;
use ringway_http1::{Body, Encoding};
use ringway_message::{HeadWriter, Limits, ResponseHead};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

mod deliver;
mod head;
mod pace;
mod upload;

use deliver::Delivered;
use pace::Pace;

/// Interim answers (1xx) that a backend may send before the real one.
pub(super) const INTERIM_MAX: u32 = 16;
/// An answer no longer than this waits for its last byte, for a moment, before its first is passed on: it then goes out
/// in one write, and one that is cut off can still become a 502 or a retry.
const WHOLE_BYTES_MAX: u64 = 12 * 1024;
/// That moment.
const WHOLE_WAIT: Duration = Duration::from_millis(50);
/// After so many bytes, an answer is read in long strides.
const BULK_BYTES: u64 = 64 * 1024;
/// And at once, when so many are known to come.
const LONG_BYTES: u64 = 24 * 1024;
/// Largest head of an answer, and most fields in it.
pub(super) const ANSWER_LIMITS: Limits = Limits { head_bytes_max: 64 * 1024, fields_max: 256 };

/// Why a try ended without an answer.
pub(super) enum TryError {
    /// The backend's fault: another may be tried.
    Upstream(ProxyError),
    /// The client's fault: there is nobody left to answer, or nothing to send.
    Downstream(ProxyError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Sending,
    Done,
    /// The backend takes no more of it, but may still answer.
    Broken,
}

pub(super) struct Exchange<'a> {
    pub(super) client: &'a mut Client,
    pub(super) request: &'a mut Request,
    pub(super) attempt: Attempt,
    /// What the upstream has sent has been read by another: it is to be looked at before more is read.
    unseen: bool,
    /// End of this try; once its answer has begun, of the whole exchange.
    limit: Deadline,
    /// How much of `request.out` has been written.
    sent: usize,
    /// Chunks of the request's body on their way up, and how much of them has been written.
    chunks: Vec<u8>,
    chunks_sent: usize,
    upload: Upload,
    /// Whether the upload waits for the client rather than for the backend.
    starved: bool,
    /// Whether anything of the request's body has been read here.
    body_begun: bool,
    /// Whether bytes have moved up since that was last looked at.
    upload_moved: bool,
    upload_pace: Pace,
    /// Bytes on their way down, and how much of them has been written: a head, and what of the body has joined it.
    answer: HeadWriter,
    answered: usize,
    /// How much of it is the final head; over HTTP/2, whether that has been sent.
    head_len: usize,
    head_sent: bool,
    /// How much of it is interim answers.
    interim_bytes: usize,
    pub(super) status: u16,
    encoding: Encoding,
    /// The end of a body in chunks is on its way.
    terminated: bool,
    /// The body is compressed on its way.
    compressor: Option<Box<Compressor>>,
    delivered: u64,
    upstream_keep_alive: bool,
    client_keep_alive: bool,
    /// The answer waits to be whole.
    holding: bool,
    /// What an answer of 429 or 503 asks for.
    pub(super) retry_after: Option<Duration>,
    /// The backend's place, and what is told of it, until its part of the exchange is over.
    place: Option<Place>,
}

/// A backend that is passing its answer on.
struct Place {
    guard: InFlight,
    /// Until it is told.
    outcome: Option<Outcome>,
    upstream: Rc<crate::worker::Upstream>,
}

impl Place {
    fn report(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.guard.report(outcome);
        }
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(client: &'a mut Client, request: &'a mut Request, attempt: Attempt, limit: Deadline) -> Self {
        let total = request.planned.http(request.listener).timeouts.body_total;
        let upload_pace = Pace::new(&client.timer, total);
        // From here on it is being sent.
        request.replayable = request.is_resendable();
        Self {
            limit,
            client,
            request,
            attempt,
            unseen: false,
            sent: 0,
            chunks: Vec::new(),
            chunks_sent: 0,
            upload: Upload::Sending,
            starved: false,
            body_begun: false,
            upload_moved: false,
            upload_pace,
            answer: HeadWriter::default(),
            answered: 0,
            head_len: 0,
            head_sent: false,
            interim_bytes: 0,
            status: 0,
            encoding: Encoding::Identity,
            terminated: false,
            compressor: None,
            delivered: 0,
            upstream_keep_alive: false,
            client_keep_alive: false,
            holding: false,
            retry_after: None,
            place: None,
        }
    }

    fn client_timeouts(&self) -> &ringway_config::model::ClientTimeouts {
        &self.request.planned.http(self.request.listener).timeouts
    }

    fn timeouts(&self) -> &ringway_config::model::UpstreamTimeouts {
        &self.request.view.services[self.request.service].service.config.timeouts
    }

    /// Sends the request and waits until the answer can be passed on.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TryError>> {
        let polled = self.poll_try(context);
        if let Poll::Ready(Err(TryError::Upstream(error))) = &polled
            && !matches!(error, ProxyError::ResponseTimeout)
        {
            // How soon a try fails is no measure of how soon it would have been answered.
            self.attempt.clock.forget();
        }
        polled
    }

    fn poll_try(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TryError>> {
        if let Err(error) = self.poll_upload(context) {
            return Poll::Ready(Err(error));
        }
        if self.upload == Upload::Sending && !self.holding {
            self.pace_upload();
        }
        loop {
            let read = if std::mem::take(&mut self.unseen) {
                Poll::Ready(Ok(()))
            } else {
                let part = if self.holding { Part::Body } else { Part::Head };
                self.attempt.poll_read(self.status != 0, part, &self.client.open.worker, context)
            };
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let unsendable = self.attempt.end.failure().unsendable.map(TryError::Downstream);
                    return Poll::Ready(Err(unsendable.unwrap_or(TryError::Upstream(error))));
                }
                Poll::Pending => break,
            }
            match self.take_answer() {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(TryError::Upstream(error))),
            }
        }
        self.attempt.end.poll_drive(context);
        // Interim answers go out at once.
        if self.status == 0 && self.poll_send_answer(context).is_err() {
            return Poll::Ready(Err(TryError::Downstream(ProxyError::ClientClosed)));
        }
        if self.poll_left(context, self.request.may_half_close()).is_ready() {
            return Poll::Ready(Err(TryError::Downstream(ProxyError::ClientClosed)));
        }
        while self.client.timer.poll_fired(context) {
            if self.holding {
                // Long enough: what is there goes out, the rest follows as it comes.
                self.holding = false;
                return Poll::Ready(Ok(()));
            }
            if self.upload != Upload::Sending {
                self.handle_timeout();
                return Poll::Ready(Err(TryError::Upstream(ProxyError::ResponseTimeout)));
            }
            if let Some(error) = self.upload_timed_out() {
                if matches!(error, TryError::Upstream(_)) {
                    self.handle_timeout();
                }
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    /// Whether the client has left. One that the upload waits for is read from there.
    pub(super) fn poll_left(&mut self, context: &mut Context<'_>, may_end: bool) -> Poll<()> {
        if self.upload == Upload::Sending && self.starved {
            return Poll::Pending;
        }
        self.client.presence(may_end).0.poll_left(context)
    }

    /// The backend has not done in time what it had to: perhaps because the way to it is gone, and not for this exchange alone.
    fn handle_timeout(&self) {
        let this = &self.request.view.services[self.request.service];
        let upstream = self.request.report.backend.map(|backend| &*this.upstreams[backend]);
        self.attempt.handle_timeout(self.status != 0, upstream, &self.client.open.worker);
    }

    /// Looks at what has come. `Ok(true)`: the answer can be passed on now.
    fn take_answer(&mut self) -> Result<bool, ProxyError> {
        if self.holding {
            return self.take_held_body();
        }
        loop {
            match self.take_head()? {
                None => return Ok(false),
                Some(head::Kind::Interim) => {}
                Some(head::Kind::Final) => break,
            }
            if self.attempt.end.is_http2() {
                // The next one is asked for.
                return Ok(false);
            }
        }
        self.take_body()?;
        if let Some(left) = self.attempt.end.left()
            && left > 0
            && self.delivered + left <= WHOLE_BYTES_MAX
            && self.compressor.is_none()
        {
            self.holding = true;
            self.client.timer.set_before(WHOLE_WAIT, self.limit);
            return Ok(false);
        }
        Ok(true)
    }

    /// What has come of a short body joins its head. `Ok(true)`: all of it has.
    fn take_held_body(&mut self) -> Result<bool, ProxyError> {
        self.take_body()?;
        let whole = self.attempt.end.is_over();
        if whole {
            self.holding = false;
        }
        Ok(whole)
    }

    /// Moves body bytes from the backend behind what is already on its way down.
    fn take_body(&mut self) -> Result<(), ProxyError> {
        if self.status == 101 || self.is_body_done() {
            return Ok(());
        }
        let (end, out) = (&mut self.attempt.end, self.answer.text_mut());
        let progress = match &mut self.compressor {
            None => end.transfer(out, self.encoding, |_| true).map_err(ProxyError::UnfitAnswer)?,
            Some(compressor) => compressor.transfer(end, out)?,
        };
        self.delivered += progress.data as u64;
        self.terminated |= progress.done;
        Ok(())
    }

    /// Whether all of the body is on its way down, and in chunks its end as well.
    fn is_body_done(&self) -> bool {
        match (&self.compressor, self.encoding) {
            (Some(compressor), _) => compressor.has_ended(),
            (None, Encoding::Chunked) => self.terminated,
            (None, Encoding::Identity) => self.attempt.end.is_over(),
        }
    }

    /// The answer can be passed on: this is the backend's place, and what the passive detector is to hear.
    pub(super) fn take_place(&mut self, guard: InFlight, upstream: &Rc<crate::worker::Upstream>, outcome: Outcome) {
        self.place = Some(Place { guard, outcome: Some(outcome), upstream: Rc::clone(upstream) });
    }

    /// The answer is perhaps not passed on, because another try follows: the detector hears of it at once, and where the backend has
    /// said all, it is free.
    pub(super) fn handle_unwanted(&mut self) {
        if self.is_read_to_its_end() {
            self.settle();
        } else if let Some(place) = &mut self.place {
            place.report();
        }
    }

    /// Passes the answer on, and settles both connections.
    pub(super) async fn finish(&mut self) -> (u16, Option<ProxyError>, Next) {
        // The answer has begun: nothing is sent again.
        self.request.replayable = false;
        if self.sent == self.request.out.len() {
            self.request.forget();
            self.sent = self.request.out.len();
        }
        self.limit = self.request.limit;
        let mut pace = Pace::new(&self.client.timer, self.client_timeouts().write_total);
        let delivered = poll_fn(|context| self.poll_deliver(&mut pace, context)).await;
        let status = self.status;
        let (error, next) = match delivered {
            Delivered::Whole if status == 101 => {
                if let Some(place) = &mut self.place {
                    place.report();
                }
                self.tunnel().await;
                (None, Next::Abort)
            }
            Delivered::Whole => {
                let next = match (self.client_keep_alive && self.upload == Upload::Done, self.upload) {
                    (true, _) => Next::Request,
                    (false, Upload::Done) if self.has_nothing_ahead() => Next::Close,
                    (false, _) => Next::Linger,
                };
                if self.attempt.end.is_http2() {
                    self.attempt.end = BackendEnd::Returned;
                }
                self.settle();
                (None, next)
            }
            Delivered::CutOff(error) => {
                if let Some(place) = &self.place {
                    place.guard.report_error(error);
                }
                // The client must not take half an answer for a whole one: reset instead of a plain end.
                self.client.end.abort();
                (Some(error), Next::Abort)
            }
            Delivered::ClientGone => (Some(ProxyError::ClientClosed), Next::Abort),
            Delivered::ClientStalled => {
                // What the kernel still holds for it goes at once.
                self.client.end.abort();
                (Some(ProxyError::ClientStalled), Next::Abort)
            }
        };
        self.release_buffers();
        (status, error, next)
    }

    /// Whether the client has sent nothing that stands behind its request.
    fn has_nothing_ahead(&self) -> bool {
        match &self.client.end {
            ClientEnd::Http1(http1) => http1.input.is_empty(),
            ClientEnd::Http2(_) => true,
        }
    }

    /// Whether all of the answer has been read, so that nothing is left for the backend to do, whatever the client has of it.
    fn is_read_to_its_end(&self) -> bool {
        let is_read = match &self.attempt.end {
            BackendEnd::Http1(Http1 { input, body, .. }) => match *body {
                Body::Sized(left) => left <= input.len() as u64,
                _ => body.is_end(),
            },
            BackendEnd::Http2(upstream) => upstream.is_received(),
            BackendEnd::Returned => true,
        };
        is_read && self.upload == Upload::Done && self.status != 101
    }

    /// The backend's part is over: its connection is free for others, and so is its place, in this order. Who has the end of the
    /// answer may rely on it.
    fn settle(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        place.report();
        let Place { guard: _guard, upstream, .. } = place;
        let BackendEnd::Http1(Http1 { input, body, .. }) = &self.attempt.end else { return };
        let left = if let Body::Sized(left) = *body { left } else { 0 };
        let clean = self.upload == Upload::Done && input.len() as u64 == left;
        let config = &self.request.view.services[self.request.service].service.config;
        // A PROXY header has told the backend of this client: no other's requests go there.
        let keeps = clean && self.upstream_keep_alive && config.proxy_protocol.is_none();
        self.attempt.give_back(keeps, &upstream, config.pool.idle_max, &self.client.open.worker);
    }

    /// Both connections are one tunnel now.
    async fn tunnel(&mut self) {
        let worker = Rc::clone(&self.client.open.worker);
        let ahead = match &mut self.client.end {
            ClientEnd::Http1(http1) => std::mem::take(&mut http1.input),
            ClientEnd::Http2(_) => Buffer::default(),
        };
        let mut up = Way::new(ahead);
        let mut down = Way::new(self.upstream_input());
        let timeouts = self.timeouts();
        let limits = tunnel::Limits { idle: timeouts.idle, session: self.client.timer.deadline(timeouts.session) };
        let (client, timer) = (&mut self.client.end, &self.client.timer);
        let end = tunnel::relay(client, &mut self.attempt.end, &mut up, &mut down, &worker, timer, &limits).await;
        if end == tunnel::End::Reset {
            // What one side has broken off must not look whole to the other.
            self.client.end.abort();
            self.attempt.end.abort();
        }
        self.request.report.received_bytes += up.moved;
        self.request.report.sent_bytes += down.moved;
    }

    /// What has been read from the backend's connection and not dealt with.
    fn upstream_input(&mut self) -> Buffer {
        match &mut self.attempt.end {
            BackendEnd::Http1(http1) => std::mem::take(&mut http1.input),
            BackendEnd::Http2(_) | BackendEnd::Returned => Buffer::default(),
        }
    }

    /// Whether these were the first bytes of an answer, on a connection that has carried others.
    pub(super) fn is_first_on_used(&self) -> bool {
        self.attempt.is_headless_on_used() && self.status == 0
    }

    /// Whether all of the request has been sent and nothing of the answer has come: another try may go beside this one.
    pub(super) fn is_waiting(&self) -> bool {
        self.upload == Upload::Done
            && self.status == 0
            && self.attempt.is_silent()
            && self.answer.text().is_empty()
            && self.request.replayable
    }

    /// Goes on with another connection, on which the same request has been sent whole, and whose answer's head has been read. Of an
    /// answer that had begun to come on the first one, nothing is left but interim answers that the client has a part of.
    pub(super) fn replace(&mut self, mut attempt: Attempt) {
        self.handle_unwanted();
        let worker = Rc::clone(&self.client.open.worker);
        worker.buffers.give(self.upstream_input());
        attempt.begin_again();
        // Dropped, its clock tells how long the first try has lasted.
        self.attempt = attempt;
        self.place = None;
        self.answer.truncate(if self.answered > 0 { self.interim_bytes } else { 0 }, 0);
        self.interim_bytes = self.answer.text().len();
        (self.status, self.delivered) = (0, 0);
        (self.encoding, self.terminated, self.compressor) = (Encoding::Identity, false, None);
        (self.upstream_keep_alive, self.client_keep_alive, self.holding) = (false, false, false);
        self.retry_after = None;
        self.unseen = true;
        self.sent = self.request.out.len();
        self.upload = Upload::Done;
        self.client.timer.set_before(self.timeouts().response, self.limit);
    }

    /// Gives the answer up before any of it was passed on, and keeps the connection if it is whole.
    pub(super) fn discard(mut self) {
        self.handle_unwanted();
        self.release_buffers();
        // The connection first: who gets the place may open another.
        let Self { attempt, place, .. } = self;
        drop((attempt, place));
    }

    fn release_buffers(&mut self) {
        let buffers = &self.client.open.worker.buffers;
        if let BackendEnd::Http1(http1) = &mut self.attempt.end {
            buffers.give(std::mem::take(&mut http1.input));
        }
        buffers.give_writer(std::mem::take(&mut self.answer));
        buffers.give_outgoing(std::mem::take(&mut self.chunks));
    }

    /// Gives the buffers back and closes the backend's connection.
    pub(super) fn release(mut self) {
        self.release_buffers();
    }
}

/// How much a buffer for a body may hold: more than it does only if that is full of a trailer section, which is taken whole.
fn room(input: &Buffer) -> usize {
    if input.len() < input.capacity() { input.capacity() } else { ringway_http1::TRAILER_BYTES_MAX + 1 }
}

/// What an answer of 429 or 503 asks for with `Retry-After`.
pub(super) fn retry_after(head: &ResponseHead, bytes: &[u8]) -> Option<Duration> {
    if !matches!(head.status, 429 | 503) {
        return None;
    }
    let value = |name: &[u8]| {
        let field = head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
        field.map(|field| field.value.of(bytes))
    };
    wish::retry_after(value(b"retry-after")?, value(b"date"), ambient::time_of_day())
}
