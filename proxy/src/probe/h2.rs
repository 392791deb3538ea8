//! A check over HTTP/2: one request on a connection, which may be kept for the next one. Nobody drives it in between.

use super::grpc;
use super::judge::{BODY_BYTES_MAX, HEAD_BYTES_MAX, judge_body};
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Connection, SendRequest};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use ringway_config::model::Capture;
use ringway_health::CheckFailure;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of a gRPC response that are looked at.
const GRPC_BYTES_MAX: usize = 4 * 1024;
/// How long the rest of a body that is not looked at may take, before its stream is cancelled: nearly all bodies of checks are
/// there with their heads.
const REST_TIME: Duration = Duration::from_millis(50);
/// Requests of one connection: what its peer does wrong, or in vain, is counted for as long as it lives.
const REQUESTS_MAX: u32 = 64;
/// How long it may take to hand over the last frames.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// A connection that has begun.
pub(super) struct Http2<S> {
    client: SendRequest<Bytes>,
    connection: Connection<S, Bytes>,
    is_over: bool,
    requests: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    pub(super) async fn begin(stream: S) -> Result<Self, CheckFailure> {
        let (client, connection) = h2::client::Builder::new()
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_window_size(u32::from(u16::MAX))
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| failure_of(&error))?;
        Ok(Self { client, connection, is_over: false, requests: 0 })
    }

    /// Sends one request, and lets the response be judged: a stream that is not at its end is cancelled.
    async fn exchange<T>(
        &mut self,
        request: Request<()>,
        message: Option<Bytes>,
        judge: impl AsyncFnOnce(Response<RecvStream>) -> Result<T, CheckFailure>,
    ) -> Result<T, CheckFailure> {
        self.requests += 1;
        let Self { client, connection, is_over, .. } = self;
        let call = async move {
            poll_fn(|context| client.poll_ready(context)).await.map_err(|error| failure_of(&error))?;
            let sent = client.send_request(request, message.is_none());
            let (response, mut body) = sent.map_err(|error| failure_of(&error))?;
            if let Some(message) = message {
                body.send_data(message, true).map_err(|error| failure_of(&error))?;
            }
            let response = response.await.map_err(|error| failure_of(&error))?;
            judge(response).await
        };
        let mut call = pin!(call);
        // The connection is driven here as well: it ends with the check, or rests until the next one.
        tokio::select! {
            biased;
            result = &mut call => result,
            ended = &mut *connection => {
                *is_over = true;
                // It may have ended behind the response; without it, that is how the stream has ended.
                let ended = ended.err().map_or(CheckFailure::Closed, |error| failure_of(&error));
                call.await.map_err(|failure| if failure == CheckFailure::Closed { ended } else { failure })
            }
        }
    }

    /// Hands over what the last exchange has left to be sent, before nobody drives it.
    pub(super) async fn rest(&mut self) {
        let Self { connection, is_over, .. } = self;
        poll_fn(|context| {
            *is_over = *is_over || Pin::new(&mut *connection).poll(context).is_ready();
            Poll::Ready(())
        })
        .await;
    }

    /// Whether another request may follow.
    pub(super) fn persists(&self) -> bool {
        !self.is_over && self.requests < REQUESTS_MAX
    }

    /// With its last handle gone, the connection sends GOAWAY and ends by itself.
    pub(super) async fn end(self) {
        let Self { client, connection, is_over, .. } = self;
        drop(client);
        if !is_over {
            let _ = tokio::time::timeout(CLOSE_TIME, connection).await;
        }
    }
}

/// What we have found wrong with the backend's frames is no HTTP/2; all else is an end of the connection or the stream.
fn failure_of(error: &h2::Error) -> CheckFailure {
    if error.is_library() { CheckFailure::Garbage } else { CheckFailure::Closed }
}

/// An HTTP check, as the configuration wants it.
pub(super) struct HttpCheck<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) secure: bool,
    /// Names and values.
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a Capture>,
}

/// A request whose response is judged by its status and fields, and then by its body.
pub(super) async fn http<T>(
    connection: &mut Http2<impl AsyncRead + AsyncWrite + Unpin>,
    check: &HttpCheck<'_>,
    judge: impl FnOnce(StatusCode, &HeaderMap) -> Result<T, CheckFailure>,
) -> Result<T, CheckFailure> {
    let scheme = if check.secure { "https" } else { "http" };
    let mut request = Request::builder()
        .method(check.method)
        .uri(format!("{scheme}://{}{}", check.host, check.path))
        .version(Version::HTTP_2);
    for (name, value) in check.fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(|_| CheckFailure::Garbage)?;
    connection
        .exchange(request, None, async |response: Response<RecvStream>| {
            let judged = judge(response.status(), response.headers())?;
            let mut body = response.into_body();
            match check.body {
                Some(wanted) => {
                    let (data, whole) = read(&mut body, BODY_BYTES_MAX).await?;
                    judge_body(wanted, &data, whole)?;
                }
                None => drop(tokio::time::timeout(REST_TIME, read(&mut body, BODY_BYTES_MAX)).await),
            }
            Ok(judged)
        })
        .await
}

/// Reads a body up to a bound. `true`: that is all of it.
async fn read(body: &mut RecvStream, bytes_max: usize) -> Result<(BytesMut, bool), CheckFailure> {
    let mut data = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| failure_of(&error))?;
        // What has been read makes room for more; an error means that the stream has ended anyway.
        let _ = body.flow_control().release_capacity(chunk.len());
        data.extend_from_slice(&chunk);
        if data.len() > bytes_max {
            data.truncate(bytes_max);
            return Ok((data, false));
        }
    }
    Ok((data, true))
}

/// `grpc.health.v1.Health/Check`. Source: the gRPC health checking protocol; framing by "gRPC over HTTP2".
pub(super) async fn grpc_health(
    connection: &mut Http2<impl AsyncRead + AsyncWrite + Unpin>,
    service: &str,
    authority: &str,
    secure: bool,
) -> Result<(), CheckFailure> {
    let scheme = if secure { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "ringway-check")
        .body(())
        .map_err(|_| CheckFailure::Garbage)?;
    let message = Some(grpc::health_request(service));
    connection
        .exchange(request, message, async |response: Response<RecvStream>| {
            if response.status() != StatusCode::OK {
                return Err(CheckFailure::Status(response.status().as_u16()));
            }
            // A response of trailers alone has its status in the head.
            if let Some(status) = grpc_status(response.headers()).filter(|status| *status != 0) {
                return Err(CheckFailure::GrpcStatus(status));
            }
            let mut body = response.into_body();
            let (message, whole) = read(&mut body, GRPC_BYTES_MAX).await?;
            if !whole {
                return Err(CheckFailure::TooLong);
            }
            let trailers = body.trailers().await.map_err(|error| failure_of(&error))?;
            match trailers.as_ref().and_then(grpc_status) {
                Some(0) => {}
                Some(status) => return Err(CheckFailure::GrpcStatus(status)),
                None => return Err(CheckFailure::Garbage),
            }
            grpc::judge(&message)
        })
        .await
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
