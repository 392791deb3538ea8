//! Faults that the simulation has found, each as its smallest scenario.

use super::message::Reader;
use super::world::{RAW, WEB, World};
use super::{begin, runtime};
use crate::net::transport::memory::{Listener, Socket};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BACKENDS: [&str; 2] = ["10.2.0.1:80", "10.2.0.2:80"];

fn address(text: &str) -> std::net::SocketAddr {
    text.parse().expect("an address")
}

async fn accept(listener: &Listener) -> Socket {
    listener.accept().await.expect("a connection").0
}

fn in_flight(world: &World) -> Vec<u32> {
    let snapshot = world.snapshot();
    let service = snapshot.service("api").expect("a service");
    service.backends.iter().map(|backend| backend.state.load.in_flight()).collect()
}

#[test]
fn a_hedged_try_that_has_lost_gives_its_place_back_before_the_other_is_whole() {
    begin();
    runtime().block_on(async {
        let world = World::alone(&format!(
            "listeners: [ {{ name: web, address: \"{WEB}\", service: api }} ]
services:
  - name: api
    balance: {{ policy: first }}
    hedge: {{ after: 200ms, budget: 100, budget_min: 10 }}
    backends: [ {{ id: a, address: \"{}\" }}, {{ id: b, address: \"{}\" }} ]
",
            BACKENDS[0], BACKENDS[1],
        ));
        let listeners = BACKENDS.map(|backend| world.network.listen(address(backend)));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut client = world.network.connect(address(WEB)).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();
        let (_first, second) = (accept(&listeners[0]).await, accept(&listeners[1]));
        let mut second = second.await;
        world.settle().await;
        assert_eq!(in_flight(&world), [1, 1], "both are asked");
        // A response that is incomplete waits for its last byte, for a moment.
        second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await.unwrap();
        world.settle().await;
        assert_eq!(in_flight(&world), [0, 1], "who has lost carries nothing");
        second.write_all(b"lf").await.unwrap();
        let mut input = Reader::new(client);
        assert_eq!(input.head().await.unwrap().word(1), "200");
        world.settle().await;
        assert_eq!(in_flight(&world), [0, 0]);
    });
}

/// What comes until the end, and the kind of that end.
async fn until_end(mut socket: Socket) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut all, mut space) = (Vec::new(), [0; 512]);
    loop {
        match socket.read(&mut space).await {
            Ok(0) => return (all, None),
            Ok(count) => all.extend_from_slice(&space[..count]),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

#[test]
fn a_tunnel_that_one_side_resets_does_not_end_plainly_for_the_other() {
    begin();
    runtime().block_on(async {
        let world = World::alone(&format!(
            "listeners:
  - {{ name: web, address: \"{WEB}\", service: api }}
  - {{ name: raw, address: \"{RAW}\", protocol: tcp, service: api }}
services: [ {{ name: api, backends: [ {{ id: a, address: \"{}\" }} ] }} ]
",
            BACKENDS[0],
        ));
        let listener = world.network.listen(address(BACKENDS[0]));
        tokio::time::sleep(Duration::from_millis(10)).await;
        for upgraded in [false, true] {
            for resets in [false, true] {
                for by_client in [false, true] {
                    let mut client = world.network.connect(address(if upgraded { WEB } else { RAW })).await.unwrap();
                    if upgraded {
                        let ask = b"GET / HTTP/1.1\r\nhost: sim\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
                        client.write_all(ask).await.unwrap();
                    }
                    let mut backend = accept(&listener).await;
                    if upgraded {
                        world.settle().await;
                        assert!(backend.try_read(&mut [0; 4096]).unwrap() > 0);
                        let switch = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
                        backend.write_all(switch).await.unwrap();
                        world.settle().await;
                        assert!(client.try_read(&mut [0; 4096]).unwrap() > 0);
                    }
                    let (mut ends, hears) = if by_client { (client, backend) } else { (backend, client) };
                    ends.write_all(b"half of it").await.unwrap();
                    world.settle().await;
                    if resets {
                        ends.end_by_reset();
                    }
                    drop(ends);
                    let (heard, how) = until_end(hears).await;
                    let case = (upgraded, resets, by_client);
                    assert_eq!((&heard[..], how.is_some()), (&b"half of it"[..], resets), "{case:?}");
                }
            }
        }
    });
}

#[test]
fn connections_of_http2_that_rest_give_back_what_only_busy_ones_need() {
    begin();
    runtime().block_on(async {
        let world = World::alone(&format!(
            "listeners: [ {{ name: web, address: \"{WEB}\", service: api, timeouts: {{ idle: 1h }} }} ]
services: [ {{ name: api, protocol: h2, backends: [ {{ id: a, address: \"{}\" }} ] }} ]
",
            BACKENDS[0],
        ));
        let listener = world.network.listen(address(BACKENDS[0]));
        tokio::time::sleep(Duration::from_millis(10)).await;
        // It responds once all have come: they are under way together.
        let backend = tokio::task::spawn_local(async move {
            let mut connection = h2::server::handshake(accept(&listener).await).await.unwrap();
            let mut waiting = Vec::new();
            while let Some(asked) = connection.accept().await {
                waiting.push(asked.unwrap().1);
                if waiting.len() == STREAMS {
                    for mut respond in waiting.drain(..) {
                        let answer = http::Response::builder().header("x-long", "v".repeat(300)).body(()).unwrap();
                        respond.send_response(answer, true).unwrap();
                    }
                }
            }
        });
        let socket = world.network.connect(address(WEB)).await.unwrap();
        let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
        let client = tokio::task::spawn_local(connection);
        let mut answers = Vec::new();
        for number in 0..STREAMS {
            send = send.ready().await.unwrap();
            let asked = http::Request::get("http://sim/").header("x-number", number).body(()).unwrap();
            answers.push(send.send_request(asked, true).unwrap().0);
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        world.settle().await;
        let busy = crate::codec::http2::memory_of_each();
        assert_eq!(busy.len(), 2, "one from the client, one to the backend");
        // They are idle; a busy connection to the backend listens for 10 s.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let rested = crate::codec::http2::memory_of_each();
        for (busy, rested) in busy.iter().zip(&rested) {
            assert!(*rested <= 8 * 1024 && *rested * 2 < *busy, "{busy} bytes busy, {rested} at rest");
        }
        // They are still open, and usable.
        drop(send.ready().await.unwrap());
        backend.abort();
        client.abort();
    });
}

/// Streams that are under way at a time.
const STREAMS: usize = 60;

/// A client that breaks its request off, once a response has begun that its backend ends only with the request.
async fn breaks_off(version: &str, framing: &str, rest: Option<&[u8]>) {
    let world = World::alone(&format!(
        "listeners: [ {{ name: web, address: \"{WEB}\", service: api }} ]
services: [ {{ name: api, backends: [ {{ id: a, address: \"{}\" }} ] }} ]
",
        BACKENDS[0],
    ));
    let listener = world.network.listen(address(BACKENDS[0]));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut client = world.network.connect(address(WEB)).await.unwrap();
    let head = format!("POST / HTTP/{version}\r\nhost: sim\r\n{framing}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut backend = accept(&listener).await;
    let mut space = [0; 4096];
    assert!(backend.read(&mut space).await.unwrap() > 0);
    backend.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\nhalf").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"half") {
        let count = client.read(&mut space).await.unwrap();
        seen.extend_from_slice(&space[..count]);
    }
    assert_eq!(in_flight(&world), [1]);
    match rest {
        Some(bytes) => {
            client.write_all(bytes).await.unwrap();
            world.settle().await;
        }
        None => drop(client),
    }
    world.settle().await;
    assert_eq!(in_flight(&world), [0], "{framing}: the rest never comes");
    let (_, end) = until_end(backend).await;
    assert!(end.is_none_or(|kind| kind == ErrorKind::ConnectionReset), "{end:?}");
}

#[test]
fn a_request_that_its_client_breaks_off_holds_no_place_once_its_response_has_begun() {
    begin();
    runtime().block_on(async {
        breaks_off("1.1", "content-length: 100", None).await;
        breaks_off("1.1", "transfer-encoding: chunked", None).await;
        breaks_off("1.1", "transfer-encoding: chunked", Some(b"3\r\nabc\r\nZZ\r\n")).await;
    });
}
