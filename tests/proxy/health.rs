//! Active checks of every kind against real servers, and detectors against real failures.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kept;

use crate::common::peers::*;
use crate::common::*;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

fn state(ringway: &Ringway, id: &str, expected: &str) {
    wait_for(&format!("{id} to be {expected}"), || (backend_status(ringway, id)["state"] == expected).then_some(()));
}

fn reason(ringway: &Ringway, id: &str) -> String {
    backend_status(ringway, id)["check_failure"].as_str().unwrap_or_default().to_owned()
}

/// Waits for a failure's reason: one check may also have come too late.
fn fails_with(ringway: &Ringway, id: &str, why: &str) {
    wait_for(why, || (reason(ringway, id) == why).then_some(()));
}

/// Two backends with the same checks: one is as the check wants it, one is not.
fn checked(check: &str, good: SocketAddr, bad: SocketAddr) -> Ringway {
    // A busy machine must not make a good answer late.
    let timeout = (500.0 * slowness()) as u64;
    let service = format!(
        "panic_threshold: 0\nhealth: {{ {check}, interval: 100ms, timeout: {timeout}ms, rise: 1, fall: 1, initial: down }}"
    );
    Ringway::start(&simple(free_address(), &service, &[("good", good), ("bad", bad)]))
}

#[test]
fn body_must_match_and_a_flood_is_bounded() {
    let good = scripted(|_| response("200 OK", "", "status: fine, thank you"));
    for (answer, why) in [
        (response("200 OK", "", "status: ill"), "check: body does not match"),
        (response("200 OK", "", &"x".repeat(200_000)), "check: answer is too long"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_owned(), "check: timed out"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(), "check: not an answer"),
    ] {
        let bad = scripted(move |_| answer.clone());
        let ringway = checked("http: { body_regex: \"^status: f.ne\" }", good.address, bad.address);
        state(&ringway, "good", "up");
        state(&ringway, "bad", "down");
        fails_with(&ringway, "bad", why);
        assert_eq!(backend_status(&ringway, "bad")["last_change"], serde_json::Value::Null, "it was never up");
    }
}

/// Every other proxy of a fleet sends a key to its owner: one that has just been started may not know better for a whole window.
#[test]
fn a_proxy_that_starts_has_every_key_at_its_owner_as_soon_as_all_have_been_checked() {
    let fleet: Vec<(String, Backend)> =
        (0..8).map(|number| (format!("b{number}"), Backend::echo(&format!("b{number}")))).collect();
    let backends: Vec<(&str, SocketAddr)> = fleet.iter().map(|(id, backend)| (id.as_str(), backend.address)).collect();
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\nslow_start: { window: 10m }\n\
                   health: { http: {}, interval: 100ms, timeout: 60s, initial: down }";
    let ringway = Ringway::start(&simple(listen, service, &backends));
    backends.iter().for_each(|(id, _)| state(&ringway, id, "up"));
    for number in 0..100 {
        assert_eq!(get_with(listen, "/", &format!("X-Key: {number}\r\n")).unwrap().status, 200);
    }
    let count = |name: &str| ringway.metric(&format!("{name}{{service=\"s\"}}"));
    assert_eq!((count("ringway_keyed_requests_total"), count("ringway_owner_served_total")), (100.0, 100.0));
}

#[test]
fn endpoints_that_hang_flood_or_talk_nonsense_are_failed_checks_with_their_reason() {
    let good = Backend::echo("good");
    let flood = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        while stream.write_all(b"HTTP/1.1 200 OK\r\nx: y\r\n").is_ok() {}
    });
    let hang = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        takes(Duration::from_secs(30));
    });
    let nonsense = Backend::says(b"\x16\x03\x01 this is no answer\r\n\r\n");
    let closes = Backend::custom(|mut stream, _| drop(read_request(&mut stream)));
    for (bad, why) in [
        (flood.address, "check: not an answer"),
        (hang.address, "check: timed out"),
        (nonsense.address, "check: not an answer"),
        (closes.address, "check: connection closed"),
        (free_address(), "check: connect failed"),
    ] {
        let ringway = checked("http: {}", good.address, bad);
        state(&ringway, "good", "up");
        state(&ringway, "bad", "down");
        fails_with(&ringway, "bad", why);
        // The state that it was never out of is no change; a fall is, with its reason.
    }
}

#[test]
fn answer_and_agent_may_change_the_weight() {
    let degraded = scripted(|_| response("200 OK", "X-Ringway-Weight: 25\r\n", "ok"));
    let plain = Backend::echo("plain");
    let ringway = checked("http: {}", plain.address, degraded.address);
    state(&ringway, "bad", "degraded");
    let backend = backend_status(&ringway, "bad");
    assert!((backend["accept_share"].as_f64().unwrap() - 0.25).abs() < 0.01, "{backend}");
    assert_eq!(backend["last_change"]["to"], "reweighted");

    for (line, expected) in
        [("up 75%\n", "degraded"), ("drain\n", "drained"), ("down # disk\n", "down"), ("ready\n", "up")]
    {
        let agent = Backend::custom(move |mut stream, seen| {
            use std::io::Read;
            let mut hello = [0; 6];
            let _ = stream.read_exact(&mut hello);
            seen.lock().unwrap().push(String::from_utf8_lossy(&hello).into_owned());
            let _ = stream.write_all(line.as_bytes());
        });
        let check = format!("http: {{}}, agent: {{ port: {}, send: \"hello\\n\" }}", agent.address.port());
        let ringway = checked(&check, plain.address, plain.address);
        state(&ringway, "bad", expected);
        // It is asked at its own times.
        let asked = wait_for("a question to the agent", || agent.requests().into_iter().next());
        assert_eq!(asked, "hello\n");
    }
}

#[test]
fn check_goes_to_its_own_address_port_and_host() {
    let traffic = scripted(|_| response("500 Internal Server Error", "", "no checks here"));
    let health = Backend::echo("health");
    let check = format!(
        "http: {{ host: health.internal, path: /deep?x=1 }}, address: \"127.0.0.1\", port: {}",
        health.address.port()
    );
    let ringway = checked(&check, traffic.address, traffic.address);
    state(&ringway, "good", "up");
    let seen = health.requests()[0].clone();
    assert!(seen.starts_with("GET /deep?x=1 HTTP/1.1\r\nhost: health.internal\r\n"), "{seen}");
    assert!(traffic.requests().is_empty());
}

#[test]
fn tls_checks_verify_names_and_authorities_against_openssl() {
    if require("openssl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let made = output(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=checks.internal",
            "-addext",
            "subjectAltName=DNS:checks.internal",
            "-addext",
            "basicConstraints=critical,CA:false",
            "-keyout",
            &file("key.pem"),
            "-out",
            &file("cert.pem"),
        ],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-key", &file("key.pem"), "-cert", &file("cert.pem")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Running(server);
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("openssl", || std::net::TcpStream::connect(address).ok());
    let plain = Backend::echo("plain");
    let ca = file("cert.pem");
    for (tls, kind, good) in [
        (format!("sni: checks.internal, ca: \"{ca}\""), "http: {}", true),
        (format!("sni: other.internal, ca: \"{ca}\""), "http: {}", false),
        ("sni: checks.internal".to_owned(), "http: {}", false),
        ("verify: false".to_owned(), "tcp: {}", true),
    ] {
        let ringway = checked(&format!("{kind}, tls: {{ {tls} }}"), address, plain.address);
        state(&ringway, "good", if good { "up" } else { "down" });
        // Who speaks no TLS is not well.
        state(&ringway, "bad", "down");
        if !good {
            fails_with(&ringway, "good", "check: TLS handshake failed");
        }
    }
    // A file of authorities that is not there is refused at once, by name.
    let config = simple(free_address(), "health: { tcp: {}, tls: { ca: /nonexistent/ca.pem } }", &[("a", address)]);
    let path = directory.path().join("c.yaml");
    std::fs::write(&path, config.replace("ADMIN", &free_address().to_string())).unwrap();
    let refused = ringway(&["run", "--config", path_text(&path)]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("/nonexistent/ca.pem"), "{text}");
}

const GRPC_SERVER: &str = r#"
import sys
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
servicer.set("good.Service", health_pb2.HealthCheckResponse.SERVING)
servicer.set("bad.Service", health_pb2.HealthCheckResponse.NOT_SERVING)
assert server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
"#;

#[test]
fn grpc_checks_understand_a_real_grpc_server() {
    if require("python3").is_none() || require_python("grpc_health.v1").is_none() {
        return;
    }
    let port = free_port();
    let server = Command::new("python3").args(["-c", GRPC_SERVER, &port.to_string()]).stderr(Stdio::null()).spawn();
    let _server = Running(server.unwrap());
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("the gRPC server", || std::net::TcpStream::connect(address).ok());
    let http1 = Backend::echo("no HTTP/2 here");
    for (check, expected, why) in [
        ("grpc: {}", "up", ""),
        ("grpc: { service: good.Service, authority: name.internal }", "up", ""),
        ("grpc: { service: bad.Service }", "down", "check: grpc.health.v1 status 2"),
        ("grpc: { service: unknown.Service }", "down", "check: gRPC status 5"),
    ] {
        let ringway = checked(check, address, http1.address);
        state(&ringway, "good", expected);
        state(&ringway, "bad", "down");
        assert_eq!(reason(&ringway, "good"), why, "{check}");
    }
}

fn load(listen: SocketAddr, until: impl Fn() -> bool) {
    wait_for("what the load brings about", || {
        let is = until();
        if !is {
            (0..40).for_each(|_| drop(get(listen, "/")));
        }
        is.then_some(())
    });
}

#[test]
fn statistical_detectors_eject_backends_that_are_worse_than_the_others() {
    for (detector, cause) in [
        ("failure_percentage: { threshold: 40, min_hosts: 3, min_volume: 10 }", "failure_percentage"),
        ("success_rate: { deviations: 1.2, min_hosts: 3, min_volume: 10 }", "success_rate"),
        ("latency: { factor: 3, least: 20ms, min_hosts: 3, min_volume: 5 }", "latency"),
    ] {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let slow = cause == "latency";
        let bad = scripted(move |_| {
            // Every second request fails: never many in a row.
            let turn = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if slow {
                takes(Duration::from_millis(60));
            } else if turn.is_multiple_of(2) {
                return response("500 Internal Server Error", "", "oh");
            }
            response("200 OK", "", "bad")
        });
        let others = echoes(3);
        let listen = free_address();
        let service = format!(
            "balance: {{ policy: round_robin }}\noutlier: {{ {detector}, interval: 300ms, max_ejection_percent: 50 }}"
        );
        let mut backends = targets(&others);
        backends.push(("bad", bad.address));
        let ringway = Ringway::start(&simple(listen, &service, &backends));
        load(listen, || backend_status(&ringway, "bad")["state"] == "ejected");
        let backend = backend_status(&ringway, "bad");
        assert_eq!(backend["last_change"]["reason"], cause, "{backend}");
        let metric = format!("ringway_health_changes_total{{service=\"s\",to=\"ejected\",reason=\"{cause}\"}}");
        assert!(ringway.metric(&metric) >= 1.0);
        let text = backend["last_change"]["text"].as_str().unwrap().to_owned();
        assert!(ringway.log().contains(text.split(" for ").next().unwrap()), "log, metric and status agree: {text}");
        for id in ["a", "b", "c"] {
            assert_eq!(backend_status(&ringway, id)["state"], "up");
        }
    }
}

#[test]
fn retry_after_is_obeyed_where_asked() {
    let busy = scripted(|_| response("503 Service Unavailable", "Retry-After: 120\r\n", "busy"));
    let good = Backend::echo("good");
    let listen = free_address();
    let service = "balance: { policy: first }\noutlier: { retry_after_max: 30s, on: connection }\npanic_threshold: 0";
    let ringway = Ringway::start(&simple(listen, service, &[("a", busy.address), ("b", good.address)]));
    assert_eq!(get(listen, "/").unwrap().status, 503);
    // The detector hears of an answer once that has been delivered; another worker may be asked before.
    wait_for("the ejection", || (get(listen, "/")?.text() == "good").then_some(()));
    let backend = backend_status(&ringway, "a");
    assert_eq!(backend["last_change"]["reason"], "retry_after");
    let left = backend["ejected_for_seconds"].as_f64().unwrap();
    assert!((20.0..=30.0).contains(&left), "{left}");
}

#[test]
fn ejections_and_states_survive_a_reload() {
    let (good, other) = (Backend::echo("good"), Backend::echo("other"));
    let listen = free_address();
    let service = "balance: { policy: round_robin }\nretry: { attempts: 0 }\noutlier: { consecutive_failures: 2, base_ejection: 60s }\npanic_threshold: 0";
    let config = simple(listen, service, &[("good", good.address), ("gone", free_address()), ("other", other.address)]);
    let ringway = Ringway::start(&config);
    load(listen, || backend_status(&ringway, "gone")["state"] == "ejected");
    ringway.reconfigure(&config.replace("id: good,", "id: good, weight: 150,"));
    let backend = backend_status(&ringway, "gone");
    assert_eq!(backend["state"], "ejected");
    assert_eq!(backend["last_change"]["reason"], "consecutive_failures");
}

#[test]
fn panic_may_refuse_instead_of_asking_everybody() {
    let good = Backend::echo("good");
    let listen = free_address();
    let service = "panic_threshold: 60\npanic_mode: fail\nhealth: { http: {}, interval: 100ms, rise: 1, fall: 1 }";
    let ringway = Ringway::start(&simple(listen, service, &[("good", good.address), ("gone", free_address())]));
    wait_for("panic", || (ringway.status()["services"][0]["panic"] == true).then_some(()));
    let answer = get(listen, "/").unwrap();
    assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some("no_backend")));
}

#[test]
fn tls_checks_follow_their_files() {
    if require("openssl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    // Both sides show certificates that the other side's file of authorities holds, of the old or the new kind.
    for name in ["old-server", "old-client", "new-server", "new-client"] {
        let arguments =
            ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"];
        let subject = format!("/CN={name}");
        let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let leaf = ["-addext", "basicConstraints=critical,CA:false", "-addext", "subjectAltName=DNS:checks.internal"];
        let more = [&[subject.as_str()][..], &leaf, &["-keyout", &key, "-out", &certificate]].concat();
        assert!(output("openssl", &[&arguments[..], &more].concat()).status.success(), "{name}");
    }
    let port = free_port();
    let serve = |kind: &str| {
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-key", &file(&format!("{kind}-server.key")), "-cert", &file(&format!("{kind}-server.pem"))])
            .args(["-Verify", "1", "-verify_return_error", "-CAfile", &file(&format!("{kind}-client.pem"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Running(server);
        wait_for("openssl", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        server
    };
    let take = |from: &str, to: &str| {
        std::fs::copy(file(from), file("fresh")).unwrap();
        std::fs::rename(file("fresh"), file(to)).unwrap();
    };
    // The pair first as one: a key that does not fit is refused, and tried again with the next change.
    for (from, to) in [("old-server.pem", "ca.pem"), ("old-client.pem", "own.pem"), ("old-client.key", "own.key")] {
        take(from, to);
    }
    let server = serve("old");
    let service = format!(
        "health: {{ http: {{}}, interval: 100ms, rise: 1, fall: 2, initial: down }}\n\
         tls: {{ sni: checks.internal, ca: \"{}\", certificate: \"{}\", key: \"{}\" }}",
        file("ca.pem"),
        file("own.pem"),
        file("own.key")
    );
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let ringway = Ringway::start(&simple(free_address(), &service, &[("good", address)]));
    state(&ringway, "good", "up");
    drop(server);
    let _server = serve("new");
    state(&ringway, "good", "down");
    for (from, to) in [("new-server.pem", "ca.pem"), ("new-client.pem", "own.pem"), ("new-client.key", "own.key")] {
        take(from, to);
    }
    state(&ringway, "good", "up");
    assert!(ringway.status()["generation"].as_u64().unwrap() > 1);
}

/// A backend that speaks HTTP/2 alone, and answers with status 200 and a body that ends, or does not. Notes what becomes of its
/// connections.
fn h2_only(body: &'static str, ends: bool) -> Backend {
    use std::io::Read;
    Backend::custom(move |mut stream, seen| {
        let note = |text: String| seen.lock().unwrap().push(text);
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() || preface != *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            return note("no HTTP/2".to_owned());
        }
        let _ = stream.write_all(&frame(4, 0, 0, &[]));
        loop {
            let mut head = [0; 9];
            match stream.read(&mut head[..1]) {
                Ok(0) => return note("closed".to_owned()),
                Ok(_) => {}
                Err(_) => return note("reset".to_owned()),
            }
            stream.read_exact(&mut head[1..]).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).unwrap();
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match head[3] {
                1 => {
                    // `:status: 200` of HPACK's static table.
                    let _ = stream.write_all(&frame(1, 4, 1, &[0x88]));
                    let _ = stream.write_all(&frame(0, u8::from(ends), 1, body.as_bytes()));
                }
                3 => note(format!("stream reset {}", number(0))),
                4 if head[4] & 1 == 0 => drop(stream.write_all(&frame(4, 1, 0, &[]))),
                7 => note(format!("goaway {}", number(4))),
                _ => {}
            }
        }
    })
}

#[test]
fn checks_speak_the_services_protocol_unless_they_are_told_otherwise() {
    let (h2, http1) = (h2_only("fine", true), Backend::echo("http1"));
    for (service, check, on_h2, on_http1) in [
        ("h2", "http: {}", "up", "down"),
        ("h2", "http: { body: fine }", "up", "down"),
        ("h2", "http: { body: ill }", "down", "down"),
        ("h2", "http: { protocol: http1 }", "down", "up"),
        ("http1", "http: {}", "down", "up"),
        ("http1", "http: { protocol: h2 }", "up", "down"),
        ("h2", "tcp: {}", "up", "up"),
    ] {
        let service = format!(
            "protocol: {service}\npanic_threshold: 0\n\
             health: {{ {check}, interval: 100ms, rise: 1, fall: 1, initial: down }}"
        );
        let backends = [("h2", h2.address), ("http1", http1.address)];
        let ringway = Ringway::start(&simple(free_address(), &service, &backends));
        state(&ringway, "h2", on_h2);
        state(&ringway, "http1", on_http1);
    }
}

#[test]
fn checks_over_tls_offer_the_services_protocol() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("a", "DNS:a.test", "2");
    let (backend, tls) = (Backend::echo("a"), free_address());
    // It speaks HTTP/2 alone, and ends the handshake with whoever does not offer that.
    let _front = Ringway::start(&config(
        &format!(
            "  - {{ name: web, address: \"{tls}\", service: s, tls: {{ alpn: [ h2 ], certificates: [ {} ] }} }}",
            certificates.entry("a")
        ),
        &service("s", "", &[("a", backend.address)]),
    ));
    for (protocol, expected) in [("h2", "up"), ("http1", "down")] {
        let service = format!(
            "protocol: {protocol}\ntls: {{ sni: a.test, ca: {:?} }}\npanic_threshold: 0\n\
             health: {{ http: {{ host: a.test }}, interval: 100ms, rise: 1, fall: 1, initial: down }}",
            certificates.text("ca.pem")
        );
        let ringway = Ringway::start(&simple(free_address(), &service, &[("b", tls)]));
        state(&ringway, "b", expected);
    }
    assert!(backend.requests().iter().all(|head| head.contains("a.test")), "{:?}", backend.requests());
}

#[test]
fn a_checks_own_fields_take_the_place_of_the_default_ones() {
    let backend = Backend::echo("a");
    let check = "http: { headers: [ { name: Host, value: own.internal }, { name: User-Agent, value: probe } ] }";
    let ringway = checked(check, backend.address, backend.address);
    state(&ringway, "good", "up");
    let head = backend.requests()[0].to_ascii_lowercase();
    for (name, value) in [("host", "own.internal"), ("user-agent", "probe"), ("connection", "close")] {
        let lines: Vec<&str> = head.lines().filter(|line| line.starts_with(&format!("{name}:"))).collect();
        assert_eq!(lines, [format!("{name}: {value}")]);
    }
}

/// A backend whose response is as told, and which notes how its connections end.
fn verbose(head: &'static str, body: Vec<u8>, closes: bool) -> Backend {
    use std::io::Read;
    Backend::custom(move |mut stream, seen| {
        let _ = read_request(&mut stream);
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        if closes {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let end = sent.and_then(|()| stream.read(&mut [0]));
        seen.lock().unwrap().push(format!("{:?}", end.map_err(|error| error.kind())));
    })
}

#[test]
fn checks_end_their_connections_without_a_reset_however_long_the_response() {
    let body = vec![b'x'; 200_000];
    let chunked = [&b"30d40\r\n"[..], &body, b"\r\n0\r\n\r\n"].concat();
    let good = Backend::echo("good");
    for (what, backend) in [
        ("a length", verbose("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n", body.clone(), false)),
        ("chunks", verbose("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked, false)),
        ("until the end", verbose("HTTP/1.1 200 OK\r\n\r\n", body.clone(), true)),
        ("a failure", verbose("HTTP/1.1 500 No\r\ncontent-length: 200000\r\n\r\n", body.clone(), false)),
        ("unasked bytes", verbose("HTTP/1.1 204 No Content\r\n\r\n", body, false)),
    ] {
        for check in ["http: {}", "http: { body: \"y\" }", "tcp: {}"] {
            // The first byte of a TCP backend's is never asked for.
            if check == "tcp: {}" && what != "a length" {
                continue;
            }
            let before = backend.requests().len();
            let ringway = checked(check, good.address, backend.address);
            wait_for("three checks", || (backend.requests().len() >= before + 3).then_some(()));
            drop(ringway);
            let ends: Vec<String> = backend.requests()[before..before + 3].to_vec();
            assert_eq!(ends, ["Ok(0)", "Ok(0)", "Ok(0)"], "{what}, {check}");
        }
    }
}

#[test]
fn checks_over_http2_cancel_what_they_do_not_wait_for_and_say_goodbye() {
    let (long, whole) = (h2_only("and so on", false), h2_only("fine", true));
    let service = "protocol: h2\nhealth: { http: {}, interval: 100ms, rise: 1, fall: 1, initial: down }";
    let ringway = Ringway::start(&simple(free_address(), service, &[("long", long.address), ("whole", whole.address)]));
    state(&ringway, "long", "up");
    state(&ringway, "whole", "up");
    wait_for("three ends", || {
        let ends = |backend: &Backend| backend.requests().iter().filter(|end| *end == "closed").count();
        (ends(&long) >= 3 && ends(&whole) >= 3).then_some(())
    });
    // 8 is CANCEL.
    assert_eq!(long.requests()[..3], ["stream reset 8", "goaway 0", "closed"]);
    assert_eq!(whole.requests()[..2], ["goaway 0", "closed"]);
    assert!(!long.requests().iter().chain(&whole.requests()).any(|end| end == "reset"));
}
