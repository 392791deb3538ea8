//! Keys of session tickets.

use super::error::TlsError;
use ringway_config::model::{ClientCertificates, ListenerTls};
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys of session tickets, by listener: a reload leaves them alone, so that clients go on resuming. They rotate by
/// themselves. Other rules for clients' certificates are other tickets: a session is not carried over to stricter ones.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<String, TicketKeys>>);

/// What makes a listener's tickets.
#[derive(Clone)]
pub(crate) struct TicketKeys {
    listener: String,
    /// The rules that they were made for, and a hash of what their file of authorities held.
    rules: (Option<ClientCertificates>, u64),
    pub(super) maker: Arc<dyn ProducesTickets>,
}

impl TicketKeys {
    /// Whether connections that were let in by the rules of `before` may go on under these: they need no certificate of the client that was
    /// not needed then, and trust no other authorities.
    pub(super) fn go_on(&self, before: &Self) -> bool {
        match (&before.rules.0, &self.rules.0) {
            (None, client) => client.as_ref().is_none_or(|client| !client.required),
            (Some(_), None) => false,
            (Some(before_client), Some(client)) => {
                before.rules.1 == self.rules.1 && (before_client.required || !client.required)
            }
        }
    }
}

impl Tickets {
    /// The listener's keys, if they are for these rules, or new ones, which [`Tickets::keep`] keeps.
    pub(super) fn of(&self, listener: &str, tls: &ListenerTls) -> Result<TicketKeys, TlsError> {
        let authorities = tls.client.as_ref().map(|client| ringway_config::read_bytes(&client.ca).unwrap_or_default());
        let rules = (tls.client.clone(), xxhash_rust::xxh3::xxh3_64(&authorities.unwrap_or_default()));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(listener).filter(|known| known.rules == rules) {
            Some(known) => Ok(known.clone()),
            None => Ok(TicketKeys { listener: listener.to_owned(), rules, maker: aws_lc_rs::Ticketer::new()? }),
        }
    }

    /// From now on there are these keys, and no others.
    pub(crate) fn keep<'a>(&self, keys: impl Iterator<Item = &'a TicketKeys>) {
        let kept = keys.map(|keys| (keys.listener.clone(), keys.clone())).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_on_unless_rules_become_stricter_or_trust_others() {
        let maker = aws_lc_rs::Ticketer::new().unwrap();
        let keys = |required: Option<bool>, authorities: u64| {
            let client = required.map(|required| ClientCertificates { ca: "/ca".into(), required, header: "x".into() });
            TicketKeys { listener: "a".into(), rules: (client, authorities), maker: Arc::clone(&maker) }
        };
        let (none, optional, required) = (keys(None, 0), keys(Some(false), 1), keys(Some(true), 1));
        for (before, after, go_on) in [
            (&none, &none, true),
            (&none, &optional, true),
            (&none, &required, false),
            (&optional, &none, false),
            (&optional, &optional, true),
            (&optional, &required, false),
            (&required, &none, false),
            (&required, &optional, true),
            (&required, &required, true),
            (&required, &keys(Some(true), 2), false),
            (&optional, &keys(Some(false), 2), false),
        ] {
            assert_eq!(after.go_on(before), go_on, "{:?} after {:?}", after.rules, before.rules);
        }
    }

    #[test]
    fn tickets_that_were_only_tried_displace_none() {
        let tickets = Tickets::default();
        let plain = ListenerTls {
            certificates: Vec::new(),
            tls12: true,
            alpn: Vec::new(),
            reject_unknown: false,
            client: None,
        };
        let client = ClientCertificates { ca: "/nonexistent".into(), required: true, header: "x".into() };
        let strict = ListenerTls { client: Some(client), ..plain.clone() };
        let same = |a: &TicketKeys, b: &TicketKeys| Arc::ptr_eq(&a.maker, &b.maker);
        let first = tickets.of("a", &plain).unwrap();
        tickets.keep([&first].into_iter());
        let tried = tickets.of("a", &strict).unwrap();
        assert!(!same(&first, &tried));
        assert!(same(&first, &tickets.of("a", &plain).unwrap()), "clients go on resuming");
        tickets.keep([&tried].into_iter());
        assert!(!same(&first, &tickets.of("a", &plain).unwrap()), "stricter rules end old sessions");
        tickets.keep([].into_iter());
        assert!(!same(&tried, &tickets.of("a", &strict).unwrap()), "a listener that has gone is forgotten");
    }
}
