//! The way up: head and body of the request, in the framing that the backend gets.

use super::pace::{Party, Terms};
use super::state::{Exchange, Upload, room};
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::http1::Http1;
use crate::codec::source::{Gone, Source};
use crate::dispatcher::BULK_BYTES;
use crate::error::ProxyError;
use crate::exchange::mirror;
use crate::exchange::outcome::TryError;
use ringway_http1::{Encoding, Progress};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Where bytes on their way up are held.
#[derive(Clone, Copy)]
enum From {
    /// Head, and the part of the body that is kept with it.
    Out,
    /// Data in Ringway's own framing.
    Chunks,
    /// Data as the client has sent them.
    Client,
}

impl Exchange<'_> {
    /// Limits for a client that sends. gRPC calls may be silent for long, and a client that has not begun may wait for a 100.
    fn reading_terms(&self) -> Terms {
        Terms::of_reading(self.client_timeouts(), self.body_begun && !self.request.grpc)
    }

    /// Moves the timer to where the upload's wait ends.
    pub(super) fn pace_upload(&mut self) {
        let terms = self.reading_terms();
        let party = if self.starved { Party::Client } else { Party::Backend };
        let moved = (self.request.report.received_bytes, std::mem::take(&mut self.upload_moved));
        if moved.1 {
            self.request.entry.set_bytes(moved.0, self.request.report.sent_bytes);
        }
        let idle = self.timeouts().body_idle;
        self.upload_pace.wait(&self.client.timer, party, moved, (&terms, idle), self.limit);
    }

    /// The timer has fired while the upload waited. `None`: it waits on.
    pub(super) fn upload_timed_out(&mut self) -> Option<TryError> {
        let (terms, moved) = (self.reading_terms(), self.request.report.received_bytes);
        let over = self.upload_pace.is_over(&self.client.timer, moved, &terms, self.limit);
        over.then_some(if self.starved {
            TryError::Downstream(ProxyError::BodyTimeout)
        } else {
            TryError::Upstream(ProxyError::SendTimeout)
        })
    }

    /// From now on the response is waited for, unless it has begun already.
    fn end_upload(&mut self, how: Upload) {
        self.upload = how;
        if how == Upload::Done {
            self.attempt.clock.handle_sent();
        }
        if self.status == 0 {
            self.client.timer.set_before(self.timeouts().response, self.limit);
        }
    }

    /// Sends the request, as far as both sides allow.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), TryError> {
        while self.upload == Upload::Sending {
            self.starved = false;
            if self.sent < self.request.out.len() {
                match self.write_up(context, From::Out) {
                    Poll::Ready(count) => self.sent += count,
                    Poll::Pending => return Ok(()),
                }
            } else if self.chunks_sent < self.chunks.len() {
                match self.write_up(context, From::Chunks) {
                    Poll::Ready(count) => self.chunks_sent += count,
                    Poll::Pending => return Ok(()),
                }
            } else if self.is_request_over() {
                if self.poll_requests_end(context)?.is_pending() {
                    self.starved = true;
                    return Ok(());
                }
                mirror::copy_rest(self.client, self.request);
                self.sent = self.sent.min(self.request.out.len());
                self.end_upload(Upload::Done);
            } else {
                match self.take_from_client(context)? {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) if self.poll_client(context)?.is_ready() => {}
                    Poll::Ready(false) | Poll::Pending => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Whether all of the request body is on its way, and in chunks its end as well.
    fn is_request_over(&self) -> bool {
        self.client.end.is_over() && (!self.ends_in_chunks() || self.request.is_terminated)
    }

    /// Whether the body ends by a last chunk that is still to be written: over HTTP/1.1 it is part of what is read.
    fn ends_in_chunks(&self) -> bool {
        self.client.end.is_http2() && self.request.encoding == Encoding::Chunked
    }

    /// Moves the part of the body that has come. `false`: nothing has; it may wait for the backend.
    fn take_from_client(&mut self, context: &mut Context<'_>) -> Result<Poll<bool>, TryError> {
        let here = match (self.request.encoding, &self.client.end) {
            (Encoding::Identity, end) => end.with_data(<[u8]>::len),
            (Encoding::Chunked, _) => None,
        };
        match here {
            Some(0) => Ok(Poll::Ready(false)),
            Some(available) => {
                let taken = if self.keeps(available, available) {
                    let out = &mut self.request.out;
                    self.client.end.with_data(|data| out.extend_from_slice(data));
                    available
                } else {
                    match self.write_up(context, From::Client) {
                        Poll::Ready(count) => count,
                        Poll::Pending => return Ok(Poll::Pending),
                    }
                };
                self.request.count_body(taken).map_err(TryError::Downstream)?;
                self.client.end.consume(taken);
                self.request.report.received_bytes += taken as u64;
                self.body_begun |= taken > 0;
                Ok(Poll::Ready(true))
            }
            None => {
                let progress = self.take_framed()?;
                if !self.chunks.is_empty() && self.keeps(progress.data, self.chunks.len()) {
                    self.request.out.extend_from_slice(&self.chunks);
                    self.chunks.clear();
                }
                Ok(Poll::Ready(progress.consumed > 0 || progress.done))
            }
        }
    }

    /// Takes the part that has come of a body that changes its framing, to be forwarded.
    fn take_framed(&mut self) -> Result<Progress, TryError> {
        if self.chunks.capacity() == 0 {
            self.chunks = self.client.open.worker.buffers.take_outgoing();
        }
        self.chunks.clear();
        self.chunks_sent = 0;
        let rules = self.request.trailer_rules();
        let keep = |name: &[u8]| rules.keeps_of_request(name);
        let moved = self.client.end.transfer(&mut self.chunks, self.request.encoding, keep);
        let progress = moved.map_err(|error| TryError::Downstream(ProxyError::BadRequest(error)))?;
        self.request.is_terminated |= progress.done;
        self.request.count_body(progress.data).map_err(TryError::Downstream)?;
        self.request.report.received_bytes += progress.consumed as u64;
        self.body_begun |= progress.consumed > 0;
        Ok(progress)
    }

    /// Whether so much of the body, with so many bytes of framing, is kept behind the head and sent from there: because the request
    /// may be sent again, or its backend may report that it has not processed it. If not, it cannot be replayed from its start.
    fn keeps(&mut self, data: usize, bytes: usize) -> bool {
        let may = self.attempt.end.is_http2() || self.request.mirror.is_some() || {
            let config = &self.request.view.services[self.request.service].service.config;
            self.request.is_repeatable() && config.retry.body_bytes_max > 0
        };
        if !may || self.status != 0 {
            self.request.replayable = false;
        }
        let left = self.client.end.left();
        let keeps = self.request.keep(&self.client.open.worker, (data, bytes), left);
        self.sent = self.sent.min(self.request.out.len());
        keeps
    }

    /// More of the request body.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, TryError> {
        self.starved = true;
        let worker = &self.client.open.worker;
        let has_turn = self.upload_turn.poll(self.request.report.received_bytes, &worker.bulk, context);
        let gone = || Err(TryError::Downstream(ProxyError::ClientClosed));
        let Http1 { stream, input, .. } = match &mut self.client.end {
            ClientEnd::Http1(http1) => http1,
            ClientEnd::Http2(_) if !has_turn => return Ok(Poll::Pending),
            ClientEnd::Http2(stream) => {
                return match stream.poll_more(context) {
                    Poll::Ready(Ok(())) => {
                        (self.upload_moved, self.body_begun) = (true, true);
                        Ok(Poll::Ready(()))
                    }
                    Poll::Ready(Err(Gone)) => gone(),
                    Poll::Pending => Ok(Poll::Pending),
                };
            }
        };
        if !has_turn {
            if input.is_empty() {
                worker.buffers.give(std::mem::take(input));
            }
            return Ok(Poll::Pending);
        }
        if !input.is_allocated() {
            *input = worker.buffers.take();
        } else if self.request.report.received_bytes > BULK_BYTES {
            worker.buffers.grow(input);
        }
        let bytes_max = room(input);
        match input.poll_read(stream, bytes_max, context) {
            Poll::Ready(Ok(count)) if count > 0 => {
                worker.counters.received_bytes.add(count as u64);
                (self.upload_moved, self.body_begun) = (true, true);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(_) => gone(),
            Poll::Pending => {
                if input.is_empty() {
                    worker.buffers.give(std::mem::take(input));
                }
                Ok(Poll::Pending)
            }
        }
    }

    /// Ends the request, where its end needs more than its last byte.
    fn poll_requests_end(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, TryError> {
        let BackendEnd::Http2(upstream) = &mut self.attempt.end else { return Ok(Poll::Ready(())) };
        if upstream.is_told() || self.request.upgrade {
            return Ok(Poll::Ready(()));
        }
        match self.client.end.poll_end(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Gone)) => return Err(TryError::Downstream(ProxyError::ClientClosed)),
            Poll::Pending => return Ok(Poll::Pending),
        }
        self.request.take_trailers(&mut self.client.end);
        let block = &mut self.client.open.worker.scratch.borrow_mut().block;
        // An error shows where the response is read.
        let (Ok(()) | Err(Gone)) = upstream.end(&self.request.trailers, block);
        Ok(Poll::Ready(()))
    }

    fn write_up(&mut self, context: &mut Context<'_>, from: From) -> Poll<usize> {
        let Self { client, request, attempt, chunks, .. } = self;
        // Whether the end goes with the last of it.
        let finished = !request.upgrade && request.trailers.lines().is_empty();
        let written = match (&mut attempt.end, from) {
            (BackendEnd::Http2(stream), From::Out) if !stream.is_open() => {
                let ends = finished && client.end.is_finished() && request.out.len() == request.head_len;
                let block = &mut client.open.worker.scratch.borrow_mut().block;
                Poll::Ready(stream.open(&request.outgoing(), ends, block).map(|()| request.head_len))
            }
            (BackendEnd::Http2(stream), from) => {
                let (ends, finishes) = (client.end.ends_here(), client.end.is_finished());
                match from {
                    From::Out => stream.poll_send(&request.out[self.sent..], finished && finishes, context),
                    From::Chunks => stream.poll_send(&chunks[self.chunks_sent..], finished && finishes, context),
                    From::Client => client
                        .end
                        .with_data(|data| stream.poll_send(data, finished && ends, context))
                        .unwrap_or(Poll::Ready(Ok(0))),
                }
            }
            (BackendEnd::Http1(http1), from) => {
                let mut write = |bytes: &[u8]| match Pin::new(&mut http1.stream).poll_write(context, bytes) {
                    Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Ok(count)),
                    Poll::Ready(_) => Poll::Ready(Err(Gone)),
                    Poll::Pending => Poll::Pending,
                };
                match from {
                    From::Out => write(&request.out[self.sent..]),
                    From::Chunks => write(&chunks[self.chunks_sent..]),
                    From::Client => client.end.with_data(write).unwrap_or(Poll::Ready(Ok(0))),
                }
            }
            (BackendEnd::Returned, _) => Poll::Ready(Err(Gone)),
        };
        match written {
            Poll::Ready(Ok(count)) => {
                self.upload_moved = true;
                Poll::Ready(count)
            }
            Poll::Ready(Err(Gone)) => {
                // It may have responded before it closed: mostly an early response to a long body.
                self.end_upload(Upload::Broken);
                Poll::Ready(0)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::state::Upload;
    use super::super::testing::{Stage, respond, said, say};
    use std::task::Poll;

    #[test]
    fn a_body_goes_up_as_it_comes_and_in_the_framing_that_it_came_in() {
        for (head, pieces, ends) in [
            ("Content-Length: 5", ["ab", "cde"], "cde"),
            ("Transfer-Encoding: chunked", ["2\r\nab\r\n", "3\r\ncde\r\n0\r\n\r\n"], "0\r\n\r\n"),
        ] {
            let (mut stage, client) = Stage::new(&format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"));
            let (attempt, backend) = stage.attempt(false);
            let (mut exchange, _) = stage.exchange(attempt);
            assert!(respond(&mut exchange).is_pending());
            assert!(said(&backend).ends_with("\r\n\r\n"), "its head does not wait");
            for (piece, upload) in pieces.iter().zip([Upload::Sending, Upload::Done]) {
                say(&client, piece);
                assert!(respond(&mut exchange).is_pending());
                assert_eq!(said(&backend), *piece);
                assert_eq!(exchange.upload, upload);
            }
            assert!(pieces[1].ends_with(ends));
        }
    }

    #[test]
    fn a_backend_that_responds_before_the_body_is_there_has_its_response_forwarded() {
        let (mut stage, _client) = Stage::new("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        said(&backend);
        say(&backend, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        assert_eq!((exchange.status, exchange.upload), (413, Upload::Sending));
        assert!(!exchange.client_keep_alive, "the rest of the body stands before the next request");
    }

    #[test]
    fn a_backend_that_takes_no_more_of_the_body_may_still_have_responded() {
        let (mut stage, client) = Stage::new("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        said(&backend);
        say(&backend, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        backend.end_by_reset();
        drop(backend);
        say(&client, "abcde");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        assert_eq!((exchange.status, exchange.upload), (403, Upload::Broken));
    }
}
