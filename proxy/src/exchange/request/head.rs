//! The head that goes to the chosen backend: what the client sent, without what is for this hop, and with what Ringway and the route add.

use super::route::upgrade_of;
use crate::codec::websocket;
use crate::exchange::actions;
use crate::exchange::client::Client;
use crate::exchange::marks::{Marked, Marks};
use crate::routing::forwarded::{self, Origin};
use crate::snapshot::{Service, Snapshot};
use ringway_config::model::{Actions, HttpListener, UpstreamProtocol};
use ringway_http1::Encoding;
use ringway_message::{BodyLength, FieldName, HeadWriter, Method, RequestHead, Span, TargetForm, Version};

/// A head for any backend of the service.
pub(super) struct Written {
    pub(super) out: HeadWriter,
    /// Lengths of method and target, which stand at its start.
    pub(super) line: (usize, usize),
    /// Where in it the authority stands, if its lines are indexed.
    pub(super) authority: Span,
    /// Where in it the protocols stand that may be switched to.
    pub(super) protocols: Option<(usize, usize)>,
    /// Its text declares a chunked body.
    pub(super) chunked: bool,
    /// How the body goes with it.
    pub(super) encoding: Encoding,
    /// Where its marks stand.
    pub(super) marked: Marked,
}

/// Writes the request line. Returns the lengths of method and target.
#[inline]
fn write_line(head: &RequestHead, bytes: &[u8], actions: Option<&Actions>, text: &mut Vec<u8>) -> (usize, usize) {
    // An extended CONNECT is a GET with an upgrade elsewhere (RFC 8441, 5).
    let method = if head.protocol.is_some() { b"GET" } else { head.method_span.of(bytes) };
    text.extend_from_slice(method);
    text.push(b' ');
    let target_start = text.len();
    match (head.forward_target.is_empty(), head.method) {
        // RFC 9112, 3.2.4: an absolute target without a path means the server itself to OPTIONS.
        (true, Method::Options) => text.push(b'*'),
        (true, _) => text.push(b'/'),
        (false, _) => match actions.and_then(|actions| actions.rewrite.as_ref()) {
            Some(rewrite) => actions::write_target(rewrite, head.forward_target.of(bytes), text),
            None => text.extend_from_slice(head.forward_target.of(bytes)),
        },
    }
    let line = (method.len(), text.len() - target_start);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    line
}

/// Writes the forwarded head: the client's fields, without those that are for this hop or that the client may not set, and those that
/// Ringway and the route add.
#[inline]
pub(super) fn write_head(
    client: &Client,
    bytes: &[u8],
    head: &RequestHead,
    (http, this, actions): (&HttpListener, &Service, Option<&Actions>),
    (snapshot, mirrored): (&Snapshot, bool),
    (origin, marks): (Origin, Option<&Marks<'_>>),
) -> Written {
    let trusted = origin.trusted;
    let http2 = this.config.protocol == UpstreamProtocol::H2;
    let mut out = client.open.worker.buffers.take_writer(http2 || mirrored);
    let line = write_line(head, bytes, actions, out.text_mut());
    let edits = actions.map(|actions| &actions.request);
    let drops = |name: &[u8]| edits.is_some_and(|edits| actions::drops(edits, name));
    let host = edits.and_then(|edits| edits.host.as_ref());
    let (keep_host, authority) = write_host(client, bytes, head, host.map(String::as_bytes), &mut out);
    let upgrade = upgrade_of(this, head, bytes);
    let chunked = head.body == BodyLength::Chunked || !http2 && announces_trailers(head);
    let certificate = client.open.peer.certificate();
    // Only Ringway may set these fields, here or on another listener, except for a trusted hop.
    let replacing = marks.filter(|marks| marks.may_replace());
    let has_own = certificate.is_some() || replacing.is_some() || !snapshot.handoff_fields.is_empty();
    let is_own = |name: &[u8]| {
        snapshot.is_of_handoff(name)
            || certificate.is_some_and(|(own, _)| ringway_message::reads_as(name, own))
            || replacing.is_some_and(|marks| marks.replaces(name))
    };
    out.copy(bytes, &head.fields, |field| match field.kind {
        _ if drops(field.name.of(bytes)) => false,
        _ if has_own && is_own(field.name.of(bytes)) => false,
        _ if !trusted && snapshot.is_identity(field.name.of(bytes)) => false,
        FieldName::Host => keep_host,
        FieldName::ContentLength => !chunked,
        // 1.0 has no informational responses.
        FieldName::Expect => head.version != Version::Http10,
        FieldName::Ringway => trusted,
        kind => !kind.is_hop_by_hop() && !kind.is_forwarding(),
    });
    forwarded::append(&http.forwarded, origin, &client.open.peer, bytes, head, &mut out);
    if let Some((name, fingerprint)) = certificate.filter(|(_, fingerprint)| !fingerprint.is_empty()) {
        out.field(name, fingerprint.as_bytes());
    }
    let marked = marks.map(|marks| marks.write(&mut out)).unwrap_or_default();
    let asked = write_upgrade(head, bytes, upgrade, &mut out);
    if let Some(edits) = edits {
        out.append(edits.lines.as_bytes());
    }
    if chunked {
        out.hop_field("transfer-encoding", b"chunked");
    }
    out.text_mut().extend_from_slice(b"\r\n");
    // HTTP/2 frames bodies by itself.
    let encoding = if chunked && !http2 { Encoding::Chunked } else { Encoding::Identity };
    Written { out, line, authority, protocols: asked, chunked, encoding, marked }
}

/// Writes the authority, as the route says it or as the client does. Gives whether the client's field stays where it stands, and
/// where the authority is otherwise.
#[inline]
fn write_host(
    client: &Client,
    bytes: &[u8],
    head: &RequestHead,
    host: Option<&[u8]>,
    out: &mut HeadWriter,
) -> (bool, Span) {
    // What the client has sent for it may stay, if it is all that there is.
    let keep = head.form == TargetForm::Origin
        && host.is_none()
        && head.version != Version::Http2
        && !out.is_indexed()
        && !head.authority.is_empty();
    let start = out.text().len() as u32 + "host: ".len() as u32;
    match host {
        Some(host) => out.hop_field("host", host),
        None if keep => {}
        None if head.authority.is_empty() => {
            // HTTP/1.0 without Host: the address that the client has reached is all that is known.
            out.hop_field("host", client.open.active_listener.address_text.as_bytes());
        }
        None => out.hop_field("host", head.authority.of(bytes)),
    }
    (keep, Span { start, end: (out.text().len() as u32).saturating_sub(2).max(start) })
}

/// Writes what is asked of this hop: an upgrade, or trailers. Gives where the protocols stand that may be switched to.
#[inline]
fn write_upgrade(
    head: &RequestHead,
    bytes: &[u8],
    upgrade: Option<Span>,
    out: &mut HeadWriter,
) -> Option<(usize, usize)> {
    let mut asked = None;
    match upgrade {
        Some(protocols) => {
            out.hop_field("connection", b"upgrade");
            out.hop_field("upgrade", protocols.of(bytes));
            let end = out.text().len() - 2;
            asked = Some((end - protocols.len(), end));
            let websocket =
                head.protocol.is_some_and(|protocol| protocol.of(bytes).eq_ignore_ascii_case(websocket::PROTOCOL));
            if websocket && head.value_of(bytes, b"sec-websocket-key").is_none() {
                out.field("sec-websocket-key", websocket::KEY);
            }
        }
        None if head.te_trailers => {
            out.hop_field("connection", b"te");
            out.field("te", b"trailers");
        }
        None => {}
    }
    asked
}

/// Whether a body that came over HTTP/2 with its length announces trailers: HTTP/1.1 has them only behind chunks, so it goes in chunks
/// then.
#[inline]
fn announces_trailers(head: &RequestHead) -> bool {
    head.version == Version::Http2
        && matches!(head.body, BodyLength::Sized(length) if length > 0)
        && head.fields.iter().any(|field| field.kind == FieldName::Trailer)
}
