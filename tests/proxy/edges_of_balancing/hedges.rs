//! Second tries, and what they tell of the first.

use crate::common::*;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Closed until it is opened.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::default()
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let is_open = self.0.lock().unwrap();
        let _open = self.1.wait_timeout_while(is_open, patience(), |open| !*open).unwrap();
    }
}

/// Answers behind the gate; nothing is a close without a word.
fn behind(gate: &Arc<Gate>, answer: String) -> Backend {
    let gate = Arc::clone(gate);
    Backend::custom(move |mut stream, seen| {
        while let Some((head, _)) = read_request(&mut stream) {
            seen.lock().unwrap().push(head);
            gate.pass();
            if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Answers after so long.
fn slow(name: &'static str, pause: Duration) -> Backend {
    scripted(move |_| {
        takes(pause);
        response("200 OK", "", name)
    })
}

/// In the order of ids, by one worker, with nobody ejected.
fn in_order(listen: SocketAddr, service: &str, fleet: &[(&str, SocketAddr)]) -> String {
    let service = format!("balance: {{ policy: first }}\noutlier: {{ consecutive_failures: 0 }}\n{service}");
    simple(listen, &service, fleet).replace("workers: 2", "workers: 1")
}

fn answer(status: &str, name: &str) -> String {
    match status {
        "reset" => String::new(),
        status => response(&format!("{status} Status"), "", name),
    }
}

#[test]
fn what_hedging_is_not_to_take_waits_for_the_other_try() {
    // What the rival says at once, what the first says thereafter, and who is heard.
    for (rival, first, more, status, heard) in [
        ("503", "200", "", 200, "first"),
        ("429", "200", "", 200, "first"),
        ("502", "404", "", 404, "first"),
        ("500", "200", ", non_fatal: [ server_errors ]", 200, "first"),
        ("409", "200", ", non_fatal: [ conflict ]", 200, "first"),
        ("503", "503", "", 503, "first"),
        ("reset", "200", "", 200, "first"),
        // There is nothing better.
        ("503", "reset", "", 503, "rival"),
    ] {
        let (now, later) = (Gate::closed(), Gate::closed());
        now.open();
        let (a, b) = (behind(&later, answer(first, "first")), behind(&now, answer(rival, "rival")));
        let listen = free_address();
        let service = format!("hedge: {{ after: 50ms, budget: 100{more} }}\nretry: {{ attempts: 0 }}");
        let ringway = Ringway::start(&in_order(listen, &service, &[("a", a.address), ("b", b.address)]));
        let mut client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wait_for("the rival", || (b.requests().len() == 1).then_some(()));
        // Time for its answer to come; should it need longer, the test has only shown less.
        leave_time(Duration::from_millis(200));
        later.open();
        let got = read_answer(&mut client, true).unwrap();
        assert_eq!((got.status, got.text().as_str()), (status, heard), "{rival} beside {first}{more}");
        wait_for("both places", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
        let won = ringway.metric("ringway_hedges_won_total{service=\"s\"}");
        assert_eq!(won, f64::from(u8::from(heard == "rival")), "{rival} beside {first}{more}");
    }
}

#[test]
fn the_first_answer_that_wins_is_taken_while_the_other_is_waited_for() {
    for (rival, more) in [
        ("200", ""),
        ("404", ""),
        ("500", ""),
        ("409", ""),
        ("503", ", non_fatal: []"),
        ("429", ", non_fatal: [ gateway ]"),
    ] {
        let (now, never) = (Gate::closed(), Gate::closed());
        now.open();
        let (a, b) = (behind(&never, answer("200", "first")), behind(&now, answer(rival, "rival")));
        let listen = free_address();
        let service = format!("hedge: {{ after: 50ms, budget: 100{more} }}");
        let _ringway = Ringway::start(&in_order(listen, &service, &[("a", a.address), ("b", b.address)]));
        let got = get(listen, "/").unwrap();
        assert_eq!((got.status.to_string().as_str(), got.text().as_str()), (rival, "rival"), "{more}");
        never.open();
    }
}

#[test]
fn a_first_answer_that_is_none_waits_for_the_rivals() {
    for (first, rival, status, heard) in
        [("503", "200", 200, "rival"), ("503", "reset", 503, "first"), ("429", "503", 429, "first")]
    {
        let (soon, later) = (Gate::closed(), Gate::closed());
        let (a, b) = (behind(&soon, answer(first, "first")), behind(&later, answer(rival, "rival")));
        let listen = free_address();
        let service = "hedge: { after: 50ms, budget: 100 }\nretry: { attempts: 0 }";
        let ringway = Ringway::start(&in_order(listen, service, &[("a", a.address), ("b", b.address)]));
        let mut client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wait_for("the rival", || (b.requests().len() == 1).then_some(()));
        soon.open();
        leave_time(Duration::from_millis(200));
        later.open();
        let got = read_answer(&mut client, true).unwrap();
        assert_eq!((got.status, got.text().as_str()), (status, heard), "{first} beside {rival}");
        wait_for("both places", || (ringway.status()["services"][0]["in_flight"] == 0).then_some(()));
    }
}

#[test]
fn interim_answers_of_a_rival_and_of_a_first_try_decide_nothing() {
    let rival = format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{}", answer("200", "rival"));
    let (now, never) = (Gate::closed(), Gate::closed());
    now.open();
    let held = Arc::clone(&never);
    let a = Backend::custom(move |mut stream, seen| {
        let (head, _) = read_request(&mut stream).unwrap();
        seen.lock().unwrap().push(head);
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").unwrap();
        held.pass();
    });
    let b = behind(&now, rival);
    let listen = free_address();
    let service = "hedge: { after: 300ms, budget: 100 }";
    // The interim answer may have been the first try's last word before the second is due: then there is none.
    let _ringway = Ringway::start(&in_order(listen, service, &[("a", b.address), ("b", a.address)]));
    let mut client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut statuses = Vec::new();
    while statuses.last() != Some(&200) {
        statuses.push(read_answer(&mut client, true).unwrap().status);
    }
    assert_eq!(statuses, [103, 200]);
    never.open();
}

#[test]
fn a_retry_never_goes_where_the_rival_of_the_try_before_has_failed() {
    for (first_ends_first, rival) in [(true, "reset"), (false, "reset"), (false, "503")] {
        let (one, two) = (Gate::closed(), Gate::closed());
        let (a, b) = (behind(&one, answer("reset", "a")), behind(&two, answer(rival, "b")));
        let c = Backend::echo("c");
        let listen = free_address();
        let service = "hedge: { after: 50ms, budget: 100 }\nretry: { attempts: 1, on: [ reset, gateway ] }";
        let fleet = [("a", a.address), ("b", b.address), ("c", c.address)];
        let ringway = Ringway::start(&in_order(listen, service, &fleet));
        let mut client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wait_for("the rival", || (b.requests().len() == 1).then_some(()));
        let order = if first_ends_first { [&one, &two] } else { [&two, &one] };
        order[0].open();
        leave_time(Duration::from_millis(200));
        order[1].open();
        assert_eq!(read_answer(&mut client, true).unwrap().text(), "c");
        assert_eq!((a.requests().len(), b.requests().len(), c.requests().len()), (1, 1, 1));
        assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 1.0);
    }
}

#[test]
fn a_retry_is_a_try_of_its_own_and_is_hedged_as_the_first_was() {
    let (one, two, never) = (Gate::closed(), Gate::closed(), Gate::closed());
    let (a, b) = (behind(&one, answer("503", "a")), behind(&two, answer("503", "b")));
    let (c, d) = (behind(&never, answer("200", "c")), Backend::echo("d"));
    let listen = free_address();
    let service = "hedge: { after: 50ms, budget: 100, budget_min: 10 }\nretry: { attempts: 1, on: [ gateway ] }";
    let fleet = [("a", a.address), ("b", b.address), ("c", c.address), ("d", d.address)];
    let ringway = Ringway::start(&in_order(listen, service, &fleet));
    let mut client = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_for("the rival", || (b.requests().len() == 1).then_some(()));
    one.open();
    two.open();
    assert_eq!(read_answer(&mut client, true).unwrap().text(), "d");
    never.open();
    let seen = [&a, &b, &c, &d].map(|backend| backend.requests().len());
    assert_eq!(seen, [1, 1, 1, 1], "each try and the one beside it");
    assert_eq!(ringway.metric("ringway_hedges_total{service=\"s\"}"), 2.0);
    assert_eq!(ringway.metric("ringway_retries_total{service=\"s\"}"), 1.0);
}

#[test]
fn a_budget_of_nothing_hedges_never_and_a_floor_gives_a_seconds_worth_at_once() {
    for (budget, least) in [("budget: 0", 0), ("budget: 0, budget_min: 3", 3), ("budget: 10", 0)] {
        let gate = Gate::closed();
        let (a, b) = (behind(&gate, answer("200", "a")), behind(&gate, answer("200", "b")));
        let listen = free_address();
        let service = format!("hedge: {{ after: 50ms, {budget} }}");
        let ringway = Ringway::start(&in_order(listen, &service, &[("a", a.address), ("b", b.address)]));
        let hedges = |kind: &str| ringway.metric(&format!("ringway_hedge{kind}_total{{service=\"s\"}}"));
        // What comes after a quiet time is no more than a second's worth.
        takes(Duration::from_secs(3));
        let begin = Instant::now();
        let mut waiting: Vec<_> =
            (0..9).map(|_| send(listen, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).collect();
        wait_for("all to have been looked at", || (hedges("s") + hedges("_budget_exhausted") == 9.0).then_some(()));
        let most = f64::from(least) * (begin.elapsed().as_secs_f64() + 1.0);
        assert!(hedges("s") >= f64::from(least) && hedges("s") <= most, "{budget}: {} of {most}", hedges("s"));
        gate.open();
        for client in &mut waiting {
            assert_eq!(read_answer(client, true).unwrap().status, 200);
        }
    }
}

#[test]
fn hedging_does_not_hide_a_slow_backend_from_peak_ewma_nor_blame_the_rescuer() {
    let fleet = [
        ("a", slow("a", Duration::from_secs(2).mul_f64(slowness()))),
        ("b", Backend::echo("b")),
        ("c", Backend::echo("c")),
    ];
    let listen = free_address();
    // Far longer than the others take, however busy the machine is: a mean forgets no peak here.
    let after = Duration::from_millis(300).mul_f64(slowness());
    let service = format!(
        "balance: {{ policy: peak_ewma, decay: 120s }}\nhedge: {{ after: {}ms, budget: 100 }}",
        after.as_millis()
    );
    let config = simple(listen, &service, &targets(&fleet)).replace("workers: 2", "workers: 1");
    let ringway = Ringway::start(&config);
    for _ in 0..150 {
        assert_ne!(get(listen, "/").unwrap().text(), "a");
    }
    let tried = fleet[0].1.requests().len();
    assert!((1..=8).contains(&tried), "{tried} of 150 were tried on the slow one");
    let latency = |id: &str| backend_status(&ringway, id)["mean_latency_seconds"].as_f64().or_not_yet();
    let [a, b, c] = ["a", "b", "c"].map(latency);
    assert!(a > after.as_secs_f64() * 0.6, "it was waited for for {after:?}: {a}");
    assert!(b < a / 2.0 && c < a / 2.0, "{a} {b} {c}");
}

#[test]
fn the_latency_detector_ejects_the_backend_that_always_loses_and_no_other() {
    let fleet = [
        ("a", slow("a", Duration::from_secs(4).mul_f64(slowness()))),
        ("b", Backend::echo("b")),
        ("c", Backend::echo("c")),
        ("d", Backend::echo("d")),
    ];
    let listen = free_address();
    let service = "balance: { policy: round_robin }\nhedge: { after: 400ms, budget: 100 }\n\
        outlier: { latency: { factor: 4.0, least: 200ms, min_hosts: 3, min_volume: 3 }, interval: 2s, base_ejection: 300s, max_ejection: 300s }";
    let ringway = Ringway::start(&simple(listen, service, &targets(&fleet)));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    assert_ne!(get(listen, "/").unwrap().text(), "a");
                }
            })
        })
        .collect();
    wait_for("the ejection", || (backend_status(&ringway, "a")["state"] == "ejected").then_some(()));
    done.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    for id in ["b", "c", "d"] {
        assert_eq!(backend_status(&ringway, id)["state"], "up", "{id}");
    }
}

#[test]
fn a_try_whose_time_is_over_has_taken_that_long_for_the_detector() {
    let fleet = [
        ("a", slow("a", Duration::from_secs(6).mul_f64(slowness()))),
        ("b", Backend::echo("b")),
        ("c", Backend::echo("c")),
        ("d", Backend::echo("d")),
    ];
    let listen = free_address();
    let service = "balance: { policy: round_robin }\nretry: { per_try_timeout: 500ms, budget: 100 }\n\
        outlier: { consecutive_failures: 0, latency: { factor: 4.0, least: 250ms, min_hosts: 3, min_volume: 2 }, interval: 2s, base_ejection: 300s, max_ejection: 300s }";
    let ringway = Ringway::start(&simple(listen, service, &targets(&fleet)));
    wait_for("the ejection", || {
        assert_ne!(get(listen, "/")?.text(), "a");
        (backend_status(&ringway, "a")["state"] == "ejected").then_some(())
    });
    for id in ["b", "c", "d"] {
        assert_eq!(backend_status(&ringway, id)["state"], "up", "{id}");
    }
}

#[test]
fn a_rival_that_is_still_waited_for_when_the_first_answers_is_timed_too() {
    // The rival is asked, and never answers first.
    let gate = Gate::closed();
    let b = behind(&gate, answer("200", "b"));
    let seen = Arc::clone(&b.seen);
    let a = scripted(move |_| {
        wait_for("the rival", || (!seen.lock().unwrap().is_empty()).then_some(()));
        takes(Duration::from_millis(300));
        response("200 OK", "", "a")
    });
    let listen = free_address();
    let service = "balance: { policy: peak_ewma, decay: 300s }\nhedge: { after: 100ms, budget: 100 }";
    let config = simple(listen, service, &[("a", a.address), ("b", b.address)]).replace("workers: 2", "workers: 1");
    let ringway = Ringway::start(&config);
    // Whichever is asked first: `b` has been waited for since it was asked.
    assert_eq!(get(listen, "/").unwrap().text(), "a");
    let latency = |id: &str| backend_status(&ringway, id)["mean_latency_seconds"].as_f64().or_not_yet();
    wait_for("the time of the loser", || (latency("b") > 0.2).then_some(()));
    gate.open();
}
