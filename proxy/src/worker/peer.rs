//! The other end of a client's connection, and what is known of it: address, PROXY header, TLS session.

use crate::dispatcher::Dispatcher;
use crate::net::proxy_protocol;
use crate::net::tls::{self, ServerTls};
use ringway_telemetry::access::Value;
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use tokio_rustls::rustls::{CipherSuite, ProtocolVersion};

/// The peer of a client's connection, and what its PROXY header and TLS session say.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The address without port, as text.
    pub(crate) text: String,
    /// The address that it has connected to: here, or at the proxy in front, if its PROXY header names it.
    pub(crate) destination: Option<SocketAddr>,
    /// It came over TLS: here, or at the proxy in front.
    pub(crate) secure: bool,
    /// The server name that it asked for in TLS.
    pub(crate) server_name: Option<String>,
    /// The version and the cipher suite of its TLS session, as TLS numbers them; 0 for none.
    session: (u16, u16),
    /// An id of its connection: from the proxy in front, or Ringway's own once it is needed.
    unique_id: OnceCell<Box<[u8]>>,
    /// SHA-256 of its certificate, as text, and the field that carries it to backends.
    pub(crate) certificate: Option<(Box<str>, String)>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let text = text_of(address.ip().to_canonical());
        let unique_id = OnceCell::new();
        Self {
            address,
            text,
            destination: None,
            secure: false,
            server_name: None,
            session: (0, 0),
            unique_id,
            certificate: None,
        }
    }

    /// A unique id of its connection.
    pub(crate) fn unique_id(&self, dispatcher: &Dispatcher) -> &[u8] {
        self.unique_id.get_or_init(|| dispatcher.unique_id().into_bytes().into())
    }

    /// The same for the access log, if it has one.
    pub(crate) fn logged_id(&self) -> Value<'_> {
        self.unique_id.get().map_or(Value::Nothing, |id| Value::Bytes(id))
    }

    /// The version of TLS of its session, for the access log.
    pub(crate) fn tls_version(&self) -> Value<'_> {
        let name = match ProtocolVersion::from(self.session.0) {
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            version => version.as_str(),
        };
        name.filter(|_| self.session.0 != 0).map_or(Value::Nothing, Value::Word)
    }

    /// The cipher suite of its session, for the access log.
    pub(crate) fn tls_cipher(&self) -> Value<'_> {
        let name = CipherSuite::from(self.session.1).as_str();
        name.filter(|_| self.session.1 != 0).map_or(Value::Nothing, Value::Word)
    }

    /// The server name that it has asked for, for the access log.
    pub(crate) fn logged_name(&self) -> Value<'_> {
        self.server_name.as_deref().map_or(Value::Nothing, |name| Value::Bytes(name.as_bytes()))
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Takes over a PROXY header.
    pub(crate) fn take(&mut self, told: proxy_protocol::Header) {
        if let Some((source, destination)) = told.addresses {
            *self = Self::new(source);
            self.destination = Some(destination);
        }
        (self.secure, self.server_name) = (told.secure, told.authority);
        self.unique_id = told.unique_id.map(OnceCell::from).unwrap_or_default();
    }

    /// Takes over the data of the TLS session.
    pub(crate) fn take_session<T>(&mut self, session: &tokio_rustls::server::TlsStream<T>, tls: &ServerTls) {
        let (_, session) = session.get_ref();
        self.secure = true;
        let version = session.protocol_version().map_or(0, u16::from);
        let suite = session.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into());
        self.session = (version, suite);
        self.server_name = session.server_name().map(str::to_ascii_lowercase);
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        // An empty value when there is none: only Ringway may set the field.
        self.certificate = tls
            .header
            .as_ref()
            .map(|header| (header.clone(), leaf.map(|leaf| tls::fingerprint(leaf)).unwrap_or_default()));
    }
}

/// An address as it is written. Of IPv4 digit by digit: each connection has its own, and the standard library's way takes ten times as long.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(v4) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in v4.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        let digit = |value: u8| char::from(b'0' + value % 10);
        if octet >= 100 {
            text.push(digit(octet / 100));
        }
        if octet >= 10 {
            text.push(digit(octet / 10));
        }
        text.push(digit(octet));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for octet in 0..=u8::MAX {
            let v4 = Ipv4Addr::new(octet, 10, 0, octet);
            assert_eq!(Peer::new(SocketAddr::from((v4, 1))).text, v4.to_string());
            assert_eq!(Peer::new(SocketAddr::from((v4.to_ipv6_mapped(), 1))).text, v4.to_string());
        }
        assert_eq!(Peer::new("[2001:db8::1]:1".parse().unwrap()).text, "2001:db8::1");
    }
}
