//! A request as somebody describes it, on a command line or in JSON.

use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use thiserror::Error;

/// A request that has not been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its method.
    pub method: String,
    /// Its target, as the request line has it.
    pub target: String,
    /// Its fields in their order.
    pub headers: Vec<(String, String)>,
    /// Where its client connects from; loopback if nobody says.
    pub from: IpAddr,
    /// The listener that gets it; needed where several could.
    pub listener: Option<String>,
    /// The name that its client asks for in TLS.
    pub server_name: Option<String>,
    /// Length of its body.
    pub body_bytes: u64,
}

/// Why a description is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescribedError {
    /// It is no JSON object.
    #[error(
        "write a JSON object: {{ \"method\": \"GET\", \"target\": \"/x\", \"headers\": [[\"host\", \"a\"]], \"from\": \"10.0.0.1\" }}"
    )]
    NotAnObject,
    /// A field that means nothing.
    #[error("there is no {0:?}; there are method, target, headers, from, listener, server_name, body, body_bytes")]
    UnknownField(String),
    /// A value of another kind.
    #[error("{field}: write {wanted}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// Something that would be two lines of a head.
    #[error("{0}: a line break or a NUL cannot be sent")]
    LineBreak(&'static str),
    /// No listener of that name.
    #[error("there is no listener {wanted:?}; there are {}", .names.join(", "))]
    NoListener {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// It could come to several.
    #[error("several listeners could get it: name one of {}", .0.join(", "))]
    SeveralListeners(Vec<String>),
}

impl Default for Described {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            headers: Vec::new(),
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listener: None,
            server_name: None,
            body_bytes: 0,
        }
    }
}

impl Described {
    /// From a request line, whose version may be left out: `GET /x`, or `/x` alone.
    ///
    /// # Errors
    /// [`DescribedError::Value`].
    pub fn of_line(line: &str) -> Result<Self, DescribedError> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (method, target) = match words[..] {
            [target] if target.starts_with('/') || target.contains("://") => ("GET", target),
            [method, target] => (method, target),
            [method, target, version] if version.starts_with("HTTP/") => (method, target),
            _ => return Err(DescribedError::Value { field: "request", wanted: "a method and a target: GET /x" }),
        };
        Ok(Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() })
    }

    /// From JSON.
    ///
    /// # Errors
    /// See [`DescribedError`].
    pub fn of_json(json: &Value) -> Result<Self, DescribedError> {
        let object = json.as_object().ok_or(DescribedError::NotAnObject)?;
        let mut described = Self::default();
        for (name, value) in object {
            let text = |field| {
                let wrong = DescribedError::Value { field, wanted: "a text" };
                value.as_str().map(str::to_owned).ok_or(wrong)
            };
            match name.as_str() {
                "method" => described.method = text("method")?,
                "target" => described.target = text("target")?,
                // An empty field of a form is one that was not filled in.
                "listener" => described.listener = Some(text("listener")?).filter(|name| !name.is_empty()),
                "server_name" => described.server_name = Some(text("server_name")?).filter(|name| !name.is_empty()),
                "body" => described.body_bytes = text("body")?.len() as u64,
                "body_bytes" => {
                    let wrong = DescribedError::Value { field: "body_bytes", wanted: "a number of bytes" };
                    described.body_bytes = value.as_u64().ok_or(wrong)?;
                }
                "from" => {
                    let wrong = DescribedError::Value { field: "from", wanted: "an IP address" };
                    described.from = text("from")?.parse().map_err(|_| wrong)?;
                }
                "headers" => described.headers = headers(value)?,
                _ => return Err(DescribedError::UnknownField(name.clone())),
            }
        }
        Ok(described)
    }

    /// The head that the client would send; `host` where it names none.
    pub(super) fn head(&self, host: &str) -> Result<Vec<u8>, DescribedError> {
        let one_line = |what, text: &str| {
            let broken = text.contains(['\r', '\n', '\0']);
            if broken { Err(DescribedError::LineBreak(what)) } else { Ok(()) }
        };
        one_line("method", &self.method)?;
        one_line("target", &self.target)?;
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        for (name, value) in &self.headers {
            one_line("headers", name)?;
            one_line("headers", value)?;
            line(name, value);
        }
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !has("host") {
            line("host", self.authority().unwrap_or(host));
        }
        if self.body_bytes > 0 && !has("content-length") && !has("transfer-encoding") {
            line("content-length", &self.body_bytes.to_string());
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// The authority of a target in absolute form.
    fn authority(&self) -> Option<&str> {
        self.target.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next())
    }

    /// The port that its host names.
    pub(super) fn port(&self) -> Option<u16> {
        let host = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = self.authority().or(host.map(|(_, value)| value.as_str()))?;
        let (_, port) = authority.rsplit_once(':')?;
        port.parse().ok()
    }
}

/// `[["host", "a"], ...]`, or `{ "host": "a" }`.
fn headers(value: &Value) -> Result<Vec<(String, String)>, DescribedError> {
    let wrong = || DescribedError::Value { field: "headers", wanted: "a list of pairs: [[\"host\", \"a\"]]" };
    let pair = |name: &Value, value: &Value| Some((name.as_str()?.to_owned(), value.as_str()?.to_owned()));
    match value {
        Value::Array(list) => {
            let of = |one: &Value| match one.as_array()?.as_slice() {
                [name, value] => pair(name, value),
                _ => None,
            };
            list.iter().map(of).collect::<Option<_>>().ok_or_else(wrong)
        }
        Value::Object(object) => {
            let of = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            object.iter().map(of).collect::<Option<_>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_a_method_and_a_target_or_a_target_alone() {
        for (line, expected) in [
            ("GET /x", Some(("GET", "/x"))),
            ("POST /x HTTP/1.1", Some(("POST", "/x"))),
            ("  /x?y=1 ", Some(("GET", "/x?y=1"))),
            ("http://a.example/x", Some(("GET", "http://a.example/x"))),
            ("OPTIONS *", Some(("OPTIONS", "*"))),
            ("GET", None),
            ("", None),
            ("GET /x y z", None),
            ("GET /x SPDY/3", None),
        ] {
            let described = Described::of_line(line).ok();
            let found = described.as_ref().map(|found| (found.method.as_str(), found.target.as_str()));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn json_is_taken_in_both_forms_of_fields_and_nothing_is_ignored() {
        let of = |json: Value| Described::of_json(&json);
        let pairs =
            of(json!({ "target": "/x", "headers": [["host", "a"], ["x", "1"]], "from": "::1", "listener": "" }));
        let pairs = pairs.unwrap();
        assert_eq!(pairs.headers.len(), 2);
        assert_eq!((pairs.from.to_string().as_str(), pairs.listener), ("::1", None));
        assert_eq!(of(json!({ "headers": { "host": "a" }, "body": "four" })).unwrap().body_bytes, 4);
        for (json, part) in [
            (json!([]), "write a JSON object"),
            (json!({ "path": "/x" }), "there is no \"path\"; there are method"),
            (json!({ "headers": [["host"]] }), "headers: write a list of pairs"),
            (json!({ "headers": "host: a" }), "headers: write a list of pairs"),
            (json!({ "from": "here" }), "from: write an IP address"),
            (json!({ "from": 7 }), "from: write a text"),
            (json!({ "body_bytes": -1 }), "body_bytes: write a number"),
        ] {
            let error = of(json.clone()).unwrap_err().to_string();
            assert!(error.starts_with(part), "{json}: {error}");
        }
    }

    #[test]
    fn the_head_is_what_the_client_would_send_and_never_more_lines_than_it_has_fields() {
        let described = Described { target: "/x".into(), body_bytes: 3, ..Described::default() };
        let text = |described: &Described| described.head("127.0.0.1:80").map(|head| String::from_utf8(head).unwrap());
        assert_eq!(text(&described).unwrap(), "GET /x HTTP/1.1\r\nhost: 127.0.0.1:80\r\ncontent-length: 3\r\n\r\n");
        let absolute = Described::of_line("http://a.example:8080/x").unwrap();
        assert!(text(&absolute).unwrap().contains("\r\nhost: a.example:8080\r\n"));
        assert_eq!(absolute.port(), Some(8080));
        let with =
            |name: &str, value: &str| Described { headers: vec![(name.into(), value.into())], ..Described::default() };
        assert_eq!(text(&with("Host", "b")).unwrap(), "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(text(&with("x", "1\r\nhost: evil")), Err(DescribedError::LineBreak("headers")));
        assert_eq!(text(&with("x\n", "1")), Err(DescribedError::LineBreak("headers")));
        let broken = Described { target: "/ HTTP/1.1\r\nx: y".into(), ..Described::default() };
        assert_eq!(text(&broken), Err(DescribedError::LineBreak("target")));
    }
}
