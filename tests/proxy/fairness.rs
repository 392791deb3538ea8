//! Long transfers whose clients do not read, and small requests beside them, by curl.

use crate::common::*;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const LONG_BYTES: usize = 16 << 20;
const SLOW: usize = 6;

/// A backend that says the same long text to whom asks for it, and "small" else.
fn backend() -> Backend {
    Backend::custom(|mut stream, _| {
        while let Some((head, _)) = read_request(&mut stream) {
            let said = if head.starts_with("GET /long ") {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LONG_BYTES}\r\n\r\n");
                stream.write_all(&content())
            } else {
                stream.write_all(response("200 OK", "", "small").as_bytes())
            };
            if said.is_err() {
                return;
            }
        }
    })
}

fn content() -> Vec<u8> {
    (0..LONG_BYTES / 8).flat_map(|at| (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

/// A client whose output nobody reads yet.
fn slow(listen: SocketAddr, version: &str) -> Running {
    let arguments = ["-s", "-S", "-N", version, &format!("http://{listen}/long")];
    Running(Command::new("curl").args(arguments).stdout(Stdio::piped()).spawn().unwrap())
}

/// Small requests over a connection that is kept, and over connections of their own: all are answered.
fn small(listen: SocketAddr) {
    let url = format!("http://{listen}/small");
    let kept = output("curl", &["-s", "-S", "-w", " %{http_code}\n", &format!("{url}?[1-40]")]);
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "small 200\n".repeat(40), "{kept:?}");
    for _ in 0..5 {
        let curl = output("curl", &["-s", "-S", "--http2-prior-knowledge", "-w", " %{http_code}", &url]);
        assert_eq!(String::from_utf8_lossy(&curl.stdout), "small 200", "{curl:?}");
    }
}

fn read_whole(child: &mut Child) -> Vec<u8> {
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert!(child.wait().unwrap().success());
    got
}

#[test]
fn small_requests_are_answered_while_clients_of_long_responses_stall_and_each_gets_every_byte_over_a_reload() {
    if require("curl").is_none() {
        return;
    }
    let (backend, listen) = (backend(), free_address());
    let file = |more: &str| simple(listen, more, &[("a", backend.address)]);
    // One worker: nothing can be done beside it.
    let one = |more: &str| {
        file(more)
            .replace("workers: 2", "workers: 1")
            .replace("service: s }", "service: s, timeouts: { write_idle: 1h } }")
    };
    let ringway = Ringway::start(&one(""));
    let mut clients: Vec<Running> =
        (0..SLOW).flat_map(|_| ["--http1.1", "--http2-prior-knowledge"]).map(|version| slow(listen, version)).collect();
    let in_flight = || backend_status(&ringway, "a")["in_flight"].as_u64();
    wait_for("all to be under way", || (in_flight() == Some(2 * SLOW as u64)).then_some(()));
    small(listen);
    ringway.reconfigure(&one("timeouts: { response: 50s }"));
    small(listen);
    assert_eq!(in_flight(), Some(2 * SLOW as u64), "nobody has read to the end");
    let wanted = content();
    for client in &mut clients {
        let got = read_whole(&mut client.0);
        assert!(got == wanted, "{} bytes of {LONG_BYTES}", got.len());
    }
    small(listen);
    wait_for("all to be over", || (in_flight() == Some(0)).then_some(()));
}
