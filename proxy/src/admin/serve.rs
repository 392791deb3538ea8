//! Connections of the admin listener.

use super::dispatch;
use crate::apply::handle::ControlHandle;
use crate::net::shortage::{Operation, is_of_one_connection};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Admin connections at once: a reserve of its own, which client connections cannot use up.
const CONNECTIONS_MAX: usize = 64;

/// Serves the admin listener for as long as the process lives.
pub(crate) async fn serve(control: ControlHandle, socket: TcpListener) {
    let permits = Arc::new(Semaphore::new(control.shortage().admin_connections_max(CONNECTIONS_MAX)));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(control.clone(), stream, permit))),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                control.shortage().note(Operation::AdminAccept, &error, "admin");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(control: ControlHandle, stream: TcpStream, permit: OwnedSemaphorePermit) {
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(dispatch::respond(&control, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on an admin connection is its client's to see.
    let _ = connection.await;
    drop(permit);
}
