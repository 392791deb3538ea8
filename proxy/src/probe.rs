//! One active check: what is asked over the wire, and what the answer means. Everything is bounded: the whole by the
//! check's time-out, what is read by constants here.

use crate::net::proxy_protocol;
use crate::net::shortage::{Rank, Resource, Shortage};
use crate::net::tls::{ClientTls, TlsError};
use crate::net::transport;
use bytes::{BufMut, Bytes, BytesMut};
use ringway_config::model::{CheckKind, HealthCheck, HttpCheck, UpstreamProtocol};
use ringway_health::{AgentReport, CheckFailure, Probe};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

mod agent;
mod h2;
mod open;

#[cfg(any(test, fuzzing))]
pub(crate) use agent::report as agent_report;

use open::Open;

/// Bytes of an answer's head that are looked at.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's body that are looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a gRPC answer that are looked at.
const GRPC_BYTES_MAX: usize = 4 * 1024;
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
    let stream = socket.connect(address).await.map_err(|error| Resource::judge_connect(error, address))?;
    // A check is one small request: it must not wait for more.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The connection that a check, or a question to an agent, has left open: its result is known before that has ended.
#[derive(Default)]
pub(crate) struct Opened(Option<Open>);

impl Opened {
    /// Ends it in good order, within a bound.
    pub(crate) async fn close(self) {
        if let Some(open) = self.0 {
            open.close().await;
        }
    }
}

/// A service's checks, ready to be made.
pub(crate) struct Prober {
    check: HealthCheck,
    tls: Option<ClientTls>,
}

impl Prober {
    /// Reads the files that the check names: whoever makes a new snapshot because they have changed makes a new prober.
    pub(crate) fn new(check: &HealthCheck) -> Result<Self, TlsError> {
        let alpn: &[&[u8]] = match &check.kind {
            CheckKind::Grpc { .. } => &[b"h2"],
            CheckKind::Http(http) => match http.protocol {
                UpstreamProtocol::Http1 => &[b"http/1.1"],
                UpstreamProtocol::H2 => &[b"h2"],
            },
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
    pub(crate) async fn probe(
        &self,
        backend: SocketAddr,
        shortage: &Shortage,
        opened: &mut Opened,
    ) -> io::Result<Probe> {
        let mut address = self.address(backend);
        if let Some(port) = self.check.port {
            address.set_port(port);
        }
        let whole = self.ask(address, shortage, &mut opened.0);
        let asked = tokio::time::timeout(self.check.params.timeout, whole).await;
        if asked.is_err() {
            // What has not come by now is not waited for.
            opened.0.iter_mut().for_each(Open::give_up);
        }
        Ok(match asked {
            Ok(Ok(100)) => Probe::Success,
            Ok(Ok(percent)) => Probe::Weighted(percent),
            Ok(Err(Unasked::Failed(failure))) => Probe::Failure(failure),
            Ok(Err(Unasked::Shortage(error))) => return Err(error),
            Err(_) => Probe::Failure(CheckFailure::Timeout),
        })
    }

    /// Where the backend is asked; the port is another matter.
    fn address(&self, mut backend: SocketAddr) -> SocketAddr {
        if let Some(ip) = self.check.address {
            backend.set_ip(ip);
        }
        backend
    }

    /// Asks the backend's agent; gives what it says, its time bounded.
    ///
    /// # Errors
    /// It could not be asked, for want of something that this host has run out of.
    pub(crate) async fn ask_agent(
        &self,
        backend: SocketAddr,
        shortage: &Shortage,
        opened: &mut Opened,
    ) -> io::Result<AgentReport> {
        let Some(agent) = &self.check.agent else { return Ok(AgentReport::default()) };
        let asked = agent::ask(agent, self.address(backend), shortage, &mut opened.0);
        // One that is late has said nothing.
        tokio::time::timeout(agent.timeout, asked).await.unwrap_or(Ok(AgentReport::default()))
    }

    /// Gives the weight that the backend wants, in percent. The connection stays open: see [`Opened::close`].
    async fn ask(&self, address: SocketAddr, shortage: &Shortage, opened: &mut Option<Open>) -> Result<u8, Unasked> {
        let mut stream = connect(address, shortage).await.map_err(|error| Unasked::of(error, CheckFailure::Connect))?;
        // A check is one small request: it must not wait for more, and nothing of it is left when its time is over.
        let _ = transport::prepare(&stream, self.check.params.timeout);
        if let Some(version) = self.check.proxy_protocol {
            let mut header = Vec::new();
            proxy_protocol::write(version, &<_>::default(), &mut header);
            stream.write_all(&header).await.map_err(|error| Unasked::of(error, CheckFailure::Connect))?;
        }
        let open = match &self.tls {
            None => Open::new(stream),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let connecting = connector.connect(tls.name(address.ip()), stream).await;
                Open::new(connecting.map_err(|error| Unasked::of(error, CheckFailure::Tls))?)
            }
        };
        Ok(self.over(opened.insert(open), address).await?)
    }

    async fn over(&self, open: &mut Open, address: SocketAddr) -> Result<u8, CheckFailure> {
        let secure = self.check.tls.is_some();
        match &self.check.kind {
            CheckKind::Tcp => Ok(100),
            CheckKind::Grpc { service, authority } => {
                let authority = authority.clone().unwrap_or_else(|| address.to_string());
                h2::grpc(&mut open.stream, service, &authority, secure).await.map(|()| 100)
            }
            CheckKind::Http(http) => {
                let default_host = address.to_string();
                let host = http.host.as_deref().unwrap_or(&default_host);
                // What the configuration says takes the place of what is said by default.
                let own_agent = http.headers.iter().any(|(name, _)| name == "user-agent");
                let agent = (!own_agent).then_some(("user-agent", "ringway-check"));
                let named = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let fields: Vec<(&str, &str)> = agent.into_iter().chain(named).collect();
                match http.protocol {
                    UpstreamProtocol::Http1 => over_http1(open, http, host, &fields).await,
                    UpstreamProtocol::H2 => {
                        let (method, path, body) = (&http.method, &http.path, http.body.as_ref());
                        let check = h2::HttpCheck { method, path, host, secure, fields: &fields, body };
                        h2::http(&mut open.stream, &check, |status, fields| {
                            expected(http, status.as_u16())?;
                            Ok(weight(fields.get(&http.weight_header).map(|value| value.as_bytes())))
                        })
                        .await
                    }
                }
            }
        }
    }
}

async fn over_http1(
    open: &mut Open,
    http: &HttpCheck,
    host: &str,
    fields: &[(&str, &str)],
) -> Result<u8, CheckFailure> {
    let HttpCheck { method, path, .. } = http;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    open.write(request.as_bytes()).await?;
    let wish = open.read_head(method == "HEAD", &http.weight_header).await?;
    expected(http, open.head.status)?;
    if let Some(wanted) = &http.body {
        open.match_body(wanted).await?;
    }
    Ok(weight(wish.as_deref()))
}

fn expected(http: &HttpCheck, status: u16) -> Result<(), CheckFailure> {
    let good = http.expect.iter().any(|&(low, high)| (low..=high).contains(&status));
    if good { Ok(()) } else { Err(CheckFailure::Status(status)) }
}

/// What the backend asks for in its answer's field; all of its weight if it says nothing, or nothing that makes sense.
fn weight(value: Option<&[u8]>) -> u8 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let percent = text.and_then(|text| text.trim().trim_end_matches('%').parse::<u8>().ok());
    percent.filter(|percent| *percent <= 100).unwrap_or(100)
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
pub(crate) fn serving_status(frame: &[u8]) -> Option<u32> {
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
}
