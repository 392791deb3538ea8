//! A request's bytes up, its answer's bytes down.
//!
//! Both directions are driven by one task: [`Exchange`] is two small state machines over two sockets, polled together,
//! so that a body can still be going up while its answer comes down.

use super::{Next, wish};
use crate::actions;
use crate::ambient;
use crate::buffers::Buffer;
use crate::clock::Clock;
use crate::compress::{self, Compressor};
use crate::error::ProxyError;
use crate::h2bridge;
use crate::http::{self, Client};
use crate::inflight::InFlight;
use crate::request::Request;
use crate::stream::Stream;
use crate::timer::Deadline;
use crate::tunnel::{self, Way};
use crate::upstream::Connection;
use ringway_health::Outcome;
use ringway_http1::{Body, Encoding, FieldName, Limits, ParseError, Version, parse_response, write};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;

mod pace;
mod trailers;
mod upload;

use pace::{Pace, Party, Terms};

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

/// How an answer ended that had begun.
enum Delivered {
    Whole,
    /// The backend's part was cut off: the client must see that.
    CutOff(ProxyError),
    /// The client is gone.
    ClientGone,
    /// The client does not read, or too slowly.
    ClientStalled,
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
    pub(super) upstream: Connection,
    /// How long the answer takes to begin.
    clock: Clock,
    /// What the upstream's input holds has been read by another: it is to be looked at before more is read.
    unseen: bool,
    /// End of this try; once its answer has begun, of the whole exchange.
    limit: Deadline,
    began: Deadline,
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
    /// Bytes on their way down, and how much of them has been written.
    answer: Vec<u8>,
    answered: usize,
    /// How much of it is interim answers.
    interim_bytes: usize,
    pub(super) interims: u32,
    pub(super) status: u16,
    body: Body,
    encoding: Encoding,
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
    pub(super) fn new(
        client: &'a mut Client,
        request: &'a mut Request,
        (upstream, clock): (Connection, Clock),
        limit: Deadline,
    ) -> Self {
        let began = client.open.worker.timers.now();
        let total = http::http_of(&request.planned, request.listener).timeouts.body_total;
        let upload_pace = Pace::new(&client.timer, total);
        let mut exchange = Self {
            limit,
            began,
            client,
            request,
            upstream,
            clock,
            unseen: false,
            sent: 0,
            chunks: Vec::new(),
            chunks_sent: 0,
            upload: Upload::Sending,
            starved: false,
            body_begun: false,
            upload_moved: false,
            upload_pace,
            answer: Vec::new(),
            answered: 0,
            interim_bytes: 0,
            interims: 0,
            status: 0,
            body: Body::Sized(0),
            encoding: Encoding::Identity,
            compressor: None,
            delivered: 0,
            upstream_keep_alive: false,
            client_keep_alive: false,
            holding: false,
            retry_after: None,
            place: None,
        };
        exchange.join_trailers();
        // From here on it is being sent.
        exchange.request.replayable = exchange.request.is_resendable();
        exchange
    }

    fn client_timeouts(&self) -> &ringway_config::model::ClientTimeouts {
        &http::http_of(&self.request.planned, self.request.listener).timeouts
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
            self.clock.forget();
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
            let read = if std::mem::take(&mut self.unseen) { Poll::Ready(Ok(())) } else { self.poll_upstream(context) };
            match read {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let refusal = self.upstream.stream.refusal().map(TryError::Downstream);
                    return Poll::Ready(Err(refusal.unwrap_or(TryError::Upstream(error))));
                }
                Poll::Pending => break,
            }
            match self.take_answer() {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(TryError::Upstream(error))),
            }
        }
        self.upstream.stream.poll_drive(context);
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
        self.upstream.stream.handle_timeout();
        let silent = self.status == 0 && self.interims == 0 && self.upstream.input.is_empty();
        if let (true, true, Some(backend)) = (silent, self.upstream.reused, self.request.report.backend) {
            let cells = &self.client.open.worker.cells;
            self.request.view.services[self.request.service].upstreams[backend].pool.doubt(self.began, cells);
        }
    }

    /// Reads from the backend before its answer is passed on.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        if !self.upstream.input.is_allocated() {
            self.upstream.input = self.client.open.worker.buffers.take();
        }
        let held = self.upstream.input.len();
        if held > ANSWER_LIMITS.head_bytes_max {
            return Poll::Ready(Err(ProxyError::UnfitAnswer(ParseError::HeadTooLarge)));
        }
        match self.upstream.input.poll_read(&mut self.upstream.stream, ANSWER_LIMITS.head_bytes_max + 1, context) {
            Poll::Ready(Ok(0)) if self.holding => Poll::Ready(Err(ProxyError::ShortAnswer)),
            Poll::Ready(Ok(0)) if held > 0 => Poll::Ready(Err(ProxyError::ShortAnswer)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ProxyError::UpstreamClosed)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) if h2bridge::is_unfit(&error) => Poll::Ready(Err(ProxyError::UnfitStream)),
            Poll::Ready(Err(_)) if self.holding => Poll::Ready(Err(ProxyError::ShortAnswer)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(ProxyError::UpstreamClosed)),
            Poll::Pending => {
                if held == 0 {
                    // A request that waits for its answer holds no buffer for it.
                    self.client.open.worker.buffers.give(std::mem::take(&mut self.upstream.input));
                }
                Poll::Pending
            }
        }
    }

    /// Looks at what has come. `Ok(true)`: the answer can be passed on now.
    fn take_answer(&mut self) -> Result<bool, ProxyError> {
        if self.holding {
            return self.take_held_body();
        }
        let worker = Rc::clone(&self.client.open.worker);
        let mut scratch = worker.scratch.borrow_mut();
        let head = &mut scratch.response;
        loop {
            let method = self.request.method;
            let bytes = self.upstream.input.bytes();
            if bytes.is_empty()
                || !parse_response(bytes, &ANSWER_LIMITS, method, self.request.upgrade, head)
                    .map_err(|error| ProxyError::of_head(error, bytes))?
            {
                return Ok(false);
            }
            if self.answer.capacity() == 0 {
                self.answer = worker.buffers.take_outgoing();
            }
            if !head.is_interim() {
                break;
            }
            self.interims += 1;
            if self.interims > INTERIM_MAX {
                return Err(ProxyError::UnfitAnswer(ParseError::Status));
            }
            if self.request.version == Version::Http11 {
                write_status(head, self.upstream.input.bytes(), &mut self.answer);
                write::copy_fields(
                    &self.upstream.input.bytes()[..head.head_len],
                    &head.fields,
                    &mut self.answer,
                    |field| !field.kind.is_hop_by_hop() && field.kind != FieldName::ContentLength,
                );
                self.answer.extend_from_slice(b"\r\n");
                self.interim_bytes = self.answer.len();
            }
            self.upstream.input.consume(head.head_len);
        }

        if head.is_switch() && !self.request.is_granted(head, self.upstream.input.bytes()) {
            return Err(ProxyError::UnfitAnswer(ParseError::UnexpectedUpgrade));
        }
        self.hold_answers_end();
        self.clock.handle_answered();
        self.status = head.status;
        self.body = head.body.into();
        self.upstream_keep_alive = head.keep_alive && !head.is_switch();
        let bytes = self.upstream.input.bytes();
        // Bytes after an answer that has no body: nobody knows what they are. They go with the connection.
        let surplus = self.body.is_end() && !head.is_switch() && bytes.len() > head.head_len;
        self.upstream_keep_alive &= !surplus;
        let rule = self.request.compression().filter(|rule| compress::is_eligible(rule, head, bytes));
        let mut coding = rule.and(self.request.coding);
        if let (Some(rule), Some(wanted), false) = (rule, coding, self.body.is_end()) {
            self.compressor = Compressor::new(rule, wanted, &self.body, &worker);
            // An answer to HEAD has no body, and the fields that the one to GET would have.
            coding = coding.filter(|_| self.compressor.is_some());
        }
        self.encoding = match (self.body.plain(0), self.request.version) {
            _ if self.compressor.is_some() => Encoding::Chunked,
            (None, Version::Http11) => Encoding::Chunked,
            (Some(_), Version::Http11) if self.body == Body::UntilClose => Encoding::Chunked,
            _ => Encoding::Identity,
        };
        // 1.0 knows no chunks: the end of the connection ends the body.
        let ends_by_close = self.encoding == Encoding::Identity && !matches!(self.body, Body::Sized(_));
        // An early refusal: the rest of the body would stand between this request and the next.
        let abandons_body = self.upload != Upload::Done && head.status >= 400;
        self.client_keep_alive =
            self.request.keep_alive && !ends_by_close && !abandons_body && !self.client.open.is_closing();

        let out = &mut self.answer;
        write_status(head, bytes, out);
        let bodiless = head.status == 204;
        let actions = self.request.actions();
        write::copy_fields(&bytes[..head.head_len], &head.fields, out, |field| {
            !(actions.is_some_and(|actions| actions::drops_answer_field(actions, field.name.of(bytes)))
                || field.kind.is_hop_by_hop()
                || bodiless && field.kind == FieldName::ContentLength
                || coding.is_some() && compress::drops(field, bytes))
        });
        if rule.is_some() {
            compress::write_fields(coding, head, bytes, out);
        }
        if let Some(protocol) = head.upgrade.filter(|_| head.is_switch()) {
            out.extend_from_slice(b"connection: upgrade\r\n");
            write::field(out, "upgrade", protocol.of(bytes));
        } else if !self.client_keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.request.version == Version::Http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if self.encoding == Encoding::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if self.request.explain || self.request.set_cookie.is_some() || !self.request.answer_lines.is_empty() {
            self.request.append_fields(out);
        }
        self.retry_after = retry_after(head, bytes);
        out.extend_from_slice(b"\r\n");
        self.upstream.input.consume(head.head_len);
        drop(scratch);

        self.take_body()?;
        if let Body::Sized(left) = self.body
            && left > 0
            && self.delivered + left <= WHOLE_BYTES_MAX
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
        let whole = self.body.is_end();
        if whole {
            self.holding = false;
        }
        Ok(whole)
    }

    /// Moves body bytes from the backend's input behind what is already on its way down.
    fn take_body(&mut self) -> Result<(), ProxyError> {
        let input = self.upstream.input.bytes();
        if !input.is_empty() && self.status != 101 && !self.body.is_end() {
            let progress = match &mut self.compressor {
                None => self.body.transfer(input, &mut self.answer, self.encoding).map_err(ProxyError::UnfitAnswer)?,
                Some(compressor) => compressor.transfer(&mut self.body, input, &mut self.answer)?,
            };
            self.delivered += progress.data as u64;
            self.upstream.input.consume(progress.consumed);
        }
        Ok(())
    }

    /// Writes what is on its way down. `Ok(true)`: all of it.
    fn poll_send_answer(&mut self, context: &mut Context<'_>) -> Result<bool, ()> {
        while self.answered < self.answer.len() {
            match Pin::new(&mut self.client.stream).poll_write(context, &self.answer[self.answered..]) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.answered += count;
                    self.request.report.sent_bytes += count as u64;
                    self.client.open.worker.cells.sent_bytes.add(count as u64);
                }
                Poll::Ready(_) => return Err(()),
                Poll::Pending => return Ok(false),
            }
        }
        self.answer.clear();
        (self.answered, self.interim_bytes) = (0, 0);
        Ok(true)
    }

    /// Passes the answer on to its end.
    fn poll_deliver(&mut self, pace: &mut Pace, context: &mut Context<'_>) -> Poll<Delivered> {
        let mut compressed = false;
        let sent_before = self.request.report.sent_bytes;
        // What has come of the answer, and whether the client has taken something that is not counted.
        let (mut read, mut flushed) = (false, false);
        if self.upload == Upload::Sending && self.poll_upload(context).is_err() {
            // The answer may still be whole; the connection cannot go on after it.
            self.upload = Upload::Broken;
        }
        self.release_answers_end();
        let starved_by_client = loop {
            // What is shared ends with its trailers.
            if self.is_read_to_its_end() && !matches!(self.upstream.stream, Stream::Upstream(_)) {
                self.request.admission = None;
                self.settle();
            }
            match self.poll_send_answer(context) {
                Ok(true) => {}
                Ok(false) => break true,
                Err(()) => return Poll::Ready(Delivered::ClientGone),
            }
            if self.body.is_end() {
                match self.poll_answers_end(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(delivered)) => return Poll::Ready(delivered),
                    Poll::Pending => break false,
                }
                // What TLS has taken and the kernel has not is not written: nothing would push it once the exchange is over.
                flushed = self.client.stream.tcp().is_some_and(|tcp| tcp.poll_write_ready(context).is_ready());
                match Pin::new(&mut self.client.stream).poll_flush(context) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Delivered::Whole),
                    Poll::Ready(Err(_)) => return Poll::Ready(Delivered::ClientGone),
                    Poll::Pending => break true,
                }
            }
            let available = self.upstream.input.len();
            if available > 0 {
                if std::mem::replace(&mut compressed, self.compressor.is_some()) {
                    // One step, then others have their turn. A plain wake-up would not do: the runtime looks for what has arrived
                    // only once in a while as long as a task is ready. This one wakes after it has looked.
                    let _ = pin!(tokio::task::yield_now()).poll(context);
                    break false;
                }
                if self.encoding == Encoding::Identity
                    && let Some(plain) = self.body.plain(available)
                {
                    let bytes = &self.upstream.input.bytes()[..plain];
                    match Pin::new(&mut self.client.stream).poll_write(context, bytes) {
                        Poll::Ready(Ok(count)) if count > 0 => {
                            self.body.advance(count);
                            self.upstream.input.consume(count);
                            self.delivered += count as u64;
                            self.request.report.sent_bytes += count as u64;
                            self.client.open.worker.cells.sent_bytes.add(count as u64);
                        }
                        Poll::Ready(_) => return Poll::Ready(Delivered::ClientGone),
                        Poll::Pending => break true,
                    }
                    continue;
                }
                let before = self.upstream.input.len();
                if let Err(error) = self.take_body() {
                    return Poll::Ready(Delivered::CutOff(error));
                }
                if self.upstream.input.len() < before {
                    continue;
                }
            }
            match self.poll_more(context) {
                Poll::Ready(Ok(0)) if self.body == Body::UntilClose && !self.may_end_here() => {
                    return Poll::Ready(Delivered::CutOff(ProxyError::TlsTruncated));
                }
                Poll::Ready(Ok(0)) => match (self.body.end_of_input(self.encoding), &mut self.compressor) {
                    (Some(end), compressor) => {
                        match compressor.as_mut().map(|compressor| compressor.finish(&mut self.answer)) {
                            None => self.answer.extend_from_slice(end),
                            Some(Ok(())) => {}
                            Some(Err(error)) => return Poll::Ready(Delivered::CutOff(error)),
                        }
                        self.body = Body::Sized(0);
                    }
                    (None, _) => return Poll::Ready(Delivered::CutOff(ProxyError::ShortAnswer)),
                },
                Poll::Ready(Ok(_)) => read = true,
                Poll::Ready(Err(error)) => {
                    let unfit = h2bridge::is_unfit(&error);
                    let error = if unfit { ProxyError::UnfitStream } else { ProxyError::ShortAnswer };
                    return Poll::Ready(Delivered::CutOff(error));
                }
                // What has been said is not held back until more comes: an event may be all for a long while.
                Poll::Pending => match self.compressor.as_mut().map(|compressor| compressor.flush(&mut self.answer)) {
                    Some(Ok(true)) => {}
                    Some(Err(error)) => return Poll::Ready(Delivered::CutOff(error)),
                    _ => break false,
                },
            }
        };
        let sent = self.request.report.sent_bytes;
        let party = if starved_by_client { Party::Client } else { Party::Backend };
        let moved = sent > sent_before || flushed || std::mem::take(&mut self.upload_moved);
        // Of a body that is all written nobody sees how fast it goes.
        let terms = Terms::of_writing(self.client_timeouts(), !self.body.is_end());
        let idle = self.timeouts().body_idle;
        let progress = moved || read && !starved_by_client;
        pace.wait(&self.client.timer, party, (sent, progress), (&terms, idle), self.limit);
        self.client.stream.poll_drive(context);
        self.upstream.stream.poll_drive(context);
        // One that gets its answer may have said all; a connection that has failed has nobody at its end.
        if self.poll_left(context, true).is_ready() {
            return Poll::Ready(Delivered::ClientGone);
        }
        while self.client.timer.poll_fired(context) {
            if pace.is_over(&self.client.timer, sent, &terms, self.limit) {
                return Poll::Ready(match party {
                    Party::Client => Delivered::ClientStalled,
                    // The rest of the answer may hang on the rest of the request.
                    Party::Backend if self.upload == Upload::Sending && self.starved => Delivered::ClientStalled,
                    Party::Backend => {
                        self.handle_timeout();
                        Delivered::CutOff(ProxyError::ResponseTimeout)
                    }
                });
            }
        }
        Poll::Pending
    }

    /// Whether the connection's end may be taken for the body's: it was said, or the service does not ask for that.
    fn may_end_here(&mut self) -> bool {
        let config = &self.request.view.services[self.request.service].service.config;
        config.tls.as_ref().is_some_and(|tls| tls.ignore_unexpected_eof) || self.upstream.stream.said_goodbye()
    }

    /// More of the answer's body.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let worker = &self.client.open.worker;
        if !self.upstream.input.is_allocated() {
            self.upstream.input = worker.buffers.take();
        }
        // What is known to be long is not read in short strides first.
        let long = matches!(self.body, Body::Sized(rest) if rest > LONG_BYTES);
        if long || self.delivered > BULK_BYTES {
            worker.buffers.grow(&mut self.upstream.input);
        }
        let bytes_max = room(&self.upstream.input);
        let read = self.upstream.input.poll_read(&mut self.upstream.stream, bytes_max, context);
        if read.is_pending() && self.upstream.input.is_empty() {
            worker.buffers.give(std::mem::take(&mut self.upstream.input));
        }
        read
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
    pub(super) async fn finish(mut self) -> (u16, Option<ProxyError>, Next) {
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
                    (false, Upload::Done) if self.client.input.is_empty() => Next::Close,
                    (false, _) => Next::Linger,
                };
                if matches!(self.upstream.stream, Stream::Upstream(_)) {
                    self.upstream.stream = Stream::Returned(tokio::io::empty());
                }
                self.settle();
                (None, next)
            }
            Delivered::CutOff(error) => {
                if let Some(place) = &self.place {
                    place.guard.report_error(error);
                }
                // The client must not take half an answer for a whole one: reset instead of a plain end.
                self.client.stream.abort();
                (Some(error), Next::Abort)
            }
            Delivered::ClientGone => (Some(ProxyError::ClientClosed), Next::Abort),
            Delivered::ClientStalled => {
                // What the kernel still holds for it goes at once.
                self.client.stream.abort();
                (Some(ProxyError::ClientStalled), Next::Abort)
            }
        };
        self.release();
        (status, error, next)
    }

    /// Whether all of the answer has been read, so that nothing is left for the backend to do, whatever the client has of it.
    fn is_read_to_its_end(&self) -> bool {
        let is_read = match self.body {
            Body::Sized(left) => left <= self.upstream.input.len() as u64,
            _ => self.body.is_end(),
        };
        is_read && self.upload == Upload::Done && self.status != 101
    }

    /// The backend's part is over: its connection is free for others, and so is its place, in this order. Who has the end of the
    /// answer may rely on it.
    fn settle(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        place.report();
        let Place { guard: _guard, upstream, .. } = place;
        let left = if let Body::Sized(left) = self.body { left } else { 0 };
        let clean = self.upload == Upload::Done && self.upstream.input.len() as u64 == left;
        let config = &self.request.view.services[self.request.service].service.config;
        // A PROXY header has told the backend of this client: no other's requests go there.
        if clean && self.upstream_keep_alive && config.proxy_protocol.is_none() {
            if let Some(slot) = self.upstream.slot.take() {
                let stream = std::mem::replace(&mut self.upstream.stream, Stream::Returned(tokio::io::empty()));
                let worker = &self.client.open.worker;
                upstream.pool.put(stream, slot, config.pool.idle_max, worker.timers.now(), &worker.cells);
            }
        } else if !matches!(self.upstream.stream, Stream::Upstream(_)) {
            self.upstream.stream = Stream::Returned(tokio::io::empty());
            self.upstream.slot = None;
        }
    }

    /// Both connections are one tunnel now.
    async fn tunnel(&mut self) {
        let worker = Rc::clone(&self.client.open.worker);
        let mut up = Way::new(std::mem::take(&mut self.client.input));
        let mut down = Way::new(std::mem::take(&mut self.upstream.input));
        let timeouts = self.timeouts();
        let limits = tunnel::Limits { idle: timeouts.idle, session: self.client.timer.deadline(timeouts.session) };
        tunnel::relay(
            &mut self.client.stream,
            &mut self.upstream.stream,
            &mut up,
            &mut down,
            &worker,
            &self.client.timer,
            &limits,
        )
        .await;
        self.request.report.received_bytes += up.moved;
        self.request.report.sent_bytes += down.moved;
    }

    /// Whether these were the first bytes of an answer, on a connection that has carried others.
    pub(super) fn is_first_on_used(&self) -> bool {
        self.upstream.reused && self.interims == 0 && self.status == 0
    }

    /// Whether all of the request has been sent and nothing of the answer has come: another try may go beside this one.
    pub(super) fn is_waiting(&self) -> bool {
        self.upload == Upload::Done
            && self.status == 0
            && self.interims == 0
            && self.upstream.input.is_empty()
            && self.answer.is_empty()
            && self.request.replayable
    }

    /// Goes on with another connection, on which the same request has been sent whole, and whose answer's head has been read. Of an
    /// answer that had begun to come on the first one, nothing is left but interim answers that the client has a part of.
    pub(super) fn replace(&mut self, upstream: Connection) {
        self.handle_unwanted();
        let worker = Rc::clone(&self.client.open.worker);
        worker.buffers.give(std::mem::take(&mut self.upstream.input));
        self.upstream = upstream;
        self.place = None;
        // Dropped, the clock tells how long the first try has lasted.
        self.clock = Clock::stopped();
        self.answer.truncate(if self.answered > 0 { self.interim_bytes } else { 0 });
        self.interim_bytes = self.answer.len();
        (self.interims, self.status, self.delivered) = (0, 0, 0);
        (self.body, self.encoding, self.compressor) = (Body::Sized(0), Encoding::Identity, None);
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
        let Self { upstream, place, .. } = self;
        drop((upstream, place));
    }

    fn release_buffers(&mut self) {
        let buffers = &self.client.open.worker.buffers;
        buffers.give(std::mem::take(&mut self.upstream.input));
        buffers.give_outgoing(std::mem::take(&mut self.answer));
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
pub(super) fn retry_after(head: &ringway_http1::ResponseHead, bytes: &[u8]) -> Option<Duration> {
    if !matches!(head.status, 429 | 503) {
        return None;
    }
    let value = |name: &[u8]| {
        let field = head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
        field.map(|field| field.value.of(bytes))
    };
    wish::retry_after(value(b"retry-after")?, value(b"date"), ambient::time_of_day())
}

fn write_status(head: &ringway_http1::ResponseHead, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}
