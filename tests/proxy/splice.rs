//! Bulk that goes from socket to socket through pipes: every byte arrives, ends and resets are told, nothing is kept.

use crate::common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// More than sockets and pipes hold together.
const LENGTH: usize = 24 << 20;

fn tcp(listen: SocketAddr, service: &str, backend: &Backend) -> String {
    simple(listen, service, &[("a", backend.address)]).replace("name: web,", "name: web, protocol: tcp,")
}

/// Bytes of which each stretch differs from every other.
fn content() -> Vec<u8> {
    (0..LENGTH / 8).flat_map(|at| (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

/// Sends what it gets, and ends when its client ends.
fn echo() -> Backend {
    Backend::custom(|mut stream, _| {
        let mut back = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    })
}

/// Waits until nothing is left of a transfer; some of it has gone through a pipe.
fn nothing_is_left(ringway: &Ringway) {
    assert!(ringway.metric("ringway_spliced_bytes_total") > 0.0);
    let (pipes, open) = ("ringway_splice_pipes", "ringway_downstream_connections");
    wait_for("all to be given back", || [pipes, open].iter().all(|name| ringway.metric(name) == 0.0).then_some(()));
}

/// Sends all of it from a thread of its own.
fn send_all(stream: &TcpStream, sent: &[u8]) -> std::thread::JoinHandle<()> {
    let (mut up, sent) = (stream.try_clone().unwrap(), sent.to_vec());
    std::thread::spawn(move || {
        up.write_all(&sent).unwrap();
        up.shutdown(Shutdown::Write).unwrap();
    })
}

#[test]
fn bulk_goes_both_ways_at_once_and_each_way_ends_by_itself() {
    let (backend, listen, sent) = (echo(), free_address(), content());
    let ringway = Ringway::start(&tcp(listen, "", &backend));
    for _ in 0..2 {
        let mut stream = send(listen, b"");
        let sender = send_all(&stream, &sent);
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        sender.join().unwrap();
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    }
    nothing_is_left(&ringway);
    let sum = LENGTH as f64 * 2.0;
    assert_eq!(ringway.metric("ringway_downstream_received_bytes_total"), sum);
    assert!(ringway.metric("ringway_downstream_sent_bytes_total") >= sum);
}

#[test]
fn a_reader_that_stops_in_the_middle_gets_the_rest_later_while_others_are_served() {
    let (backend, listen, sent) = (echo(), free_address(), content());
    let ringway = Ringway::start(&tcp(listen, "", &backend));
    let mut stream = send(listen, b"");
    let sender = send_all(&stream, &sent);
    let mut got = vec![0; 4 << 20];
    stream.read_exact(&mut got).unwrap();
    // It reads no more for now; small sessions come and go, and a reload.
    for round in 0..40 {
        let mut small = send(listen, b"hello");
        small.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        small.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        if round == 20 {
            ringway.reconfigure(&tcp(listen, "timeouts: { connect: 3s }", &backend));
        }
    }
    stream.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    nothing_is_left(&ringway);
}

#[test]
fn a_reset_and_an_idle_time_out_end_both_sides_and_free_the_pipe() {
    // Sends without an end, and notes how that ends.
    let backend = Backend::custom(|mut stream, seen| {
        let error = std::iter::repeat_with(|| stream.write_all(&[7; 64 * 1024])).find_map(Result::err).unwrap();
        seen.lock().unwrap().push(format!("{:?}", error.kind()));
    });
    let listen = free_address();
    let ringway = Ringway::start(&tcp(listen, "", &backend));
    let mut stream = send(listen, b"");
    stream.read_exact(&mut vec![0; 4 << 20]).unwrap();
    // Unread bytes make a reset of its end.
    drop(stream);
    wait_for("the backend to be told", || (backend.requests().len() == 1).then_some(()));
    nothing_is_left(&ringway);
    ringway.reconfigure(&tcp(listen, "timeouts: { idle: 4s }", &backend));
    let mut stream = send(listen, b"");
    stream.read_exact(&mut vec![0; 4 << 20]).unwrap();
    // It stops reading, and is given up.
    wait_for("the backend to be told", || (backend.requests().len() == 2).then_some(()));
    nothing_is_left(&ringway);
    let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
}

#[test]
fn urgent_bytes_in_the_middle_of_bulk_lose_nothing_of_what_follows() {
    let (backend, listen) = (echo(), free_address());
    let ringway = Ringway::start(&tcp(listen, "", &backend));
    let mut stream = send(listen, b"");
    let (first, rest) = (vec![1; 4 << 20], vec![2; 1 << 20]);
    let (mut up, sent) = (stream.try_clone().unwrap(), [first.clone(), rest.clone()]);
    let sender = std::thread::spawn(move || {
        up.write_all(&sent[0]).unwrap();
        socket2::SockRef::from(&up).send_out_of_band(b"!").unwrap();
        up.write_all(&sent[1]).unwrap();
        up.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == [first, rest].concat(), "{} bytes", got.len());
    nothing_is_left(&ringway);
}

#[test]
fn what_an_upgraded_connection_carries_goes_through_pipes_too() {
    let backend = Backend::custom(|mut stream, _| {
        let _ = read_request(&mut stream);
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(head).unwrap();
        let mut back = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let (listen, sent) = (free_address(), content());
    let ringway = Ringway::start(&simple(listen, "", &[("a", backend.address)]));
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut stream = send(listen, head);
    assert_eq!(read_answer(&mut stream, false).unwrap().status, 101);
    let sender = send_all(&stream, &sent);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    nothing_is_left(&ringway);
}
