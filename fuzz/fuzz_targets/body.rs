#![no_main]
//! Chunked bodies: whole or in two pieces, they decode alike; encoded again, they decode to the same.
use libfuzzer_sys::fuzz_target;
use ringway_http1::{Body, BodyLength, Encoding};

fn decode(pieces: &[&[u8]], encoding: Encoding) -> Option<(Vec<u8>, bool)> {
    let mut body = Body::from(BodyLength::Chunked);
    let (mut buffer, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let progress = body.transfer(&buffer, &mut out, encoding).ok()?;
        buffer.drain(..progress.consumed);
        if progress.done {
            return Some((out, true));
        }
    }
    Some((out, false))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let cut = usize::from(cut).min(rest.len());
    let whole = decode(&[rest], Encoding::Identity);
    if let (Some(whole), Some(pieces)) = (&whole, decode(&[&rest[..cut], &rest[cut..]], Encoding::Identity)) {
        assert_eq!(*whole, pieces);
    }
    if let Some((data, true)) = whole {
        let (chunks, done) = decode(&[rest], Encoding::Chunked).expect("what decodes also encodes");
        assert!(done);
        assert_eq!(decode(&[&chunks], Encoding::Identity), Some((data, true)));
    }
});
