//! The file is followed: all or nothing, nothing that did not change is touched, and no request fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::{self, Certificates};
use crate::common::*;
use crate::drain::load;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So many requests that a key which stood still for a moment would be hot.
const HASHED: &str = "balance: { hash_key: [ { header: x-key } ], hot_keys: { enabled: false } }";

fn backends(count: usize) -> (Vec<Backend>, Vec<(String, SocketAddr)>) {
    let backends: Vec<Backend> = (0..count).map(|index| Backend::echo(&format!("b{index}"))).collect();
    let named = backends.iter().enumerate().map(|(index, backend)| (format!("b{index}"), backend.address)).collect();
    (backends, named)
}

fn list(named: &[(String, SocketAddr)]) -> Vec<(&str, SocketAddr)> {
    named.iter().map(|(id, address)| (id.as_str(), *address)).collect()
}

fn owners(listen: SocketAddr) -> Vec<String> {
    (0..200).map(|key| get_with(listen, "/", &format!("X-Key: {key}\r\n")).unwrap().text()).collect()
}

#[test]
fn only_the_keys_that_must_move_move() {
    let (_backends, named) = backends(5);
    let listen = free_address();
    let config = |count: usize| simple(listen, HASHED, &list(&named[..count]));
    let ringway = Ringway::start(&config(4));
    let four = owners(listen);
    ringway.reconfigure(&config(5));
    let five = owners(listen);
    for (before, after) in four.iter().zip(&five) {
        assert!(before == after || after == "b4", "{before} -> {after}");
    }
    let moved = five.iter().filter(|owner| *owner == "b4").count();
    assert!((10..=80).contains(&moved), "{moved} of 200 moved to one of five");
    let told = ringway.status()["last_reload"]["moved"][0]["percent"].as_f64().unwrap();
    assert!((told - moved as f64 / 2.0).abs() < 12.0, "{told}% told, {moved} of 200 moved");
    ringway.reconfigure(&config(4));
    assert_eq!(owners(listen), four);
    // The order of the list means nothing, and a change of address moves no key.
    let mut turned = list(&named[..4]);
    turned.reverse();
    let digest = ringway.status()["services"][0]["ring_digest"].clone();
    ringway.reconfigure(&simple(listen, HASHED, &turned));
    assert_eq!(ringway.status()["services"][0]["ring_digest"], digest);
    assert_eq!(owners(listen), four);
    let elsewhere = Backend::echo("b2");
    turned.iter_mut().filter(|(id, _)| *id == "b2").for_each(|entry| entry.1 = elsewhere.address);
    ringway.reconfigure(&simple(listen, HASHED, &turned));
    assert_eq!(owners(listen), four);
    assert_eq!(elsewhere.requests().len(), four.iter().filter(|owner| *owner == "b2").count());
}

#[test]
fn bad_file_is_refused_and_changes_nothing() {
    let (_backends, named) = backends(2);
    let listen = free_address();
    let good = simple(listen, HASHED, &list(&named));
    let ringway = Ringway::start(&good);
    let before = owners(listen);
    for (code, bad) in [
        ("unknown_field", good.replace("workers:", "wrokers:")),
        ("dangling_service", good.replace("service: s }", "service: t }")),
        ("too_large", format!("listeners: {}", "[".repeat(100))),
        ("syntax", "listeners: [".to_owned()),
        ("empty_file", String::new()),
        ("too_large", format!("{good}{}", "#".repeat(64 << 20))),
    ] {
        let refused = ringway.metric("ringway_reloads_total{result=\"refused\"}");
        ringway.write_config(&bad);
        let status = wait_for("the refusal", || {
            let status = ringway.status();
            (status["last_reload"]["diagnostics"][0]["code"] == code).then_some(status)
        });
        let finding = &status["last_reload"]["diagnostics"][0];
        assert!(finding["line"].as_u64().is_some() && finding["message"].is_string(), "{finding}");
        assert_eq!(status["generation"], 1);
        assert!(ringway.metric("ringway_reloads_total{result=\"refused\"}") > refused);
        assert_eq!(ringway.metric("ringway_config_last_reload_successful"), 0.0);
        assert!(ringway.log().contains(code), "{}", ringway.log());
        assert_eq!(owners(listen), before);
    }
}

#[test]
fn listeners_come_and_go_and_running_sessions_stay() {
    let (_backends, named) = backends(2);
    let (first, second) = (free_address(), free_address());
    let config = simple(first, HASHED, &list(&named));
    let both =
        config.replace("listeners: [", &format!("listeners: [ {{ name: more, address: \"{second}\", service: s }},"));
    let ringway = Ringway::start(&config);
    let mut kept = send(first, b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n");
    let answer = read_answer(&mut kept, true).unwrap();
    ringway.reconfigure(&both);
    wait_for("the new listener", || get(second, "/"));
    let mut leaving = send(second, b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n");
    assert_eq!(read_answer(&mut leaving, true).unwrap().text(), answer.text());
    ringway.reconfigure(&config);
    wait_for("the listener to be gone", || TcpStream::connect(second).is_err().then_some(()));
    // The connection that was idle on it is closed, that of the other listener is not.
    assert_eq!(leaving.read(&mut [0]).unwrap(), 0);
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut kept, true).unwrap().text(), answer.text());
    // An address that somebody else has is refused, and changes nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let generation = ringway.status()["generation"].clone();
    ringway.write_config(&both.replace(&second.to_string(), &taken.local_addr().unwrap().to_string()));
    wait_for("the refusal", || (ringway.status()["last_reload"]["result"] == "refused").then_some(()));
    assert_eq!(ringway.status()["generation"], generation);
    assert!(get(first, "/").is_some());
}

#[test]
fn state_is_carried_over_by_id() {
    let slow = Backend::custom(|mut stream, _| {
        if read_request(&mut stream).is_some() {
            takes(Duration::from_millis(1500));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        }
    });
    let dead = free_address();
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }\noutlier: { consecutive_failures: 1, base_ejection: 1h, max_ejection: 1h }";
    let config = |weight: u32| {
        simple(listen, service, &[("slow", slow.address), ("dead", dead)])
            .replace("}\n      - { id: dead", &format!(", weight: {weight} }}\n      - {{ id: dead"))
    };
    let ringway = Ringway::start(&config(100));
    let requests: Vec<_> = (0..6)
        .map(|key| send(listen, format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n").as_bytes()))
        .collect();
    let in_flight = || ringway.status()["services"][0]["in_flight"].as_u64().unwrap();
    wait_for("all to be in flight", || (in_flight() == 6).then_some(()));
    let ejected = || ringway.status()["services"][0]["backends"][0]["state"] == "ejected";
    wait_for("the ejection", || ejected().then_some(()));
    ringway.reconfigure(&config(200));
    assert!(ejected(), "an ejection outlives a reload");
    assert_eq!(in_flight(), 6);
    for mut stream in requests {
        assert_eq!(read_answer(&mut stream, true).unwrap().text(), "slow");
    }
    wait_for("the load to be given back", || (in_flight() == 0).then_some(()));
}

#[test]
fn sighup_and_the_admin_api_reload_too() {
    let (_backends, named) = backends(2);
    let config = simple(free_address(), HASHED, &list(&named));
    let ringway = Ringway::start(&config);
    let post = || {
        let mut stream = send(ringway.admin, b"POST /reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = read_answer(&mut stream, true).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, value)
    };
    assert_eq!(post().1["result"], "unchanged");
    ringway.signal("HUP");
    wait_for("the reload", || (ringway.metric("ringway_reloads_total{result=\"unchanged\"}") >= 2.0).then_some(()));
    // In place, as an editor without renaming would; the watcher may be faster than we are.
    std::fs::write(
        &ringway.config,
        config
            .replace("ADMIN", &ringway.admin.to_string())
            .replace("HASHED", "")
            .replace("workers: 2", "workers: 2\ndrain_timeout: 5s"),
    )
    .unwrap();
    let (status, value) = post();
    assert!(status == 200 && matches!(value["result"].as_str().unwrap(), "applied" | "unchanged"), "{value}");
    assert_eq!(ringway.status()["generation"], 2);
    std::fs::write(&ringway.config, "nonsense: true").unwrap();
    let (status, value) = post();
    assert_eq!((status, &value["result"]), (422, &"refused".into()), "{value}");
}

#[test]
fn a_pipe_in_place_of_the_file_is_refused_at_once_and_keeps_no_later_file_waiting() {
    let (_backends, named) = backends(2);
    let config = simple(free_address(), HASHED, &list(&named));
    let ringway = Ringway::start(&config);
    std::fs::remove_file(&ringway.config).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&ringway.config).status().unwrap().success());
    // Somebody holds it open to write: its end does not come.
    let _held = std::fs::OpenOptions::new().read(true).write(true).open(&ringway.config).unwrap();
    let refused = |count: f64| {
        wait_for("the refusal", || {
            let told = ringway.status()["last_reload"]["diagnostics"][0]["message"].to_string();
            let counted = ringway.counter("ringway_reloads_total{result=\"refused\"}");
            (told.contains("it is a pipe") && counted >= count).then_some(counted)
        })
    };
    let count = refused(1.0);
    ringway.signal("HUP");
    refused(count + 1.0);
    ringway.write_config(&config.replace("workers: 2", "workers: 2\ndrain_timeout: 5s"));
    wait_for("the file", || (ringway.status()["generation"] == 2).then_some(()));
}

#[test]
fn file_behind_a_symbolic_link_is_followed_as_kubernetes_replaces_it() {
    let (_backends, named) = backends(2);
    let config = simple(free_address(), HASHED, &list(&named));
    let ringway = Ringway::start(&config);
    let directory = ringway.directory.path();
    let with_admin = config.replace("ADMIN", &ringway.admin.to_string());
    for (version, timeout) in [("v1", 41), ("v2", 42)] {
        std::fs::create_dir(directory.join(version)).unwrap();
        let text = with_admin.replace("workers: 2", &format!("workers: 2\ndrain_timeout: {timeout}s"));
        std::fs::write(directory.join(version).join("ringway.yaml"), text).unwrap();
        let generation = ringway.status()["generation"].as_u64().unwrap();
        let link = directory.join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        std::fs::rename(&link, directory.join("..data")).unwrap();
        if version == "v1" {
            let link = directory.join("link");
            std::os::unix::fs::symlink("..data/ringway.yaml", &link).unwrap();
            std::fs::rename(&link, &ringway.config).unwrap();
        }
        wait_for("the new version", || (ringway.status()["generation"].as_u64().unwrap() > generation).then_some(()));
    }
}

#[test]
fn listener_moves_to_an_address_that_overlaps_its_own_and_back() {
    let fleet = echoes(1);
    let port = free_port();
    let at = |host: &str| simple(format!("{host}:{port}").parse().unwrap(), "", &targets(&fleet));
    let ringway = Ringway::start(&at("127.0.0.1"));
    for host in ["0.0.0.0", "127.0.0.1", "0.0.0.0", "127.0.0.1"] {
        // At once: the sockets of before may still be emptying their queues.
        ringway.reconfigure(&at(host));
        wait_for("the listener", || {
            (get(format!("127.0.0.1:{port}").parse().unwrap(), "/")?.status == 200).then_some(())
        });
    }
}

/// Listeners with a name, an address and more, each with a service of its own name.
fn listeners(list: &[(&str, &str, &str)], fleet: &[(&'static str, Backend)]) -> String {
    let mut text = String::from("workers: 2\nadmin: { address: \"ADMIN\" }\nlisteners:\n");
    for (name, address, more) in list {
        text.push_str(&format!("  - {{ name: {name}, address: \"{address}\", service: {name}, {more} }}\n"));
    }
    text.push_str("services:\n");
    for (id, backend) in fleet {
        text.push_str(&format!(
            "  - {{ name: {id}, backends: [ {{ id: {id}, address: \"{}\" }} ] }}\n",
            backend.address
        ));
    }
    text
}

#[test]
fn listener_on_all_addresses_takes_both_families_unless_another_has_one() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skipped("there is no IPv6 here");
        return;
    }
    let fleet = echoes(2);
    let port = free_port();
    let at = |host: &str| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
    let who = |host: &str| {
        // A SYN that finds a socket which is being closed is sent again after a second.
        TcpStream::connect_timeout(&at(host), patience()).ok()?;
        get(at(host), "/").map(|answer| answer.text())
    };
    let (both, all4, one4) = (format!("[::]:{port}"), format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"));
    let alone = listeners(&[("a", &both, "")], &fleet);
    let ringway = Ringway::start(&alone);
    assert_eq!([who("127.0.0.1"), who("[::1]")], [Some("a".into()), Some("a".into())]);
    let asked = fleet[0].1.requests().concat();
    assert!(asked.to_lowercase().contains("x-forwarded-for: 127.0.0.1\r\n") && !asked.contains("ffff"), "{asked}");
    // Who has IPv4 gets all of it, and the other address none; and back, and by one address only.
    let a = |text: &str| Some(text.to_owned());
    for (list, expected) in [
        (vec![("a", &*both, ""), ("b", &*all4, "")], [a("b"), a("b"), a("a")]),
        (vec![("a", &*both, "")], [a("a"), a("a"), a("a")]),
        (vec![("a", &*both, ""), ("b", &*one4, "")], [a("b"), None, a("a")]),
        (vec![("a", &*both, "v6_only: true")], [None, None, a("a")]),
        (vec![("a", &*both, "v6_only: false"), ("b", &*one4, "")], [a("b"), a("a"), a("a")]),
    ] {
        ringway.reconfigure(&listeners(&list, &fleet));
        let mut seen = [const { None }; 3];
        wait_for(&format!("{list:?} to be served as {expected:?}"), || {
            seen = ["127.0.0.1", "127.0.0.2", "[::1]"].map(who);
            (seen == expected).then_some(())
        });
    }
    // What is only meant, not said, is told.
    let path = ringway.directory.path().join("two.yaml");
    for (text, told) in [(listeners(&[("a", &both, ""), ("b", &all4, "")], &fleet), true), (alone, false)] {
        std::fs::write(&path, text.replace("ADMIN", "127.0.0.1:9901")).unwrap();
        let checked = crate::common::ringway(&["check", path_text(&path)]);
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert!(checked.status.success() && said.contains("[v6_only]") == told, "{said}");
    }
}

#[test]
fn reloads_leak_no_descriptor() {
    let (_backends, named) = backends(3);
    let (listen, other) = (free_address(), free_address());
    let plain = simple(listen, HASHED, &list(&named));
    let more =
        plain.replace("listeners: [", &format!("listeners: [ {{ name: more, address: \"{other}\", service: s }},"));
    let ringway = Ringway::start(&plain);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).unwrap().count();
    for _ in 0..2 {
        ringway.reconfigure(&more);
        ringway.reconfigure(&plain);
    }
    let before = descriptors();
    for _ in 0..10 {
        ringway.reconfigure(&more);
        owners(listen);
        ringway.reconfigure(&plain);
    }
    wait_for("descriptors to be given back", || (descriptors() <= before + 8).then_some(()));
}

/// Less than a connection that has not asked yet is waited with, when its listener goes.
const SILENCE: Duration = Duration::from_secs(1);

#[test]
fn a_listener_that_is_renamed_or_speaks_something_else_refuses_nobody() {
    let backend = scripted(|_| response("200 OK", "", "here"));
    let listen = free_address();
    let config = simple(listen, "limits: {}", &[("a", backend.address)]);
    let ringway = Ringway::start(&config);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    // A connection for each: it is accepted, reset or refused.
                    let begin = Instant::now();
                    let mut asked = None;
                    let answer = TcpStream::connect(listen).and_then(|mut stream| {
                        stream.set_read_timeout(Some(patience()))?;
                        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
                        asked = Some(begin.elapsed());
                        try_read_answer(&mut stream, true)
                    });
                    match answer {
                        Ok(answer) if answer.text() == "here" => good += 1,
                        // Who says nothing for two seconds is left when the listener goes: on a busy machine, a client may stand still.
                        Err(_) if begin.elapsed() > SILENCE && asked.is_none_or(|asked| asked > SILENCE) => {}
                        other => bad.push(format!("{other:?}, asked after {asked:?}")),
                    }
                }
                (good, bad)
            })
        })
        .collect();
    let mut kept = TcpStream::connect(listen).unwrap();
    kept.set_read_timeout(Some(patience())).unwrap();
    let mut on_kept = || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_answer(&mut kept, true).unwrap()
    };
    let renamed = |number: usize| config.replace("name: web", &format!("name: web-{number}"));
    for number in 0..25 {
        ringway.reconfigure(&renamed(number));
        // Under another name, it is the same connection.
        assert_eq!(on_kept().text(), "here");
        let listeners = ringway.status()["listeners"].clone();
        assert_eq!(
            (&listeners[0]["name"], &listeners[0]["address"], listeners.as_array().unwrap().len()),
            (&format!("web-{number}").into(), &listen.to_string().into(), 1)
        );
    }
    for number in 0..15 {
        ringway.reconfigure(&renamed(number).replace("service: s }", "protocol: tcp, service: s }"));
        ringway.reconfigure(&renamed(number));
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for client in clients {
        let (good, bad) = client.join().unwrap();
        assert!(bad.is_empty(), "{} failed: {:?}", bad.len(), &bad[..bad.len().min(3)]);
        total += good;
    }
    assert!(total > 0);
}

#[test]
fn backends_that_move_all_at_once_keep_their_counters_and_lose_their_connections() {
    let (old, new): (Vec<Backend>, Vec<Backend>) =
        (0..3).map(|index| (Backend::echo(&format!("old{index}")), Backend::echo(&format!("new{index}")))).unzip();
    let listen = free_address();
    let list = |fleet: &[Backend]| -> Vec<(String, SocketAddr)> {
        fleet.iter().enumerate().map(|(index, backend)| (format!("b{index}"), backend.address)).collect()
    };
    let config = |fleet: &[Backend]| {
        let list = list(fleet);
        let named: Vec<(&str, SocketAddr)> = list.iter().map(|(id, address)| (id.as_str(), *address)).collect();
        simple(listen, "balance: { policy: round_robin }", &named).replace("workers: 2", "workers: 1")
    };
    let ringway = Ringway::start(&config(&old));
    let six = |begin: &str| {
        for _ in 0..6 {
            assert!(get(listen, "/").unwrap().text().starts_with(begin));
        }
    };
    six("old");
    ringway.reconfigure(&config(&new));
    six("new");
    for index in 0..3 {
        let line = format!("ringway_backend_requests_total{{service=\"s\",backend=\"b{index}\"}}");
        assert_eq!(ringway.metric(&line), 4.0, "{line}");
    }
    wait_for("idle connections of before to be closed", || {
        (ringway.metric("ringway_upstream_idle_connections") == 3.0).then_some(())
    });
}

/// What a connection that is open is served from now on: the fields `connection` of its responses, and whether it has ended.
fn served(stream: &mut (impl Read + Write)) -> (Vec<Option<String>>, bool) {
    let mut closes = Vec::new();
    for _ in 0..5 {
        // A connection that ends may do so at any time.
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").and_then(|()| stream.flush());
        let Ok(answer) = asked.and_then(|()| try_read_answer(stream, true)) else { return (closes, true) };
        assert_eq!(answer.text(), "here");
        closes.push(answer.header("connection").map(str::to_owned));
    }
    (closes, false)
}

#[test]
fn connections_that_a_listeners_tls_would_not_let_in_any_more_end_and_others_stay() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:a.test", "2");
    certificates.issue("two", "DNS:a.test", "2");
    let backend = scripted(|_| response("200 OK", "", "here"));
    let (web, tls) = (free_address(), free_address());
    let config = |of_web: &str, of_tls: &str| {
        let listeners = format!(
            "  - {{ name: web, address: \"{web}\", service: s{of_web} }}\n\
             \x20 - {{ name: tls, address: \"{tls}\", service: s{of_tls} }}\n"
        );
        let text = peers::config(&listeners, &peers::service("s", "", &[("a", backend.address)]));
        format!("drain_spread: 2s\n{text}")
    };
    let with = |name: &str, more: &str| format!(", tls: {{ certificates: [ {} ]{more} }}", certificates.entry(name));
    let client = |mode: &str| format!(", client: {{ ca: \"{}\", certificate: {mode} }}", certificates.text("ca.pem"));
    let ringway = Ringway::start(&config("", &with("one", "")));
    let connect = |address: SocketAddr| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream
    };
    let secure = || {
        let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
        let config = load::tls_client(&certificates, "http/1.1");
        rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), connect(tls))
    };
    let (mut plain, mut kept, mut idle, mut http2) = (connect(web), secure(), connect(web), connect(web));
    let stays = (vec![None; 5], false);
    assert_eq!(
        (served(&mut plain), served(&mut kept), served(&mut idle)),
        (stays.clone(), stays.clone(), stays.clone())
    );
    // The preface and SETTINGS of a client, which are acknowledged.
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let frame = |stream: &mut TcpStream| {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        std::io::copy(&mut stream.take(length.into()), &mut std::io::sink()).unwrap();
        Some((head[3], head[4]))
    };
    while frame(&mut http2).expect("it is open") != (4, 1) {}

    // A renewed certificate, and one that a client may show, end nothing.
    ringway.reconfigure(&config("", &with("two", &client("optional"))));
    assert_eq!((served(&mut plain), served(&mut kept)), (stays.clone(), stays));

    ringway.reconfigure(&config(&with("one", ""), &with("two", &client("required"))));
    for (closes, ended) in [served(&mut plain), served(&mut kept)] {
        assert!(
            ended && closes.len() <= 1 && closes.iter().all(|close| close.as_deref() == Some("close")),
            "{closes:?}"
        );
    }
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "one that asks nothing ends too");
    let frames: Vec<_> = std::iter::from_fn(|| frame(&mut http2)).collect();
    assert!(frames.iter().any(|(kind, _)| *kind == 7), "GOAWAY in {frames:?}");

    // And back: who speaks TLS goes on with it no more.
    ringway.reconfigure(&config("", &with("two", "")));
    assert_eq!(served(&mut connect(web)).0.len(), 5);
    let mut kept = secure();
    assert_eq!(served(&mut kept).0.len(), 5);
    ringway.reconfigure(&config("", ""));
    let (closes, ended) = served(&mut kept);
    assert!(ended && closes.len() <= 1, "{closes:?}");
}
