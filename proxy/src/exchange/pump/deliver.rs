//! The way down: head and body of the response, at the client's pace.

use super::pace::{Pace, Party, Terms};
use super::state::{Exchange, LONG_BYTES, Upload, room};
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::grpc::GRPC_STATUS;
use crate::codec::http1::Http1;
use crate::codec::source::{Gone, Source};
use crate::codec::tunnel::Duplex;
use crate::dispatcher::{BULK_BYTES, wake_after_sockets};
use crate::error::ProxyError;
use crate::exchange::outcome::TryError;
use ringway_http1::{Body, Encoding};
use ringway_message::HeadWriter;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// How a response ended that had begun.
pub(super) enum Delivered {
    Whole,
    /// The backend's part was cut off: the client must see that.
    CutOff(ProxyError),
    /// So was it, because the rest of the request cannot be sent: the client's fault, not the backend's.
    Spoilt(ProxyError),
    /// The client has left.
    ClientGone,
    /// The client does not read, or too slowly.
    ClientStalled,
}

/// Result of a step towards the response's end.
enum Step {
    /// There is more to do at once.
    Again,
    /// It waits: for the client, or for the backend.
    Waits(Party),
    Over(Delivered),
}

/// What has happened in one turn.
#[derive(Default)]
struct Turn {
    /// Some of the response has come.
    read: bool,
    /// The client has taken bytes that are not counted.
    flushed: bool,
    /// A step of compression has been made: other tasks have their turn.
    compressed: bool,
}

impl Exchange<'_> {
    /// Writes what is on its way down. `Ok(true)`: all of it.
    pub(super) fn poll_send_response(&mut self, context: &mut Context<'_>) -> Result<bool, Gone> {
        let says_all = self.says_all();
        let worker = &self.client.open.worker;
        match &mut self.client.end {
            ClientEnd::Http1(http1) => {
                while self.answered < self.answer.text().len() {
                    let rest = &self.answer.text()[self.answered..];
                    match Pin::new(&mut http1.stream).poll_write(context, rest) {
                        Poll::Ready(Ok(count)) if count > 0 => {
                            self.answered += count;
                            self.request.report.sent_bytes += count as u64;
                            worker.counters.sent_bytes.add(count as u64);
                        }
                        Poll::Ready(_) => return Err(Gone),
                        Poll::Pending => return Ok(false),
                    }
                }
            }
            // Informational responses have been flushed at once.
            ClientEnd::Http2(_) if self.status == 0 => return Ok(true),
            ClientEnd::Http2(stream) => {
                if !std::mem::replace(&mut self.head_sent, true) {
                    let ends = says_all && self.answer.text().len() == self.head_len;
                    // RFC 8441, 4: success of an extended CONNECT is 200.
                    let status = if self.status == 101 { 200 } else { self.status };
                    let block = &mut worker.scratch.borrow_mut().block;
                    stream.send_head(status, &self.answer, ends, block)?;
                    self.answered = self.head_len;
                    self.request.report.sent_bytes += block.len() as u64;
                    worker.counters.sent_bytes.add(block.len() as u64);
                }
                while self.answered < self.answer.text().len() {
                    match stream.poll_send(&self.answer.text()[self.answered..], says_all, context) {
                        Poll::Ready(Ok(count)) => {
                            self.answered += count;
                            self.request.report.sent_bytes += count as u64;
                            worker.counters.sent_bytes.add(count as u64);
                        }
                        Poll::Ready(Err(Gone)) => return Err(Gone),
                        Poll::Pending => return Ok(false),
                    }
                }
            }
        }
        self.answer.truncate(0, 0);
        (self.answered, self.informational_bytes, self.head_len) = (0, 0, 0);
        Ok(true)
    }

    /// Whether nothing follows what is on its way down: no data, and no trailers.
    fn says_all(&self) -> bool {
        self.status != 101
            && self.attempt.end.is_finished()
            && self.compressor.as_ref().is_none_or(|compressor| compressor.is_finished())
    }

    /// Forwards the response to its end.
    pub(super) fn poll_deliver(&mut self, pace: &mut Pace, context: &mut Context<'_>) -> Poll<Delivered> {
        let sent_before = self.request.report.sent_bytes;
        let mut turn = Turn::default();
        if let Some(broken) = self.poll_rest_of_request(context) {
            return Poll::Ready(broken);
        }
        let party = loop {
            match self.step(&mut turn, context) {
                Step::Again => {}
                Step::Waits(party) => break party,
                Step::Over(delivered) => return Poll::Ready(delivered),
            }
        };
        let sent = self.request.report.sent_bytes;
        let moved = sent > sent_before || turn.flushed || std::mem::take(&mut self.upload_moved);
        if moved {
            self.request.entry.set_bytes(self.request.report.received_bytes, sent);
        }
        // Once the whole body is written, its pace can no longer be measured.
        let terms = Terms::of_writing(self.client_timeouts(), !self.is_body_done());
        let idle = self.timeouts().body_idle;
        let progress = moved || turn.read && party == Party::Backend;
        pace.wait(&self.client.timer, party, (sent, progress), (&terms, idle), self.limit);
        self.client.end.poll_drive(context);
        self.attempt.end.poll_drive(context);
        // A client that gets its response may have half-closed; a connection that has failed has no client any more.
        if self.poll_left(context, true).is_ready() {
            return Poll::Ready(Delivered::ClientGone);
        }
        while self.client.timer.poll_fired(context) {
            if pace.is_over(&self.client.timer, sent, &terms, self.limit) {
                return Poll::Ready(match party {
                    Party::Client => Delivered::ClientStalled,
                    // The rest of the response may depend on the rest of the request.
                    Party::Backend if self.upload == Upload::Sending && self.starved => Delivered::ClientStalled,
                    Party::Backend => {
                        self.handle_timeout();
                        Delivered::CutOff(ProxyError::ResponseTimeout)
                    }
                });
            }
        }
        // What follows is the client's time, not the backend's.
        self.request.count_try();
        Poll::Pending
    }

    /// Sends what is left of the request while its response comes. Gives how the response ends, where the client has broken its request
    /// off, or spoilt it: the backend waits for a rest that never comes, and is not to blame.
    fn poll_rest_of_request(&mut self, context: &mut Context<'_>) -> Option<Delivered> {
        if self.upload != Upload::Sending {
            return None;
        }
        let Err(TryError::Downstream(error) | TryError::Upstream(error)) = self.poll_upload(context) else {
            return None;
        };
        // The connection cannot be reused; a response that is here already is still forwarded.
        self.upload = Upload::Broken;
        // One that has half-closed may still read: half a response must not look whole to it.
        (!self.is_response_read()).then_some(Delivered::Spoilt(error))
    }

    fn step(&mut self, turn: &mut Turn, context: &mut Context<'_>) -> Step {
        if self.is_read_to_its_end() {
            self.request.free_limits();
            self.settle();
        }
        match self.poll_send_response(context) {
            Ok(true) => {}
            Ok(false) => return Step::Waits(Party::Client),
            Err(Gone) => return Step::Over(Delivered::ClientGone),
        }
        if self.status == 101 || self.is_body_done() {
            return self.end(turn, context);
        }
        let here = self.attempt.end.has_input();
        if here && self.compressor.is_some() && std::mem::replace(&mut turn.compressed, true) {
            // One step, then other tasks have their turn.
            wake_after_sockets(context);
            return Step::Waits(Party::Backend);
        }
        if here && self.compressor.is_none() && self.encoding == Encoding::Identity {
            match self.pass_on(context) {
                Some(Poll::Ready(Ok(_))) => return Step::Again,
                Some(Poll::Ready(Err(Gone))) => return Step::Over(Delivered::ClientGone),
                Some(Poll::Pending) => return Step::Waits(Party::Client),
                None => {}
            }
        }
        if here {
            let before = self.attempt.end.input_len();
            if let Err(error) = self.take_body() {
                return Step::Over(Delivered::CutOff(error));
            }
            if self.attempt.end.input_len() < before || self.is_body_done() {
                return Step::Again;
            }
        }
        self.read_more(turn, context)
    }

    /// Forwards data as they stand. `None`: they cannot go so, or there are none.
    fn pass_on(&mut self, context: &mut Context<'_>) -> Option<Poll<Result<usize, Gone>>> {
        let Self { client, attempt, .. } = self;
        let ends = attempt.end.ends_here();
        let written = attempt.end.with_data(|data| {
            if data.is_empty() {
                return None;
            }
            Some(match &mut client.end {
                ClientEnd::Http1(http1) => match Pin::new(&mut http1.stream).poll_write(context, data) {
                    Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Ok(count)),
                    Poll::Ready(_) => Poll::Ready(Err(Gone)),
                    Poll::Pending => Poll::Pending,
                },
                ClientEnd::Http2(stream) => stream.poll_send(data, ends, context),
            })
        })??;
        if let Poll::Ready(Ok(count)) = written {
            self.attempt.end.consume(count);
            self.delivered += count as u64;
            self.request.report.sent_bytes += count as u64;
            self.client.open.worker.counters.sent_bytes.add(count as u64);
        }
        Some(written)
    }

    /// All of the body has been sent: its end is written in the form of the client's version.
    fn end(&mut self, turn: &mut Turn, context: &mut Context<'_>) -> Step {
        match &mut self.client.end {
            ClientEnd::Http1(http1) => {
                // Bytes that TLS has taken and the kernel has not are not written: nothing would flush them once the
                // exchange is over. Without TLS there are none.
                turn.flushed = http1.stream.needs_close_notify() && http1.stream.poll_write_ready(context).is_ready();
                match Pin::new(&mut http1.stream).poll_flush(context) {
                    Poll::Ready(Ok(())) => Step::Over(Delivered::Whole),
                    Poll::Ready(Err(_)) => Step::Over(Delivered::ClientGone),
                    Poll::Pending => Step::Waits(Party::Client),
                }
            }
            ClientEnd::Http2(stream) if stream.is_answered() || self.status == 101 => Step::Over(Delivered::Whole),
            ClientEnd::Http2(_) => self.end_stream(context),
        }
    }

    /// The same over HTTP/2: trailers may follow.
    fn end_stream(&mut self, context: &mut Context<'_>) -> Step {
        match self.attempt.end.poll_end(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Gone)) => return Step::Over(Delivered::CutOff(ProxyError::ShortResponse)),
            Poll::Pending => return Step::Waits(Party::Backend),
        }
        let mut trailers = HeadWriter::new(Vec::new(), Vec::new(), true);
        let rules = self.request.trailer_rules();
        self.attempt.end.write_trailers(&mut trailers, |name| rules.keeps_of_response(name));
        self.request.note_grpc(|| {
            let text = trailers.text();
            let mut lines = trailers.lines().iter();
            lines.find(|line| line.name.of(text) == GRPC_STATUS).map(|line| line.value.of(text))
        });
        if let Some(compressor) = &mut self.compressor {
            trailers.append(&compressor.take_trailers());
        }
        let ClientEnd::Http2(stream) = &mut self.client.end else { return Step::Over(Delivered::ClientGone) };
        let block = &mut self.client.open.worker.scratch.borrow_mut().block;
        match stream.end(&trailers, block) {
            Ok(()) => Step::Over(Delivered::Whole),
            Err(Gone) => Step::Over(Delivered::ClientGone),
        }
    }

    /// More of the response body, or its end.
    fn read_more(&mut self, turn: &mut Turn, context: &mut Context<'_>) -> Step {
        match self.poll_more(context) {
            Poll::Ready(Ok(true)) => {
                turn.read = true;
                if self.attempt.end.is_http2() && !self.attempt.end.has_input() {
                    // Its end has come.
                    if let Err(error) = self.take_body() {
                        return Step::Over(Delivered::CutOff(error));
                    }
                }
                Step::Again
            }
            Poll::Ready(Ok(false)) => self.end_by_close(),
            Poll::Ready(Err(error)) => Step::Over(Delivered::CutOff(error)),
            // What has come is not held back until more comes: for a stream of events it may be all for a long while.
            Poll::Pending => {
                let out = self.answer.text_mut();
                match self.compressor.as_mut().map(|compressor| compressor.flush(out)) {
                    Some(Ok(true)) => Step::Again,
                    Some(Err(error)) => Step::Over(Delivered::CutOff(error)),
                    Some(Ok(false)) | None => Step::Waits(Party::Backend),
                }
            }
        }
    }

    /// The backend's connection has ended, and with it, perhaps, the body.
    fn end_by_close(&mut self) -> Step {
        let is_until_close = matches!(&self.attempt.end, BackendEnd::Http1(http1) if http1.body == Body::UntilClose);
        if is_until_close && !self.may_end_here() {
            return Step::Over(Delivered::CutOff(ProxyError::TlsTruncated));
        }
        let BackendEnd::Http1(Http1 { body, .. }) = &mut self.attempt.end else {
            return Step::Over(Delivered::CutOff(ProxyError::ShortResponse));
        };
        let Some(end) = body.end_of_input(self.encoding) else {
            return Step::Over(Delivered::CutOff(ProxyError::ShortResponse));
        };
        *body = Body::Sized(0);
        let out = self.answer.text_mut();
        match self.compressor.as_mut().map(|compressor| compressor.finish(out)) {
            None => out.extend_from_slice(end),
            Some(Ok(())) => {}
            Some(Err(error)) => return Step::Over(Delivered::CutOff(error)),
        }
        self.terminated = true;
        Step::Again
    }

    /// Whether the connection's end may be taken for the body's: TLS has confirmed it by close_notify, or the service does not
    /// require that.
    fn may_end_here(&mut self) -> bool {
        let config = &self.request.view.services[self.request.service].service.config;
        config.tls.as_ref().is_some_and(|tls| tls.ignore_unexpected_eof) || self.attempt.end.has_closed_cleanly()
    }

    /// More of the response body. `false`: the connection has ended.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, ProxyError>> {
        let worker = &self.client.open.worker;
        let has_turn = self.delivery_turn.poll(self.delivered, &worker.bulk, context);
        let Http1 { stream, input, body, .. } = match &mut self.attempt.end {
            BackendEnd::Http1(http1) => http1,
            BackendEnd::Http2(_) if !has_turn => return Poll::Pending,
            BackendEnd::Http2(upstream) => return upstream.poll_more(context).map_ok(|()| true),
            BackendEnd::Returned => return Poll::Ready(Ok(false)),
        };
        if !has_turn {
            if input.is_empty() {
                worker.buffers.give(std::mem::take(input));
            }
            return Poll::Pending;
        }
        if !input.is_allocated() {
            *input = worker.buffers.take();
        }
        // A body that is known to be long is read with a large buffer from the start.
        let long = matches!(*body, Body::Sized(rest) if rest > LONG_BYTES) && !worker.bulk.is_busy();
        if long || self.delivered > BULK_BYTES {
            worker.buffers.grow(input);
        }
        let bytes_max = room(input);
        let read = input.poll_read(stream, bytes_max, context);
        if read.is_pending() && input.is_empty() {
            worker.buffers.give(std::mem::take(input));
        }
        read.map(|read| read.map(|count| count > 0).map_err(|_| ProxyError::ShortResponse))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::testing::{GET, Stage, respond, said, say};
    use crate::error::ProxyError;
    use crate::exchange::outcome::Next;
    use crate::net::transport::memory::{Shape, Socket};
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;
    use tokio::io::AsyncWrite;

    #[test]
    fn a_body_that_ends_with_its_connection_is_chunked_for_the_client_and_ends_there() {
        let (mut stage, client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        said(&backend);
        say(&backend, "HTTP/1.1 200 OK\r\n\r\nab");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        let mut finishing = pin!(exchange.finish());
        let mut context = Context::from_waker(Waker::noop());
        assert!(finishing.as_mut().poll(&mut context).is_pending());
        let first = said(&client);
        assert!(first.ends_with("\r\n\r\n2\r\nab\r\n"), "what has come is not held back: {first}");
        say(&backend, "cde");
        drop(backend);
        assert_eq!(finishing.as_mut().poll(&mut context), Poll::Ready((200, None, Next::Request)));
        assert_eq!(said(&client), "3\r\ncde\r\n0\r\n\r\n");
    }

    /// A response under way, of which the client has read nothing or everything, after an hour.
    fn after_an_hour(reads: bool) -> (u16, Option<ProxyError>, Next) {
        let (mut stage, client) = Stage::with(GET, Shape { room: 64, ..Shape::default() });
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, rig) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        say(&backend, &format!("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n{}", "x".repeat(500)));
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        let mut finishing = pin!(exchange.finish());
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            assert!(finishing.as_mut().poll(&mut context).is_pending());
            if reads {
                said(&client);
            }
        }
        rig.pass(Duration::from_secs(3600));
        match finishing.as_mut().poll(&mut context) {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("the time is over"),
        }
    }

    #[test]
    fn a_response_that_stalls_is_ended_by_the_side_that_is_waited_for() {
        assert_eq!(after_an_hour(false), (200, Some(ProxyError::ClientStalled), Next::Abort));
        assert_eq!(after_an_hour(true), (200, Some(ProxyError::ResponseTimeout), Next::Abort));
    }

    #[test]
    fn a_client_that_leaves_in_the_middle_is_told_apart_from_one_that_does_not_read() {
        let (mut stage, client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        say(&backend, "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        client.end_by_reset();
        drop(client);
        let mut finishing = pin!(exchange.finish());
        let done = finishing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(done, Poll::Ready((200, Some(ProxyError::ClientClosed), Next::Abort)));
    }

    fn half_close(client: &mut Socket) {
        let ended = Pin::new(client).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ended, Poll::Ready(Ok(()))));
    }

    /// A request whose rest comes otherwise than it should once the response has begun: how the exchange ends.
    fn after_broken(
        request: &str,
        breaks: impl FnOnce(Socket) -> Option<Socket>,
    ) -> Poll<(u16, Option<ProxyError>, Next)> {
        let (mut stage, client) = Stage::new(request);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        said(&backend);
        say(&backend, "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\nab");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        let mut finishing = pin!(exchange.finish());
        let mut context = Context::from_waker(Waker::noop());
        assert!(finishing.as_mut().poll(&mut context).is_pending());
        let _client = breaks(client);
        finishing.as_mut().poll(&mut context)
    }

    #[test]
    fn a_request_that_breaks_off_ends_its_response_at_once_and_is_the_clients_fault() {
        let sized = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab";
        let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
        for request in [sized, chunked] {
            let gone = Poll::Ready((200, Some(ProxyError::ClientClosed), Next::Abort));
            let resets = |client: Socket| {
                client.end_by_reset();
                None
            };
            let half_closes = |mut client: Socket| {
                half_close(&mut client);
                Some(client)
            };
            assert_eq!(after_broken(request, resets), gone, "{request}");
            assert_eq!(after_broken(request, |_| None), gone, "{request}");
            assert_eq!(after_broken(request, half_closes), gone, "{request}");
        }
        let spoilt = after_broken(chunked, |client| {
            say(&client, "zz\r\n");
            Some(client)
        });
        assert!(matches!(spoilt, Poll::Ready((200, Some(ProxyError::BadRequest(_)), Next::Abort))), "{spoilt:?}");
    }

    #[test]
    fn a_response_that_is_here_whole_is_forwarded_although_its_request_breaks_off() {
        let (mut stage, mut client) = Stage::with(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab",
            Shape { room: 64, ..Shape::default() },
        );
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        say(&backend, "HTTP/1.1 413 Too Large\r\nContent-Length: 100\r\n\r\n");
        say(&backend, &"x".repeat(100));
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        let mut finishing = pin!(exchange.finish());
        let mut context = Context::from_waker(Waker::noop());
        assert!(finishing.as_mut().poll(&mut context).is_pending(), "the client has not read");
        half_close(&mut client);
        let mut got = String::new();
        let done = loop {
            got.push_str(&said(&client));
            if let Poll::Ready(done) = finishing.as_mut().poll(&mut context) {
                break done;
            }
        };
        got.push_str(&said(&client));
        assert_eq!((done.0, done.1), (413, None));
        assert!(got.ends_with(&"x".repeat(100)), "{got}");
    }
}
