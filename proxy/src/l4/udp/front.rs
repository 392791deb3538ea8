//! A listening socket: what its task and its flows share.

use crate::l4::flows::{Flows, Path};
use crate::net::pktinfo;
use crate::worker::{ActiveListener, Worker};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use tokio::net::UdpSocket;

/// Datagrams read in one go before other tasks have their turn.
pub(super) const BATCH: usize = 64;

/// State that the listening task and its flows share.
pub(super) struct Front {
    pub(super) worker: Rc<Worker>,
    /// The listener that the datagrams belong to now: the socket may be handed over.
    pub(super) active_listener: RefCell<Rc<ActiveListener>>,
    pub(super) socket: UdpSocket,
    pub(super) flows: RefCell<Flows>,
    /// For a socket on all addresses.
    pub(super) space: RefCell<Option<pktinfo::Space>>,
    pub(super) buffer: RefCell<Box<[u8]>>,
}

impl Front {
    pub(super) fn active_listener(&self) -> Rc<ActiveListener> {
        Rc::clone(&self.active_listener.borrow())
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
        let (count, client, local) = match &mut *self.space.borrow_mut() {
            Some(space) => space.receive(&self.socket, buffer)?,
            None => self.socket.try_recv_from(buffer).map(|(count, client)| (count, client, None))?,
        };
        Ok((count, Path { client, local }))
    }

    pub(super) fn send(&self, path: Path, datagram: &[u8]) -> io::Result<usize> {
        match path.local {
            Some(local) => pktinfo::send(&self.socket, datagram, path.client, local),
            // Bypasses the runtime, which would have to be asked to wait.
            None => socket2::SockRef::from(&self.socket).send_to(datagram, &path.client.into()),
        }
    }
}
