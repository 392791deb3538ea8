//! Somebody who is asked over HTTP, wherever they listen: at an address, in the clear or by TLS, or at a Unix socket.

use super::advice;
use super::call::{begin, body};
use crate::transport::tls::{self, TlsError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where somebody listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host and a port.
    Tcp {
        /// A name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Somebody to ask, and what is shown to them.
pub struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<header::HeaderValue>,
}

/// A response that has begun.
#[derive(Debug)]
pub struct Opened {
    /// Its status.
    pub status: StatusCode,
    /// What comes of it.
    pub body: Incoming,
    /// It lasts as long as this.
    _connection: SendRequest<Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token cannot be read.
    #[error("token file {path:?}: {reason}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not reached, or does not speak as it should.
    #[error("{endpoint}: {reason}")]
    Unreachable {
        /// Who.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
}

impl Endpoint {
    /// Reads `127.0.0.1:9901`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Self::Unix(path.into()));
        }
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = ringway_config::model::MemberUrl::parse(&url)?;
        Some(Self::Tcp { host: url.host, port: url.port, tls: url.tls })
    }

    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { tls: true, .. } => write!(f, "https://{}", self.authority()),
            Self::Tcp { .. } => f.write_str(&self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(
        endpoint: Endpoint,
        token: Option<&Path>,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, EndpointError> {
        let tls = match &endpoint {
            Endpoint::Tcp { tls: true, .. } => Some(tls::client(ca, identity, &[b"http/1.1"])?),
            Endpoint::Tcp { .. } | Endpoint::Unix(_) => None,
        };
        Ok(Self { endpoint, tls, authorization: token.map(bearer).transpose()? })
    }

    /// One request, on a connection of its own. A body is JSON, and so is the response where it is wanted.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn send(
        &self,
        (method, path, sent, json): (Method, &str, Bytes, bool),
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), EndpointError> {
        let whole = async {
            let (_connection, response) = self.begun((method, path, sent, json)).await?;
            let status = response.status();
            Ok((status, body(response, bytes_max).await.map_err(|error| error.to_string())?))
        };
        self.within(timeout, whole).await
    }

    /// One GET whose response has begun within the time, and may go on without end.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn open(&self, path: &str, timeout: Duration) -> Result<Opened, EndpointError> {
        let begun = async {
            let (connection, response) = self.begun((Method::GET, path, Bytes::new(), false)).await?;
            Ok(Opened { status: response.status(), body: response.into_body(), _connection: connection })
        };
        self.within(timeout, begun).await
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, EndpointError> {
        let answer = tokio::time::timeout(timeout, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {}s", timeout.as_secs())));
        answer.map_err(|reason| EndpointError::Unreachable { endpoint: self.endpoint.clone(), reason })
    }

    /// A request on a connection of its own, up to the head of its response.
    async fn begun(
        &self,
        (method, path, sent, json): (Method, &str, Bytes, bool),
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), String> {
        let mut sender = self.connect().await?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.endpoint.authority());
        if json {
            request = request.header(header::ACCEPT, "application/json");
        }
        if !sent.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(sent)).map_err(|error| error.to_string())?;
        // With TLS 1.3, what the other side thinks of a certificate is heard only now.
        let refused = |error: hyper::Error| of_certificate(&error).unwrap_or_else(|| with_cause(&error));
        let response = sender.send_request(request).await.map_err(refused)?;
        Ok((sender, response))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let (host, port) = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
                return begin(stream).await.map_err(|error| with_cause(&error));
            }
            Endpoint::Tcp { host, port, .. } => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
        let Some(config) = &self.tls else {
            return begin(stream).await.map_err(|error| with_cause(&error));
        };
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        let stream = stream.map_err(|error| {
            format!(
                "{error}: `--ca FILE` names the authority of its certificate, `--certificate` and `--key-file` show one"
            )
        })?;
        begin(stream).await.map_err(|error| with_cause(&error))
    }
}

/// What to show, where the other side does not take the certificate that was shown.
fn of_certificate(error: &hyper::Error) -> Option<String> {
    match advice::of_rustls(error)? {
        refused @ rustls::Error::AlertReceived(_) => Some(format!(
            "{refused}: the certificate that is shown is not taken: `--certificate FILE --key-file FILE` want one of an authority in \
             the listener's `client_ca`"
        )),
        _ => None,
    }
}

/// The library keeps the cause apart.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn bearer(path: &Path) -> Result<header::HeaderValue, EndpointError> {
    let failed = |reason: String| EndpointError::Token { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut value = header::HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_| failed("it must be one line of letters and digits".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:9901", "127.0.0.1:9901"),
            ("http://proxy-1:9901", "proxy-1:9901"),
            ("https://[::1]:9901", "https://[::1]:9901"),
            ("unix:/run/ringway/admin.sock", "unix:/run/ringway/admin.sock"),
        ] {
            assert_eq!(Endpoint::parse(text).map(|endpoint| endpoint.to_string()).as_deref(), Some(shown));
        }
        for bad in ["", "unix:", "9901", "proxy-1", "ftp://a:1", "http://a:1/x"] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }
}
