//! Whether a client is still connected during work that does not read from it: a wait in the queue, for a connection, for a response,
//! between two attempts. No work goes on for a client that has left.

use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::codec::http2::Downstream;
use crate::dispatcher::Dispatcher;
use crate::error::ProxyError;
use crate::net::buffers::{Buffer, SMALL_BYTES};
use crate::net::stream::Stream;
use crate::planted::{self, Fault};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

/// Bytes that a client may have sent ahead and that are read, so that its end is seen behind them.
const AHEAD_BYTES_MAX: usize = SMALL_BYTES;

/// The part of a client's connection that shows whether the client is connected. The rest can be used meanwhile.
pub(crate) struct Presence<'a> {
    pub(crate) line: Line<'a>,
    /// Whether the end of its input has been seen.
    pub(crate) ended: &'a mut bool,
    pub(crate) dispatcher: &'a Dispatcher,
    /// Whether a client that has half-closed may still want its response.
    pub(crate) may_end: bool,
}

/// Where a client's end is seen.
pub(crate) enum Line<'a> {
    /// A connection that is read ahead, into a buffer.
    Bytes(&'a mut Stream, &'a mut Buffer),
    /// A stream of HTTP/2, which the client resets to leave; its end alone does not mean that.
    Stream(&'a Downstream),
}

impl<'a> From<&'a mut ClientEnd> for Line<'a> {
    fn from(end: &'a mut ClientEnd) -> Self {
        match end {
            ClientEnd::Http1(Http1 { stream, input, .. }) => Self::Bytes(stream, input),
            ClientEnd::Http2(stream) => Self::Stream(stream),
        }
    }
}

impl Presence<'_> {
    /// Ready once the client has left: its connection has failed, or ended where that means the same. What it sends meanwhile
    /// waits in its input.
    pub(crate) fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if planted::is_planted(Fault::ClientCloseMissed) {
            return Poll::Pending;
        }
        if *self.ended {
            return if self.may_end { Poll::Pending } else { Poll::Ready(()) };
        }
        let (stream, input) = match &mut self.line {
            Line::Bytes(stream, input) => (stream, input),
            Line::Stream(stream) => return stream.poll_left(context),
        };
        loop {
            if !input.is_allocated() {
                // A silent client costs no buffer.
                match stream.poll_read_ready(context) {
                    Poll::Ready(Ok(())) => **input = self.dispatcher.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if input.len() >= AHEAD_BYTES_MAX {
                return Poll::Pending;
            }
            match input.poll_read(stream, AHEAD_BYTES_MAX, context) {
                Poll::Ready(Ok(0)) => {
                    *self.ended = true;
                    return if self.may_end { Poll::Pending } else { Poll::Ready(()) };
                }
                Poll::Ready(Ok(count)) => self.dispatcher.counters.received_bytes.add(count as u64),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    if input.is_empty() {
                        self.dispatcher.buffers.give(std::mem::take(*input));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Runs a future for the client as long as it is connected.
    ///
    /// # Errors
    /// [`ProxyError::ClientClosed`]: it has left, and the future is dropped.
    pub(crate) async fn during<T>(mut self, doing: impl Future<Output = T>) -> Result<T, ProxyError> {
        let mut doing = pin!(doing);
        poll_fn(|context| {
            if let Poll::Ready(done) = doing.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            self.poll_left(context).map(|()| Err(ProxyError::ClientClosed))
        })
        .await
    }
}
