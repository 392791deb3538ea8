//! The codec's promises, on arbitrary bytes and at every split of the input.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use ringway_http1::{
    Body, BodyLength, ChunkDecoder, ChunkEvent, Encoding, Limits, Method, ParseError, RequestHead, ResponseHead,
    parse_request, parse_response,
};

const HEADS: &[&str] = &[
    "GET /a/b?x=1 HTTP/1.1\r\nHost: example.com\r\nCookie: a=1; b=2\r\n\r\n",
    "POST http://h:80/x HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "PUT / HTTP/1.1\r\nhost:[::1]:80\r\nTransfer-Encoding:chunked\r\nExpect: 100-continue\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
];
const BAD_HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "GET / HTTP/1.1\r\nX: b\r\n\r\n",
];
const CHUNKED: &[u8] = b"5\r\nhello\r\n1;a=b\r\n \r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\n";

fn request(bytes: &[u8]) -> Result<Option<RequestHead>, ParseError> {
    let mut head = RequestHead::default();
    Ok(parse_request(bytes, &Limits::default(), &mut head)?.then_some(head))
}

#[test]
fn every_prefix_of_a_good_head_asks_for_more() {
    for text in HEADS {
        let whole = request(text.as_bytes()).unwrap().unwrap();
        for end in 0..text.len() {
            assert_eq!(request(&text.as_bytes()[..end]), Ok(None), "{:?}", &text[..end]);
        }
        // What follows the head changes nothing in it.
        let longer = format!("{text}GET / HTTP/1.1\r\n\0\n garbage");
        assert_eq!(request(longer.as_bytes()).unwrap().unwrap(), whole);
    }
}

#[test]
fn bad_head_never_becomes_good_by_arriving_in_pieces() {
    for text in BAD_HEADS {
        for end in 0..=text.len() {
            assert!(!matches!(request(&text.as_bytes()[..end]), Ok(Some(_))), "{:?}", &text[..end]);
        }
        assert!(request(text.as_bytes()).is_err(), "{text:?}");
    }
}

/// Decodes a body that arrives in these pieces. Gives its data in each encoding, and how much of the input it took.
fn decode(pieces: &[&[u8]], length: BodyLength, encoding: Encoding) -> Result<(Vec<u8>, bool, usize), ParseError> {
    let mut body = Body::from(length);
    let (mut buffer, mut out, mut taken) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let progress = body.transfer(&buffer, &mut out, encoding)?;
        buffer.drain(..progress.consumed);
        taken += progress.consumed;
        if progress.done {
            return Ok((out, true, taken));
        }
    }
    Ok((out, false, taken))
}

#[test]
fn every_split_of_a_chunked_body_decodes_alike() {
    let whole = decode(&[CHUNKED], BodyLength::Chunked, Encoding::Identity).unwrap();
    assert_eq!(whole, (b"hello 0123456789".to_vec(), true, CHUNKED.len()));
    for first in 0..=CHUNKED.len() {
        for second in first..=CHUNKED.len() {
            let pieces = [&CHUNKED[..first], &CHUNKED[first..second], &CHUNKED[second..]];
            assert_eq!(decode(&pieces, BodyLength::Chunked, Encoding::Identity).unwrap(), whole);
            // Encoded again and decoded again it is the same; the trailer that may pass, passes.
            let (chunks, done, _) = decode(&pieces, BodyLength::Chunked, Encoding::Chunked).unwrap();
            assert!(done && chunks.ends_with(b"0\r\nX-T: 1\r\n\r\n"));
            assert_eq!(decode(&[&chunks], BodyLength::Chunked, Encoding::Identity).unwrap().0, whole.0);
        }
    }
}

#[test]
fn a_body_taken_piece_by_piece_is_the_same() {
    for split in 0..=CHUNKED.len() {
        let mut body = Body::from(BodyLength::Chunked);
        let (mut buffer, mut data, mut trailers) = (Vec::new(), Vec::new(), Vec::new());
        for part in [&CHUNKED[..split], &CHUNKED[split..]] {
            buffer.extend_from_slice(part);
            while !body.is_end() {
                let (piece, progress) = body.next_data(&buffer, &mut trailers).unwrap();
                assert_eq!((piece.len(), progress.done), (progress.data, body.is_end()));
                data.extend_from_slice(&buffer[piece]);
                buffer.drain(..progress.consumed);
                if progress.data == 0 {
                    break;
                }
            }
        }
        assert!(body.is_end() && buffer.is_empty(), "{split}");
        assert_eq!(data, b"hello 0123456789");
        assert_eq!(trailers, b"X-T: 1\r\n");
    }
    let mut sized = Body::Sized(3);
    let (piece, progress) = sized.next_data(b"abcd", &mut Vec::new()).unwrap();
    assert_eq!((piece, progress.consumed, progress.done), (0..3, 3, true));
}

#[test]
fn chunks_that_came_together_go_on_as_one() {
    let body = format!("{}0\r\nX-T: 1\r\n\r\n", "1\r\na\r\n".repeat(1000));
    let expected = format!("3e8\r\n{}\r\n0\r\nX-T: 1\r\n\r\n", "a".repeat(1000));
    let (chunks, done, taken) = decode(&[body.as_bytes()], BodyLength::Chunked, Encoding::Chunked).unwrap();
    assert_eq!((String::from_utf8(chunks).unwrap(), done, taken), (expected, true, body.len()));
    // What has not come is not waited for, and what came before an error goes on.
    let (mut decoding, mut out) = (Body::from(BodyLength::Chunked), Vec::new());
    let progress = decoding.transfer(b"1\r\na\r\n5\r\nbcd", &mut out, Encoding::Chunked).unwrap();
    assert_eq!((out.as_slice(), progress.data), (&b"4\r\nabcd\r\n"[..], 4));
    let mut out = Vec::new();
    assert!(Body::from(BodyLength::Chunked).transfer(b"1\r\na\r\n1\r\nb\r\nzz", &mut out, Encoding::Chunked).is_err());
    assert_eq!(out, b"2\r\nab\r\n");
}

#[test]
fn the_rest_of_a_body_is_known_once_it_is_there() {
    let followed = [CHUNKED, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(Body::from(BodyLength::Chunked).rest_len(&followed), Some(CHUNKED.len()));
    for end in 0..CHUNKED.len() {
        assert_eq!(Body::from(BodyLength::Chunked).rest_len(&CHUNKED[..end]), None, "{end}");
    }
    assert_eq!(Body::from(BodyLength::Chunked).rest_len(b"1\r\nab\r\n0\r\n\r\n"), None);
    assert_eq!(Body::from(BodyLength::Chunked).rest_len(b"0\r\nbad trailer\r\n\r\n"), None);
    assert_eq!((Body::Sized(3).rest_len(b"abcd"), Body::Sized(3).rest_len(b"ab")), (Some(3), None));
    assert_eq!((Body::Sized(0).rest_len(b"GET"), Body::UntilClose.rest_len(b"abc")), (Some(0), None));
}

#[test]
fn head_limits_hold() {
    let limits = Limits { head_bytes_max: 100, fields_max: 3 };
    let mut head = RequestHead::default();
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100));
    assert_eq!(parse_request(long.as_bytes(), &limits, &mut head), Err(ParseError::HeadTooLarge));
    assert_eq!(parse_request(&long.as_bytes()[..101], &limits, &mut head), Err(ParseError::HeadTooLarge));
    let many = "GET / HTTP/1.1\r\nHost: a\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n";
    assert_eq!(parse_request(many.as_bytes(), &limits, &mut head), Err(ParseError::TooManyFields));
}

#[test]
fn chunk_overhead_is_bounded() {
    // Extensions without end, and a trailer without end, are floods.
    let mut decoder = ChunkDecoder::default();
    let flood = format!("1;{}\r\n", "e".repeat(10_000));
    assert_eq!(decoder.next(flood.as_bytes(), &mut 0), Err(ParseError::ChunkOverhead));
    let many = "1;eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\r\na\r\n".repeat(1_000);
    let (mut decoder, mut at) = (ChunkDecoder::default(), 0);
    let result = loop {
        match decoder.next(many.as_bytes(), &mut at) {
            Ok(ChunkEvent::Data(_)) => {}
            other => break other,
        }
    };
    assert_eq!(result, Err(ParseError::ChunkOverhead));
    let trailer = format!("0\r\n{}", "X: y\r\n".repeat(12_000));
    assert_eq!(ChunkDecoder::default().next(trailer.as_bytes(), &mut 0), Err(ParseError::ChunkOverhead));
}

/// Bytes that look like HTTP, more or less.
fn httpish() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "HTTP/1.1",
        "HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ": ",
        "Host",
        "Host: a\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Connection: ",
        "close",
        "5",
        "0",
        "a",
        "\0",
        "\u{80}",
        ",",
        ";",
        "chunked",
        "\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "Upgrade: x\r\n",
        "ffffffffffffffff",
    ]);
    let random = prop::collection::vec(any::<u8>(), 0..6);
    prop::collection::vec(prop_oneof![8 => piece.prop_map(|text| text.as_bytes().to_vec()), 1 => random], 0..30)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_panic_and_what_is_taken_is_inside(bytes in httpish()) {
        if let Ok(Some(head)) = request(&bytes) {
            prop_assert!(head.head_len <= bytes.len() && bytes[..head.head_len].ends_with(b"\r\n\r\n"));
            for field in &head.fields {
                prop_assert!(!field.name.of(&bytes).is_empty());
                prop_assert!(field.value.of(&bytes).iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
        let mut head = ResponseHead::default();
        let _ = parse_response(&bytes, &Limits::default(), Method::Get, true, &mut head);
        for length in [BodyLength::Chunked, BodyLength::Sized(7), BodyLength::UntilClose] {
            let _ = decode(&[&bytes], length, Encoding::Chunked);
        }
    }

    #[test]
    fn pieces_and_whole_agree(bytes in httpish(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        let whole = decode(&[&bytes], BodyLength::Chunked, Encoding::Identity);
        let pieces = decode(&[&bytes[..cut], &bytes[cut..]], BodyLength::Chunked, Encoding::Identity);
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
            // Which error is told may depend on how much was there to look at.
            (Err(_), Err(_)) => {}
            (whole, pieces) => prop_assert!(false, "{whole:?} against {pieces:?}"),
        }
    }

    #[test]
    fn any_body_survives_the_way_through_chunks(data in prop::collection::vec(any::<u8>(), 0..2_000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut body = Body::from(BodyLength::Sized(data.len() as u64));
        let mut chunks = Vec::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
        cuts.sort_unstable();
        let mut begin = 0;
        for end in cuts.into_iter().chain([data.len()]) {
            body.transfer(&data[begin..end], &mut chunks, Encoding::Chunked).unwrap();
            begin = end;
        }
        if data.is_empty() {
            prop_assert!(chunks.is_empty(), "a body that never was has no end");
        } else {
            prop_assert_eq!(decode(&[&chunks], BodyLength::Chunked, Encoding::Identity).unwrap(), (data, true, chunks.len()));
        }
    }
}

#[test]
fn an_empty_value_stands_where_it_was_sent() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \r\nZ:  \t \r\n\r\n",
        "GET / HTTP/1.1\r\nX:\r\nHost: a\r\nY: \r\nZ:\t\r\n\r\n",
    ] {
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).unwrap());
        for field in &head.fields {
            assert!(field.name.end < field.value.start && field.value.end < head.head_len as u32 - 2, "{field:?}");
        }
    }
}

#[test]
fn a_head_that_is_used_again_says_nothing_of_the_one_before() {
    let mut dirty = RequestHead {
        protocol: Some(ringway_http1::Span { start: 1, end: 2 }),
        scheme: ringway_http1::Span { start: 1, end: 2 },
        target_sensitive: true,
        expect_continue: true,
        expect_unknown: true,
        te_trailers: true,
        upgrade: Some(ringway_http1::Span { start: 1, end: 2 }),
        ..RequestHead::default()
    };
    for text in HEADS {
        let mut fresh = RequestHead::default();
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut fresh).unwrap());
        assert!(parse_request(text.as_bytes(), &Limits::default(), &mut dirty).unwrap());
        assert_eq!(dirty, fresh);
    }
}
