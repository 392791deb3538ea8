//! Servers and requests that always do the same, with threads and sockets that block.

use crate::compare::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a response may take.
const LIMIT: Duration = Duration::from_secs(30);

fn said(error: std::io::Error) -> String {
    error.to_string()
}

/// Serves these bytes to each request, whatever it says; gives the port. Bodies have a `Content-Length`.
///
/// # Errors
/// No port can be bound.
pub fn serve(response: &'static [u8]) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said)?;
    let port = listener.local_addr().map_err(said)?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that fails is one that the proxy has ended.
            std::thread::spawn(move || respond(stream, response));
        }
    });
    Ok(port)
}

fn respond(mut stream: TcpStream, response: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..count]);
        while let Some(end) = request_end(&seen) {
            seen.drain(..end);
            stream.write_all(response)?;
        }
    }
}

/// Where the first request ends, if all of it is there.
fn request_end(seen: &[u8]) -> Option<usize> {
    let head = seen.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&seen[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (seen.len() >= end).then_some(end)
}

/// Asks for a path; gives the seconds to the response's last byte, and its bytes.
///
/// # Errors
/// The response is no 200.
pub(super) fn get(port: u16, path: &str, fields: &str) -> Result<(f64, usize)> {
    let began = Instant::now();
    let mut stream = begin(port, path, &format!("connection: close\r\n{fields}"))?;
    let mut bytes = Vec::with_capacity(64 << 20);
    stream.read_to_end(&mut bytes).map_err(said)?;
    let seconds = began.elapsed().as_secs_f64();
    if bytes.starts_with(b"HTTP/1.1 200") {
        return Ok((seconds, bytes.len()));
    }
    Err(format!("{path}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(500)])))
}

/// Asks for a path; the response is still to be read.
///
/// # Errors
/// There is no connection.
pub(super) fn begin(port: u16, path: &str, fields: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(said)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(said)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n").as_bytes()).map_err(said)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::request_end;

    #[test]
    fn a_request_ends_behind_its_body() {
        assert_eq!(request_end(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(request_end(b"GET / HTTP/1.1\r\n\r\nGET"), Some(18));
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd";
        assert_eq!(request_end(post), Some(post.len() - 1));
        assert_eq!(request_end(&post[..post.len() - 2]), None);
    }
}
