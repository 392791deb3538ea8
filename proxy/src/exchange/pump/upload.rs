//! The way up: head, body, framing, as the backend takes them.

use super::super::repeatable;
use super::pace::{Party, Terms};
use super::{BULK_BYTES, Exchange, TryError, Upload};
use crate::error::ProxyError;
use crate::stream::Stream;
use ringway_http1::Progress;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

#[derive(Clone, Copy)]
enum Source {
    Head,
    Chunks,
    Body(usize),
}

impl Exchange<'_> {
    /// What is asked of a client that sends. Calls of gRPC may say little for long, and who has not begun may wait for a 100.
    fn reading_terms(&self) -> Terms {
        Terms::of_reading(self.client_timeouts(), self.body_begun && !self.request.grpc)
    }

    /// Moves the timer to where the upload's wait ends.
    pub(super) fn pace_upload(&mut self) {
        let terms = self.reading_terms();
        let party = if self.starved { Party::Client } else { Party::Backend };
        let moved = (self.request.report.received_bytes, std::mem::take(&mut self.upload_moved));
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

    /// From now on the answer is waited for, unless it has begun already.
    fn end_upload(&mut self, how: Upload) {
        self.upload = how;
        if how == Upload::Done {
            self.clock.handle_sent();
        }
        if self.status == 0 {
            self.client.timer.set_before(self.timeouts().response, self.limit);
        }
    }

    /// Sends the request, as far as both sides let it.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), TryError> {
        while self.upload == Upload::Sending {
            self.starved = false;
            if self.sent < self.request.out.len() {
                match self.write_up(context, Source::Head) {
                    Poll::Ready(count) => self.sent += count,
                    Poll::Pending => return Ok(()),
                }
            } else if self.chunks_sent < self.chunks.len() {
                match self.write_up(context, Source::Chunks) {
                    Poll::Ready(count) => self.chunks_sent += count,
                    Poll::Pending => return Ok(()),
                }
            } else if self.request.body.is_end() {
                if self.poll_requests_end(context)?.is_pending() {
                    self.starved = true;
                    return Ok(());
                }
                self.end_upload(Upload::Done);
            } else if !self.client.input.is_empty() {
                if let Some(available) = self.request.body.plain(self.client.input.len()) {
                    let taken = if self.keeps(available, available) {
                        self.request.out.extend_from_slice(&self.client.input.bytes()[..available]);
                        available
                    } else {
                        match self.write_up(context, Source::Body(available)) {
                            Poll::Ready(count) => count,
                            Poll::Pending => return Ok(()),
                        }
                    };
                    self.request.count_body(taken).map_err(TryError::Downstream)?;
                    self.request.body.advance(taken);
                    self.take_from_client(taken);
                } else {
                    let progress = self.take_chunks()?;
                    if progress.consumed == 0 && self.poll_client(context)?.is_pending() {
                        return Ok(());
                    }
                    if !self.chunks.is_empty() && self.keeps(progress.data, self.chunks.len()) {
                        self.request.out.extend_from_slice(&self.chunks);
                        self.chunks.clear();
                    }
                }
            } else if self.poll_client(context)?.is_pending() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what has come of a body in chunks, to be sent on.
    fn take_chunks(&mut self) -> Result<Progress, TryError> {
        if self.chunks.capacity() == 0 {
            self.chunks = self.client.open.worker.buffers.take_outgoing();
        }
        self.chunks.clear();
        self.chunks_sent = 0;
        let keep = |name: &[u8]| !self.request.planned.snapshot.is_identity(name);
        let (input, encoding) = (self.client.input.bytes(), self.request.encoding);
        let moved = self.request.body.transfer_with(input, &mut self.chunks, encoding, keep);
        let progress = moved.map_err(|error| TryError::Downstream(ProxyError::BadRequest(error)))?;
        self.request.count_body(progress.data).map_err(TryError::Downstream)?;
        self.take_from_client(progress.consumed);
        Ok(progress)
    }

    /// Whether so much of the body, with so many bytes, is sent from behind the head, where it is kept: because the request may be sent
    /// again, or its backend may say that it has not looked at it. If not, it cannot be told again from its start.
    fn keeps(&mut self, data: usize, bytes: usize) -> bool {
        let may = matches!(self.upstream.stream, Stream::Upstream(_)) || {
            let config = &self.request.view.services[self.request.service].service.config;
            repeatable(self.request, config) && config.retry.body_bytes_max > 0
        };
        if !may || self.status != 0 {
            self.request.replayable = false;
        }
        let keeps = self.request.keep(&self.client.open.worker, data, bytes);
        self.sent = self.sent.min(self.request.out.len());
        keeps
    }

    fn take_from_client(&mut self, count: usize) {
        self.client.input.consume(count);
        self.request.report.received_bytes += count as u64;
    }

    /// More of the request's body.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, TryError> {
        self.starved = true;
        let worker = &self.client.open.worker;
        if !self.client.input.is_allocated() {
            self.client.input = worker.buffers.take();
        } else if self.request.report.received_bytes > BULK_BYTES {
            worker.buffers.grow(&mut self.client.input);
        }
        let bytes_max = super::room(&self.client.input);
        match self.client.input.poll_read(&mut self.client.stream, bytes_max, context) {
            Poll::Ready(Ok(count)) if count > 0 => {
                worker.cells.received_bytes.add(count as u64);
                (self.upload_moved, self.body_begun) = (true, true);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(_) => Err(TryError::Downstream(ProxyError::ClientClosed)),
            Poll::Pending => {
                if self.client.input.is_empty() {
                    worker.buffers.give(std::mem::take(&mut self.client.input));
                }
                Ok(Poll::Pending)
            }
        }
    }

    fn write_up(&mut self, context: &mut Context<'_>, source: Source) -> Poll<usize> {
        let bytes = match source {
            Source::Head => &self.request.out[self.sent..],
            Source::Chunks => &self.chunks[self.chunks_sent..],
            Source::Body(available) => &self.client.input.bytes()[..available],
        };
        match Pin::new(&mut self.upstream.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.upload_moved = true;
                Poll::Ready(count)
            }
            Poll::Ready(_) => {
                // It may have answered before it closed: an early refusal of a long body, mostly.
                self.end_upload(Upload::Broken);
                Poll::Ready(0)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
