//! The admin listener: metrics, status, health of the process itself, reload.

pub(crate) mod explain;
pub(crate) mod plan;
pub(crate) mod status;

use crate::admin::explain::Subject;
use crate::apply::control::{Control, ReloadError};
use crate::net::shortage::{Operation, is_of_one_connection};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringway_config::browser::Asked;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Admin connections at once: a reserve of its own, which client connections cannot use up.
const CONNECTIONS_MAX: usize = 64;

/// Serves the admin listener for as long as the process lives.
pub(crate) async fn serve(control: Arc<Control>, socket: TcpListener) {
    let permits = Arc::new(Semaphore::new(control.shortage().admin_connections_max(CONNECTIONS_MAX)));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| {
                        let answered = answer(&control, &request);
                        let control = Arc::clone(&control);
                        async move {
                            Ok::<_, Infallible>(match answered {
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
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                control.shortage().note(Operation::AdminAccept, &error, "admin");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Who must not ask: pages of others in a browser of somebody who reaches this listener. To change something, the name that is
/// asked by must be an own one; to read, it must where the listener is on loopback, which nobody knows by another name.
/// Elsewhere reads under any name are answered: who reaches the listener can ask by its address as well.
fn refusal(control: &Control, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let field =
        |name: header::HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let asked = Asked {
        host: request.uri().authority().map(|authority| authority.as_str()).or(field(header::HOST)),
        origin: field(header::ORIGIN),
        fetch_site: field(header::HeaderName::from_static("sec-fetch-site")),
    };
    let snapshot = control.current.load();
    let admin = snapshot.config.admin.as_ref();
    let names = admin.map_or(&[][..], |admin| &admin.hosts);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    // Where it is bound, whatever the file says now.
    let on_loopback = control.admin.is_none_or(|address| address.ip().is_loopback());
    if !is_read && (asked.is_foreign_page() || request.headers().get_all(header::HOST).iter().count() > 1) {
        return Some(refuse(StatusCode::FORBIDDEN, "a page of another origin must not change anything here"));
    }
    // A name without a dot is nobody's to register: containers know each other by such names.
    let is_short = |host: &str| !host.is_empty() && !host.contains('.');
    let may_read = !on_loopback || asked.host.is_some_and(is_short);
    if asked.has_own_host(names) || (is_read && may_read) {
        return None;
    }
    Some(refuse(
        StatusCode::FORBIDDEN,
        "ask by an IP address or as localhost, or list the name in the file: `admin: { hosts: [ NAME ] }`",
    ))
}

/// `None`: a reload is asked for, which takes its time.
fn answer(control: &Control, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    if let Some(refused) = refusal(control, request) {
        return Some(refused);
    }
    Some(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", status::metrics(control))
        }
        (&Method::GET | &Method::HEAD, "/status") => json_answer(StatusCode::OK, &status::status(control)),
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            if control.draining.load(Relaxed) {
                text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".into())
            } else {
                text(StatusCode::OK, "text/plain", "ready\n".into())
            }
        }
        (&Method::GET | &Method::HEAD, "/explain") => explain(control, request.uri().query().unwrap_or_default()),
        (&Method::POST, "/reload") => return None,
        (_, "/metrics" | "/status" | "/explain" | "/healthz" | "/readyz") => {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "use GET")
        }
        (_, "/reload") => refuse(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
        _ => refuse(
            StatusCode::NOT_FOUND,
            "there are GET /metrics, GET /status, GET /explain?service=NAME&key=KEY, GET /healthz, GET /readyz and \
             POST /reload",
        ),
    })
}

fn explain(control: &Control, query: &str) -> Response<Full<Bytes>> {
    let parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = |name: &str| parameters.clone().find(|(known, _)| *known == name).map(|(_, value)| unescape(value));
    let service = value("service");
    let (key, hash) = (value("key"), value("hash"));
    let hash = hash.and_then(|hash| u64::from_str_radix(std::str::from_utf8(&hash).ok()?, 16).ok());
    let subject = match (&key, hash) {
        (Some(key), _) => Subject::Key(key),
        (None, Some(hash)) => Subject::Hash(hash),
        (None, None) => return refuse(StatusCode::BAD_REQUEST, "write /explain?service=NAME&key=KEY (or hash=HEX)"),
    };
    let snapshot = control.current.load();
    let name = service.map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
    match explain::live(&snapshot, &name, subject) {
        Some(explanation) => json_answer(StatusCode::OK, &explanation),
        None => {
            let names: Vec<&str> = snapshot.services.iter().map(|service| service.config.name.as_str()).collect();
            refuse(StatusCode::NOT_FOUND, &format!("there is no service {name:?}; there are {}", names.join(", ")))
        }
    }
}

/// Percent-decoding, as of a form; what is no escape stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

async fn reload(control: Arc<Control>) -> Response<Full<Bytes>> {
    let Ok((result, told)) = tokio::task::spawn_blocking(move || control.reload()).await else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the reload has ended before its time");
    };
    let code = match &result {
        Ok(_) => StatusCode::OK,
        Err(ReloadError::Invalid(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(ReloadError::NoFile | ReloadError::Draining) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json_answer(code, told.json())
}

fn refuse(code: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_answer(code, &json!({ "error": message }))
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    text(code, "application/json", format!("{value:#}\n"))
}

fn text(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
