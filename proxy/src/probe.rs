//! One active check: what is sent to a backend, and what the response means. Everything is bounded: the whole by the
//! check's time-out, what is read by constants in `judge`.

mod address;
mod agent;
mod connection;
mod grpc;
mod h2;
mod http1;
mod judge;

#[cfg(any(test, fuzzing))]
pub(crate) use agent::report as agent_report;
#[cfg(any(test, fuzzing))]
pub(crate) use grpc::serving_status;

use crate::net::proxy_protocol;
use crate::net::shortage::{Resource, Shortage};
use crate::net::tls::{ClientTls, TlsError};
pub(crate) use address::Target;
use address::{Checked, open_at};
use connection::{CheckConnection, Io};
use h2::Http2;
use judge::{judge_status, judge_weight};
use ringway_config::model::{CheckKind, HealthCheck, HttpCheck, UpstreamProtocol};
use ringway_health::{AgentReport, CheckFailure, Probe};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// Why a check gives no good result.
enum ProbeError {
    Failed(CheckFailure),
    /// This host could not make it.
    Shortage(io::Error),
}

impl ProbeError {
    fn of(error: io::Error, otherwise: CheckFailure) -> Self {
        if Resource::of(&error).is_some() { Self::Shortage(error) } else { Self::Failed(otherwise) }
    }
}

impl From<CheckFailure> for ProbeError {
    fn from(failure: CheckFailure) -> Self {
        Self::Failed(failure)
    }
}

/// The connection that a check, or a query of an agent, has left open: its result is known before that has ended.
#[derive(Default)]
pub(crate) struct Opened {
    connection: Option<CheckConnection>,
    /// One that may be kept, and speaks HTTP/2.
    http2: Option<Box<Http2<Box<dyn Io>>>>,
    /// It takes none of the descriptors that are reserved.
    leaves_reserve: bool,
    /// The addresses that are being connected to, where there are two.
    connecting: Option<[SocketAddr; 2]>,
}

impl Opened {
    /// Ends it in good order, within a bound.
    pub(crate) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
        if let Some(http2) = self.http2 {
            http2.end().await;
        }
    }

    /// What remains of it for the next check, if anything does; else it is closed.
    pub(crate) async fn keep(mut self) -> Option<Self> {
        let persists = match (&mut self.connection, &self.http2) {
            (Some(connection), _) => connection.finish().await,
            (None, Some(http2)) => http2.persists(),
            (None, None) => false,
        };
        if persists && self.leaves_reserve {
            return Some(self);
        }
        self.close().await;
        None
    }
}

/// A service's checks, ready to be made.
pub(crate) struct Prober {
    check: HealthCheck,
    tls: Option<ClientTls>,
    /// What is sent, where that is HTTP/1.1.
    request: Option<http1::Request>,
}

impl Prober {
    /// Reads the files that the check names: a new snapshot, made because they have changed, has a new prober.
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
        let request = match &check.kind {
            CheckKind::Http(http) if http.protocol == UpstreamProtocol::Http1 => {
                Some(http1::Request::new(http, &fields(http), check.reuse_connection))
            }
            CheckKind::Http(_) | CheckKind::Grpc { .. } | CheckKind::Tcp => None,
        };
        Ok(Self { check: check.clone(), tls, request })
    }

    /// Checks that may be under way at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.check.concurrency
    }

    /// Time between two checks of a backend, the shortest.
    pub(crate) fn interval(&self) -> Duration {
        let params = &self.check.params;
        params.interval.min(params.interval_down).min(params.interval_transition)
    }

    /// How long a check may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.check.params.timeout
    }

    /// Time between two queries of an agent, and how long one may take; zero without one.
    pub(crate) fn agent_times(&self) -> (Duration, Duration) {
        self.check.agent.as_ref().map_or_else(Default::default, |agent| (agent.interval, agent.timeout))
    }

    /// Whether connections are kept for the next check.
    pub(crate) fn reuses_connections(&self) -> bool {
        self.check.reuse_connection
    }

    /// One check, its time bounded. `kept`: a connection of an earlier one of this prober, to this backend.
    ///
    /// # Errors
    /// It could not be made, for want of something that this host has run out of: that says nothing of the backend.
    pub(crate) async fn probe(
        &self,
        target: &Target,
        kept: Option<Opened>,
        shortage: &Shortage,
        opened: &mut Opened,
    ) -> io::Result<Probe> {
        let whole = self.check(self.checked(target), kept, shortage, opened);
        let checked = tokio::time::timeout(self.check.params.timeout, whole).await;
        if checked.is_err() {
            // What has not come by now is not waited for.
            opened.connection.iter_mut().for_each(CheckConnection::give_up);
        }
        Ok(match checked {
            Ok(Ok(100)) => Probe::Success,
            Ok(Ok(percent)) => Probe::Weighted(percent),
            Ok(Err(ProbeError::Failed(failure))) => Probe::Failure(failure),
            Ok(Err(ProbeError::Shortage(error))) => return Err(error),
            Err(_) => Probe::Failure(match opened.connecting.take() {
                Some(addresses) => CheckFailure::ConnectBoth(addresses),
                None => CheckFailure::Timeout,
            }),
        })
    }

    /// Where that is checked.
    fn checked<'a>(&self, target: &'a Target) -> Checked<'a> {
        target.checked(self.check.address, self.check.port)
    }

    /// Queries the backend's agent; gives its report, its time bounded.
    ///
    /// # Errors
    /// It could not be queried, for want of something that this host has run out of.
    pub(crate) async fn query_agent(
        &self,
        target: &Target,
        shortage: &Shortage,
        opened: &mut Opened,
    ) -> io::Result<AgentReport> {
        let Some(agent) = &self.check.agent else { return Ok(AgentReport::default()) };
        let checked = target.checked(agent.address.or(self.check.address), Some(agent.port));
        let report = agent::query(agent, checked, shortage, &mut opened.connection);
        // One that is late has reported nothing.
        tokio::time::timeout(agent.timeout, report).await.unwrap_or(Ok(AgentReport::default()))
    }

    /// Gives the weight that the backend wants, in percent. The connection stays open: see [`Opened::close`].
    async fn check(
        &self,
        checked: Checked<'_>,
        kept: Option<Opened>,
        shortage: &Shortage,
        opened: &mut Opened,
    ) -> Result<u8, ProbeError> {
        let Some(mut kept) = kept else { return self.ask_anew(checked, shortage, opened).await };
        let asked = {
            let mut again = pin!(self.ask_again(checked.address, &mut kept));
            match tokio::time::timeout(self.check.params.timeout / 2, &mut again).await {
                Ok(asked) => asked,
                // Nobody may be there any more, or the response may be slow: a fresh connection decides, if it does not come before.
                Err(_) => {
                    let anew = Box::pin(self.ask_anew(checked, shortage, opened));
                    tokio::select! {
                        biased;
                        Ok(percent) = &mut again => Ok(percent),
                        asked = anew => return asked,
                    }
                }
            }
        };
        match asked {
            // It has ended since the last check, or what came in between is counted against it: a fresh one decides.
            Err(CheckFailure::Closed | CheckFailure::Garbage) => {
                Box::pin(self.ask_anew(checked, shortage, opened)).await
            }
            asked => {
                *opened = kept;
                Ok(asked?)
            }
        }
    }

    async fn ask_anew(&self, checked: Checked<'_>, shortage: &Shortage, opened: &mut Opened) -> Result<u8, ProbeError> {
        self.open(checked, shortage, opened).await?;
        Ok(self.ask(checked.address, opened).await?)
    }

    /// On a connection that has been kept.
    async fn ask_again(&self, address: SocketAddr, opened: &mut Opened) -> Result<u8, CheckFailure> {
        if let Some(connection) = &mut opened.connection
            && !connection.is_quiet().await
        {
            return Err(CheckFailure::Closed);
        }
        self.ask(address, opened).await
    }

    /// Opens a connection, as far as all kinds of checks have the same.
    async fn open(&self, checked: Checked<'_>, shortage: &Shortage, opened: &mut Opened) -> Result<(), ProbeError> {
        let (address, both) = (checked.address, checked.addresses());
        opened.connecting = both;
        let connected = open_at(checked, self.check.params.timeout, shortage).await;
        let failure = both.map_or(CheckFailure::Connect, CheckFailure::ConnectBoth);
        let mut stream = connected.map_err(|error| ProbeError::of(error, failure))?;
        opened.connecting = None;
        opened.leaves_reserve = shortage.leaves_reserve(&stream);
        if let Some(version) = self.check.proxy_protocol {
            let mut header = Vec::new();
            proxy_protocol::write(version, &<_>::default(), &mut header);
            stream.write_all(&header).await.map_err(|error| ProbeError::of(error, CheckFailure::Connect))?;
        }
        let connection = match &self.tls {
            None => CheckConnection::new(stream),
            // Most checks need no room for a handshake, nor for HTTP/2.
            Some(tls) => {
                let connector = TlsConnector::from(tls.config_for(address));
                let connecting = Box::pin(connector.connect(tls.name(address.ip()), stream)).await;
                CheckConnection::new(connecting.map_err(|error| ProbeError::of(error, CheckFailure::Tls))?)
            }
        };
        opened.connection = Some(connection);
        Ok(())
    }

    async fn ask(&self, address: SocketAddr, opened: &mut Opened) -> Result<u8, CheckFailure> {
        match (&self.check.kind, &self.request, &mut opened.connection) {
            (CheckKind::Tcp, ..) => Ok(100),
            (CheckKind::Http(http), Some(request), Some(connection)) => {
                http1::check(connection, http, request, address).await
            }
            _ => Box::pin(self.ask_over_http2(address, opened)).await,
        }
    }

    async fn ask_over_http2(&self, address: SocketAddr, opened: &mut Opened) -> Result<u8, CheckFailure> {
        if !self.check.reuse_connection {
            let connection = opened.connection.as_mut().ok_or(CheckFailure::Closed)?;
            let mut http2 = Http2::begin(&mut connection.stream).await?;
            let asked = self.http2(&mut http2, address).await;
            http2.end().await;
            return asked;
        }
        let mut http2 = match (opened.http2.take(), opened.connection.take()) {
            (Some(http2), _) => http2,
            (None, Some(connection)) => Box::new(Http2::begin(connection.stream).await?),
            (None, None) => return Err(CheckFailure::Closed),
        };
        let asked = self.http2(&mut http2, address).await;
        if !matches!(asked, Err(CheckFailure::Closed | CheckFailure::Garbage)) {
            http2.rest().await;
            opened.http2 = Some(http2);
        }
        asked
    }

    async fn http2(
        &self,
        connection: &mut Http2<impl AsyncRead + AsyncWrite + Unpin>,
        address: SocketAddr,
    ) -> Result<u8, CheckFailure> {
        let secure = self.check.tls.is_some();
        match &self.check.kind {
            CheckKind::Tcp => Ok(100),
            CheckKind::Grpc { service, authority } => {
                let authority = authority.clone().unwrap_or_else(|| address.to_string());
                h2::grpc_health(connection, service, &authority, secure).await.map(|()| 100)
            }
            CheckKind::Http(http) => {
                let host = http.host.clone().unwrap_or_else(|| address.to_string());
                let (method, path, body) = (&http.method, &http.path, http.body.as_ref());
                let check = h2::HttpCheck { method, path, host: &host, secure, fields: &fields(http), body };
                h2::http(connection, &check, |status, fields| {
                    judge_status(http, status.as_u16())?;
                    Ok(judge_weight(fields.get(&http.weight_header).map(|value| value.as_bytes())))
                })
                .await
            }
        }
    }
}

/// Fields of a request, besides the host. A configured field takes the place of the default.
fn fields(http: &HttpCheck) -> Vec<(&str, &str)> {
    let own_agent = http.headers.iter().any(|(name, _)| name == "user-agent");
    let agent = (!own_agent).then_some(("user-agent", "ringway-check"));
    let named = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    agent.into_iter().chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use crate::net::happy_eyeballs::Preferences;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn prober(health: &str) -> Prober {
        let text = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\n\
             services: [ {{ name: s, health: {{ {health} }}, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        Prober::new(loaded.config.services[0].health.as_ref().unwrap()).unwrap()
    }

    /// What a check finds of a backend that sends these bytes once it has read something, and then waits for the end.
    async fn found(prober: &Prober, response: &'static [u8]) -> Probe {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            if !response.is_empty() && stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                stream.write_all(response).await.unwrap();
            }
            while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
        };
        let check = async {
            let mut opened = Opened::default();
            let found = prober.probe(&address.into(), None, &Shortage::new(Arc::default()), &mut opened).await.unwrap();
            opened.close().await;
            found
        };
        tokio::join!(backend, check).1
    }

    #[tokio::test]
    async fn each_response_is_one_result() {
        let http = prober("http: { path: /, body: \"well\" }, timeout: 60s");
        let failed = |failure| Probe::Failure(failure);
        for (response, expected) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell"[..], Probe::Success),
            (b"HTTP/1.1 200 OK\r\nx-weight: 1\r\ncontent-length: 4\r\n\r\nsick", failed(CheckFailure::Body)),
            (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n", failed(CheckFailure::Status(500))),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", failed(CheckFailure::Garbage)),
        ] {
            assert_eq!(found(&http, response).await, expected, "{}", String::from_utf8_lossy(response));
        }
        assert_eq!(found(&prober("tcp: {}"), b"").await, Probe::Success);
    }

    #[tokio::test]
    async fn a_connection_is_kept_where_another_response_can_follow_and_no_byte_is_left() {
        let prober = prober("http: { path: / }, timeout: 60s, reuse_connection: true");
        for (response, is_kept) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell"[..], true),
            (b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", true),
            (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell, and more", false),
            (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nwell", false),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nwell", false),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", false),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let backend = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(response).await.unwrap();
                stream
            };
            let check = async {
                let mut opened = Opened::default();
                prober.probe(&address.into(), None, &Shortage::new(Arc::default()), &mut opened).await.unwrap();
                opened
            };
            let (stream, opened) = tokio::join!(backend, check);
            // What is not kept is closed in good order, for which the backend has to end too.
            let backend = async { if is_kept { Some(stream) } else { None } };
            let (_stream, kept) = tokio::join!(backend, opened.keep());
            assert_eq!(kept.is_some(), is_kept, "{}", String::from_utf8_lossy(response));
        }
    }

    #[test]
    fn checks_that_are_a_connection_keep_none() {
        assert!(prober("http: {}, reuse_connection: true").reuses_connections());
        assert!(!prober("tcp: {}, reuse_connection: true").reuses_connections());
    }

    /// Serves so many requests on each connection, counted, and then says nothing on the first one.
    async fn first_goes_silent(listener: TcpListener, served: usize, then: &'static [u8], connections: &AtomicUsize) {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let is_first = connections.fetch_add(1, Relaxed) == 0;
            for count in 0.. {
                if !stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
                    break;
                }
                if is_first && count == served {
                    stream.write_all(then).await.unwrap();
                    held.push(stream);
                    break;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                if !is_first {
                    break;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_that_goes_silent_or_wrong_leaves_time_for_a_fresh_one() {
        let prober = prober("http: { path: / }, timeout: 60s, interval: 60s, reuse_connection: true");
        for (then, seconds) in [(&b""[..], 30), (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 0)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, shortage, connections) =
                (listener.local_addr().unwrap(), Shortage::new(Arc::default()), AtomicUsize::new(0));
            let checks = async {
                let mut kept = None;
                let mut last = Duration::ZERO;
                for _ in 0..3 {
                    let (mut opened, begun) = (Opened::default(), ambient::now());
                    let found = prober.probe(&address.into(), kept, &shortage, &mut opened).await.unwrap();
                    assert_eq!(found, Probe::Success);
                    last = ambient::since(begun);
                    kept = opened.keep().await;
                    assert!(kept.is_some());
                }
                assert_eq!((last.as_secs(), connections.load(Relaxed)), (seconds, 2));
            };
            tokio::select! {
                () = first_goes_silent(listener, 2, then, &connections) => {}
                () = checks => {}
            }
        }
    }

    #[tokio::test]
    async fn a_connection_of_http2_is_given_up_after_64_checks() {
        let prober = prober("http: { path: /, protocol: h2 }, timeout: 60s, interval: 60s, reuse_connection: true");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shortage) = (listener.local_addr().unwrap(), Shortage::new(Arc::default()));
        let connections = AtomicUsize::new(0);
        let backend = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                let mut connection = ::h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
            }
        };
        let checks = async {
            let mut kept = None;
            for count in 1..=65 {
                let mut opened = Opened::default();
                assert_eq!(prober.probe(&address.into(), kept, &shortage, &mut opened).await.unwrap(), Probe::Success);
                kept = opened.keep().await;
                assert_eq!(kept.is_some(), count != 64, "{count}");
            }
        };
        tokio::select! {
            () = backend => {}
            () = checks => {}
        }
        assert_eq!(connections.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_backend_that_does_not_respond_in_time_or_is_not_there_has_failed() {
        let hurried = prober("http: { path: / }, timeout: 50ms, interval: 1s");
        assert_eq!(found(&hurried, b"").await, Probe::Failure(CheckFailure::Timeout));
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shortage) = (unused.local_addr().unwrap(), Shortage::new(Arc::default()));
        // Bound, and nobody listens.
        drop(unused);
        let refused = prober("tcp: {}").probe(&address.into(), None, &shortage, &mut Opened::default()).await.unwrap();
        assert_eq!(refused, Probe::Failure(CheckFailure::Connect));
    }

    /// A backend with an address of each family, and the preferences of it.
    fn dual(four: SocketAddr, six: SocketAddr) -> Target {
        Target { address: four, additional: Some((six, Arc::new(Preferences::new(ambient::now())))) }
    }

    #[tokio::test]
    async fn a_backend_with_two_addresses_fails_its_check_where_both_do_and_the_reason_names_them() {
        let (v4, v6) = ("127.0.0.1:0", "[::1]:0");
        let listener = TcpListener::bind(v4).await.unwrap();
        let listening = listener.local_addr().unwrap();
        let [no_four, no_six] =
            [v4, v6].map(|address| std::net::TcpListener::bind(address).unwrap().local_addr().unwrap());
        let (prober, shortage) = (prober("tcp: {}, timeout: 60s, interval: 60s"), Shortage::new(Arc::default()));
        let probe =
            async |target: &Target| prober.probe(target, None, &shortage, &mut Opened::default()).await.unwrap();
        let target = dual(listening, no_six);
        assert_eq!(probe(&target).await, Probe::Success);
        let (_, preferences) = target.additional.as_ref().unwrap();
        let order = preferences.traffic.order([listening, no_six], ambient::now());
        assert_eq!(order, [listening, no_six], "the check has told requests");
        let failed = probe(&dual(no_four, no_six)).await;
        assert_eq!(failed, Probe::Failure(CheckFailure::ConnectBoth([no_four, no_six])));
    }

    #[test]
    fn checks_with_an_address_of_their_own_have_one_and_those_with_a_port_a_preference_of_their_own() {
        let target = dual(([10, 0, 0, 1], 80).into(), "[fd00::1]:81".parse().unwrap());
        let shown = |ip: Option<&str>, port| {
            let checked = target.checked(ip.map(|ip| ip.parse().unwrap()), port);
            (checked.address.to_string(), checked.addresses().map(|[_, more]| more.to_string()))
        };
        assert_eq!(shown(None, None), ("10.0.0.1:80".into(), Some("[fd00::1]:81".into())));
        assert_eq!(shown(None, Some(9)), ("10.0.0.1:9".into(), Some("[fd00::1]:9".into())));
        assert_eq!(shown(Some("::7"), None), ("[::7]:80".into(), None));
        assert_eq!(shown(Some("10.0.0.7"), Some(9)), ("10.0.0.7:9".into(), None));
    }

    #[tokio::test]
    async fn a_check_that_this_host_has_no_descriptor_for_says_nothing_of_the_backend() {
        let shortage = Shortage::new(Arc::default());
        shortage.pretend_limit(1);
        let checked = prober("tcp: {}")
            .probe(&SocketAddr::from(([127, 0, 0, 1], 9)).into(), None, &shortage, &mut Opened::default())
            .await;
        assert!(Resource::of(&checked.unwrap_err()).is_some());
    }
}
