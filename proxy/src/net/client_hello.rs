//! The first message of a client that speaks TLS, as far as it says which server is wanted.

use rustls::server::Acceptor;

/// Bytes that are no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHello;

/// Reads it as it comes.
#[derive(Default)]
pub(crate) struct HelloReader(Acceptor);

impl HelloReader {
    /// Takes what has come since. `None`: more is needed; else the name that the client asks for, in lower case, if it asks for one.
    pub(crate) fn read(&mut self, mut fresh: &[u8]) -> Result<Option<Option<String>>, NoHello> {
        while !fresh.is_empty() {
            if !matches!(self.0.read_tls(&mut fresh), Ok(1..)) {
                return Err(NoHello);
            }
            match self.0.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Ok(Some(accepted.client_hello().server_name().map(str::to_ascii_lowercase)));
                }
                Err(_) => return Err(NoHello),
            }
        }
        Ok(None)
    }
}
