//! Clients that connect for each request, and wait for the end of each connection before the next one.

use super::doing::doing;
use super::parked::Parked;
use crate::compare::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// Longest wait for an answer and the end behind it.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends the requests, so many at a time. Each must succeed. `half_closes`: the client ends first, as nobody in a session of TCP knows what
/// is the last answer; else the proxy does, since it is told to.
///
/// # Errors
/// What went wrong with one of them.
pub(super) fn load(port: u16, at_a_time: u32, requests: u64, half_closes: bool, parked: &Parked) -> Result<()> {
    let at_a_time = u64::from(at_a_time.max(1));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..at_a_time)
            .map(|number| {
                // The first ones take what is left over.
                let count = requests / at_a_time + u64::from(number < requests % at_a_time);
                scope.spawn(move || (0..count).try_for_each(|_| doing(ask(port, half_closes, parked), "ask the proxy")))
            })
            .collect();
        let mut ended = clients.into_iter().map(|client| client.join());
        ended.try_for_each(|client| client.unwrap_or_else(|_| Err("a client panicked".to_owned())))
    })
}

/// Whatever the client does reaches a proxy that sleeps.
fn ask(port: u16, half_closes: bool, parked: &Parked) -> std::io::Result<()> {
    let close = if half_closes { "" } else { "Connection: close\r\n" };
    let request = format!("GET / HTTP/1.1\r\nHost: bench\r\nx-user-id: user-1\r\n{close}\r\n");
    parked.wait();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    parked.wait();
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    if half_closes {
        let mut buffer = [0; 4096];
        while !is_whole(&answer) {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        parked.wait();
        stream.shutdown(Shutdown::Write)?;
    }
    stream.read_to_end(&mut answer)?;
    let good = answer.starts_with(b"HTTP/1.1 200 ") && is_whole(&answer);
    if good { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Whether the body of a backend's answer is there to its end.
fn is_whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    head.is_some_and(|head| answer.len() >= head + 4 + super::backend::BODY_BYTES)
}
