//! Compression of responses: whether to compress, in which coding (RFC 9110, 8.4 and 12.5.3), and the encoders, fed piece by piece.

use crate::codec::end::BackendEnd;
use crate::codec::http1::Http1;
use crate::codec::source::Source;
use crate::error::ProxyError;
use crate::net::buffers::Buffer;
use crate::worker::Worker;
use ringway_config::model::{Compress, ContentCoding};
use ringway_http1::{Body, Encoding, Progress, write};
use ringway_message::{BodyLength, Field, FieldName, HeadWriter, RequestHead, ResponseHead};
use std::io::{self, Write};
use std::rc::Rc;

/// Bytes given to an encoder in one go, before other connections have their turn: a fraction of a millisecond of work.
const STEP_BYTES: usize = 16 * 1024;
/// Window of brotli and zstd, as a power of two: what an encoder remembers bounds its memory.
const WINDOW_LOG: u32 = 18;

/// The coding for a request, among those that its route offers: the one that the client prefers. `None`: no compression.
pub(crate) fn choose(rule: &Compress, buffer: &[u8], head: &RequestHead) -> Option<ContentCoding> {
    let mut wishes = Wishes::default();
    for field in named(&head.fields, buffer, b"accept-encoding") {
        wishes.take_in(field.value.of(buffer));
    }
    wishes.best(&rule.algorithms)
}

/// What a client accepts, in thousandths.
#[derive(Default)]
struct Wishes {
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Wishes {
    fn take_in(&mut self, value: &[u8]) {
        for element in value.split(|byte| *byte == b',') {
            let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let quality = match parts.next() {
                None => 1000,
                // A value that does not parse is no preference.
                Some(weight) => quality(weight).filter(|_| parts.next().is_none()).unwrap_or(0),
            };
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            let wish = if is(b"gzip") || is(b"x-gzip") {
                &mut self.codings[ContentCoding::Gzip as usize]
            } else if is(b"br") {
                &mut self.codings[ContentCoding::Brotli as usize]
            } else if is(b"zstd") {
                &mut self.codings[ContentCoding::Zstd as usize]
            } else if is(b"identity") {
                &mut self.identity
            } else if is(b"*") {
                &mut self.any
            } else {
                continue;
            };
            *wish = Some(quality);
        }
    }

    fn best(&self, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let mut best = (None, self.identity.unwrap_or(0).saturating_sub(1));
        for coding in offered {
            let quality = self.codings[*coding as usize].or(self.any).unwrap_or(0);
            if quality > best.1 {
                best = (Some(*coding), quality);
            }
        }
        best.0
    }
}

/// `q=0.5`, in thousandths (RFC 9110, 12.4.2).
fn quality(weight: &[u8]) -> Option<u16> {
    let (name, digits) = (weight.get(..2)?, &weight[2..]);
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = (digits.first()?, digits.get(2..).unwrap_or_default());
    let well_formed = digits.get(1).is_none_or(|dot| *dot == b'.')
        && fraction.len() <= 3
        && fraction.iter().all(u8::is_ascii_digit)
        && (*whole == b'0' || *whole == b'1' && fraction.iter().all(|digit| *digit == b'0'));
    if !well_formed {
        return None;
    }
    let tail = (0..3).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    Some(u16::from(*whole == b'1') * 1000 + tail)
}

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

enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Ended(Vec<u8>),
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
    pub(crate) fn transfer(&mut self, end: &mut BackendEnd, out: &mut Vec<u8>) -> Result<Progress, ProxyError> {
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
            end.write_trailers(&mut lines, |_| true);
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

fn encoder(rule: &Compress, coding: ContentCoding, length: Option<u64>) -> io::Result<Encoder> {
    // Tables and windows for a short response are small: most of its cost is to allocate them.
    Ok(match coding {
        ContentCoding::Gzip => {
            let level = flate2::Compression::new(rule.gzip_level);
            Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
        }
        ContentCoding::Brotli => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: i32::try_from(rule.brotli_level).unwrap_or_default(),
                lgwin: window_log(length) as i32,
                size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default(),
                ..<_>::default()
            };
            Encoder::Brotli(Box::new(brotli::CompressorWriter::with_params(Vec::new(), STEP_BYTES, &params)))
        }
        ContentCoding::Zstd => {
            let level = i32::try_from(rule.zstd_level).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
            encoder.window_log(window_log(length))?;
            encoder.set_pledged_src_size(length)?;
            Encoder::Zstd(encoder)
        }
    })
}

/// The smallest window that fits a response of known length, and no larger than the common maximum.
fn window_log(length: Option<u64>) -> u32 {
    /// The smallest window that both brotli and zstd know.
    const LEAST: u32 = 10;
    length.map_or(WINDOW_LOG, |length| (u64::BITS - length.leading_zeros()).clamp(LEAST, WINDOW_LOG))
}

impl Encoder {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
            Self::Ended(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Ended(_) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let out = match std::mem::replace(self, Self::Ended(Vec::new())) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Ended(out) => out,
        };
        *self = Self::Ended(out);
        Ok(())
    }

    /// Output that has not been taken yet.
    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Ended(out) => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentCoding::{Brotli, Gzip, Zstd};

    fn best(accepted: &str, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let mut wishes = Wishes::default();
        wishes.take_in(accepted.as_bytes());
        wishes.best(offered)
    }

    #[test]
    fn the_client_wish_comes_before_the_order() {
        let all = [Zstd, Brotli, Gzip];
        for (accepted, wanted) in [
            ("", None),
            ("deflate", None),
            ("gzip", Some(Gzip)),
            ("X-GZip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("gzip ; q=0.001", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000, *;q=0", None),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("gzip;q=2, br;q=1.5, zstd;q=", None),
            ("gzip;level=9", None),
            ("gzip;q=0.1234", None),
        ] {
            assert_eq!(best(accepted, &all), wanted, "{accepted}");
        }
        // Whatever is sent, nothing panics.
        let text = b"gzip;q=0.5, *;q=1.000, identity;q=0;x=\"y\"";
        for at in 0..text.len() {
            for byte in 0..=u8::MAX {
                let mut noisy = text.to_vec();
                noisy[at] = byte;
                let mut wishes = Wishes::default();
                wishes.take_in(&noisy[..=(at * 7 + usize::from(byte)) % text.len()]);
                wishes.take_in(&noisy);
                let _ = wishes.best(&all);
            }
        }
        assert_eq!(best("gzip, br", &[Gzip, Brotli]), Some(Gzip));
        assert_eq!(best("zstd", &[Gzip]), None);
    }
}
