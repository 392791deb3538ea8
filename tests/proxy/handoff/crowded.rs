//! Hand-off beside limits, and changes that come one upon the other.

use super::*;

/// A backend that holds copies until it is told not to.
fn slow_to_copies(name: &'static str, holds: &Arc<AtomicBool>) -> Backend {
    let holds = Arc::clone(holds);
    scripted(move |head| {
        while head.contains(COPY) && holds.load(Ordering::SeqCst) {
            pace(std::time::Duration::from_millis(5));
        }
        response("200 OK", "", name)
    })
}

#[test]
fn copies_leave_the_places_of_a_limit_on_connections_to_requests() {
    let listen = free_address();
    let holds = Arc::new(AtomicBool::new(true));
    let (a, b, c) = (Backend::echo("a"), Backend::echo("b"), slow_to_copies("c", &holds));
    let all = [("a", a.address), ("b", b.address), ("c", c.address)];
    for bound in ["off", "balanced"] {
        let text = |count: usize| {
            let service = format!(
                "balance: {{ hash_key: [ {{ header: x-key }} ], bounded_load: {{ preset: {bound} }} }}\n\
                 handoff: {{ window: 1h }}\n\
                 limits: {{ connections_max: 12 }}"
            );
            simple(listen, &service, &all[..count])
        };
        let ringway = Ringway::start(&text(2));
        ringway.reconfigure(&text(3));
        // Each key that may go over finds a place for its copy, or stays: eight at a time are asked, of twelve.
        std::thread::scope(|scope| {
            for client in 0..8 {
                scope.spawn(move || {
                    for key in (client..4 * KEYS).step_by(8) {
                        ask(listen, key, "");
                    }
                });
            }
        });
        let status = ringway.status();
        let copying = status["services"][0]["handoffs"][0]["copies_in_flight"].as_u64().unwrap();
        assert!((1..=3).contains(&copying), "a quarter of the places is what copies may have: {copying}");
        assert!(counter(&ringway, "copies_refused_total") > 0.0, "the others are counted");
        assert_eq!(counter(&ringway, "moved_total"), 0.0, "no key goes over cold, where its previous owner has room");
    }
    holds.store(false, Ordering::SeqCst);
}

#[test]
fn what_was_written_is_read_however_soon_the_next_change_comes() {
    let (fleet, listen) = (echoes(4), free_address());
    let all = targets(&fleet);
    let ringway = Ringway::start(&config(listen, "window: 1h", &all[..2]));
    ringway.reconfigure(&config(listen, "window: 1h", &all[..3]));
    // Keys that are due go where they are written.
    let due: Vec<usize> =
        (0..4 * KEYS).filter(|key| explanation_of(&ringway, *key)["handoff"]["turn"] == "copied").collect();
    let written: Vec<(usize, String)> = due
        .into_iter()
        .map(|key| {
            let head =
                format!("PUT / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
            let answer = read_answer(&mut send(listen, head.as_bytes()), true).unwrap();
            (key, answer.text())
        })
        .collect();
    assert!(written.len() > 5 && written.iter().all(|(_, holder)| holder == "c"));
    ringway.reconfigure(&config(listen, "window: 1h", &all));
    let mut moved = 0;
    for (key, _) in &written {
        let said = explanation_of(&ringway, *key);
        if said["handoff"]["next"] == "d" {
            assert_eq!(said["handoff"]["previous"], "c", "key {key}: {}", said["handoff"]);
            assert_eq!(ask(listen, *key, ""), "c");
            moved += 1;
        }
    }
    assert!(moved > 0, "d gets some of what c has had");
}
