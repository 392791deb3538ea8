//! A limit on each backend's requests in flight that follows its latency.

use crate::common::*;
use crate::edges_of_balancing::limits::{Gate, gated, held};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Works on so many requests at once, a few milliseconds each; the others wait.
#[derive(Clone)]
struct Desk(Arc<(Mutex<(usize, usize)>, Condvar)>);

impl Desk {
    fn new(places: usize) -> Self {
        Self(Arc::new((Mutex::new((places, 0)), Condvar::new())))
    }

    fn resize(&self, places: usize) {
        self.0.0.lock().unwrap().0 = places;
        self.0.1.notify_all();
    }

    fn work(&self) {
        let (state, freed) = &*self.0;
        let mut held = freed.wait_while(state.lock().unwrap(), |(places, taken)| taken >= places).unwrap();
        held.1 += 1;
        drop(held);
        takes(Duration::from_millis(4));
        state.lock().unwrap().1 -= 1;
        freed.notify_one();
    }
}

/// Clients that each send one request after the other, and wait a little when they are refused.
struct Crowd {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn of(count: usize, listen: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut stream = send(listen, b"");
                while !stop.load(SeqCst) {
                    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                    match read_answer(&mut stream, true).unwrap().status {
                        200 => {}
                        503 => pace(Duration::from_millis(4)),
                        status => panic!("{status}"),
                    }
                }
            })
        };
        let clients = (0..count).map(client).collect();
        Self { stop, clients }
    }

    fn end(self) {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

fn limit_of(ringway: &Ringway, id: &str) -> u64 {
    backend_status(ringway, id)["concurrency_limit"].as_u64().unwrap_or(u64::MAX)
}

/// A metric of one of the backends.
fn count(ringway: &Ringway, name: &str, id: &str) -> f64 {
    ringway.metric(&format!("ringway_backend_{name}{{service=\"s\",backend=\"{id}\"}}"))
}

#[test]
fn a_limit_falls_with_half_of_the_capacity_others_take_over_and_it_recovers() {
    let desk = Desk::new(64);
    let small = desk.clone();
    let a = scripted(move |_| {
        small.work();
        response("200 OK", "", "a")
    });
    let other = Desk::new(64);
    let b = scripted(move |_| {
        other.work();
        response("200 OK", "", "b")
    });
    let listen = free_address();
    let config = |more: &str| {
        let text = format!(
            "balance: {{ policy: round_robin, bounded_load: {{ preset: off }} }}\nadaptive_concurrency: {{ limit_max: 200{more} }}"
        );
        simple(listen, &text, &[("a", a.address), ("b", b.address)])
    };
    let ringway = Ringway::start(&config(""));
    let crowd = Crowd::of(48, listen);
    wait_for("the limit to rise", || (limit_of(&ringway, "a") >= 30).then_some(()));
    // Far less than half: the clients bring no more than they get back.
    desk.resize(1);
    wait_for("the limit to fall", || (limit_of(&ringway, "a") <= 12).then_some(()));
    wait_for("its queue to be gone", || (backend_status(&ringway, "a")["in_flight"].as_u64()? <= 15).then_some(()));
    assert!(count(&ringway, "concurrency_limited_total", "a") > 0.0);
    // Nothing goes on there any more: what it has stays below its limit, and the clients that it does not hold are served.
    desk.resize(0);
    let requests = |id: &str| count(&ringway, "requests_total", id);
    let of_b = requests("b");
    wait_for("the other one to take over", || (requests("b") - of_b > 200.0).then_some(()));
    assert!(backend_status(&ringway, "a")["in_flight"].as_u64().unwrap() <= 15);
    // What is known of it outlives a change.
    ringway.reconfigure(&config(", tolerance: 1.6"));
    assert!(limit_of(&ringway, "a") <= 15, "{}", limit_of(&ringway, "a"));
    desk.resize(64);
    wait_for("the limit to rise again", || (limit_of(&ringway, "a") >= 18).then_some(()));
    crowd.end();
    for id in ["a", "b"] {
        assert_eq!(
            (count(&ringway, "failures_total", id), &backend_status(&ringway, id)["state"]),
            (0.0, &"up".into())
        );
    }
}

#[test]
fn a_request_that_finds_all_backends_at_their_limits_is_refused_at_once() {
    let Some(()) = require("curl") else { return };
    let gate = Gate::default();
    let a = gated("a", &gate);
    let listen = free_address();
    let config = |limit: &str| {
        let text = format!("balance: {{ policy: ring, bounded_load: {{ all_full: reject }} }}\n{limit}");
        simple(listen, &text, &[("a", a.address)])
    };
    let limited = |most: u32| config(&format!("adaptive_concurrency: {{ limit_min: 1, limit_max: {most} }}"));
    let ringway = Ringway::start(&limited(2));
    let in_flight = |count: u64| {
        wait_for("requests to be in flight", || (backend_status(&ringway, "a")["in_flight"] == count).then_some(()));
    };
    let ask = || peers::curl_body(&["-w", " %{http_code}", &format!("http://{listen}/")]);
    let mut waiting = vec![held(listen), held(listen)];
    in_flight(2);
    // The backend answers none that is in flight: this one never got there.
    assert!(ask().ends_with(" 503"), "{}", ask());
    assert_eq!((limit_of(&ringway, "a"), count(&ringway, "concurrency_limit", "a")), (2, 2.0));
    assert!(count(&ringway, "concurrency_limited_total", "a") >= 1.0);
    let explained = String::from_utf8(
        crate::common::ringway(&["explain", "--admin", &ringway.admin.to_string(), "--service", "s", "--key", "k"])
            .stdout,
    );
    assert!(explained.unwrap().contains("full: at the limit that follows its latency"));
    // Bounds that have changed hold at once, for what is under way too.
    ringway.reconfigure(&limited(3));
    waiting.push(held(listen));
    in_flight(3);
    ringway.reconfigure(&limited(1));
    assert!(ask().ends_with(" 503"));
    ringway.reconfigure(&config("limits: {}"));
    assert_eq!(ask(), "a 200");
    assert_eq!(limit_of(&ringway, "a"), u64::MAX);
    gate.open();
    for mut stream in waiting {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 200);
    }
}

#[test]
fn a_request_waits_in_the_queue_for_a_backend_at_its_limit_and_responses_that_overload_lower_it() {
    let busy = Arc::<AtomicBool>::default();
    let says = Arc::clone(&busy);
    let gate = Gate::default();
    let opened = gate.clone();
    let a = scripted(move |head| {
        if head.starts_with("GET /held ") {
            opened.pass();
        }
        let status = if says.load(SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        response(status, "", "a")
    });
    let listen = free_address();
    let text = "balance: { policy: round_robin, bounded_load: { all_full: queue, queue: { timeout: 1h } } }\n\
                retry: { attempts: 0 }\nadaptive_concurrency: { limit_min: 1, limit_max: 2 }";
    let ringway = Ringway::start(&simple(listen, text, &[("a", a.address)]));
    let streams: Vec<_> = (0..4).map(|_| held(listen)).collect();
    wait_for("two to wait", || (ringway.status()["services"][0]["waiting"] == 2).then_some(()));
    assert_eq!(backend_status(&ringway, "a")["in_flight"], 2);
    busy.store(true, SeqCst);
    gate.open();
    for mut stream in streams {
        assert_eq!(read_answer(&mut stream, true).unwrap().status, 503);
    }
    // One at a time is half of it: less would not lower it.
    wait_for("refusals to lower the limit", || {
        (0..20).for_each(|_| assert_eq!(get(listen, "/").unwrap().status, 503));
        (limit_of(&ringway, "a") == 1).then_some(())
    });
}

#[test]
fn streams_that_stay_open_once_their_responses_have_begun_leave_the_limit_to_others() {
    let a = scripted(|head| match head.starts_with("GET /stream ") {
        true => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun".to_owned(),
        false => response("200 OK", "", "a"),
    });
    let listen = free_address();
    let text = "balance: { policy: ring, bounded_load: { all_full: reject } }\n\
                adaptive_concurrency: { limit_min: 1, limit_max: 2 }";
    let ringway = Ringway::start(&simple(listen, text, &[("a", a.address)]));
    let open = |_| {
        let mut stream = send(listen, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"begun") {
            let mut bytes = [0; 512];
            let count = std::io::Read::read(&mut stream, &mut bytes).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&bytes[..count]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
        stream
    };
    let streams: Vec<_> = (0..6).map(open).collect();
    assert_eq!(get(listen, "/").unwrap().text(), "a");
    assert_eq!((backend_status(&ringway, "a")["in_flight"].as_u64(), limit_of(&ringway, "a")), (Some(6), 2));
    // They leave by a reset: who only says no more may still want the rest.
    for stream in &streams {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(streams);
    wait_for("the streams to end", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
    assert_eq!(get(listen, "/").unwrap().text(), "a");
}
