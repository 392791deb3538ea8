//! TLS of a listener.

use super::certificate::names_of;
use super::error::TlsError;
use super::resolver::Resolver;
use super::tickets::{TicketKeys, Tickets};
use ringway_config::model::ListenerTls;
use ringway_tls::{authorities, certified, provider, staple};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, version};
use std::sync::Arc;

/// TLS of a listener.
pub(crate) struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    /// Field that gives backends the fingerprint of the client's certificate.
    pub(crate) header: Option<Box<str>>,
    /// What its session tickets are made by.
    pub(crate) tickets: TicketKeys,
}

impl ServerTls {
    /// Whether connections of a listener that had `before`, or no TLS, may go on now that it has `after`. A renewed certificate ends none.
    pub(crate) fn go_on(before: Option<&Self>, after: Option<&Self>) -> bool {
        match (before, after) {
            (None, None) => true,
            (Some(before), Some(after)) => after.tickets.go_on(&before.tickets),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    pub(crate) fn new(listener: &str, tls: &ListenerTls, tickets: &Tickets) -> Result<Self, TlsError> {
        let provider = provider();
        let mut resolver = Resolver::default();
        for files in &tls.certificates {
            let mut certified = certified(&files.certificate, &files.key, &provider)?;
            let names = names_of(&files.certificate, &certified.cert)?;
            certified.ocsp = files.ocsp.as_deref().map(staple).transpose()?;
            resolver.add(names, Arc::new(certified), tls.reject_unknown);
        }
        let versions: &[&rustls::SupportedProtocolVersion] =
            if tls.tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let trusted = Arc::new(authorities(&client.ca)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(trusted, provider);
                if !client.required {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier =
                    verifier.build().map_err(|error| TlsError::Library(rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tickets = tickets.of(listener, tls)?;
        config.ticketer = Arc::clone(&tickets.maker);
        // Tickets hold the session: the server keeps none.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let header = tls.client.as_ref().map(|client| client.header.as_str().into());
        Ok(Self { config: Arc::new(config), header, tickets })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientTls;
    use super::super::testing::{Directory, any_server, any_server_of, handshake, listener_tls};
    use super::*;
    use ringway_config::model::{ClientCertificates, UpstreamTls};
    use rustls::pki_types::ServerName;
    use rustls::{ProtocolVersion, SignatureScheme};

    fn name() -> ServerName<'static> {
        ServerName::try_from("a.example").unwrap()
    }

    #[test]
    fn certificates_of_clients_are_asked_for_as_configured() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        let (stranger, stranger_key) = directory.pair("b", &["b.example"]);
        let own = |own: Option<(&_, &_)>| {
            let own = own.map(|(certificate, key): (&std::path::PathBuf, &std::path::PathBuf)| {
                (certificate.clone(), key.clone())
            });
            let tls = UpstreamTls {
                sni: None,
                ca: Some(certificate.clone()),
                verify: true,
                ignore_unexpected_eof: false,
                own,
            };
            ClientTls::new(&tls, &[]).unwrap().config_for(([127, 0, 0, 1], 443).into())
        };
        let with = |required| {
            let client = ClientCertificates { ca: certificate.clone(), required, header: "x-client".into() };
            let tls = ListenerTls { client: Some(client), ..listener_tls(&[(&certificate, &key)]) };
            ServerTls::new("l", &tls, &Tickets::default()).unwrap()
        };
        for (required, client, works) in [
            (true, own(Some((&certificate, &key))), true),
            (true, own(None), false),
            (true, own(Some((&stranger, &stranger_key))), false),
            (false, own(None), true),
            (false, own(Some((&stranger, &stranger_key))), false),
        ] {
            let server = with(required);
            assert_eq!(server.header.as_deref(), Some("x-client"));
            assert_eq!(handshake(&client, &server.config, name()).is_ok(), works, "{required}");
        }
    }

    #[test]
    fn version_and_staple_are_as_configured() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        let mut tls = listener_tls(&[(&certificate, &key)]);
        let client = any_server(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let version = |tls: &ListenerTls, client: &_| {
            let server = ServerTls::new("l", tls, &Tickets::default()).unwrap();
            handshake(client, &server.config, name()).ok().and_then(|(client, _)| client.protocol_version())
        };
        assert_eq!(version(&tls, &client), Some(ProtocolVersion::TLSv1_3));
        let old = any_server_of(&[SignatureScheme::ECDSA_NISTP256_SHA256], &[&version::TLS12]);
        assert_eq!(version(&tls, &old), Some(ProtocolVersion::TLSv1_2));
        tls.tls12 = false;
        assert_eq!(version(&tls, &old), None);
        tls.certificates[0].ocsp = Some(directory.write("empty.ocsp", ""));
        let error = ServerTls::new("l", &tls, &Tickets::default()).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.ends_with("empty.ocsp\" is empty")));
        tls.certificates[0].ocsp = Some(directory.write("some.ocsp", "a staple"));
        assert!(ServerTls::new("l", &tls, &Tickets::default()).is_ok());
    }
}
