//! A call over HTTP/1.1, as this process makes it of its own: a connection, a request, a response that is bounded in size and time.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Why a call has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// To where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The other side does not speak HTTP, or has closed.
    #[error("{address}: {source}")]
    Http {
        /// Who.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The response has no end, or too much before it.
    #[error("{address}: {source}")]
    Body {
        /// Whose.
        address: SocketAddr,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The time is over.
    #[error("{0} did not answer")]
    Timeout(SocketAddr),
}

/// Begins HTTP on a connection.
pub(super) async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the sender and the response are dropped; what goes wrong is told through them.
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of a response, of at most so many bytes.
pub(super) async fn body(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Limited::new(response.into_body(), bytes_max).collect().await.map(http_body_util::Collected::to_bytes)
}

/// One request in the clear, on a connection of its own. A body is JSON.
///
/// # Errors
/// See [`CallError`].
pub async fn send(
    address: SocketAddr,
    (method, path, body_sent): (Method, &str, Bytes),
    bytes_max: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), CallError> {
    let whole = async {
        let stream = TcpStream::connect(address).await.map_err(|source| CallError::Connect { address, source })?;
        let http = |source| CallError::Http { address, source };
        let mut sender = begin(stream).await.map_err(http)?;
        let bad = |source: Box<dyn std::error::Error + Send + Sync>| CallError::Body { address, source };
        let has_body = !body_sent.is_empty();
        let mut request = Request::new(Full::new(body_sent));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| bad(error.into()))?;
        let host = header::HeaderValue::from_str(&address.to_string()).map_err(|error| bad(error.into()))?;
        request.headers_mut().insert(header::HOST, host);
        if has_body {
            let json = header::HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        Ok((status, body(response, bytes_max).await.map_err(bad)?))
    };
    tokio::time::timeout(timeout, whole).await.map_err(|_| CallError::Timeout(address))?
}

/// One GET in the clear, on a connection of its own.
///
/// # Errors
/// See [`CallError`].
pub async fn get(
    address: SocketAddr,
    path: &str,
    bytes_max: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), CallError> {
    send(address, (Method::GET, path, Bytes::new()), bytes_max, timeout).await
}
