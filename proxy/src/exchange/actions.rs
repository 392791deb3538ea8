//! What a route does with requests and responses besides forwarding them: redirects, path rewrites, header changes, cross-origin rules
//! (CORS).

use ringway_config::model::{Actions, Cors, FieldEdits, Redirect, Rewrite};
use ringway_http1::{Authority, Method, RequestHead, default_port};

/// A response that no backend gives.
#[derive(Debug)]
pub(crate) struct DirectResponse {
    pub(crate) status: u16,
    /// Header lines, each with its line end.
    pub(crate) fields: Vec<u8>,
}

impl DirectResponse {
    pub(crate) fn phrase(&self) -> &'static str {
        match self.status {
            204 => "No Content",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            307 => "Temporary Redirect",
            _ => "Permanent Redirect",
        }
    }
}

/// The response that the route gives itself, if it does. `secure`: the client speaks `https`.
pub(crate) fn direct_response(
    actions: &Actions,
    secure: bool,
    buffer: &[u8],
    head: &RequestHead,
) -> Option<DirectResponse> {
    if let Some(cors) = &actions.cors
        && head.method == Method::Options
        && head.value_of(buffer, b"access-control-request-method").is_some()
        && let Some(origin) = head.value_of(buffer, b"origin")
    {
        let mut fields = Vec::new();
        if allow(cors, origin, &mut fields) {
            fields.extend_from_slice(cors.preflight.as_bytes());
        }
        return Some(DirectResponse { status: 204, fields });
    }
    actions.redirect.as_ref().map(|redirect| redirection(redirect, secure, buffer, head))
}

fn redirection(redirect: &Redirect, secure: bool, buffer: &[u8], head: &RequestHead) -> DirectResponse {
    let mut fields = b"location: ".to_vec();
    let authority = Authority::new(head.authority.of(buffer));
    let scheme = redirect.scheme.as_deref().unwrap_or(if secure { "https" } else { "http" });
    if redirect.host.is_some() || !head.authority.is_empty() {
        fields.extend_from_slice(scheme.as_bytes());
        fields.extend_from_slice(b"://");
        match (&redirect.host, redirect.port) {
            // A port belongs to its scheme and host.
            (None, None) if redirect.scheme.is_none() => authority.append(default_port(secure), &mut fields),
            (None, _) => authority.append_host(&mut fields),
            (Some(host), _) => fields.extend_from_slice(host.as_bytes()),
        }
        if let Some(port) = redirect.port {
            fields.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    match (&redirect.path, head.forward_target.of(buffer)) {
        (Some(path), _) => fields.extend_from_slice(path.as_bytes()),
        (None, b"" | b"*") => fields.push(b'/'),
        (None, target) => fields.extend_from_slice(target),
    }
    fields.extend_from_slice(b"\r\n");
    DirectResponse { status: redirect.status, fields }
}

/// Header lines for a response to a page of another origin. `true`: the origin may use the route.
fn allow(cors: &Cors, origin: &[u8], lines: &mut Vec<u8>) -> bool {
    let allowed = cors.any || cors.origins.binary_search_by(|one| one.as_bytes().cmp(origin)).is_ok();
    if allowed {
        lines.extend_from_slice(b"access-control-allow-origin: ");
        lines.extend_from_slice(if cors.any { b"*" } else { origin });
        lines.extend_from_slice(b"\r\n");
    }
    if !cors.any {
        // Caches must not give the response for one origin to another.
        lines.extend_from_slice(b"vary: origin\r\n");
    }
    allowed
}

/// Header lines that the response to this request gets.
pub(crate) fn response_lines(actions: &Actions, buffer: &[u8], head: &RequestHead) -> Vec<u8> {
    let mut lines = Vec::new();
    if let Some(cors) = &actions.cors
        && let Some(origin) = head.value_of(buffer, b"origin")
        && allow(cors, origin, &mut lines)
    {
        lines.extend_from_slice(cors.answer.as_bytes());
    }
    lines.extend_from_slice(actions.response.lines.as_bytes());
    lines
}

/// Whether a field of a response is left out.
pub(crate) fn drops_response_field(actions: &Actions, name: &[u8]) -> bool {
    // The route decides about origins, not the backend.
    let cors = || name.len() > 15 && name[..15].eq_ignore_ascii_case(b"access-control-");
    drops(&actions.response, name) || actions.cors.is_some() && cors()
}

/// Whether a field is left out.
pub(crate) fn drops(edits: &FieldEdits, name: &[u8]) -> bool {
    edits.drop.iter().any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
}

/// Writes the target that the backend gets.
pub(crate) fn write_target(rewrite: &Rewrite, target: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    match rewrite {
        Rewrite::Prefix { from_len, to } => {
            let rest = target.get(*from_len..).unwrap_or_default();
            out.extend_from_slice(to.as_bytes());
            // One slash where the two parts meet, if the path goes on there at all.
            match (to.ends_with('/'), rest.first()) {
                (true, Some(b'/')) => out.extend_from_slice(&rest[1..]),
                (false, Some(byte)) if !matches!(byte, b'/' | b'?') => {
                    out.push(b'/');
                    out.extend_from_slice(rest);
                }
                _ => out.extend_from_slice(rest),
            }
        }
        Rewrite::Pattern(pattern, to) => {
            let replaced = pattern.0.replace(target, to.as_bytes());
            if replaced.first() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(&replaced);
        }
    }
    // A target has no spaces, whatever a rewrite pattern made of it.
    out[start..]
        .iter_mut()
        .filter(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
        .for_each(|byte| *byte = b'_');
}
