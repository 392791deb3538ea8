//! The other end of a client's connection, and what is known of it: address, PROXY header, TLS session.

use crate::dispatcher::Dispatcher;
use crate::net::proxy_protocol;
use crate::net::tls::{self, ServerTls};
use ringway_telemetry::access::Value;
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use tokio_rustls::rustls::{CipherSuite, ProtocolVersion};

/// The peer of a client's connection, and what its PROXY header and TLS session say. Each open connection holds one: it is small.
#[derive(Debug)]
pub(crate) struct Peer {
    address: (IpAddr, u16),
    text: AddressText,
    /// See [`Peer::destination`].
    destination: Option<(IpAddr, u16)>,
    /// It came over TLS: here, or at the proxy in front.
    pub(crate) secure: bool,
    /// The version and the cipher suite of its TLS session, as TLS numbers them; 0 for none.
    session: (u16, u16),
    /// The server name that it asked for in TLS.
    pub(crate) server_name: Option<Box<str>>,
    /// What few peers have.
    rare: OnceCell<Box<Rare>>,
}

/// See [`Peer::rare`].
#[derive(Debug, Default)]
struct Rare {
    /// An id of its connection: from the proxy in front, or Ringway's own once it is needed.
    unique_id: OnceCell<Box<[u8]>>,
    certificate: Option<(Box<str>, String)>,
}

/// An address without port, as text. IPv4 takes no memory of its own.
#[derive(Debug)]
enum AddressText {
    Short { len: u8, bytes: [u8; 15] },
    Long(Box<str>),
}

impl AddressText {
    fn new(address: IpAddr) -> Self {
        let IpAddr::V4(v4) = address else { return Self::Long(address.to_string().into()) };
        // Digit by digit: each connection has its own, and the standard library's way takes ten times as long.
        let (mut len, mut bytes) = (0, [0; 15]);
        let mut write = |byte: u8| {
            bytes[len] = byte;
            len += 1;
        };
        for (index, octet) in v4.octets().into_iter().enumerate() {
            if index > 0 {
                write(b'.');
            }
            if octet >= 100 {
                write(b'0' + octet / 100);
            }
            if octet >= 10 {
                write(b'0' + octet / 10 % 10);
            }
            write(b'0' + octet % 10);
        }
        Self::Short { len: len as u8, bytes }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address: (address.ip(), address.port()),
            text: AddressText::new(address.ip().to_canonical()),
            destination: None,
            secure: false,
            server_name: None,
            session: (0, 0),
            rare: OnceCell::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// The address without port, as text.
    pub(crate) fn text(&self) -> &str {
        // It was written as text.
        std::str::from_utf8(self.text.bytes()).unwrap_or_default()
    }

    /// The same.
    #[inline]
    pub(crate) fn text_bytes(&self) -> &[u8] {
        self.text.bytes()
    }

    /// The address that it has connected to: here, or at the proxy in front, if its PROXY header names it.
    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.destination.map(SocketAddr::from)
    }

    pub(crate) fn set_destination(&mut self, destination: Option<SocketAddr>) {
        self.destination = destination.map(|address| (address.ip(), address.port()));
    }

    /// SHA-256 of its certificate, as text, and the field that carries it to backends.
    #[inline]
    pub(crate) fn certificate(&self) -> Option<&(Box<str>, String)> {
        self.rare.get()?.certificate.as_ref()
    }

    /// A unique id of its connection.
    pub(crate) fn unique_id(&self, dispatcher: &Dispatcher) -> &[u8] {
        let rare = self.rare.get_or_init(Box::default);
        rare.unique_id.get_or_init(|| dispatcher.unique_id().into_bytes().into())
    }

    /// The same for the access log, if it has one.
    pub(crate) fn logged_id(&self) -> Value<'_> {
        let id = self.rare.get().and_then(|rare| rare.unique_id.get());
        id.map_or(Value::Nothing, |id| Value::Bytes(id))
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
        self.address.0.to_canonical()
    }

    /// Takes over a PROXY header.
    pub(crate) fn take(&mut self, told: proxy_protocol::Header) {
        if let Some((source, destination)) = told.addresses {
            *self = Self::new(source);
            self.set_destination(Some(destination));
        }
        (self.secure, self.server_name) = (told.secure, told.authority.map(String::into_boxed_str));
        self.rare = OnceCell::new();
        if let Some(id) = told.unique_id {
            self.rare = OnceCell::from(Box::new(Rare { unique_id: OnceCell::from(id), certificate: None }));
        }
    }

    /// Takes over the data of the TLS session.
    pub(crate) fn take_session<T>(&mut self, session: &tokio_rustls::server::TlsStream<T>, tls: &ServerTls) {
        let (_, session) = session.get_ref();
        self.secure = true;
        let version = session.protocol_version().map_or(0, u16::from);
        let suite = session.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into());
        self.session = (version, suite);
        self.server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        if let Some(header) = &tls.header {
            // An empty value when there is none: only Ringway may set the field.
            let mut rare = self.rare.take().unwrap_or_default();
            rare.certificate = Some((header.clone(), leaf.map(|leaf| tls::fingerprint(leaf)).unwrap_or_default()));
            self.rare = OnceCell::from(rare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for octet in 0..=u8::MAX {
            let v4 = Ipv4Addr::new(octet, 10, 0, octet);
            assert_eq!(Peer::new(SocketAddr::from((v4, 1))).text(), v4.to_string());
            assert_eq!(Peer::new(SocketAddr::from((v4.to_ipv6_mapped(), 1))).text(), v4.to_string());
        }
        assert_eq!(Peer::new("[2001:db8::1]:1".parse().unwrap()).text(), "2001:db8::1");
    }
}
