//! A relay before every member's peer listener. It knows who calls by the loopback address that the call comes from:
//! the last number of member `n` is n, and members call from the address that they listen on.

use crate::common::{pace, takes};
use crate::random::Random;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a pair's bytes travel, in both directions of its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Link {
    /// Bytes wait, as they do in a network that drops packets, until it is mended.
    pub(crate) cut: bool,
    pub(crate) delay: Duration,
    /// Of a hundred pieces, so many wait for a retransmission; one in ten of those takes its connection with it.
    pub(crate) loss_percent: u64,
}

/// All clones are one relay. Its threads end with the process.
#[derive(Clone, Default)]
pub(crate) struct Relay(Arc<Mutex<HashMap<(usize, usize), Link>>>);

/// How often a held piece looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

impl Relay {
    /// Opens the address under which the others know a member that listens on `target`.
    pub(crate) fn open(&self, member: usize, target: SocketAddr, mut random: Random) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let relay = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (relay, random) = (relay.clone(), random.fork());
                std::thread::spawn(move || relay.carry(&stream, member, target, random));
            }
        });
        address
    }

    /// From who calls to who is called.
    pub(crate) fn set(&self, from: usize, to: usize, link: Link) {
        self.0.lock().unwrap().insert((from, to), link);
    }

    pub(crate) fn mend(&self) {
        self.0.lock().unwrap().clear();
    }

    fn link(&self, pair: (usize, usize)) -> Link {
        self.0.lock().unwrap().get(&pair).copied().unwrap_or_default()
    }

    /// Without a target that listens, the caller's connection closes at once: a refusal.
    fn carry(&self, stream: &TcpStream, to: usize, target: SocketAddr, mut random: Random) {
        let Ok(IpAddr::V4(source)) = stream.peer_addr().map(|from| from.ip()) else { return };
        let pair = (usize::from(source.octets()[3]), to);
        while self.link(pair).cut {
            pace(LOOK);
        }
        let Ok(onward) = TcpStream::connect(target) else { return };
        let back = random.fork();
        std::thread::scope(|scope| {
            scope.spawn(|| self.pump(&onward, stream, pair, back));
            self.pump(stream, &onward, pair, random);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, pair: (usize, usize), mut random: Random) {
        let mut buffer = vec![0; 64 * 1024];
        // A hint only.
        let _ = to.set_nodelay(true);
        while let Ok(count) = from.read(&mut buffer) {
            let link = self.link(pair);
            if !link.delay.is_zero() {
                takes(link.delay);
            }
            if random.below(100) < link.loss_percent {
                if random.below(10) == 0 {
                    break;
                }
                takes(Duration::from_millis(200));
            }
            while self.link(pair).cut {
                pace(LOOK);
            }
            if count == 0 || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // The first direction that ends takes the other with it.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
