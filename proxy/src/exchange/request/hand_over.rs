//! What a request whose key is handed over tells the next owner of the previous one, and the copy that goes there.

use super::copied::Copied;
use super::handed::Handed;
use super::{Request, head_lines};
use crate::snapshot::COPY_FIELD;
use crate::snapshot::handoff_request::is_credential;
use ringway_config::model::UpstreamProtocol;
use ringway_ring::{HandoffWay, Slot};
use std::net::SocketAddr;
use std::rc::Rc;

/// Who had a key before: its id, without what a field cannot hold, and where it listens.
pub(crate) fn named(id: &str, address: SocketAddr) -> String {
    let mut text = String::with_capacity(id.len() + 24);
    for byte in id.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text + &format!(" {address}")
}

/// Fields by which less than the content comes back (RFC 9110, 13.1 and 14.2).
const CONDITIONS: [&str; 6] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"];

impl Request {
    /// What became of the hand-over of its key, for who looks: where it went to the backend that this says.
    pub(crate) fn handed_word(&self) -> Option<&'static str> {
        let handed = self.handed.as_ref()?;
        let is_served = self.report.backend == Some(usize::from(handed.server().0)) && self.is_of(handed);
        handed.way.name().filter(|_| is_served)
    }

    /// The backend that has the request's key, where that is not the first of its candidate sequence: it is still to be handed over.
    pub(in crate::exchange) fn holder(&self) -> Option<Slot> {
        let handed = self.handed.as_ref().filter(|handed| handed.stays && self.is_of(handed))?;
        Some(handed.previous)
    }

    fn is_of(&self, handed: &Handed) -> bool {
        Rc::ptr_eq(&handed.view, &self.view)
    }

    /// A try begins on a backend. The one that has taken its key over, and no other, is told who had it before. `true`: it is told.
    #[cold]
    pub(in crate::exchange) fn tell_previous(&mut self, backend: Slot) -> bool {
        self.forget_previous();
        let Some(handed) = self.handed.as_ref().filter(|handed| self.is_of(handed)) else { return false };
        if handed.way != HandoffWay::Next || handed.next != backend {
            return false;
        }
        let service = &self.view.services[self.service].service;
        let Some(config) = &service.config.handoff else { return false };
        let previous = &service.backends[usize::from(handed.previous.0)].config;
        let value = named(&previous.id, previous.address);
        let is_indexed = service.config.protocol == UpstreamProtocol::H2 || !self.lines.is_empty();
        let at = self.head_len - 2;
        let told = head_lines::add(&mut self.out, is_indexed.then_some(&mut self.lines), at, (&config.header, &value));
        self.head_len += told;
        if let Some(kept) = &mut self.kept {
            kept.from += told;
        }
        if let Some(handed) = &mut self.handed {
            handed.told = told;
        }
        true
    }

    /// Takes the line out of the head again.
    fn forget_previous(&mut self) {
        let Some(told) = self.handed.as_mut().map(|handed| std::mem::take(&mut handed.told)).filter(|told| *told > 0)
        else {
            return;
        };
        let end = self.head_len - 2;
        head_lines::cut(&mut self.out, &mut self.lines, &mut self.authority, end - told..end);
        self.head_len -= told;
        if let Some(kept) = &mut self.kept {
            kept.from -= told;
        }
    }

    /// Whether the request says who asks, in a field that backends answer differently for.
    pub(in crate::exchange) fn has_credentials(&self) -> bool {
        head_lines::has(&self.out[..self.head_len], |name| {
            is_credential(name) || self.routed_by.snapshot.is_identity(name)
        })
    }

    /// A copy for the next owner of its key: marked as one, with what it is to know of the previous one, and without what would have a
    /// part of the content, or none, come back. A copy has no body.
    pub(in crate::exchange) fn copied_for(&self, next: Slot, previous: Slot) -> Option<Copied> {
        let service = &self.view.services[self.service].service;
        let config = service.config.handoff.as_ref()?;
        let mut copied = self.copied(service.config.protocol);
        copied.leave_out(|name| CONDITIONS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())));
        debug_assert_ne!(next, previous);
        let previous = &service.backends[usize::from(previous.0)].config;
        let is_indexed = service.config.protocol == UpstreamProtocol::H2;
        copied.add(is_indexed, (COPY_FIELD, "copy"));
        copied.add(is_indexed, (&config.header, &named(&previous.id, previous.address)));
        Some(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_no_field_could_hold_is_written_so_that_it_ends_nothing() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(named("cache-1", address), "cache-1 10.0.0.1:80");
        assert_eq!(named("a b\r\nx: %", address), "a%20b%0D%0Ax:%20%25 10.0.0.1:80");
        assert_eq!(named("ü", "[::1]:80".parse().unwrap()), "%C3%BC [::1]:80");
    }
}
