//! QUIC connection ids, as far as they can be read without keys (RFC 8999), and which backend each belongs to.

use std::collections::HashMap;

/// Longest connection id (RFC 9000, 17.2).
const ID_BYTES_MAX: usize = 20;
/// First byte: a long header; and the bit that is set in every packet whose sender does not hide it (RFC 9287).
const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;

/// A connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    len: u8,
    bytes: [u8; ID_BYTES_MAX],
}

impl Id {
    fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; ID_BYTES_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        // An empty id identifies no connection.
        (!id.is_empty()).then_some(Self { len: id.len() as u8, bytes })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What a client's datagram reveals about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) id: Id,
    /// A long header: it may be the first of its connection.
    pub(crate) long: bool,
}

/// The destination id in a client's datagram. `length` is that of the ids which the backends issue: short headers do not carry it.
/// `None`: this is not QUIC, or its ids are empty.
pub(crate) fn destination(datagram: &[u8], length: usize) -> Option<Destination> {
    let first = *datagram.first()?;
    if first & FIXED == 0 {
        return None;
    }
    let long = first & LONG != 0;
    let id = if long { ids(datagram)?.0 } else { datagram.get(1..=length)? };
    Some(Destination { id: Id::new(id)?, long })
}

/// The id that a backend issues in a datagram with a long header: its client uses it from then on.
pub(crate) fn source(datagram: &[u8]) -> Option<Id> {
    if datagram.first()? & LONG == 0 {
        return None;
    }
    Id::new(ids(datagram)?.1)
}

/// Destination and source of a long header (RFC 8999, 5.1). Version 0 belongs to no connection: it negotiates the version.
fn ids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    if datagram.get(1..5)? == [0; 4] {
        return None;
    }
    let rest = datagram.get(5..)?;
    let (destination, rest) = prefixed(rest)?;
    let (source, _) = prefixed(rest)?;
    Some((destination, source))
}

fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let len = usize::from(*len);
    (len <= ID_BYTES_MAX && len <= rest.len()).then(|| rest.split_at(len))
}

/// Which backend an id belongs to. Bounded: two generations, of which the older goes when the younger is full, so that ids learned or
/// looked up last are kept longest.
pub(crate) struct Ids<B> {
    young: HashMap<Id, B>,
    old: HashMap<Id, B>,
}

impl<B> Default for Ids<B> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<B: Clone> Ids<B> {
    pub(crate) fn get(&mut self, id: &Id, ids_max: usize) -> Option<B> {
        if let Some(backend) = self.young.get(id) {
            return Some(backend.clone());
        }
        let backend = self.old.remove(id)?;
        self.insert(*id, backend.clone(), ids_max);
        Some(backend)
    }

    pub(crate) fn insert(&mut self, id: Id, backend: B, ids_max: usize) {
        if self.young.len() >= (ids_max / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, backend);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001, A.2: the beginning of a client's first packet, and A.3: the beginning of its server's.
    const CLIENT: &[u8] = b"\xc0\x00\x00\x00\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00\x00\x44\x9e";
    const SERVER: &[u8] = b"\xc1\x00\x00\x00\x01\x00\x08\xf0\x67\xa5\x50\x2a\x42\x62\xb5\x00\x40\x75";

    #[test]
    fn ids_are_where_the_rfc_puts_them() {
        let initial = destination(CLIENT, 8).unwrap();
        assert_eq!((initial.id.as_bytes(), initial.long), (&b"\x83\x94\xc8\xf0\x3e\x51\x57\x08"[..], true));
        let server = source(SERVER).unwrap();
        assert_eq!(server.as_bytes(), b"\xf0\x67\xa5\x50\x2a\x42\x62\xb5");
        assert_eq!(destination(SERVER, 8), None, "an empty id");
        let short = [b"\x41", server.as_bytes(), b"protected"].concat();
        assert_eq!(destination(&short, 8), Some(Destination { id: server, long: false }));
        assert_eq!(destination(&short[..8], 8), None);
        assert_eq!(source(&short), None);
    }

    #[test]
    fn what_is_not_quic_has_no_id() {
        let negotiation = b"\x80\x00\x00\x00\x00\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00";
        assert_eq!(source(negotiation), None);
        // DNS, STUN, DTLS, RTP, a longer id than there may be.
        for other in
            [&b"\x12\x34\x01\x00\x00\x01"[..], b"\x00\x01\x00\x08\x21\x12\xa4\x42", b"\x16\xfe\xfd", b"\x80\x60"]
        {
            assert_eq!(destination(other, 1), None, "{other:?}");
        }
        let mut long = CLIENT.to_vec();
        long[5] = 21;
        assert_eq!(destination(&long, 8), None);
        // However much has come, nothing panics.
        for text in [CLIENT, SERVER] {
            for end in 0..text.len() {
                for first in 0..=u8::MAX {
                    let mut part = text[..end].to_vec();
                    part.iter_mut().take(1).for_each(|byte| *byte = first);
                    let _ = (destination(&part, 20), source(&part));
                }
            }
        }
    }

    #[test]
    fn ids_are_bounded_and_the_last_used_stay() {
        let mut ids = Ids::default();
        let id = |number: u32| Id::new(&number.to_be_bytes()).unwrap();
        for number in 0..10_000 {
            ids.insert(id(number), "a", 100);
            assert!(ids.get(&id(0), 100).is_some(), "it is asked for all the time");
            assert!(ids.len() <= 101);
        }
        assert!(ids.get(&id(9_999), 100).is_some() && ids.get(&id(1), 100).is_none());
    }
}
