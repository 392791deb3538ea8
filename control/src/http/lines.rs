//! A response that goes on: its lines, as they come.

use super::call::body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Response, StatusCode};
use std::time::Duration;

/// Lines of a response. Dropping them ends the connection.
pub struct Lines {
    /// The connection lasts as long as it does.
    _sender: SendRequest<Full<Bytes>>,
    body: Incoming,
    rest: Vec<u8>,
}

/// What somebody answers who is asked for lines.
pub enum Followed {
    /// They come.
    Lines(Box<Lines>),
    /// None do: a status, and a body.
    Refused(StatusCode, Bytes),
}

impl Lines {
    /// Takes a response over, if it is a success; what is none has at most so many bytes.
    pub(super) async fn of(
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
        bytes_max: usize,
    ) -> Result<Followed, String> {
        let status = response.status();
        if !status.is_success() {
            let body = body(response, bytes_max).await.map_err(|error| error.to_string())?;
            return Ok(Followed::Refused(status, body));
        }
        Ok(Followed::Lines(Box::new(Self { _sender: sender, body: response.into_body(), rest: Vec::new() })))
    }

    /// The next line, without its end; `None`: there are no more.
    ///
    /// # Errors
    /// It is longer than `bytes_max`, does not come within `patience`, or breaks off.
    pub async fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Option<Vec<u8>>, String> {
        // No byte is looked at twice.
        let mut looked = 0;
        loop {
            if let Some(end) = self.rest[looked..].iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.rest.drain(..=looked + end).collect();
                line.pop();
                return Ok(Some(line));
            }
            looked = self.rest.len();
            if looked > bytes_max {
                return Err(format!("a line is longer than {bytes_max} bytes"));
            }
            let next = tokio::time::timeout(patience, self.body.frame()).await;
            match next.map_err(|_| format!("nothing has come for {}s", patience.as_secs()))? {
                None if self.rest.is_empty() => return Ok(None),
                None => return Err("a line was cut off".into()),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
    }
}
