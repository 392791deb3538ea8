//! What the admin listener answers with.

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use ringway_page::Stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Instant;

/// A response, whole or as a stream.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What is wrong, as JSON.
pub(super) fn error(code: StatusCode, message: &str) -> Reply {
    json_value(code, &json!({ "error": message }))
}

pub(super) fn json_value(code: StatusCode, value: &Value) -> Reply {
    text(code, "application/json", format!("{value:#}\n"))
}

pub(super) fn text(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Lines of JSON, as long as they come.
pub(super) fn lines(lines: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Reply {
    let mut response = Response::new(lines.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// When a response is over at the latest, whatever its client has read by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndsBy(pub(super) Instant);

/// Events, as long as they come.
pub(super) fn stream(events: Stream) -> Reply {
    let mut response = Response::new(events.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
