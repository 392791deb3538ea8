//! The client's side of an exchange: its end, and how it is seen that the client is still connected.

use crate::codec::encoded_reply::EncodedReply;
use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::codec::presence::Presence;
use crate::codec::source::Gone;
use crate::net::timer::Timer;
use crate::worker::{OpenConnection, Peer};
use ringway_message::HeadWriter;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWrite;

/// How long a client may take to read a local reply.
const SEND_TIME: Duration = Duration::from_secs(10);

/// The client's side of a connection, or of a stream.
pub(crate) struct Client {
    pub(crate) open: Rc<OpenConnection>,
    pub(crate) end: ClientEnd,
    pub(crate) timer: Timer,
    /// Whether the end of its input has come.
    ended: bool,
}

impl Client {
    pub(crate) fn new(open: Rc<OpenConnection>, end: ClientEnd) -> Self {
        let timer = open.worker.timer();
        Self { open, end, timer, ended: false }
    }

    /// What shows whether the client is still connected, and what can be used at the same time. `may_end`: the end of its input
    /// alone does not mean that it has left.
    pub(crate) fn presence(&mut self, may_end: bool) -> (Presence<'_>, &Timer, &Peer) {
        let Self { open, end, ended, timer, .. } = self;
        (Presence { line: end.into(), ended, dispatcher: &open.worker, may_end }, timer, &open.peer)
    }

    /// What a local reply is written into.
    pub(crate) fn own_head(&self) -> HeadWriter {
        self.open.worker.buffers.take_writer(self.end.is_http2())
    }

    /// Sends all of a local reply, or gives up when the client does not read.
    pub(crate) async fn send(&mut self, answer: EncodedReply, out: HeadWriter) -> bool {
        let worker = Rc::clone(&self.open.worker);
        let sent = match &mut self.end {
            ClientEnd::Http1(_) => self.send_bytes(out.text()).await,
            ClientEnd::Http2(stream) => {
                let head = {
                    let block = &mut worker.scratch.borrow_mut().block;
                    let head = stream.answer(answer, &out, block);
                    worker.counters.sent_bytes.add(block.len() as u64);
                    head
                };
                match head {
                    Ok(true) => true,
                    Ok(false) => self.send_data(&out.text()[answer.body_from..]).await,
                    Err(Gone) => false,
                }
            }
        };
        worker.buffers.give_writer(out);
        sent
    }

    /// The body of a local reply, over HTTP/2.
    async fn send_data(&mut self, data: &[u8]) -> bool {
        let mut sent = 0;
        self.timer.set(SEND_TIME);
        poll_fn(|context| {
            let ClientEnd::Http2(stream) = &mut self.end else { return Poll::Ready(false) };
            while sent < data.len() {
                match stream.poll_send(&data[sent..], true, context) {
                    Poll::Ready(Ok(count)) => {
                        sent += count;
                        self.open.worker.counters.sent_bytes.add(count as u64);
                    }
                    Poll::Ready(Err(Gone)) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// Writes all of the bytes, or gives up when the client does not read.
    pub(crate) async fn send_bytes(&mut self, out: &[u8]) -> bool {
        let mut sent = 0;
        self.timer.set(SEND_TIME);
        let result = poll_fn(|context| {
            let Http1 { stream, .. } = self.end.http1();
            while sent < out.len() {
                match Pin::new(&mut *stream).poll_write(context, &out[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => sent += count,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if self.timer.poll_fired(context) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // Bytes that TLS has taken and the kernel has not are not sent yet.
            match Pin::new(stream).poll_flush(context) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending if self.timer.poll_fired(context) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        self.open.worker.counters.sent_bytes.add(sent as u64);
        result
    }
}
