//! The part of a body that has been sent and is kept until a response begins, so that the request can be sent again.

use crate::planted::{self, Fault};
use crate::worker::Worker;
use ringway_config::model::KEPT_BYTES_MAX;
use std::rc::Rc;

/// Bytes that framing may take, beside as many bytes as there are data.
const FRAMING_BYTES: usize = 1024;

/// Bytes kept, counted among the worker's for as long as this lives.
pub(crate) struct Kept {
    worker: Rc<Worker>,
    /// Of the body.
    data: usize,
    /// With their framing.
    bytes: usize,
    /// Where they begin in what is sent.
    pub(super) from: usize,
}

impl Kept {
    pub(super) fn new(worker: &Rc<Worker>, from: usize) -> Self {
        Self { worker: Rc::clone(worker), data: 0, bytes: 0, from }
    }

    /// How much of the body is kept.
    pub(super) fn data(&self) -> usize {
        self.data
    }

    /// Reserves room to keep so much more data, which is so many bytes with its framing. `false`: the request would keep more data
    /// than `data_max`, or too much framing for its data, or all requests together too much.
    pub(super) fn take(&mut self, (data, bytes): (usize, usize), data_max: usize) -> bool {
        let all = &self.worker.kept_bytes;
        let fits = self.data + data <= data_max
            && self.bytes + bytes <= data_max * 2 + FRAMING_BYTES
            && all.get() + bytes <= KEPT_BYTES_MAX;
        if fits {
            (self.data, self.bytes) = (self.data + data, self.bytes + bytes);
            all.set(all.get() + bytes);
        }
        fits
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if planted::is_planted(Fault::ReplayBytesLeaked) {
            return;
        }
        let all = &self.worker.kept_bytes;
        all.set(all.get() - self.bytes);
    }
}
