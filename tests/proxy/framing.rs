//! Malformed requests get a 400-class answer and a closed connection, and no backend sees another number of requests than
//! the client meant.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;

fn proxy() -> (Ringway, std::net::SocketAddr, Backend) {
    let backend = Backend::echo("a");
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    (ringway, listen, backend)
}

#[test]
fn malformed_requests_reach_no_backend() {
    let (_ringway, listen, backend) = proxy();
    let post = |fields: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        ("length_and_coding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("length_and_coding", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("length_repeated", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("length_repeated", post("Content-Length: 5, 5\r\n", "hello")),
        ("length_invalid", post("Content-Length: +5\r\n", "hello")),
        ("length_invalid", post("Content-Length: 5 5\r\n", "hello")),
        ("length_invalid", post("Content-Length: 0x5\r\n", "hello")),
        ("length_invalid", post("Content-Length: -1\r\n", "")),
        ("length_invalid", post("Content-Length:\r\n", "")),
        ("bad_transfer_coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("bad_transfer_coding", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("bad_transfer_coding", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")),
        ("bad_transfer_coding", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("bad_line_end", "GET / HTTP/1.1\nHost: a\n\n".into()),
        ("bad_line_end", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost : a\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost: a\r\nX\0Y: z\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n".into()),
        ("", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n".into()),
        ("", "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("bad_target", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("bad_target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("host_missing", "GET / HTTP/1.1\r\n\r\n".into()),
        ("host_repeated", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into()),
        ("host_invalid", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into()),
        ("host_invalid", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".into()),
        ("host_disagrees", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("", "GET / HTTP/1.10\r\nHost: a\r\n\r\n".into()),
        ("", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        ("", "GET / http/1.1\r\nHost: a\r\n\r\n".into()),
        ("", "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n".into()),
    ];
    for (reason, bytes) in cases {
        let answer = raw(listen, format!("{bytes}{smuggled}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{bytes:?}: {answer}");
        assert!(answer.contains(&format!("x-ringway-reason: {reason}")), "{bytes:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bytes:?}: {answer}");
    }
    // TLS where none is spoken is answered in TLS: a fatal alert, handshake_failure.
    let answer = raw(listen, format!("\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n{smuggled}").as_bytes());
    assert_eq!(answer.as_bytes(), [0x15, 3, 1, 0, 2, 2, 40]);
    assert_eq!(backend.requests(), Vec::<String>::new());
}

#[test]
fn malformed_chunks_end_the_request_and_the_connection() {
    let (ringway, listen, backend) = proxy();
    for chunks in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "zz\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5;\r\nhello\r\n",
        "0\r\nX y\r\n\r\n",
    ] {
        let bytes = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = raw(listen, bytes.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {answer}");
    }
    for valid in ["5;a=\"x y\"\r\nhello\r\n0;b\r\n\r\n", "5 ; a = \"\\\"\" ; b\r\nhello\r\n0\r\n\r\n"] {
        let bytes = format!(
            "POST /valid HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{valid}"
        );
        let answer = raw(listen, bytes.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{valid:?}: {answer}");
        assert!(backend.requests().last().unwrap().ends_with("hello"), "{valid:?}");
    }
    // A chunk that is malformed later, when its beginning has gone to the backend already.
    use std::io::{Read, Write};
    let mut stream = send(listen, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    wait_for("the request to be on its way", || (ringway.status()["services"][0]["in_flight"] == 1).then_some(()));
    let _ = stream.write_all(b"5\r\nhelloX\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert!(backend.requests().iter().all(|request| !request.contains("smuggled")));
}

#[test]
fn oversized_heads_are_refused_with_431() {
    let (_ringway, listen, backend) = proxy();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let endless = format!("GET /{} ", "a".repeat(70_000));
    for (reason, bytes) in [("head_too_large", long), ("too_many_fields", many), ("head_too_large", endless)] {
        let answer = raw(listen, bytes.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.contains(&format!("x-ringway-reason: {reason}")), "{answer}");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order_and_once() {
    let (_ringway, listen, backend) = proxy();
    let bytes = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw(listen, bytes.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    let paths: Vec<String> =
        backend.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
}

#[test]
fn every_split_of_a_request_gives_the_same_request() {
    let (_ringway, listen, backend) = proxy();
    let bytes = b"POST /x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n";
    let mut stream = send(listen, b"");
    use std::io::Write;
    for split in (1..bytes.len()).step_by(3) {
        stream.write_all(&bytes[..split]).unwrap();
        leave_time(std::time::Duration::from_millis(3));
        stream.write_all(&bytes[split..]).unwrap();
        let answer = read_answer(&mut stream, true).unwrap();
        assert_eq!(answer.status, 200, "split at {split}");
    }
    let requests = backend.requests();
    assert!(
        requests.iter().all(|request| request.ends_with("abcT: u\r\n") && request.starts_with("POST /x?y ")),
        "{requests:?}"
    );
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let (_ringway, listen, backend) = proxy();
    let fields = "Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Ringway-Identity: forged\r\nX-Kept: 2\r\n";
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut stream = send(listen, bytes.as_bytes());
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    let request = backend.requests()[0].to_ascii_lowercase();
    for gone in ["x-secret", "keep-alive", "proxy-connection", "te:", "upgrade", "http2-settings", "x-ringway"] {
        assert!(!request.contains(gone), "{gone} in {request}");
    }
    assert!(request.contains("x-kept: 2"), "{request}");
}
