//! The admin listener: metrics, status, health of the process itself, reload.

use crate::control::{Control, ReloadError};
use crate::status;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
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
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| {
                        let response = answer(&control, &request);
                        async move { Ok::<_, Infallible>(response) }
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
            Err(error) => {
                tracing::warn!(%error, "accept on the admin listener failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn answer(control: &Control, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
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
        (&Method::POST, "/reload") => reload(control),
        (_, "/metrics" | "/status" | "/healthz" | "/readyz") => refuse(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
        (_, "/reload") => refuse(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
        _ => refuse(
            StatusCode::NOT_FOUND,
            "there are GET /metrics, GET /status, GET /healthz, GET /readyz and POST /reload",
        ),
    }
}

fn reload(control: &Control) -> Response<Full<Bytes>> {
    let result = control.reload();
    let code = match &result {
        Ok(_) => StatusCode::OK,
        Err(ReloadError::Invalid(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(ReloadError::NoFile | ReloadError::Draining) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json_answer(code, control.last_reload().json())
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
