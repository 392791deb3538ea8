//! Heads, beside the parser that stood here before (oracle): what is taken, what is refused, why, and where everything lies, of heads
//! that are good, nearly good and no heads at all, at every length of what has come.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the crate is pure, its tests read files and clocks")]

use proptest::prelude::*;
use ringway_http1::{
    Body, BodyLength, Encoding, Limits, Method, ParseError, RequestHead, ResponseHead, Resume, parse_request,
    parse_request_on, parse_response, parse_response_on,
};
use std::time::{Duration, Instant};

type Verdict<H> = Result<Option<H>, ParseError>;

fn request(bytes: &[u8], limits: &Limits) -> Verdict<RequestHead> {
    let mut head = RequestHead::default();
    Ok(parse_request(bytes, limits, &mut head)?.then_some(head))
}

fn request_before(bytes: &[u8], limits: &Limits) -> Verdict<RequestHead> {
    let mut head = RequestHead::default();
    Ok(crate::oracle::parse_request(bytes, limits, &mut head)?.then_some(head))
}

fn response(bytes: &[u8], limits: &Limits, asked: (Method, bool)) -> Verdict<ResponseHead> {
    let mut head = ResponseHead::default();
    Ok(parse_response(bytes, limits, asked.0, asked.1, &mut head)?.then_some(head))
}

fn response_before(bytes: &[u8], limits: &Limits, asked: (Method, bool)) -> Verdict<ResponseHead> {
    let mut head = ResponseHead::default();
    Ok(crate::oracle::parse_response(bytes, limits, asked.0, asked.1, &mut head)?.then_some(head))
}

/// Both parsers on every beginning of the bytes, as requests and as responses.
fn check(bytes: &[u8], limits: &Limits) {
    let text = |end: usize| String::from_utf8_lossy(&bytes[..end]).into_owned();
    for end in 0..=bytes.len() {
        let begun = &bytes[..end];
        assert_eq!(request(begun, limits), request_before(begun, limits), "{:?}", text(end));
        let asked = [(Method::Get, false), (Method::Head, true)][end % 2];
        assert_eq!(response(begun, limits, asked), response_before(begun, limits, asked), "{:?}", text(end));
    }
    let asked = (Method::Get, true);
    assert_eq!(response(bytes, limits, asked), response_before(bytes, limits, asked), "{:?}", text(bytes.len()));
}

/// The bytes in pieces that end there. What the walk from piece to piece says is what is said of all that has come, but that what
/// is wrong in a line may be told when the line ends.
fn check_pieces(bytes: &[u8], ends: &[usize], limits: &Limits) {
    let (mut of_request, mut of_response) = (Resume::default(), Resume::default());
    let (mut request_head, mut response_head) = (RequestHead::default(), ResponseHead::default());
    let (mut requests_over, mut responses_over, mut begin) = (false, false, 0);
    for &end in ends {
        let (begun, fresh) = (&bytes[..end], &bytes[begin..end]);
        let settled = begin == 0 || fresh.contains(&b'\n') || end >= limits.head_bytes_max;
        if !requests_over {
            let told = parse_request_on(begun, limits, &mut of_request, &mut request_head);
            let told = told.map(|whole| whole.then(|| request_head.clone()));
            let whole = request(begun, limits);
            assert!(told == whole || !settled && told == Ok(None), "{begun:?} in {ends:?}: {told:?}, {whole:?}");
            requests_over = told != Ok(None);
        }
        if !responses_over {
            let asked = (Method::Get, false);
            let told = parse_response_on(begun, limits, asked, &mut of_response, &mut response_head);
            let told = told.map(|whole| whole.then(|| response_head.clone()));
            let whole = response(begun, limits, asked);
            assert!(told == whole || !settled && told == Ok(None), "{begun:?} in {ends:?}: {told:?}, {whole:?}");
            responses_over = told != Ok(None);
        }
        begin = end;
    }
}

/// Trailer sections, which end a body in chunks: both give the same bytes, or neither any.
fn check_trailers(section: &[u8]) {
    let bytes = [b"0\r\n", section].concat();
    let mut out = Vec::new();
    let told = Body::from(BodyLength::Chunked).transfer(&bytes, &mut out, Encoding::Chunked);
    if let Ok(progress) = &told
        && !progress.done
    {
        return;
    }
    let whole = if section.starts_with(b"\r\n") {
        2
    } else {
        match section.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            Some(at) => at + 4,
            None => return,
        }
    };
    let mut before = b"0\r\n".to_vec();
    match (told, crate::oracle::trailers(&section[..whole], &mut before, |_| true)) {
        (Ok(_), Ok(())) => {
            before.extend_from_slice(b"\r\n");
            assert_eq!(out, before, "{section:?}");
        }
        (Err(ParseError::LineEnd), _) => {}
        (told, before) => {
            assert_eq!(told.map(|_| ()), before, "{section:?}");
            assert_eq!(out, b"0\r\n", "nothing of it goes on");
        }
    }
}

#[test]
fn kept_inputs_are_read_as_before() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
    let mut count = 0;
    for kind in ["request", "response", "body"] {
        for entry in std::fs::read_dir(format!("{corpus}/{kind}")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            check(&bytes, &Limits::default());
            check(&bytes, &Limits { head_bytes_max: 60, fields_max: 2 });
            check_pieces(&bytes, &(1..=bytes.len()).collect::<Vec<_>>(), &Limits::default());
            count += 1;
        }
    }
    assert!(count >= 8, "the corpora are there");
}

#[test]
fn every_byte_in_every_place_of_a_head_is_judged_as_before() {
    let heads = [
        "GET /a?b HTTP/1.1\r\nHost: a.example:8080\r\nX-User_Id:\t 12 \r\nConnection: te, x-a\r\nTE: trailers\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 128\r\nVary:\r\nConnection: keep-alive\r\n\r\n",
        "\r\nCONNECT a:1 HTTP/1.0\r\nHost: a:1\r\nX: y\r\n\r\n",
    ];
    let limits = Limits::default();
    for head in heads {
        for place in 0..head.len() {
            for byte in 0..=255_u8 {
                let mut bytes = head.as_bytes().to_vec();
                bytes[place] = byte;
                let text = || String::from_utf8_lossy(&bytes).into_owned();
                assert_eq!(request(&bytes, &limits), request_before(&bytes, &limits), "{:?}", text());
                let asked = (Method::Get, false);
                assert_eq!(response(&bytes, &limits, asked), response_before(&bytes, &limits, asked), "{:?}", text());
                // It is the last that has come: what is known to be wrong is told at once.
                let begun = &bytes[..=place];
                assert_eq!(request(begun, &limits), request_before(begun, &limits), "{:?}", text());
                assert_eq!(response(begun, &limits, asked), response_before(begun, &limits, asked), "{:?}", text());
            }
        }
    }
}

/// How long the fastest of some runs takes.
fn time(mut run: impl FnMut()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        run();
        least = least.min(begin.elapsed());
    }
    least
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_no_square() {
    let limits = Limits { head_bytes_max: 64 * 1024, fields_max: 256 };
    let long = "a".repeat(30_000);
    let heads = [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(15_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {}\r\n", &long[..120]).repeat(240)),
    ];
    for head in heads {
        let bytes = head.as_bytes();
        let mut parsed = RequestHead::default();
        let at_once = time(|| assert_eq!(parse_request(bytes, &limits, &mut parsed), Ok(true)));
        let by_bytes = time(|| {
            let mut resume = Resume::default();
            for end in 1..=bytes.len() {
                assert_eq!(parse_request_on(&bytes[..end], &limits, &mut resume, &mut parsed), Ok(end == bytes.len()));
            }
        });
        // A walk for every byte, or every line, would be ten thousand times as long and more.
        assert!(by_bytes < at_once * 3_000, "{by_bytes:?} against {at_once:?}: {:?}", &head[..60]);
    }
}

fn field_line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "Host",
        "host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "TE",
        "Upgrade",
        "Expect",
        "Trailer",
        "Cookie",
        "X-Forwarded-For",
        "x_forwarded_for",
        "X-Ringway-Explain",
        "Keep-Alive",
        "Proxy-Connection",
        "X-A",
        "x_a",
        "Accept",
        "User-Agent",
        "HTTP2-Settings",
        "Forwarded",
        "X A",
        "",
        "X-\u{e9}",
        "!#$%&'*+-.^_`|~",
    ]);
    let value = prop::sample::select(vec![
        "a",
        "a:80",
        "a,b",
        "u@a",
        "[::1]:80",
        "3",
        "03",
        "+3",
        "3, 3",
        "99999999999999999999",
        "chunked",
        "Chunked",
        "identity",
        "chunked, chunked",
        "close",
        "keep-alive",
        "Keep-Alive, x-a",
        "upgrade",
        "te, expect, cookie",
        "websocket",
        "h2c",
        "trailers",
        "trailers;q=1",
        "100-continue",
        "x",
        "",
        "a\tb",
        " a ",
        "\u{e9}",
        "a\rb",
        "a\0b",
        "a\u{7f}",
        "\r\n folded",
        "a long value that is longer than a word or two, and has commas",
    ]);
    let colon = prop::sample::select(vec![":", ": ", ": ", ": ", ":\t ", " :", ""]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", " \t\r\n", "\n", "\r"]);
    (name, colon, value, end).prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}").into_bytes())
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "GET /x?y=z HTTP/1.1\r\n",
        "POST /x HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a:443 HTTP/1.1\r\n",
        "GET http://a/?q HTTP/1.1\r\n",
        "GET http://a?q HTTP/1.1\r\n",
        "GET HTTPS://a:443 HTTP/1.1\r\n",
        "GET /a#b HTTP/1.1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n",
        "get / HTTP/1.1 \r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/2.0\r\n",
        "GET /\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "\nGET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "G\u{e9}T / HTTP/1.1\r\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 101 Switching\r\n",
        "HTTP/1.1 204\r\n",
        "HTTP/1.1 304 \r\n",
        "HTTP/1.0 200 \u{e9}\r\n",
        "HTTP/1.1 099 X\r\n",
        "HTTP/1.1 103 Early\r\n",
        "HTTP/1.1 2000\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 200 a\rb\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
    ]);
    let host = prop::sample::select(vec!["Host: a\r\n", "Host: a\r\n", "Host: a\r\n", ""]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", ""]);
    let rest = prop::collection::vec(any::<u8>(), 0..4);
    (line, host, prop::collection::vec(field_line(), 0..6), end, rest).prop_map(|(line, host, fields, end, rest)| {
        [line.as_bytes(), host.as_bytes(), &fields.concat(), end.as_bytes(), &rest].concat()
    })
}

/// A head with some bytes changed, doubled, added or taken away.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"\r\n\0 \t:_,;?#/\x7f\x80".to_vec()), any::<u8>()];
    let change = (any::<prop::sample::Index>(), byte, 0..4_u8);
    (head(), prop::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
        for (place, byte, kind) in changes {
            let at = place.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend_from_slice(&tail[..tail.len().min(40)]);
                }
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![
        4 => Just(Limits::default()),
        1 => (20_usize..120, 0_usize..5).prop_map(|(head_bytes_max, fields_max)| Limits { head_bytes_max, fields_max }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn heads_are_read_as_before(bytes in mutated(), limits in limits()) {
        check(&bytes, &limits);
    }

    #[test]
    fn pieces_come_to_what_the_whole_comes_to(
        bytes in mutated(),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        limits in limits(),
    ) {
        let mut ends: Vec<usize> = ends.iter().map(|end| end.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        check_pieces(&bytes, &ends, &limits);
        check_pieces(&bytes, &(1..=bytes.len()).collect::<Vec<_>>(), &limits);
    }

    #[test]
    fn trailers_are_read_as_before(fields in prop::collection::vec(field_line(), 0..70), rest in "[a-z]{0,3}") {
        check_trailers(&[&fields.concat()[..], b"\r\n", rest.as_bytes()].concat());
    }
}
