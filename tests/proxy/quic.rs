//! QUIC through a UDP listener: aioquic on both sides, clients that change their address, and floods of made-up ids.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Serves on a port, and answers each stream with its name and what the stream has said.
const SERVER: &str = r#"
import asyncio, sys
from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration
name, port, certificate, key = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
configuration.load_cert_chain(certificate, key)
async def answer(reader, writer):
    writer.write(f"{name}:{(await reader.read()).decode()}".encode())
    writer.write_eof()
async def main():
    handler = lambda reader, writer: asyncio.ensure_future(answer(reader, writer))
    await serve("127.0.0.1", port, configuration=configuration, stream_handler=handler)
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"#;

/// Connections that take a new socket, and so a new address, before each question; a line of answers for each connection.
const CLIENT: &str = r#"
import socket, ssl, sys, time
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived, HandshakeCompleted, ConnectionTerminated
proxy = ("127.0.0.1", int(sys.argv[1]))
def ask(connections, moves):
    for _ in range(connections):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE, server_name="x")
        quic = QuicConnection(configuration=configuration)
        quic.connect(proxy, now=time.time())
        sock, said, ready = None, {}, False
        def until(condition):
            nonlocal ready
            end = time.time() + 20
            while not condition():
                assert time.time() < end, "no answer"
                for datagram, _ in quic.datagrams_to_send(now=time.time()):
                    sock.sendto(datagram, proxy)
                timer = quic.get_timer()
                sock.settimeout(max(0.001, min(0.5, (timer or time.time() + 0.5) - time.time())))
                try:
                    quic.receive_datagram(sock.recv(65535), proxy, now=time.time())
                except (socket.timeout, BlockingIOError):
                    pass
                if timer is not None and time.time() >= timer:
                    quic.handle_timer(now=time.time())
                while (event := quic.next_event()) is not None:
                    if isinstance(event, HandshakeCompleted): ready = True
                    if isinstance(event, ConnectionTerminated): raise SystemExit(f"terminated: {event}")
                    if isinstance(event, StreamDataReceived):
                        said[event.stream_id] = said.get(event.stream_id, b"") + event.data
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        until(lambda: ready)
        answers = []
        for move in range(moves):
            old, sock = sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            old.close()
            stream = quic.get_next_available_stream_id()
            quic.send_stream_data(stream, f"{move}".encode(), end_stream=True)
            until(lambda: said.get(stream, b"").endswith(f":{move}".encode()))
            answers.append(said[stream].decode().split(":")[0])
        print(" ".join(answers), flush=True)
ask(int(sys.argv[2]), int(sys.argv[3]))
"#;

fn proxy(udp: &str, service: &str, backends: &[(&str, SocketAddr)]) -> (Ringway, SocketAddr, String) {
    let listen = free_address();
    let config = simple(listen, service, backends)
        .replace("service: s } ]", &format!("protocol: udp, udp: {{ {udp} }}, service: s }} ]"));
    (Ringway::start(&config), listen, config)
}

#[test]
fn connections_keep_their_backend_when_their_address_changes() {
    if require_python("aioquic").is_none() || require("openssl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("x.pem"), file("x.key"));
    let made = output(
        "openssl",
        &["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=x"]
            .into_iter()
            .chain(["-keyout", &key, "-out", &certificate])
            .collect::<Vec<_>>(),
    );
    assert!(made.status.success());
    let serve = |name: &str| {
        let address: SocketAddr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = Command::new("python3")
            .args(["-c", SERVER, name, &address.port().to_string(), &certificate, &key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        (Running(child), address)
    };
    let fleet: Vec<(&str, (Running, SocketAddr))> =
        ["a", "b", "c"].into_iter().map(|name| (name, serve(name))).collect();
    let targets: Vec<(&str, SocketAddr)> = fleet.iter().map(|(name, (_, address))| (*name, *address)).collect();
    let ask = |listen: SocketAddr, connections: &str, moves: &str| {
        let done = output("python3", &["-c", CLIENT, &listen.port().to_string(), connections, moves]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // Two workers, whose sockets the kernel chooses by the address: an id is known to both.
    let (ringway, listen, config) = proxy("quic_connection_id: { length: 8 }", "", &targets);
    let lines = ask(listen, "12", "8");
    assert_eq!(lines.len(), 12);
    for line in &lines {
        let names: Vec<&str> = line.split(' ').collect();
        assert!(names.len() == 8 && names.iter().all(|name| *name == names[0]), "{lines:?}");
    }
    // One client address, but connections are placed by their ids.
    let mut homes: Vec<&str> = lines.iter().map(|line| &line[..1]).collect();
    homes.sort_unstable();
    homes.dedup();
    assert!(homes.len() > 1, "{lines:?}");
    drop((ringway, config));
    // By rotation, an id that was not known would go somewhere else at once.
    let (_ringway, listen, _) =
        proxy("quic_connection_id: { length: 8 }", "balance: { policy: round_robin }", &targets);
    for line in ask(listen, "6", "6") {
        assert!(line.split(' ').all(|name| name == &line[..1]), "{line}");
    }
}

/// Answers each long header as a server would, with an id of its own, its name and what it has got; others with its name.
fn server(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut next = 0_u32;
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let datagram = &buffer[..count];
            let mut answer = Vec::new();
            if datagram[0] & 0xc0 == 0xc0 {
                next += 1;
                answer.extend_from_slice(b"\xc1\0\0\0\x01\0\x08");
                answer.extend_from_slice(format!("{name}{next:07}").as_bytes());
            }
            answer.extend_from_slice(name.as_bytes());
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    socket.send(datagram).unwrap();
    let mut buffer = [0; 2048];
    let count = socket.recv(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

fn first(id: &[u8; 8]) -> Vec<u8> {
    [b"\xc0\0\0\0\x01\x08", &id[..], b"\x04cccc hello"].concat()
}

#[test]
fn ids_lead_to_their_backend_through_drains_and_are_bounded() {
    let targets = [("a", server("a")), ("b", server("b"))];
    let rule = "idle: 30s, flows_max: 512, quic_connection_id: { length: 8, ids_max: 64 }";
    let (ringway, listen, config) = proxy(rule, "balance: { policy: round_robin }", &targets);
    let here = client(listen);
    // Several connections of one address: each has its own backend.
    let answers: Vec<Vec<u8>> = (0..4).map(|number| ask(&here, &first(&[number; 8]))).collect();
    let ids: Vec<Vec<u8>> = answers.iter().map(|answer| answer[7..15].to_vec()).collect();
    let homes: Vec<u8> = ids.iter().map(|id| id[0]).collect();
    assert_eq!(homes.iter().filter(|home| **home == b'a').count(), 2, "{homes:?}");
    let short = |id: &[u8]| [b"\x40", id, b"protected"].concat();
    let from_everywhere = |socket: &dyn Fn() -> UdpSocket| {
        for (id, home) in ids.iter().zip(&homes) {
            assert_eq!(ask(&socket(), &short(id)), [*home], "{id:?}");
        }
    };
    let elsewhere = || client(listen);
    from_everywhere(&|| here.try_clone().unwrap());
    from_everywhere(&elsewhere);
    // A drained backend takes nothing new, and keeps what it has.
    ringway.reconfigure(&config.replace("id: a,", "id: a, drain: true,"));
    from_everywhere(&elsewhere);
    assert_eq!(ask(&client(listen), &first(b"newcomer"))[7], b'b');
    ringway.reconfigure(&config);
    // An id that nobody has heard of stays with its address's connection.
    let alone = client(listen);
    let home = ask(&alone, &first(b"alone..."))[7];
    for number in 0..50_u8 {
        assert_eq!(ask(&alone, &short(&[number; 8])), [home]);
    }
    // What is not QUIC goes by its source: it stays where it is.
    let plain = client(listen);
    let home = ask(&plain, b"\x01plain");
    assert!((0..10).all(|_| ask(&plain, b"\x02more") == home));
    // Many connections make the proxy forget the oldest ids, and nothing else.
    for number in 0..200_u32 {
        ask(&here, &first(&[&number.to_be_bytes()[..], b"many"].concat().try_into().unwrap()));
    }
    let last = ask(&here, &first(b"the last"))[7..15].to_vec();
    assert_eq!(ask(&client(listen), &short(&last)), last[..1]);
    let flows = ringway.status()["services"][0]["in_flight"].as_u64().unwrap();
    assert!(flows <= 2 + 8 + 1 + 1 + 1 + 1, "{flows} flows: connections of one address share them");
}

#[test]
fn the_shadow_of_quic_goes_by_the_connections_id_as_its_placement_does() {
    let names = ["a", "b", "c", "d", "e"];
    let targets = names.map(|name| (name, server(name)));
    let listen = free_address();
    let config = |backends: &[(&str, SocketAddr)]| {
        let udp = "protocol: udp, udp: { quic_connection_id: { length: 8 } }, service: s } ]";
        simple(listen, "", backends).replace("service: s } ]", udp)
    };
    // One address for all: by it, all would stay or all would move.
    let owners = || {
        let here = client(listen);
        let owner = |number: u32| {
            let id = [&number.to_be_bytes()[..], b"conn"].concat().try_into().unwrap();
            char::from(ask(&here, &first(&id))[7]).to_string()
        };
        (0..100).map(owner).collect()
    };
    let (shadow, moved) = shadow_and_moves(&config(&targets[..4]), &config(&targets), owners);
    assert!(moved > 0 && moved < 60, "{moved}");
    assert_eq!((&shadow["compared"], &shadow["would_move"]), (&100.into(), &moved.into()));
}
