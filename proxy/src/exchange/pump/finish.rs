//! How an exchange ends: the response forwarded or discarded, both connections settled.

use super::deliver::Delivered;
use super::pace::Pace;
use super::state::{Exchange, Place, Upload};
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::http1::Http1;
use crate::codec::tunnel::{self, Direction};
use crate::error::ProxyError;
use crate::exchange::attempt::Attempt;
use crate::exchange::outcome::Next;
use crate::net::buffers::Buffer;
use ringway_http1::{Body, Encoding};
use std::future::poll_fn;
use std::rc::Rc;

impl Exchange<'_> {
    /// The response is perhaps not forwarded, because a retry follows: it is reported to the detector at once, and a backend whose
    /// response is complete is released.
    pub(in crate::exchange) fn handle_unwanted(&mut self) {
        if self.is_read_to_its_end() {
            self.settle();
        } else if let Some(place) = &mut self.place {
            place.report();
        }
    }

    /// Forwards the response, and settles both connections.
    pub(in crate::exchange) async fn finish(&mut self) -> (u16, Option<ProxyError>, Next) {
        // The response has begun: the request is not sent again.
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
                // The client must not take half a response for a whole one: reset instead of a plain end.
                self.client.end.abort();
                (Some(error), Next::Abort)
            }
            Delivered::ClientGone => (Some(ProxyError::ClientClosed), Next::Abort),
            Delivered::ClientStalled => {
                // Data that the kernel still holds for it are dropped at once.
                self.client.end.abort();
                (Some(ProxyError::ClientStalled), Next::Abort)
            }
        };
        self.release_buffers();
        (status, error, next)
    }

    /// Whether the client has sent nothing behind its request.
    pub(super) fn has_nothing_ahead(&self) -> bool {
        match &self.client.end {
            ClientEnd::Http1(http1) => http1.input.is_empty(),
            ClientEnd::Http2(_) => true,
        }
    }

    /// Whether all of the response has been read, so that the backend has nothing left to do, however much the client has received.
    pub(super) fn is_read_to_its_end(&self) -> bool {
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

    /// The backend's part is over: its connection is free for others, and so is its reservation, in this order. A client that has
    /// the end of the response may rely on it.
    pub(super) fn settle(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        place.report();
        let Place { guard: _guard, upstream, .. } = place;
        let BackendEnd::Http1(Http1 { input, body, .. }) = &self.attempt.end else { return };
        let left = if let Body::Sized(left) = *body { left } else { 0 };
        let clean = self.upload == Upload::Done && input.len() as u64 == left;
        let config = &self.request.view.services[self.request.service].service.config;
        // A PROXY header has named this client to the backend: no other client's requests go there.
        let keeps = clean && self.upstream_keep_alive && config.proxy_protocol.is_none();
        self.attempt.give_back(keeps, &upstream, config.pool.idle_max, &self.client.open.worker);
    }

    /// Both connections are one tunnel now.
    pub(super) async fn tunnel(&mut self) {
        let worker = Rc::clone(&self.client.open.worker);
        let ahead = match &mut self.client.end {
            ClientEnd::Http1(http1) => std::mem::take(&mut http1.input),
            ClientEnd::Http2(_) => Buffer::default(),
        };
        let mut up = Direction::new(ahead);
        let mut down = Direction::new(self.upstream_input());
        let timeouts = self.timeouts();
        let limits = tunnel::Limits { idle: timeouts.idle, session: self.client.timer.deadline(timeouts.session) };
        let (client, timer) = (&mut self.client.end, &self.client.timer);
        let end = tunnel::relay(client, &mut self.attempt.end, &mut up, &mut down, &worker, timer, &limits).await;
        if end == tunnel::End::Reset {
            // If one side has reset, the other must not see a clean end.
            self.client.end.abort();
            self.attempt.end.abort();
        }
        self.request.report.received_bytes += up.moved;
        self.request.report.sent_bytes += down.moved;
    }

    /// Goes on with another connection, on which the same request has been sent whole, and whose response head has been read. Of a
    /// response that had begun on the first one, only informational responses remain that the client has a part of.
    pub(in crate::exchange) fn replace(&mut self, mut attempt: Attempt) {
        self.handle_unwanted();
        let worker = Rc::clone(&self.client.open.worker);
        worker.buffers.give(self.upstream_input());
        attempt.begin_again();
        // Dropped, its clock reports how long the first attempt has lasted.
        self.attempt = attempt;
        self.place = None;
        self.answer.truncate(if self.answered > 0 { self.informational_bytes } else { 0 }, 0);
        self.informational_bytes = self.answer.text().len();
        (self.status, self.delivered) = (0, 0);
        (self.encoding, self.terminated, self.compressor) = (Encoding::Identity, false, None);
        (self.upstream_keep_alive, self.client_keep_alive, self.holding) = (false, false, false);
        self.retry_after = None;
        self.unseen = true;
        self.sent = self.request.out.len();
        self.upload = Upload::Done;
        self.client.timer.set_before(self.timeouts().response, self.limit);
    }

    /// Discards the response before any of it was forwarded, and keeps the connection if it is whole.
    pub(in crate::exchange) fn discard(mut self) {
        self.handle_unwanted();
        self.release_buffers();
        // The connection first: the request that gets the reservation may open another.
        let Self { attempt, place, .. } = self;
        drop((attempt, place));
    }

    /// Returns the buffers and closes the backend's connection.
    pub(in crate::exchange) fn release(mut self) {
        self.release_buffers();
    }
}
