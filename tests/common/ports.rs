//! Ports for who must be told one: the only place where one is chosen before it is used.

use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

/// Ports that this process gives to its tests, held against other processes by the first of them, which it listens on. They lie below
/// those that the kernel gives to connections, so that nobody takes one between its choice and its use.
struct Ports {
    _held: Vec<TcpListener>,
    next: u16,
    end: u16,
}

static PORTS: Mutex<Ports> = Mutex::new(Ports { _held: Vec::new(), next: 0, end: 0 });
/// Of each block.
const BLOCK: u16 = 100;

/// A free port, of every address.
pub(crate) fn free_port() -> u16 {
    let mut ports = PORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        if ports.next == ports.end {
            let blocks = (10_000..32_000).step_by(usize::from(BLOCK));
            // Processes that start together begin at different places.
            let start = std::process::id() as usize * 7 + ports._held.len();
            let turned = blocks.clone().cycle().skip(start % blocks.len()).take(blocks.len());
            let found =
                turned.into_iter().find_map(|first| Some((first, TcpListener::bind(("127.0.0.1", first)).ok()?)));
            let (first, held) = found.expect("a block of ports");
            ports._held.push(held);
            (ports.next, ports.end) = (first + 1, first + BLOCK);
        }
        let port = ports.next;
        ports.next += 1;
        let tcp = TcpListener::bind(("0.0.0.0", port)).is_ok();
        let udp = UdpSocket::bind(("0.0.0.0", port)).is_ok();
        if tcp && udp {
            return port;
        }
    }
}
