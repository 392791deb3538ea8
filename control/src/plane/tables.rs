//! What a member has of the fleet's loads: tables for who watches them, and what was counted.

use crate::lessor::LoadRefusal;
use crate::loads::{Position, Tables, TablesLine};
use crate::watch::tables_hub::TablesHub;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Tables that the leader remembers for those that relay them.
const REMEMBERED: usize = 8;

/// Tables of loads, and what has been counted.
#[derive(Default)]
pub struct Loads {
    /// Tables for who watches.
    pub hub: TablesHub,
    /// As leader: those that others may know, oldest first.
    remembered: Mutex<VecDeque<Arc<Tables>>>,
    /// Somebody has reported.
    pub(super) reported: Notify,
    /// Reports that came here, from proxies.
    pub reports: AtomicU64,
    /// And their bytes.
    pub bytes: AtomicU64,
    /// What was published here, as leader.
    pub published: AtomicU64,
    /// What was refused here, in the order of [`LoadRefusal::ALL`].
    pub refused: [AtomicU64; LoadRefusal::ALL.len()],
}

impl Loads {
    /// Counts what was not taken.
    pub fn count(&self, refusal: LoadRefusal) {
        let index = LoadRefusal::ALL.iter().position(|known| *known == refusal);
        if let Some(counter) = index.and_then(|index| self.refused.get(index)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn remember(&self, tables: &Arc<Tables>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(Arc::clone(tables));
    }

    /// What brings somebody to the tables that are known here.
    pub(super) fn line(&self, known: Option<Position>) -> Option<TablesLine> {
        let now = self.hub.now();
        if now.position.is_none() || now.position <= known {
            return None;
        }
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.iter().find(|tables| known.is_some() && tables.position == known);
        Some(now.line(known.map(|known| &**known)))
    }
}
