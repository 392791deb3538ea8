//! A blocking HTTP client for the members' API that tells what surely did not happen from what nobody knows.

use crate::common::{Answer, note, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than a member takes to say that it does not know.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(9);

/// Why there is no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was done.
    Definite(u16, String),
    /// It may have been done, or may yet be.
    Unknown(String),
}

/// One request on a connection of its own.
pub(crate) fn ask(
    member: SocketAddr,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
    patience: Duration,
) -> Result<Answer, Failure> {
    let unsent = |error: std::io::Error| Failure::Definite(0, error.to_string());
    let stream = TcpStream::connect_timeout(&member, Duration::from_secs(1)).map_err(unsent)?;
    stream.set_read_timeout(Some(patience)).map_err(unsent)?;
    stream.set_nodelay(true).map_err(unsent)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    );
    let lost = |error: std::io::Error| Failure::Unknown(error.to_string());
    (&stream).write_all(request.as_bytes()).map_err(lost)?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader).map_err(lost)?;
    let mut answer = Answer { status: head.0, head: head.1, body: Vec::new() };
    match answer.header("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => {
            answer.body = vec![0; length];
            reader.read_exact(&mut answer.body).map_err(lost)?;
        }
        None => drop(reader.read_to_end(&mut answer.body).map_err(lost)?),
    }
    if answer.status < 300 {
        return Ok(answer);
    }
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or("?").to_owned();
    // Only this one is said of what was begun; 500 would be a defect, and counts as it.
    if code == "unknown_outcome" || answer.status == 500 {
        return Err(Failure::Unknown(code));
    }
    Err(Failure::Definite(answer.status, code))
}

/// As [`ask`], JSON both ways.
pub(crate) fn json(member: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(member, method, path, "", &body, ANSWER_TIMEOUT);
    let answer = answer.inspect_err(|failure| note(format!("{method} {path} of {member}: {failure:?}")))?;
    serde_json::from_slice(&answer.body).map_err(|error| Failure::Unknown(error.to_string()))
}

/// As [`json`], of what must be done before the test goes on: a busy machine lets a leader be missed, and the next one is soon there.
pub(crate) fn must(member: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    wait_for("a leader", || match json(member, method, path, body) {
        Ok(answer) => Some(answer),
        // Nothing was done.
        Err(Failure::Definite(503, code)) if code == "no_leader" => None,
        Err(failure) => panic!("{method} {path}: {failure:?}"),
    })
}

/// GET, read as JSON; `None` if there is no good answer.
pub(crate) fn get(member: SocketAddr, path: &str) -> Option<Value> {
    let answer = ask(member, "GET", path, "", "", Duration::from_secs(2));
    let answer = answer.inspect_err(|failure| note(format!("GET {path} of {member}: {failure:?}"))).ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// Status and head.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<(u16, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, head))
}

/// The lines of a watch stream, until it ends or `each` says so. A stream that is silent for longer than members ever
/// are ends as well.
pub(crate) fn watch(
    member: SocketAddr,
    from: Option<(u64, u64)>,
    mut each: impl FnMut(&[u8]) -> bool,
) -> std::io::Result<()> {
    let stream = TcpStream::connect_timeout(&member, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(8)))?;
    let from = from.map(|(epoch, revision)| format!("?from={epoch}.{revision}")).unwrap_or_default();
    write!(&stream, "GET /v1/watch{from} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let (status, head) = read_head(&mut reader)?;
    if status != 200 {
        return Err(std::io::Error::other(head));
    }
    let mut line = Vec::new();
    loop {
        let mut size = String::new();
        if reader.read_line(&mut size)? == 0 {
            return Ok(());
        }
        let bytes = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; bytes + 2];
        reader.read_exact(&mut chunk)?;
        for part in chunk[..bytes].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                if !each(&line) {
                    return Ok(());
                }
                line.clear();
            }
        }
    }
}
