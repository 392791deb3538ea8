//! A client's HTTP/1.1 connection from its first request to its end: serves one request after the other, or goes on in HTTP/2.

use super::connection::{Arrival, Connection};
use super::{Frontend, http2};
use crate::codec::end::ClientEnd;
use crate::codec::http1::Http1;
use crate::exchange::Next;
use crate::exchange::client::Client;
use crate::net::client_hello::TLS_ALERT;
use std::future::poll_fn;
use std::rc::Rc;

/// Serves a connection to its end, or hands it over to HTTP/2. All that is large is boxed: most of the time it waits for a request.
pub(super) async fn serve(frontend: Rc<Frontend>, mut connection: Box<Connection>) {
    loop {
        let next = match poll_fn(|context| connection.poll_request(context)).await {
            Arrival::Closed => break,
            // The client has turned out to speak HTTP/2 without negotiation: prior knowledge.
            Arrival::Http2 => return begin_http2(&frontend, *connection),
            Arrival::Tls => {
                connection.client.open.worker.shared.counters.error("", "tls_on_plain_port");
                let _ = Box::pin(connection.client.send_bytes(TLS_ALERT)).await;
                Next::Linger
            }
            Arrival::Refused(mut refusal) => Box::pin(refusal.send(&mut connection.client)).await,
            Arrival::Request(request) => {
                let mut exchange = frontend.exchanges.begin(connection, request);
                let next;
                (connection, next) = poll_fn(|context| exchange.poll(context)).await;
                frontend.exchanges.give(exchange);
                next
            }
        };
        match next {
            Next::Request => {}
            Next::Abort => break,
            // Unread bytes would turn the close into a reset.
            Next::Close | Next::CloseAsAsked if connection.has_nothing_unread(next == Next::Close) => break,
            Next::Close | Next::CloseAsAsked | Next::Linger => {
                Box::pin(connection.linger()).await;
                break;
            }
        }
        connection.wait_for_next();
    }
    let input = std::mem::take(&mut connection.http1().input);
    connection.client.open.worker.buffers.give(input);
}

/// Goes on in HTTP/2, of which the preface has been read.
fn begin_http2(frontend: &Rc<Frontend>, connection: Connection) {
    let Client { open, end, .. } = connection.client;
    let ClientEnd::Http1(Http1 { stream, input, .. }) = end else { return };
    let Some((view, listener)) = open.worker.listener(&open.active_listener) else { return };
    let serving = http2::Serving::new(frontend, open, stream, input, (&view, listener));
    frontend.worker.spawn("a connection of HTTP/2", serving.serve());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::OpenConnection;

    /// The size of the future that a function makes.
    fn future_bytes<A, B, T>(_: impl FnOnce(A, B) -> T) -> usize {
        size_of::<T>()
    }

    #[test]
    fn an_idle_connection_holds_nothing_of_an_exchange() {
        // Each is just what a size of the allocator has room for. The runtime needs 104 bytes for a task, all of it a multiple of 128, and
        // 256 for a socket: a KiB, with an entry each in the tables of timers and of connections.
        let task = future_bytes(serve) + 24;
        assert!(task + 104 <= 256, "the task takes {task} bytes, with its watch");
        for (what, bytes, most) in [
            // A socket that may be one in memory takes 8 more than one of the kernel.
            ("the connection", size_of::<Connection>(), 192 + 8),
            ("what is known of it, with its count of references,", size_of::<OpenConnection>() + 16, 192),
        ] {
            assert!(bytes <= most, "{what} takes {bytes} bytes");
        }
    }
}
