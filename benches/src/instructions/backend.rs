//! Backends that always do the same: one write for each request, when the proxy sleeps, on threads of this process.

use super::doing::doing;
use super::parked::Parked;
use crate::compare::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// Bytes of an answer's body.
pub(super) const BODY_BYTES: usize = 128;

/// Serves HTTP/1.1 for as long as the process lives; gives the port.
///
/// # Errors
/// When no port can be bound.
pub fn serve_http1(parked: &Parked) -> Result<u16> {
    let parked = parked.clone();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 22:24:48 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {BODY_BYTES}\r\nConnection: keep-alive\r\n\r\n"
    )
    .into_bytes();
    answer.extend([b'x'; BODY_BYTES]);
    serve(move |stream| http1(stream, &answer, &parked))
}

/// Serves unary calls of gRPC; gives the port.
///
/// # Errors
/// When no port can be bound.
pub fn serve_grpc(parked: &Parked) -> Result<u16> {
    let parked = parked.clone();
    serve(move |stream| grpc(stream, &parked))
}

/// Takes spans for as long as the process lives; gives the port.
///
/// # Errors
/// When no port can be bound.
pub fn serve_collector() -> Result<u16> {
    crate::seen::serve(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
}

fn serve(run: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> Result<u16> {
    let listener = doing(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), "bind a port")?;
    let port = doing(listener.local_addr(), "name a port")?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let run = run.clone();
            // A connection that fails is one that the proxy has ended.
            std::thread::spawn(move || stream.set_nodelay(true).and_then(|()| run(stream)));
        }
    });
    Ok(port)
}

fn http1(mut stream: TcpStream, answer: &[u8], parked: &Parked) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            parked.wait();
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..count]);
        // No request has a body.
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            parked.wait();
            stream.write_all(answer)?;
        }
    }
}

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The window of a connection is 65,535 bytes: it is opened again long before that is used up.
const TAKEN_BYTES_MAX: u32 = 16 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Frames by hand, so that each answer is one write, always of the same bytes but for the stream's number.
fn grpc(mut stream: TcpStream, parked: &Parked) -> std::io::Result<()> {
    // RFC 7541: `:status: 200`, and literals that are not indexed.
    let head = [&b"\x88\x0f\x10\x10"[..], b"application/grpc"].concat();
    let trailers = b"\x00\x0bgrpc-status\x010";
    let mut message = vec![0, 0, 0, 0, (BODY_BYTES - 5) as u8];
    message.resize(BODY_BYTES, b'x');
    stream.read_exact(&mut [0; PREFACE_BYTES])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let (mut input, mut buffer, mut taken) = (Vec::new(), [0; 16 * 1024], 0);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..count]);
        let (mut at, mut out) = (0, Vec::new());
        while let Some(&[a, b, c, kind, flags, d, e, f, g]) = input[at..].first_chunk::<HEAD_BYTES>() {
            let (length, id) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes([d, e, f, g]));
            let Some(payload) = input[at + HEAD_BYTES..].get(..length as usize) else { break };
            at += HEAD_BYTES + payload.len();
            match kind {
                SETTINGS if flags & ACK == 0 => out.extend(frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => out.extend(frame(PING, ACK, 0, payload)),
                DATA | HEADERS => {
                    taken += if kind == DATA { length } else { 0 };
                    if flags & END_STREAM != 0 {
                        out.extend(frame(HEADERS, END_HEADERS, id, &head));
                        out.extend(frame(DATA, 0, id, &message));
                        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, trailers));
                    }
                }
                _ => {}
            }
        }
        input.drain(..at);
        if taken > TAKEN_BYTES_MAX {
            out.extend(frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes()));
            taken = 0;
        }
        if !out.is_empty() {
            parked.wait();
            stream.write_all(&out)?;
        }
    }
}
