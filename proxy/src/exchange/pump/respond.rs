//! Until the response can be forwarded: the request goes up, and what comes is read.

use super::head::Kind;
use super::state::{Exchange, Upload, WHOLE_BYTES_MAX, WHOLE_WAIT};
use crate::codec::source::Source;
use crate::codec::tunnel::Duplex;
use crate::error::ProxyError;
use crate::exchange::attempt::Part;
use crate::exchange::outcome::{TryError, timed_out};
use ringway_http1::Encoding;
use std::task::{Context, Poll};

impl Exchange<'_> {
    /// Sends the request and waits until the response can be forwarded.
    pub(in crate::exchange) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TryError>> {
        let polled = self.poll_try(context);
        if let Poll::Ready(Err(TryError::Upstream(error))) = polled {
            let clock = &mut self.attempt.clock;
            if error != ProxyError::ResponseTimeout {
                // How fast an attempt fails says nothing about how fast it would have had a response.
                clock.forget();
            } else if timed_out(error, &self.client.open.worker, self.request.limit) == error {
                clock.handle_timeout();
            }
        }
        polled
    }

    pub(super) fn poll_try(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TryError>> {
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
            match self.take_response() {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(TryError::Upstream(error))),
            }
        }
        self.attempt.end.poll_drive(context);
        // Informational responses are flushed at once.
        if self.status == 0 && self.poll_send_response(context).is_err() {
            return Poll::Ready(Err(TryError::Downstream(ProxyError::ClientClosed)));
        }
        if self.poll_left(context, self.request.may_half_close()).is_ready() {
            return Poll::Ready(Err(TryError::Downstream(ProxyError::ClientClosed)));
        }
        while self.client.timer.poll_fired(context) {
            if self.holding {
                // Buffered for long enough: what is here goes out, the rest follows as it comes.
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

    /// The backend did not act in time: perhaps because the connection to it is dead, and then for other streams too.
    pub(super) fn handle_timeout(&self) {
        let this = &self.request.view.services[self.request.service];
        let upstream = self.request.report.backend.map(|backend| &*this.upstreams[backend]);
        self.attempt.handle_timeout(self.status != 0, upstream, &self.client.open.worker);
    }

    /// Looks at what has come. `Ok(true)`: the response can be forwarded now.
    pub(super) fn take_response(&mut self) -> Result<bool, ProxyError> {
        if self.holding {
            return self.take_held_body();
        }
        loop {
            match self.take_head()? {
                None => return Ok(false),
                Some(Kind::Informational) => {}
                Some(Kind::Final) => break,
            }
            if self.attempt.end.is_http2() {
                // The next one is waited for.
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
    pub(super) fn take_held_body(&mut self) -> Result<bool, ProxyError> {
        self.take_body()?;
        let whole = self.attempt.end.is_over();
        if whole {
            self.holding = false;
        }
        Ok(whole)
    }

    /// Moves body bytes from the backend behind those already on their way down.
    pub(super) fn take_body(&mut self) -> Result<(), ProxyError> {
        if self.status == 101 || self.is_body_done() {
            return Ok(());
        }
        let (end, out) = (&mut self.attempt.end, self.answer.text_mut());
        let rules = self.request.trailer_rules();
        let keep = |name: &[u8]| rules.keeps_of_response(name);
        let progress = match &mut self.compressor {
            None => end.transfer(out, self.encoding, keep).map_err(ProxyError::UnfitResponse)?,
            Some(compressor) => compressor.transfer(end, out, keep)?,
        };
        self.delivered += progress.data as u64;
        self.terminated |= progress.done;
        Ok(())
    }

    /// Whether all of the body is on its way down, and in chunks its end as well.
    pub(super) fn is_body_done(&self) -> bool {
        match (&self.compressor, self.encoding) {
            (Some(compressor), _) => compressor.has_ended(),
            (None, Encoding::Chunked) => self.terminated,
            (None, Encoding::Identity) => self.attempt.end.is_over(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::state::WHOLE_WAIT;
    use super::super::testing::{GET, Stage, respond, said, say};
    use crate::error::ProxyError;
    use ringway_message::ParseError;
    use std::task::Poll;
    use std::time::Duration;

    #[test]
    fn a_small_response_is_forwarded_once_all_of_it_is_here() {
        let (mut stage, client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        assert!(said(&backend).starts_with("GET / HTTP/1.1\r\n"));
        say(&backend, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
        assert!(respond(&mut exchange).is_pending());
        say(&backend, "cd");
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        assert_eq!((exchange.status, said(&client)), (200, String::new()));
        assert!(exchange.answer.text().ends_with(b"\r\n\r\nabcd"));
    }

    #[test]
    fn a_small_response_that_stalls_is_held_for_a_moment_only() {
        let (mut stage, _client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, rig) = stage.exchange(attempt);
        say(&backend, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
        assert!(respond(&mut exchange).is_pending());
        rig.pass(10 * WHOLE_WAIT);
        assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())));
        assert!(exchange.answer.text().ends_with(b"\r\n\r\nab"));
    }

    #[test]
    fn a_long_response_is_forwarded_with_its_head() {
        for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let (mut stage, _client) = Stage::new(GET);
            let (attempt, backend) = stage.attempt(false);
            let (mut exchange, _) = stage.exchange(attempt);
            say(&backend, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
            assert_eq!(respond(&mut exchange), Poll::Ready(Ok(())), "{head}");
        }
    }

    #[test]
    fn informational_responses_are_forwarded_at_once() {
        let (mut stage, client) = Stage::new(GET);
        let (attempt, backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        say(&backend, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        assert!(respond(&mut exchange).is_pending());
        assert_eq!(said(&client), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        assert_eq!(exchange.status, 0);
    }

    #[test]
    fn how_far_a_response_had_come_tells_what_has_failed() {
        for (text, error) in [
            ("", ProxyError::UpstreamClosed),
            ("HTTP/1.1 20", ProxyError::ShortResponse),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", ProxyError::ShortResponse),
            ("SSH-2.0-x\r\n\r\n", ProxyError::BadResponse(ParseError::Version)),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
                ProxyError::UnfitResponse(ParseError::UnexpectedUpgrade),
            ),
        ] {
            let (mut stage, client) = Stage::new(GET);
            let (attempt, backend) = stage.attempt(false);
            let (mut exchange, _) = stage.exchange(attempt);
            // What is answered before it is asked for would be read as what a reset has cut off.
            assert!(respond(&mut exchange).is_pending());
            said(&backend);
            if !text.is_empty() {
                say(&backend, text);
            }
            drop(backend);
            let found = respond(&mut exchange);
            match (found, error) {
                (Poll::Ready(Err(("backend", ProxyError::BadResponse(_)))), ProxyError::BadResponse(_)) => {}
                (found, error) => assert_eq!(found, Poll::Ready(Err(("backend", error))), "{text}"),
            }
            assert_eq!(said(&client), "", "another backend may be tried");
        }
    }

    #[test]
    fn a_client_that_leaves_ends_the_attempt_and_is_its_own_fault() {
        let (mut stage, client) = Stage::new(GET);
        let (attempt, _backend) = stage.attempt(false);
        let (mut exchange, _) = stage.exchange(attempt);
        assert!(respond(&mut exchange).is_pending());
        drop(client);
        assert_eq!(respond(&mut exchange), Poll::Ready(Err(("client", ProxyError::ClientClosed))));
    }

    #[test]
    fn the_side_that_is_waited_for_is_the_one_that_is_timed_out() {
        let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
        for (request, error) in
            [(GET, ("backend", ProxyError::ResponseTimeout)), (put, ("client", ProxyError::BodyTimeout))]
        {
            let (mut stage, _client) = Stage::new(request);
            let (attempt, _backend) = stage.attempt(false);
            let (mut exchange, rig) = stage.exchange(attempt);
            assert!(respond(&mut exchange).is_pending());
            rig.pass(Duration::from_secs(3600));
            assert_eq!(respond(&mut exchange), Poll::Ready(Err(error)));
        }
    }
}
