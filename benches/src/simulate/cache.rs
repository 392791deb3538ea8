//! A cache of keys.

use std::collections::{HashMap, VecDeque};

/// A least-recently-used set of keys.
#[derive(Debug)]
pub(crate) struct Cache {
    size: usize,
    stamp: u64,
    stamps: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl Cache {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, stamp: 0, stamps: HashMap::new(), order: VecDeque::new() }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.stamps.clear();
        self.order.clear();
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: u64) -> bool {
        self.stamps.contains_key(&key)
    }

    /// Whether the key was there; it is now.
    pub(crate) fn touch(&mut self, key: u64) -> bool {
        self.stamp += 1;
        let hit = self.stamps.insert(key, self.stamp).is_some();
        self.order.push_back((key, self.stamp));
        while self.stamps.len() > self.size {
            if let Some((oldest, stamp)) = self.order.pop_front()
                && self.stamps.get(&oldest) == Some(&stamp)
            {
                self.stamps.remove(&oldest);
            }
        }
        // Entries that were touched again since are dropped from time to time.
        if self.order.len() > 4 * self.size + 64 {
            let stamps = &self.stamps;
            self.order.retain(|(key, stamp)| stamps.get(key) == Some(stamp));
        }
        hit
    }
}
