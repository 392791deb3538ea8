//! Who a client is, request after request: affinity cookies, addresses behind trusted hops, keys, hosts by all their names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A browser, as far as one host's cookies go: by name alone, so it sends back what was set last.
#[derive(Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    fn get(&mut self, listen: SocketAddr, path: &str, fields: &str) -> Answer {
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let line = if cookies.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
        let answer = get_with(listen, path, &format!("{line}{fields}")).unwrap();
        for line in answer.head.lines() {
            let Some(cookie) = line.strip_prefix("set-cookie: ") else { continue };
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.0.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

/// A service: its name, its balance, its backends.
type Service<'a> = (&'a str, &'a str, &'a [(&'static str, SocketAddr)]);

/// A proxy with these routes in front of these services.
fn proxy(routes: &str, services: &[Service<'_>]) -> (Ringway, SocketAddr) {
    let listen = free_address();
    let mut text = format!(
        "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n  - name: web\n    address: \"{listen}\"\n    \
         routes:\n{routes}services:\n"
    );
    for (name, balance, backends) in services {
        text.push_str(&format!("  - name: {name}\n    balance: {{ {balance} }}\n    backends:\n"));
        for (id, address) in *backends {
            text.push_str(&format!("      - {{ id: {id}, address: \"{address}\" }}\n"));
        }
    }
    (Ringway::start(&text), listen)
}

const SECRET: &str = "secret: 0123456789abcdef";

#[test]
fn services_on_one_host_leave_each_others_clients_where_they_are() {
    for policy in ["ring", "round_robin"] {
        let fleet = echoes(4);
        let balance = format!("policy: {policy}, affinity_cookie: {{ {SECRET} }}");
        let (ringway, listen) = proxy(
            "      - { match: { path_prefix: /api }, service: api }\n      - { service: web }\n",
            &[("api", &balance, &targets(&fleet)), ("web", &balance, &targets(&fleet))],
        );
        for _ in 0..8 {
            let mut browser = Browser::default();
            let (api, web) = (browser.get(listen, "/api", "").text(), browser.get(listen, "/", "").text());
            assert_eq!(browser.0.len(), 2, "{policy}: a cookie for each service: {:?}", browser.0);
            for _ in 0..3 {
                let again = browser.get(listen, "/api", "");
                assert_eq!((again.text(), again.header("set-cookie")), (api.clone(), None), "{policy}");
                let again = browser.get(listen, "/", "");
                assert_eq!((again.text(), again.header("set-cookie")), (web.clone(), None), "{policy}");
            }
        }
        drop(ringway);
    }
}

#[test]
fn a_stale_cookie_of_the_same_name_does_not_hide_the_good_one() {
    for policy in ["ring", "least_request"] {
        let fleet = echoes(4);
        let balance = format!("policy: {policy}, affinity_cookie: {{ name: sid, {SECRET} }}");
        let older = "affinity_cookie: { name: sid, secret: fedcba9876543210 }";
        let (ringway, listen) = proxy(
            "      - { match: { path: /other }, service: other }\n      - { match: { path: /older }, service: older }\n\
             \x20     - { service: s }\n",
            &[
                ("s", &balance, &targets(&fleet)),
                ("other", &balance, &targets(&fleet)),
                ("older", older, &targets(&fleet)),
            ],
        );
        let cookie = |path: &str| {
            let answer = get(listen, path).unwrap();
            let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
            (cookie, answer.text())
        };
        let (good, home) = cookie("/");
        let stale = [cookie("/other").0, cookie("/older").0, "sid=ringway".to_owned(), "sid=".to_owned()];
        for stale in &stale {
            for fields in [
                format!("Cookie: {stale}; {good}\r\n"),
                format!("Cookie: {good}; {stale}\r\n"),
                format!("Cookie: {stale}\r\nCookie: a=b; {good}\r\n"),
            ] {
                for _ in 0..4 {
                    let answer = get_with(listen, "/", &fields).unwrap();
                    assert_eq!((answer.text(), answer.header("set-cookie")), (home.clone(), None), "{policy} {fields}");
                }
            }
            // Alone, it is nobody's: another service's cookie is not a key here.
            let fields = format!("Cookie: {stale}\r\n");
            assert!(get_with(listen, "/", &fields).unwrap().header("set-cookie").is_some(), "{policy} {fields}");
        }
        drop(ringway);
    }
}

#[test]
fn a_client_without_a_split_key_stays_in_the_arm_that_it_was_drawn_into() {
    let (main, next) = (echoes(2), [("n", Backend::echo("n"))]);
    let cookie = format!("affinity_cookie: {{ {SECRET} }}");
    let keyless = format!("policy: round_robin, {cookie}");
    // In the last row one arm alone has a cookie: its clients, and those of the other, are held by one after it.
    for (of_main, of_next) in [(cookie.as_str(), cookie.as_str()), (&keyless, &keyless), (&cookie, "policy: ring")] {
        let (ringway, listen) = proxy(
            "      - split: [ { service: main, weight: 50 }, { service: next, weight: 50 } ]\n        \
             split_key: [ { header: x-user } ]\n",
            &[("main", of_main, &targets(&main)), ("next", of_next, &[("n", next[0].1.address)])],
        );
        let mut arms = BTreeSet::new();
        for _ in 0..12 {
            let mut browser = Browser::default();
            let first = browser.get(listen, "/", "").text();
            for _ in 0..6 {
                assert_eq!(browser.get(listen, "/", "").text() == "n", first == "n", "{of_main} | {of_next}");
            }
            // Who has a key goes by the key, whatever cookies say.
            let by_key = |browser: &mut Browser| browser.get(listen, "/", "X-User: u7\r\n").text() == "n";
            let keyed = by_key(&mut Browser::default());
            assert_eq!(by_key(&mut browser), keyed);
            arms.insert(first == "n");
        }
        assert_eq!(arms.len(), 2, "both arms have clients");
        drop(ringway);
    }
}

#[test]
fn clients_behind_trusted_hops_are_told_apart_however_the_hops_write_addresses() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let log = tempfile::NamedTempFile::new().unwrap();
    for trusted in ["\"::ffff:127.0.0.0/104\"", "127.0.0.0/8"] {
        let config = simple(listen, "rate_limit: { requests: 1, per: 1h }", &[("a", backend.address)])
            .replace("service: s }", &format!("service: s, forwarded: {{ trusted: [ {trusted} ] }} }}"))
            .replace(
                "workers: 2\n",
                &format!("workers: 2\naccess_log: {{ format: json, target: {:?} }}\n", log.path()),
            );
        let ringway = Ringway::start(&config);
        let status = |chain: &str| get_with(listen, "/", &format!("X-Forwarded-For: {chain}\r\n")).unwrap().status;
        for (index, rest) in
            ["", ", ::ffff:127.0.0.9", ", [::ffff:127.0.0.9]:81", ", ,127.0.0.9,", ",", ":4711, 127.0.0.9:80"]
                .iter()
                .enumerate()
        {
            assert_eq!(status(&format!("192.0.2.{index}{rest}")), 200, "{trusted} {rest}: a client of its own");
            assert_eq!(
                status(&format!("::ffff:192.0.2.{index}")),
                429,
                "{trusted} {rest}: and the same when it comes again"
            );
        }
        // What is no address ends the way back: those share the hop's limit.
        assert_eq!((status("192.0.2.77, unknown"), status("192.0.2.78, _hidden")), (200, 429), "{trusted}");
        wait_for("the log", || {
            let text = std::fs::read_to_string(log.path()).unwrap();
            let lines = text.lines().filter(|line| line.contains("\"client\":\"192.0.2.3\"")).count();
            (lines >= 2).then_some(())
        });
        drop(ringway);
    }
}

#[test]
fn forwarded_is_believed_where_it_is_what_hops_write_and_then_alone() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let config = simple(listen, "", &[("a", backend.address)]).replace(
        "service: s }",
        "service: s, forwarded: { trusted: [ 127.0.0.0/8 ], source: forwarded, forwarded: true } }",
    );
    let ringway = Ringway::start(&config);
    let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n\
                  Forwarded: for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https, for=127.0.0.9\r\n";
    get_with(listen, "/", fields).unwrap();
    let request = backend.requests()[0].to_ascii_lowercase();
    assert!(
        request.contains(
            "x-forwarded-for: 2001:db8::1, 127.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: test\r\n"
        ),
        "{request}"
    );
    assert!(request.contains(", for=127.0.0.9, for=127.0.0.1;proto=http;host=\"test\"\r\n"), "{request}");
    assert!(!request.contains("6.6.6.6") && !request.contains("evil"), "{request}");
    drop(ringway);
}

#[test]
fn a_scheme_that_is_none_reaches_neither_location_nor_backend() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let config = simple(listen, "", &[("a", backend.address)]).replace(
        "service: s }",
        "forwarded: { trusted: [ 127.0.0.0/8 ] }, routes: [ { match: { path: /r }, redirect: { path: /to } }, { service: s } ] }",
    );
    let ringway = Ringway::start(&config);
    for (told, scheme) in [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("https, http", "http"),
        ("https\r\nX-Forwarded-Proto: https", "http"),
        ("javascript:alert(1)//", "http"),
        ("", "http"),
    ] {
        let fields = format!("X-Forwarded-Proto: {told}\r\n");
        let location = get_with(listen, "/r", &fields).unwrap().header("location").unwrap().to_owned();
        assert_eq!(location, format!("{scheme}://test/to"), "{told}");
        get_with(listen, "/", &fields).unwrap();
        let request = backend.requests().pop().unwrap().to_ascii_lowercase();
        let lines: Vec<&str> = request.lines().filter(|line| line.starts_with("x-forwarded-proto:")).collect();
        assert_eq!(lines, [format!("x-forwarded-proto: {scheme}")], "{told}");
    }
    drop(ringway);
}

/// A raw request on a connection of its own; gives the body of its response.
fn ask(listen: SocketAddr, head: &str) -> String {
    let mut stream = send(listen, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
    let answer = read_answer(&mut stream, true).unwrap_or_else(|| panic!("no response to {head:?}"));
    assert_eq!(answer.status, 200, "{head:?}: {}", answer.head);
    answer.text()
}

#[test]
fn a_host_is_one_route_and_one_key_by_all_its_names() {
    let fleet = echoes(4);
    for key in ["host: {}", "header: host"] {
        let (ringway, listen) = proxy(
            "      - { match: { host: \"*.example.\" }, service: s }\n",
            &[("s", &format!("hash_key: [ {{ {key} }} ], on_missing: reject"), &targets(&fleet))],
        );
        for index in 0..8 {
            let name = format!("shop{index}.example");
            let home = ask(listen, &format!("GET / HTTP/1.1\r\nHost: {name}"));
            for head in [
                format!("GET / HTTP/1.1\r\nHost: {name}."),
                format!("GET / HTTP/1.1\r\nHost: {}:80", name.to_uppercase()),
                format!("GET / HTTP/1.1\r\nHost: {name}.:80"),
                format!("GET http://{name}:80/ HTTP/1.1\r\nHost: {name}"),
                format!("GET http://{name} HTTP/1.1\r\nHost: {name}.:80"),
            ] {
                assert_eq!(ask(listen, &head), home, "{key}: {head:?}");
            }
        }
        let seen: Vec<String> = fleet.iter().flat_map(|(_, backend)| backend.requests()).collect();
        assert!(seen.iter().any(|head| head.contains("Host: SHOP0.EXAMPLE:80\r\n")), "it goes on as it was written");
        drop(ringway);
    }
}

#[test]
fn an_empty_value_of_a_key_hides_no_later_one() {
    let fleet = echoes(4);
    for (key, plain, later) in [
        (
            "cookie: sid",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=NAME",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=; sid=NAME",
        ),
        (
            "cookie: sid",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=NAME",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=\r\nCookie: a=b; sid=NAME",
        ),
        ("query: room", "GET /?room=NAME HTTP/1.1\r\nHost: a", "GET /?room=&room=NAME HTTP/1.1\r\nHost: a"),
        (
            "header: x-user",
            "GET / HTTP/1.1\r\nHost: a\r\nX-User: NAME",
            "GET / HTTP/1.1\r\nHost: a\r\nX-User:\r\nX-User: NAME",
        ),
    ] {
        let balance = format!("hash_key: [ {{ {key} }} ], on_missing: reject");
        let (ringway, listen) = proxy("      - { service: s }\n", &[("s", &balance, &targets(&fleet))]);
        for index in 0..6 {
            let name = format!("alice{index}");
            let home = ask(listen, &plain.replace("NAME", &name));
            assert_eq!(ask(listen, &later.replace("NAME", &name)), home, "{later}");
        }
        drop(ringway);
    }
}

#[test]
fn redirections_write_a_host_in_one_way_and_leave_out_its_schemes_own_port() {
    let listen = free_address();
    let config = simple(listen, "", &[("a", free_address())])
        .replace("service: s }", "forwarded: { trusted: [ 127.0.0.0/8 ] }, routes: [ { redirect: { path: /to } } ] }");
    let ringway = Ringway::start(&config);
    for (host, proto, expected) in [
        ("Plain.Test.:80", "http", "http://plain.test/to"),
        ("plain.test:", "http", "http://plain.test/to"),
        ("plain.test:81", "http", "http://plain.test:81/to"),
        ("plain.test:443", "https", "https://plain.test/to"),
        ("plain.test:80", "https", "https://plain.test:80/to"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let answer = read_answer(&mut send(listen, request.as_bytes()), false).unwrap();
        assert_eq!(answer.header("location"), Some(expected), "{host}");
    }
    drop(ringway);
}
