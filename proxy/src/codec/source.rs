//! What an exchange needs to know of an end, whatever its version: the body that comes from it, and the meaning of its failures.

use crate::error::ProxyError;
use ringway_http1::{Encoding, Progress};
use ringway_message::{HeadWriter, ParseError};
use std::task::{Context, Poll};

/// What an exchange needs to know about the body that comes from an end.
pub(crate) trait Source {
    /// Whether no data are to come any more; trailers may.
    fn is_over(&self) -> bool;
    /// Whether nothing is to come any more, and nothing but data that are here has come.
    fn is_finished(&self) -> bool;
    /// Whether the data that are here are the last, and nothing follows them.
    fn ends_here(&self) -> bool;
    /// How much of its data has not been taken, if its length is known.
    fn left(&self) -> Option<u64>;
    /// Runs a function on the data that are here, if they may be forwarded as they stand; `None`: they are framed, and moved by
    /// [`Source::transfer`].
    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T>;
    /// Takes data that [`Source::with_data`] has shown.
    fn consume(&mut self, count: usize);
    /// Moves the part of the body that is here behind `out`, its end included; `keep`: names of trailers that may be forwarded.
    ///
    /// # Errors
    /// It is malformed; what was moved before is still valid.
    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError>;
    /// Ready once it is known whether trailers have come.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>>;
    /// Writes the trailers that have come and may be forwarded.
    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool);
}

/// That end is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What is known about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The backend has not processed the request: it may be sent again, whatever it is.
    pub(crate) unprocessed: bool,
    /// The backend has refused it, and not because of its connection: another backend may take it.
    pub(crate) refused: bool,
    /// The connection was the cause: another may work.
    pub(crate) disconnected: bool,
    /// It cannot be sent to this backend at all.
    pub(crate) unsendable: Option<ProxyError>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { unprocessed: false, refused: false, disconnected: true, unsendable: None }
    }
}
