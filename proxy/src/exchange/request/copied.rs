//! A copy of a request that is here to its end: for a hedge, or for a mirror, in either protocol.

use super::handed::Handed;
use super::{Request, head_lines};
use crate::codec::end::BackendEnd;
use crate::codec::http2::Outgoing;
use crate::codec::source::Gone;
use crate::worker::Worker;
use ringway_config::model::UpstreamProtocol;
use ringway_http1::{Body, BodyLength, Encoding, write};
use ringway_message::{HeadWriter, Line, Method, Span};
use std::ops::Range;
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
    /// The trailers, for HTTP/2: towards HTTP/1.1 they stand behind the last chunk.
    trailers: HeadWriter,
    target_sensitive: bool,
    pub(crate) method: Method,
}

impl Request {
    /// A second try begins, whose request this copy is.
    pub(crate) fn begin_hedge(&mut self, worker: &Worker, backend: usize, copied: &mut Copied) {
        if let Some(trace) = &mut self.trace {
            let place = self.report.marked.parent;
            let traceparent = copied.out.get_mut(place.start as usize..place.end as usize).unwrap_or_default();
            trace.begin_hedge(worker, (&self.view, self.service, backend), traceparent);
        }
    }

    /// A copy for a service of that protocol. All of its body is in `out`.
    pub(crate) fn copied(&self, protocol: UpstreamProtocol) -> Copied {
        let mut out = self.out.clone();
        let body = &self.out[self.head_len..];
        let mut trailers = HeadWriter::new(Vec::new(), Vec::new(), true);
        trailers.append(self.trailers.text());
        match (protocol, self.encoding) {
            (UpstreamProtocol::Http1, Encoding::Identity) if self.chunked => {
                out.truncate(self.head_len);
                write::data(body, &mut out, Encoding::Chunked);
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(self.trailers.text());
                out.extend_from_slice(b"\r\n");
            }
            (UpstreamProtocol::H2, Encoding::Chunked) => {
                out.truncate(self.head_len);
                unframe(body, &mut out, &mut trailers);
            }
            (UpstreamProtocol::Http1 | UpstreamProtocol::H2, Encoding::Identity | Encoding::Chunked) => {}
        }
        let mut copied = Copied {
            out,
            head_len: self.head_len,
            lines: self.lines.clone(),
            line: self.report.line,
            authority: self.authority,
            trailers,
            target_sensitive: self.target_sensitive,
            method: self.method,
        };
        copied.without_previous(self.handed.as_deref());
        copied
    }
}

/// Reads Ringway's own framing.
fn unframe(framed: &[u8], out: &mut Vec<u8>, trailers: &mut HeadWriter) {
    let (mut body, mut lines, mut at) = (Body::from(BodyLength::Chunked), Vec::new(), 0);
    while let Ok((data, progress)) = body.next_data(&framed[at..], &mut lines) {
        out.extend_from_slice(&framed[at..][data]);
        at += progress.consumed;
        if progress.done || progress.consumed == 0 {
            break;
        }
    }
    trailers.append(&lines);
}

impl Copied {
    /// Sends all of it; `sent` is how much has been sent.
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
                    let ends = self.out.len() == self.head_len && self.trailers.lines().is_empty();
                    upstream.open(&self.outgoing(), ends, block)?;
                    self.head_len
                }
                BackendEnd::Http2(upstream) => {
                    ready!(upstream.poll_send(rest, self.trailers.lines().is_empty(), context))?
                }
                BackendEnd::Returned => return Poll::Ready(Err(Gone)),
            };
        }
        match end {
            BackendEnd::Http2(upstream) if !upstream.is_told() => Poll::Ready(upstream.end(&self.trailers, block)),
            BackendEnd::Http1(_) | BackendEnd::Http2(_) | BackendEnd::Returned => Poll::Ready(Ok(())),
        }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let sensitive = self.target_sensitive;
        Outgoing::new(self.method, &self.out, self.line, (self.authority, sensitive), &self.lines, None)
    }
}

impl Copied {
    /// Takes the line that tells of a previous owner out: it goes to another backend.
    fn without_previous(&mut self, handed: Option<&Handed>) {
        let told = handed.map_or(0, |handed| handed.told);
        if told > 0 {
            let end = self.head_len - 2;
            self.cut(end - told..end);
        }
    }

    fn cut(&mut self, range: Range<usize>) {
        self.head_len -= range.len();
        head_lines::cut(&mut self.out, &mut self.lines, &mut self.authority, range);
    }

    pub(super) fn add(&mut self, is_indexed: bool, field: (&str, &str)) {
        let at = self.head_len - 2;
        self.head_len += head_lines::add(&mut self.out, is_indexed.then_some(&mut self.lines), at, field);
    }

    /// Leaves the fields out of whose names this is true.
    pub(super) fn leave_out(&mut self, is_left_out: impl Fn(&[u8]) -> bool) {
        let mut end = self.head_len;
        // From the last one to the first, so that places before what is cut stay as they are. The request line stays.
        while let Some(start) = self.out[..end - 2].windows(2).rposition(|pair| pair == b"\r\n").map(|at| at + 2) {
            let line = &self.out[start..end];
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if is_left_out(name) {
                self.cut(start..end);
            }
            end = start;
        }
    }
}
