//! The first message of a TLS client, as far as it names the server.

use rustls::server::Acceptor;

/// First byte of a TLS record that begins a handshake.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// A fatal alert that the handshake has failed, in the oldest version: every client reads it.
pub(crate) const TLS_ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 40];

/// Bytes that are no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHello;

/// Reads it as it comes.
#[derive(Default)]
pub(crate) struct HelloReader(Acceptor);

impl HelloReader {
    /// Takes the bytes that have come since. `None`: more is needed; else the server name in lower case, if there is one.
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
