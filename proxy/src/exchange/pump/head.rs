//! The head of a response, as the client gets it.

use super::state::{Exchange, Upload};
use crate::codec::end::{BackendEnd, ClientEnd};
use crate::codec::http1::Http1;
use crate::codec::source::{Gone, Source};
use crate::error::ProxyError;
use crate::exchange::actions;
use crate::exchange::compress::{self, Compressor};
use crate::exchange::error_response;
use crate::exchange::response::{RESPONSE_LIMITS, retry_after};
use ringway_config::model::ContentCoding;
use ringway_http1::{Encoding, parse_response_on};
use ringway_message::{BodyLength, FieldName, HeadWriter, Method, ParseError, ResponseHead, Version};
use std::rc::Rc;

/// Bytes that wait for a client, beyond which informational responses are left out: they are optional (RFC 9110, 15.2), but for a 100,
/// which the client waits for, and which needs no fields.
const INFORMATIONAL_BYTES_MAX: usize = 64 * 1024;

/// What a head is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another head.
    Informational,
    /// The response body.
    Final,
}

impl Exchange<'_> {
    /// Takes the next head that has come, and writes it as the client gets it. `None`: no whole head is here.
    pub(super) fn take_head(&mut self) -> Result<Option<Kind>, ProxyError> {
        let worker = Rc::clone(&self.client.open.worker);
        match &mut self.attempt.end {
            BackendEnd::Http1(Http1 { input, body, resume, .. }) => {
                let mut head = std::mem::take(&mut worker.scratch.borrow_mut().response);
                let bytes = input.bytes();
                let asked = (self.request.method, self.request.upgrade);
                let parsed = match bytes {
                    b"" => Ok(false),
                    bytes => parse_response_on(bytes, &RESPONSE_LIMITS, asked, resume, &mut head)
                        .map_err(|error| ProxyError::of_head(error, bytes)),
                };
                let kind = if let Ok(true) = parsed {
                    *body = head.body.into();
                    let mut input = std::mem::take(input);
                    let written = self.write_head(&head, &input.bytes()[..head.head_len], input.len());
                    input.consume(head.head_len);
                    if let BackendEnd::Http1(http1) = &mut self.attempt.end {
                        http1.input = input;
                    }
                    written.map(Some)
                } else {
                    parsed.map(|_| None)
                };
                worker.scratch.borrow_mut().response = head;
                kind
            }
            BackendEnd::Http2(upstream) => {
                let (head, arena) = upstream.lend_head();
                let written = self.write_head(&head, &arena, arena.len());
                if let BackendEnd::Http2(upstream) = &mut self.attempt.end {
                    upstream.return_head((head, arena), true);
                }
                written.map(Some)
            }
            BackendEnd::Returned => Ok(None),
        }
    }

    /// `here`: how many bytes have come, this head and those behind it.
    fn write_head(&mut self, head: &ResponseHead, bytes: &[u8], here: usize) -> Result<Kind, ProxyError> {
        if self.answer.text().is_empty() {
            let indexed = self.client.end.is_http2();
            let (text, lines) = std::mem::take(&mut self.answer).into_parts();
            self.answer = if text.capacity() == 0 {
                self.client.open.worker.buffers.take_writer(indexed)
            } else {
                HeadWriter::new(text, lines, indexed)
            };
        }
        if head.is_informational() {
            self.write_informational(head, bytes)?;
            return Ok(Kind::Informational);
        }
        self.write_final(head, bytes, here)?;
        Ok(Kind::Final)
    }

    fn write_informational(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), ProxyError> {
        self.attempt.count_informational()?;
        // For a client that does not read, no more is buffered than what it cannot do without.
        let crowded = match &self.client.end {
            ClientEnd::Http1(_) => self.answer.text().len() > INFORMATIONAL_BYTES_MAX,
            ClientEnd::Http2(stream) => stream.is_backlogged(),
        };
        if crowded && head.status != 100 {
            return Ok(());
        }
        let out = &mut self.answer;
        let keep = |kind: FieldName| !crowded && !kind.is_hop_by_hop() && kind != FieldName::ContentLength;
        match (&mut self.client.end, self.request.version) {
            // 1.0 has no informational responses.
            (_, Version::Http10) => {}
            (ClientEnd::Http1(_), _) => {
                error_response::write_status(head.status, reason_of(head, bytes), out.text_mut());
                out.copy(bytes, &head.fields, |field| keep(field.kind));
                out.text_mut().extend_from_slice(b"\r\n");
                self.informational_bytes = out.text().len();
            }
            (ClientEnd::Http2(stream), _) => {
                out.copy(bytes, &head.fields, |field| keep(field.kind));
                let block = &mut self.client.open.worker.scratch.borrow_mut().block;
                let sent = stream.send_head(head.status, out, false, block);
                out.truncate(0, 0);
                // Whether the client is still connected is checked later.
                let (Ok(()) | Err(Gone)) = sent;
            }
        }
        Ok(())
    }

    /// The head of the final response, and what it says about the two connections.
    fn write_final(&mut self, head: &ResponseHead, bytes: &[u8], here: usize) -> Result<(), ProxyError> {
        if head.is_switch() && !self.request.is_granted(head, bytes) {
            return Err(ProxyError::UnfitResponse(ParseError::UnexpectedUpgrade));
        }
        let asks_for_tunnel = matches!(&self.client.end, ClientEnd::Http2(stream) if stream.is_tunnel());
        if asks_for_tunnel && (200..300).contains(&head.status) {
            // The backend responds to a WebSocket handshake without switching: on a stream of HTTP/2, that would be a tunnel
            // (RFC 8441, 5).
            return Err(ProxyError::NotSwitched);
        }
        self.attempt.clock.handle_response(head.status);
        self.status = head.status;
        self.request.note_head(head, bytes);
        // Bytes after a response that has no body have no meaning: they are dropped with the connection.
        let surplus = self.attempt.end.is_over() && !head.is_switch() && here > head.head_len;
        self.upstream_keep_alive = head.keep_alive && !head.is_switch() && !surplus;
        let told = self.tell_length(head, bytes);
        let (ruled, coding) = self.begin_compression(head, bytes);
        let framed = self.compressor.is_some() || told == Length::Untold;
        self.encoding = match self.request.version {
            Version::Http11 if framed => Encoding::Chunked,
            Version::Http10 | Version::Http11 | Version::Http2 => Encoding::Identity,
        };
        // 1.0 has no chunks: the end of the connection ends the body.
        let ends_by_close = self.request.version == Version::Http10 && framed;
        // An early response: the rest of the body would stand between this request and the next.
        let abandons_body = self.upload != Upload::Done && head.status >= 400;
        self.client_keep_alive =
            self.request.keep_alive && !ends_by_close && !abandons_body && !self.client.open.ends_with_response();
        self.write_fields(head, bytes, told, ruled.then_some(coding));
        self.retry_after = retry_after(head, bytes);
        Ok(())
    }

    /// Writes the head, once all is decided. `ruled`: a rule says how responses are compressed, and this one is in that coding.
    fn write_fields(&mut self, head: &ResponseHead, bytes: &[u8], told: Length, ruled: Option<Option<ContentCoding>>) {
        let over_http2 = self.client.end.is_http2();
        let coding = ruled.flatten();
        let out = &mut self.answer;
        if !over_http2 {
            error_response::write_status(head.status, reason_of(head, bytes), out.text_mut());
        }
        let actions = self.request.actions();
        let responded = self.request.responded_id();
        let is_edited = responded.is_some() || actions.is_some();
        let drops_length = head.status == 204 || told == Length::Untold || self.compressor.is_some();
        out.copy(bytes, &head.fields, |field| {
            let name = field.name.of(bytes);
            !(is_edited
                && (responded.is_some_and(|own| name.eq_ignore_ascii_case(own.as_bytes()))
                    || actions.is_some_and(|actions| actions::drops_response_field(actions, name)))
                || field.kind.is_hop_by_hop()
                || drops_length && field.kind == FieldName::ContentLength
                // The handshake is that of HTTP/2 (RFC 8441, 5).
                || over_http2 && head.is_switch() && name.eq_ignore_ascii_case(b"sec-websocket-accept")
                || coding.is_some() && compress::drops(field, bytes))
        });
        if let Some(coding) = ruled {
            compress::write_fields(coding, head, bytes, out);
        }
        if told == Length::Nothing && !over_http2 {
            out.field("content-length", b"0");
        }
        if over_http2 {
            // Streams end by themselves.
        } else if let Some(protocol) = head.upgrade.filter(|_| head.is_switch()) {
            out.field("connection", b"upgrade");
            out.field("upgrade", protocol.of(bytes));
        } else if !self.client_keep_alive {
            out.field("connection", b"close");
        } else if self.request.version == Version::Http10 {
            out.field("connection", b"keep-alive");
        }
        if self.encoding == Encoding::Chunked {
            out.field("transfer-encoding", b"chunked");
        }
        if self.request.explain || self.request.set_cookie.is_some() || !self.request.response_lines.is_empty() {
            self.request.append_fields(out);
        }
        out.text_mut().extend_from_slice(b"\r\n");
        self.head_len = out.text().len();
    }

    /// How the client learns where the body ends.
    fn tell_length(&mut self, head: &ResponseHead, bytes: &[u8]) -> Length {
        match (head.body, &mut self.attempt.end) {
            (BodyLength::Chunked | BodyLength::UntilClose, _) => Length::Untold,
            // Trailers need chunks, unless both sides speak HTTP/2.
            (BodyLength::Sized(_), BackendEnd::Http2(upstream))
                if !self.client.end.is_http2() && !upstream.ends_here() && announces_trailers(head, bytes) =>
            {
                upstream.forget_length();
                Length::Untold
            }
            // A response that ended with its head has no length in HTTP/2, and needs one elsewhere.
            (BodyLength::Sized(0), BackendEnd::Http2(_))
                if !matches!(head.status, 101 | 204 | 304)
                    && self.request.method != Method::Head
                    && !head.fields.iter().any(|field| field.kind == FieldName::ContentLength) =>
            {
                Length::Nothing
            }
            (BodyLength::None | BodyLength::Sized(_), _) => Length::Header,
        }
    }

    /// Whether the response is one of those that may be compressed, and the coding that it gets.
    fn begin_compression(&mut self, head: &ResponseHead, bytes: &[u8]) -> (bool, Option<ContentCoding>) {
        let Some(rule) = self.request.compression().filter(|rule| compress::is_eligible(rule, head, bytes)) else {
            return (false, None);
        };
        let mut coding = self.request.coding;
        if let (Some(wanted), false) = (coding, self.attempt.end.is_over()) {
            let chunked = !self.client.end.is_http2();
            let length = self.attempt.end.left();
            self.compressor = Compressor::new(rule, wanted, length, chunked, &self.client.open.worker);
            // A response to HEAD has no body, and the fields that the one to GET would have.
            coding = coding.filter(|_| self.compressor.is_some());
        }
        (true, coding)
    }
}

/// See [`Exchange::tell_length`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// By the head, or by the request that it responds to.
    Header,
    /// There is no body, and the head has to say so.
    Nothing,
    /// By how the body is framed.
    Untold,
}

/// The reason phrase: from HTTP/2, which has none, it is the usual one.
fn reason_of<'b>(head: &ResponseHead, bytes: &'b [u8]) -> &'b [u8] {
    if head.version != Version::Http2 {
        return head.reason.of(bytes);
    }
    let status = http::StatusCode::from_u16(head.status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or_default().as_bytes()
}

/// Whether a response announces trailers behind its body.
fn announces_trailers(head: &ResponseHead, bytes: &[u8]) -> bool {
    head.fields.iter().any(|field| {
        field.kind == FieldName::Trailer
            || field.name.of(bytes).eq_ignore_ascii_case(b"content-type")
                && field.value.of(bytes).starts_with(b"application/grpc")
    })
}
