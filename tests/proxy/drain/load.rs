//! Clients of every kind, who go on until nobody listens any more and count what was cut.

use crate::common::peers::{Certificates, frame};
use crate::common::{pace, patience, takes, try_read_answer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Streams that a client of HTTP/2 has open at once.
const STREAMS: usize = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// What clients have seen.
#[derive(Default)]
pub struct Seen {
    pub served: AtomicUsize,
    pub cut: Mutex<Vec<String>>,
    /// Those who would go on for ever are to come to an end.
    pub ending: AtomicBool,
}

impl Seen {
    fn served(&self) {
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    fn cut(&self, who: &str, what: impl std::fmt::Display) {
        self.cut.lock().unwrap().push(format!("{who}: {what}"));
    }
}

/// Clients of one kind, and whom they connect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A connection for each request.
    New,
    /// Requests on one connection for as long as it lasts.
    Kept,
    /// HTTP/2, several streams at once.
    Http2,
    /// A line there and back, on a connection for each.
    Tcp,
    /// Many lines on one connection.
    TcpKept,
}

/// What a client connects with.
#[derive(Clone)]
pub struct Way {
    pub address: SocketAddr,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// A TLS client that trusts these certificates, and offers this protocol.
pub fn tls_client(certificates: &Certificates, alpn: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

/// Starts clients.
pub fn start(kind: Kind, way: &Way, count: usize, seen: &Arc<Seen>) -> Vec<JoinHandle<()>> {
    let one = |index| {
        let (way, seen) = (way.clone(), Arc::clone(seen));
        std::thread::spawn(move || {
            let who = format!("{kind:?}{} {index}", if way.tls.is_some() { " over TLS" } else { "" });
            let mut turn = index as u64;
            // A SYN that finds a socket which is being closed is sent again after a second: by then, nobody listens.
            while let Ok(stream) = TcpStream::connect_timeout(&way.address, Duration::from_secs(10)) {
                turn += 1;
                // Some are slow to say their first word.
                takes(Duration::from_millis(turn * 7 % 40));
                serve(kind, &who, stream, &way, &seen);
            }
        })
    };
    (0..count).map(one).collect()
}

/// Clients that send this many requests a second together until they are to end: half of them on a connection each.
pub fn paced(way: &Way, rate: usize, seen: &Arc<Seen>) -> Vec<JoinHandle<()>> {
    let count = (rate / 50).clamp(4, 32);
    let pause = Duration::from_secs_f64(count as f64 / rate as f64);
    let one = |index| {
        let (way, seen) = (way.clone(), Arc::clone(seen));
        std::thread::spawn(move || {
            let who = format!("client {index}");
            let mut kept = None;
            let mut next = Instant::now();
            while !seen.ending.load(Ordering::SeqCst) {
                let mut stream = kept.take().unwrap_or_else(|| crate::common::send(way.address, b""));
                let fields = if index % 2 == 0 { "Connection: close\r\n" } else { "" };
                if request(&who, &mut stream, fields, &seen) {
                    kept = Some(stream);
                }
                next = (next + pause).max(Instant::now() - pause);
                pace(next.saturating_duration_since(Instant::now()));
            }
        })
    };
    (0..count).map(one).collect()
}

fn serve(kind: Kind, who: &str, stream: TcpStream, way: &Way, seen: &Seen) {
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.set_write_timeout(Some(patience())).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream: Box<dyn Both> = match &way.tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("a.test").unwrap();
            Box::new(rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::clone(config), name).unwrap(), stream))
        }
    };
    match kind {
        Kind::New => drop(request(who, &mut stream, "Connection: close\r\n", seen)),
        Kind::Kept => {
            while request(who, &mut stream, "", seen) {
                pace(Duration::from_millis(2));
            }
        }
        Kind::Http2 => {
            if let Err(error) = http2(&mut stream, seen) {
                seen.cut(who, error);
            }
        }
        Kind::Tcp => drop(line(who, &mut stream, seen)),
        Kind::TcpKept => {
            while line(who, &mut stream, seen) && !seen.ending.load(Ordering::SeqCst) {
                pace(Duration::from_millis(2));
            }
        }
    }
}

/// Whether the connection goes on.
fn request(who: &str, stream: &mut dyn Both, fields: &str, seen: &Seen) -> bool {
    let sent = stream.write_all(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").as_bytes());
    match sent.and_then(|()| try_read_answer(stream, true)) {
        Ok(answer) if answer.status == 200 => {
            seen.served();
            answer.header("connection") != Some("close")
        }
        Ok(answer) => {
            seen.cut(who, answer.head);
            false
        }
        Err(error) => {
            seen.cut(who, format!("no answer: {error}"));
            false
        }
    }
}

fn line(who: &str, stream: &mut dyn Both, seen: &Seen) -> bool {
    let mut back = [0; 6];
    let done = stream.write_all(b"hello\n").and_then(|()| stream.read_exact(&mut back));
    match done {
        Ok(()) => seen.served(),
        Err(error) => seen.cut(who, error),
    }
    back == *b"hello\n"
}

/// Requests until the server says that it goes; then what is open is waited for.
fn http2(stream: &mut dyn Both, seen: &Seen) -> std::io::Result<()> {
    let get = b"\x82\x86\x84\x01\x06a.test";
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat())?;
    let (mut next, mut open, mut going) = (1, Vec::new(), false);
    loop {
        while !going && open.len() < STREAMS {
            stream.write_all(&frame(HEADERS, 5, next, get))?;
            open.push(next);
            next += 2;
        }
        if open.is_empty() {
            return Ok(());
        }
        let (kind, flags, id, payload) = read_frame(stream)?;
        let lost = |what: String| Err(std::io::Error::new(ErrorKind::ConnectionReset, what));
        match kind {
            SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            PING if flags & 1 == 0 => stream.write_all(&frame(PING, 1, 0, &payload))?,
            GOAWAY => {
                let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
                if open.iter().any(|id| *id > last) || payload[4..8] != [0; 4] {
                    return lost(format!("GOAWAY {last} with {open:?} open: {payload:?}"));
                }
                going = true;
            }
            RST_STREAM => return lost(format!("stream {id} was reset: {payload:?}")),
            // 200 is one octet (RFC 7541, appendix A); the first block may begin with a table of size 0.
            HEADERS if payload.strip_prefix(&[0x20]).unwrap_or(&payload)[0] != 0x88 => {
                return lost(format!("stream {id} was answered {payload:?}"));
            }
            _ => {}
        }
        if matches!(kind, 0 | HEADERS) && flags & 1 == 1 {
            open.retain(|known| *known != id);
            seen.served();
            pace(Duration::from_millis(1));
        }
    }
}

fn read_frame(stream: &mut dyn Both) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((kind, flags, u32::from_be_bytes(id), payload))
}
