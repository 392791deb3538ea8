//! TLS sessions with one backend, to be resumed.
//!
//! Kept apart for each backend: those of a service often have one name, and no backend can read another's tickets.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tickets of TLS 1.3 that are kept, each good for one connection: as many connections can be opened at once by resumption. With each goes
/// the chain of certificates, some KiB.
const TICKETS_MAX: usize = 2;

/// What is known of one backend. The name that goes with it is always the same.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Oldest first.
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn tickets(&self) -> usize {
        self.known().tls13.len()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.known().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.known().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.known().tls12 = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.known().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.known().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let tickets = &mut self.known().tls13;
        if tickets.len() >= TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.known().tls13.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientTls;
    use super::super::server::ServerTls;
    use super::super::testing::{Directory, handshake, listener_tls};
    use super::super::tickets::Tickets;
    use super::*;
    use ringway_config::model::UpstreamTls;
    use rustls::HandshakeKind;
    use rustls::client::Resumption;
    use std::sync::Arc;

    #[test]
    fn backends_of_one_name_are_resumed_each_for_itself() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        // Two backends, each with ticket keys of its own.
        let servers =
            [0, 1].map(|_| ServerTls::new("l", &listener_tls(&[(&certificate, &key)]), &Tickets::default()).unwrap());
        let tls = UpstreamTls {
            sni: Some("a.example".into()),
            ca: Some(certificate),
            verify: true,
            ignore_unexpected_eof: false,
            own: None,
        };
        let client = ClientTls::new(&tls, &[]).unwrap();
        for round in 0..6 {
            for (server, address) in servers.iter().zip([([10, 0, 0, 1], 443), ([10, 0, 0, 2], 443)]) {
                let config = client.config_for(address.into());
                let (done, _) = handshake(&config, &server.config, client.name([10, 0, 0, 1].into())).unwrap();
                let expected = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
                assert_eq!(done.handshake_kind(), Some(expected), "{round}");
            }
        }
    }

    #[test]
    fn no_more_tickets_are_kept_than_are_of_use() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        let server = ServerTls::new("l", &listener_tls(&[(&certificate, &key)]), &Tickets::default()).unwrap();
        let tls = UpstreamTls { sni: None, ca: None, verify: false, ignore_unexpected_eof: false, own: None };
        let sessions = Arc::new(Sessions::default());
        let mut config = (*ClientTls::new(&tls, &[]).unwrap().config_for(([10, 0, 0, 1], 443).into())).clone();
        config.resumption = Resumption::store(Arc::clone(&sessions) as Arc<dyn ClientSessionStore>);
        let config = Arc::new(config);
        let name = ServerName::try_from("a.example").unwrap();
        let mut kept = Vec::new();
        for _ in 0..6 {
            handshake(&config, &server.config, name.clone()).unwrap();
            kept.push(sessions.tickets());
        }
        // Two come with each handshake, one goes with each resumption.
        assert_eq!(kept, [TICKETS_MAX; 6]);
    }
}
