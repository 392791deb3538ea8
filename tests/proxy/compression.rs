//! Compression of answers, read by curl: all codings over all versions, and everything that must stay as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

/// Ringway before one backend, with `compress: { RULE }` on its listener.
fn compressing(rule: &str, backend: SocketAddr) -> (Ringway, SocketAddr) {
    let listen = free_address();
    let config = simple(listen, "", &[("a", backend)])
        .replace("service: s } ]", &format!("service: s, compress: {{ {rule} }} }} ]"));
    (Ringway::start(&config), listen)
}

/// Head and body as curl sees them; the body decoded if it was asked to.
fn fetch(arguments: &[&str]) -> (String, Vec<u8>) {
    let done = output("curl", &[&["-sS", "--max-time", "20", "-D", "/dev/stderr"][..], arguments].concat());
    let head = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {head}");
    (head.to_ascii_lowercase(), done.stdout)
}

/// Text that can be compressed, but not to nothing.
fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("line {line} of a text, {}\n", line * line % 9973)).collect()
}

fn chunked(body: &str, trailer: &str) -> String {
    let chunks: Vec<String> = body
        .as_bytes()
        .chunks(777)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()))
        .collect();
    format!("transfer-encoding: chunked\r\n\r\n{}0\r\n{trailer}\r\n", chunks.concat())
}

#[test]
fn every_coding_over_every_version_gives_the_same_bytes() {
    if require("curl").is_none() {
        return;
    }
    let (short, long) = (text(100), text(60_000));
    let bodies = [short.clone(), long.clone()];
    let backend = scripted(move |head| {
        let body = if head.contains("/long") { &bodies[1] } else { &bodies[0] };
        let fields = "content-type: Text/HTML; charset=utf-8\r\netag: \"v1\"\r\naccept-ranges: bytes\r\n";
        match head.contains("/chunked") {
            _ if head.starts_with("HEAD ") => {
                format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n", body.len())
            }
            true => format!("HTTP/1.1 200 OK\r\n{fields}{}", chunked(body, "x-sum: 7\r\n")),
            false => response("200 OK", fields, body),
        }
    });
    let (ringway, listen) = compressing("", backend.address);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for coding in ["gzip", "br", "zstd"] {
            for path in ["short", "long", "short/chunked", "long/chunked"] {
                let wanted = if path.contains("long") { &long } else { &short };
                let (url, accept) = (format!("http://{listen}/{path}"), format!("accept-encoding: {coding}"));
                let (head, plain) = fetch(&[version, "--compressed", "-H", &accept, &url]);
                let what = format!("{version} {coding} {path}: {head}");
                assert!(plain == wanted.as_bytes(), "{what}: {} bytes", plain.len());
                for field in [&format!("content-encoding: {coding}"), "vary: accept-encoding", "etag: w/\"v1\""] {
                    assert_eq!(head.matches(field).count(), 1, "{field} in {what}");
                }
                assert!(!head.contains("content-length") && !head.contains("accept-ranges"), "{what}");
                let (_, packed) = fetch(&[version, "-H", &accept, &url]);
                assert!(packed.len() < wanted.len() / 2, "{} of {} bytes: {what}", packed.len(), wanted.len());
                // The trailer is still there.
                assert_eq!(head.contains("x-sum: 7"), path.contains("chunked"), "{what}");
            }
        }
        // Who accepts nothing gets what the backend sent, and is told that others do not.
        let (head, plain) = fetch(&[version, &format!("http://{listen}/short")]);
        assert_eq!(plain, short.as_bytes());
        assert!(head.contains(&format!("content-length: {}", short.len())) && head.contains("etag: \"v1\""), "{head}");
        assert!(head.contains("vary: accept-encoding") && !head.contains("content-encoding"), "{head}");
        // HEAD tells what GET would.
        let (head, _) = fetch(&[version, "-I", "-H", "accept-encoding: gzip", &format!("http://{listen}/short")]);
        assert!(head.contains("content-encoding: gzip") && !head.contains("content-length"), "{head}");
    }
    // Both wishes and order count.
    for (accept, coding) in [("gzip, br, zstd", "zstd"), ("zstd;q=0.1, br;q=0.9", "br"), ("gzip, *;q=0", "gzip")] {
        let accept = format!("accept-encoding: {accept}");
        let (head, _) = fetch(&["-H", &accept, &format!("http://{listen}/short")]);
        assert!(head.contains(&format!("content-encoding: {coding}")), "{accept}: {head}");
    }
    assert!(ringway.metric("ringway_compressed_responses_total") > 48.0);
    let (before, after) = ("ringway_compression_input_bytes_total", "ringway_compression_output_bytes_total");
    assert!(ringway.metric(before) > 2.0 * ringway.metric(after));
}

#[test]
fn what_must_stay_as_it_is_stays() {
    if require("curl").is_none() {
        return;
    }
    let body = text(100);
    let sent = body.clone();
    let cases: Arc<Mutex<(String, String)>> = Arc::default();
    let case = Arc::clone(&cases);
    let backend = scripted(move |head| {
        let (status, fields) = case.lock().unwrap().clone();
        let body = if head.contains("/tiny") { "tiny" } else { &sent };
        match status.as_str() {
            "204 No Content" | "304 Not Modified" => format!("HTTP/1.1 {status}\r\n{fields}\r\n"),
            _ => response(&status, &fields, body),
        }
    });
    let (_ringway, listen) = compressing("min_bytes: 100B, types: [ text/*, application/json ]", backend.address);
    let plain = "content-type: text/plain\r\n";
    let asks = |status: &str, fields: &str, path: &str, more: &[&str]| {
        *cases.lock().unwrap() = (status.to_owned(), fields.to_owned());
        let url = format!("http://{listen}{path}");
        fetch(&[&["-H", "accept-encoding: gzip, br, zstd", &url][..], more].concat())
    };
    // That it would be, but for what follows.
    assert!(asks("200 OK", plain, "/", &[]).0.contains("content-encoding: zstd"));
    assert!(asks("404 Not Found", plain, "/", &[]).0.contains("content-encoding: zstd"));
    assert!(asks("200 OK", "content-type: application/JSON;x=y\r\n", "/", &[]).0.contains("content-encoding: zstd"));
    for (status, more, path) in [
        ("200 OK", "content-type: text/plain\r\ncontent-encoding: x-own\r\n", "/"),
        ("200 OK", "content-type: text/plain\r\ncache-control: public, No-Transform\r\n", "/"),
        ("200 OK", "content-type: text/plain\r\ncontent-digest: sha-256=:AAAA:\r\n", "/"),
        ("200 OK", "content-type: image/png\r\n", "/"),
        ("200 OK", "content-type: application/grpc\r\n", "/"),
        ("200 OK", "", "/"),
        ("200 OK", plain, "/tiny"),
        ("206 Partial Content", "content-type: text/plain\r\ncontent-range: bytes 0-9/10\r\n", "/"),
        ("204 No Content", plain, "/"),
        ("304 Not Modified", "content-type: text/plain\r\netag: \"v1\"\r\n", "/"),
    ] {
        let (head, got) = asks(status, more, path, &[]);
        assert!(!head.contains("content-encoding: zstd") && !head.contains("w/\"v1\""), "{head}");
        let wanted = if path == "/tiny" { "tiny" } else { &body };
        assert!(matches!(&status[..3], "204" | "304") || got == wanted.as_bytes(), "{head}");
    }
    // HTTP/1.0 has no chunks, and `Vary` that is there is not said twice.
    let (head, got) =
        asks("200 OK", "content-type: text/plain\r\nvary: Origin, Accept-Encoding\r\n", "/", &["--http1.0"]);
    assert!(!head.contains("content-encoding") && head.contains("content-length") && got == body.as_bytes(), "{head}");
    assert_eq!(head.matches("vary:").count(), 1, "{head}");
}

#[test]
fn a_route_has_its_own_compression() {
    if require("curl").is_none() {
        return;
    }
    let backend = scripted(|_| response("200 OK", "content-type: text/plain\r\n", &text(100)));
    let listen = free_address();
    let routes = "routes: [ { match: { path: /as-is }, service: s, compress: { algorithms: [] } }, \
                  { match: { path: /small }, service: s, compress: { algorithms: [ gzip ] } }, { service: s } ]";
    let config = simple(listen, "", &[("a", backend.address)])
        .replace("service: s } ]", &format!("{routes}, compress: {{ responses_max: 1 }} }} ]"));
    let _ringway = Ringway::start(&config);
    for (path, coding) in [("/as-is", None), ("/small", Some("gzip")), ("/", Some("zstd"))] {
        let (head, _) = fetch(&["-H", "accept-encoding: gzip, zstd", &format!("http://{listen}{path}")]);
        let found = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        assert_eq!(found, coding, "{path}: {head}");
    }
}

#[test]
fn events_are_not_held_back() {
    if require("curl").is_none() {
        return;
    }
    for (coding, version) in [("gzip", "--http1.1"), ("br", "--http1.1"), ("zstd", "--http2-prior-knowledge")] {
        let (go_on, goes_on) = mpsc::channel::<()>();
        let goes_on = Mutex::new(goes_on);
        let backend = Backend::custom(move |mut stream, _| {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").unwrap();
            let goes_on = goes_on.lock().unwrap();
            for event in 0..5 {
                let _ = stream.write_all(format!("data: {event}\n").as_bytes());
                // Not before the client has seen it.
                if goes_on.recv_timeout(patience()).is_err() {
                    return;
                }
            }
        });
        let (_ringway, listen) = compressing("", backend.address);
        let client = Command::new("curl")
            .args(["-sSN", "--max-time", "20", "--compressed", version, "-H", &format!("accept-encoding: {coding}")])
            .arg(format!("http://{listen}/"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client = Running(client);
        let mut lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
        for event in 0..5 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("data: {event}"), "{coding}");
            go_on.send(()).unwrap();
        }
        assert!(lines.next().is_none(), "{coding}");
        assert!(client.0.wait().unwrap().success(), "{coding}");
    }
}

#[test]
fn answers_that_are_compressed_at_once_are_bounded() {
    if require("curl").is_none() {
        return;
    }
    let (end, ends) = mpsc::channel::<()>();
    let ends = Mutex::new(ends);
    let backend = Backend::custom(move |mut stream, _| {
        let Some((head, _)) = read_request(&mut stream) else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nfirst\n");
        if head.contains("/slow") {
            let _ = ends.lock().unwrap().recv_timeout(patience());
        }
    });
    let listen = free_address();
    let config = simple(listen, "", &[("a", backend.address)])
        .replace("workers: 2", "workers: 1")
        .replace("service: s } ]", "service: s, compress: { responses_max: 1 } } ]");
    let ringway = Ringway::start(&config);
    let mut slow = send(listen, b"GET /slow HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n");
    wait_for("the first", || (ringway.metric("ringway_compressed_responses_total") == 1.0).then_some(()));
    let url = format!("http://{listen}/");
    let (head, body) = fetch(&["-H", "accept-encoding: gzip", &url]);
    assert!(!head.contains("content-encoding") && head.contains("vary") && body == b"first\n", "{head}");
    assert_eq!(ringway.metric("ringway_compression_skipped_total"), 1.0);
    end.send(()).unwrap();
    assert!(read_answer(&mut slow, true).unwrap().head.contains("content-encoding: gzip"));
    assert!(fetch(&["-H", "accept-encoding: gzip", &url]).0.contains("content-encoding: gzip"));
}

#[test]
fn an_answer_that_is_cut_off_does_not_look_whole() {
    if require("curl").is_none() {
        return;
    }
    let backend = Backend::custom(|mut stream, _| {
        read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10000000\r\n\r\n";
        let _ = stream.write_all((head.to_owned() + &text(10_000)).as_bytes());
    });
    let (_ringway, listen) = compressing("", backend.address);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for coding in ["gzip", "br", "zstd"] {
            let accept = format!("accept-encoding: {coding}");
            let url = format!("http://{listen}/");
            let done = output("curl", &["-sS", version, "--max-time", "20", "-o", "/dev/null", "-H", &accept, &url]);
            assert!(!done.status.success() && done.status.code() != Some(28), "{version} {coding}: {done:?}");
        }
    }
}
