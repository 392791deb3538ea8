//! Small texts: addresses, names, paths, methods, fields.

use crate::diagnostic::At;
use crate::findings::Findings;
use crate::plain::is_dots;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The address of a backend.
pub(super) fn backend_address(at: &At<String>, findings: &mut Findings) -> Option<SocketAddr> {
    let address = address(at, findings)?;
    if address.port() == 0 {
        findings.error(at.place, "bad_address", "a backend has no port 0", "write the port it listens on");
        return None;
    }
    Some(address)
}

/// The second address of a backend, which must be of the other family than its first.
pub(super) fn additional_address(
    first: &At<String>,
    second: Option<&At<String>>,
    findings: &mut Findings,
) -> Option<SocketAddr> {
    let second = second?;
    let address = backend_address(second, findings)?;
    // One that is no address is told of by itself.
    let first = first.value.parse::<SocketAddr>().ok()?;
    let is_ipv4 = |address: SocketAddr| address.ip().to_canonical().is_ipv4();
    if is_ipv4(address) != is_ipv4(first) {
        return Some(address);
    }
    let (family, other, example) = if is_ipv4(first) {
        ("IPv4", "IPv6", "`additional_address: \"[2001:db8::1]:8080\"`")
    } else {
        ("IPv6", "IPv4", "`additional_address: \"10.0.0.1:8080\"`")
    };
    let message = if address == first {
        format!("{address} is the backend's `address` already")
    } else {
        format!("{address} is {family}, as the backend's `address` is ({first})")
    };
    let help =
        format!("write its {other} address, for example {example}; what listens elsewhere is a backend of its own");
    findings.error(second.place, "same_family", message, help);
    None
}

/// An address and a port.
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
    if is_dots(&at.value) {
        findings.error(
            at.place,
            "bad_name",
            format!(
                "{what} is `{}`, which a path of a URL cannot name: clients take it for a step between folders",
                at.value
            ),
            "write another one",
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

/// An age that nothing would reach before it is of use.
pub(super) fn lifetime(at: &At<Duration>, what: &str, findings: &mut Findings) {
    if !at.value.is_zero() && at.value < Duration::from_secs(1) {
        let message = format!("`{what}` is shorter than a second: connections would be made anew all the time");
        findings.error(at.place, "bad_duration", message, "write for example `10m`, or `0` for no limit");
    }
}

pub(super) fn path_text(at: &At<impl AsRef<str>>, findings: &mut Findings) -> Option<String> {
    let path = at.value.as_ref();
    let good = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !good {
        findings.error(
            at.place,
            "bad_path",
            format!("`{path}` is not a path"),
            "a path begins with `/`; spaces are written `%20`",
        );
        return None;
    }
    Some(path.to_owned())
}

/// A text that is compared as it is, and looks as if more were meant.
pub(super) fn literal(at: &At<impl AsRef<str>>, help: String, findings: &mut Findings) {
    let text = at.value.as_ref();
    if text.contains('*') {
        let message = format!("the `*` in `{text}` stands for itself: this is no pattern");
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
pub(super) const FRAMING: [&str; 9] = [
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

/// A field's name as backends may read it, which take an underscore for a hyphen.
pub(super) fn as_read(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

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

pub(super) fn header_value(at: &At<impl AsRef<str>>, findings: &mut Findings) -> String {
    let value = at.value.as_ref();
    if value.chars().any(|c| c.is_control()) {
        findings.error(at.place, "bad_header", "a field's value has no control characters", "write it in one line");
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<T>(value: T) -> At<T> {
        At { value, place: crate::diagnostic::Place::default() }
    }

    /// The codes and helps of what a check finds.
    fn found<T>(check: impl FnOnce(&mut Findings) -> T) -> (T, Vec<(&'static str, String)>) {
        let mut findings = Findings::default();
        let value = check(&mut findings);
        let list = findings.list.into_iter();
        (value, list.map(|finding| (finding.code, finding.help.unwrap_or_default())).collect())
    }

    #[test]
    fn each_wrong_form_of_an_address_is_told_what_to_write_instead() {
        let of = |text: &str| found(|findings| address(&at(text.to_owned()), findings));
        assert_eq!(of("10.0.0.1:80"), ("10.0.0.1:80".parse().ok(), Vec::new()));
        assert_eq!(of("[::1]:80").0, "[::1]:80".parse().ok());
        for (text, part) in [
            ("http://10.0.0.1:80", "drop `http://`: write `\"10.0.0.1:80\"`"),
            ("https://a:1", "say in `tls:`"),
            ("http://a:1/path", "paths belong in routes"),
            ("localhost:80", "`\"127.0.0.1:80\"` or `\"[::1]:80\"`"),
            (":80", "`\"0.0.0.0:80\"` for all of IPv4"),
            ("10.0.0.1", "write it as"),
            ("::1", "write it as"),
            ("a.example:80", "names are not looked up here"),
            ("10.0.0.1:99999", "write it as"),
            ("10.0.0.300:80", "write it as"),
        ] {
            let (address, findings) = of(text);
            assert_eq!(address, None, "{text}");
            assert_eq!((findings.len(), findings[0].0), (1, "bad_address"), "{text}");
            assert!(findings[0].1.contains(part), "{text}: {}", findings[0].1);
        }
        assert!(!of("http://a:1/").1[0].1.contains("paths belong"), "a slash alone is no path");
        assert!(!of("http://a:1").1[0].1.contains("tls"));
    }

    #[test]
    fn names_have_1_to_256_characters_and_no_spaces() {
        let is_good = |text: &str| found(|findings| name(&at(text.to_owned()), "it", findings)).1.is_empty();
        assert!(is_good("a") && is_good(&"a".repeat(256)) && is_good("ü-1"));
        assert!(is_good("...") && is_good(".a") && !is_good(".") && !is_good(".."));
        assert!(!is_good("") && !is_good(&"a".repeat(257)) && !is_good("a b") && !is_good("a\u{7}"));
        let is_plain = |text: &str| found(|findings| nonempty(&at(text.to_owned()), "it", findings)).1.is_empty();
        assert!(is_plain("sid") && !is_plain(""));
        assert!(["a b", "a;b", "a=b", "a&b", "a\n"].iter().all(|text| !is_plain(text)));
    }

    #[test]
    fn the_second_of_two_equal_names_is_found_and_called_by_what_it_is() {
        let names = ["a", "b", "a"].map(|name| at(name.to_owned()));
        let codes = |what| found(|findings| unique(names.iter(), what, findings)).1;
        assert_eq!(codes("backend").iter().map(|finding| finding.0).collect::<Vec<_>>(), ["duplicate_id"]);
        assert_eq!(codes("service").iter().map(|finding| finding.0).collect::<Vec<_>>(), ["duplicate_name"]);
    }

    #[test]
    fn paths_begin_with_a_slash_and_have_what_a_request_line_may_have() {
        let is_path = |text: &str| found(|findings| path_text(&at(text.to_owned()), findings)).0.is_some();
        assert!(is_path("/") && is_path("/a%20b?c") && is_path("/~!$&'()*+,;=:@"));
        assert!(!is_path("") && !is_path("a") && !is_path("/a b") && !is_path("/a#b") && !is_path("/ü"));
    }

    #[test]
    fn methods_are_upper_case_tokens_and_fields_that_frame_are_not_edited() {
        let of_method = |text: &str| found(|findings| method(&at(text.to_owned()), findings)).1;
        assert!(of_method("GET").is_empty() && of_method("M-SEARCH").is_empty());
        assert_eq!(of_method("get")[0].1, "write `GET`");
        assert_eq!(of_method("G ET").len(), 1);
        let of_name = |text: &str| found(|findings| editable_name(&at(text.to_owned()), findings));
        assert_eq!(of_name("X-A"), ("x-a".to_owned(), Vec::new()));
        for name in FRAMING {
            assert_eq!(of_name(&name.to_ascii_uppercase()).1[0].0, "framing_field", "{name}");
        }
        assert_eq!(of_name("x a").1[0].0, "bad_header");
        let of_value = |text: &str| found(|findings| header_value(&at(text.to_owned()), findings)).1.len();
        assert_eq!((of_value("a b"), of_value("a\r\nb"), of_value("a\0")), (0, 1, 1));
    }

    #[test]
    fn no_time_limit_is_zero_and_an_asterisk_is_said_to_be_one() {
        let of = |millis| found(|findings| nonzero(&at(Duration::from_millis(millis)), "it", findings)).1.len();
        assert_eq!((of(0), of(1)), (1, 0));
        let of = |text: &str| found(|findings| literal(&at(text.to_owned()), String::new(), findings)).1.len();
        assert_eq!((of("/a*"), of("/a")), (1, 0));
    }
}
