//! Trailers of bodies whose length was told, from HTTP/2 to HTTP/2: the text between the two has no place for them, so that they go
//! beside it.

use super::{Delivered, Exchange, TryError};
use crate::error::ProxyError;
use crate::snapshot::Snapshot;
use crate::stream::Stream;
use http::HeaderMap;
use std::task::{Context, Poll};

impl Exchange<'_> {
    /// Tells each side what the other can have, before anything is sent.
    pub(super) fn join_trailers(&mut self) {
        let Stream::Upstream(upstream) = &mut self.upstream.stream else { return };
        let Stream::Downstream(client) = &self.client.stream else { return };
        upstream.client_trails = true;
        upstream.holds_end = client.may_trail();
        upstream.length = client.length();
    }

    /// The answer is about to begin: whether trailers may follow it.
    pub(super) fn hold_answers_end(&self) {
        if let Stream::Downstream(client) = &self.client.stream {
            client.hold_end(matches!(&self.upstream.stream, Stream::Upstream(upstream) if upstream.may_trail()));
        }
    }

    /// Where the backend has ended its answer already, the end goes with the last byte.
    pub(super) fn release_answers_end(&self) {
        if let (Stream::Downstream(client), Stream::Upstream(upstream)) = (&self.client.stream, &self.upstream.stream)
            && !upstream.may_trail()
        {
            client.release_end();
        }
    }

    /// Ends the request's stream, once all of its body has been sent.
    pub(super) fn poll_requests_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TryError>> {
        let Stream::Upstream(upstream) = &mut self.upstream.stream else { return Poll::Ready(Ok(())) };
        let Some(end) = upstream.body_end() else { return Poll::Ready(Ok(())) };
        let Stream::Downstream(client) = &self.client.stream else { return Poll::Ready(Ok(())) };
        let trailers = match client.poll_trailers(context) {
            Poll::Ready(Ok(trailers)) => trailers,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(TryError::Downstream(ProxyError::ClientClosed))),
            Poll::Pending => return Poll::Pending,
        };
        // An error shows where the answer is read.
        let _ = end.end(passed(trailers, Some(&self.request.view.snapshot)));
        Poll::Ready(Ok(()))
    }

    /// Ends the answer's stream, once all of its body has been sent.
    pub(super) fn poll_answers_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Delivered>> {
        let (Stream::Downstream(client), Stream::Upstream(upstream)) = (&self.client.stream, &mut self.upstream.stream)
        else {
            return Poll::Ready(Ok(()));
        };
        if !client.awaits_end() {
            return Poll::Ready(Ok(()));
        }
        upstream.poll_trailers(context).map(|trailers| {
            let trailers = trailers.map_err(|_| Delivered::CutOff(ProxyError::ShortAnswer))?;
            client.end(passed(trailers, None)).map_err(|_| Delivered::ClientGone)
        })
    }
}

/// The fields that may be passed on: as of trailers in text. `snapshot`: they come from a client.
fn passed(trailers: HeaderMap, snapshot: Option<&Snapshot>) -> HeaderMap {
    let mut last = None;
    let all = trailers.into_iter().filter_map(|(name, value)| {
        last = name.or(last.take());
        Some((last.clone()?, value))
    });
    let may =
        |name: &[u8]| ringway_http1::may_trail(name) && !snapshot.is_some_and(|snapshot| snapshot.is_identity(name));
    let mut passed = HeaderMap::new();
    for (name, value) in all.filter(|(name, _)| may(name.as_str().as_bytes())) {
        passed.append(name, value);
    }
    passed
}
