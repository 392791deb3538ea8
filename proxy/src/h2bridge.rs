//! Between HTTP/1.1 text and the frames of one HTTP/2 stream (RFC 9113): bodies and trailers, both ways.

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use ringway_http1::{ChunkDecoder, ChunkEvent};
use std::io::{self, ErrorKind, Write as _};
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// Data sent in one frame at most: what a peer takes by default.
const FRAME_BYTES: usize = 16 * 1024;
/// Room for a chunk's size and its line end, before its data is known.
const CHUNK_HEAD_SPACE: [u8; 18] = [0; 18];

/// How the text on the HTTP/1.1 side tells where the body ends.
pub(crate) enum Framing {
    /// After so many bytes.
    Sized(u64),
    /// Chunks.
    Chunked(ChunkDecoder),
    /// It does not: until the end.
    Raw,
    /// What comes is not passed on.
    Discarded,
}

/// Takes a body as HTTP/1.1 text, and sends it as frames.
pub(crate) struct Sender {
    pub(crate) stream: SendStream<Bytes>,
    framing: Framing,
    /// Text that ends in the middle of a chunk's frame.
    rest: Vec<u8>,
    ended: bool,
    /// After a body whose length was told, the end waits for [`Sender::end`]: there may be trailers, for which that text has no
    /// place.
    holds_end: bool,
}

impl Sender {
    /// `ended`: there is no body, and the stream's end has been sent.
    pub(crate) fn new(stream: SendStream<Bytes>, framing: Framing, ended: bool, holds_end: bool) -> Self {
        Self { stream, framing, rest: Vec::new(), ended, holds_end }
    }

    /// Whether the body is over, and its end is to be told by [`Sender::end`].
    pub(crate) fn awaits_end(&self) -> bool {
        self.holds_end && !self.ended && matches!(self.framing, Framing::Sized(0))
    }

    /// The end of a body whose length was told goes with its last byte: no trailers can follow.
    pub(crate) fn release_end(&mut self) {
        self.holds_end &= matches!(self.framing, Framing::Sized(0));
    }

    pub(crate) fn end(&mut self, trailers: HeaderMap) -> io::Result<()> {
        self.ended = true;
        let sent = match trailers.is_empty() {
            true => self.stream.send_data(Bytes::new(), true),
            false => self.stream.send_trailers(trailers),
        };
        sent.map_err(io_error)
    }

    /// Takes as much as the peer's windows allow. Gives how many bytes.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(if bytes.is_empty() { Ok(0) } else { Err(ErrorKind::BrokenPipe.into()) });
        }
        match &mut self.framing {
            Framing::Discarded => Poll::Ready(Ok(bytes.len())),
            Framing::Raw => {
                let count = ready!(capacity(&mut self.stream, context, bytes.len()))?;
                self.send(&bytes[..count], false)?;
                Poll::Ready(Ok(count))
            }
            Framing::Sized(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let count = ready!(capacity(&mut self.stream, context, wanted))?;
                *left -= count as u64;
                let ends = *left == 0 && !self.holds_end;
                self.send(&bytes[..count], ends)?;
                Poll::Ready(Ok(count))
            }
            Framing::Chunked(_) if self.rest.is_empty() => self.poll_chunks(context, bytes),
            Framing::Chunked(_) => {
                // Rare: somebody has written half of a chunk's frame.
                let held = self.rest.len();
                let mut joined = std::mem::take(&mut self.rest);
                joined.extend_from_slice(bytes);
                let taken = self.poll_chunks(context, &joined);
                if !self.rest.is_empty() {
                    return Poll::Ready(Ok(bytes.len()));
                }
                match taken {
                    Poll::Ready(Ok(count)) if count > held => Poll::Ready(Ok(count - held)),
                    Poll::Ready(Ok(count)) => {
                        self.rest = joined[count..].to_vec();
                        Poll::Ready(Ok(bytes.len()))
                    }
                    other => {
                        joined.truncate(held);
                        self.rest = joined;
                        other
                    }
                }
            }
        }
    }

    fn poll_chunks(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Framing::Chunked(decoder) = &mut self.framing else { return Poll::Ready(Ok(0)) };
        let mut taken = 0;
        loop {
            let mut ahead = decoder.clone();
            let mut at = taken;
            match ahead.next(bytes, &mut at).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
                ChunkEvent::Data(range) => {
                    let count = match capacity(&mut self.stream, context, range.len()) {
                        Poll::Ready(count) => count?,
                        // What was before the data has been taken already.
                        Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                        Poll::Pending => return Poll::Pending,
                    };
                    let until = range.start + count;
                    // Once more, but no further than there is room for.
                    let mut at = taken;
                    decoder
                        .next(&bytes[..until], &mut at)
                        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                    let data = Bytes::copy_from_slice(&bytes[range.start..until]);
                    self.stream.send_data(data, false).map_err(io_error)?;
                    taken = at;
                }
                ChunkEvent::End(range) => {
                    *decoder = ahead;
                    self.ended = true;
                    let trailers = fields(&bytes[range])?;
                    if trailers.is_empty() {
                        self.stream.send_data(Bytes::new(), true).map_err(io_error)?;
                    } else {
                        self.stream.send_trailers(trailers).map_err(io_error)?;
                    }
                    return Poll::Ready(Ok(at));
                }
                ChunkEvent::NeedMore => {
                    *decoder = ahead;
                    self.rest = bytes[at..].to_vec();
                    return Poll::Ready(Ok(bytes.len()));
                }
            }
            if taken == bytes.len() {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    fn send(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        self.ended = ends;
        self.stream.send_data(Bytes::copy_from_slice(bytes), ends).map_err(io_error)
    }

    /// The text has ended.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.ended || matches!(self.framing, Framing::Discarded) {
            return Ok(());
        }
        self.ended = true;
        if matches!(self.framing, Framing::Raw | Framing::Sized(0)) {
            self.stream.send_data(Bytes::new(), true).map_err(io_error)
        } else {
            // Cut off in the middle: the peer must see that.
            self.stream.send_reset(h2::Reason::CANCEL);
            Ok(())
        }
    }
}

/// How much may be sent now, at most `wanted` and one frame.
fn capacity(stream: &mut SendStream<Bytes>, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
    let wanted = wanted.min(FRAME_BYTES);
    loop {
        let have = stream.capacity();
        if have > 0 || wanted == 0 {
            return Poll::Ready(Ok(have.min(wanted)));
        }
        stream.reserve_capacity(wanted);
        match ready!(stream.poll_capacity(context)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Gives what came as frames as HTTP/1.1 text.
pub(crate) struct Receiver {
    stream: Option<RecvStream>,
    /// The text frames data in chunks.
    pub(crate) chunked: bool,
    /// What came after data that the text does not frame.
    trailers: Option<HeaderMap>,
    /// Text that is ready, and how much of it has been read.
    staged: Vec<u8>,
    read: usize,
}

impl Receiver {
    /// Starts with this text; `None` has no body after it.
    pub(crate) fn new(stream: Option<RecvStream>, chunked: bool, staged: Vec<u8>) -> Self {
        Self { stream, chunked, trailers: None, staged, read: 0 }
    }

    /// More text before what the stream gives.
    pub(crate) fn stage(&mut self, text: &[u8]) {
        self.staged.extend_from_slice(text);
    }

    /// The stream that gives the rest.
    pub(crate) fn follow(&mut self, stream: Option<RecvStream>, chunked: bool) {
        (self.stream, self.chunked) = (stream, chunked);
    }

    /// Whether trailers may come that the text has no place for.
    pub(crate) fn may_trail(&self) -> bool {
        let may_come = self.stream.as_ref().is_some_and(|stream| !stream.is_end_stream());
        !self.chunked && (may_come || self.trailers.is_some())
    }

    /// What follows the body whose end the text told, as often as it is asked for.
    pub(crate) fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<io::Result<HeaderMap>> {
        ready!(self.poll_ready(context))?;
        if self.has_text() {
            // The library counts what it gives against what was told.
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(self.trailers.clone().unwrap_or_default()))
    }

    /// Whether text is ready.
    pub(crate) fn has_text(&self) -> bool {
        self.read < self.staged.len()
    }

    /// Waits for text, or the end.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_text() {
            (self.read, _) = (0, self.staged.clear());
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
            match ready!(stream.poll_data(context)) {
                Some(Ok(data)) => {
                    stream.flow_control().release_capacity(data.len()).map_err(io_error)?;
                    self.staged.extend_from_slice(if self.chunked { &CHUNK_HEAD_SPACE } else { &[] });
                    self.staged.extend_from_slice(&data);
                    self.gather(context)?;
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => {
                    let trailers = match ready!(stream.poll_trailers(context)) {
                        Ok(trailers) => trailers,
                        Err(error) => return Poll::Ready(Err(io_error(error))),
                    };
                    self.stream = None;
                    if self.chunked {
                        self.staged.extend_from_slice(b"0\r\n");
                        write_fields(&trailers.unwrap_or_default(), &mut self.staged);
                        self.staged.extend_from_slice(b"\r\n");
                    } else {
                        self.trailers = trailers;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What else is there already joins the data that is staged, as one chunk: small frames are not to become as many chunks.
    fn gather(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let head = if self.chunked { CHUNK_HEAD_SPACE.len() } else { 0 };
        // Ends and errors are told again to who asks the next time.
        while self.staged.len() - head < FRAME_BYTES && !stream.is_end_stream() {
            match stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    stream.flow_control().release_capacity(data.len()).map_err(io_error)?;
                    self.staged.extend_from_slice(&data);
                }
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => break,
            }
        }
        let length = self.staged.len() - head;
        if self.chunked && length > 0 {
            // The size stands right before the data, in the space that was left for it.
            let mut text = [0; CHUNK_HEAD_SPACE.len()];
            let mut rest = &mut text[..];
            write!(rest, "{length:x}\r\n")?;
            let taken = CHUNK_HEAD_SPACE.len() - rest.len();
            self.read = head - taken;
            self.staged[self.read..head].copy_from_slice(&text[..taken]);
            self.staged.extend_from_slice(b"\r\n");
        } else if length == 0 {
            self.staged.clear();
        }
        Ok(())
    }

    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(context))?;
        let text = &self.staged[self.read..];
        let count = text.len().min(space.remaining());
        space.put_slice(&text[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

/// Fields of one connection only (RFC 9113, 8.2.2).
pub(crate) fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te" | "http2-settings"
    )
}

/// Writes fields as text; values of a HeaderMap hold no line ends.
pub(crate) fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        if !is_connection_specific(name.as_str()) {
            write_field(name.as_str(), value.as_bytes(), out);
        }
    }
}

pub(crate) fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Fields from text: lines, and an empty one.
fn fields(text: &[u8]) -> io::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
        push_field(&mut map, &line[..colon], line[colon + 1..].trim_ascii())?;
    }
    Ok(map)
}

/// Adds a field, unless it belongs to one connection only.
pub(crate) fn push_field(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> io::Result<()> {
    let invalid = |_| io::Error::from(ErrorKind::InvalidData);
    let name = HeaderName::from_bytes(name).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    if !is_connection_specific(name.as_str()) {
        map.append(name, HeaderValue::from_bytes(value).map_err(invalid)?);
    }
    Ok(())
}

/// Whether a stream has ended because of what came on it: a header list too long, a message that breaks the rules. Its connection
/// is well.
pub(crate) fn is_unfit(error: &io::Error) -> bool {
    let Some(cause) = error.get_ref() else { return false };
    cause.is::<NoSwitching>()
        || cause.downcast_ref::<h2::Error>().is_some_and(|cause| cause.is_library() && cause.is_reset())
}

/// HTTP/2 has no 101 (RFC 9113, 8.6).
#[derive(Debug, thiserror::Error)]
#[error("a 101 over HTTP/2")]
pub(crate) struct NoSwitching;

impl From<NoSwitching> for io::Error {
    fn from(error: NoSwitching) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

/// An error of the protocol as one of a connection.
pub(crate) fn io_error(error: h2::Error) -> io::Error {
    let kind = match error.reason() {
        Some(h2::Reason::CANCEL | h2::Reason::NO_ERROR) => ErrorKind::ConnectionAborted,
        _ => ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}
