//! How many connections and requests there are of each kind, for who looks into a worker.

use super::{Sessions, UnderWay};
use crate::snapshot::BackendState;
use crate::worker::active_listener::ActiveListener;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

impl Sessions {
    /// Connections by kind and state, and what is under way by protocol and state: how many of each that there is.
    pub(in crate::worker) fn counts_by(&self) -> (Counts, Counts) {
        let (connections, under_way) = (self.connections.borrow(), self.under_way.borrow());
        let connected = connections.iter().map(|one| (one.listener.key().kind.name(), one.state().name()));
        (count(connected), count(under_way.in_use().map(|one| (one.protocol, one.state.name()))))
    }

    /// The listeners that connections came to, and how many came to each.
    pub(in crate::worker) fn by_listener(&self) -> Vec<(Rc<ActiveListener>, usize)> {
        let mut counts: HashMap<*const ActiveListener, (Rc<ActiveListener>, usize)> = HashMap::new();
        for one in self.connections.borrow().iter() {
            counts.entry(Rc::as_ptr(&one.listener)).or_insert_with(|| (Rc::clone(&one.listener), 0)).1 += 1;
        }
        counts.into_values().collect()
    }

    /// How much is under way on each backend, by its state: that is the same one for as long as the backend is there.
    pub(in crate::worker) fn under_way_on_backends(&self) -> HashMap<*const BackendState, usize> {
        let mut counts = HashMap::new();
        for backend in self.under_way.borrow().in_use().filter_map(UnderWay::backend) {
            *counts.entry(Arc::as_ptr(&backend.state)).or_insert(0) += 1;
        }
        counts
    }
}

/// Words, and how many there are of each pair.
type Counts = Vec<(&'static str, &'static str, usize)>;

fn count(all: impl Iterator<Item = (&'static str, &'static str)>) -> Counts {
    let mut counts = BTreeMap::new();
    all.for_each(|pair| *counts.entry(pair).or_insert(0) += 1);
    counts.into_iter().map(|((one, other), count)| (one, other, count)).collect()
}
