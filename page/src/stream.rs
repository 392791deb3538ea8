//! The body of a stream of events.

use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Messages as they come, until whoever sends them ends.
#[derive(Debug)]
pub struct Stream(mpsc::Receiver<Bytes>);

impl Stream {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self(receiver)
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}
