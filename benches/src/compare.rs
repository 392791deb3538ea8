//! Ringway beside HAProxy, nginx, Envoy and Traefik: the same backends, the same load, interleaved.

pub mod affinity;
pub mod cache;
pub mod figures;
pub mod grpc;
pub mod handoff;
pub mod load;
pub mod peer;
pub mod poisson;
pub mod report;
pub mod rig;
pub mod scenario;
pub mod slow_readers;

use std::fmt::Display;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What went wrong, in words.
pub type Result<T> = std::result::Result<T, String>;

/// Adds what was being done to an error.
fn while_doing<T, E: Display>(result: std::result::Result<T, E>, what: impl Display) -> Result<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// A port that was free a moment ago.
///
/// # Errors
/// When no socket can be bound.
pub fn free_port() -> Result<u16> {
    let listener = while_doing(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), "bind a port")?;
    Ok(while_doing(listener.local_addr(), "name a port")?.port())
}

/// Waits until somebody listens there.
fn wait_for_port(port: u16, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("nobody listens on port {port} after {limit:?}"))
}
