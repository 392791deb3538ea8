//! What has come of a stream, handed to the user: heads, trailers, bodies.

use super::Connection;
use crate::pool::{Inbound, InboundKind};
use crate::streams::{Receiving, StreamKey};
use ringway_message::{Field, RequestHead, ResponseHead};

impl Connection {
    /// Takes a request's head, once: `head` and `arena`, into which its spans point, are exchanged for those that came. `false`: there is
    /// none.
    pub fn take_request(&mut self, key: StreamKey, head: &mut RequestHead, arena: &mut Vec<u8>) -> bool {
        self.take_inbound(key, InboundKind::Request, |inbound| {
            std::mem::swap(&mut inbound.request, head);
            std::mem::swap(&mut inbound.arena, arena);
        })
    }

    /// Takes a response's head as [`Connection::take_request`] does a request's: informational ones first, in the order in which they came.
    pub fn take_response(&mut self, key: StreamKey, head: &mut ResponseHead, arena: &mut Vec<u8>) -> bool {
        self.take_inbound(key, InboundKind::Response, |inbound| {
            std::mem::swap(&mut inbound.response, head);
            std::mem::swap(&mut inbound.arena, arena);
        })
    }

    /// Takes trailers as [`Connection::take_request`] does a head. `false`: none have come, or a head is to be taken first.
    pub fn take_trailers(&mut self, key: StreamKey, fields: &mut Vec<Field>, arena: &mut Vec<u8>) -> bool {
        self.take_inbound(key, InboundKind::Trailers, |inbound| {
            std::mem::swap(&mut inbound.trailers, fields);
            std::mem::swap(&mut inbound.arena, arena);
        })
    }

    /// Whether trailers have come that were not taken.
    #[must_use]
    pub fn has_trailers(&self, key: StreamKey) -> bool {
        let mut next = self.streams.get(key).and_then(|stream| stream.inbound.as_deref());
        while let Some(inbound) = next {
            if inbound.kind == InboundKind::Trailers {
                return true;
            }
            next = inbound.next.as_deref();
        }
        false
    }

    /// The value of a trailer that has come and was not taken; it stays there. `name`: in lower case, as the peer has to write it.
    #[must_use]
    pub fn trailer(&self, key: StreamKey, name: &[u8]) -> Option<&[u8]> {
        let mut next = self.streams.get(key).and_then(|stream| stream.inbound.as_deref());
        while let Some(inbound) = next.filter(|inbound| inbound.kind != InboundKind::Trailers) {
            next = inbound.next.as_deref();
        }
        let inbound = next?;
        let found = inbound.trailers.iter().find(|field| field.name.of(&inbound.arena) == name)?;
        Some(found.value.of(&inbound.arena))
    }

    fn take_inbound(&mut self, key: StreamKey, kind: InboundKind, take: impl FnOnce(&mut Inbound)) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let Some(mut inbound) = stream.inbound.take_if(|inbound| inbound.kind == kind) else { return false };
        stream.inbound = inbound.next.take();
        take(&mut inbound);
        self.memory.give_inbound(inbound);
        true
    }

    /// The first of what has come of a stream's body, as far as it lies in one piece: empty if there is nothing at the moment.
    #[must_use]
    pub fn data(&self, key: StreamKey) -> &[u8] {
        self.streams.get(key).map_or(&[], |stream| stream.body.data())
    }

    /// How much of a stream's body has come and was not taken yet.
    #[must_use]
    pub fn data_len(&self, key: StreamKey) -> usize {
        self.streams.get(key).map_or(0, |stream| stream.body.len() as usize)
    }

    /// Whether the peer has ended its message: data and trailers may still wait to be taken.
    #[must_use]
    pub fn is_received(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.receiving == Receiving::Ended)
    }

    /// Whether the peer has ended its message, and all of it has been taken.
    #[must_use]
    pub fn is_ended(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| {
            stream.receiving == Receiving::Ended && stream.body.len() == 0 && stream.inbound.is_none()
        })
    }
}
