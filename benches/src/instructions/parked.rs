//! What makes counts repeat: nothing is sent to the proxy before it sleeps. Whether an answer is there already when the proxy looks,
//! or it goes to sleep and is woken, is otherwise drawn anew for each request, and a tenth of its cost.

use super::doing::doing;
use crate::compare::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Longest wait: whoever does not sleep by then is at work on something else.
const LIMIT: Duration = Duration::from_secs(1);

/// Tells whether the proxy sleeps, once it is known which process that is.
#[derive(Debug, Clone, Default)]
pub struct Parked(Arc<OnceLock<Vec<PathBuf>>>);

impl Parked {
    /// All threads of that process are looked at from now on. It has started all that it will have.
    ///
    /// # Errors
    /// When it is not there.
    pub fn watch(&self, pid: u32) -> Result<()> {
        let tasks = doing(std::fs::read_dir(format!("/proc/{pid}/task")), "find the proxy's threads")?;
        let threads: Vec<PathBuf> = tasks.flatten().map(|task| task.path().join("stat")).collect();
        self.0.set(threads).map_err(|_| "it is watched already".to_owned())
    }

    /// Comes back when all its threads sleep.
    pub fn wait(&self) {
        let Some(threads) = self.0.get() else { return };
        // `1234 (name) S ...`: a name has no bracket that closes before its own.
        let sleeps = |path: &PathBuf| {
            let stat = std::fs::read_to_string(path).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
        };
        let begin = Instant::now();
        while !threads.iter().all(sleeps) && begin.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Relays connections to that port, what the client sends not before the proxy sleeps. Gives the relay's port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn relay(&self, to: u16) -> Result<u16> {
        let listener = doing(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), "bind a port")?;
        let port = doing(listener.local_addr(), "name a port")?.port();
        let parked = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(proxy) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                let (Ok(client_out), Ok(proxy_out)) = (client.try_clone(), proxy.try_clone()) else { continue };
                let waits = parked.clone();
                // What ends a connection ends its relay, and is seen by both ends.
                std::thread::spawn(move || pass_on(client, proxy_out, || waits.wait()));
                std::thread::spawn(move || pass_on(proxy, client_out, || {}));
            }
        });
        Ok(port)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, before: impl Fn()) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let seen = from.peek(&mut buffer)?;
        if seen == 0 {
            return to.shutdown(Shutdown::Write);
        }
        before();
        // All that has come meanwhile goes with it.
        let count = from.read(&mut buffer)?;
        to.write_all(&buffer[..count])?;
    }
}
