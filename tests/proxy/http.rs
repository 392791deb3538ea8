//! HTTP/1.1 as strangers' clients speak it: curl, raw sockets, a WebSocket handshake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::frame;
use crate::common::*;
use crate::hostile::python_h2;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn proxy(service: &str) -> (Ringway, SocketAddr, Backend) {
    let backend = Backend::echo("a");
    let listen = free_address();
    (Ringway::start(&simple(listen, service, &[("a", backend.address)])), listen, backend)
}

fn curl(arguments: &[&str]) -> String {
    let output = output("curl", &[&["-s", "-i", "--max-time", "20"], arguments].concat());
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_gets_what_the_backend_says() {
    if require("curl").is_none() {
        return;
    }
    let (_ringway, listen, backend) = proxy("");
    let url = format!("http://{listen}/path?q=1");
    assert!(curl(&[&url]).ends_with("\r\n\r\na"));
    assert!(curl(&["-I", &url]).contains("content-length: 1"));
    assert!(curl(&["-d", "hello=world", &url]).ends_with('a'));
    assert!(curl(&["-H", "Transfer-Encoding: chunked", "-d", "chunky", &url]).ends_with('a'));
    assert!(curl(&["--http1.0", &url]).ends_with('a'));
    assert!(curl(&["-X", "DELETE", &url, &url]).matches("200 OK").count() == 2);
    let requests = backend.requests();
    assert!(
        requests[2].starts_with("POST /path?q=1 HTTP/1.1\r\n") && requests[2].ends_with("hello=world"),
        "{requests:?}"
    );
    assert!(requests[3].ends_with("chunky"), "{requests:?}");
    assert!(requests[4].starts_with("GET /path?q=1 HTTP/1.1\r\n"), "{requests:?}");
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    if require("curl").is_none() || require("nginx").is_none() {
        return;
    }
    let nginx = Nginx::start("n", free_port());
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("n", nginx.address)]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("got");
    curl(&["-o", path_text(&file), &format!("http://{listen}/big")]);
    let got = std::fs::read(&file).unwrap();
    assert!(got.ends_with(&vec![b'x'; 3 * 1024 * 1024 + 7]), "{} bytes", got.len());

    let sink = Backend::custom(|mut stream, seen| {
        while let Some((_, body)) = read_request(&mut stream) {
            seen.lock().unwrap().push(format!(
                "{} {}",
                body.len(),
                body.iter().map(|byte| u64::from(*byte)).sum::<u64>()
            ));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let listen = free_address();
    let _other = Ringway::start(&simple(listen, "", &[("sink", sink.address)]));
    let body: Vec<u8> = (0..5_000_000_u32).map(|index| (index * 31 % 251) as u8).collect();
    std::fs::write(&file, &body).unwrap();
    let url = format!("http://{listen}/");
    let data = format!("@{}", path_text(&file));
    curl(&["--data-binary", &data, &url]);
    curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &data, &url]);
    let expected = format!("{} {}", body.len(), body.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    assert_eq!(sink.requests(), [expected.clone(), expected]);
}

#[test]
fn expect_100_continue_is_the_backends_to_answer() {
    let backend = Backend::custom(|mut stream, seen| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let mut stream = send(listen, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 100);
    stream.write_all(b"hello").unwrap();
    assert_eq!(read_answer(&mut stream, true).unwrap().text(), "hello");
    assert!(backend.requests()[0].contains("Expect: 100-continue"));
    let refused = raw(listen, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: magic\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 417 "), "{refused}");
}

#[test]
fn trailers_and_early_hints_are_passed_on() {
    let backend = Backend::custom(|mut stream, _| {
        while read_request(&mut stream).is_some() {
            let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\nContent-Length: 9\r\n\r\n";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let answer = raw(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"), "{answer}");
    // 1.0 knows neither: no hints, no chunks, the end of the connection ends the body.
    let old = raw(listen, b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.starts_with("HTTP/1.1 200 OK") && old.ends_with("\r\n\r\nabc") && !old.contains("chunked"), "{old}");
}

#[test]
fn body_without_length_becomes_chunks() {
    let backend = Backend::says(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let mut stream = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = read_answer(&mut stream, true).unwrap();
    assert_eq!((answer.header("transfer-encoding"), answer.text().as_str()), (Some("chunked"), "until the end"));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream, true).unwrap().text(), "until the end");
}

#[test]
fn websocket_becomes_a_tunnel_after_the_101() {
    let backend = Backend::custom(|mut stream, seen| {
        let Some((head, _)) = read_request(&mut stream) else { return };
        seen.lock().unwrap().push(head);
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
        let mut bytes = [0; 4];
        while stream.read_exact(&mut bytes).is_ok() {
            bytes.reverse();
            let _ = stream.write_all(&bytes);
        }
        let _ = stream.write_all(b"bye!");
    });
    let listen = free_address();
    let ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let request = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    let mut stream = send(listen, request);
    let answer = read_answer(&mut stream, false).unwrap();
    assert_eq!(
        (answer.status, answer.header("upgrade"), answer.header("connection")),
        (101, Some("websocket"), Some("upgrade"))
    );
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    let mut bytes = [0; 4];
    for _ in 0..3 {
        stream.write_all(b"1234").unwrap();
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"4321");
    }
    assert_eq!(ringway.status()["services"][0]["in_flight"], 1);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye!");
    wait_for("the load to be given back", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
    assert!(backend.requests()[0].to_ascii_lowercase().contains("upgrade: websocket"));
}

#[test]
fn refusals_say_why_and_keep_good_connections() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let config =
        simple(listen, "balance: { hash_key: [ { header: x-key } ], on_missing: reject }", &[("a", backend.address)])
            .replace(
                "service: s }",
                "body_bytes_max: 10, routes: [ { match: { path_prefix: /in, host: \"*.example\" }, service: s } ] }",
            );
    let ringway = Ringway::start(&config);
    let mut stream = send(listen, b"");
    for (request, status, reason) in [
        ("GET /out HTTP/1.1\r\nHost: a.example\r\n\r\n", 404, "no_route"),
        ("GET /in HTTP/1.1\r\nHost: example\r\n\r\n", 404, "no_route"),
        ("GET /in/x HTTP/1.1\r\nHost: A.Example:80\r\n\r\n", 400, "hash_key_missing"),
        ("GET /in/..%2fout HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "path_traversal"),
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut stream, true).unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (status, Some(reason)), "{request}");
    }
    stream.write_all(b"GET /in/x HTTP/1.1\r\nHost: a.example\r\nX-Key: k\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);

    let long =
        raw(listen, b"POST /in HTTP/1.1\r\nHost: a.example\r\nX-Key: k\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(long.starts_with("HTTP/1.1 413 ") && long.contains("body_too_large"), "{long}");
    let chunks = raw(listen, b"POST /in HTTP/1.1\r\nHost: a.example\r\nX-Key: k\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n");
    assert!(chunks.starts_with("HTTP/1.1 413 "), "{chunks}");
    let connect = raw(listen, b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
    assert!(connect.starts_with("HTTP/1.1 405 ") && connect.contains("allow: "), "{connect}");
    assert_eq!(ringway.metric("ringway_rejected_requests_total{reason=\"no_route\"}"), 2.0);
}

#[test]
fn forwarding_fields_are_believed_of_trusted_hops_only() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let config = simple(listen, "", &[("a", backend.address)]);
    let ringway = Ringway::start(&config);
    let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n";
    get_with(listen, "/", fields).unwrap();
    let request = backend.requests()[0].to_ascii_lowercase();
    assert!(
        request.contains("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: test\r\n"),
        "{request}"
    );
    assert!(!request.contains("6.6.6.6"), "{request}");

    ringway.reconfigure(
        &config.replace("service: s }", "service: s, forwarded: { trusted: [ 127.0.0.0/8 ], forwarded: true } }"),
    );
    get_with(listen, "/", fields).unwrap();
    let request = backend.requests()[1].to_ascii_lowercase();
    assert!(request.contains("x-forwarded-for: 6.6.6.6, 127.0.0.1\r\nx-forwarded-proto: https\r\n"), "{request}");
    assert!(request.contains("forwarded: for=6.6.6.6, for=127.0.0.1;proto=http;host=\"test\"\r\n"), "{request}");
}

#[test]
fn same_key_goes_to_the_same_backend_and_explain_knows_which() {
    let backends: Vec<Backend> = (0..5).map(|index| Backend::echo(&format!("b{index}"))).collect();
    let named: Vec<(String, SocketAddr)> =
        backends.iter().enumerate().map(|(i, b)| (format!("b{i}"), b.address)).collect();
    let list: Vec<(&str, SocketAddr)> = named.iter().map(|(id, address)| (id.as_str(), *address)).collect();
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key }, { cookie: sid }, { all: [ { method: {} }, { path: {} } ] } ], seed: 4711 }";
    let ringway = Ringway::start(&simple(listen, service, &list));
    let explain = |key: &str| {
        let output = self::ringway(&[
            "explain",
            "--config",
            path_text(&ringway.config),
            "--service",
            "s",
            "--key",
            key,
            "--json",
        ]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["walk"].as_array().unwrap().len(), 5);
        assert_eq!(answer["walk"][0], answer["owner"]);
        answer["owner"].as_str().unwrap().to_owned()
    };
    for key in 0..20 {
        let header = get_with(listen, "/", &format!("X-Key: user-{key}\r\n")).unwrap().text();
        let cookie = get_with(listen, "/", &format!("Cookie: a=b; sid=user-{key}\r\n")).unwrap().text();
        let path = get_with(listen, &format!("/p{key}?x"), "").unwrap().text();
        assert_eq!(header, explain(&format!("user-{key}")));
        assert_eq!(cookie, header);
        assert_eq!(path, explain(&format!("GET\\0/p{key}")));
    }
}

#[test]
fn access_log_tells_owner_backend_and_reason() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let log = tempfile::tempdir().unwrap();
    let file = log.path().join("access.log");
    let config = simple(
        listen,
        "balance: { hash_key: [ { header: x-key } ] }",
        &[("a", backend.address), ("dead", free_address())],
    );
    let config = format!("access_log: {{ format: json, target: \"{}\" }}\n{config}", file.display());
    let mut ringway = Ringway::start(&config);
    for key in 0..10 {
        get_with(listen, &format!("/t\"{key}"), &format!("X-Key: {key}\r\n")).unwrap();
    }
    raw(listen, b"GET /bad HTTP/1.1\r\n\r\n");
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 0);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 11, "{text}");
    // Each worker writes its own lines: their order is not that of the requests.
    lines.sort_by_key(|line| line["status"].as_u64());
    for line in &lines[..10] {
        assert_eq!(
            (&line["status"], &line["backend"], &line["service"]),
            (&200.into(), &"a".into(), &"s".into()),
            "{line}"
        );
        assert!(line["target"].as_str().unwrap().starts_with("/t\"") && line["duration_us"].is_u64(), "{line}");
        let rescued = line["owner"] == "dead";
        assert!(!rescued || line["retries"] == 1 || line["skipped"] == 1, "{line}");
    }
    assert_eq!((&lines[10]["status"], &lines[10]["reason"]), (&400.into(), &"host_missing".into()));
}

#[test]
fn few_connections_are_spread_over_all_workers() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let config = simple(listen, "", &[("a", backend.address)]).replace("workers: 2", "workers: 4");
    let ringway = Ringway::start(&config);
    let busy = |stream: &mut std::net::TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(read_answer(stream, true).unwrap().status, 200);
    };
    // Each worker keeps its own connections to the backend: where all four have one, all four have served.
    let mut streams: Vec<_> = (0..16).map(|_| send(listen, b"")).collect();
    streams.iter_mut().for_each(busy);
    assert_eq!(backend.connections.load(std::sync::atomic::Ordering::SeqCst), 4);
    drop(streams);
    wait_for("connections to be gone", || (ringway.metric("ringway_downstream_connections") == 0.0).then_some(()));
}

/// A backend that answers with how many chunks the request's body came in, in as many chunks as that is asked for.
fn chunk_counter() -> Backend {
    Backend::custom(|mut stream, seen| {
        let mut bytes = Vec::new();
        let mut space = vec![0; 64 * 1024];
        while !bytes.ends_with(b"\r\n0\r\n\r\n") {
            match stream.read(&mut space) {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&space[..count]),
            }
        }
        let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (chunks, data) = count_chunks(&bytes[body..]);
        seen.lock().unwrap().push(format!("{chunks} {data}"));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            "1\r\nx\r\n".repeat(20_000)
        );
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.read(&mut space);
    })
}

/// How many chunks, with how much data.
fn count_chunks(mut body: &[u8]) -> (usize, usize) {
    let (mut chunks, mut data) = (0, 0);
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return (chunks, data);
        }
        (chunks, data) = (chunks + 1, data + size);
        body = &body[end + 2 + size + 2..];
    }
}

#[test]
fn chunks_and_frames_that_came_together_go_on_together() {
    let backend = chunk_counter();
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = {
        let mut stream = send(listen, format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(20_000)).as_bytes());
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let (chunks, data) = count_chunks(&answer[body..]);
    assert!(data == 20_000 && chunks < 400, "down: {chunks} chunks, {data} bytes");
    // The same in frames of HTTP/2: POST, http, /, and `:authority: a` (RFC 7541, appendix A).
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &[0x83, 0x86, 0x84, 0x41, 1, b'a']));
    // No more than the library bears of such frames at once.
    (0..80).for_each(|_| bytes.extend(frame(0, 0, 1, b"a")));
    bytes.extend(frame(0, 1, 1, b""));
    let _client = send(listen, &bytes);
    let seen = wait_for("both requests", || (backend.requests().len() == 2).then(|| backend.requests()));
    for (line, (sent, most)) in seen.iter().zip([("20000", 400), ("80", 40)]) {
        let (chunks, data) = line.split_once(' ').unwrap();
        assert!(data == sent && chunks.parse::<usize>().unwrap() < most, "up: {chunks} chunks, {data} bytes");
    }
}

#[test]
fn an_upgrade_with_a_length_of_nothing_is_one() {
    let backend = Backend::custom(|mut stream, seen| {
        let Some((head, _)) = read_request(&mut stream) else { return };
        seen.lock().unwrap().push(head.clone());
        let _ = stream.write_all(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        let _ = stream.read(&mut [0]);
    });
    let listen = free_address();
    let _ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    for method in ["GET", "POST"] {
        let bytes = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
        );
        let mut stream = send(listen, bytes.as_bytes());
        assert_eq!(read_answer(&mut stream, false).unwrap().status, 101, "{method}");
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}

#[test]
fn answers_of_the_proxys_own_keep_a_connection_whose_body_has_come() {
    let dead = free_address();
    let listen = free_address();
    let routes = "body_bytes_max: 100, routes: [ { match: { path: /moved }, redirect: { path: /new } }, { match: { path: /dead }, service: s } ] }";
    let config = simple(listen, "retry: { attempts: 0 }", &[("a", dead)]).replace("service: s }", routes);
    let _ringway = Ringway::start(&config);
    let mut stream = send(listen, b"");
    for (path, status) in [("/moved", 308), ("/nowhere", 404), ("/dead", 502)] {
        for body in [
            "Content-Length: 0\r\n\r\n",
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            // Two at once: what follows the body is the next request.
            let one = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}");
            stream.write_all(format!("{one}{one}").as_bytes()).unwrap();
            for _ in 0..2 {
                let answer = read_answer(&mut stream, true).unwrap_or_else(|| panic!("{path} {body:?}: closed"));
                assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {body:?}");
            }
        }
    }
    // A body that is malformed, or has not come, is the last that is read.
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        "Content-Length: 99\r\n\r\nhello",
        "Content-Length: 101\r\n\r\nhello",
    ] {
        for path in ["/moved", "/nowhere"] {
            let bytes = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}GET /moved HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = raw(listen, bytes.as_bytes());
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{path} {body:?}: {answer}");
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        }
    }
}

#[test]
fn connections_end_after_as_many_requests_as_allowed_in_either_version() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let text = simple(listen, "", &[("a", backend.address)]);
    let text = text.replace("service: s } ]", "service: s, keep_alive: { requests_max: 3 } } ]");
    let ringway = Ringway::start(&text);
    if require("curl").is_some() {
        let url = format!("http://{listen}/");
        let mut arguments = vec!["--silent", "--write-out", "%{http_code} %{num_connects}\n"];
        (0..7).for_each(|_| arguments.extend(["--output", "/dev/null", &url]));
        let lines = String::from_utf8(output("curl", &arguments).stdout).unwrap();
        assert_eq!(lines, "200 1\n200 0\n200 0\n200 1\n200 0\n200 0\n200 1\n");
    }
    if require_python("h2").is_some() {
        python_h2(include_str!("../python/h2_goodbye.py"), &[&listen.to_string(), "3"]);
    }
    // More are let through as soon as the file says so.
    ringway.reconfigure(&text.replace("requests_max: 3", "requests_max: 100"));
    let mut kept = send(listen, b"");
    for _ in 0..10 {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut kept, true).unwrap().header("connection"), None);
    }
}

#[test]
fn a_connection_of_some_age_ends_with_its_next_response() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let text = simple(listen, "", &[("a", backend.address)]);
    let age = Duration::from_secs(1);
    let _ringway = Ringway::start(&text.replace("service: s } ]", "service: s, keep_alive: { age_max: 1s } } ]"));
    let begun = Instant::now();
    let mut kept = send(listen, b"");
    let last = wait_for("the last response", || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_answer(&mut kept, true).expect("nothing is cut");
        assert_eq!(answer.status, 200);
        answer.header("connection").is_some().then_some(answer)
    });
    assert_eq!(last.header("connection"), Some("close"));
    // A tenth less by chance; workers know the time to a twentieth of a second.
    assert!(begun.elapsed() >= age - Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
}
