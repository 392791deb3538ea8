//! Hand-off: keys that a change moves go from backend to backend one by one, and nobody is let in on it from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{peers, *};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const KEYS: usize = 300;
const COPY: &str = "x-ringway-handoff: copy";
const PREVIOUS: &str = "x-ringway-previous-owner: ";

/// A service that hands off within this window, with so many of the backends.
fn config(listen: SocketAddr, handoff: &str, backends: &[(&str, SocketAddr)]) -> String {
    let service = format!("balance: {{ hash_key: [ {{ header: x-key }} ] }}\nhandoff: {{ {handoff} }}");
    simple(listen, &service, backends)
}

fn ask(listen: SocketAddr, key: usize, fields: &str) -> String {
    let answer = get_with(listen, "/", &format!("X-Key: {key}\r\n{fields}")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn owners(listen: SocketAddr) -> Vec<String> {
    (0..KEYS).map(|key| ask(listen, key, "")).collect()
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

fn counter(ringway: &Ringway, name: &str) -> f64 {
    ringway.metric(&format!("ringway_handoff_{name}{{service=\"s\"}}"))
}

fn handoffs(ringway: &Ringway) -> usize {
    ringway.status()["services"][0]["handoffs"].as_array().map_or(0, Vec::len)
}

/// All copies have been answered: their keys are the next owners', or stay where they are.
fn wait_for_copies(ringway: &Ringway) {
    wait_for("the responses to copies", || {
        let status = ringway.status();
        let windows = status["services"][0]["handoffs"].as_array()?.clone();
        windows.iter().all(|window| window["copies_in_flight"] == 0).then_some(())
    });
}

/// The requests that a backend has got with this in their heads; names are written in lower case.
fn with(backend: &Backend, text: &str) -> Vec<String> {
    backend.requests().into_iter().filter(|head| head.contains(text)).collect()
}

#[test]
fn a_backend_that_joins_gets_each_key_with_a_copy_while_its_previous_owner_serves_it_once_more() {
    let (fleet, listen) = (echoes(5), free_address());
    let all = targets(&fleet);
    let log = tempfile::tempdir().unwrap();
    let (log, more) = (log.path().join("access.log"), log);
    let access = format!("workers: 2\naccess_log: {{ format: json, target: {log:?} }}");
    let of = |count: usize| config(listen, "window: 1h", &all[..count]).replace("workers: 2", &access);
    let ringway = Ringway::start(&of(4));
    let before = owners(listen);
    assert_eq!(handoffs(&ringway), 0);
    assert_eq!(counter(&ringway, "progress"), 1.0);
    ringway.reconfigure(&of(5));
    // At its beginning, a twentieth of them may be handed over; the others stay where they are, however often they are asked for.
    let first = owners(listen);
    assert_eq!(moved(&before, &first), 0, "the first request of each key is its previous owner's");
    let progress = counter(&ringway, "progress");
    assert!((0.05..0.06).contains(&progress), "{progress}");
    let copies = counter(&ringway, "copies_total") as usize;
    assert!((1..KEYS / 8).contains(&copies), "{copies}");
    let joined = &fleet[4].1;
    wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
    wait_for_copies(&ringway);
    let second = owners(listen);
    wait_for_copies(&ringway);
    let handed: BTreeMap<usize, &String> =
        before.iter().enumerate().filter(|(key, owner)| second[*key] != **owner).collect();
    assert!(handed.keys().all(|key| second[*key] == "e"));
    // No more are handed over meanwhile than what a few seconds of an hour are, and those that are stay.
    assert!(handed.len() <= copies + 2 && handed.len() + 2 >= copies, "{} of {copies}", handed.len());
    assert_eq!(owners(listen), second);
    assert_eq!(counter(&ringway, "moved_total") as usize, 2 * handed.len());
    assert!(counter(&ringway, "previous_total") > 100.0);
    assert_eq!(counter(&ringway, "copies_refused_total"), 0.0);
    for head in joined.requests() {
        let key: usize = head.lines().find_map(|line| line.strip_prefix("X-Key: ")).unwrap().parse().unwrap();
        let owner = &before[key];
        let address = all.iter().find(|(id, _)| id == owner).unwrap().1;
        assert!(head.contains(&format!("{PREVIOUS}{owner} {address}\r\n")), "{head}");
    }
    assert!(fleet[..4].iter().all(|(_, backend)| with(backend, "x-ringway-").is_empty()));
    for (word, count) in [("copied", copies), ("moved", 2 * handed.len())] {
        let text = format!("\"handoff\":\"{word}\"");
        wait_for("the access log", || {
            let lines = std::fs::read_to_string(&log).unwrap();
            (lines.lines().filter(|line| line.contains(&text)).count() >= count).then_some(())
        });
    }
    explained(&ringway, *handed.keys().next().unwrap(), "moved", "e", "e");
    let stays = (0..KEYS).find(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "previous");
    explained(&ringway, stays.unwrap(), "previous", &before[stays.unwrap()], "e");
    let status = ringway.status()["services"][0]["handoffs"][0].clone();
    assert!(status["until"].as_f64().unwrap() - status["since"].as_f64().unwrap() == 3600.0, "{status}");
    assert!(status["filter_fill"].as_f64().unwrap() > 0.0, "{status}");
    drop(more);
}

fn explanation(ringway: &Ringway, key: usize) -> serde_json::Value {
    let admin = ringway.admin.to_string();
    let arguments = ["explain", "--admin", &admin, "--service", "s", "--key", &key.to_string(), "--json"];
    serde_json::from_slice(&crate::common::ringway(&arguments).stdout).unwrap()
}

#[test]
fn a_key_whose_copy_fails_stays_and_is_copied_again_by_its_next_request() {
    let listen = free_address();
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let how = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&how);
    let c = Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head.clone());
            let text = match now.load(Ordering::SeqCst) {
                0 => response("503 Service Unavailable", "", "c"),
                // The connection breaks off in the midst of it.
                1 => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha".to_owned(),
                _ => response("200 OK", "", "c"),
            };
            if stream.write_all(text.as_bytes()).is_err() || !text.ends_with('c') {
                return;
            }
        }
    });
    let all = [("a", a.address), ("b", b.address), ("c", c.address)];
    let of = |count: usize| config(listen, "window: 1h", &all[..count]);
    let ringway = Ringway::start(&of(2));
    let before = owners(listen);
    ringway.reconfigure(&of(3));
    let due: Vec<usize> =
        (0..KEYS).filter(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "copied").collect();
    assert!(due.len() > 1, "{due:?}");
    for (round, mode) in [(1, 0), (2, 1)] {
        how.store(mode, Ordering::SeqCst);
        assert!(due.iter().all(|key| ask(listen, *key, "") == before[*key]));
        wait_for_copies(&ringway);
        let copies = (round * due.len()) as f64;
        assert_eq!((counter(&ringway, "copies_total"), counter(&ringway, "copies_failed_total")), (copies, copies));
        explained(&ringway, due[0], "copied", &before[due[0]], "c");
    }
    how.store(2, Ordering::SeqCst);
    assert!(due.iter().all(|key| ask(listen, *key, "") == before[*key]), "it has never answered");
    wait_for_copies(&ringway);
    assert!(due.iter().all(|key| ask(listen, *key, "") == "c"), "it has answered once");
    assert_eq!(counter(&ringway, "copies_failed_total") as usize, 2 * due.len());
    assert_eq!(with(&c, COPY).len(), 3 * due.len());
}

#[test]
fn while_a_copy_is_on_its_way_its_key_stays_and_no_other_copy_is_made() {
    let listen = free_address();
    let a = Backend::echo("a");
    let holds = Arc::new(AtomicBool::new(true));
    let waits = Arc::clone(&holds);
    let b = scripted(move |_| {
        // Held until the test says so.
        while waits.load(Ordering::SeqCst) {
            pace(std::time::Duration::from_millis(5));
        }
        response("200 OK", "", "b")
    });
    let all = [("a", a.address), ("b", b.address)];
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..1]));
    ringway.reconfigure(&config(listen, "window: 1h", &all));
    let key = (0..KEYS).find(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "copied").unwrap();
    assert!((0..3).all(|_| ask(listen, key, "") == "a"));
    wait_for("the copy", || (b.requests().len() == 1).then_some(()));
    explained(&ringway, key, "previous", "a", "b");
    assert_eq!(ringway.status()["services"][0]["handoffs"][0]["copies_in_flight"], 1);
    holds.store(false, Ordering::SeqCst);
    wait_for_copies(&ringway);
    assert_eq!((ask(listen, key, ""), counter(&ringway, "copies_total")), ("b".to_owned(), 1.0));
}

/// A backend that fails its checks while one of these is set, and holds what asks for `/hold` while the other is.
fn moody(name: &'static str, down: &Arc<AtomicBool>, holds: &Arc<AtomicBool>) -> Backend {
    let (down, holds) = (Arc::clone(down), Arc::clone(holds));
    scripted(move |head| match head.split(' ').nth(1) {
        Some("/check") if down.load(Ordering::SeqCst) => response("503 Service Unavailable", "", ""),
        Some("/hold") => {
            while holds.load(Ordering::SeqCst) {
                pace(std::time::Duration::from_millis(5));
            }
            response("200 OK", "", name)
        }
        _ => response("200 OK", "", name),
    })
}

#[test]
fn what_explain_says_of_a_moved_key_is_what_its_client_gets_whatever_its_owners_are() {
    let listen = free_address();
    let flags: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
    let holds = Arc::<AtomicBool>::default();
    let fleet: Vec<Backend> =
        ["a", "b", "c"].into_iter().zip(&flags).map(|(name, down)| moody(name, down, &holds)).collect();
    let all: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().zip(fleet.iter().map(|one| one.address)).collect();
    let checks = "health: { http: { path: /check }, interval: 50ms, fall: 1, rise: 1 }\n    handoff:";
    let of = |drain: &str| {
        let text = config(listen, "window: 1h", &all).replace("handoff:", checks);
        let text = text.replace("id: a,", &format!("id: a, {drain}requests_max: 1,"));
        text.replace("id: b,", "id: b, requests_max: 1,")
    };
    let ringway = Ringway::start(&of(""));
    for id in ["a", "b", "c"] {
        wait_for_health(&ringway, id, true);
    }
    ringway.reconfigure(&of("drain: true, "));
    let find = |turn: &str| {
        let said = (0..10 * KEYS).map(|key| (key, explanation_of(&ringway, key)));
        let mut found = said.filter(|(_, live)| live["handoff"]["turn"] == turn && live["handoff"]["next"] == "b");
        found.next().unwrap().0
    };
    let (stays, due) = (find("previous"), find("copied"));
    let agrees = |key: usize, turn: Option<&str>, backend: &str| {
        let live = explanation_of(&ringway, key);
        assert_eq!((live["handoff"]["turn"].as_str(), live["backend"].as_str()), (turn, Some(backend)), "{live}");
        assert_eq!(ask(listen, key, ""), backend, "{live}");
    };
    let put = |index: usize, down: bool| {
        flags[index].store(down, Ordering::SeqCst);
        wait_for_health(&ringway, ["a", "b", "c"][index], !down);
    };
    // The next owner is down: whoever has the key serves it, due or not, and a change too.
    put(1, true);
    agrees(stays, Some("previous"), "a");
    agrees(due, Some("previous"), "a");
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {due}\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(read_answer(&mut send(listen, post.as_bytes()), true).unwrap().text(), "a");
    put(1, false);
    // The next owner is full, then the previous one, then both.
    let hold = |key: usize, index: usize| {
        holds.store(true, Ordering::SeqCst);
        let seen = with(&fleet[index], "GET /hold").len();
        let held = send(listen, format!("GET /hold HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n").as_bytes());
        wait_for("a request that is held", || (with(&fleet[index], "GET /hold").len() > seen).then_some(()));
        held
    };
    let release = |held: std::net::TcpStream| {
        holds.store(false, Ordering::SeqCst);
        let mut held = held;
        read_answer(&mut held, true).unwrap();
    };
    let of_b = (0..).find(|key| {
        let live = explanation_of(&ringway, *key);
        live["handoff"].is_null() && live["backend"] == "b"
    });
    let held = hold(of_b.unwrap(), 1);
    agrees(stays, Some("previous"), "a");
    agrees(due, Some("previous"), "a");
    let other = hold(stays, 0);
    agrees(stays, Some("moved"), "c");
    agrees(due, Some("moved"), "c");
    release(held);
    drop(read_answer(&mut { other }, true));
    wait_for("places", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
    let held = hold(stays, 0);
    agrees(stays, Some("moved"), "b");
    release(held);
    wait_for("places", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
    agrees(stays, Some("previous"), "a");
    // All well: the key goes over, and does not come back, whatever its next owner is.
    agrees(due, Some("copied"), "a");
    wait_for_copies(&ringway);
    agrees(due, Some("moved"), "b");
    put(1, true);
    agrees(due, None, "c");
    put(1, false);
    agrees(due, Some("moved"), "b");
    // The previous owner is down: nobody waits for it, and its keys do not come back to it within the window.
    put(0, true);
    agrees(stays, None, "b");
    put(0, false);
    let live = explanation_of(&ringway, stays);
    assert!(live["handoff"].is_null() && live["backend"] == "b", "{live}");
    assert_eq!(ask(listen, stays, ""), "b");
}

/// The same, of the admin listener itself.
fn explanation_of(ringway: &Ringway, key: usize) -> serde_json::Value {
    let answer = get(ringway.admin, &format!("/explain?service=s&key={key}")).unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

fn wait_for_health(ringway: &Ringway, id: &str, healthy: bool) {
    wait_for("a check's result", || (backend_status(ringway, id)["check_failure"].is_null() == healthy).then_some(()));
}

fn explained(ringway: &Ringway, key: usize, turn: &str, backend: &str, next: &str) {
    let live = explanation(ringway, key);
    assert_eq!((&live["handoff"]["turn"], &live["handoff"]["next"]), (&turn.into(), &next.into()), "{live}");
    assert_eq!(live["backend"], backend, "{live}");
}

#[test]
fn at_its_end_all_keys_are_where_they_belong_and_nothing_is_said_of_it_any_more() {
    let (fleet, listen) = (echoes(5), free_address());
    let all = targets(&fleet);
    // The control: what belongs where, without a hand-off.
    let plain = |count: usize| config(listen, "window: 1s", &all[..count]).replace("handoff: { window: 1s }", "");
    let ringway = Ringway::start(&plain(5));
    let belongs = owners(listen);
    drop(ringway);
    let ringway = Ringway::start(&config(listen, "window: 1s", &all[..4]));
    let before = owners(listen);
    ringway.reconfigure(&config(listen, "window: 1s", &all));
    wait_for("the end of the window", || (handoffs(&ringway) == 0).then_some(()));
    let seen = fleet[4].1.requests().len();
    assert_eq!(owners(listen), belongs);
    assert!(moved(&before, &belongs) > 20);
    assert!(fleet[4].1.requests()[seen..].iter().all(|head| !head.contains("x-ringway-")));
    let events = get(ringway.admin, "/events").unwrap().text();
    assert!(events.contains("\"begun\"") && events.contains("\"over\""), "{events}");
    assert_eq!(counter(&ringway, "progress"), 1.0);
}

#[test]
fn a_backend_that_drains_gives_its_keys_up_within_the_window_and_is_left_alone_then() {
    let (fleet, listen) = (echoes(4), free_address());
    let all = targets(&fleet);
    let config = |window: &str, drain: bool| {
        let text = config(listen, &format!("window: {window}"), &all);
        if drain { text.replace("id: a,", "id: a, drain: true,") } else { text }
    };
    let ringway = Ringway::start(&config("1h", false));
    let before = owners(listen);
    ringway.reconfigure(&config("1h", true));
    assert_eq!(moved(&before, &owners(listen)), 0, "it is asked once more");
    wait_for_copies(&ringway);
    let second = owners(listen);
    assert!(before.iter().zip(&second).all(|(before, after)| before == after || before == "a"));
    let copied: usize = fleet[1..].iter().map(|(_, backend)| with(backend, COPY).len()).sum();
    assert!(copied > 0 && moved(&before, &second) > 0);
    // Gone from the configuration, it is gone.
    let gone = config("1h", false).replace(&format!("      - {{ id: a, address: \"{}\" }}\n", all[0].1), "");
    ringway.reconfigure(&gone);
    assert!(owners(listen).iter().all(|owner| owner != "a"));
    drop(ringway);
    let ringway = Ringway::start(&config("1s", false));
    assert_eq!(owners(listen), before);
    ringway.reconfigure(&config("1s", true));
    wait_for("the end of the window", || (handoffs(&ringway) == 0).then_some(()));
    assert!(owners(listen).iter().all(|owner| owner != "a"));
    // Maintenance waits for nobody.
    ringway.reconfigure(&config("1h", false));
    ringway.reconfigure(&config("1h", false).replace("id: b,", "id: b, maintenance: true,"));
    assert!(owners(listen).iter().all(|owner| owner != "b"));
}

#[test]
fn four_more_backends_one_by_one_are_as_one_change_and_a_reload_changes_nothing() {
    let (fleet, listen) = (echoes(8), free_address());
    let all = targets(&fleet);
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..4]));
    let before = owners(listen);
    for count in 5..=8 {
        ringway.reconfigure(&config(listen, "window: 1h", &all[..count]));
    }
    assert_eq!(handoffs(&ringway), 1);
    assert_eq!(moved(&before, &owners(listen)), 0);
    wait_for_copies(&ringway);
    let second = owners(listen);
    wait_for_copies(&ringway);
    assert!(moved(&before, &second) > 5);
    // Another field of the service: what has been handed over stays so.
    ringway
        .reconfigure(&config(listen, "window: 1h", &all).replace("handoff:", "timeouts: { idle: 2h }\n    handoff:"));
    assert_eq!(handoffs(&ringway), 1);
    assert_eq!(moved(&second, &owners(listen)), 0);
}

#[test]
fn what_changes_something_is_not_copied_and_goes_to_the_next_owner_when_its_time_has_come() {
    let (fleet, listen) = (echoes(5), free_address());
    let all = targets(&fleet);
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..4]));
    let before = owners(listen);
    ringway.reconfigure(&config(listen, "window: 1h", &all));
    let post = |key: usize| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 2\r\n\r\nhi");
        read_answer(&mut send(listen, head.as_bytes()), true).unwrap().text()
    };
    let after: Vec<String> = (0..KEYS).map(post).collect();
    assert!(moved(&before, &after) > 0);
    let joined = &fleet[4].1;
    assert_eq!((counter(&ringway, "copies_total"), with(joined, COPY).len()), (0.0, 0));
    assert!(joined.requests().iter().all(|request| request.contains(PREVIOUS) && request.ends_with("hi")));
    // A GET with a body is none that is copied either.
    let key = (0..KEYS).find(|key| after[*key] == "e").unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(read_answer(&mut send(listen, head.as_bytes()), true).unwrap().text(), "e");
    assert_eq!(counter(&ringway, "copies_total"), 0.0);
    // What was written there is read there: no key goes back behind a change.
    assert_eq!(ask(listen, key, ""), "e");
    assert_eq!(counter(&ringway, "copies_total"), 0.0);
}

#[test]
fn a_request_that_brings_no_content_moves_no_key_and_copies_ask_for_the_whole() {
    let (fleet, listen) = (echoes(3), free_address());
    let all = targets(&fleet);
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..2]));
    let before = owners(listen);
    ringway.reconfigure(&config(listen, "window: 1h", &all));
    let head = |key: usize| format!("HEAD / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n");
    for key in 0..KEYS {
        read_answer(&mut send(listen, head(key).as_bytes()), false).unwrap();
    }
    let joined = &fleet[2].1;
    assert_eq!((counter(&ringway, "copies_total"), joined.requests().len()), (0.0, 0));
    let partial = "If-None-Match: \"a\"\r\nRange: bytes=0-1\r\nIf-Range: \"a\"\r\nX-Kept: yes\r\n";
    assert!((0..KEYS).all(|key| ask(listen, key, partial) == before[key]));
    let copies = counter(&ringway, "copies_total") as usize;
    wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
    assert!(copies > 0);
    for copy in with(joined, COPY) {
        let read = copy.to_ascii_lowercase();
        assert!(read.contains("x-kept: yes") && !read.contains("if-") && !read.contains("range:"), "{copy}");
    }
}

#[test]
fn copies_say_nothing_of_who_the_client_is_unless_that_is_wanted() {
    for (credentials, named) in [("", 0), (", copy: { credentials: true }", 1)] {
        let (fleet, listen) = (echoes(3), free_address());
        let all = targets(&fleet);
        let handoff = format!("window: 1h{credentials}");
        let ringway = Ringway::start(&config(listen, &handoff, &all[..2]));
        ringway.reconfigure(&config(listen, &handoff, &all));
        let secret = "Authorization: Basic c2VjcmV0\r\nCookie: sid=secret\r\nAccept: text/plain\r\n";
        (0..KEYS).for_each(|key| drop(ask(listen, key, secret)));
        let copies = counter(&ringway, "copies_total") as usize;
        let joined = &fleet[2].1;
        if named == 0 {
            // They are sent once: to the next owner, who is told of the previous one.
            assert_eq!((copies, with(joined, COPY).len()), (0, 0));
            assert!(joined.requests().iter().all(|request| request.contains(PREVIOUS)));
            assert!(!joined.requests().is_empty());
            continue;
        }
        wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
        for head in with(joined, COPY) {
            for field in ["Authorization: Basic c2VjcmV0\r\n", "Cookie: sid=secret\r\n"] {
                assert_eq!(head.matches(field).count(), named, "{head}");
            }
            assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("Accept: text/plain\r\n"), "{head}");
        }
        assert!(copies > 0);
    }
}

#[test]
fn credentials_that_a_route_adds_or_takes_away_count_as_they_are_sent_and_explain_says_so() {
    let secret = "authorization: Basic c2VjcmV0";
    let added = "set: [ { name: authorization, value: Basic c2VjcmV0 } ]";
    for (edits, field, copied) in [(added, "accept: */*", false), ("remove: [ Authorization ]", secret, true)] {
        let (fleet, listen) = (echoes(3), free_address());
        let all = targets(&fleet);
        let of = |backends: &[(&str, SocketAddr)]| {
            let route = format!("routes: [ {{ service: s, request_headers: {{ {edits} }} }} ]");
            config(listen, "window: 1h", backends).replace("service: s }", &format!("{route} }}"))
        };
        let ringway = Ringway::start(&of(&all[..2]));
        ringway.reconfigure(&of(&all));
        let (admin, joined) = (ringway.admin.to_string(), all[2].0);
        let mut seen = BTreeMap::new();
        for key in 0..KEYS {
            // Only keys that may go now: of each of the others it is said that it stays.
            if !matches!(explanation_of(&ringway, key)["handoff"]["turn"].as_str(), Some("copied" | "moved")) {
                continue;
            }
            let key_field = format!("x-key: {key}");
            let arguments = [
                "explain",
                "--admin",
                &admin,
                "--request",
                "GET /",
                "-H",
                "host: a",
                "-H",
                &key_field,
                "-H",
                field,
                "--json",
            ];
            let live: serde_json::Value = serde_json::from_slice(&crate::common::ringway(&arguments).stdout).unwrap();
            let turn = live["explanation"]["handoff"]["turn"].as_str().unwrap_or_default().to_owned();
            let got = ask(listen, key, &format!("{field}\r\n"));
            assert_eq!(
                (turn.as_str(), got == joined),
                if copied { ("copied", false) } else { ("moved", true) },
                "{live}"
            );
            *seen.entry(turn).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

#[test]
fn no_client_names_a_previous_owner_nor_calls_its_request_a_copy() {
    let (fleet, listen) = (echoes(2), free_address());
    let all = targets(&fleet);
    // Not even a hop that is trusted.
    let trusts = format!("address: \"{listen}\", forwarded: {{ trusted: [ 127.0.0.0/8 ] }},");
    let named = config(listen, "header: x-before", &all).replace(&format!("address: \"{listen}\","), &trusts);
    let _ringway = Ringway::start(&named);
    let forged =
        "X-Before: evil 10.0.0.1:80\r\nx_before: evil 10.0.0.1:80\r\nX-Ringway-Handoff: copy\r\nX-Kept: yes\r\n";
    ask(listen, 1, forged);
    if require("curl").is_some() {
        let url = format!("http://{listen}/");
        let fields = ["-H", "x-key: 1", "-H", "x-before: evil", "-H", "x-ringway-handoff: copy", "-H", "x-kept: yes"];
        output("curl", &[&["-s", "--http2-prior-knowledge"][..], &fields, &[&url]].concat());
    }
    // Nor in trailers.
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\nTransfer-Encoding: chunked\r\nTrailer: x-before\r\nX-Kept: yes\r\n\r\n\
                   2\r\nhi\r\n0\r\nX-Before: evil 10.0.0.1:80\r\n\r\n";
    assert_eq!(read_answer(&mut send(listen, chunked.as_bytes()), true).unwrap().status, 200);
    let requests: Vec<String> = fleet.iter().flat_map(|(_, backend)| backend.requests()).collect();
    assert!(requests.len() >= 2);
    for request in requests {
        let request = request.to_ascii_lowercase();
        assert!(request.contains("x-kept: yes") && !request.contains("evil") && !request.contains("copy"), "{request}");
    }
}

/// Keys that a third backend has taken over, without copies, and who had each before. Backends `a` and `b` are there from the beginning.
fn taken_over(ringway: &Ringway, listen: SocketAddr, of: &dyn Fn(usize) -> String) -> Vec<(usize, String)> {
    let before = owners(listen);
    ringway.reconfigure(&of(3));
    let after = owners(listen);
    let moved = before.into_iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    let moved: Vec<(usize, String)> = moved.map(|(key, (before, _))| (key, before)).collect();
    assert!(!moved.is_empty() && moved.len() < KEYS / 8, "{moved:?}");
    moved
}

const NO_COPIES: &str = "window: 1h, copy: { percent: 0 }";

#[test]
fn whatever_a_client_says_of_previous_owners_while_keys_move_the_next_one_is_told_once_and_by_ringway() {
    let (fleet, listen) = (echoes(3), free_address());
    let all = targets(&fleet);
    // Not even a hop that is trusted is let in on it.
    let trusts = format!("address: \"{listen}\", forwarded: {{ trusted: [ 127.0.0.0/8 ] }},");
    let of =
        |count: usize| config(listen, NO_COPIES, &all[..count]).replace(&format!("address: \"{listen}\","), &trusts);
    let ringway = Ringway::start(&of(2));
    let moved = taken_over(&ringway, listen, &of);
    let (key, previous) = &moved[0];
    let address = all.iter().find(|(id, _)| id == previous).unwrap().1;
    let joined = &fleet[2].1;
    let seen = joined.requests().len();
    let told = counter(&ringway, "moved_total");
    let mut sent = 0;
    for forged in [
        "X-Ringway-Previous-Owner: evil 10.0.0.1:80\r\n",
        "x_ringway_previous_owner: evil 10.0.0.1:80\r\n",
        "x-ringway_Previous-owner: evil 10.0.0.1:80\r\nx-ringway-previous-owner: evil 10.0.0.2:80\r\n",
        "Connection: x-ringway-previous-owner\r\nX-Ringway-Previous-Owner: evil 10.0.0.1:80\r\n",
        "Connection: x-ringway-previous-owner, keep-alive\r\n",
        "X-Ringway-Handoff: copy\r\n",
    ] {
        assert_eq!(ask(listen, *key, &format!("X-Kept: yes\r\n{forged}")), "c");
        sent += 1;
    }
    // In a trailer, announced and not.
    for announced in ["", "Trailer: x-ringway-previous-owner\r\n"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nX-Kept: yes\r\nTransfer-Encoding: chunked\r\n{announced}\r\n\
             2\r\nhi\r\n0\r\nX-Ringway-Previous-Owner: evil 10.0.0.1:80\r\nx_ringway_previous_owner: evil 10.0.0.1:80\r\n\r\n"
        );
        assert_eq!(read_answer(&mut send(listen, request.as_bytes()), true).unwrap().text(), "c");
        sent += 1;
    }
    if require("curl").is_some() {
        let url = format!("http://{listen}/");
        let owner = format!("x-key: {key}");
        for forged in ["x-ringway-previous-owner: evil 10.0.0.1:80", "x_ringway_previous_owner: evil 10.0.0.1:80"] {
            let fields = ["--http2-prior-knowledge", "-H", &owner, "-H", "x-kept: yes", "-H", forged, &url];
            assert_eq!(peers::curl_body(&fields), "c");
            sent += 1;
        }
    }
    let requests = joined.requests().split_off(seen);
    assert_eq!((requests.len(), counter(&ringway, "moved_total") - told), (sent, sent as f64));
    for request in requests {
        let line = format!("\r\n{PREVIOUS}{previous} {address}\r\n");
        assert!(request.contains(&line), "{request}");
        let read = request.to_ascii_lowercase().replace('_', "-");
        assert_eq!((read.matches("previous-owner:").count(), read.matches("x-kept: yes").count()), (1, 1), "{request}");
        assert!(!read.contains("evil") && !read.contains("x-ringway-handoff"), "{request}");
    }
    // Whoever has a key that does not move is told nothing, and nothing of the client's.
    assert!(fleet[..2].iter().all(|(_, backend)| with(backend, "x-ringway-").is_empty()));
    let stays = (0..KEYS).find(|key| moved.iter().all(|(moved, _)| moved != key)).unwrap();
    ask(listen, stays, "X-Ringway-Previous-Owner: evil 10.0.0.1:80\r\nx_ringway_previous_owner: evil\r\n");
    assert!(fleet.iter().all(|(_, backend)| with(backend, "evil").is_empty()));
}

#[test]
fn over_tls_the_next_owner_is_told_once_too() {
    let Some(certificates) = peers::Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "1");
    let (fleet, listen, inner) = (echoes(3), free_address(), [free_address(), free_address(), free_address()]);
    // Each backend is a listener of Ringway's with TLS, with an echo behind it that shows what came.
    let listener = |index: usize| {
        format!(
            "  - {{ name: i{index}, address: \"{}\", service: e{index}, forwarded: {{ trusted: [ 127.0.0.0/8 ] }}, \
             tls: {{ certificates: [ {} ] }} }}\n",
            inner[index],
            certificates.entry("one")
        )
    };
    let behind = peers::config(
        &(0..3).map(listener).collect::<String>(),
        &(0..3)
            .map(|index| peers::service(&format!("e{index}"), "", &[("x", fleet[index].1.address)]))
            .collect::<String>(),
    );
    let _behind = Ringway::start(&behind);
    let ids = [("a", inner[0]), ("b", inner[1]), ("c", inner[2])];
    let tls = format!("tls: {{ ca: \"{}\", sni: one.test }}\n    handoff:", certificates.text("ca.pem"));
    let of = |count: usize| config(listen, NO_COPIES, &ids[..count]).replace("handoff:", &tls);
    let ringway = Ringway::start(&of(2));
    for (key, previous) in taken_over(&ringway, listen, &of) {
        assert_eq!(ask(listen, key, ""), "c");
        let address = ids.iter().find(|(id, _)| *id == previous).unwrap().1;
        let last = fleet[2].1.requests().pop().unwrap();
        assert!(last.contains(&format!("\r\n{PREVIOUS}{previous} {address}\r\n")), "{last}");
    }
    assert!(fleet[2].1.requests().iter().all(|request| request.matches(PREVIOUS).count() == 1));
}

#[test]
fn a_request_that_is_tried_again_on_the_next_owner_tells_it_once_each_time_and_is_counted_once() {
    let listen = free_address();
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = Arc::clone(&failing);
    // So many of its responses are ones that are tried again.
    let c =
        scripted(move |_| match fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => response("503 Service Unavailable", "", "c"),
            Err(_) => response("200 OK", "", "c"),
        });
    let all = [("a", a.address), ("b", b.address), ("c", c.address)];
    let of = |count: usize| {
        let retry = "retry: { attempts: 2, same_backend: always, on: [ gateway ] }\n    handoff:";
        config(listen, NO_COPIES, &all[..count]).replace("handoff:", retry)
    };
    let ringway = Ringway::start(&of(2));
    let moved = taken_over(&ringway, listen, &of);
    let (key, previous) = &moved[0];
    let (seen, told) = (c.requests().len(), counter(&ringway, "moved_total"));
    failing.store(2, Ordering::SeqCst);
    assert_eq!(ask(listen, *key, "X-Kept: yes\r\n"), "c");
    let requests = c.requests().split_off(seen);
    assert_eq!((requests.len(), counter(&ringway, "moved_total") - told), (3, 1.0));
    let address = all.iter().find(|(id, _)| id == previous).unwrap().1;
    for request in &requests {
        assert_eq!((request, request.matches(PREVIOUS).count()), (&requests[0], 1));
        assert!(request.contains("X-Kept: yes\r\n") && request.contains(&format!("{previous} {address}\r\n")));
    }
    // Tried elsewhere, nobody is told there.
    ringway.reconfigure(&of(3).replace("same_backend: always", "same_backend: never"));
    failing.store(1, Ordering::SeqCst);
    let elsewhere = ask(listen, *key, "X-Tried: again\r\n");
    assert!(elsewhere != "c" && with(&c, "X-Tried: again").len() == 1, "{elsewhere}");
    let others: Vec<String> = [&a, &b].iter().flat_map(|backend| with(backend, "X-Tried: again")).collect();
    assert!(others.len() == 1 && !others[0].contains(PREVIOUS), "{others:?}");
}

#[test]
fn where_the_previous_owner_fails_or_is_full_the_next_one_serves() {
    let listen = free_address();
    let dead = Arc::new(AtomicBool::new(false));
    let (closes, holds) = (Arc::clone(&dead), Arc::new(AtomicBool::new(false)));
    let waits = Arc::clone(&holds);
    let a = Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            if closes.load(Ordering::SeqCst) {
                return;
            }
            seen.lock().unwrap().push(head);
            // Held until the test says so: it is full meanwhile.
            while waits.load(Ordering::SeqCst) {
                pace(std::time::Duration::from_millis(5));
            }
            if stream.write_all(response("200 OK", "", "a").as_bytes()).is_err() {
                return;
            }
        }
    });
    let b = Backend::echo("b");
    let all = [("a", a.address), ("b", b.address)];
    let of = |count: usize| {
        config(listen, "window: 1h, copy: { percent: 0 }", &all[..count]).replace("id: a,", "id: a, requests_max: 1,")
    };
    let ringway = Ringway::start(&of(1));
    ringway.reconfigure(&of(2));
    let key = (0..KEYS).find(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "previous").unwrap();
    assert_eq!(ask(listen, key, ""), "a");
    // Full: one request holds its only place.
    holds.store(true, Ordering::SeqCst);
    let seen = a.requests().len();
    let mut held = send(listen, format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n").as_bytes());
    wait_for("a request that is held", || (a.requests().len() > seen).then_some(()));
    assert_eq!(ask(listen, key, ""), "b");
    holds.store(false, Ordering::SeqCst);
    assert_eq!(read_answer(&mut held, true).unwrap().text(), "a");
    // It fails: the request is tried again, and nobody is sent to it for what it has.
    dead.store(true, Ordering::SeqCst);
    let told = with(&b, PREVIOUS).len();
    assert_eq!(ask(listen, key, ""), "b");
    assert_eq!(with(&b, PREVIOUS).len(), told);
}

#[test]
fn over_http2_the_next_owner_is_told_and_copies_are_marked_too() {
    let (fleet, listen, inner) = (echoes(3), free_address(), [free_address(), free_address(), free_address()]);
    // Each backend is a listener of Ringway's that speaks HTTP/2, with an echo behind it that shows what came.
    let listener = |index: usize| {
        let address = inner[index];
        format!(
            "  - {{ name: i{index}, address: \"{address}\", service: e{index}, forwarded: {{ trusted: [ 127.0.0.0/8 ] }} }}\n"
        )
    };
    let echo = |index: usize| {
        format!("  - {{ name: e{index}, backends: [ {{ id: x, address: \"{}\" }} ] }}\n", fleet[index].1.address)
    };
    let behind = format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n{}services:\n{}",
        (0..3).map(listener).collect::<String>(),
        (0..3).map(echo).collect::<String>()
    );
    let _behind = Ringway::start(&behind);
    let ids = [("a", inner[0]), ("b", inner[1]), ("c", inner[2])];
    let of =
        |count: usize| config(listen, "window: 1h", &ids[..count]).replace("handoff:", "protocol: h2\n    handoff:");
    let ringway = Ringway::start(&of(2));
    ringway.reconfigure(&of(3));
    let fields = "If-None-Match: \"a\"\r\n";
    let first: Vec<String> = (0..KEYS).map(|key| ask(listen, key, fields)).collect();
    assert!(first.iter().all(|owner| owner != "c"));
    let copies = counter(&ringway, "copies_total") as usize;
    let joined = &fleet[2].1;
    wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
    wait_for_copies(&ringway);
    let second: Vec<String> = (0..KEYS).map(|key| ask(listen, key, fields)).collect();
    let count = moved(&first, &second);
    assert!(copies > 0 && count + 2 >= copies, "{count} of {copies}");
    for head in with(joined, "GET ") {
        assert!(head.contains(PREVIOUS), "{head}");
        assert_eq!(head.contains(COPY), !head.to_ascii_lowercase().contains("if-none-match: "), "{head}");
    }
}

/// Asks for all keys over one connection of HTTP/2, fifty at a time, and prints whoever answers.
const ALL_KEYS: &str = r#"
client, count = Client(sys.argv[1]), int(sys.argv[3])
for first in range(1, count + 1, 50):
    asked = [client.request(path=f"/{sys.argv[2]}/{key}") for key in range(first, min(first + 50, count + 1))]
    client.pump(lambda: all(client.streams[stream]["ended"] for stream in asked))
    print(b"".join(client.streams[stream]["text"] for stream in asked).decode(), end="")
"#;

#[test]
fn whatever_versions_clients_and_backends_speak_a_key_goes_over_once_and_for_all_of_them() {
    if require("curl").is_none() || require_python("h2").is_none() {
        return;
    }
    let fleet = echoes(3);
    let inner = [free_address(), free_address(), free_address()];
    // The backends of `t` are listeners of Ringway's that speak HTTP/2, with the echoes behind them that those of `s` are themselves.
    let listener = |index: usize| {
        let (address, trusts) = (inner[index], "forwarded: { trusted: [ 127.0.0.0/8 ] }");
        format!("  - {{ name: i{index}, address: \"{address}\", service: e{index}, {trusts} }}\n")
    };
    let echo = |index: usize| peers::service(&format!("e{index}"), "", &[("x", fleet[index].1.address)]);
    let listeners: String = (0..3).map(listener).collect();
    let _behind = Ringway::start(&peers::config(&listeners, &(0..3).map(echo).collect::<String>()));
    let (s, t) = (free_address(), free_address());
    let of = |count: usize| {
        // Many at once: none is to go elsewhere because an owner is full.
        let handoff =
            "balance: { hash_key: [ { path: {} } ], bounded_load: { preset: off } }, handoff: { window: 1h },";
        let http1: Vec<(&str, SocketAddr)> = targets(&fleet)[..count].to_vec();
        let http2: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().zip(inner).take(count).collect();
        peers::config(
            &format!(
                "  - {{ name: s, address: \"{s}\", service: s }}\n  - {{ name: t, address: \"{t}\", service: t }}\n"
            ),
            &(peers::service("s", handoff, &http1) + &peers::service("t", &format!("protocol: h2, {handoff}"), &http2)),
        )
    };
    let ringway = Ringway::start(&of(2));
    let counted = |service: &str, name: &str| {
        ringway.metric(&format!("ringway_handoff_{name}_total{{service=\"{service}\"}}")) as usize
    };
    type Version<'a> = &'a dyn Fn(SocketAddr, &str) -> String;
    // All keys over one connection, each backend's name a letter.
    let http1 = |listen: SocketAddr, service: &str| -> String {
        peers::curl_body(&["--http1.1", &format!("http://{listen}/{service}/[1-{KEYS}]")])
    };
    let http2 = |listen: SocketAddr, service: &str| -> String {
        let script = format!("{}{ALL_KEYS}", include_str!("../python/h2client.py"));
        let arguments = [listen.to_string(), service.to_owned(), KEYS.to_string()];
        let done = Command::new("python3").args(["-c", &script]).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let all = |version: Version<'_>, listen: SocketAddr, service: &str| -> Vec<char> {
        let owners = version(listen, service);
        assert_eq!(owners.len(), KEYS, "{owners}");
        owners.chars().collect()
    };
    let before = [all(&http1, s, "s"), all(&http2, t, "t")];
    ringway.reconfigure(&of(3));
    let joined = &fleet[2].1;
    let versions: [[Version<'_>; 3]; 2] = [[&http2, &http1, &http2], [&http2, &http2, &http1]];
    for ((service, listen, before), versions) in [("s", s, &before[0]), ("t", t, &before[1])].into_iter().zip(versions)
    {
        assert_eq!(&all(versions[0], listen, service), before, "{service}: each is served once more by who has it");
        wait_for("the responses to copies", || {
            let status = ringway.status();
            let services = status["services"].as_array()?.clone();
            let windows = services.iter().flat_map(|service| service["handoffs"].as_array().into_iter().flatten());
            windows.map(|window| window["copies_in_flight"] == 0).reduce(|all, one| all && one)?.then_some(())
        });
        let copies = counted(service, "copies");
        assert_eq!(with(joined, COPY).iter().filter(|head| head.contains(&format!("/{service}/"))).count(), copies);
        let second = all(versions[1], listen, service);
        let moved: Vec<usize> = (0..KEYS).filter(|key| second[*key] != before[*key]).collect();
        assert!(copies > 0 && moved.len() == copies, "{service}: {moved:?} of {copies}");
        assert!(moved.iter().all(|key| second[*key] == 'c'));
        let third = all(versions[2], listen, service);
        assert!(moved.iter().all(|key| third[*key] == 'c'), "{service}: none goes back, whatever its client speaks");
        for key in moved {
            let heads = with(joined, &format!("GET /{service}/{} ", key + 1));
            assert_eq!(heads.len(), 3, "a copy, and two requests: {heads:?}");
            let told = format!("{PREVIOUS}{} ", before[key]);
            assert!(heads.iter().all(|head| head.matches(&told).count() == 1), "{heads:?}");
            assert_eq!(heads.iter().filter(|head| head.contains(COPY)).count(), 1, "{heads:?}");
        }
    }
}

#[test]
fn a_cache_that_is_drained_for_a_window_and_comes_back_empty_costs_none_of_the_keys_that_it_gets_back_a_miss() {
    let listen = free_address();
    let held: Vec<Arc<Mutex<HashSet<String>>>> = (0..3).map(|_| Arc::default()).collect();
    let cache = |index: usize| {
        let held = Arc::clone(&held[index]);
        scripted(move |head| {
            let key = head.lines().find(|line| line.starts_with("X-Key: ")).unwrap_or_default().to_owned();
            let hit = if held.lock().unwrap().insert(key) { "miss" } else { "hit" };
            response("200 OK", "", &format!("{} {hit}", ["a", "b", "c"][index]))
        })
    };
    let fleet: Vec<Backend> = (0..3).map(cache).collect();
    let all: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().zip(fleet.iter().map(|one| one.address)).collect();
    let of = |window: &str, drain: bool| {
        let text = config(listen, &format!("window: {window}"), &all);
        if drain { text.replace("id: a,", "id: a, drain: true,") } else { text }
    };
    let ringway = Ringway::start(&of("1s", false));
    let first = owners(listen);
    assert!(first.iter().all(|answer| answer.ends_with("miss")), "nobody has anything");
    ringway.reconfigure(&of("1s", true));
    wait_for("the end of the window", || (handoffs(&ringway) == 0).then_some(()));
    owners(listen);
    let without = owners(listen);
    assert!(without.iter().all(|answer| !answer.starts_with('a') && answer.ends_with("hit")));
    // It is started again, with nothing.
    held[0].lock().unwrap().clear();
    ringway.reconfigure(&of("1h", false));
    assert_eq!(owners(listen), without, "whoever has its keys serves them once more");
    wait_for_copies(&ringway);
    let second = owners(listen);
    assert!(second.iter().all(|answer| answer.ends_with("hit")));
    let back: Vec<usize> = (0..KEYS).filter(|key| second[*key] != without[*key]).collect();
    assert!(!back.is_empty() && back.iter().all(|key| second[*key] == "a hit" && first[*key] == "a miss"), "{back:?}");
}

#[test]
fn copies_beyond_their_limit_are_not_made_and_their_keys_stay() {
    let (fleet, listen) = (echoes(4), free_address());
    let all = targets(&fleet);
    let none = "window: 1h, copy: { in_flight_max: 0 }";
    let ringway = Ringway::start(&config(listen, none, &all[..3]));
    let before = owners(listen);
    ringway.reconfigure(&config(listen, none, &all));
    assert_eq!((moved(&before, &owners(listen)), moved(&before, &owners(listen))), (0, 0));
    assert_eq!(counter(&ringway, "copies_total"), 0.0);
    assert!(counter(&ringway, "copies_refused_total") > 1.0);
    assert!(fleet[3].1.requests().is_empty());
}
