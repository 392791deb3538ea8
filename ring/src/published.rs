//! One value that many threads read and one replaces, whole.
//!
//! A reader keeps the value that it has seen last, and a look costs one load as long as that is the newest. A writer that
//! replaces the value never waits; the one of before is freed with its last reader.

use crate::sync::AtomicU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Where the value lies: no reader waits for a writer.
#[cfg(not(loom))]
type Slot<T> = arc_swap::ArcSwap<T>;

/// The same for the model checker, which cannot look into that.
#[cfg(loom)]
#[derive(Debug, Default)]
struct Slot<T>(crate::sync::Mutex<Arc<T>>);

#[cfg(loom)]
impl<T> Slot<T> {
    fn new(value: Arc<T>) -> Self {
        Self(crate::sync::Mutex::new(value))
    }

    fn load_full(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().expect("invariant: no code panics while it is held"))
    }

    fn store(&self, value: Arc<T>) {
        let old = std::mem::replace(&mut *self.0.lock().expect("invariant: no code panics while it is held"), value);
        drop(old);
    }
}

/// The value in force.
#[derive(Debug, Default)]
pub struct Published<T> {
    /// How often it has been replaced. Raised when that is done, so that a reader which sees the number sees the value, or a newer one.
    version: AtomicU64,
    value: Slot<T>,
}

impl<T> Published<T> {
    /// Begins with this one.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        Self { version: AtomicU64::new(0), value: Slot::new(value) }
    }

    /// The value in force, for callers that look now and then; others have a [`Reader`].
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// What `look` sees in the value in force. Counts nothing that threads share: for callers that look often, and keep nothing.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        #[cfg(not(loom))]
        let value = self.value.load();
        #[cfg(loom)]
        let value = self.value.load_full();
        look(&value)
    }

    /// Puts another value into force.
    pub fn store(&self, value: Arc<T>) {
        self.value.store(value);
        self.version.fetch_add(1, Release);
    }
}

/// Looks again and again, on one thread.
#[derive(Debug)]
pub struct Reader<T> {
    published: Arc<Published<T>>,
    version: u64,
    value: Arc<T>,
}

impl<T> Reader<T> {
    /// Begins with the value in force.
    #[must_use]
    pub fn new(published: Arc<Published<T>>) -> Self {
        let version = published.version.load(Acquire);
        let value = published.load();
        Self { published, version, value }
    }

    /// The value in force. Never one of before the last that this reader has seen.
    #[inline]
    pub fn read(&mut self) -> &Arc<T> {
        if self.published.version.load(Acquire) != self.version {
            self.renew();
        }
        &self.value
    }

    #[cold]
    fn renew(&mut self) {
        // The number first: a value that is newer than it is only looked for once more.
        self.version = self.published.version.load(Acquire);
        self.value = self.published.load();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_value_at_once_and_keeps_none_but_the_last_that_it_has_seen() {
        let published = Arc::new(Published::new(Arc::new(1)));
        let mut reader = Reader::new(Arc::clone(&published));
        let first = Arc::downgrade(reader.read());
        published.store(Arc::new(2));
        assert_eq!(first.upgrade().as_deref(), Some(&1), "a reader has it still");
        assert_eq!((**reader.read(), *published.load(), published.with(|value| *value)), (2, 2, 2));
        assert!(first.upgrade().is_none());
        let second = Arc::downgrade(reader.read());
        drop(reader);
        published.store(Arc::new(3));
        assert!(second.upgrade().is_none(), "nobody has it");
    }
}
