//! What routes do beside sending on: redirections, rewrites, fields, time-outs, CORS, mirrors, error answers. Driven by curl.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use crate::hostile::python_h2;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A proxy with these routes (and lines of the listener) in front of these services.
fn edge(listener: &str, services: &[(&str, SocketAddr)]) -> (Ringway, SocketAddr) {
    let listen = free_address();
    let mut text = format!(
        "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n  - name: web\n    address: \"{listen}\"\n{listener}services:\n"
    );
    for (name, address) in services {
        text.push_str(&format!("  - {{ name: {name}, backends: [ {{ id: {name}, address: \"{address}\" }} ] }}\n"));
    }
    (Ringway::start(&text), listen)
}

fn curl(arguments: &[&str]) -> String {
    let done = output("curl", &[&["-sS", "--max-time", "10", "-D", "-"][..], arguments].concat());
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn redirections_keep_what_they_do_not_name() {
    if require("curl").is_none() {
        return;
    }
    let backend = Backend::echo("a");
    let (_ringway, listen) = edge(
        "    routes:\n\
         \x20     - { match: { path: /moved }, redirect: { status: 301, host: other.test, path: \"/here?x=1\" } }\n\
         \x20     - { match: { path_prefix: /port }, redirect: { port: 8443 } }\n\
         \x20     - { match: { host: plain.test }, redirect: { scheme: https } }\n\
         \x20     - { service: s }\n",
        &[("s", backend.address)],
    );
    let port = listen.port();
    let location = |arguments: &[&str]| {
        let answer = curl(arguments);
        let line = answer.lines().find(|line| line.starts_with("location: ")).unwrap_or_default().to_owned();
        format!("{} {line}", answer.split(' ').nth(1).unwrap_or_default())
    };
    let url = |path: &str| format!("http://{listen}{path}");
    assert_eq!(location(&[&url("/moved")]), "301 location: http://other.test/here?x=1");
    assert_eq!(location(&[&url("/port/a?b=c")]), "308 location: http://127.0.0.1:8443/port/a?b=c");
    assert_eq!(location(&["-H", "Host: plain.test:81", &url("/a?b")]), "308 location: https://plain.test/a?b");
    assert_eq!(
        location(&["--http2-prior-knowledge", "-H", "Host: plain.test", &url("/a")]),
        "308 location: https://plain.test/a"
    );
    // The connection goes on, and the next request is served.
    let both = curl(&[&url("/moved"), "--next", "-sS", "-D", "-", &format!("http://127.0.0.1:{port}/")]);
    assert!(both.contains("301") && both.contains("x-backend: a"), "{both}");
    assert_eq!(backend.requests().len(), 1);
}

/// As in front of a site that has moved: there is nothing to send requests on to.
#[test]
fn who_only_sends_elsewhere_needs_no_service() {
    let (plain, mixed) = (free_address(), free_address());
    let file = format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\n\
         listeners: [ {{ name: l, address: \"{plain}\", routes: [ {{ redirect: {{ scheme: https }} }} ] }} ]\n"
    );
    let ringway = Ringway::start(&file);
    let url = format!("http://{plain}/a?b");
    let is_sent = || {
        let head = curl(&[&url]).to_lowercase();
        head.starts_with("http/1.1 308") && head.contains(&format!("location: https://{}/a?b\r\n", plain.ip()))
    };
    assert!(is_sent(), "{}", curl(&[&url]));
    let status = ringway.status();
    assert_eq!(status["services"], serde_json::json!([]), "{status}");
    // One listener more that leads to nobody.
    ringway.write_config(&file.replace(" ]\n", &format!(", {{ name: m, address: \"{mixed}\", service: s }} ]\n")));
    wait_for("the refusal", || ringway.log().contains("there is no service").then_some(()));
    assert!(is_sent(), "{}", curl(&[&url]));
}

#[test]
fn paths_and_fields_are_changed_both_ways() {
    if require("curl").is_none() {
        return;
    }
    let backend = scripted(|_| response("200 OK", "Server: secret\r\nX-Kind: theirs\r\n", "ok"));
    let (_ringway, listen) = edge(
        "    routes:\n\
         \x20     - match: { path_prefix: /api/ }\n\
         \x20       service: s\n\
         \x20       rewrite: { prefix: /v2/ }\n\
         \x20       request_headers:\n\
         \x20         set: [ { name: X-Team, value: blue }, { name: Host, value: inner.test } ]\n\
         \x20         add: [ { name: X-Many, value: two } ]\n\
         \x20         remove: [ X-Secret ]\n\
         \x20       response_headers: { set: [ { name: X-Kind, value: ours } ], remove: [ Server ] }\n\
         \x20     - { match: { path_prefix: /users }, service: s, rewrite: { pattern: \"^/users/([^/?]+)/(.*)\", to: \"/$2?user=$1\" } }\n\
         \x20     - { match: { path: /exact }, service: s, rewrite: { prefix: / } }\n\
         \x20     - { service: s }\n",
        &[("s", backend.address)],
    );
    let ask = |arguments: &[&str], path: &str| {
        let answer = curl(&[arguments, &[&format!("http://{listen}{path}")]].concat());
        (answer, backend.requests().pop().unwrap())
    };
    let fields = ["-H", "X-Team: red", "-H", "X-Many: one", "-H", "x-secret: 1"];
    let (answer, head) = ask(&fields, "/api/items?a=1");
    assert!(head.starts_with("GET /v2/items?a=1 HTTP/1.1\r\nhost: inner.test\r\n"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("x-team: blue") && !lower.contains("red") && !lower.contains("x-secret"), "{head}");
    assert!(lower.contains("x-many: one") && lower.contains("x-many: two"), "{head}");
    assert_eq!(lower.matches("host:").count(), 2, "one, and x-forwarded-host: {head}");
    assert!(lower.contains(&format!("x-forwarded-host: {listen}")), "{head}");
    let lower = answer.to_lowercase();
    assert!(lower.contains("x-kind: ours") && !lower.contains("theirs") && !lower.contains("secret"), "{answer}");
    assert!(ask(&[], "/users/7/photos/1").1.starts_with("GET /photos/1?user=7 HTTP/1.1\r\n"));
    assert!(ask(&[], "/exact?q").1.starts_with("GET /?q HTTP/1.1\r\n"));
    assert!(ask(&[], "/else").0.contains("Server: secret"));
}

#[test]
fn a_route_has_its_own_limits() {
    let slow = scripted(|_| {
        takes(Duration::from_secs(2));
        response("200 OK", "", "late")
    });
    let (_ringway, listen) = edge(
        "    body_bytes_max: 100\n    routes:\n\
         \x20     - { match: { path: /quick }, service: s, timeout: 200ms }\n\
         \x20     - { match: { path: /large }, service: s, body_bytes_max: 1MiB }\n\
         \x20     - { service: s }\n",
        &[("s", slow.address)],
    );
    let answer = get(listen, "/quick").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (504, Some("request_timeout")));
    let post = |path: &str| {
        let body = "x".repeat(1000);
        let bytes = format!("POST {path} HTTP/1.1\r\nHost: a\r\ncontent-length: 1000\r\n\r\n{body}");
        read_answer(&mut send(listen, bytes.as_bytes()), true).unwrap().status
    };
    assert_eq!(post("/other"), 413);
    assert_eq!(post("/large"), 200);
}

#[test]
fn other_origins_are_answered_as_browsers_expect() {
    let backend = scripted(|_| response("200 OK", "Access-Control-Allow-Origin: *\r\n", "ok"));
    let (_ringway, listen) = edge(
        "    routes:\n\
         \x20     - match: { path_prefix: /api }\n\
         \x20       service: s\n\
         \x20       cors: { origins: [ \"https://app.test\" ], methods: [ PUT ], headers: [ x-a, x-b ], expose: [ x-c ], credentials: true, max_age: 5m }\n\
         \x20     - { match: { path_prefix: /open }, service: dead, cors: { origins: [ \"*\" ] } }\n\
         \x20     - { service: s }\n",
        &[("s", backend.address), ("dead", free_address())],
    );
    let preflight = |path: &str, origin: &str| {
        let text = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
        );
        read_answer(&mut send(listen, text.as_bytes()), false).unwrap()
    };
    let good = preflight("/api/x", "https://app.test");
    assert_eq!(good.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.test"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-a, x-b"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "300"),
        ("vary", "origin"),
    ] {
        assert_eq!(good.header(name), Some(value));
    }
    assert_eq!(preflight("/api/x", "https://evil.test").header("access-control-allow-origin"), None);
    assert!(backend.requests().is_empty(), "a preflight is answered here");
    let ask = |path: &str, origin: &str| get_with(listen, path, &format!("Origin: {origin}\r\n")).unwrap();
    let answer = ask("/api/x", "https://app.test");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-c"));
    assert_eq!(ask("/api/x", "https://evil.test").header("access-control-allow-origin"), None);
    // An error of Ringway's own can be read by the page as well.
    let answer = ask("/open", "https://any.test");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (502, Some("*")));
    // Elsewhere the backend speaks for itself; and an OPTIONS that is no preflight goes to it.
    assert_eq!(ask("/else", "https://x.test").header("access-control-allow-origin"), Some("*"));
    read_answer(&mut send(listen, b"OPTIONS /api HTTP/1.1\r\nHost: a\r\n\r\n"), true).unwrap();
    assert!(backend.requests().last().unwrap().starts_with("OPTIONS /api"));
}

#[test]
fn copies_go_to_another_service_and_change_nothing() {
    let (live, copy) = (Backend::echo("live"), Backend::echo("copy"));
    let slow = scripted(|_| {
        takes(Duration::from_secs(3).mul_f64(slowness()));
        response("500 Bad", "", "")
    });
    let (ringway, listen) = edge(
        "    routes:\n\
         \x20     - { match: { path: /slow }, service: live, mirror: { service: slow } }\n\
         \x20     - { match: { path: /dead }, service: live, mirror: { service: dead } }\n\
         \x20     - { service: live, mirror: { service: copy } }\n",
        &[("live", live.address), ("copy", copy.address), ("slow", slow.address), ("dead", free_address())],
    );
    for path in ["/a", "/slow", "/dead", "/b"] {
        let begin = Instant::now();
        assert_eq!(get(listen, path).unwrap().text(), "live");
        assert!(begin.elapsed() < Duration::from_secs(2).mul_f64(slowness()));
    }
    let body = b"POST /c HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(read_answer(&mut send(listen, body), true).unwrap().text(), "live");
    wait_for("the copies", || (copy.requests().len() == 3).then_some(()));
    assert!(copy.requests().iter().any(|text| text.starts_with("POST /c") && text.ends_with("hello")));
    let idle = || {
        let status = ringway.status();
        status["services"].as_array()?.iter().all(|service| service["in_flight"] == 0).then_some(())
    };
    wait_for("all to be over", idle);
    // Bodies that come after their heads.
    let counted = |what: &str| ringway.metric(&format!("ringway_{what}_total{{service=\"live\"}}"));
    let long = "x".repeat(9000);
    for (head, rest, copied) in [
        ("content-length: 4", "abcd".to_owned(), true),
        ("transfer-encoding: chunked", "4\r\nabcd\r\n0\r\n\r\n".to_owned(), true),
        ("content-length: 9000", long, false),
    ] {
        let (before, left_out) = (counted("mirrored"), counted("mirror_left_out"));
        let seen = copy.requests().len();
        let mut stream = send(listen, format!("POST /d HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n").as_bytes());
        wait_for("the head", || (ringway.status()["services"][0]["in_flight"] == 1).then_some(()));
        let (first, second) = rest.split_at(2);
        stream.write_all(first.as_bytes()).unwrap();
        stream.write_all(second.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream, true).unwrap().text(), "live");
        let counts = || (counted("mirrored") - before, counted("mirror_left_out") - left_out);
        assert_eq!(counts(), if copied { (1.0, 0.0) } else { (0.0, 1.0) }, "{head}");
        if copied {
            wait_for("the copy", || (copy.requests().len() == seen + 1).then_some(()));
            assert!(copy.requests().last().unwrap().ends_with("abcd"), "{:?}", copy.requests().last());
        }
    }
    wait_for("all to be over", idle);
}

#[test]
fn what_ringway_or_the_route_says_in_heads_nobody_says_behind_bodies() {
    // Notes all that comes, trailers too, and answers with trailers of its own.
    let backend = Backend::custom(|mut stream, seen| {
        let (mut text, mut byte) = (String::new(), [0]);
        while let Ok(1) = stream.read(&mut byte) {
            text.push(char::from(byte[0]));
            if text.ends_with("\r\n\r\n") && text.contains("\r\n0\r\n") {
                seen.lock().unwrap().push(std::mem::take(&mut text));
                let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 2\r\nX-Request-Id: forged\r\n\
                              x-inner: forged\r\nset-cookie: forged\r\ncontent_encoding: forged\r\n\r\n";
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    });
    let (ringway, listen) = edge(
        "    request_id: { respond: true }\n\
         \x20   routes:\n\
         \x20     - service: s\n\
         \x20       request_headers: { set: [ { name: x-route, value: own } ], remove: [ authorization, x-internal ] }\n\
         \x20       response_headers: { remove: [ x-inner ] }\n",
        &[("s", backend.address)],
    );
    let names =
        ["x-request-id", "X_Request_Id", "x-route", "x-internal", "Authorization", "content-encoding", "cookie"];
    let trailers: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n{trailers}x-sum: 2\r\n\r\n"
    );
    // At once, and piece by piece.
    let answer = raw(listen, request.as_bytes());
    assert!(answer.ends_with("0\r\nx-sum: 2\r\n\r\n") && !answer.contains("forged"), "{answer}");
    let (head, rest) = request.split_at(request.find("2\r\nok").unwrap());
    let mut stream = send(listen, head.as_bytes());
    wait_for("the head", || (ringway.status()["services"][0]["in_flight"] == 1).then_some(()));
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("0\r\nx-sum: 2\r\n\r\n") && !answer.contains("forged"), "{answer}");
    if require_python("h2").is_some() {
        let script = "import sys\nclient = Client(sys.argv[1])\nstream = client.request(method='POST', end=False)\n\
            client.h.send_data(stream, b'ok')\n\
            client.h.send_headers(stream, [(name.lower(), 'forged') for name in sys.argv[2:]] + [('x-sum', '2')], end_stream=True)\nclient.flush()\n\
            assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200\n\
            assert client.streams[stream]['trailers'] == {'x-sum': '2'}, client.streams[stream]\n";
        python_h2(script, &[&[listen.to_string().as_str()], &names[..]].concat());
    }
    for text in backend.requests() {
        assert!(!text.contains("forged") && text.contains("x-sum: 2") && text.contains("x-route: own"), "{text}");
    }
}

#[test]
fn errors_speak_in_other_words() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("50x.html");
    std::fs::write(&page, "<h1>back soon</h1>").unwrap();
    let (_ringway, listen) = edge(
        &format!(
            "    errors:\n      - {{ status: [ \"502-504\" ], file: \"{}\" }}\n\
             \x20     - {{ status: [ \"404\" ], content_type: application/json, body: '{{\"error\":\"none\"}}' }}\n\
             \x20   routes: [ {{ match: {{ path: /a }}, service: s }} ]\n",
            page.display()
        ),
        &[("s", free_address())],
    );
    let answer = get(listen, "/a").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (502, "<h1>back soon</h1>"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("x-ringway-reason"), Some("connect_failed"));
    let answer = get(listen, "/other").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (404, "{\"error\":\"none\"}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    // A new text is taken over when the file changes.
    std::fs::write(&page, "<h1>later</h1>").unwrap();
    wait_for("the new text", || (get(listen, "/a")?.text() == "<h1>later</h1>").then_some(()));
}
