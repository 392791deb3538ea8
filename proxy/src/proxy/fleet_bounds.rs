//! Bounds that hold for a whole fleet, as the fleet asks for them: what this proxy has seen of its services, and the tables that it is to
//! obey.

use super::handle::Handle;
use crate::ambient;
use crate::snapshot::{OfferedTable, Service, Snapshot, TableRefusal, TableStamp};
use ringway_config::model::ShedScope;
use ringway_ring::{FleetParams, FleetTable, LoadReport};
use std::sync::{Arc, PoisonError};

/// What this proxy has seen of one service since it said so last.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceLoad {
    /// Its name.
    pub service: String,
    /// Digest of its ring and its backends: loads stand in the order of their ids.
    pub digest: u64,
    /// Of its backends alone, which are the same in other zones.
    pub members_digest: u64,
    /// What a table is to be made for.
    pub params: FleetParams,
    /// What has been seen.
    pub report: LoadReport,
    /// The table that is obeyed.
    pub held: Option<TableStamp>,
}

impl Handle {
    /// What there is to report of services whose bounds hold for the fleet (`shed.scope: fleet`); to be asked for every quarter of a
    /// second. One in which nothing is under way says so once.
    #[must_use]
    pub fn load_reports(&self) -> Vec<ServiceLoad> {
        let snapshot = self.current();
        let now = ambient::now();
        let reports = in_fleet(&snapshot).filter_map(|(service, digest, params)| {
            let live = &service.live;
            let requests = self.service_requests(&service.config.name);
            let report = {
                let hot = live.hot.lock().unwrap_or_else(PoisonError::into_inner);
                live.fleet_bounds.report(digest, requests, &hot, now)?
            };
            let held = live.fleet_bounds.in_force(now).map(|(table, _)| table.stamp);
            let (name, members_digest) = (service.config.name.clone(), service.members_digest(0));
            Some(ServiceLoad { service: name, digest, members_digest, params, report, held })
        });
        reports.collect()
    }

    /// What is in force in a service, for a leader that has not worked anything out yet: the ring's digest, and what its backends shed.
    #[must_use]
    pub fn load_table(&self, service: &str) -> Option<(u64, FleetTable)> {
        let snapshot = self.current();
        let (service, digest, _) = of_fleet(snapshot.service(service)?)?;
        let shed = service.backends.iter().map(|backend| backend.state.load.shed()).collect();
        let by_hand = |hash: u64| service.config.spread.iter().any(|spread| spread.hash == hash);
        let mut hot: Vec<(u64, u16)> =
            service.live.hot_table.load().iter().map(|(hash, owners)| (*hash, *owners)).collect();
        hot.retain(|(hash, _)| !by_hand(*hash));
        hot.sort_unstable();
        hot.truncate(ringway_ring::TABLE_KEYS_MAX);
        Some((digest, FleetTable { shed, hot }))
    }

    /// By which ring a service's keys are placed here; `None`: its bounds do not hold for the fleet.
    #[must_use]
    pub fn load_digest(&self, service: &str) -> Option<u64> {
        let snapshot = self.current();
        of_fleet(snapshot.service(service)?).map(|(_, digest, _)| digest)
    }

    /// A table for a service. It is obeyed if it is of the ring that is in force here and newer than what is known; the same again says
    /// that it is still good. Of a service that has no such bounds, nothing is taken.
    ///
    /// # Errors
    /// Why it is not obeyed: what is in force stays, and fades if nothing better comes.
    pub fn take_load_table(&self, service: &str, offered: &OfferedTable) -> Result<(), TableRefusal> {
        let snapshot = self.current();
        let Some((service, digest, _)) = snapshot.service(service).and_then(of_fleet) else { return Ok(()) };
        if service.live.fleet_bounds.take(offered, (digest, service.backends.len()), ambient::now())? {
            // Its driver puts it into force at its next step.
            service.live.health_changed.notify_one();
        }
        Ok(())
    }
}

/// Services whose bounds hold for the fleet.
fn in_fleet(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<Service>, u64, FleetParams)> {
    snapshot.services.iter().filter_map(of_fleet)
}

/// A service whose bounds do, its digest, and what its table is made for.
fn of_fleet(service: &Arc<Service>) -> Option<(&Arc<Service>, u64, FleetParams)> {
    let shed = service.config.shed.filter(|shed| shed.scope == ShedScope::Fleet)?;
    let params = FleetParams { shed: shed.params, hot: service.config.hot_keys };
    Some((service, service.fleet_digest()?, params))
}
