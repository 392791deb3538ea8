//! A gRPC backend that costs as little as it can: HTTP/2 without TLS, one message and trailers for every request.

use super::{Result, while_doing};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

/// A message as gRPC frames it: not compressed, its length, 64 bytes.
#[must_use]
pub fn message() -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 64];
    frame.extend([b'x'; 64]);
    frame
}

/// Serves on so many ports, on a thread of its own, for as long as the process lives. The thread runs where its maker does.
///
/// # Errors
/// Ports that cannot be bound.
pub fn serve(count: usize) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    let mut listeners = Vec::new();
    for _ in 0..count {
        let listener = while_doing(std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)), "bind a port")?;
        while_doing(listener.set_nonblocking(true), "set up a port")?;
        ports.push(while_doing(listener.local_addr(), "name a port")?.port());
        listeners.push(listener);
    }
    let runtime = while_doing(tokio::runtime::Builder::new_current_thread().enable_all().build(), "start a runtime")?;
    let run = move || {
        runtime.block_on(async move {
            for listener in listeners {
                tokio::spawn(accept(listener));
            }
            std::future::pending::<()>().await;
        });
    };
    while_doing(std::thread::Builder::new().name("grpc-backend".into()).spawn(run), "start a thread").map(|_| ports)
}

async fn accept(listener: std::net::TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        // Only a hint to the kernel.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24).max_concurrent_streams(1000);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            let content = Bytes::from(message());
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let content = content.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        // The window is wide: a request fits many times over.
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    let mut response = Response::new(());
                    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                    let Ok(mut send) = respond.send_response(response, false) else { return };
                    if send.send_data(content, false).is_ok() {
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        // A stream that was reset has nobody to tell.
                        let _ = send.send_trailers(trailers);
                    }
                });
            }
        });
    }
}
