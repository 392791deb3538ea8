//! The state of an exchange: two small state machines over two ends, polled together, so that a body can still be going up while its
//! response comes down.

use super::pace::Pace;
use crate::codec::end::BackendEnd;
use crate::dispatcher::BulkTurn;
use crate::exchange::attempt::Attempt;
use crate::exchange::client::Client;
use crate::exchange::compress::Compressor;
use crate::exchange::request::Request;
use crate::net::buffers::Buffer;
use crate::net::timer::Deadline;
use crate::upstream::in_flight::InFlight;
use crate::worker::Upstream;
use ringway_config::model::{ClientTimeouts, UpstreamTimeouts};
use ringway_health::Outcome;
use ringway_http1::Encoding;
use ringway_message::HeadWriter;
use ringway_telemetry::counters::class_of;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A response no longer than this is buffered whole, for a moment, before its first byte is forwarded: it then goes out in one write,
/// and one that is cut off can still become a 502 or a retry.
pub(super) const WHOLE_BYTES_MAX: u64 = 12 * 1024;

/// That moment.
pub(super) const WHOLE_WAIT: Duration = Duration::from_millis(50);

/// The same from the start, when so many bytes are known to come.
pub(super) const LONG_BYTES: u64 = 24 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    Sending,
    Done,
    /// The backend takes no more of it, but may still respond.
    Broken,
}

pub(in crate::exchange) struct Exchange<'a> {
    pub(in crate::exchange) client: &'a mut Client,
    pub(in crate::exchange) request: &'a mut Request,
    pub(in crate::exchange) attempt: Attempt,
    /// What the upstream has sent has been read elsewhere: it is parsed before more is read.
    pub(super) unseen: bool,
    /// End of this attempt; once its response has begun, end of the whole exchange.
    pub(super) limit: Deadline,
    /// How much of `request.out` has been written.
    pub(super) sent: usize,
    /// Chunks of the request's body on their way up, and how much of them has been written.
    pub(super) chunks: Vec<u8>,
    pub(super) chunks_sent: usize,
    pub(super) upload: Upload,
    /// Whether the upload waits for the client rather than for the backend.
    pub(super) starved: bool,
    /// Whether anything of the request body has been read here.
    pub(super) body_begun: bool,
    /// Whether bytes have moved up since that was last looked at.
    pub(super) upload_moved: bool,
    pub(super) upload_pace: Pace,
    /// Bytes on their way down, and how much of them has been written: a head, and the part of the body that has joined it.
    pub(super) answer: HeadWriter,
    pub(super) answered: usize,
    /// How much of it is the final head; over HTTP/2, whether that has been sent.
    pub(super) head_len: usize,
    pub(super) head_sent: bool,
    /// How much of it is informational responses.
    pub(super) informational_bytes: usize,
    pub(in crate::exchange) status: u16,
    pub(super) encoding: Encoding,
    /// The end of a body in chunks has been queued.
    pub(super) terminated: bool,
    /// The body is compressed on its way.
    pub(super) compressor: Option<Box<Compressor>>,
    pub(super) delivered: u64,
    /// Long transfers take turns, on either way.
    pub(super) delivery_turn: BulkTurn,
    pub(super) upload_turn: BulkTurn,
    pub(super) upstream_keep_alive: bool,
    pub(super) client_keep_alive: bool,
    /// The response is being buffered whole.
    pub(super) holding: bool,
    /// The `Retry-After` of a response with 429 or 503.
    pub(in crate::exchange) retry_after: Option<Duration>,
    /// The reservation on the backend, and what is reported to it, until the backend's part of the exchange is over.
    pub(super) place: Option<Place>,
}

/// A backend whose response is being forwarded.
pub(super) struct Place {
    pub(super) guard: InFlight,
    /// Until it is reported.
    pub(super) outcome: Option<Outcome>,
    pub(super) upstream: Rc<Upstream>,
}

impl Place {
    /// A call of gRPC has come to what this status means.
    pub(super) fn judge(&mut self, status: u16) {
        self.guard.handle_class(class_of(status));
        self.outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Status(_) => Outcome::Status(status),
            other => other,
        });
    }

    pub(super) fn report(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.guard.report(outcome);
        }
    }
}

impl<'a> Exchange<'a> {
    pub(in crate::exchange) fn new(
        client: &'a mut Client,
        request: &'a mut Request,
        attempt: Attempt,
        limit: Deadline,
    ) -> Self {
        let total = request.routed_by.http(request.listener).timeouts.body_total;
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
            informational_bytes: 0,
            status: 0,
            encoding: Encoding::Identity,
            terminated: false,
            compressor: None,
            delivered: 0,
            delivery_turn: BulkTurn::default(),
            upload_turn: BulkTurn::default(),
            upstream_keep_alive: false,
            client_keep_alive: false,
            holding: false,
            retry_after: None,
            place: None,
        }
    }
}

impl Exchange<'_> {
    pub(super) fn client_timeouts(&self) -> &ClientTimeouts {
        &self.request.routed_by.http(self.request.listener).timeouts
    }

    pub(super) fn timeouts(&self) -> &UpstreamTimeouts {
        &self.request.view.services[self.request.service].service.config.timeouts
    }

    /// Whether the client has left. While the upload waits for the client, the upload itself reads from it.
    pub(in crate::exchange) fn poll_left(&mut self, context: &mut Context<'_>, may_end: bool) -> Poll<()> {
        if self.upload == Upload::Sending && self.starved {
            return Poll::Pending;
        }
        self.client.presence(may_end).0.poll_left(context)
    }

    /// The response can be forwarded: this is the reservation on the backend, and what is reported to the passive detector.
    pub(in crate::exchange) fn take_place(&mut self, mut guard: InFlight, upstream: &Rc<Upstream>, outcome: Outcome) {
        guard.handle_response(self.status);
        if let Some(trace) = &mut self.request.trace {
            trace.handle_response(self.status);
        }
        self.place = Some(Place { guard, outcome: Some(outcome), upstream: Rc::clone(upstream) });
    }

    /// Whether these were the first bytes of a response, on a reused connection.
    pub(in crate::exchange) fn is_first_on_used(&self) -> bool {
        self.attempt.is_headless_on_used() && self.status == 0
    }

    /// Whether all of the request has been sent and nothing of the response has come: a hedge may begin.
    pub(in crate::exchange) fn is_waiting(&self) -> bool {
        self.upload == Upload::Done
            && self.status == 0
            && self.attempt.is_silent()
            && self.answer.text().is_empty()
            && self.request.replayable
    }

    /// Bytes that have been read from the backend's connection and not consumed.
    pub(super) fn upstream_input(&mut self) -> Buffer {
        match &mut self.attempt.end {
            BackendEnd::Http1(http1) => std::mem::take(&mut http1.input),
            BackendEnd::Http2(_) | BackendEnd::Returned => Buffer::default(),
        }
    }

    pub(super) fn release_buffers(&mut self) {
        let buffers = &self.client.open.worker.buffers;
        if let BackendEnd::Http1(http1) = &mut self.attempt.end {
            buffers.give(std::mem::take(&mut http1.input));
        }
        buffers.give_writer(std::mem::take(&mut self.answer));
        buffers.give_outgoing(std::mem::take(&mut self.chunks));
    }
}

/// How much a body buffer may hold: more than its size only if it is full of a trailer section, which is taken whole.
pub(super) fn room(input: &Buffer) -> usize {
    if input.len() < input.capacity() { input.capacity() } else { ringway_http1::TRAILER_BYTES_MAX + 1 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::testing::{GET, Stage, respond, say};

    #[test]
    fn a_hedge_may_begin_once_all_is_sent_and_until_anything_has_come() {
        let (mut stage, _client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(!exchange.is_waiting(), "nothing has been sent");
        assert!(respond(&mut exchange).is_pending());
        assert!(exchange.is_waiting());
        say(&backend, "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert!(respond(&mut exchange).is_pending());
        assert!(!exchange.is_waiting());
    }

    #[test]
    fn no_hedge_begins_while_the_body_is_still_to_come() {
        let (mut stage, client) = Stage::new("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        let (attempt, _backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        assert!(!exchange.is_waiting());
        say(&client, "cd");
        assert!(respond(&mut exchange).is_pending());
        assert!(exchange.is_waiting());
    }

    #[test]
    fn the_first_bytes_on_a_used_connection_are_known_as_such() {
        for reused in [true, false] {
            let (mut stage, _client) = Stage::new(GET);
            let (attempt, backend) = stage.attempt(reused);
            let (mut exchange, _) = stage.exchange(attempt);
            assert_eq!(exchange.is_first_on_used(), reused);
            say(&backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert!(respond(&mut exchange).is_ready());
            assert!(!exchange.is_first_on_used());
        }
    }
}
