//! What is stopped as the process's memory, time, connections or descriptors come to their end, and what never is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod priority;

use crate::common::*;
use crate::hostile::python_h2;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

const STAGES: [&str; 5] = ["normal", "stop_keep_alive", "shed_low_priority", "refuse_requests", "stop_accepting"];

/// An HTTP listener, and others for sessions and flows, with this section of overload.
fn config(overload: &str, http: SocketAddr, raw: SocketAddr, backend: SocketAddr) -> String {
    let listeners = format!(
        "service: s }}, {{ name: raw, protocol: tcp, address: \"{raw}\", service: s }}, {{ name: flows, protocol: udp, \
         address: \"{raw}\", service: s }} ]"
    );
    let text = simple(http, "health: { tcp: {}, interval: 50ms }", &[("a", backend)]);
    format!("overload: {{ {overload} }}\n{}", text.replace("service: s } ]", &listeners))
}

fn wait_for_stage(ringway: &Ringway, stage: &str) {
    wait_for(stage, || (ringway.status()["overload"] == stage).then_some(()));
    let number = STAGES.iter().position(|name| *name == stage).unwrap();
    assert_eq!(ringway.metric("ringway_overload_stage"), number as f64);
}

fn entered(ringway: &Ringway, stage: &str) -> f64 {
    ringway.metric(&format!("ringway_overload_stage_entered_total{{stage=\"{stage}\"}}"))
}

/// Resident memory of the process.
fn resident(ringway: &Ringway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", ringway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Sends a request on a connection that is open, and reads the answer.
fn ask(stream: &mut TcpStream) -> Answer {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_answer(stream, true).expect("an answer")
}

/// Whether the other side has closed, without a reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

fn checks(ringway: &Ringway) -> f64 {
    ringway.counter("ringway_checks_total{service=\"s\",result=\"success\"}")
}

fn curl(address: SocketAddr) -> std::process::Child {
    let url = format!("http://{address}/");
    let time = patience().as_secs().to_string();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", &time, &url]);
    curl.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn without_memory_nothing_is_accepted_the_admin_listener_and_checks_go_on_and_more_memory_serves_who_has_waited() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("hold: 100ms", http, raw, backend.address));
    assert_eq!(get(http, "/").unwrap().status, 200);
    let mut kept = send(http, b"");
    assert_eq!(ask(&mut kept).status, 200);
    // Less than is in use serves nobody: a slip of whoever writes it.
    let limit = resident(&ringway) * 9 / 10;
    ringway.write_config(&config(&format!("memory_max: {limit}, hold: 100ms"), http, raw, backend.address));
    let reload = b"POST /reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = read_answer(&mut send(ringway.admin, reload), true).unwrap();
    assert_eq!(answer.status, 422, "{}", answer.text());
    let said = answer.text();
    assert!(said.contains("that this process has now") && said.contains("\"line\":") && said.contains("MiB"), "{said}");
    assert_eq!(get(http, "/").unwrap().status, 200);
    // More than some part of what there is.
    let limit = resident(&ringway) * 3 / 2;
    let parts = "stop_keep_alive: 40%, refuse_requests: 45%, stop_accepting: 50%";
    ringway.reconfigure(&config(&format!("memory_max: {limit}, {parts}, hold: 1h"), http, raw, backend.address));
    wait_for_stage(&ringway, "stop_accepting");
    assert!(ringway.metric("ringway_overload_pressure{resource=\"memory\"}") > 0.5);
    assert_eq!(entered(&ringway, "stop_accepting"), 1.0);
    let line = ringway.log().lines().find(|line| line.contains("new connections wait")).map(str::to_owned).unwrap();
    assert!(line.contains("memory") && line.contains(&limit.to_string()), "{line}");
    // Who is connected already is told to come again elsewhere or later.
    let refused = ask(&mut kept);
    assert_eq!((refused.status, refused.header("x-ringway-reason")), (503, Some("overloaded")));
    assert_eq!((refused.header("retry-after"), refused.header("connection")), (Some("1"), Some("close")));
    assert!(is_closed(&mut kept));
    // Nobody else is let in; checks and the admin listener go on.
    let accepted = ringway.metric("ringway_downstream_accepted_total");
    let waits = require("curl").map(|()| curl(http));
    let mut waiting = send(http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let made = checks(&ringway);
    wait_for("checks", || (checks(&ringway) >= made + 10.0).then_some(()));
    assert_eq!(ringway.metric("ringway_downstream_accepted_total"), accepted);
    assert_eq!(get(ringway.admin, "/readyz").unwrap().status, 200);
    // A flow does not begin either.
    let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
    flow.send_to(b"x", raw).unwrap();
    let refused = "ringway_rejected_requests_total{reason=\"overloaded\"}";
    wait_for("a flow to be refused", || (ringway.counter(refused) == 1.0).then_some(()));
    // It holds at once, however long stages are held where nothing is written.
    ringway.reconfigure(&config("memory_max: 1024GiB, hold: 1h", http, raw, backend.address));
    // Those that have waited in the kernel's queue are served, none was cut.
    assert!(matches!(read_answer(&mut waiting, true), Some(answer) if matches!(answer.status, 200 | 503)));
    if let Some(curl) = waits {
        let output = curl.wait_with_output().unwrap();
        assert!(matches!(output.stdout.as_slice(), b"200" | b"503"), "{output:?}");
    }
    wait_for_stage(&ringway, "normal");
    let mut kept = send(http, b"");
    assert_eq!((ask(&mut kept).status, ask(&mut kept).status), (200, 200));
    assert!(ringway.log().contains("less overload"), "{}", ringway.log());
}

#[test]
fn new_requests_and_sessions_are_refused_before_connections_are() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let file = |section: &str| {
        let moved = "{ match: { path: /moved }, redirect: { path: / } }, \
                     { service: s, cors: { origins: [ \"https://app.test\" ] } }";
        config(section, http, raw, backend.address).replacen("service: s }", &format!("routes: [ {moved} ] }}"), 1)
    };
    let ringway = Ringway::start(&file(""));
    assert_eq!(get(http, "/moved").unwrap().status, 308);
    // All of it is in use, which is not yet enough for the last stage: 100 % of it never is, as long as the limit is this high.
    let limit = resident(&ringway);
    let section =
        |limit: u64| format!("memory_max: {limit}, stop_keep_alive: 1%, refuse_requests: 2%, stop_accepting: 100%");
    ringway.reconfigure(&file(&section(limit * 20)));
    wait_for_stage(&ringway, "refuse_requests");
    // What is answered here, too.
    for path in ["/", "/", "/moved", "/moved"] {
        let refused = wait_for("an answer", || get(http, path));
        assert_eq!((refused.status, refused.header("x-ringway-reason")), (503, Some("overloaded")));
        assert_eq!((refused.header("retry-after"), refused.header("connection")), (Some("1"), Some("close")));
    }
    // What a browser asks first costs nothing: it is told of the refusal by what it asks then.
    let preflight =
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://app.test\r\nAccess-Control-Request-Method: PUT\r\n\r\n";
    assert_eq!(read_answer(&mut send(http, preflight.as_bytes()), true).unwrap().status, 204);
    let mut session = send(raw, b"GET / HTTP/1.1\r\n\r\n");
    // It is reset, which a client may find out as it sends.
    assert!(matches!(session.read(&mut [0]), Err(_) | Ok(0)));
    let refused = "ringway_proxy_errors_total{service=\"s\",reason=\"overloaded\"}";
    wait_for("three refusals", || (ringway.counter(refused) == 3.0).then_some(()));
    assert!(backend.requests().is_empty(), "no backend was asked");
}

#[test]
fn keep_alive_ends_first_with_the_next_response_and_without_one_in_a_while() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("", http, raw, backend.address));
    let (mut busy, mut idle, mut fresh) = (send(http, b""), send(http, b""), send(http, b""));
    assert_eq!((ask(&mut busy).status, ask(&mut idle).status), (200, 200));
    let limit = resident(&ringway) * 20;
    let section = format!("memory_max: {limit}, stop_keep_alive: 1%, refuse_requests: 100%, stop_accepting: 100%");
    ringway.reconfigure(&config(&section, http, raw, backend.address));
    wait_for_stage(&ringway, "stop_keep_alive");
    let last = ask(&mut busy);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut busy));
    // Each at a time of its own, within seconds.
    assert!(is_closed(&mut idle) && is_closed(&mut fresh));
    wait_for("no idle connection to the backend", || {
        (ringway.metric("ringway_upstream_idle_connections") == 0.0).then_some(())
    });
    let last = get(http, "/").unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    if require_python("h2").is_some() {
        python_h2(include_str!("../python/h2_goodbye.py"), &[&http.to_string(), "1"]);
    }
}

#[test]
fn overload_that_is_turned_off_stops_nothing() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("memory_max: 1MiB", http, raw, backend.address));
    wait_for_stage(&ringway, "stop_accepting");
    ringway.reconfigure(&config("enabled: false, memory_max: 1MiB", http, raw, backend.address));
    wait_for_stage(&ringway, "normal");
    let mut kept = send(http, b"");
    assert_eq!((ask(&mut kept).status, ask(&mut kept).status), (200, 200));
}

#[test]
fn a_worker_that_is_stuck_is_named_and_others_serve_until_it_goes_on() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("lag_max: 1s, hold: 100ms", http, raw, backend.address));
    let Some(stopped) = StoppedWorker::new(&ringway, 1) else { return };
    let mut early: Vec<_> =
        (0..16).map(|_| send(http, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).collect();
    wait_for("the worker to be named", || {
        let stuck = |worker| ringway.metric(&format!("ringway_worker_stuck{{worker=\"{worker}\"}}"));
        (stuck(1) == 1.0).then_some(())
    });
    assert!(ringway.log().contains("worker 1 is stuck"), "{}", ringway.log());
    assert!(ringway.metric("ringway_worker_lag_seconds{worker=\"1\"}") >= 2.0);
    // Who looks at workers is told so in a bounded time, and all of the other one.
    let looked = crate::common::ringway(&["workers", "--json", "--admin", &ringway.admin.to_string()]);
    let looked: serde_json::Value = serde_json::from_slice(&looked.stdout).unwrap();
    let [well, stuck] = [0, 1].map(|worker| looked["workers"][worker].clone());
    assert!(well["answers"] == true && well["tasks"].as_u64() > Some(0) && well["stuck"] == false, "{well:#}");
    assert!(stuck["answers"] == false && stuck["stuck"] == true && stuck["tasks"].is_null(), "{stuck:#}");
    assert!(stuck["silent_seconds"].as_f64() > Some(3.0), "{stuck:#}");
    let sessions: serde_json::Value = serde_json::from_slice(&get(ringway.admin, "/sessions").unwrap().body).unwrap();
    assert_eq!(sessions["silent_workers"], serde_json::json!([1]));
    // Wherever the kernel has put them, the other worker serves them: those who came before it was found out too, but for those that
    // the stuck one has been given in its first moments.
    let mut served = 0;
    wait_for("answers", || {
        early.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            let has_answer = client.peek(&mut [0]).is_ok();
            client.set_nonblocking(false).unwrap();
            let answer = has_answer.then(|| read_answer(client, true).unwrap());
            served += usize::from(answer.as_ref().is_some_and(|answer| answer.status == 200));
            answer.is_none()
        });
        (served >= 8).then_some(())
    });
    for _ in 0..32 {
        assert_eq!(get(http, "/").unwrap().status, 200);
    }
    // On a listener too that is new.
    let fresh = free_address();
    let text = config("lag_max: 1s, hold: 100ms", http, raw, backend.address);
    let fresh_too = format!("listeners: [ {{ name: fresh, address: \"{fresh}\", service: s }}, ");
    ringway.reconfigure(&text.replace("listeners: [ ", &fresh_too));
    for _ in 0..32 {
        wait_for("an answer of the new listener", || get(fresh, "/").filter(|answer| answer.status == 200));
    }
    assert_eq!(ringway.metric("ringway_overload_stage"), 0.0);
    drop(stopped);
    wait_for("the worker to go on", || ringway.log().contains("worker 1 goes on").then_some(()));
    // And then it serves its own again.
    for client in &mut early {
        assert_eq!(read_answer(client, true).unwrap().status, 200);
    }
    wait_for("both to serve", || {
        assert_eq!(get(http, "/").unwrap().status, 200);
        let looked = crate::common::ringway(&["workers", "--json", "--admin", &ringway.admin.to_string()]);
        let looked: serde_json::Value = serde_json::from_slice(&looked.stdout).unwrap();
        (looked["workers"][1]["stuck"] == false).then_some(())
    });
    for _ in 0..32 {
        assert_eq!(get(http, "/").unwrap().status, 200);
    }
}

#[test]
fn near_connections_max_keep_alive_ends_and_the_places_of_idle_clients_are_free_again() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let section = "connections: true, stop_keep_alive: 50%, hold: 100ms";
    let text = config(section, http, raw, backend.address);
    let ringway = Ringway::start(&format!("connections_max: 8\n{text}"));
    let mut clients: Vec<_> = (0..4).map(|_| send(http, b"")).collect();
    wait_for_stage(&ringway, "stop_keep_alive");
    assert!(ringway.log().contains("resource\":\"connections") || ringway.log().contains("resource=\"connections"));
    let last = ask(&mut clients[0]);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(clients.iter_mut().all(is_closed));
    wait_for_stage(&ringway, "normal");
    let mut kept = send(http, b"");
    assert_eq!((ask(&mut kept).status, ask(&mut kept).status), (200, 200));
}

#[test]
fn near_the_limit_on_descriptors_keep_alive_ends_until_there_are_more() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config(
        "connections: true, stop_keep_alive: 60%, shed_low_priority: 92%, hold: 100ms",
        http,
        raw,
        backend.address,
    ));
    let mut kept = send(http, b"");
    assert_eq!((ask(&mut kept).status, ask(&mut kept).status), (200, 200));
    let pid = Pid::from_raw(i32::try_from(ringway.pid()).unwrap());
    let limit =
        |most: u64| prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: Some(4096) }).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).unwrap().count();
    // Enough for the admin listener and for checks, too few for clients.
    limit(open as u64 + 12);
    wait_for_stage(&ringway, "stop_keep_alive");
    let line = ringway.log().lines().find(|line| line.contains("descriptors are used")).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains("connections end")), "{}", ringway.log());
    let last = ask(&mut kept);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut kept));
    limit(4096);
    wait_for_stage(&ringway, "normal");
    let mut kept = send(http, b"");
    assert_eq!((ask(&mut kept).status, ask(&mut kept).status), (200, 200));
}
