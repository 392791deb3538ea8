//! A check's connection: what is read of a response over HTTP/1.1, and an end that the backend sees as one, not as a reset.

use super::judge::{BODY_BYTES_MAX, HEAD_BYTES_MAX, judge_body};
use crate::net::shortage::{Rank, Resource, Shortage};
use crate::net::transport;
use ringway_config::model::Capture;
use ringway_health::CheckFailure;
use ringway_http1::{Body, Encoding, Limits, Method, ResponseHead, parse_response};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes that are read away after the result is known, so that the backend can end what it has begun. One that still sends more
/// is cut off.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// A byte stream that a check runs over: TCP or TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection, within what descriptors checks may take. Nothing of it is left once its time is over.
pub(super) async fn connect(address: SocketAddr, time: Duration, shortage: &Shortage) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    shortage.admit(&socket, Rank::Check)?;
    let stream = socket.connect(address).await.map_err(|error| Resource::judge_connect(error, address))?;
    // A check is one small request: it must not wait for more.
    let _ = transport::prepare(&stream, time);
    Ok(stream)
}

/// A connection of a check.
pub(super) struct CheckConnection {
    pub(super) stream: Box<dyn Io>,
    /// Read, and not taken yet.
    bytes: Vec<u8>,
    pub(super) head: ResponseHead,
    /// What is still to come of the response's body.
    body: Option<Body>,
    /// The response has left the connection fit for another request, once its body has come.
    persists: bool,
}

impl CheckConnection {
    pub(super) fn new(stream: impl Io + 'static) -> Self {
        Self { stream: Box::new(stream), bytes: Vec::new(), head: ResponseHead::default(), body: None, persists: false }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), CheckFailure> {
        let Self { stream, .. } = self;
        // TLS keeps what it has been given until it is flushed.
        let written = async { stream.write_all(bytes).await.and(stream.flush().await) };
        written.await.map_err(|_| CheckFailure::Closed)
    }

    /// Whether nothing has come since the last response: its end, for one.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        poll_fn(|context| Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut buffer).is_pending())).await
    }

    async fn read(&mut self) -> Result<usize, CheckFailure> {
        self.bytes.reserve(1024);
        self.stream.read_buf(&mut self.bytes).await.map_err(|_| CheckFailure::Closed)
    }

    /// Reads the head of the response; gives the value of one of its fields.
    pub(super) async fn read_head(&mut self, is_head: bool, field: &str) -> Result<Option<Vec<u8>>, CheckFailure> {
        let limits = Limits { head_bytes_max: HEAD_BYTES_MAX, fields_max: 256 };
        let method = if is_head { Method::Head } else { Method::Get };
        self.persists = false;
        loop {
            if self.read().await? == 0 {
                return Err(CheckFailure::Closed);
            }
            while !self.bytes.is_empty() {
                match parse_response(&self.bytes, &limits, method, false, &mut self.head) {
                    Ok(true) if self.head.is_informational() => drop(self.bytes.drain(..self.head.head_len)),
                    Ok(true) => {
                        let named = |name: &[u8]| name.eq_ignore_ascii_case(field.as_bytes());
                        let found = self.head.fields.iter().find(|field| named(field.name.of(&self.bytes)));
                        let value = found.map(|field| field.value.of(&self.bytes).to_vec());
                        self.bytes.drain(..self.head.head_len);
                        self.body = Some(self.head.body.into());
                        self.persists = self.head.keep_alive;
                        return Ok(value);
                    }
                    Ok(false) => break,
                    Err(_) => return Err(CheckFailure::Garbage),
                }
            }
        }
    }

    /// Takes what there is of the body. `Ok(true)`: it is whole.
    fn take_body(&mut self, data: &mut Vec<u8>) -> Result<bool, CheckFailure> {
        let Some(body) = &mut self.body else { return Ok(true) };
        while !self.bytes.is_empty() && !body.is_end() {
            let progress = body.transfer(&self.bytes, data, Encoding::Identity).map_err(|_| CheckFailure::Garbage)?;
            self.bytes.drain(..progress.consumed);
            if progress.consumed == 0 {
                break;
            }
        }
        Ok(body.is_end())
    }

    /// Reads the body as far as it is looked at.
    pub(super) async fn match_body(&mut self, wanted: &Capture) -> Result<(), CheckFailure> {
        let mut data = Vec::new();
        loop {
            let whole = self.take_body(&mut data)?;
            data.truncate(BODY_BYTES_MAX);
            if whole || data.len() == BODY_BYTES_MAX {
                return judge_body(wanted, &data, whole);
            }
            if self.read().await? == 0 {
                return match self.body.take() {
                    Some(Body::UntilClose) => judge_body(wanted, &data, true),
                    _ => Err(CheckFailure::Closed),
                };
            }
        }
    }

    /// What comes now is not waited for: the connection ends at once.
    pub(super) fn give_up(&mut self) {
        (self.body, self.persists) = (None, false);
    }

    /// Reads the response to its end, within bounds. `true`: another request may follow; of this one nothing is held any more.
    pub(super) async fn finish(&mut self) -> bool {
        if !self.persists {
            return false;
        }
        let rest = async {
            let (mut left, mut sink) = (DISCARDED_BYTES_MAX, Vec::new());
            loop {
                match self.take_body(&mut sink) {
                    Ok(true) => return self.bytes.is_empty(),
                    Ok(false) if left > 0 => sink.clear(),
                    Ok(false) | Err(_) => return false,
                }
                match self.read().await {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    Ok(_) | Err(_) => return false,
                }
            }
        };
        let is_whole = tokio::time::timeout(CLOSE_TIME, rest).await.unwrap_or(false);
        (self.bytes, self.head, self.body) = (Vec::new(), ResponseHead::default(), None);
        is_whole
    }

    /// Ends the connection as the backend expects it: the response is read to its end, then both sides close.
    /// Bytes left unread would turn the end into a reset.
    pub(super) async fn close(mut self) {
        let orderly = async {
            let mut left = DISCARDED_BYTES_MAX;
            let mut sink = Vec::new();
            while matches!(self.take_body(&mut sink), Ok(false)) && left > 0 {
                sink.clear();
                match self.read().await {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    Ok(_) | Err(_) => break,
                }
            }
            let _ = self.stream.shutdown().await;
            while left > 0 {
                self.bytes.clear();
                match self.read().await {
                    Ok(count @ 1..) => left = left.saturating_sub(count),
                    Ok(_) | Err(_) => break,
                }
            }
        };
        // Past that, it is dropped as it is.
        let _ = tokio::time::timeout(CLOSE_TIME, orderly).await;
    }
}
