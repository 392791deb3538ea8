//! Somebody who is asked over HTTP, wherever they listen: at an address, in the clear or by TLS, or at a Unix socket.

use super::advice;
use super::call::{begin, body};
use super::lines::{Followed, Lines};
use crate::transport::tls::{self, TlsError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A request: its method, its path, its body, and whether JSON is wanted.
type Asked<'a> = (Method, &'a str, Bytes, bool);

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until its head is there.
    pub head: Duration,
    /// From then until its end.
    pub body: Duration,
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
    /// It is not reached: nothing was asked.
    #[error("{endpoint}: {reason}")]
    Unreachable {
        /// Who.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
    /// It was asked, and does not answer, or not as it should: what was asked for may be done all the same.
    #[error("{endpoint}: {reason}")]
    Unanswered {
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
        asked: Asked<'_>,
        bytes_max: usize,
        patience: Patience,
    ) -> Result<(StatusCode, Bytes), EndpointError> {
        let mut sender = self.connected().await?;
        let response = self.begun(&mut sender, asked, patience.head).await?;
        let status = response.status();
        let body = tokio::time::timeout(patience.body, body(response, bytes_max)).await;
        let late = || format!("the answer has begun, and does not end within {}s", patience.body.as_secs());
        let body = body.map_err(|_| self.unanswered(late()))?;
        Ok((status, body.map_err(|error| self.unanswered(error.to_string()))?))
    }

    /// One GET whose response has begun within the time, and may go on without end.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn open(&self, path: &str, timeout: Duration) -> Result<Opened, EndpointError> {
        let mut connection = self.connected().await?;
        let response = self.begun(&mut connection, (Method::GET, path, Bytes::new(), false), timeout).await?;
        Ok(Opened { status: response.status(), body: response.into_body(), _connection: connection })
    }

    /// The same, where the response goes on: its head comes within `timeout`, its lines are asked for. A refusal has at most so many
    /// bytes, and comes within it too.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn follow(
        &self,
        (method, path, sent): (Method, &str, Bytes),
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<Followed, EndpointError> {
        let mut sender = self.connected().await?;
        let response = self.begun(&mut sender, (method, path, sent, true), timeout).await?;
        let lines = tokio::time::timeout(timeout, Lines::of(sender, response, bytes_max)).await;
        let lines = lines.unwrap_or_else(|_| Err("the refusal does not end".into()));
        lines.map_err(|reason| self.unanswered(reason))
    }

    fn unreachable(&self, reason: String) -> EndpointError {
        EndpointError::Unreachable { endpoint: self.endpoint.clone(), reason }
    }

    fn unanswered(&self, reason: String) -> EndpointError {
        EndpointError::Unanswered { endpoint: self.endpoint.clone(), reason }
    }

    async fn connected(&self) -> Result<SendRequest<Full<Bytes>>, EndpointError> {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let late = |_| Err(format!("no connection within {}s", CONNECT_TIMEOUT.as_secs()));
        connection.unwrap_or_else(late).map_err(|reason| self.unreachable(reason))
    }

    /// A request, up to the head of its response.
    async fn begun(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        (method, path, sent, json): Asked<'_>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, EndpointError> {
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
        let request = request.body(Full::new(sent)).map_err(|error| self.unreachable(error.to_string()))?;
        match tokio::time::timeout(timeout, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            // With TLS 1.3, what the other side thinks of a certificate is heard only now: it has read nothing.
            Ok(Err(error)) => Err(match of_certificate(&error) {
                Some(refused) => self.unreachable(refused),
                None => self.unanswered(with_cause(&error)),
            }),
            Err(_) => Err(self.unanswered(format!("no answer within {}s", timeout.as_secs()))),
        }
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
fn of_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match advice::of_rustls(error)? {
        refused @ rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => Some(format!(
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
    fn only_an_alert_about_a_certificate_asks_for_another_one() {
        let told = |alert| of_certificate(&std::io::Error::other(rustls::Error::AlertReceived(alert)));
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateRequired] {
            assert!(told(alert).is_some_and(|told| told.contains("`--certificate FILE")), "{alert:?}");
        }
        for alert in [AlertDescription::InternalError, AlertDescription::ProtocolVersion] {
            assert_eq!(told(alert), None, "{alert:?}");
        }
    }

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
