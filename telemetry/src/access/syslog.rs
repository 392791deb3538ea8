//! A syslog server as the target of lines: RFC 5424 over datagrams or TCP. One that is gone is looked for again, with growing pauses;
//! lines are lost meanwhile, and counted.

use super::calendar::Civil;
use super::lost::Lost;
use super::target::Syslog as Address;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Facility `local0`, severity `informational`.
const PRIORITY: u8 = 16 * 8 + 6;
/// The first pause before a server is looked for again; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A server that takes nothing for so long is gone.
const WRITE: Duration = Duration::from_secs(1);

/// A server, as far as there is one.
pub(super) struct Syslog {
    address: Address,
    /// Between time and message.
    origin: String,
    line: Option<Line>,
    pause: Duration,
    again_at: Option<Instant>,
    message: Vec<u8>,
    lost: Lost,
}

/// A way to the server.
enum Line {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    /// Whether there is a server is seen with the first line.
    pub(super) fn new(address: Address, lost: Lost) -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
        let host = if host.is_empty() { "-".to_owned() } else { host };
        let origin = format!(" {host} ringway {} access - ", std::process::id());
        Self { address, origin, line: None, pause: PAUSE, again_at: None, message: Vec::new(), lost }
    }

    /// Sends whole lines, each as a message. What cannot be sent is lost, and counted.
    pub(super) fn write(&mut self, batch: &[u8]) {
        if self.again_at.is_some_and(|at| Instant::now() < at) {
            self.lost.add(batch.iter().filter(|byte| **byte == b'\n').count() as u64, None);
            self.lost.tell(false);
            return;
        }
        let stamp = stamp(SystemTime::now());
        let mut lines = batch.split_inclusive(|byte| *byte == b'\n');
        let mut is_whole = true;
        while let Some(text) = lines.next() {
            if let Err(error) = self.send(&stamp, text.trim_ascii_end()) {
                is_whole = false;
                let rest = 1 + lines.clone().count() as u64;
                // A server that cannot keep up with datagrams loses one; one that has gone loses all until it is looked for again.
                if error.kind() == ErrorKind::WouldBlock {
                    self.lost.add(1, Some(error.to_string()));
                    continue;
                }
                self.line = None;
                self.again_at = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                self.lost.add(rest, Some(error.to_string()));
                break;
            }
        }
        if is_whole {
            self.lost.handle_whole();
        }
        self.lost.tell(false);
    }

    pub(super) fn lost(&mut self) -> &mut Lost {
        &mut self.lost
    }

    fn send(&mut self, stamp: &str, text: &[u8]) -> std::io::Result<()> {
        if self.line.is_none() {
            self.line = Some(connect(&self.address)?);
        }
        self.message.clear();
        // Writing to a Vec does not fail.
        let _ = write!(self.message, "<{PRIORITY}>1 {stamp}{}", self.origin);
        self.message.extend_from_slice(text);
        match &mut self.line {
            None => return Err(ErrorKind::NotConnected.into()),
            Some(Line::Unix(socket)) => socket.send(&self.message).map(drop)?,
            Some(Line::Udp(socket)) => socket.send(&self.message).map(drop)?,
            Some(Line::Tcp(stream)) => {
                // RFC 6587, 3.4.1: messages are counted.
                let count = format!("{} ", self.message.len());
                self.message.splice(..0, count.into_bytes());
                stream.write_all(&self.message)?;
            }
        }
        (self.pause, self.again_at) = (PAUSE, None);
        Ok(())
    }
}

fn connect(address: &Address) -> std::io::Result<Line> {
    Ok(match address {
        Address::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_nonblocking(true)?;
            Line::Unix(socket)
        }
        Address::Udp(server) => {
            let server = resolve(server)?;
            let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            Line::Udp(socket)
        }
        Address::Tcp(server) => {
            let stream = TcpStream::connect_timeout(&resolve(server)?, WRITE)?;
            stream.set_write_timeout(Some(WRITE))?;
            Line::Tcp(stream)
        }
    })
}

fn resolve(server: &str) -> std::io::Result<SocketAddr> {
    server.to_socket_addrs()?.next().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// RFC 3339, in UTC. Source: Hinnant, "chrono-compatible low-level date algorithms".
fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let Civil { year, month, day, hour, minute, second } = Civil::of(since.as_secs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn syslog(address: Address) -> Syslog {
        Syslog::new(address, Lost::new("a test".into()))
    }

    /// What a message says.
    fn said(message: &[u8]) -> String {
        let text = String::from_utf8(message.to_vec()).unwrap();
        let mut words = text.splitn(8, ' ');
        let head: Vec<&str> = words.by_ref().take(7).collect();
        assert_eq!((head[0], head[3], head[5], head[6]), ("<134>1", "ringway", "access", "-"), "{text}");
        assert!(head[1].ends_with('Z') && head[1].len() == 27, "{text}");
        words.next().unwrap().to_owned()
    }

    #[test]
    fn a_line_is_a_message_however_the_server_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (unix, udp) = (UnixDatagram::bind(&path).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut space = [0; 1024];
        let mut by_unix = syslog(Address::Unix(path));
        let mut by_udp = syslog(Address::Udp(udp.local_addr().unwrap().to_string()));
        for way in [&mut by_unix, &mut by_udp] {
            way.write(b"one\ntwo 2\n");
            assert_eq!(way.lost().take(), 0);
        }
        for line in ["one", "two 2"] {
            let count = unix.recv(&mut space).unwrap();
            assert_eq!(said(&space[..count]), line);
            let count = udp.recv(&mut space).unwrap();
            assert_eq!(said(&space[..count]), line);
        }
        let mut by_tcp = syslog(Address::Tcp(tcp.local_addr().unwrap().to_string()));
        by_tcp.write(b"one\ntwo 2\n");
        let (mut stream, _) = tcp.accept().unwrap();
        drop(by_tcp);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        for line in ["one", "two 2"] {
            let space = all.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&all[..space]).unwrap().parse().unwrap();
            assert_eq!(said(&all[space + 1..][..length]), line);
            all.drain(..space + 1 + length);
        }
        assert!(all.is_empty());
    }

    #[test]
    fn a_server_that_is_gone_loses_lines_until_it_is_back_and_they_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = syslog(Address::Unix(path.clone()));
        syslog.write(b"1\n2\n3\n");
        assert_eq!((syslog.lost().take(), syslog.lost().take()), (3, 0));
        let server = UnixDatagram::bind(&path).unwrap();
        let mut space = [0; 1024];
        loop {
            syslog.write(b"4\n");
            if syslog.lost().take() == 0 {
                break;
            }
            std::thread::yield_now();
        }
        let count = server.recv(&mut space).unwrap();
        assert_eq!(said(&space[..count]), "4");
        drop(server);
        syslog.write(b"5\n6\n");
        assert_eq!(syslog.lost().take(), 2);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
