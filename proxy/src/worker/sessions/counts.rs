//! How many connections and requests there are of each kind, for who looks into a worker.

use super::Sessions;
use crate::worker::active_listener::ActiveListener;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

impl Sessions {
    /// Connections by kind and state, and what is under way by protocol and state: how many of each that there is.
    pub(in crate::worker) fn counts_by(&self) -> (Counts, Counts) {
        let (connections, under_way) = (self.connections.borrow(), self.under_way.borrow());
        let connected = connections.iter().map(|(_, one)| (one.listener.key().kind.name(), one.state().name()));
        (count(connected), count(under_way.in_use().map(|one| (one.protocol, one.state.name()))))
    }

    /// The listeners that connections came to, and how many came to each.
    pub(in crate::worker) fn by_listener(&self) -> Vec<(Rc<ActiveListener>, usize)> {
        let mut counts: HashMap<*const ActiveListener, (Rc<ActiveListener>, usize)> = HashMap::new();
        for (_, one) in self.connections.borrow().iter() {
            counts.entry(Rc::as_ptr(&one.listener)).or_insert_with(|| (Rc::clone(&one.listener), 0)).1 += 1;
        }
        counts.into_values().collect()
    }

    /// How much is under way on each backend, by service and id.
    pub(in crate::worker) fn under_way_on_backends(&self) -> HashMap<String, HashMap<String, usize>> {
        let mut counts: HashMap<String, HashMap<String, usize>> = HashMap::new();
        for one in self.under_way.borrow().in_use() {
            let Some(backend) = one.backend_id() else { continue };
            let of_service = counts.entry(one.service_name().to_owned()).or_default();
            *of_service.entry(backend.to_owned()).or_default() += 1;
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
