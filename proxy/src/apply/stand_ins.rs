//! While a worker is stuck, others accept from its sockets: those who have connected there are served, and those who connect next.

use crate::dispatcher::{Command, Shared};
use tokio::sync::oneshot;

/// Who stands in for whom.
#[derive(Default)]
pub(super) struct StandIns {
    all: Vec<StandIn>,
    /// Who is asked next.
    next: usize,
}

/// A worker accepts from a socket of another, for as long as this is there.
struct StandIn {
    socket: u64,
    of: usize,
    by: usize,
    _over: oneshot::Sender<()>,
}

impl StandIns {
    /// `stuck`: which workers are.
    pub(super) fn look(&mut self, shared: &Shared, stuck: &[bool]) {
        let is_stuck = |worker: usize| stuck.get(worker).copied().unwrap_or_default();
        let is_well = |worker: usize| !is_stuck(worker);
        if !stuck.contains(&true) {
            self.all.clear();
            return;
        }
        self.all.retain(|one| is_stuck(one.of) && is_well(one.by) && shared.doors.has(one.socket));
        // Where all are, there is nobody to ask.
        let Some(commands) = shared.commands.get().filter(|_| stuck.contains(&false)) else { return };
        let sockets = shared.doors.of(|id, worker| is_stuck(worker) && self.all.iter().all(|one| one.socket != id));
        for (socket, of, key, listener) in sockets {
            let well = (0..stuck.len()).map(|step| (self.next + step) % stuck.len()).find(|worker| is_well(*worker));
            let Some((by, sender)) = well.and_then(|by| Some((by, commands.get(by)?))) else { return };
            self.next = by + 1;
            let (over, is_over) = oneshot::channel();
            // A worker that has ended takes none.
            if sender.send(Command::StandIn { key, socket: listener, over: is_over }).is_ok() {
                self.all.push(StandIn { socket, of, by, _over: over });
            }
        }
    }
}
