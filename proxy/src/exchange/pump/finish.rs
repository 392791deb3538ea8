//! How an exchange ends: the response forwarded or discarded, both connections settled.

use super::deliver::Delivered;
use super::pace::Pace;
use super::state::{Exchange, Place, Upload};
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::grpc::GRPC_STATUS;
use crate::codec::http1::Http1;
use crate::codec::tunnel::{self, Direction};
use crate::dispatcher::{BulkTurn, SessionState};
use crate::error::ProxyError;
use crate::exchange::attempt::Attempt;
use crate::exchange::outcome::Next;
use crate::net::buffers::Buffer;
use ringway_http1::{Body, Encoding};
use ringway_message::Method;
use std::future::poll_fn;
use std::rc::Rc;

impl Exchange<'_> {
    /// The response is perhaps not forwarded, because a retry follows: it is reported to the detector at once, and a backend whose
    /// response is complete is released.
    pub(in crate::exchange) fn handle_unwanted(&mut self) {
        if self.is_read_to_its_end() {
            self.settle();
            self.request.count_try();
        } else if let Some(place) = &mut self.place {
            place.report();
        }
    }

    /// Forwards the response, and settles both connections.
    pub(in crate::exchange) async fn finish(&mut self) -> (u16, Option<ProxyError>, Next) {
        self.request.entry.set_state(SessionState::Responding);
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
                    (false, Upload::Done) if self.has_nothing_ahead() => {
                        // Some clients send a line's end behind a body (RFC 9112, 2.2), which may be on its way.
                        let asked =
                            !self.request.keep_alive && matches!(self.request.method, Method::Get | Method::Head);
                        if asked { Next::CloseAsAsked } else { Next::Close }
                    }
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
            Delivered::Spoilt(error) => {
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
        self.upload == Upload::Done && self.status != 101 && self.is_response_read()
    }

    /// Whether all of the response has been read, be the request sent or not.
    pub(super) fn is_response_read(&self) -> bool {
        match &self.attempt.end {
            BackendEnd::Http1(Http1 { input, body, .. }) => match *body {
                Body::Sized(left) => left <= input.len() as u64,
                _ => body.is_end(),
            },
            BackendEnd::Http2(upstream) => upstream.is_received(),
            BackendEnd::Returned => true,
        }
    }

    /// The backend's part is over: its connection is free for others, and so is its reservation, in this order. A client that has
    /// the end of the response may rely on it.
    pub(super) fn settle(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        // What has become of a call stands behind its body, which the client may take its time to read: the backend does not wait for that.
        if self.request.awaits_grpc()
            && let BackendEnd::Http2(upstream) = &self.attempt.end
        {
            let request = &mut *self.request;
            upstream.with_trailer(GRPC_STATUS, |status| request.note_grpc(|| Some(status)));
        }
        let counted = self.request.counted_status(self.status);
        if counted != self.status {
            place.judge(counted);
        }
        place.report();
        // Counted with the end of the request, which is near, or when it is seen that it is not.
        self.request.ended_try = place.guard.end_try();
        let Place { guard: _guard, upstream, .. } = place;
        let BackendEnd::Http1(Http1 { input, body, .. }) = &self.attempt.end else { return };
        let left = if let Body::Sized(left) = *body { left } else { 0 };
        let clean = self.upload == Upload::Done && input.len() as u64 == left;
        let config = &self.request.view.services[self.request.service].service.config;
        // A PROXY header has named this client to the backend: no other client's requests go there.
        let keeps = clean && self.upstream_keep_alive && config.proxy_protocol.is_none();
        self.attempt.give_back(keeps, &upstream, &config.pool, &self.client.open.worker);
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
        let (received_bytes, sent_bytes) = (self.request.report.received_bytes, self.request.report.sent_bytes);
        let entry = &self.request.entry;
        entry.set_state(SessionState::Relaying);
        let tell = |up, down| entry.set_bytes(received_bytes + up, sent_bytes + down);
        let end =
            tunnel::relay(client, &mut self.attempt.end, (&mut up, &mut down), &worker, timer, &limits, tell).await;
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
        (self.status, self.delivered, self.delivery_turn) = (0, 0, BulkTurn::default());
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::Exchange;
    use super::super::testing::{GET, Stage, respond, said, say};
    use super::Next;
    use crate::error::ProxyError;
    use crate::net::transport::memory::Shape;
    use crate::upstream::search;
    use ringway_health::Outcome;
    use ringway_ring::Selection;
    use std::future::Future;
    use std::pin::pin;
    use std::rc::Rc;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::{Context, Poll, Waker};

    const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

    fn finish(exchange: &mut Exchange<'_>) -> Poll<(u16, Option<ProxyError>, Next)> {
        pin!(exchange.finish()).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_the_clients_connection_does_next_follows_from_both_messages() {
        let pipelined = format!("{CLOSE}GET /next");
        let old = "GET / HTTP/1.0\r\n\r\n";
        let unsent = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
        let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for (request, response, next) in [
            (GET, WHOLE, Next::Request),
            (GET, chunked, Next::Request),
            (CLOSE, WHOLE, Next::CloseAsAsked),
            // Closed at once, it would be reset, and the response lost.
            (&pipelined, WHOLE, Next::Linger),
            (unsent, refusal, Next::Linger),
            (old, WHOLE, Next::CloseAsAsked),
            (old, chunked, Next::CloseAsAsked),
        ] {
            for drains in [false, true] {
                let (mut stage, client) = Stage::new(request);
                if drains {
                    stage.rig.worker.set_draining();
                }
                // A client that has not asked for an end may have sent its next request.
                let next = if drains && next == Next::Request { Next::Close } else { next };
                let (attempt, backend) = stage.attempt(false);
                let (mut exchange, _) = stage.exchange(attempt);
                assert!(respond(&mut exchange).is_pending());
                say(&backend, response);
                assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
                let status = response[9..12].parse().unwrap();
                assert_eq!(finish(&mut exchange), Poll::Ready((status, None, next)), "{request} {response}");
                assert_eq!(said(&client).contains("connection: close"), next != Next::Request, "{request} {response}");
            }
        }
    }

    #[test]
    fn a_response_that_is_cut_off_is_reset_towards_the_client() {
        for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let (mut stage, client) = Stage::new(GET);
            let (attempt, backend) = stage.attempt(false);
            let (mut exchange, _) = stage.exchange(attempt);
            assert!(respond(&mut exchange).is_pending());
            said(&backend);
            say(&backend, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\nab\r\n"));
            drop(backend);
            assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
            let cut = Poll::Ready((200, Some(ProxyError::ShortResponse), Next::Abort));
            assert_eq!(finish(&mut exchange), cut, "{head}");
            assert!(said(&client).starts_with("HTTP/1.1 200 OK\r\n"));
            drop(stage);
            let end = client.try_read(&mut [0; 8]).unwrap_err();
            assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{head}");
        }
    }

    #[test]
    fn a_backend_is_free_once_its_response_has_been_read_however_slowly_the_client_reads() {
        let (mut stage, client) = Stage::with(GET, Shape { room: 64, ..Shape::default() });
        let (attempt, backend) = stage.attempt(false);
        let view = stage.rig.worker.view();
        let in_flight = || view.services[0].service.live.total.sum();
        let mut selection: Selection = view.services[0].service.backend_set.begin(ringway_ring::PickContext::default());
        let mut guard = search::acquire_now(&view, 0, &mut selection, 0).unwrap();
        guard.begin_try(crate::ambient::now(), None);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        let body = "x".repeat(5_000);
        say(&backend, &format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{body}"));
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        exchange.take_place(guard, &Rc::clone(&view.services[0].upstreams[0]), Outcome::Status(200));
        let this = &view.services[0];
        let retrying = || this.service.live.retrying.load(SeqCst);
        assert!(exchange.request.retries.take(this, &exchange.client.open.worker));
        assert!(exchange.request.admission.is_some());
        assert_eq!((in_flight(), retrying()), (1, 1));
        let mut finishing = pin!(exchange.finish());
        let mut context = Context::from_waker(Waker::noop());
        assert!(finishing.as_mut().poll(&mut context).is_pending(), "the client has not read");
        assert_eq!((in_flight(), retrying()), (0, 0));
        let counted = || this.upstreams[0].counters.responses[2].get();
        assert_eq!(counted(), 1, "what follows is the client's time, not the backend's");
        let mut got = String::new();
        let done = loop {
            got.push_str(&said(&client));
            if let Poll::Ready(done) = finishing.as_mut().poll(&mut context) {
                break done;
            }
        };
        got.push_str(&said(&client));
        assert_eq!(done, (200, None, Next::Request));
        assert!(got.ends_with(&body));
        assert_eq!(counted(), 1);
    }
}
