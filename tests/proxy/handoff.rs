//! Hand-off: keys that a change moves go from backend to backend one by one, and nobody is let in on it from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod changing;
mod crowded;
mod told;

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
    // Whoever has a key serves it: nothing has been sent on from anybody.
    let of = |name: &str| ringway.metric(&format!("ringway_{name}_total{{service=\"s\"}}"));
    let keyed = of("keyed_requests");
    assert_eq!((of("owner_served"), of("spills"), of("spill_distance")), (keyed, 0.0, 0.0), "{keyed}");
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
fn a_key_whose_copy_fails_stays_and_is_copied_again_after_a_while() {
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
    // Once their next copies wait no more, which they do for a while after each that has failed.
    let ask_all = || {
        for key in &due {
            wait_for("a key that is copied", || {
                (explanation_of(&ringway, *key)["handoff"]["turn"] == "copied").then_some(())
            });
            assert_eq!(ask(listen, *key, ""), before[*key], "it has never answered");
        }
        wait_for_copies(&ringway);
    };
    for (round, mode) in [(1, 0), (2, 1)] {
        how.store(mode, Ordering::SeqCst);
        ask_all();
        let copies = (round * due.len()) as f64;
        assert_eq!((counter(&ringway, "copies_total"), counter(&ringway, "copies_failed_total")), (copies, copies));
    }
    how.store(2, Ordering::SeqCst);
    ask_all();
    assert!(due.iter().all(|key| ask(listen, *key, "") == "c"), "it has answered once");
    assert_eq!(counter(&ringway, "copies_failed_total") as usize, 2 * due.len());
    assert_eq!(with(&c, COPY).len(), 3 * due.len());
}

#[test]
fn a_key_that_its_next_owner_refuses_for_good_is_copied_a_few_times_however_often_it_is_asked_for() {
    let listen = free_address();
    let (a, b) = (Backend::echo("a"), scripted(|_| response("503 Service Unavailable", "", "b")));
    let all = [("a", a.address), ("b", b.address)];
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..1]));
    ringway.reconfigure(&config(listen, "window: 1h", &all));
    let key = (0..KEYS).find(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "copied").unwrap();
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(ask(listen, key, ""), "a");
        wait_for_copies(&ringway);
    }
    // After a quarter of a second, half of one, and so on.
    let waited = began.elapsed().as_millis() as f64 / 250.0;
    let most = 1.0 + (waited + 1.0).log2().floor();
    let copies = counter(&ringway, "copies_total");
    assert!((1.0..=most).contains(&copies), "{copies} copies, where {most} may be");
    assert_eq!(with(&b, COPY).len() as f64, copies);
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
fn four_more_backends_one_by_one_have_the_time_of_the_first_and_a_reload_changes_nothing() {
    let (fleet, listen) = (echoes(8), free_address());
    let all = targets(&fleet);
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..4]));
    let before = owners(listen);
    for count in 5..=8 {
        ringway.reconfigure(&config(listen, "window: 1h", &all[..count]));
    }
    let since = |ringway: &Ringway| {
        let status = ringway.status();
        let windows = status["services"][0]["handoffs"].as_array().unwrap().clone();
        windows.iter().map(|window| (window["since"].clone(), window["until"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(since(&ringway).len(), 4);
    assert!(since(&ringway).iter().all(|times| *times == since(&ringway)[0]), "{:?}", since(&ringway));
    assert_eq!(moved(&before, &owners(listen)), 0);
    wait_for_copies(&ringway);
    let second = owners(listen);
    wait_for_copies(&ringway);
    assert!(moved(&before, &second) > 5);
    // Another field of the service: what has been handed over stays so.
    ringway
        .reconfigure(&config(listen, "window: 1h", &all).replace("handoff:", "timeouts: { idle: 2h }\n    handoff:"));
    assert_eq!(handoffs(&ringway), 4);
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

const NO_COPIES: &str = "window: 1h, copy: { percent: 0 }";

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
    let spills = || ringway.metric("ringway_spills_total{service=\"s\"}");
    let owned = || ringway.metric("ringway_owner_served_total{service=\"s\"}");
    let before = (spills(), owned());
    assert_eq!(ask(listen, key, ""), "b");
    wait_for("the count of it", || (spills() > before.0).then_some(()));
    assert_eq!((spills(), owned()), (before.0 + 1.0, before.1), "its key is a's still: the bound has sent it on");
    holds.store(false, Ordering::SeqCst);
    assert_eq!(read_answer(&mut held, true).unwrap().text(), "a");
    wait_for("the count of it", || (owned() > before.1).then_some(()));
    assert_eq!(spills(), before.0 + 1.0);
    // It fails: the request is tried again, and nobody is sent to it for what it has.
    dead.store(true, Ordering::SeqCst);
    let told = with(&b, PREVIOUS).len();
    assert_eq!(ask(listen, key, ""), "b");
    assert_eq!(with(&b, PREVIOUS).len(), told);
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
