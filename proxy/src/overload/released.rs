//! Whether anything that took memory for long has ended: then there may be some to give back to the system. Where nothing has, looking for it
//! would cost an idle process time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static RELEASED: AtomicU64 = AtomicU64::new(0);

/// A connection to a client or a backend has ended, or come to rest, or a change of the configuration has.
pub(crate) fn note() {
    RELEASED.fetch_add(1, Relaxed);
}

/// How often that has been, in this process. The value means nothing but that it changes.
#[must_use]
pub fn released() -> u64 {
    RELEASED.load(Relaxed)
}
