//! What a service sheds, and which keys are hot in it, by the fleet's table: as long as that is fresh, and fading from then on.

use crate::snapshot::{HotTable, OfferedTable, Service, TableStamp};
use ringway_ring::{FRESH_MILLIS, FULL_SHARE, FleetTable};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Slack of bounds while a table is fresh: loads are even over a longer time, and noise needs no spills (see docs/balancing.md).
const SLACK: f64 = 3.0;

/// See the module.
#[derive(Debug)]
pub(super) struct FleetShed {
    stamp: TableStamp,
    /// By id: slots change with the ring, and what it sheds stays a member's own until the next table.
    shares: BTreeMap<String, u16>,
    hot: Vec<(u64, u16)>,
    /// Of its confirmation.
    age: Duration,
}

impl FleetShed {
    /// What there is to obey now, after what was obeyed `before`; `None`: no table, so that everybody goes by what it sees for itself.
    pub(super) fn next(before: Option<Self>, service: &Service, now: Instant) -> Option<Self> {
        let Some((offered, age)) = service.live.fleet_bounds.in_force(now) else {
            if before.is_some() {
                Self::release(service);
            }
            return None;
        };
        let known = before.filter(|shed| shed.stamp == offered.stamp || !is_of(&offered, service));
        let next = match known {
            Some(known) => Self { age, ..known },
            // Of a change that is not in force yet: it will be offered again.
            None if !is_of(&offered, service) => return None,
            None => Self::of(&offered, service, age),
        };
        next.put_into_force(service);
        Some(next)
    }

    fn of(offered: &OfferedTable, service: &Service, age: Duration) -> Self {
        let ids = service.backends.iter().map(|backend| backend.config.id.clone());
        // Whoever has reported what: nothing is shed beyond this proxy's own most, and no key has more owners than it allows.
        let most = service.config.shed.map_or(0.0, |shed| shed.params.share_max) * f64::from(FULL_SHARE);
        let owners_max = service.config.hot_keys.map_or(0, |params| params.owners_max);
        let shares = ids.zip(offered.table.shed.iter().map(|share| (*share).min(most as u16)));
        Self {
            stamp: offered.stamp,
            shares: shares.filter(|(_, share)| *share > 0).collect(),
            hot: offered.table.hot.iter().map(|(hash, owners)| (*hash, (*owners).min(owners_max))).collect(),
            age,
        }
    }

    fn put_into_force(&self, service: &Service) {
        let age_millis = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        for backend in &service.backends {
            let share = self.shares.get(&backend.config.id).copied().unwrap_or(0);
            backend.state.load.set_shed(FleetTable::shed_after(share, age_millis));
        }
        service.live.total.set_slack_min(if self.is_fresh() { SLACK } else { 0.0 });
    }

    /// Nothing is shed by a table any more.
    pub(super) fn release(service: &Service) {
        service.backends.iter().for_each(|backend| backend.state.load.set_shed(0));
        service.live.total.set_slack_min(0.0);
    }

    fn is_fresh(&self) -> bool {
        self.age < Duration::from_millis(FRESH_MILLIS)
    }

    /// Owners of the fleet's hot keys, while they are known well enough.
    pub(super) fn hot(&self) -> Option<HotTable> {
        self.is_fresh().then(|| self.hot.iter().copied().collect())
    }
}

/// Whether a table's members are those of this version.
fn is_of(offered: &OfferedTable, service: &Service) -> bool {
    offered.table.shed.len() == service.backends.len() && service.fleet_digest() == Some(offered.digest)
}
