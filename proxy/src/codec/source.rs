//! What an exchange asks of an end, whatever its version: the body that comes from it, and what its failure says.

use crate::error::ProxyError;
use ringway_http1::{Encoding, Progress};
use ringway_message::{HeadWriter, ParseError};
use std::task::{Context, Poll};

/// What the exchange asks of an end about the body that comes from it.
pub(crate) trait Source {
    /// Whether no data are to come any more; trailers may.
    fn is_over(&self) -> bool;
    /// Whether nothing is to come any more, and nothing but data that are here has come.
    fn is_finished(&self) -> bool;
    /// Whether the data that are here are the last, and nothing follows them.
    fn ends_here(&self) -> bool;
    /// What of its data has not been taken, if its length is known.
    fn left(&self) -> Option<u64>;
    /// Does something with the data that are here, if they may be passed on as they stand; `None`: they are framed, and moved by
    /// [`Source::transfer`].
    fn with_data<T>(&self, doing: impl FnOnce(&[u8]) -> T) -> Option<T>;
    /// Takes data that [`Source::with_data`] has shown.
    fn consume(&mut self, count: usize);
    /// Moves what is here of the body behind `out`, its end included; `keep`: names of trailers that may go along.
    ///
    /// # Errors
    /// It is malformed; what was moved before is still good.
    fn transfer(
        &mut self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ParseError>;
    /// Ready once it is known whether trailers have come.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>>;
    /// Writes the trailers that have come and may be passed on.
    fn write_trailers(&mut self, out: &mut HeadWriter, keep: impl Fn(&[u8]) -> bool);
}

/// There is nobody at that end any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What is known of a try that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The backend has not looked at the request: it may be sent again, whatever it is.
    pub(crate) unprocessed: bool,
    /// The backend has refused it, and not for its connection's sake: another backend may take it.
    pub(crate) refused: bool,
    /// It was the connection's: another may fare better.
    pub(crate) disconnected: bool,
    /// It cannot be sent to this backend at all.
    pub(crate) unsendable: Option<ProxyError>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { unprocessed: false, refused: false, disconnected: true, unsendable: None }
    }
}
