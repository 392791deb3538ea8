//! The admin listener: metrics, status, health of the process itself, reload.

pub(crate) mod explain;
mod metrics;
mod peak_share;
pub(crate) mod plan;
mod status;

use crate::admin::explain::Subject;
use crate::apply::handle::ControlHandle;
use crate::apply::outcome::ReloadError;
use crate::net::shortage::{Operation, is_of_one_connection};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringway_config::browser::Asked;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Admin connections at once: a reserve of its own, which client connections cannot use up.
const CONNECTIONS_MAX: usize = 64;

/// Serves the admin listener for as long as the process lives.
pub(crate) async fn serve(control: ControlHandle, socket: TcpListener) {
    let permits = Arc::new(Semaphore::new(control.shortage().admin_connections_max(CONNECTIONS_MAX)));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(control.clone(), stream, permit))),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                control.shortage().note(Operation::AdminAccept, &error, "admin");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(control: ControlHandle, stream: TcpStream, permit: OwnedSemaphorePermit) {
    let service = hyper::service::service_fn(|request| {
        let immediate = respond(&control, &request);
        let control = control.clone();
        async move {
            Ok::<_, Infallible>(match immediate {
                Some(response) => response,
                None => reload(control).await,
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on an admin connection is its client's to see.
    let _ = connection.await;
    drop(permit);
}

/// Rejects requests of other origins' pages in a browser that reaches this listener. To change something, the name in the request
/// must be one of this listener's; to read, it must where the listener is on loopback, which has no other names. Elsewhere reads
/// under any name are served: a client that reaches the listener can use its address as well.
fn reject_foreign<B>(control: &ControlHandle, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let field =
        |name: header::HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let asked = Asked {
        host: request.uri().authority().map(|authority| authority.as_str()).or(field(header::HOST)),
        origin: field(header::ORIGIN),
        fetch_site: field(header::HeaderName::from_static("sec-fetch-site")),
    };
    let snapshot = control.snapshot();
    let admin = snapshot.config.admin.as_ref();
    let names = admin.map_or(&[][..], |admin| &admin.hosts);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let on_loopback = control.admin_address().is_none_or(|address| address.ip().is_loopback());
    if !is_read && (asked.is_foreign_page() || request.headers().get_all(header::HOST).iter().count() > 1) {
        return Some(error_response(StatusCode::FORBIDDEN, "a page of another origin must not change anything here"));
    }
    // A name without a dot cannot be registered by a stranger: containers know each other by such names.
    let is_short = |host: &str| !host.is_empty() && !host.contains('.');
    let may_read = !on_loopback || asked.host.is_some_and(is_short);
    if asked.has_own_host(names) || (is_read && may_read) {
        return None;
    }
    Some(error_response(
        StatusCode::FORBIDDEN,
        "ask by an IP address or as localhost, or list the name in the file: `admin: { hosts: [ NAME ] }`",
    ))
}

/// `None`: a reload is asked for, which takes its time.
fn respond<B>(control: &ControlHandle, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    if let Some(rejected) = reject_foreign(control, request) {
        return Some(rejected);
    }
    Some(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::page(control))
        }
        (&Method::GET | &Method::HEAD, "/status") => json_response(StatusCode::OK, &status::status(control)),
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            if control.is_draining() {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".into())
            } else {
                text(StatusCode::OK, "text/plain", "ready\n".into())
            }
        }
        (&Method::GET | &Method::HEAD, "/explain") => explain(control, request.uri().query().unwrap_or_default()),
        (&Method::POST, "/reload") => return None,
        (_, "/metrics" | "/status" | "/explain" | "/healthz" | "/readyz") => {
            error_response(StatusCode::METHOD_NOT_ALLOWED, "use GET")
        }
        (_, "/reload") => error_response(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
        _ => error_response(
            StatusCode::NOT_FOUND,
            "there are GET /metrics, GET /status, GET /explain?service=NAME&key=KEY, GET /healthz, GET /readyz and \
             POST /reload",
        ),
    })
}

fn explain(control: &ControlHandle, query: &str) -> Response<Full<Bytes>> {
    let parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = |name: &str| parameters.clone().find(|(known, _)| *known == name).map(|(_, value)| unescape(value));
    let service = value("service");
    let (key, hash) = (value("key"), value("hash"));
    let hash = hash.and_then(|hash| u64::from_str_radix(std::str::from_utf8(&hash).ok()?, 16).ok());
    let subject = match (&key, hash) {
        (Some(key), _) => Subject::Key(key),
        (None, Some(hash)) => Subject::Hash(hash),
        (None, None) => {
            return error_response(StatusCode::BAD_REQUEST, "write /explain?service=NAME&key=KEY (or hash=HEX)");
        }
    };
    let snapshot = control.snapshot();
    let name = service.map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
    match explain::live(&snapshot, &name, subject) {
        Some(explanation) => json_response(StatusCode::OK, &explanation),
        None => {
            let names: Vec<&str> = snapshot.services.iter().map(|service| service.config.name.as_str()).collect();
            error_response(
                StatusCode::NOT_FOUND,
                &format!("there is no service {name:?}; there are {}", names.join(", ")),
            )
        }
    }
}

/// Percent-decoding, as of a form; what is no escape stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

async fn reload(control: ControlHandle) -> Response<Full<Bytes>> {
    let Ok((outcome, shown)) = tokio::task::spawn_blocking(move || control.reload_blocking()).await else {
        return error_response(StatusCode::INTERNAL_SERVER_ERROR, "the reload has ended before its time");
    };
    let code = match &outcome {
        Ok(_) => StatusCode::OK,
        Err(ReloadError::Invalid(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(ReloadError::NoFile | ReloadError::Draining) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json_response(code, shown.json())
}

fn error_response(code: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_response(code, &json!({ "error": message }))
}

fn json_response(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    text(code, "application/json", format!("{value:#}\n"))
}

fn text(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::source::Source;
    use crate::apply::testing;

    #[tokio::test]
    async fn each_path_has_its_methods_and_a_page_of_another_origin_none_that_change() {
        let (control, _receivers) = testing::control(Source::Memory);
        let control = ControlHandle::new(Arc::new(control));
        let code = |method: &str, path: &str, fields: &[(&str, &str)]| {
            let request = fields.iter().fold(Request::builder().method(method).uri(path), |request, (name, value)| {
                request.header(*name, *value)
            });
            respond(&control, &request.body(()).unwrap()).map(|response| response.status().as_u16())
        };
        let own = ("host", "127.0.0.1:9000");
        for (method, path, fields, expected) in [
            ("GET", "/healthz", &[own][..], Some(200)),
            ("HEAD", "/readyz", &[own], Some(200)),
            ("GET", "/status", &[own], Some(200)),
            ("GET", "/metrics", &[own], Some(200)),
            ("POST", "/status", &[own], Some(405)),
            ("POST", "/reload", &[own], None),
            ("GET", "/reload", &[own], Some(405)),
            ("GET", "/nowhere", &[own], Some(404)),
            ("GET", "/explain?service=none&key=k", &[own], Some(404)),
            ("GET", "/explain?service=none", &[own], Some(400)),
            ("GET", "/status", &[("host", "evil.example")], Some(403)),
            ("GET", "/status", &[("host", "ringway:9000")], Some(200)),
            ("POST", "/reload", &[("host", "ringway:9000")], Some(403)),
            ("POST", "/reload", &[own, ("origin", "http://evil.example")], Some(403)),
            ("POST", "/reload", &[own, ("sec-fetch-site", "cross-site")], Some(403)),
            ("POST", "/reload", &[own, own], Some(403)),
        ] {
            assert_eq!(code(method, path, fields), expected, "{method} {path} {fields:?}");
        }
    }
}
