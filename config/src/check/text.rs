//! Small texts: addresses, names, paths, methods, fields.

use crate::diagnostic::At;
use crate::findings::Findings;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) fn address(at: &At<String>, findings: &mut Findings) -> Option<SocketAddr> {
    if let Ok(address) = at.value.parse() {
        return Some(address);
    }
    let text = at.value.as_str();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port_good = port.parse::<u16>().is_ok();
    let (message, help) = if let Some((scheme, rest)) = text.split_once("://") {
        let plain = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let mut help = format!("drop `{scheme}://`: write `\"{plain}\"`");
        if matches!(scheme, "https" | "grpcs" | "wss" | "tls") {
            help.push_str(", and say in `tls:` that it is TLS");
        }
        if rest.len() > plain.len() + 1 {
            help.push_str("; paths belong in routes");
        }
        (format!("`{text}` is a URL where there must be an IP address and a port"), help)
    } else if host == "localhost" && port_good {
        (
            format!("`{text}` has a name where there must be an IP address"),
            format!("write `\"127.0.0.1:{port}\"` or `\"[::1]:{port}\"`"),
        )
    } else if host.is_empty() && port_good {
        (
            format!("`{text}` has no IP address"),
            format!("write `\"0.0.0.0:{port}\"` for all of IPv4, `\"127.0.0.1:{port}\"` for this machine only"),
        )
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        (format!("`{text}` has no port"), "write it as `\"10.0.0.1:8080\"` or `\"[::1]:8080\"`".to_owned())
    } else if port_good && !host.starts_with(|c: char| c.is_ascii_digit() || c == '[') {
        (
            format!("`{text}` has a name where there must be an IP address"),
            "write the IP address: names are not looked up here".to_owned(),
        )
    } else {
        (format!("`{text}` is not an address"), "write it as `\"10.0.0.1:8080\"` or `\"[::1]:8080\"`".to_owned())
    };
    findings.error(at.place, "bad_address", message, help);
    None
}

pub(super) fn name(at: &At<String>, what: &str, findings: &mut Findings) {
    let good =
        !at.value.is_empty() && at.value.len() <= 256 && !at.value.chars().any(|c| c.is_control() || c.is_whitespace());
    if !good {
        findings.error(
            at.place,
            "bad_name",
            format!("{what} is empty, too long, or has spaces"),
            "write 1 to 256 characters without spaces",
        );
    }
}

pub(super) fn nonempty(at: &At<String>, what: &str, findings: &mut Findings) -> String {
    if at.value.is_empty() || at.value.chars().any(|c| c.is_control() || matches!(c, ' ' | ';' | '=' | '&')) {
        findings.error(at.place, "bad_name", format!("`{}` is not {what}", at.value), "write the plain name");
    }
    at.value.clone()
}

pub(super) fn unique<'a>(names: impl Iterator<Item = &'a At<String>>, what: &str, findings: &mut Findings) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for at in names {
        if let Some(line) = seen.insert(&at.value, at.place.line) {
            let code = if what == "backend" { "duplicate_id" } else { "duplicate_name" };
            findings.error(
                at.place,
                code,
                format!("{what} {:?} is already defined in line {line}", at.value),
                "give each its own",
            );
        }
    }
}

pub(super) fn nonzero(at: &At<Duration>, what: &str, findings: &mut Findings) {
    if at.value.is_zero() {
        findings.error(at.place, "bad_duration", format!("`{what}` cannot be zero"), "write for example `1s`");
    }
}

pub(super) fn path_text(at: &At<String>, findings: &mut Findings) -> Option<String> {
    let good = at.value.starts_with('/') && at.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !good {
        findings.error(
            at.place,
            "bad_path",
            format!("`{}` is not a path", at.value),
            "a path begins with `/`; spaces are written `%20`",
        );
        return None;
    }
    Some(at.value.clone())
}

/// A text that is compared as it is, and looks as if more were meant.
pub(super) fn literal(at: &At<String>, help: String, findings: &mut Findings) {
    if at.value.contains('*') {
        let message = format!("the `*` in `{}` stands for itself: this is no pattern", at.value);
        findings.warning(at.place, "literal_wildcard", message, help);
    }
}

pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

pub(super) fn method(at: &At<String>, findings: &mut Findings) -> String {
    if !is_token(&at.value) {
        findings.error(at.place, "bad_method", format!("`{}` is not a method", at.value), "write for example `GET`");
    } else if at.value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        findings.error(
            at.place,
            "bad_method",
            format!("`{}` is not a method: methods are case-sensitive", at.value),
            format!("write `{}`", at.value.to_ascii_uppercase()),
        );
    }
    at.value.clone()
}

pub(super) fn header_name(at: &At<String>, findings: &mut Findings) -> String {
    if !is_token(&at.value) {
        findings.error(
            at.place,
            "bad_header",
            format!("`{}` is not a field's name", at.value),
            "write for example `x-user-id`",
        );
    }
    at.value.to_ascii_lowercase()
}

/// Fields that frame a message, or belong to one connection: nobody's to write.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The name of a field that the configuration may write into a message.
pub(super) fn editable_name(at: &At<String>, findings: &mut Findings) -> String {
    let name = header_name(at, findings);
    if FRAMING.contains(&name.as_str()) {
        findings.error(
            at.place,
            "framing_field",
            format!("`{name}` frames messages: it cannot be edited"),
            "remove it; Ringway writes these fields itself",
        );
    }
    name
}

pub(super) fn header_value(at: &At<String>, findings: &mut Findings) -> String {
    if at.value.chars().any(|c| c.is_control()) {
        findings.error(at.place, "bad_header", "a field's value has no control characters", "write it in one line");
    }
    at.value.clone()
}
