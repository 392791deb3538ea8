//! Compression of responses: which may be, what their heads say then (RFC 9110, 8.4), and a body on its way through an encoder.

use crate::codec::end::BackendEnd;
use crate::codec::http1::Http1;
use crate::codec::source::Source;
use crate::error::ProxyError;
use crate::net::buffers::Buffer;
use crate::worker::Worker;
use ringway_config::model::{Compress, ContentCoding};
use ringway_http1::{Body, Encoding, Progress, write};
use ringway_message::{BodyLength, Field, FieldName, HeadWriter, ResponseHead};
use std::rc::Rc;

mod encoder;
mod negotiation;

use encoder::{Encoder, STEP_BYTES, encoder};
pub(crate) use negotiation::choose;

fn named<'a>(fields: &'a [Field], buffer: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a Field> {
    fields.iter().filter(move |field| field.name.of(buffer).eq_ignore_ascii_case(name))
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether a response would be compressed for some client.
pub(crate) fn is_eligible(rule: &Compress, head: &ResponseHead, buffer: &[u8]) -> bool {
    let length = head.announced_length.or(match head.body {
        BodyLength::Sized(length) => Some(length),
        _ => None,
    });
    if matches!(head.status, ..200 | 204..=206 | 304) || length.is_some_and(|length| length < rule.bytes_min.max(1)) {
        return false;
    }
    let mut is_of_type = false;
    for field in head.fields.iter().filter(|field| field.kind == FieldName::Other) {
        let (name, value) = (field.name.of(buffer), field.value.of(buffer));
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        // By length first, as everywhere that field names are compared.
        let forbids = match name.len() {
            6 => is(b"digest"),
            11 => is(b"content-md5") || is(b"repr-digest"),
            13 => is(b"content-range") || is(b"cache-control") && has_token(value, b"no-transform"),
            // A digest covers the bytes as the backend has sent them.
            14 => is(b"content-digest"),
            16 => is(b"content-encoding") && !value.eq_ignore_ascii_case(b"identity"),
            12 if is(b"content-type") => {
                is_of_type = has_type(rule, value);
                false
            }
            _ => false,
        };
        if forbids {
            return false;
        }
    }
    is_of_type
}

fn has_type(rule: &Compress, value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    // gRPC messages have their own compression.
    let grpc = b"application/grpc";
    !essence.get(..grpc.len()).is_some_and(|start| start.eq_ignore_ascii_case(grpc))
        && rule.types.iter().any(|known| {
            let known = known.as_bytes();
            match known.last() {
                Some(b'/') => essence.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known)),
                _ => essence.eq_ignore_ascii_case(known),
            }
        })
}

/// Whether a field of the response is no longer true after compression; see [`write_fields`].
pub(crate) fn drops(field: &Field, buffer: &[u8]) -> bool {
    let is = |known: &[u8]| field.name.of(buffer).eq_ignore_ascii_case(known);
    match field.name.len() {
        4 => is(b"etag"),
        // Ranges of the compressed form cannot be requested.
        13 => is(b"accept-ranges"),
        14 => field.kind == FieldName::ContentLength,
        16 => is(b"content-encoding"),
        _ => false,
    }
}

/// Writes the fields of an eligible response: that it varies by `accept-encoding`, and its coding, if it is compressed.
pub(crate) fn write_fields(coding: Option<ContentCoding>, head: &ResponseHead, buffer: &[u8], out: &mut HeadWriter) {
    let mut vary = named(&head.fields, buffer, b"vary").map(|field| field.value.of(buffer));
    if !vary.any(|value| has_token(value, b"accept-encoding") || has_token(value, b"*")) {
        out.field("vary", b"accept-encoding");
    }
    let Some(coding) = coding else { return };
    out.field(
        "content-encoding",
        match coding {
            ContentCoding::Zstd => b"zstd",
            ContentCoding::Brotli => b"br",
            ContentCoding::Gzip => b"gzip",
        },
    );
    // Other bytes, the same meaning (RFC 9110, 8.8.1).
    for field in named(&head.fields, buffer, b"etag") {
        let value = field.value.of(buffer);
        let line = out.begin("etag");
        out.text_mut().extend_from_slice(if value.starts_with(b"W/") { b"" } else { b"W/" });
        out.text_mut().extend_from_slice(value);
        out.end(line);
    }
}

/// The body of one response on its way through an encoder.
pub(crate) struct Compressor {
    worker: Rc<Worker>,
    encoder: Encoder,
    /// The output goes in chunks.
    chunked: bool,
    trailers: Vec<u8>,
    /// The encoder may hold bytes that are not in the output yet.
    unflushed: bool,
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.worker.compressing.set(self.worker.compressing.get() - 1);
    }
}

impl Compressor {
    /// For a body of that length, if it is known. `None`: as many encoders as allowed are at work, or there is no memory for one
    /// more.
    pub(crate) fn new(
        rule: &Compress,
        coding: ContentCoding,
        length: Option<u64>,
        chunked: bool,
        worker: &Rc<Worker>,
    ) -> Option<Box<Self>> {
        let full = worker.compressing.get() >= rule.responses_max;
        let encoder = if full { None } else { encoder(rule, coding, length).ok() };
        let Some(encoder) = encoder else {
            worker.counters.compression_skipped.increment();
            return None;
        };
        worker.compressing.set(worker.compressing.get() + 1);
        worker.counters.compressed.increment();
        Some(Box::new(Self { worker: Rc::clone(worker), encoder, chunked, trailers: Vec::new(), unflushed: false }))
    }

    /// Whether all output has been taken; trailers may follow it.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.encoder, Encoder::Ended(_))
    }

    /// Whether all output has been taken, and nothing follows it.
    pub(crate) fn is_finished(&self) -> bool {
        self.has_ended() && self.trailers.is_empty()
    }

    /// Trailer lines that follow the output, where it is not in chunks.
    pub(crate) fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    /// As [`Source::transfer`], at most one step's bytes.
    pub(crate) fn transfer(
        &mut self,
        end: &mut BackendEnd,
        out: &mut Vec<u8>,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Progress, ProxyError> {
        let mut progress = match end {
            BackendEnd::Http1(Http1 { input, body, .. }) => self.take_in(body, input)?,
            BackendEnd::Http2(upstream) => {
                let written = upstream.with_data(|data| {
                    let step = &data[..data.len().min(STEP_BYTES)];
                    self.encoder.write(step).map(|()| step.len())
                });
                let count = written.transpose().map_err(|_| ProxyError::CompressionFailed)?.unwrap_or_default();
                self.unflushed |= count > 0;
                upstream.consume(count);
                Progress { consumed: count, data: count, done: false }
            }
            BackendEnd::Returned => Progress::default(),
        };
        self.worker.counters.compression_input.add(progress.data as u64);
        // Over HTTP/2, trailers come with the end.
        progress.done = end.is_over();
        if progress.done {
            let mut lines = HeadWriter::default();
            for line in std::mem::take(&mut self.trailers).split_inclusive(|byte| *byte == b'\n') {
                if keep(line.split(|byte| *byte == b':').next().unwrap_or_default()) {
                    lines.append(line);
                }
            }
            end.write_trailers(&mut lines, keep);
            self.trailers.extend_from_slice(lines.text());
            self.finish(out)?;
        } else {
            self.take_output(out);
        }
        Ok(progress)
    }

    /// Reads input that has come over HTTP/1.1.
    fn take_in(&mut self, body: &mut Body, input: &mut Buffer) -> Result<Progress, ProxyError> {
        let mut whole = Progress::default();
        let bytes = input.bytes();
        let bytes = &bytes[..bytes.len().min(STEP_BYTES)];
        while !body.is_end() {
            let rest = &bytes[whole.consumed..];
            let (data, progress) = body.next_data(rest, &mut self.trailers).map_err(ProxyError::UnfitResponse)?;
            if !data.is_empty() {
                self.encoder.write(&rest[data]).map_err(|_| ProxyError::CompressionFailed)?;
                self.unflushed = true;
            }
            whole.consumed += progress.consumed;
            whole.data += progress.data;
            if progress.data == 0 {
                break;
            }
        }
        input.consume(whole.consumed);
        Ok(whole)
    }

    /// Flushes everything that has been read, because no more input is here for now. `false`: all was flushed already.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<bool, ProxyError> {
        if !std::mem::take(&mut self.unflushed) {
            return Ok(false);
        }
        self.encoder.flush().map_err(|_| ProxyError::CompressionFailed)?;
        self.take_output(out);
        Ok(true)
    }

    /// The body is over: writes the rest, the last chunk, the trailer.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ProxyError> {
        self.encoder.finish().map_err(|_| ProxyError::CompressionFailed)?;
        self.take_output(out);
        if self.chunked {
            out.extend_from_slice(b"0\r\n");
            out.append(&mut self.trailers);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn take_output(&mut self, out: &mut Vec<u8>) {
        let made = self.encoder.output();
        if made.is_empty() {
            return;
        }
        self.worker.counters.compression_output.add(made.len() as u64);
        let encoding = if self.chunked { Encoding::Chunked } else { Encoding::Identity };
        write::data(made, out, encoding);
        made.clear();
    }
}
