//! Pipes through which bulk goes from one socket to another without being copied (splice(2)): a worker's pool of them.

use ringway_telemetry::counters::WorkerCounters;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Pipes of a worker, those in use and those that are kept: two descriptors each, and at most 256 KiB of the kernel's memory.
const PIPES_MAX: usize = 32;
/// Most that goes through one at once: as much as through a large buffer.
const PIPE_BYTES: usize = 256 * 1024;

/// Bytes on their way from one socket to another.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    place: PipePermit,
}

/// One of the pipes in use, counted as long as this lives.
#[derive(Debug)]
struct PipePermit(Arc<WorkerCounters>);

impl PipePermit {
    fn take(counters: &Arc<WorkerCounters>) -> Option<Self> {
        (counters.pipes.get() < PIPES_MAX as u64).then(|| {
            counters.pipes.increment();
            Self(Arc::clone(counters))
        })
    }
}

impl Drop for PipePermit {
    fn drop(&mut self) {
        self.0.pipes.subtract(1);
    }
}

/// Whether an error of a pipe means that these two ends cannot be spliced on this system, and nothing has been moved.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [rustix::io::Errno::INVAL, rustix::io::Errno::NOSYS, rustix::io::Errno::OPNOTSUPP];
    unsupported.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Pipe {
    fn open(place: PipePermit) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Who may have no larger one (`pipe-user-pages-soft`) would move a page or two at a time: copying is cheaper then.
        fcntl_setpipe_size(&writer, PIPE_BYTES)?;
        Ok(Self { reader, writer, held: 0, place })
    }

    /// Bytes that are in it.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// Moves what a socket has into it, which is empty; 0 is the socket's end.
    pub(crate) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        debug_assert!(self.held == 0, "a pipe that is full would look like a socket that has nothing");
        let count = splice(from, None, &self.writer, None, PIPE_BYTES, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held += count;
        Ok(count)
    }

    /// Moves out of it what a socket takes.
    pub(crate) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let count = splice(&self.reader, None, to, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }

    /// Reads what is in it, as much as there is room for.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = rustix::io::read(&self.reader, space)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

/// A worker's pool.
#[derive(Debug)]
pub(crate) struct Pipes {
    counters: Arc<WorkerCounters>,
    kept: RefCell<Vec<(OwnedFd, OwnedFd)>>,
    /// Sockets cannot be spliced here, descriptors have come to their end, or the kernel has no more room for pipes: none is opened until that is
    /// forgotten.
    refused: Cell<bool>,
}

impl Pipes {
    pub(crate) fn new(counters: &Arc<WorkerCounters>) -> Self {
        Self { counters: Arc::clone(counters), kept: RefCell::default(), refused: Cell::new(false) }
    }

    /// An empty one, within the worker's allowance. `may_open`: whether there may be two descriptors more.
    pub(crate) fn take(&self, may_open: impl FnOnce() -> bool) -> Option<Pipe> {
        if self.refused.get() {
            return None;
        }
        let place = PipePermit::take(&self.counters)?;
        if let Some((reader, writer)) = self.kept.borrow_mut().pop() {
            return Some(Pipe { reader, writer, held: 0, place });
        }
        if !may_open() {
            return None;
        }
        let opened = Pipe::open(place);
        self.refused.set(opened.is_err());
        opened.ok()
    }

    /// Takes one back. One that still holds bytes is closed with them.
    pub(crate) fn give(&self, pipe: Pipe) {
        let Pipe { reader, writer, held, place } = pipe;
        drop(place);
        let mut kept = self.kept.borrow_mut();
        if held == 0 && !self.refused.get() && kept.len() < PIPES_MAX {
            kept.push((reader, writer));
        }
    }

    /// Whether those in use are to be given back as soon as they are empty.
    pub(crate) fn are_refused(&self) -> bool {
        self.refused.get()
    }

    /// Splicing does not work, or costs descriptors that others need: for a while none is given.
    pub(crate) fn refuse(&self) {
        self.refused.set(true);
        self.kept.borrow_mut().clear();
    }

    /// Closes half of those that are kept, and lets them be opened again.
    pub(crate) fn trim(&self) {
        self.refused.set(false);
        let mut kept = self.kept.borrow_mut();
        let keep = kept.len() / 2;
        kept.truncate(keep);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = listener.accept().unwrap().0;
        (one, other)
    }

    fn pipes() -> Pipes {
        Pipes::new(&Arc::default())
    }

    #[test]
    fn what_goes_in_at_one_socket_comes_out_of_another_and_an_end_is_told() {
        let (pipes, (mut client, from), (to, mut backend)) = (pipes(), pair(), pair());
        let mut pipe = pipes.take(|| true).unwrap();
        from.set_nonblocking(true).unwrap();
        assert_eq!(pipe.fill(&from).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.write_all(b"twelve bytes").unwrap();
        from.set_nonblocking(false).unwrap();
        assert_eq!((pipe.fill(&from).unwrap(), pipe.len()), (12, 12));
        assert_eq!((pipe.drain(&to).unwrap(), pipe.len()), (12, 0));
        let mut bytes = [0; 12];
        backend.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"twelve bytes");
        drop(client);
        assert_eq!(pipe.fill(&from).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_spliced_is_told_from_what_fails_and_comes_back_byte_for_byte() {
        let (pipes, (mut client, from), directory) = (pipes(), pair(), tempfile::tempdir().unwrap());
        let mut pipe = pipes.take(|| true).unwrap();
        client.write_all(&[7; 20_000]).unwrap();
        drop(client);
        let mut moved = 0;
        let mut space = [0; 3000];
        // A file that is only appended to takes nothing from a pipe.
        let appended =
            std::fs::OpenOptions::new().append(true).create(true).open(directory.path().join("file")).unwrap();
        while pipe.fill(&from).unwrap() > 0 {
            assert!(is_unsupported(&pipe.drain(&appended).unwrap_err()));
            while pipe.len() > 0 {
                let count = pipe.read(&mut space).unwrap();
                assert!(space[..count].iter().all(|byte| *byte == 7));
                moved += count;
            }
        }
        assert_eq!(moved, 20_000);
        assert!(!is_unsupported(&ErrorKind::ConnectionReset.into()));
        assert!(!is_unsupported(&io::Error::from(rustix::io::Errno::PIPE)));
    }

    #[test]
    fn a_worker_has_so_many_and_one_that_holds_bytes_is_not_used_again() {
        let (pipes, (mut client, from)) = (pipes(), pair());
        for _ in 0..2 {
            let mut held: Vec<Pipe> = std::iter::from_fn(|| pipes.take(|| true)).collect();
            assert_eq!((held.len(), pipes.counters.pipes.get()), (PIPES_MAX, PIPES_MAX as u64));
            client.write_all(b"x").unwrap();
            held[0].fill(&from).unwrap();
            // One is dropped by a session that has been cancelled.
            drop(held.pop());
            held.into_iter().for_each(|pipe| pipes.give(pipe));
            assert_eq!((pipes.counters.pipes.get(), pipes.kept.borrow().len()), (0, PIPES_MAX - 2));
        }
        let left = pipes.kept.borrow().len();
        let reused: Vec<Option<Pipe>> = (0..=left).map(|_| pipes.take(|| false)).collect();
        assert_eq!(reused.iter().flatten().count(), left, "one more would take descriptors from clients");
        reused.into_iter().flatten().for_each(|pipe| pipes.give(pipe));
        pipes.trim();
        assert_eq!(pipes.kept.borrow().len(), (PIPES_MAX - 2) / 2);
        pipes.refuse();
        assert!(pipes.take(|| true).is_none() && pipes.kept.borrow().is_empty());
        pipes.trim();
        assert!(pipes.take(|| true).is_some(), "it is tried again");
    }
}
