//! gRPC over one HTTP/2 connection, as much of it as etcd takes. Source: "gRPC over HTTP2", grpc/doc/PROTOCOL-HTTP2.md.
//!
//! A call's side of the stream is ended at once, watches too: what etcd says goes on, and dropping the answer ends it.

use crate::http::advice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use ringway_config::model::MemberUrl;
use rustls::pki_types::ServerName;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until an answer has come whole, or a stream's has begun.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message that is read: etcd's own are bounded by its requests (1.5 MiB) and by the pages that are asked for.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Before each message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// What a call's status says: see <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
pub(crate) mod code {
    pub(crate) const FAILED_PRECONDITION: u32 = 9;
    pub(crate) const OUT_OF_RANGE: u32 = 11;
    /// After these nothing has been done: an argument that is wrong, no permission, no room, a state that forbids it, nobody
    /// that is known.
    pub(crate) const REFUSALS: &[u32] = &[3, 7, 8, FAILED_PRECONDITION, 16];
}

/// Where a file says how TLS is to be, of this section or that.
pub(crate) const SECTION: &str = "tls";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("no answer within {}s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("it answered what cannot be read: {0}")]
    Strange(String),
    /// It said no.
    #[error("{message} (gRPC status {code})")]
    Refused { code: u32, message: String },
}

impl CallError {
    /// Whether it is this refusal.
    pub(crate) fn is(&self, wanted: u32) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

/// A connection to one member. It ends when this is dropped.
pub(crate) struct Channel {
    sender: SendRequest<Full<Bytes>>,
    base: String,
    /// Proves which client asks, where etcd wants to know.
    pub(crate) token: Option<HeaderValue>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Channel {
    /// # Errors
    /// [`CallError::Unreachable`].
    pub(crate) async fn connect(
        member: &MemberUrl,
        tls: Option<&Arc<rustls::ClientConfig>>,
        server_name: Option<&str>,
    ) -> Result<Self, CallError> {
        let open = async {
            let stream =
                TcpStream::connect((member.host.as_str(), member.port)).await.map_err(|error| error.to_string())?;
            // Small requests, each waited for.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let Some(config) = tls.filter(|_| member.tls) else { return handshake(stream).await };
            let name = server_name.unwrap_or(&member.host).to_owned();
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
            handshake(stream.map_err(|error| why(&error))?).await
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open).await;
        let opened = opened.map_err(|_| format!("none within {}s", CONNECT_TIMEOUT.as_secs()));
        let (sender, connection) = opened.and_then(|opened| opened).map_err(CallError::Unreachable)?;
        Ok(Self { sender, base: member.to_string(), token: None, connection })
    }

    /// One message there, one back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, CallError> {
        let call = async {
            let mut answers = self.stream::<A>(method, &[request]).await?;
            let first =
                answers.next().await?.ok_or_else(|| CallError::Strange("an answer without a message".into()))?;
            match answers.next().await? {
                None => Ok(first),
                Some(_) => Err(CallError::Strange("two answers to one request".into())),
            }
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| CallError::Timeout)?
    }

    /// Messages there, as many back as etcd likes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn stream<A: Message + Default>(
        &self,
        method: &str,
        requests: &[&impl Message],
    ) -> Result<Answers<A>, CallError> {
        let mut body = BytesMut::new();
        for request in requests {
            let length = u32::try_from(request.encoded_len())
                .map_err(|_| CallError::Strange("the request is too large".into()))?;
            body.put_u8(0);
            body.put_u32(length);
            // Fails without room only, and this buffer grows.
            request.encode(&mut body).map_err(|error| CallError::Strange(error.to_string()))?;
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/etcdserverpb.{method}", self.base))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            // A member that has lost its leader ends a watch instead of going silent.
            .header("hasleader", "true");
        if let Some(token) = &self.token {
            request = request.header("token", token);
        }
        let request =
            request.body(Full::new(body.freeze())).map_err(|error| CallError::Unreachable(error.to_string()))?;
        let sent = tokio::time::timeout(CALL_TIMEOUT, self.sender.clone().send_request(request)).await;
        let response = sent.map_err(|_| CallError::Timeout)?.map_err(|error| CallError::Broken(why(&error)))?;
        if !response.status().is_success() {
            return Err(CallError::Strange(format!("status {}", response.status())));
        }
        // A refusal without any message has its status here.
        status(response.headers()).unwrap_or(Ok(()))?;
        Ok(Answers { body: response.into_body(), buffer: BytesMut::new(), kind: PhantomData })
    }
}

/// What went wrong, and what to write where.
fn why(error: &(dyn std::error::Error + 'static)) -> String {
    advice::of_tls(error, SECTION).unwrap_or_else(|| error.to_string())
}

/// Messages of one call, as they come.
pub(crate) struct Answers<A> {
    body: Incoming,
    buffer: BytesMut,
    kind: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Answers<A> {
    /// The next one; `None`: that was all, and all is well. What has come of a message is kept when this is dropped.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return A::decode(message).map(Some).map_err(|error| CallError::Strange(error.to_string()));
            }
            let frame = self.body.frame().await.ok_or_else(|| CallError::Broken("it ended without a status".into()))?;
            let frame = frame.map_err(|error| CallError::Broken(error.to_string()))?;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let ended = CallError::Strange("an answer without a status".into());
                        return status(&trailers).unwrap_or(Err(ended)).map(|()| None);
                    }
                }
            }
        }
    }
}

/// A message, if it has come whole.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let Some((&[compressed, a, b, c, d], rest)) = buffer.split_first_chunk::<FRAME_HEAD>() else { return Ok(None) };
    if compressed != 0 {
        return Err(CallError::Strange("a compressed message, which nobody has asked for".into()));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(CallError::Strange(format!("a message of {length} bytes")));
    }
    if rest.len() < length {
        return Ok(None);
    }
    buffer.advance(FRAME_HEAD);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// How a call has ended, if it says.
fn status(fields: &HeaderMap) -> Option<Result<(), CallError>> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status")? {
        "0" => Some(Ok(())),
        other => {
            let message = percent_encoding::percent_decode_str(text("grpc-message").unwrap_or_default());
            let message = message.decode_utf8_lossy().into_owned();
            Some(Err(CallError::Refused { code: other.parse().unwrap_or(u32::MAX), message }))
        }
    }
}

async fn handshake<S>(stream: S) -> Result<(SendRequest<Full<Bytes>>, tokio::task::JoinHandle<()>), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // What goes wrong is told through the calls.
    let connection = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_what_has_come() {
        let mut buffer = BytesMut::new();
        let bytes = [0, 0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 0, 0, 0];
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.put_u8(byte);
            while let Some(message) = take(&mut buffer).unwrap() {
                seen.push(message);
            }
        }
        assert_eq!(seen, ["hi", ""]);
        assert_eq!(buffer.len(), 2);
        assert!(take(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err(), "compressed");
        assert!(take(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err(), "too large");
    }

    #[test]
    fn a_status_says_what_went_wrong() {
        let mut fields = HeaderMap::new();
        assert!(status(&fields).is_none());
        fields.insert("grpc-status", "0".parse().unwrap());
        assert!(matches!(status(&fields), Some(Ok(()))));
        fields.insert("grpc-status", "11".parse().unwrap());
        fields.insert("grpc-message", "etcdserver:%20no".parse().unwrap());
        let Some(Err(error)) = status(&fields) else { panic!() };
        assert!(error.is(code::OUT_OF_RANGE));
        assert_eq!(error.to_string(), "etcdserver: no (gRPC status 11)");
    }
}
