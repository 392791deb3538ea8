//! Keys that are changed while they are handed over: what was changed is read.

use super::*;

/// A backend that holds what changes something until the test says so, and what has come to it.
fn holding(name: &'static str, holds: &Arc<AtomicBool>) -> Backend {
    let holds = Arc::clone(holds);
    scripted(move |head| {
        while head.starts_with("POST") && holds.load(Ordering::SeqCst) {
            pace(std::time::Duration::from_millis(5));
        }
        response("200 OK", "", name)
    })
}

fn post(listen: SocketAddr, key: usize) -> std::net::TcpStream {
    send(listen, format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 2\r\n\r\nhi").as_bytes())
}

fn text_of(ringway: &Ringway, key: usize) -> String {
    explanation_of(ringway, key)["handoff"]["text"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_key_that_is_being_changed_at_its_previous_owner_is_copied_only_once_that_is_done() {
    let listen = free_address();
    let holds = Arc::new(AtomicBool::new(true));
    let (a, b) = (holding("a", &holds), Backend::echo("b"));
    let all = [("a", a.address), ("b", b.address)];
    let of = |count: usize| config(listen, "window: 2m", &all[..count]);
    let ringway = Ringway::start(&of(1));
    ringway.reconfigure(&of(2));
    // Their time has not come, and comes for some of them within seconds.
    let early: Vec<usize> = (0..KEYS)
        .filter(|key| text_of(&ringway, *key) == "it stays with its previous owner for now")
        .take(40)
        .collect();
    assert_eq!(early.len(), 40);
    let mut changes: Vec<_> = early.iter().map(|key| post(listen, *key)).collect();
    wait_for("the changes", || (a.requests().len() == early.len()).then_some(()));
    let due = wait_for("a key whose time has come", || {
        early.iter().copied().find(|key| text_of(&ringway, *key).contains("something changes it at its previous owner"))
    });
    let copied = |key: usize| with(&b, &format!("X-Key: {key}\r\n")).len();
    assert!((0..3).all(|_| ask(listen, due, "") == "a"));
    wait_for_copies(&ringway);
    assert_eq!(copied(due), 0, "what it would have been told is of before the change");
    holds.store(false, Ordering::SeqCst);
    for change in &mut changes {
        assert_eq!(read_answer(change, true).unwrap().text(), "a");
    }
    wait_for("the end of the changes", || {
        explanation_of(&ringway, due)["handoff"]["turn"].as_str().filter(|turn| *turn == "copied").map(|_| ())
    });
    assert_eq!(ask(listen, due, ""), "a");
    wait_for_copies(&ringway);
    assert_eq!((ask(listen, due, ""), copied(due)), ("b".to_owned(), 2));
}

#[test]
fn a_change_that_finds_the_previous_owner_full_is_read_where_it_was_made() {
    let listen = free_address();
    let holds = Arc::new(AtomicBool::new(true));
    let (a, b) = (holding("a", &holds), Backend::echo("b"));
    let all = [("a", a.address), ("b", b.address)];
    let of = |count: usize| config(listen, "window: 1h", &all[..count]).replace("id: a,", "id: a, requests_max: 1,");
    let ringway = Ringway::start(&of(1));
    ringway.reconfigure(&of(2));
    let stays = |key: &usize| text_of(&ringway, *key) == "it stays with its previous owner for now";
    let keys: Vec<usize> = (0..KEYS).filter(stays).take(2).collect();
    let mut held = post(listen, keys[0]);
    wait_for("a change that is held", || (a.requests().len() == 1).then_some(()));
    assert_eq!(read_answer(&mut post(listen, keys[1]), true).unwrap().text(), "b", "a is full");
    holds.store(false, Ordering::SeqCst);
    assert_eq!(read_answer(&mut held, true).unwrap().text(), "a");
    // Its only place is free again.
    wait_for("the place", || (ask(listen, keys[0], "") == "a").then_some(()));
    assert_eq!(ask(listen, keys[1], ""), "b", "where it was changed");
    assert_eq!(counter(&ringway, "copies_total"), 0.0);
}
