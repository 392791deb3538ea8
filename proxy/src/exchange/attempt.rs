//! One attempt of a request on one backend: its connection, the time until the response begins, and what a failure reports. The first
//! attempt of an exchange, a hedge and a mirrored copy are all of this type.

use super::response::{INFORMATIONAL_MAX, RESPONSE_LIMITS, retry_after};
use crate::codec::end::BackendEnd;
use crate::codec::http1::Http1;
use crate::error::ProxyError;
use crate::exchange::clock::Clock;
use crate::net::stream::Stream;
use crate::net::timer::Deadline;
use crate::planted::{self, Fault};
use crate::snapshot::connection_slot::ConnectionSlot;
use crate::upstream::Connection;
use crate::worker::{Upstream, Worker};
use ringway_config::model::Pool;
use ringway_http1::parse_response_on;
use ringway_message::{Method, ParseError, ResponseHead};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What the next read of the response is to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A head.
    Head,
    /// The rest of a short body that is buffered whole. Its end is due.
    Body,
}

/// Status of a response, and how long its backend asks to be left alone.
pub(crate) type Found = (u16, Option<Duration>);

pub(crate) struct Attempt {
    pub(crate) end: BackendEnd,
    /// Counts the connection among the backend's; a shared connection is counted elsewhere.
    slot: Option<ConnectionSlot>,
    /// The connection has carried requests before: the backend may close it at any time.
    pub(crate) reused: bool,
    pub(crate) clock: Clock,
    began: Deadline,
    /// Informational (1xx) responses received so far.
    pub(crate) informationals: u32,
    /// Bytes of the input that hold the heads of informational responses: they have been parsed and stay there.
    walked: usize,
}

impl Attempt {
    /// Begins now.
    pub(crate) fn begin(connection: Connection, clock: Clock, worker: &Worker) -> Self {
        let Connection { end, slot, reused } = connection;
        Self { end, slot, reused, clock, began: worker.timers.now(), informationals: 0, walked: 0 }
    }

    /// Whether nothing of a response has come.
    pub(crate) fn is_silent(&self) -> bool {
        self.informationals == 0
            && match &self.end {
                BackendEnd::Http1(http1) => http1.input.is_empty(),
                BackendEnd::Http2(upstream) => upstream.is_silent(),
                BackendEnd::Returned => false,
            }
    }

    /// Whether nothing has come on a reused connection: it may have been closing when it was taken.
    pub(crate) fn is_silent_on_used(&self) -> bool {
        self.reused && self.is_silent()
    }

    /// Whether no whole response head has come on a reused connection.
    pub(crate) fn is_headless_on_used(&self) -> bool {
        self.reused && self.informationals == 0
    }

    /// Whether the error of an attempt without a response says nothing about its backend: its connection was being closed, or held
    /// leftover bytes.
    pub(crate) fn tells_nothing(&self, error: ProxyError) -> bool {
        let failure = self.end.failure();
        failure.unprocessed && !failure.refused
            || self.is_headless_on_used() && matches!(error, ProxyError::UpstreamClosed | ProxyError::BadResponse(_))
    }

    /// The backend did not respond in time: perhaps the connection to it is dead, and then for other streams too. `answered`: the
    /// response head has come.
    pub(crate) fn handle_timeout(&self, answered: bool, upstream: Option<&Upstream>, worker: &Worker) {
        self.end.handle_timeout();
        if let (false, true, Some(upstream)) = (answered, self.is_silent_on_used(), upstream) {
            upstream.pool.doubt(self.began, &worker.counters);
        }
    }

    /// Reads more of a response that is not forwarded yet. `answered`: its head has come.
    pub(crate) fn poll_read(
        &mut self,
        answered: bool,
        part: Part,
        worker: &Worker,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ProxyError>> {
        let Http1 { stream, input, .. } = match &mut self.end {
            BackendEnd::Http1(http1) => http1,
            BackendEnd::Http2(upstream) if answered => return upstream.poll_more(context),
            BackendEnd::Http2(upstream) => return upstream.poll_head(context),
            BackendEnd::Returned => return Poll::Ready(Err(ProxyError::UpstreamClosed)),
        };
        if !input.is_allocated() {
            *input = worker.buffers.take();
        }
        let held = input.len();
        if held > RESPONSE_LIMITS.head_bytes_max {
            return Poll::Ready(Err(ProxyError::UnfitResponse(ParseError::HeadTooLarge)));
        }
        let due = part == Part::Body;
        match input.poll_read(stream, RESPONSE_LIMITS.head_bytes_max + 1, context) {
            Poll::Ready(Ok(0)) if due || held > 0 => Poll::Ready(Err(ProxyError::ShortResponse)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ProxyError::UpstreamClosed)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) if due => Poll::Ready(Err(ProxyError::ShortResponse)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(ProxyError::UpstreamClosed)),
            Poll::Pending => {
                if held == 0 {
                    // A request that waits for its response holds no buffer for it.
                    worker.buffers.give(std::mem::take(input));
                }
                Poll::Pending
            }
        }
    }

    /// Reads until the final response head is here, after any informational ones, each of which is parsed once; all of them stay in
    /// the connection's input. Over HTTP/2, only the final head does.
    pub(crate) fn poll_final_head(
        &mut self,
        method: Method,
        worker: &Worker,
        context: &mut Context<'_>,
    ) -> Poll<Result<Found, ProxyError>> {
        loop {
            if let BackendEnd::Http2(upstream) = &mut self.end {
                ready!(upstream.poll_head(context))?;
                let (head, arena) = upstream.lend_head();
                let found = (head.status, retry_after(&head, &arena));
                let informational = head.is_informational();
                upstream.return_head((head, arena), informational);
                if !informational {
                    return Poll::Ready(Ok(found));
                }
                self.count_informational()?;
                continue;
            }
            if let Some(found) = self.look_for_final_head(method, &mut worker.scratch.borrow_mut().response)? {
                return Poll::Ready(Ok(found));
            }
            ready!(self.poll_read(false, Part::Head, worker, context))?;
        }
    }

    fn look_for_final_head(&mut self, method: Method, head: &mut ResponseHead) -> Result<Option<Found>, ProxyError> {
        loop {
            let BackendEnd::Http1(Http1 { input, resume, .. }) = &mut self.end else { return Ok(None) };
            let bytes = &input.bytes()[self.walked..];
            let parsed = !bytes.is_empty()
                && parse_response_on(bytes, &RESPONSE_LIMITS, (method, false), resume, head)
                    .map_err(|error| ProxyError::of_head(error, bytes))?;
            if !parsed {
                return Ok(None);
            }
            let found = (head.status, retry_after(head, bytes));
            resume.reset();
            if !head.is_informational() {
                return Ok(Some(found));
            }
            self.walked += head.head_len;
            self.count_informational()?;
        }
    }

    /// Counts one more informational response.
    pub(crate) fn count_informational(&mut self) -> Result<(), ProxyError> {
        self.informationals += 1;
        if self.informationals > INFORMATIONAL_MAX && !planted::is_planted(Fault::InformationalsUnlimited) {
            Err(ProxyError::UnfitResponse(ParseError::Status))
        } else {
            Ok(())
        }
    }

    /// What [`Attempt::poll_final_head`] has left in the input is read by another part, from its start.
    pub(crate) fn begin_again(&mut self) {
        (self.informationals, self.walked) = (0, 0);
    }

    /// Consumes the head that [`Attempt::poll_final_head`] has found: its body comes next. Returns whether the connection may be
    /// reused after that.
    pub(crate) fn pass_head(&mut self, method: Method) -> bool {
        match &mut self.end {
            BackendEnd::Http1(Http1 { input, body, resume, .. }) => {
                let mut head = ResponseHead::default();
                input.consume(self.walked);
                let parsed = parse_response_on(input.bytes(), &RESPONSE_LIMITS, (method, false), resume, &mut head);
                resume.reset();
                debug_assert_eq!(parsed, Ok(true), "it has been looked at");
                input.consume(head.head_len);
                *body = head.body.into();
                head.keep_alive
            }
            BackendEnd::Http2(upstream) => {
                let lent = upstream.lend_head();
                upstream.return_head(lent, true);
                true
            }
            BackendEnd::Returned => false,
        }
    }

    /// The backend's part is over. The attempt's own connection goes back to the pool, or is closed.
    pub(crate) fn give_back(&mut self, keeps: bool, upstream: &Upstream, limits: &Pool, worker: &Worker) {
        let BackendEnd::Http1(http1) = &mut self.end else { return };
        let Some(mut slot) = self.slot.take() else { return };
        let stream = std::mem::replace(&mut http1.stream, Stream::Returned(tokio::io::empty()));
        slot.life.count_request();
        if keeps && !slot.life.is_over(limits, &worker.timers) {
            upstream.pool.put(stream, slot, limits.idle_max, worker.timers.now(), &worker.counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::Buffer;
    use ringway_http1::{Body, Resume};

    fn attempt(reused: bool) -> Attempt {
        let http1 = Http1::new(Stream::Returned(tokio::io::empty()));
        Attempt {
            end: BackendEnd::Http1(http1),
            slot: None,
            reused,
            clock: Clock::stopped(),
            began: Deadline::NEVER,
            informationals: 0,
            walked: 0,
        }
    }

    fn input(attempt: &mut Attempt) -> &mut Buffer {
        match &mut attempt.end {
            BackendEnd::Http1(http1) => &mut http1.input,
            BackendEnd::Http2(_) | BackendEnd::Returned => unreachable!("it was made so"),
        }
    }

    const ANSWER: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                            HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nab";

    #[test]
    fn the_final_head_is_found_byte_by_byte_and_all_stays_in_the_input() {
        let (mut attempt, mut head) = (attempt(true), ResponseHead::default());
        let ends = ANSWER.len() - b"ab".len();
        for (index, byte) in ANSWER.iter().enumerate() {
            assert_eq!(input(&mut attempt).put(&[*byte]), 1);
            let found = attempt.look_for_final_head(Method::Get, &mut head);
            if index + 1 < ends {
                assert_eq!(found, Ok(None), "{index}");
            } else {
                assert_eq!(found, Ok(Some((503, Some(Duration::from_secs(7))))), "{index}");
                break;
            }
        }
        assert_eq!((attempt.informationals, input(&mut attempt).len()), (2, ends));
        // The one that forwards this response reads the head from its start; the one that discards it consumes it.
        assert!(attempt.pass_head(Method::Get));
        assert!(input(&mut attempt).is_empty());
        let BackendEnd::Http1(Http1 { body, resume, .. }) = &attempt.end else { unreachable!("it was made so") };
        assert_eq!((body, *resume), (&Body::Sized(2), Resume::default()));
    }

    #[test]
    fn interim_answers_are_bounded() {
        let (mut attempt, mut head) = (attempt(false), ResponseHead::default());
        for _ in 0..=INFORMATIONAL_MAX {
            input(&mut attempt).put(b"HTTP/1.1 102 Processing\r\n\r\n");
        }
        let found = attempt.look_for_final_head(Method::Get, &mut head);
        assert_eq!(found, Err(ProxyError::UnfitResponse(ParseError::Status)));
    }

    #[test]
    fn what_a_used_connection_was_left_with_tells_nothing_of_its_backend() {
        for error in [ProxyError::UpstreamClosed, ProxyError::BadResponse(ParseError::Status)] {
            assert!(attempt(true).tells_nothing(error));
            assert!(!attempt(false).tells_nothing(error));
            let mut informational = attempt(true);
            assert_eq!(informational.count_informational(), Ok(()));
            assert!(!informational.tells_nothing(error), "it has begun to answer");
        }
        assert!(!attempt(true).tells_nothing(ProxyError::ResponseTimeout));
    }
}
