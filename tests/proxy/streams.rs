//! Streams of HTTP/2 towards a backend, spread over its connections.

use crate::common::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The backend in Python: it holds requests, and says which connection each came on.
struct Holds {
    address: SocketAddr,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
    _running: Running,
}

impl Holds {
    fn start() -> Option<Self> {
        require_python("h2")?;
        let mut child = Command::new("python3")
            .args(["-c", include_str!("../python/h2_holds.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let running = Running(child);
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let port: u16 = lines.recv_timeout(patience()).unwrap().parse().unwrap();
        Some(Self { address: ([127, 0, 0, 1], port).into(), input, lines, _running: running })
    }

    /// Waits until so many requests are held.
    fn wait_held(&self, count: usize) {
        while self.lines.recv_timeout(patience()).unwrap() != format!("held {count}") {}
    }

    fn release(&mut self) {
        self.input.write_all(b"release\n").unwrap();
    }
}

/// One worker, which has all connections.
fn start(listen: SocketAddr, more: &str, backend: &Holds) -> Ringway {
    let text = format!("protocol: h2\noutlier: {{ consecutive_failures: 0 }}\n{more}");
    Ringway::start(&simple(listen, &text, &[("a", backend.address)]).replace("workers: 2", "workers: 1"))
}

fn ask(listen: SocketAddr, count: usize, path: &'static str) -> Vec<JoinHandle<Answer>> {
    (0..count).map(|_| std::thread::spawn(move || get(listen, path).unwrap())).collect()
}

/// How many of these came on each connection.
fn by_connection(answers: Vec<JoinHandle<Answer>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let answer = answer.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        *counts.entry(answer.text()).or_default() += 1;
    }
    counts
}

fn connections(ringway: &Ringway) -> f64 {
    ringway.metric("ringway_backend_connections{service=\"s\",backend=\"a\"}")
}

#[test]
fn requests_are_spread_over_connections_each_of_which_has_no_more_than_it_may() {
    let Some(mut backend) = Holds::start() else { return };
    let listen = free_address();
    let ringway = start(listen, "pool: { streams_max: 3, idle_timeout: 1h }", &backend);
    let twelve = ask(listen, 12, "/hold");
    backend.wait_held(12);
    backend.release();
    let counts = by_connection(twelve);
    assert!(counts.len() >= 4 && counts.values().all(|count| *count <= 3), "{counts:?}");
    let open = connections(&ringway);
    assert_eq!(open, counts.len() as f64, "none is opened that is of no use");
    // As many requests as there are connections: none has two.
    let few = ask(listen, counts.len(), "/hold");
    backend.wait_held(counts.len());
    backend.release();
    let few = by_connection(few);
    assert!(few.len() == counts.len() && few.values().all(|count| *count == 1), "{few:?}");
    assert_eq!(connections(&ringway), open);
}

#[test]
fn past_the_last_connection_the_backend_is_full_and_those_that_have_room_are_used_to_the_last() {
    let Some(mut backend) = Holds::start() else { return };
    let listen = free_address();
    let ringway = start(listen, "pool: { streams_max: 3 }\nlimits: { connections_max: 2 }", &backend);
    let seven = ask(listen, 7, "/hold");
    backend.wait_held(6);
    wait_for("the seventh to be answered", || seven.iter().any(JoinHandle::is_finished).then_some(()));
    let (over, held): (Vec<_>, Vec<_>) = seven.into_iter().partition(JoinHandle::is_finished);
    for answer in over {
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some("all_backends_full")));
    }
    backend.release();
    let counts = by_connection(held);
    assert_eq!(counts.values().collect::<Vec<_>>(), [&3, &3], "{counts:?}");
    assert_eq!(connections(&ringway), 2.0);
    assert_eq!(get(listen, "/").unwrap().status, 200);
}

#[test]
fn connections_that_were_needed_for_a_moment_are_closed_though_requests_are_spread_over_all() {
    let Some(mut backend) = Holds::start() else { return };
    let listen = free_address();
    let ringway = start(listen, "pool: { streams_max: 2, idle_timeout: 1s }", &backend);
    let eight = ask(listen, 8, "/hold");
    backend.wait_held(8);
    backend.release();
    assert!(by_connection(eight).len() >= 4);
    // Two at once, again and again, which one connection can take.
    let over = Arc::<AtomicBool>::default();
    let pairs: Vec<_> = (0..2)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(SeqCst) {
                    assert_eq!(get(listen, "/pair").unwrap().status, 200);
                }
            })
        })
        .collect();
    wait_for("one connection to be left", || (connections(&ringway) == 1.0).then_some(()));
    over.store(true, SeqCst);
    // One of the two may wait for another that does not come any more.
    while !pairs.iter().all(JoinHandle::is_finished) {
        let _ = send(listen, b"GET /pair HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        std::thread::yield_now();
    }
    pairs.into_iter().for_each(|thread| thread.join().unwrap());
}
