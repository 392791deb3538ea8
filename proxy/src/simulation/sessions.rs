//! Sessions of a TCP listener: each side sends its bytes in its own order and at its own pace.

use super::ledger;
use super::random::Random;
use super::world::{RAW, World};
use crate::ambient;
use crate::net::transport::memory::{Listener, Socket};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Ids of sessions begin here.
const FIRST_ID: u64 = 1 << 32;

/// What both sides know from the first bytes: id, lengths both ways, and what goes wrong.
struct Deal {
    id: u64,
    up: usize,
    down: usize,
    /// 0: nothing; 1: the client resets; 2: the backend does; 3: the backend sends nothing.
    fault: u8,
}

impl Deal {
    fn bytes(&self) -> [u8; 25] {
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..16].copy_from_slice(&(self.up as u64).to_be_bytes());
        bytes[16..24].copy_from_slice(&(self.down as u64).to_be_bytes());
        bytes[24] = self.fault;
        bytes
    }

    fn read(bytes: [u8; 25]) -> Self {
        let number = |from: usize| bytes[from..from + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self { id: number(0), up: number(8) as usize, down: number(16) as usize, fault: bytes[24] }
    }
}

pub(super) async fn run(world: Rc<World>, number: u8, mut random: Random) {
    let mut count = 0;
    while !world.is_over() {
        tokio::time::sleep(random.millis(2_500)).await;
        count += 1;
        let from = SocketAddr::from(([10, 9, 1, number], 1024 + count as u16));
        let Ok(socket) = world.network.connect_from(from, RAW.parse().unwrap()).await else { continue };
        let fault = if random.chance(world.setup().faults) { random.below(4) as u8 } else { 0 };
        let deal = Deal {
            id: FIRST_ID + u64::from(number) * 1_000 + count,
            up: random.size(80_000),
            down: random.size(80_000),
            fault,
        };
        session(&world, socket, &deal, &mut random).await;
    }
}

async fn session(world: &World, mut socket: Socket, deal: &Deal, random: &mut Random) {
    let (id, begun) = (deal.id - FIRST_ID, ambient::now());
    world.ledger().tell(&format!("session {id} begins"));
    if socket.write_all(&deal.bytes()).await.is_err() {
        return;
    }
    if deal.fault == 1 {
        tokio::time::sleep(random.millis(300)).await;
        socket.end_by_reset();
        return;
    }
    let patience = Duration::from_secs(60);
    let (got, plain) = tokio::time::timeout(patience, talk(socket, deal.id, deal.up, random.millis(50)))
        .await
        .unwrap_or((Vec::new(), false));
    let right = got.iter().enumerate().all(|(at, byte)| *byte == ledger::content(deal.id, at));
    let mut ledger = world.ledger();
    ledger.tell(&format!("session {id} ends: {} bytes, {plain}", got.len()));
    ledger.count(if plain { "session ended" } else { "session cut" });
    let whole = got.len() == deal.down;
    // A session that was silent for too long is closed cleanly, as others are.
    let silenced = world.was_silenced_since(begun);
    if !right || got.len() > deal.down || plain && !whole && deal.fault == 0 && !silenced && !got.is_empty() {
        ledger.violation(&format!("session {id} has got {} of {} bytes, ended {plain}", got.len(), deal.down));
    }
    if !whole && deal.fault == 0 && world.setup().is_calm() {
        ledger.violation(&format!("session {id} is cut: {} of {} bytes", got.len(), deal.down));
    }
}

/// Sends all, and reads all; returns what was read, and whether it has ended cleanly.
async fn talk(socket: Socket, id: u64, says: usize, pause: Duration) -> (Vec<u8>, bool) {
    let (mut input, mut output) = tokio::io::split(socket);
    let sending = async {
        let mut sent = 0;
        while sent < says {
            let count = 10_000.min(says - sent);
            if output.write_all(&ledger::stretch(id, sent, count)).await.is_err() {
                return;
            }
            sent += count;
            tokio::time::sleep(pause).await;
        }
        let _ = output.shutdown().await;
    };
    let mut got = Vec::new();
    let receiving = async {
        let mut space = [0; 4096];
        loop {
            match input.read(&mut space).await {
                Ok(0) => return true,
                Ok(count) => got.extend_from_slice(&space[..count]),
                Err(_) => return false,
            }
        }
    };
    let ((), plain) = tokio::join!(sending, receiving);
    (got, plain)
}

/// The backend's side.
pub(super) async fn serve_all(world: Rc<World>, listener: Listener, mut random: Random) {
    while let Ok((socket, _)) = listener.accept().await {
        let (world2, random) = (Rc::clone(&world), random.fork());
        world.spawn(async move { serve(&world2, socket, random).await });
    }
}

async fn serve(world: &World, mut socket: Socket, mut random: Random) {
    let mut bytes = [0; 25];
    if socket.read_exact(&mut bytes).await.is_err() {
        return;
    }
    let (deal, begun) = (Deal::read(bytes), ambient::now());
    match deal.fault {
        2 => {
            tokio::time::sleep(random.millis(300)).await;
            return socket.end_by_reset();
        }
        3 => {
            while matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {}
            return;
        }
        _ => {}
    }
    let (got, plain) = talk(socket, deal.id, deal.down, random.millis(50)).await;
    let right = got.iter().enumerate().all(|(at, byte)| *byte == ledger::content(deal.id, at));
    let silenced = world.was_silenced_since(begun);
    if !right || got.len() > deal.up || plain && got.len() != deal.up && deal.fault == 0 && !silenced {
        let id = deal.id - FIRST_ID;
        world.ledger().violation(&format!("the backend of session {id} has got {} of {} bytes", got.len(), deal.up));
    }
}
