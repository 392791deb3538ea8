//! Beside hyper, on the same bytes: whatever Ringway takes for a request, hyper takes for the same request. The other way
//! round need not hold: Ringway is stricter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use proptest::prelude::*;
use ringway_http1::{Body, Encoding, Limits, RequestHead, parse_request};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request as both see it: method, target, body.
type Seen = (String, String, Vec<u8>);

/// All that Ringway finds in the bytes of a connection, up to the first error or the end.
fn ringway(mut bytes: &[u8]) -> Vec<Seen> {
    let mut found = Vec::new();
    let mut head = RequestHead::default();
    while let Ok(true) = parse_request(bytes, &Limits::default(), &mut head) {
        let text = |span: ringway_http1::Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
        let (method, target) = (text(head.method_span), text(head.target));
        let (mut body, mut data) = (Body::from(head.body), Vec::new());
        let rest = &bytes[head.head_len..];
        let Ok(progress) = body.transfer(rest, &mut data, Encoding::Identity) else { break };
        if !progress.done {
            break;
        }
        found.push((method, target, data));
        if !head.keep_alive {
            break;
        }
        bytes = &rest[progress.consumed..];
    }
    found
}

/// All that hyper finds.
fn hyper(bytes: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found: Arc<Mutex<Vec<Seen>>> = Arc::default();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let notes = Arc::clone(&found);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let notes = Arc::clone(&notes);
            async move {
                let (parts, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    notes.lock().unwrap().push((
                        parts.method.to_string(),
                        parts.uri.to_string(),
                        body.to_bytes().to_vec(),
                    ));
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let serve = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .pipeline_flush(true)
            .serve_connection(hyper_util::rt::TokioIo::new(server), service);
        let drain = async {
            let mut sink = Vec::new();
            let _ = client.read_to_end(&mut sink).await;
        };
        let _ = tokio::join!(serve, drain);
    });
    Arc::try_unwrap(found).unwrap().into_inner().unwrap()
}

fn check(bytes: &[u8]) {
    let (ours, theirs) = (ringway(bytes), hyper(bytes));
    // Ours is a prefix of theirs: we may stop earlier, never see another request.
    assert!(
        theirs.len() >= ours.len() && ours.iter().zip(&theirs).all(|(ours, theirs)| same(ours, theirs)),
        "{:?}\nringway: {ours:?}\nhyper:   {theirs:?}",
        String::from_utf8_lossy(bytes)
    );
}

fn same(ours: &Seen, theirs: &Seen) -> bool {
    // hyper writes an absolute target without a path with a slash, and the scheme and host in lower case.
    let target = |seen: &Seen| seen.1.trim_end_matches('/').to_ascii_lowercase();
    ours.0 == theirs.0 && ours.2 == theirs.2 && target(ours) == target(theirs)
}

#[test]
fn pipelined_requests_are_the_same_requests() {
    check(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\nGET /4 HTTP/1.0\r\n\r\n");
    assert_eq!(ringway(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").len(), 2);
}

fn one_request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /x?y HTTP/1.1",
        "GET /a HTTP/1.0",
        "PUT /%20 HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "DELETE /d HTTP/1.1",
        "GET / HTTP/1.1 ",
        "get / HTTP/1.1",
    ]);
    let field = prop::sample::select(vec![
        "Host: a",
        "host:a",
        "Host: b",
        "Content-Length: 3",
        "Content-Length: 03",
        "Content-Length: +3",
        "Content-Length: 3, 3",
        "Content-Length : 3",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Connection: close",
        "Connection: keep-alive",
        "X-A: b",
        "X-A:",
        " folded",
        "X\tA: b",
        "X-B: \u{e9}",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;e=f\r\nabc\r\n0\r\nT: u\r\n\r\n",
        "03\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
    ]);
    (line, prop::collection::vec((field, end), 0..5), end_strategy(), body).prop_map(|(line, fields, end, body)| {
        let fields: String = fields.into_iter().map(|(field, end)| format!("{field}{end}")).collect();
        format!("{line}\r\nHost: a\r\n{fields}{end}{body}").into_bytes()
    })
}

fn end_strategy() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_is_a_request_to_ringway_alone(requests in prop::collection::vec(one_request(), 1..4)) {
        check(&requests.concat());
    }
}
