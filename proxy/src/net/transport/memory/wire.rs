//! What is between the two ends of a connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// What is drawn of a connection, so that no two are alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes that may be under direction in either direction.
    pub(crate) room: usize,
    /// Bytes that one read gives at most, and one write takes.
    pub(crate) stride: usize,
    /// A reset overtakes what has not been read.
    pub(crate) reset_overtakes: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { room: 64 * 1024, stride: usize::MAX, reset_overtakes: false }
    }
}

/// Bytes on their direction to one end.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) bytes: VecDeque<u8>,
    /// Nothing more comes.
    pub(super) ended: bool,
    /// The other end, or something between, has reset the connection; and whether that was reported.
    pub(super) reset: bool,
    pub(super) reported: bool,
    /// The end that reads is closed.
    pub(super) closed: bool,
    /// The last read has filled its space: the runtime takes that for more to come.
    pub(super) filled: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) shape: Shape,
    /// By the end that reads: 0 has connected, 1 has accepted.
    pub(super) directions: [Direction; 2],
    /// Nothing gets through any more, and neither end hears of that.
    pub(super) silent: bool,
}

/// A connection as the network sees it, whatever holds its ends.
#[derive(Debug, Clone)]
pub(crate) struct Wire(pub(super) Arc<Ends>);

#[derive(Debug)]
pub(super) struct Ends {
    pub(super) link: Mutex<Link>,
    pub(super) addresses: [SocketAddr; 2],
    pub(super) by_reset: [AtomicBool; 2],
}

impl Wire {
    pub(super) fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Distinguishes it from others that are held.
    pub(crate) fn number(&self) -> u16 {
        self.0.addresses[0].port()
    }

    /// From here on nothing gets through.
    pub(crate) fn silence(&self) {
        self.lock().silent = true;
    }

    /// When this end is closed, the other sees a reset.
    pub(crate) fn end_by_reset(&self, end: usize) {
        self.0.by_reset[end].store(true, Relaxed);
    }

    /// Both ends are reset, as by a router that has lost its state, or a host that has come back without.
    pub(crate) fn reset(&self) {
        let mut link = self.lock();
        link.silent = false;
        for end in 0..2 {
            link.reset(end);
        }
    }

    /// Whether the end that has connected is open.
    pub(crate) fn is_held_by_connector(&self) -> bool {
        !self.lock().directions[0].closed
    }

    /// Whether the end that has accepted is open.
    pub(crate) fn is_held_by_acceptor(&self) -> bool {
        !self.lock().directions[1].closed
    }
}

impl Link {
    pub(super) fn reset(&mut self, end: usize) {
        let overtakes = self.shape.reset_overtakes;
        let direction = &mut self.directions[end];
        if direction.closed || direction.reset {
            return;
        }
        // An end that has seen the other's end hears of a reset only where it writes.
        (direction.reset, direction.reported) = (true, direction.ended);
        // What an end stands behind has all been received: nothing that comes later takes it away.
        if overtakes && !direction.ended {
            direction.bytes.clear();
        }
        direction.wake_reader();
        self.directions[1 - end].wake_writer();
    }

    pub(super) fn close(&mut self, end: usize, by_reset: bool) {
        let unread = !self.directions[end].bytes.is_empty();
        let direction = &mut self.directions[end];
        (direction.closed, direction.reader) = (true, None);
        direction.bytes.clear();
        self.directions[1 - end].writer = None;
        if self.silent {
            // Noticed once the link is back, if it ever is.
            return;
        }
        if by_reset || unread {
            self.reset(1 - end);
        } else {
            self.directions[1 - end].ended = true;
            self.directions[1 - end].wake_reader();
        }
        self.directions[end].wake_writer();
    }
}

impl Direction {
    pub(super) fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}
