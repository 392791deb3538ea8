//! A copy of a request that is here to its end: for a second try beside the first, or for a mirror, whatever its backends speak.

use super::Request;
use crate::end::{BackendEnd, Gone};
use crate::http2::Outgoing;
use ringway_config::model::UpstreamProtocol;
use ringway_http1::{Body, BodyLength, Encoding, write};
use ringway_message::{Line, Method, Span};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Head and body, as they go to a backend that speaks one protocol.
pub(crate) struct Copied {
    out: Vec<u8>,
    head_len: usize,
    lines: Vec<Line>,
    line: (usize, usize),
    authority: Span,
    pub(crate) method: Method,
}

impl Request {
    /// A copy for a service of that protocol. All of its body is in `out`.
    pub(crate) fn copied(&self, protocol: UpstreamProtocol) -> Copied {
        let mut out = self.out.clone();
        let body = &self.out[self.head_len..];
        match (protocol, self.encoding) {
            (UpstreamProtocol::Http1, Encoding::Identity) if self.chunked => {
                out.truncate(self.head_len);
                write::data(body, &mut out, Encoding::Chunked);
                out.extend_from_slice(b"0\r\n\r\n");
            }
            (UpstreamProtocol::H2, Encoding::Chunked) => {
                out.truncate(self.head_len);
                // What we have framed ourselves can be read.
                let _ = Body::from(BodyLength::Chunked).transfer(body, &mut out, Encoding::Identity);
            }
            (UpstreamProtocol::Http1 | UpstreamProtocol::H2, Encoding::Identity | Encoding::Chunked) => {}
        }
        Copied {
            out,
            head_len: self.head_len,
            lines: self.lines.clone(),
            line: self.report.line,
            authority: self.authority,
            method: self.method,
        }
    }
}

impl Copied {
    /// Sends all of it; `sent` is how much has been.
    pub(crate) fn poll_send(
        &self,
        end: &mut BackendEnd,
        sent: &mut usize,
        block: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        while *sent < self.out.len() {
            let rest = &self.out[*sent..];
            *sent += match end {
                BackendEnd::Http1(http1) => match ready!(Pin::new(&mut http1.stream).poll_write(context, rest)) {
                    Ok(count) if count > 0 => count,
                    _ => return Poll::Ready(Err(Gone)),
                },
                BackendEnd::Http2(upstream) if !upstream.is_open() => {
                    upstream.open(&self.outgoing(), self.out.len() == self.head_len, block)?;
                    self.head_len
                }
                BackendEnd::Http2(upstream) => ready!(upstream.poll_send(rest, true, context))?,
                BackendEnd::Returned => return Poll::Ready(Err(Gone)),
            };
        }
        Poll::Ready(Ok(()))
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing::new(self.method, &self.out, self.line, self.authority, &self.lines, None)
    }
}
