//! The collector, as it is spoken with: OTLP over HTTP/1.1, a request and its response on a connection that is kept.
//!
//! Source: OpenTelemetry Protocol Specification, "OTLP/HTTP"; which statuses may be tried again, and `Retry-After`, stand there.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_rustls::TlsConnector;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// A response is a message of a few bytes.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// No token is longer.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// Where spans go, and how.
#[derive(Debug, Clone)]
pub struct Collector {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as `Host` has them.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// TLS, and the name that the certificate must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Fields of each request.
    pub headers: Vec<(String, String)>,
    /// File of the bearer token, read for each request.
    pub token_file: Option<PathBuf>,
    /// Whether what is sent is compressed.
    pub gzip: bool,
    /// For a connection, a request and its response.
    pub timeout: Duration,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// No response in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The token cannot be read.
    #[error("read {path:?}: {source}")]
    Token { path: PathBuf, source: std::io::Error },
    /// A field is none.
    #[error("{0}")]
    Field(hyper::http::Error),
    /// It has too much to do, and says for how long.
    #[error("its response is {0}")]
    Busy(StatusCode, Option<Duration>),
    /// It does not want it, and would not another time.
    #[error("its response is {0}")]
    Refused(StatusCode),
    /// It says that it has taken it, in no words of OTLP.
    #[error("its response is no OTLP")]
    Garbage,
}

impl PostError {
    /// Whether another try may do.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Timeout(_) | Self::Token { .. } | Self::Busy(..) => true,
            Self::Field(_) | Self::Refused(_) | Self::Garbage => false,
        }
    }

    /// How long the collector asks to be left alone.
    pub(super) fn wish(&self) -> Option<Duration> {
        if let Self::Busy(_, wish) = self { *wish } else { None }
    }
}

fn broken(error: impl std::fmt::Display) -> PostError {
    PostError::Broken(error.to_string())
}

/// What a collector has not taken of a batch that it has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) rejected: u64,
    pub(super) why: String,
}

/// A connection to the collector, kept from batch to batch.
pub(super) struct Line {
    collector: Collector,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// The token's file is being read.
    reading: Option<JoinHandle<std::io::Result<String>>>,
}

impl Line {
    pub(super) fn new(collector: Collector) -> Self {
        Self { collector, sender: None, reading: None }
    }

    pub(super) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Sends an encoded batch, and waits for the response.
    pub(super) async fn post(&mut self, body: Bytes) -> Result<Taken, PostError> {
        let timeout = self.collector.timeout;
        // A connection that was cut off, or on which no response came, is not used again.
        let kept = self.sender.take();
        let (response, sender) = tokio::time::timeout(timeout, self.exchange(kept, body))
            .await
            .unwrap_or(Err(PostError::Timeout(timeout)))?;
        self.sender = Some(sender);
        response
    }

    /// A request on the connection that was kept, or, if the collector has closed that meanwhile, on a fresh one.
    async fn exchange(
        &mut self,
        kept: Option<SendRequest<Full<Bytes>>>,
        body: Bytes,
    ) -> Result<(Result<Taken, PostError>, SendRequest<Full<Bytes>>), PostError> {
        let request = self.request(body).await?;
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
            && let Ok(response) = sender.send_request(request.clone()).await
        {
            return Ok((judge(response).await?, sender));
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((judge(response).await?, sender))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let Collector { host, port, tls, .. } = &self.collector;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        match tls {
            None => begin(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                begin(connector.connect(name.clone(), stream).await.map_err(broken)?).await
            }
        }
    }

    /// The bearer token. Its file is read beside the exporter's thread, and by one reader at a time: a file that hangs keeps up its own
    /// requests, for no longer than their time.
    async fn token(&mut self) -> Result<Option<String>, PostError> {
        let Some(path) = &self.collector.token_file else { return Ok(None) };
        let reading = self.reading.get_or_insert_with(|| {
            let path = path.clone();
            spawn_blocking(move || read_token(&path))
        });
        let read = reading.await;
        self.reading = None;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        read.map(Some).map_err(|source| PostError::Token { path: path.clone(), source })
    }

    async fn request(&mut self, body: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
        let token = self.token().await?;
        let Collector { authority, path, headers, gzip, .. } = &self.collector;
        let mut request = Request::post(path.as_str())
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, PROTOBUF)
            .header(USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")));
        if *gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        for (name, value) in headers {
            request = request.header(name.as_str(), value.as_str());
        }
        request.body(Full::new(body)).map_err(PostError::Field)
    }
}

fn read_token(path: &Path) -> std::io::Result<String> {
    let mut token = String::new();
    File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut token)?;
    Ok(token)
}

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, PostError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends when the sender and the response are dropped; what goes wrong is told through them.
    tokio::spawn(connection);
    Ok(sender)
}

/// Reads a response to its end: the connection carries the next request then. The outer error ends the connection.
async fn judge(response: Response<hyper::body::Incoming>) -> Result<Result<Taken, PostError>, PostError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(broken)?.to_bytes();
    let wish = wish(&head.headers, SystemTime::now());
    Ok(match head.status.as_u16() {
        200..300 => taken(&head.headers, body),
        429 | 502 | 503 | 504 => Err(PostError::Busy(head.status, wish)),
        _ => Err(PostError::Refused(head.status)),
    })
}

fn taken(fields: &HeaderMap, body: Bytes) -> Result<Taken, PostError> {
    // A response in another form says only that it has been taken.
    if fields.get(CONTENT_TYPE).is_some_and(|form| form != PROTOBUF) {
        return Ok(Taken::default());
    }
    let response = ExportTraceServiceResponse::decode(body).map_err(|_| PostError::Garbage)?;
    let partial = response.partial_success.unwrap_or_default();
    Ok(Taken { rejected: u64::try_from(partial.rejected_spans).unwrap_or(0), why: partial.error_message })
}

/// `Retry-After`, in seconds or as a date.
fn wish(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = fields.get(RETRY_AFTER)?.to_str().ok()?;
    let by_date = || httpdate::parse_http_date(value).ok()?.duration_since(now).ok();
    value.parse().map(Duration::from_secs).ok().or_else(by_date)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    #[test]
    fn a_collector_says_what_it_has_not_taken_and_for_how_long_it_wants_none() {
        let mut fields = HeaderMap::new();
        let none = taken(&fields, Bytes::new()).unwrap();
        assert_eq!(none, Taken::default());
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".into() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(taken(&fields, body.into()).unwrap(), Taken { rejected: 3, why: "too old".into() });
        assert!(matches!(taken(&fields, Bytes::from_static(b"<html>")), Err(PostError::Garbage)));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(taken(&fields, Bytes::from_static(b"{}")).unwrap(), Taken::default());
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, told) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:37 GMT", None),
            ("soon", None),
        ] {
            fields.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(wish(&fields, now), told.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_token_whose_file_hangs_delays_its_request_for_no_longer_than_that_may_last() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("token");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut line = Line::new(Collector {
            host: "127.0.0.1".into(),
            port: 1,
            authority: "127.0.0.1:1".into(),
            path: "/".into(),
            tls: None,
            headers: Vec::new(),
            token_file: Some(fifo.clone()),
            gzip: false,
            timeout: Duration::from_millis(20),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..3 {
            assert!(matches!(runtime.block_on(line.post(Bytes::new())), Err(PostError::Timeout(_))));
        }
        // The one that reads is still there.
        std::fs::write(&fifo, "secret").unwrap();
        assert_eq!(runtime.block_on(line.token()).unwrap().as_deref(), Some("secret"));
    }
}
