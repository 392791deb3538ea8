//! HTTP/1.1 as the scripts speak it: simple, strict, and independent of the proxy's code.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer than any head that is sent on purpose.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Why something has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection has ended; whether by a plain end.
    Ended { plain: bool },
    /// What came is no HTTP.
    Malformed(String),
}

/// A start line and its fields.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn word(&self, index: usize) -> &str {
        self.first.split(' ').nth(index).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    pub(super) fn says(&self, name: &str, word: &str) -> bool {
        self.field(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Sized(usize),
    Chunked,
    UntilClose,
}

/// Reads messages, at its own pace.
pub(super) struct Reader<R> {
    stream: R,
    bytes: Vec<u8>,
    pub(super) stride: usize,
    pub(super) pause: Duration,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, bytes: Vec::new(), stride: 16 * 1024, pause: Duration::ZERO }
    }

    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// `Ok(false)`: nothing more comes.
    pub(super) async fn more(&mut self) -> io::Result<bool> {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        let held = self.bytes.len();
        self.bytes.resize(held + self.stride, 0);
        let read = self.stream.read(&mut self.bytes[held..]).await;
        self.bytes.truncate(held + read.as_ref().map_or(0, |count| *count));
        Ok(read? > 0)
    }

    async fn need(&mut self) -> Result<(), Cut> {
        match self.more().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Cut::Ended { plain: true }),
            Err(_) => Err(Cut::Ended { plain: false }),
        }
    }

    async fn line(&mut self) -> Result<String, Cut> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
                self.bytes.drain(..end + 2);
                return Ok(line);
            }
            if self.bytes.len() > HEAD_BYTES_MAX {
                return Err(Cut::Malformed("an endless line".into()));
            }
            self.need().await?;
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, Cut> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| Cut::Malformed(format!("field {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub(super) async fn head(&mut self) -> Result<Head, Cut> {
        let first = self.line().await?;
        let fields = self.fields().await?;
        Ok(Head { first, fields })
    }

    /// Reads a body into `body`, as far as it comes; returns whether trailers came.
    pub(super) async fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> Result<bool, Cut> {
        match framing {
            Framing::None => Ok(false),
            Framing::Sized(length) => self.take(length, body).await.map(|()| false),
            Framing::UntilClose => loop {
                body.append(&mut self.bytes);
                match self.need().await {
                    Ok(()) => {}
                    Err(Cut::Ended { plain: true }) => return Ok(false),
                    Err(cut) => return Err(cut),
                }
            },
            Framing::Chunked => loop {
                let line = self.line().await?;
                let length = usize::from_str_radix(&line, 16).map_err(|_| Cut::Malformed(format!("chunk {line:?}")))?;
                if length == 0 {
                    return self.fields().await.map(|fields| !fields.is_empty());
                }
                self.take(length, body).await?;
                if !self.line().await?.is_empty() {
                    return Err(Cut::Malformed("a chunk that does not end".into()));
                }
            },
        }
    }

    async fn take(&mut self, mut length: usize, body: &mut Vec<u8>) -> Result<(), Cut> {
        loop {
            let count = length.min(self.bytes.len());
            body.extend(self.bytes.drain(..count));
            length -= count;
            if length == 0 {
                return Ok(());
            }
            self.need().await?;
        }
    }
}
