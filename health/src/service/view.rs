//! What is known of backends, for those that ask: the proxy and its status.

use super::ServiceHealth;
use crate::member_view::MemberView;
use std::time::Instant;

/// Every state that a backend may be in, as [`MemberView::state`] names them.
pub const STATES: [&str; 7] = ["up", "degraded", "down", "unknown", "ejected", "draining", "drained"];

impl ServiceHealth {
    /// Share of its keys that a backend takes now: 0 none, 65535 all.
    #[must_use]
    pub fn share(&self, id: &str) -> Option<u16> {
        self.find(id.into()).ok().map(|index| self.members[index].share)
    }

    /// Whether a backend is unhealthy. One that has a share all the same has it in panic, and is the last to be asked.
    #[must_use]
    pub fn is_doubted(&self, id: &str) -> bool {
        self.find(id.into()).is_ok_and(|index| self.members[index].doubted)
    }

    /// Whether a backend that takes no keys keeps the clients that are bound to it.
    #[must_use]
    pub fn keeps_clients(&self, id: &str) -> bool {
        self.find(id.into()).is_ok_and(|index| self.members[index].keeps_clients)
    }

    /// Whether a backend is ejected, for what has failed there, though no check says that it is down and it has not asked to be left alone:
    /// nothing but live traffic has said anything against it, and that a while ago.
    #[must_use]
    pub fn is_last_resort(&self, id: &str) -> bool {
        self.find(id.into()).is_ok_and(|index| self.members[index].last_resort)
    }

    /// Whether a success would now change something: its last outcome was a failure.
    #[must_use]
    pub fn is_suspect(&self, id: &str) -> bool {
        self.find(id.into()).is_ok_and(|index| {
            let member = &self.members[index];
            member.failures > 0 || member.local_failures > 0
        })
    }

    /// Whether health is being ignored.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// The levels that are in panic: each with its weight and how much of that is healthy.
    pub fn lacking(&self) -> impl Iterator<Item = (u8, u64, u64)> {
        self.lacking.iter().map(|level| (level.level, level.weight, level.healthy))
    }

    /// Shares of the levels that have members, most preferred first, 0 to 1.
    #[must_use]
    pub fn level_shares(&self) -> &[(u8, f64)] {
        &self.levels
    }

    /// A backend as the status shows it.
    #[must_use]
    pub fn view(&self, id: &str, now: Instant) -> Option<MemberView> {
        self.find(id.into()).ok().map(|index| self.members[index].view(self.params.check.is_some(), now))
    }
}
