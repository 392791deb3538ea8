//! One active check: what is asked over the wire, and what the answer means. Everything is bounded: the whole by the
//! check's time-out, what is read by constants here.

use crate::proxyproto;
use crate::shortage::{Rank, Resource, Shortage};
use crate::tls::{ClientTls, TlsError};
use crate::upstream;
use bytes::{BufMut, Bytes, BytesMut};
use ringway_config::model::{Agent, Capture, CheckKind, HealthCheck};
use ringway_health::{CheckFailure, Probe};
use ringway_http1::{Body, Encoding, Limits, Method, ResponseHead, parse_response};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Bytes of an answer's head that are looked at.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's body that are looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a gRPC answer that are looked at.
const GRPC_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an agent's line that are looked at.
const AGENT_BYTES_MAX: usize = 1024;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u32 = 1;

/// Why a check gives no good result.
enum Unasked {
    Failed(CheckFailure),
    /// This host could not ask.
    Shortage(io::Error),
}

impl Unasked {
    fn of(error: io::Error, otherwise: CheckFailure) -> Self {
        if Resource::of(&error).is_some() { Self::Shortage(error) } else { Self::Failed(otherwise) }
    }
}

impl From<CheckFailure> for Unasked {
    fn from(failure: CheckFailure) -> Self {
        Self::Failed(failure)
    }
}

/// A connection, within what descriptors checks may take.
async fn connect(address: SocketAddr, shortage: &Shortage) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    shortage.admit(&socket, Rank::Check)?;
    let stream = socket.connect(address).await?;
    // A check is one small request: it must not wait for more.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A service's checks, ready to be made.
pub(crate) struct Prober {
    check: HealthCheck,
    tls: Option<ClientTls>,
}

impl Prober {
    /// Reads the files that the check names: whoever makes a new snapshot because they have changed makes a new prober.
    pub(crate) fn new(check: &HealthCheck) -> Result<Self, TlsError> {
        let alpn: &[&[u8]] = match check.kind {
            CheckKind::Grpc { .. } => &[b"h2"],
            CheckKind::Http { .. } => &[b"http/1.1"],
            CheckKind::Tcp => &[],
        };
        let tls = check.tls.as_ref().map(|tls| ClientTls::new(tls, alpn)).transpose()?;
        Ok(Self { check: check.clone(), tls })
    }

    /// Checks that may be under way at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.check.concurrency
    }

    /// One check, its time bounded.
    ///
    /// # Errors
    /// It could not be made, for want of something that this host has run out of: the backend was not asked.
    pub(crate) async fn probe(&self, backend: SocketAddr, shortage: &Shortage) -> io::Result<Probe> {
        let mut address = backend;
        if let Some(ip) = self.check.address {
            address.set_ip(ip);
        }
        if let Some(port) = self.check.port {
            address.set_port(port);
        }
        let whole = async {
            let asked = self.ask(address, shortage).await?;
            match &self.check.agent {
                Some(agent) => Ok(with_agent(asked, ask_agent(agent, address, shortage).await?)),
                None => Ok(asked),
            }
        };
        Ok(match tokio::time::timeout(self.check.params.timeout, whole).await {
            Ok(Ok(100)) => Probe::Success,
            Ok(Ok(percent)) => Probe::Weighted(percent),
            Ok(Err(Unasked::Failed(failure))) => Probe::Failure(failure),
            Ok(Err(Unasked::Shortage(error))) => return Err(error),
            Err(_) => Probe::Failure(CheckFailure::Timeout),
        })
    }

    /// Gives the weight that the backend wants, in percent.
    async fn ask(&self, address: SocketAddr, shortage: &Shortage) -> Result<u8, Unasked> {
        let mut stream = connect(address, shortage).await.map_err(|error| Unasked::of(error, CheckFailure::Connect))?;
        // A check is one small request: it must not wait for more, and nothing of it is left when its time is over.
        let _ = upstream::prepare(&stream, self.check.params.timeout);
        if let Some(version) = self.check.proxy_protocol {
            let mut header = Vec::new();
            proxyproto::write(version, &<_>::default(), &mut header);
            stream.write_all(&header).await.map_err(|error| Unasked::of(error, CheckFailure::Connect))?;
        }
        let Some(tls) = &self.tls else { return Ok(self.over(stream, address).await?) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let connecting = connector.connect(tls.name(address.ip()), stream).await;
        let stream = connecting.map_err(|error| Unasked::of(error, CheckFailure::Tls))?;
        Ok(self.over(stream, address).await?)
    }

    async fn over<S>(&self, mut stream: S, address: SocketAddr) -> Result<u8, CheckFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match &self.check.kind {
            CheckKind::Tcp => Ok(100),
            CheckKind::Grpc { service, authority } => {
                let authority = authority.clone().unwrap_or_else(|| address.to_string());
                grpc(stream, service, &authority, self.check.tls.is_some()).await.map(|()| 100)
            }
            CheckKind::Http { method, path, host, headers, expect, body, weight_header } => {
                let default_host = address.to_string();
                let host = host.as_deref().unwrap_or(&default_host);
                let mut request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: ringway-check\r\nconnection: close\r\n"
                );
                for (name, value) in headers {
                    request.push_str(&format!("{name}: {value}\r\n"));
                }
                request.push_str("\r\n");
                stream.write_all(request.as_bytes()).await.map_err(|_| CheckFailure::Closed)?;
                let mut answer = Answer::default();
                answer.read_head(&mut stream, method == "HEAD").await?;
                let status = answer.head.status;
                if !expect.iter().any(|&(low, high)| (low..=high).contains(&status)) {
                    return Err(CheckFailure::Status(status));
                }
                let weight = weight(&answer, weight_header);
                if let Some(wanted) = body {
                    answer.match_body(&mut stream, wanted).await?;
                }
                Ok(weight)
            }
        }
    }
}

/// What the backend asks for in its answer's field; all of its weight if it says nothing, or nothing that makes sense.
fn weight(answer: &Answer, name: &str) -> u8 {
    let bytes = &answer.bytes[..answer.head.head_len];
    let value = answer.head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
    let text = value.and_then(|field| std::str::from_utf8(field.value.of(bytes)).ok());
    let percent = text.and_then(|text| text.trim().trim_end_matches('%').parse::<u8>().ok());
    percent.filter(|percent| *percent <= 100).unwrap_or(100)
}

#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    head: ResponseHead,
}

impl Answer {
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<usize, CheckFailure> {
        self.bytes.reserve(1024);
        stream.read_buf(&mut self.bytes).await.map_err(|_| CheckFailure::Closed)
    }

    async fn read_head(&mut self, stream: &mut (impl AsyncRead + Unpin), is_head: bool) -> Result<(), CheckFailure> {
        let limits = Limits { head_bytes_max: HEAD_BYTES_MAX, fields_max: 256 };
        let method = if is_head { Method::Head } else { Method::Get };
        loop {
            if self.read(stream).await? == 0 {
                return Err(CheckFailure::Closed);
            }
            while !self.bytes.is_empty() {
                match parse_response(&self.bytes, &limits, method, false, &mut self.head) {
                    Ok(true) if self.head.is_interim() => drop(self.bytes.drain(..self.head.head_len)),
                    Ok(true) => return Ok(()),
                    Ok(false) => break,
                    Err(_) => return Err(CheckFailure::Garbage),
                }
            }
        }
    }

    /// Reads the body as far as it is looked at; good as soon as it matches.
    async fn match_body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        wanted: &Capture,
    ) -> Result<(), CheckFailure> {
        let mut body: Body = self.head.body.into();
        self.bytes.drain(..self.head.head_len);
        let mut data = Vec::new();
        loop {
            while !self.bytes.is_empty() && !body.is_end() {
                let progress =
                    body.transfer(&self.bytes, &mut data, Encoding::Identity).map_err(|_| CheckFailure::Garbage)?;
                self.bytes.drain(..progress.consumed);
                if progress.consumed == 0 {
                    break;
                }
            }
            data.truncate(BODY_BYTES_MAX);
            let whole = body.is_end();
            if whole || data.len() == BODY_BYTES_MAX {
                return match (wanted.0.is_match(&data), whole) {
                    (true, _) => Ok(()),
                    (false, true) => Err(CheckFailure::Body),
                    (false, false) => Err(CheckFailure::TooLong),
                };
            }
            if self.read(stream).await? == 0 {
                return match body {
                    Body::UntilClose if wanted.0.is_match(&data) => Ok(()),
                    Body::UntilClose => Err(CheckFailure::Body),
                    _ => Err(CheckFailure::Closed),
                };
            }
        }
    }
}

/// `grpc.health.v1.Health/Check`. Source: the gRPC health checking protocol; framing by "gRPC over HTTP2".
async fn grpc<S>(stream: S, service: &str, authority: &str, tls: bool) -> Result<(), CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut client, connection) = h2::client::Builder::new()
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_window_size(u32::from(u16::MAX))
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|_| CheckFailure::Garbage)?;
    let call = async {
        futures_ready(&mut client).await?;
        let scheme = if tls { "https" } else { "http" };
        let request = http::Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "ringway-check")
            .body(())
            .map_err(|_| CheckFailure::Garbage)?;
        let (answer, mut body) = client.send_request(request, false).map_err(|_| CheckFailure::Closed)?;
        body.send_data(health_request(service), true).map_err(|_| CheckFailure::Closed)?;
        let answer = answer.await.map_err(|_| CheckFailure::Closed)?;
        if answer.status() != http::StatusCode::OK {
            return Err(CheckFailure::Status(answer.status().as_u16()));
        }
        // An answer of trailers alone has its status in the head.
        if let Some(status) = grpc_status(answer.headers()).filter(|status| *status != 0) {
            return Err(CheckFailure::GrpcStatus(status));
        }
        let mut stream = answer.into_body();
        let mut message = BytesMut::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.map_err(|_| CheckFailure::Closed)?;
            // What has been read makes room for more; an error means that the stream has ended anyway.
            let _ = stream.flow_control().release_capacity(chunk.len());
            if message.len() + chunk.len() > GRPC_BYTES_MAX {
                return Err(CheckFailure::TooLong);
            }
            message.extend_from_slice(&chunk);
        }
        let trailers = stream.trailers().await.map_err(|_| CheckFailure::Closed)?;
        match trailers.as_ref().and_then(grpc_status) {
            Some(0) => {}
            Some(status) => return Err(CheckFailure::GrpcStatus(status)),
            None => return Err(CheckFailure::Garbage),
        }
        match serving_status(&message) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(CheckFailure::NotServing(status)),
            None => Err(CheckFailure::Garbage),
        }
    };
    // The connection is driven here as well: it ends with the check.
    tokio::select! {
        biased;
        result = call => result,
        _ = connection => Err(CheckFailure::Closed),
    }
}

async fn futures_ready(client: &mut h2::client::SendRequest<Bytes>) -> Result<(), CheckFailure> {
    std::future::poll_fn(|context| client.poll_ready(context)).await.map_err(|_| CheckFailure::Closed)
}

fn grpc_status(fields: &http::HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckRequest { string service = 1; }` in its frame: a flag, the length, the message.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` out of its frame. An absent field is 0, UNKNOWN.
fn serving_status(frame: &[u8]) -> Option<u32> {
    let (&0, rest) = frame.split_first()? else { return None };
    let (length, mut message) = rest.split_at_checked(4)?;
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = u32::try_from(value).ok()?;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What an agent says: HAProxy's agent-check. `None`: nothing that is known, or nobody there; the check alone decides then.
async fn ask_agent(agent: &Agent, mut address: SocketAddr, shortage: &Shortage) -> Result<Option<u8>, Unasked> {
    address.set_port(agent.port);
    let mut stream = match connect(address, shortage).await {
        Ok(stream) => stream,
        Err(error) if Resource::of(&error).is_some() => return Err(Unasked::Shortage(error)),
        Err(_) => return Ok(None),
    };
    if stream.write_all(agent.send.as_bytes()).await.is_err() {
        return Ok(None);
    }
    let mut line = Vec::with_capacity(128);
    while !line.contains(&b'\n') && line.len() < AGENT_BYTES_MAX {
        match stream.read_buf(&mut line).await {
            Ok(count) if count > 0 => {}
            _ => break,
        }
    }
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    Ok(agent_says(&String::from_utf8_lossy(&line[..end]))?)
}

fn agent_says(line: &str) -> Result<Option<u8>, CheckFailure> {
    let mut percent = None;
    // What follows a `#` is for people.
    let words = line.split('#').next().unwrap_or_default();
    for word in words.split([' ', ',', '\t', '\r']).map(str::to_ascii_lowercase) {
        match word.as_str() {
            "down" | "fail" | "failed" | "stopped" => return Err(CheckFailure::Agent),
            "drain" | "maint" => percent = Some(0),
            "up" | "ready" => percent = percent.or(Some(100)),
            word => {
                if let Some(weight) = word.strip_suffix('%').and_then(|number| number.parse::<u32>().ok()) {
                    percent = Some(weight.min(100) as u8);
                }
            }
        }
    }
    Ok(percent)
}

fn with_agent(asked: u8, agent: Option<u8>) -> u8 {
    agent.map_or(asked, |percent| percent.min(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages_are_written_and_read() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_request(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        // Fields that are not known are skipped.
        assert_eq!(serving_status(&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 0x08, 1]), Some(SERVING));
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8], &[0, 0, 0, 0, 1, 0x08], &[0, 0, 0, 0, 2, 0x12, 9]] {
            assert_eq!(serving_status(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn agents_speak_as_haproxys_do() {
        assert_eq!(agent_says("up 75%\n".trim_end()), Ok(Some(75)));
        assert_eq!(agent_says("50%"), Ok(Some(50)));
        assert_eq!(agent_says("ready"), Ok(Some(100)));
        assert_eq!(agent_says("drain # for the update"), Ok(Some(0)));
        assert_eq!(agent_says("DOWN#disk full"), Err(CheckFailure::Agent));
        assert_eq!(agent_says("250%"), Ok(Some(100)));
        assert_eq!(agent_says("what?"), Ok(None));
        assert_eq!(agent_says(""), Ok(None));
    }
}
