//! Clients beyond a limit, and the local reply that they get before they are closed.

use super::frontend::Frontend;
use crate::net::transport::Transport;
use crate::worker::{OpenConnection, View};
use ringway_config::model::Protocol;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a client that is turned away may take to send its request, and to read the local reply.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Bytes that are read from it meanwhile.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// Clients of a worker that get such a reply at a time; more are closed without one.
const FAREWELLS_MAX: u32 = 64;

/// Why a client's connection is beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Its address has as many as allowed.
    PerIp,
    /// The listener, or the process, has as many as allowed.
    Full,
}

/// What a listener's clients speak from their first byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http {
        h2: bool,
    },
    /// TLS, or the service's own protocol: there is no reply that they would understand.
    Other,
}

/// See [`Speech`].
pub(crate) fn speech(view: &View, listener: usize) -> Speech {
    match (&view.snapshot.config.listeners[listener].protocol, &view.snapshot.tls[listener]) {
        (Protocol::Http(http), None) => Speech::Http { h2: http.h2.enabled },
        (Protocol::Http(_) | Protocol::Tcp(_) | Protocol::Udp(_), _) => Speech::Other,
    }
}

impl TurnedAway {
    /// As in `x-ringway-reason` and the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::PerIp => "connections_per_ip",
            Self::Full => "listener_full",
        }
    }

    fn answer(self, is_h2: bool) -> &'static [u8] {
        match (self, is_h2) {
            // SETTINGS, and GOAWAY with ENHANCE_YOUR_CALM: no stream was processed (RFC 9113, 6.8).
            (Self::PerIp | Self::Full, true) => b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            (Self::PerIp, false) => {
                b"HTTP/1.1 429 Too Many Requests\r\nx-ringway-reason: connections_per_ip\r\nretry-after: 1\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n"
            }
            (Self::Full, false) => {
                b"HTTP/1.1 503 Service Unavailable\r\nx-ringway-reason: listener_full\r\nretry-after: 1\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// Ends a connection beyond a limit: with a local reply, where the client speaks HTTP from the first byte on and not too many get one
/// at the moment; at once otherwise. It keeps its permits until then.
pub(crate) fn turn_away(
    frontend: &Rc<Frontend>,
    open: Option<OpenConnection>,
    stream: Transport,
    why: TurnedAway,
    speech: Speech,
) {
    let Speech::Http { h2 } = speech else { return };
    let Some(farewell) = Farewell::begin(frontend) else { return };
    frontend.worker.spawn("a connection that is turned away", async move {
        // Beyond that, it is closed as it is.
        let _ = tokio::time::timeout(FAREWELL_TIME, say_farewell(stream, why, h2)).await;
        drop((open, farewell));
    });
}

/// Replies once the client has sent something, in the protocol that it speaks: many clients lose a response that comes before their
/// request.
async fn say_farewell(mut stream: Transport, why: TurnedAway, h2: bool) {
    let mut bytes = [0; 4096];
    let Ok(mut read @ 1..) = stream.read(&mut bytes).await else { return };
    let is_h2 = h2 && bytes.starts_with(b"PRI");
    if stream.write_all(why.answer(is_h2)).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Unread bytes would turn the close into a reset, and the reply would be lost with it.
    while read < FAREWELL_BYTES_MAX {
        match stream.read(&mut bytes).await {
            Ok(count @ 1..) => read += count,
            Ok(_) | Err(_) => return,
        }
    }
}

/// One of the clients that get a local reply as they are turned away.
struct Farewell(Rc<Frontend>);

impl Farewell {
    fn begin(frontend: &Rc<Frontend>) -> Option<Self> {
        let running = frontend.farewells.get();
        (running < FAREWELLS_MAX).then(|| {
            frontend.farewells.set(running + 1);
            Self(Rc::clone(frontend))
        })
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.farewells.set(self.0.farewells.get() - 1);
    }
}
