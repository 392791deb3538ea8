//! A request, and its sender.

use super::auth::Caller;
use super::response::problem;
use crate::Code;
use crate::http::Problem;
use hyper::header;
use std::net::SocketAddr;

/// One request, its caller known.
pub(super) struct Call<'a> {
    pub(super) method: &'a hyper::Method,
    /// The path's segments, percent-decoded.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: &'a hyper::HeaderMap,
    pub(super) caller: Caller,
    pub(super) from: SocketAddr,
    /// Of the client's certificate.
    pub(super) names: &'a [String],
}

impl Call<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is there alone, or says so.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.parameter(name) {
            Some("" | "true" | "1") => Ok(true),
            None | Some("false" | "0") => Ok(false),
            Some(other) => Err(problem(400, Code::BadFlag, format!("{name}={other:?} is neither `true` nor `false`"))),
        }
    }

    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What somebody says of a change is remembered, and shown to others: it has a size.
pub(super) fn bounded(what: &str, text: &str) -> Result<(), Problem> {
    if text.len() <= crate::state::NOTE_BYTES_MAX {
        return Ok(());
    }
    Err(problem(413, Code::TooLarge, format!("a {what} has at most {} bytes", crate::state::NOTE_BYTES_MAX)))
}

/// Percent-decoding; what is no escape stands for itself, what is no UTF-8 is replaced.
pub(super) fn unescape(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A time as in files, in milliseconds.
pub(super) fn duration_ms(text: &str) -> Option<u64> {
    u64::try_from(ringway_config::parse_duration(text)?.as_millis()).ok()
}

pub(super) fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| problem(400, Code::BadNumber, format!("{text:?} is not a number")))
}
