//! The two ends of an exchange, in either version of HTTP: where a message comes from and where it goes.
//!
//! The differences between versions stop here: how a body is framed, how its end is signalled, what a failure means. The exchange reads
//! data, sends data, and signals ends and resets.

use super::http1::Http1;
use super::http2::{Downstream, Upstream};
use super::source::{Failure, Gone, Source};
use super::tunnel::Duplex;
use crate::net::buffers::Buffer;
use crate::net::transport::Transport;
use ringway_http1::{Encoding, Progress};
use ringway_message::{HeadWriter, ParseError};
use std::io;
use std::task::{Context, Poll};

/// The client's side.
pub(crate) enum ClientEnd {
    Http1(Http1),
    Http2(Downstream),
}

/// The backend's side.
pub(crate) enum BackendEnd {
    Http1(Http1),
    Http2(Box<Upstream>),
    /// Returned to the pool, or closed: the exchange needs it no more.
    Returned,
}

/// Runs the same expression on either version.
macro_rules! each {
    ($end:expr, $inner:ident => $run:expr) => {
        match $end {
            ClientEnd::Http1($inner) => $run,
            ClientEnd::Http2($inner) => $run,
        }
    };
}
macro_rules! each_backend {
    ($end:expr, $inner:ident => $run:expr, $otherwise:expr) => {
        match $end {
            BackendEnd::Http1($inner) => $run,
            BackendEnd::Http2($inner) => $run,
            BackendEnd::Returned => $otherwise,
        }
    };
}

impl ClientEnd {
    /// The connection, where it is this client's alone.
    #[inline]
    pub(crate) fn http1(&mut self) -> &mut Http1 {
        match self {
            Self::Http1(http1) => http1,
            Self::Http2(_) => unreachable!("invariant: asked for by who serves HTTP/1.1 alone"),
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// What follows must look cut off to the client: a reset instead of an end.
    pub(crate) fn abort(&mut self) {
        each!(self, end => end.abort());
    }
}

impl BackendEnd {
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// What follows must look cut off to the backend: a reset instead of an end.
    pub(crate) fn abort(&mut self) {
        match self {
            Self::Http1(http1) => http1.abort(),
            Self::Http2(upstream) => upstream.abort(),
            Self::Returned => {}
        }
    }

    /// How much of it has been read and not consumed.
    pub(crate) fn input_len(&self) -> usize {
        match self {
            Self::Http1(http1) => http1.input.len(),
            Self::Http2(upstream) => upstream.with_data(<[u8]>::len).unwrap_or_default(),
            Self::Returned => 0,
        }
    }

    pub(crate) fn has_input(&self) -> bool {
        self.input_len() > 0
    }

    /// What is known about a failed attempt beside its error.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Http1(_) | Self::Returned => Failure::default(),
            Self::Http2(upstream) => upstream.failure(),
        }
    }

    /// A deadline has passed while data were due: a shared connection may be dead.
    pub(crate) fn handle_timeout(&self) {
        match self {
            Self::Http2(upstream) => upstream.handle_timeout(),
            // Others are closed.
            Self::Http1(_) | Self::Returned => {}
        }
    }

    /// Whether an end that has come was declared by the backend. HTTP/2 declares how each stream ends.
    pub(crate) fn has_closed_cleanly(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.stream.has_closed_cleanly(),
            Self::Http2(_) | Self::Returned => true,
        }
    }
}

impl Source for ClientEnd {
    fn is_over(&self) -> bool {
        each!(self, end => end.is_over())
    }

    fn is_finished(&self) -> bool {
        each!(self, end => end.is_finished())
    }

    fn ends_here(&self) -> bool {
        each!(self, end => end.ends_here())
    }

    fn left(&self) -> Option<u64> {
        each!(self, end => end.left())
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        each!(self, end => end.with_data(doing))
    }

    fn consume(&mut self, count: usize) {
        each!(self, end => end.consume(count));
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        each!(self, end => end.transfer(out, encoding, keep))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        each!(self, end => end.poll_end(context))
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        each!(self, end => end.write_trailers(out, keep));
    }
}

impl Source for BackendEnd {
    fn is_over(&self) -> bool {
        each_backend!(self, end => end.is_over(), true)
    }

    fn is_finished(&self) -> bool {
        each_backend!(self, end => end.is_finished(), true)
    }

    fn ends_here(&self) -> bool {
        each_backend!(self, end => end.ends_here(), true)
    }

    fn left(&self) -> Option<u64> {
        each_backend!(self, end => end.left(), Some(0))
    }

    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T> {
        each_backend!(self, end => end.with_data(doing), None)
    }

    fn consume(&mut self, count: usize) {
        each_backend!(self, end => end.consume(count), ());
    }

    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError> {
        each_backend!(self, end => end.transfer(out, encoding, keep), Ok(Progress::default()))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        each_backend!(self, end => end.poll_end(context), Poll::Ready(Ok(())))
    }

    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool) {
        each_backend!(self, end => end.write_trailers(out, keep), ());
    }
}

impl Duplex for ClientEnd {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        each!(self, end => end.poll_fill(buffer, context))
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, end => end.poll_read_ready(context))
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        each!(self, end => end.poll_write(bytes, context))
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, end => end.poll_shutdown(context))
    }

    fn poll_drive(&mut self, context: &mut Context<'_>) {
        each!(self, end => end.poll_drive(context));
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        each!(self, end => end.poll_gone(context))
    }

    fn plain(&self) -> Option<&Transport> {
        each!(self, end => end.plain())
    }
}

impl Duplex for BackendEnd {
    fn poll_fill(&mut self, buffer: &mut Buffer, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        each_backend!(self, end => end.poll_fill(buffer, context), Poll::Ready(Ok(0)))
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_backend!(self, end => end.poll_read_ready(context), Poll::Ready(Ok(())))
    }

    fn poll_write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        each_backend!(self, end => end.poll_write(bytes, context), Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())))
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_backend!(self, end => end.poll_shutdown(context), Poll::Ready(Ok(())))
    }

    fn poll_drive(&mut self, context: &mut Context<'_>) {
        each_backend!(self, end => end.poll_drive(context), ());
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        each_backend!(self, end => end.poll_gone(context), Poll::Pending)
    }

    fn plain(&self) -> Option<&Transport> {
        each_backend!(self, end => end.plain(), None)
    }
}
