//! The HTTP/1.1 end of an exchange.

use super::source::{Gone, Source};
use super::tunnel::Duplex;
use crate::net::buffers::Buffer;
use crate::net::stream::Stream;
use crate::net::transport::Transport;
use ringway_http1::{Body, Encoding, Progress, Resume};
use ringway_message::{HeadWriter, ParseError, may_trail};
use std::io;
use std::task::{Context, Poll};

/// A connection that speaks HTTP/1.1, and the body that is being read from it.
pub(crate) struct Http1 {
    pub(crate) stream: Stream,
    /// Bytes read and not yet consumed.
    pub(crate) input: Buffer,
    /// How far the body of the message under way has been read.
    pub(crate) body: Body,
    /// How far a head that is still incomplete has been parsed: the next request of a client, the response of a backend.
    pub(crate) resume: Resume,
    /// Trailer lines that came behind a chunked body which is forwarded without chunks.
    pub(crate) trailers: Vec<u8>,
}

impl Http1 {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: Buffer::default(), body: Body::Sized(0), resume: Resume::default(), trailers: Vec::new() }
    }

    /// Looks cut off to the other side from now on: a reset instead of an end.
    pub(super) fn abort(&mut self) {
        self.stream.abort();
    }
}

impl Source for Http1 {
    fn is_over(&self) -> bool {
        self.body.is_end()
    }

    fn is_finished(&self) -> bool {
        self.body.is_end() && self.trailers.is_empty()
    }

    fn ends_here(&self) -> bool {
        matches!(self.body, Body::Sized(left) if left <= self.input.len() as u64) && self.trailers.is_empty()
    }

    fn left(&self) -> Option<u64> {
        if let Body::Sized(left) = self.body { Some(left) } else { None }
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let count = self.body.plain(self.input.len())?;
        Some(doing(&self.input.bytes()[..count]))
    }

    fn consume(&mut self, count: usize) {
        self.body.advance(count);
        self.input.consume(count);
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        // Trailers are forwarded with chunks, and wait otherwise.
        let bytes = self.input.bytes();
        let progress = match (&self.body, encoding) {
            (Body::Chunked(_), Encoding::Identity) => {
                let mut whole = Progress::default();
                while !whole.done {
                    let rest = &bytes[whole.consumed..];
                    let (data, step) = self.body.next_data(rest, &mut self.trailers)?;
                    out.extend_from_slice(&rest[data]);
                    whole.consumed += step.consumed;
                    whole.data += step.data;
                    whole.done = step.done;
                    if step.data == 0 {
                        break;
                    }
                }
                whole
            }
            _ => self.body.transfer_with(bytes, out, encoding, keep)?,
        };
        self.input.consume(progress.consumed);
        Ok(progress)
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        for line in std::mem::take(&mut self.trailers).split_inclusive(|byte| *byte == b'\n') {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if may_trail(name) && keep(name) {
                out.append(line);
            }
        }
    }
}

impl Duplex for Http1 {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_fill(buffer, context)
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Duplex::poll_write(&mut self.stream, bytes, context)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Duplex::poll_shutdown(&mut self.stream, context)
    }

    fn poll_drive(&mut self, context: &mut Context<'_>) {
        self.stream.poll_drive(context);
    }

    fn plain(&self) -> Option<&Transport> {
        self.stream.plain()
    }
}
