#![no_main]
//! Frames as a peer may send them, to either role: no panic, and whole or in two pieces they mean the same.
mod http2;
use http2::{Session, frame};
use libfuzzer_sys::fuzz_target;
use ringway_http2::Role;

/// Reads frames out of bytes that know nothing of lengths: kind, flags, stream, how long the payload is, the payload.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(([kind, flags, stream, length], rest)) = bytes.split_first_chunk::<4>() {
        let (payload, rest) = rest.split_at((usize::from(*length)).min(rest.len()));
        out.extend(frame(kind % 12, *flags, u32::from(stream % 16), payload));
        bytes = rest;
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([role, cut_high, cut_low], rest)) = bytes.split_first_chunk::<3>() else { return };
    let role_of = if role & 1 == 0 { Role::Server } else { Role::Client };
    // Half of them as they are.
    let bytes = if role & 2 == 0 { frames(rest) } else { rest.to_vec() };
    let bytes = &bytes[..bytes.len().min(16 * 1024)];
    let cut = usize::from(u16::from_be_bytes([*cut_high, *cut_low])).min(bytes.len());
    let mut whole = Session::new(role_of);
    whole.feed(bytes);
    let mut pieces = Session::new(role_of);
    pieces.feed(&bytes[..cut]);
    pieces.feed(&bytes[cut..]);
    assert_eq!(whole.failed, pieces.failed);
    assert_eq!(whole.resets, pieces.resets);
    if whole.failed.is_none() {
        for (stream, message) in whole.messages.iter().filter(|(_, message)| message.ended) {
            assert_eq!(Some(message), pieces.messages.get(stream));
        }
    }
    whole.end();
    pieces.end();
});
