//! What has been sent of a body and is kept until an answer begins: a backend may say of a stream that it has not looked at it.

use crate::worker::Worker;
use std::rc::Rc;

/// Bytes kept of one request's body: 16 KiB of data, and what frames them.
const BYTES_MAX: usize = 17 * 1024;
/// And of all of a worker's.
const WORKER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes kept, counted among the worker's for as long as this lives.
pub(crate) struct Kept {
    worker: Rc<Worker>,
    bytes: usize,
    /// Where they begin in what is sent.
    pub(super) from: usize,
}

impl Kept {
    pub(super) fn new(worker: &Rc<Worker>, from: usize) -> Self {
        Self { worker: Rc::clone(worker), bytes: 0, from }
    }

    /// Takes leave to keep so many more. `false`: the request, or all together, would keep too many.
    pub(super) fn take(&mut self, more: usize) -> bool {
        let all = &self.worker.kept_bytes;
        let fits = self.bytes + more <= BYTES_MAX && all.get() + more <= WORKER_BYTES_MAX;
        if fits {
            self.bytes += more;
            all.set(all.get() + more);
        }
        fits
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let all = &self.worker.kept_bytes;
        all.set(all.get() - self.bytes);
    }
}
