//! For [`crate::fuzzing`]: what etcd says, in frames of gRPC, and what is made of it.

use super::grpc::take;
use super::mirror::Mirror;
use super::proto::{
    AuthenticateResponse, Event, Header, KeyValue, LeaseGrantResponse, LeaseKeepAliveResponse, PutResponse,
    RangeResponse, TxnResponse, WatchResponse,
};
use bytes::{Bytes, BytesMut};
use prost::Message;

const PREFIX: &str = "/r/";

/// Messages cut out of pieces that came one after the other, until one is no message.
fn messages(pieces: &[&[u8]]) -> (Vec<Bytes>, bool) {
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match take(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// Whole or in two pieces the same messages come; whatever they say leads to a topology or to a reason, and all keys at once lead where
/// their events do.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let whole = messages(&[bytes]);
    assert_eq!(whole, messages(&[first, second]));
    let header = Header { cluster_id: 1, revision: 1 };
    let mut mirror = Mirror::new(PREFIX, &header);
    for message in whole.0 {
        let _ = AuthenticateResponse::decode(message.clone());
        let _ = LeaseGrantResponse::decode(message.clone());
        let _ = LeaseKeepAliveResponse::decode(message.clone());
        let _ = PutResponse::decode(message.clone());
        let _ = TxnResponse::decode(message.clone());
        if let Ok(range) = RangeResponse::decode(message.clone()) {
            lead_alike(&mirror, &range.kvs);
            range.kvs.iter().for_each(|kv| mirror.put(kv));
        }
        if let Ok(watch) = WatchResponse::decode(message) {
            watch.events.iter().for_each(|event| mirror.handle(event));
        }
        let _ = mirror.view();
    }
}

/// A key that is put is what an event says that it is; one that is deleted leaves nothing.
fn lead_alike(before: &Mirror, kvs: &[KeyValue]) {
    let (mut put, mut told) = (before.clone(), before.clone());
    for kv in kvs {
        put.put(kv);
        told.handle(&Event { kind: 0, kv: Some(kv.clone()) });
    }
    assert_eq!(put, told);
    let mut empty = Mirror::new(PREFIX, &Header { cluster_id: 1, revision: 1 });
    for kind in [0, 1] {
        kvs.iter().for_each(|kv| empty.handle(&Event { kind, kv: Some(kv.clone()) }));
    }
    let view = empty.view().map(|view| (view.objects.len(), view.digest));
    assert_eq!(view.ok(), Some((0, crate::state::Digest::default())));
    assert_eq!(empty.strange().count(), 0);
}
