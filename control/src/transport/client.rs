//! The calling side: one connection for each purpose, dropped at the first error.
//!
//! A connection that has failed once is not asked again: a pooled connection to a member that was restarted or cut
//! off would otherwise swallow calls for as long as the kernel keeps it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::gate::Gate;
use super::wire::{SnapshotAnswer, SnapshotCall, snapshot_head};
use super::{CLUSTER_HEADER, PING_INTERVAL, PING_TIMEOUT, PROTOCOL, PROTOCOL_HEADER, Rpc, TO_NODE_HEADER};
use crate::store::record::{self, RecordError};
use crate::transport::tls::Renewed;

type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;
type Sender = http2::SendRequest<Body>;

/// Addresses that are remembered: members are few.
const GATES_MAX: usize = 64;

/// Why a call has no answer. Whether the peer acted on it is unknown but for `Dial` and `Status`.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("connect to {address}")]
    Dial {
        /// The peer's address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("{address}: no answer within {after:?}")]
    Timeout {
        /// The peer's address.
        address: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The connection broke.
    #[error("{address}: {source}")]
    Broken {
        /// The peer's address.
        address: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer refused; 409 says that it is another member, or of another cluster.
    #[error("{address}: refused with status {status}")]
    Status {
        /// The peer's address.
        address: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The answer does not parse.
    #[error("{address}: {source}")]
    Answer {
        /// The peer's address.
        address: String,
        /// The cause.
        source: RecordError,
    },
    /// The call could not be encoded.
    #[error("encode a call: {0}")]
    Encode(#[from] postcard::Error),
}

impl CallError {
    /// Nothing of the call was carried out.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Dial { .. } | Self::Status { .. } | Self::Encode(_))
    }
}

/// What all calls of a member have in common.
pub struct Dialer {
    cluster: String,
    /// The address that connections leave from: that of the own listener, so that peers and firewalls see one.
    source: Option<IpAddr>,
    connect_timeout: Duration,
    tls: Option<Renewed<rustls::ClientConfig>>,
    /// By address.
    gates: std::sync::Mutex<HashMap<String, Arc<Gate>>>,
    /// Takes the place of sockets.
    #[cfg(test)]
    carrier: Option<Arc<dyn super::Carrier>>,
}

impl Dialer {
    /// `connect_timeout` covers name resolution, TCP, TLS and the HTTP/2 preface.
    pub fn new(
        cluster: String,
        source: Option<IpAddr>,
        connect_timeout: Duration,
        tls: Option<Renewed<rustls::ClientConfig>>,
    ) -> Self {
        Self {
            cluster,
            source: source.filter(|source| !source.is_unspecified()),
            connect_timeout,
            tls,
            gates: Default::default(),
            #[cfg(test)]
            carrier: None,
        }
    }

    /// Without sockets.
    #[cfg(test)]
    pub(crate) fn carried(cluster: String, carrier: Arc<dyn super::Carrier>) -> Self {
        Self { carrier: Some(carrier), ..Self::new(cluster, None, Duration::ZERO, None) }
    }

    async fn connect(&self, address: &str) -> std::io::Result<Connection> {
        self.gate(address).pass(Box::pin(self.dial(address))).await
    }

    fn gate(&self, address: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= GATES_MAX {
            // Of members that have gone.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(address.to_owned()).or_default())
    }

    async fn dial(&self, address: &str) -> std::io::Result<Connection> {
        let dial = async {
            let stream = self.tcp(address).await?;
            stream.set_nodelay(true)?;
            match &self.tls {
                None => handshake(stream).await,
                Some(tls) => {
                    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
                    handshake(TlsConnector::from(tls.current()).connect(name, stream).await?).await
                }
            }
        };
        match timeout(self.connect_timeout, dial).await {
            Ok(result) => result,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    async fn tcp(&self, address: &str) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for remote in tokio::net::lookup_host(address).await? {
            let attempt = async {
                let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                if let Some(source) = self.source.filter(|source| source.is_ipv4() == remote.is_ipv4()) {
                    socket.bind(SocketAddr::new(source, 0))?;
                }
                socket.connect(remote).await
            };
            match attempt.await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> std::io::Result<Connection> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    let driver = tokio::spawn(async move {
        // Its calls report the error; there is nobody else to tell.
        let _ = connection.await;
    });
    Ok(Connection { sender, driver })
}

/// One purpose's connection to one peer. Dials when it is first used and after every error.
pub struct Peer {
    dialer: Arc<Dialer>,
    node: u64,
    address: String,
    slot: Arc<Mutex<Option<Connection>>>,
}

impl Peer {
    /// Does not dial yet.
    pub fn new(dialer: Arc<Dialer>, node: u64, address: String) -> Self {
        Self { dialer, node, address, slot: Arc::default() }
    }

    /// Calls the peer with a record and waits for its answer.
    pub async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        rpc: Rpc,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let body = Bytes::from(record::encode(rpc.index(), request)?);
        self.exchange(rpc, vec![body], deadline).await
    }

    /// Sends a snapshot and waits until it is installed.
    pub async fn send_snapshot(
        &self,
        head: &SnapshotCall,
        content: Bytes,
        deadline: Duration,
    ) -> Result<SnapshotAnswer, CallError> {
        let head = snapshot_head(head)?;
        self.exchange(Rpc::Snapshot, vec![head, content], deadline).await
    }

    async fn exchange<A: DeserializeOwned>(
        &self,
        rpc: Rpc,
        parts: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<A, CallError> {
        #[cfg(test)]
        if let Some(carrier) = &self.dialer.carrier {
            let carried = carrier.carry(self.node, self.address(), rpc, Bytes::from(parts.concat()));
            let timed_out = |_| CallError::Timeout { address: self.address(), after: deadline };
            return self.answer(rpc, &timeout(deadline, carried).await.map_err(timed_out)??);
        }
        let mut sender = self.sender().await.map_err(|source| CallError::Dial { address: self.address(), source })?;
        let result = match timeout(deadline, self.send(&mut sender, rpc, parts)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout { address: self.address(), after: deadline }),
        };
        if let Err(CallError::Timeout { .. } | CallError::Broken { .. }) = result {
            self.slot.lock().await.take();
        }
        result
    }

    async fn send<A: DeserializeOwned>(
        &self,
        sender: &mut Sender,
        rpc: Rpc,
        parts: Vec<Bytes>,
    ) -> Result<A, CallError> {
        let broken =
            |source: Box<dyn std::error::Error + Send + Sync>| CallError::Broken { address: self.address(), source };
        let length: usize = parts.iter().map(Bytes::len).sum();
        let uri = Uri::builder().scheme("http").authority(self.address.as_str()).path_and_query(rpc.path()).build();
        let request = Request::post(uri.map_err(|error| broken(error.into()))?)
            .header(CLUSTER_HEADER, self.dialer.cluster.as_str())
            .header(TO_NODE_HEADER, self.node)
            .header(PROTOCOL_HEADER, PROTOCOL)
            .header(CONTENT_LENGTH, length);
        let frames: Vec<_> = parts.into_iter().map(|part| Ok(Frame::data(part))).collect();
        let request = request.body(StreamBody::new(stream::iter(frames))).map_err(|error| broken(error.into()))?;
        sender.ready().await.map_err(|error| broken(error.into()))?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(CallError::Status { address: self.address(), status: response.status() });
        }
        let body = Limited::new(response.into_body(), rpc.answer_bytes_max() as usize);
        let body = body.collect().await.map_err(broken)?.to_bytes();
        self.answer(rpc, &body)
    }

    fn answer<A: DeserializeOwned>(&self, rpc: Rpc, body: &[u8]) -> Result<A, CallError> {
        record::decode(rpc.index(), body).map_err(|source| CallError::Answer { address: self.address(), source })
    }

    /// The connection's sender, dialled where there is none.
    ///
    /// The dialling runs on where the caller gives up: heartbeats have less time than a TLS handshake over a long
    /// distance takes, and would otherwise never find a connection.
    async fn sender(&self) -> std::io::Result<Sender> {
        let mut slot = Arc::clone(&self.slot).lock_owned().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.sender.is_closed()) {
            return Ok(connection.sender.clone());
        }
        *slot = None;
        let (dialer, address) = (Arc::clone(&self.dialer), self.address.clone());
        // Ends by itself within `connect_timeout`.
        let dialling = tokio::spawn(async move {
            let connection = dialer.connect(&address).await?;
            let sender = connection.sender.clone();
            *slot = Some(connection);
            Ok(sender)
        });
        dialling.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
