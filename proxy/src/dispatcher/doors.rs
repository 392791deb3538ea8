//! The listening sockets of all workers. The kernel spreads connections over them, whatever their workers do: while one is stuck, another
//! worker accepts from its sockets too, what they hold already among it.

use super::listener_id::ListenerId;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Each takes a descriptor: where there are more sockets, clients of the others wait for their worker.
const DOORS_MAX: usize = 512;

/// Sockets, each under a second descriptor.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    doors: Mutex<Vec<Door>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Door {
    id: u64,
    worker: usize,
    key: ListenerId,
    socket: TcpListener,
}

/// A socket is known as long as this lives. It goes before the socket is closed: nobody else keeps it open then.
#[derive(Debug)]
pub(crate) struct Known {
    doors: Arc<Doors>,
    id: u64,
}

impl Doors {
    fn doors(&self) -> MutexGuard<'_, Vec<Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a worker's socket; `None`: there are too many, or no descriptor is left.
    pub(crate) fn enter(self: &Arc<Self>, worker: usize, key: &ListenerId, socket: &TcpListener) -> Option<Known> {
        let mut doors = self.doors();
        if doors.len() >= DOORS_MAX {
            return None;
        }
        let socket = socket.try_clone().ok()?;
        let id = self.next.fetch_add(1, Relaxed);
        doors.push(Door { id, worker, key: key.clone(), socket });
        Some(Known { doors: Arc::clone(self), id })
    }

    /// Whether the socket with this number is there.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.doors().iter().any(|door| door.id == id)
    }

    /// Sockets of such workers, each with its number.
    pub(crate) fn of(&self, wanted: impl Fn(u64, usize) -> bool) -> Vec<(u64, usize, ListenerId, TcpListener)> {
        let doors = self.doors();
        let wanted = doors.iter().filter(|door| wanted(door.id, door.worker));
        wanted
            .filter_map(|door| Some((door.id, door.worker, door.key.clone(), door.socket.try_clone().ok()?)))
            .collect()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.doors.doors().retain(|door| door.id != self.id);
    }
}
