//! Hot keys and shedding: loads are sampled often, and a step of both is taken a few times a second.

use super::fleet_shed::FleetShed;
use crate::snapshot::{HotTable, Service};
use ringway_config::model::ShedScope;
use ringway_ring::{FULL_SHARE, HotKeys, HotParams, ShedController, ShedParams, Slot};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Time between two steps.
const STEP_PERIOD: Duration = Duration::from_millis(250);
/// Time between two samples of loads for shedding.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);

/// The load control of one service.
pub(super) struct LoadControl {
    shed: ShedController,
    /// What is obeyed instead, where a fleet has a table.
    fleet: Option<FleetShed>,
    next_sample: Instant,
    next_step: Instant,
    /// Some backend may have a share that it sheds.
    is_shedding: bool,
}

impl LoadControl {
    pub(super) fn new(now: Instant) -> Self {
        Self { shed: ShedController::default(), fleet: None, next_sample: now, next_step: now, is_shedding: false }
    }

    /// Samples loads and takes a step, as far as they are due; gives when something is next.
    pub(super) fn poll(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let next = [self.sample(service, now), self.step(service, now)];
        next.into_iter().flatten().min()
    }

    fn sample(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let Some(shed) = service.config.shed else {
            if std::mem::take(&mut self.is_shedding) {
                FleetShed::release(service);
                service.live.fleet_bounds.clear();
                (self.shed, self.fleet) = <_>::default();
            }
            return None;
        };
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE_PERIOD;
            if shed.scope == ShedScope::Fleet
                && let Some(digest) = service.fleet_digest()
            {
                let loads =
                    loads(service).map(|(_, load)| load.map(|(in_flight, weight)| f64::from(in_flight) / weight));
                service.live.fleet_bounds.handle_sample(digest, loads, now);
            }
            let eligible =
                loads(service).filter_map(|(id, load)| load.map(|(in_flight, weight)| (id, in_flight, weight)));
            self.shed.handle_sample(eligible);
        }
        Some(self.next_sample)
    }

    fn step(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let (hot, shed) = (service.config.hot_keys, service.config.shed);
        if hot.is_none() {
            forget_hot_keys(service);
        }
        let hot = hot.filter(|_| shed.is_some() || has_hot_keys(service));
        if hot.is_none() && shed.is_none() {
            return None;
        }
        if self.next_step > now {
            return Some(self.next_step);
        }
        self.next_step = now + STEP_PERIOD;
        if let Some(shed) = shed {
            self.is_shedding = true;
            self.step_fleet(service, shed.scope, now);
            if self.fleet.is_none() {
                self.step_shedding(service, &shed.params);
            }
        }
        if let Some(params) = hot {
            let fleet = self.fleet.as_ref().and_then(FleetShed::hot);
            step_hot_keys(service, &params, fleet, now);
        }
        Some(self.next_step)
    }

    /// Obeys the fleet's table, if there is one.
    fn step_fleet(&mut self, service: &Service, scope: ShedScope, now: Instant) {
        let before = self.fleet.take();
        if scope == ShedScope::Proxy {
            if before.is_some() {
                FleetShed::release(service);
                service.live.fleet_bounds.clear();
            }
            return;
        }
        self.fleet = FleetShed::next(before, service, now);
        if self.fleet.is_some() {
            // What this proxy would shed by itself is worked out anew, should it come to that.
            self.shed = ShedController::default();
        }
    }

    fn step_shedding(&mut self, service: &Service, params: &ShedParams) {
        for (id, share) in self.shed.step(params) {
            if let Some(slot) = service.slot_of(id) {
                service.backends[usize::from(slot.0)].state.load.set_shed(share);
            }
        }
    }
}

/// The backends' ids, in slot order, with the requests in flight and the effective weight, over the mean of all weights, of those that take
/// keys: one of a tier that is not needed is no measure for those that are.
fn loads(service: &Service) -> impl Iterator<Item = (&str, Option<(u32, f64)>)> {
    let weights = service.backends.iter().map(|backend| f64::from(backend.config.weight));
    let mean = (weights.sum::<f64>() / service.backends.len().max(1) as f64).max(f64::MIN_POSITIVE);
    let levels = service.backend_set.level_shares();
    service.backends.iter().enumerate().map(move |(slot, backend)| {
        let load = &backend.state.load;
        let level = service.backend_set.level(Slot(slot as u16));
        let has_keys = levels.iter().any(|(key, share)| *key == level && *share > 0.0);
        let share = f64::from(load.active_fraction()) / f64::from(FULL_SHARE) * f64::from(backend.config.weight);
        let takes = has_keys && share > 0.0;
        (backend.config.id.as_str(), takes.then(|| (load.in_flight(), share / mean)))
    })
}

/// They are not looked for any more: who looks for them later begins anew.
fn forget_hot_keys(service: &Service) {
    let live = &service.live;
    *live.hot.lock().unwrap_or_else(PoisonError::into_inner) = HotKeys::default();
    if !live.hot_table.load().is_empty() {
        live.hot_table.store(Arc::default());
    }
}

/// Whether some key is hot, or may be: until a worker reports one, nothing is due.
fn has_hot_keys(service: &Service) -> bool {
    let live = &service.live;
    !service.config.spread.is_empty()
        || !live.hot_table.load().is_empty()
        || live.hot.lock().unwrap_or_else(PoisonError::into_inner).has_work()
}

/// The keys that are hot, in the whole `fleet` where that is known, and those that an operator has spread.
fn step_hot_keys(service: &Service, params: &HotParams, fleet: Option<HotTable>, now: Instant) {
    let live = &service.live;
    let mut keys = live.hot.lock().unwrap_or_else(PoisonError::into_inner);
    // What is seen here counts on, whoever decides.
    keys.update(params, service.backend_set.members_of_a_key());
    let mut table = fleet.unwrap_or_else(|| keys.keys().iter().map(|(hash, key)| (*hash, key.owners)).collect());
    drop(keys);
    let spread = service.config.spread.iter().filter(|spread| spread.until > now);
    table.extend(spread.map(|spread| (spread.hash, spread.owners)));
    if *live.hot_table.load() != table {
        live.hot_table.store(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;
    use crate::snapshot::{OfferedTable, Registry, Snapshot, TableStamp};
    use ringway_ring::{FleetTable, Report};

    /// A version of one service of four backends that is in force.
    fn in_force(registry: &Registry, generation: u64, balance: &str) -> Snapshot {
        in_force_of(registry, generation, balance, 1..5)
    }

    fn in_force_of(registry: &Registry, generation: u64, balance: &str, ports: std::ops::Range<u16>) -> Snapshot {
        let backends: String =
            ports.map(|port| format!("{{ id: b{port}, address: \"127.0.0.1:{}\" }}, ", port + 1)).collect();
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\nservices:\n  - name: s\n\
             \x20   balance: {{ hash_key: [ {{ path: {{}} }} ], {balance} }}\n    backends: [ {backends} ]\n"
        );
        let loaded = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let snapshot = registry.prepare(Arc::new(loaded.config), generation, 1, ambient::now()).unwrap();
        registry.commit(&snapshot, ambient::now());
        registry.settle(&snapshot);
        snapshot
    }

    fn shed(service: &Service) -> Vec<u16> {
        service.backends.iter().map(|backend| backend.state.load.shed()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_with_more_than_its_share_sheds_until_shedding_is_turned_off() {
        let registry = Registry::default();
        let snapshot = in_force(&registry, 1, "shed: { target: 1.2, max: 90 }");
        let service = &snapshot.services[0];
        for (slot, requests) in [(0, 60), (1, 10), (2, 10), (3, 10)] {
            (0..requests).for_each(|_| service.backend_set.resume(Slot(slot), 0));
        }
        let mut control = LoadControl::new(ambient::now());
        let (mut samples, mut steps) = (0, 0);
        let begin = ambient::now();
        while ambient::since(begin) < Duration::from_secs(1) {
            let before = (control.next_sample, control.next_step);
            let next = control.poll(service, ambient::now()).unwrap();
            samples += u32::from(control.next_sample != before.0);
            steps += u32::from(control.next_step != before.1);
            tokio::time::sleep_until(next.into()).await;
        }
        assert_eq!((samples, steps), (20, 4));
        let shares = shed(service);
        assert!(shares[0] > 0 && shares[1..] == [0, 0, 0], "{shares:?}");
        let without = in_force(&registry, 2, "");
        assert_eq!(control.poll(&without.services[0], ambient::now()), None, "nothing is due any more");
        assert_eq!(shed(&without.services[0]), [0; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_takes_nothing_is_no_measure_for_others() {
        let registry = Registry::default();
        let snapshot = in_force(&registry, 1, "shed: { target: 1.2, max: 90 }");
        let service = &snapshot.services[0];
        // Two of them are down: what is left is 30 requests on average, and one has twice that.
        for (slot, requests) in [(0, 60), (1, 1)] {
            (0..requests).for_each(|_| service.backend_set.resume(Slot(slot), 0));
        }
        service.backends[2..].iter().for_each(|backend| backend.state.load.set_active_fraction(0));
        let mut control = LoadControl::new(ambient::now());
        for _ in 0..40 {
            let next = control.poll(service, ambient::now()).unwrap();
            tokio::time::sleep_until(next.into()).await;
        }
        let shares = shed(service);
        assert!(shares[0] > 0 && shares[1..] == [0, 0, 0], "{shares:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hot_key_is_in_the_table_at_the_next_step_and_none_once_it_has_cooled_or_they_are_turned_off() {
        let registry = Registry::default();
        let snapshot = in_force(&registry, 1, "hot_keys: { min_volume: 100 }");
        let service = &snapshot.services[0];
        let mut control = LoadControl::new(ambient::now());
        assert_eq!(control.poll(service, ambient::now()), None, "nobody has reported anything: nothing is ever due");
        let hot = |keys: &[(u64, u32)]| {
            let report = Report { requests: 1000, total: 1000, keys: keys.to_vec() };
            service.live.hot.lock().unwrap().handle_report(0, report);
        };
        hot(&[(7, 900), (8, 20)]);
        let next = control.poll(service, ambient::now()).unwrap();
        let keys = || service.live.hot_table.load().iter().map(|(key, owners)| (*key, *owners > 1)).collect::<Vec<_>>();
        assert_eq!(keys(), [(7, true)]);
        hot(&[]);
        control.poll(service, ambient::now());
        assert_eq!(keys(), [(7, true)], "the next step is not due");
        tokio::time::sleep_until(next.into()).await;
        control.poll(service, ambient::now());
        assert_eq!(keys(), []);
        assert_eq!(control.poll(service, ambient::now()), None);
        // Turned off while one is hot.
        hot(&[(7, 900)]);
        tokio::time::sleep(STEP_PERIOD).await;
        control.poll(service, ambient::now());
        assert_eq!(keys(), [(7, true)]);
        let without = in_force(&registry, 2, "hot_keys: { enabled: false }");
        assert_eq!(control.poll(&without.services[0], ambient::now()), None);
        assert!(without.services[0].live.hot_table.load().is_empty());
        // What was reported before they were turned off is no news.
        let again = in_force(&registry, 3, "hot_keys: { min_volume: 100 }");
        assert_eq!(control.poll(&again.services[0], ambient::now()), None);
    }

    /// Polls until this time, in virtual time.
    async fn poll_until(control: &mut LoadControl, service: &Service, until: Instant) {
        while let Some(next) = control.poll(service, ambient::now()).filter(|next| *next <= until) {
            tokio::time::sleep_until(next.into()).await;
        }
        tokio::time::sleep_until(until.into()).await;
        control.poll(service, ambient::now());
    }

    fn offer(service: &Service, seq: u64, shed: [u16; 4], hot: &[(u64, u16)]) -> OfferedTable {
        OfferedTable {
            stamp: TableStamp { epoch: 1, term: 1, seq },
            digest: service.fleet_digest().unwrap(),
            table: Arc::new(FleetTable { shed: shed.to_vec(), hot: hot.to_vec() }),
            confirmed: ambient::now(),
        }
    }

    fn take(service: &Service, offered: &OfferedTable) {
        service
            .live
            .fleet_bounds
            .take(offered, (service.fleet_digest().unwrap(), service.backends.len()), ambient::now())
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_fleets_table_is_obeyed_while_it_is_fresh_fades_then_and_each_goes_by_what_it_sees_at_last() {
        let registry = Registry::default();
        let snapshot = in_force(&registry, 1, "shed: { scope: fleet }, hot_keys: { min_volume: 100 }");
        let service = &snapshot.services[0];
        let mut control = LoadControl::new(ambient::now());
        let begin = ambient::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        // What this proxy sees: one backend with too much, and one hot key.
        (0..60).for_each(|_| service.backend_set.resume(Slot(0), 0));
        (1..4).for_each(|slot| (0..10).for_each(|_| service.backend_set.resume(Slot(slot), 0)));
        let report = Report { requests: 1000, total: 1000, keys: vec![(7, 900)] };
        service.live.hot.lock().unwrap().handle_report(0, report);
        let hot = || service.live.hot_table.load().iter().map(|(key, owners)| (*key, *owners)).collect::<Vec<_>>();
        poll_until(&mut control, service, at(1)).await;
        assert!(shed(service)[0] > 0 && hot().len() == 1 && hot()[0].0 == 7, "without a table by itself");
        assert_eq!(service.live.total.slack_min(), 0.0);
        take(service, &offer(service, 1, [0, 40_000, 0, 8], &[(9, 3)]));
        poll_until(&mut control, service, at(2)).await;
        assert_eq!((shed(service), hot()), (vec![0, 40_000, 0, 8], vec![(9, 3)]));
        assert_eq!(service.live.total.slack_min(), 3.0);
        // Another, and then a change of the ring, of which no table is known yet: shares are the members'.
        take(service, &offer(service, 2, [0, 20_000, 0, 0], &[]));
        poll_until(&mut control, service, at(3)).await;
        assert_eq!((shed(service), hot()), (vec![0, 20_000, 0, 0], vec![]));
        let bigger = in_force_of(&registry, 2, "shed: { scope: fleet }, hot_keys: { min_volume: 100 }", 0..5);
        let service = &bigger.services[0];
        poll_until(&mut control, service, at(4)).await;
        assert_eq!(shed(service), [0, 0, 20_000, 0, 0], "of the same backend, which has another slot");
        assert!(
            service
                .live
                .fleet_bounds
                .take(
                    &offer(&snapshot.services[0], 3, [1; 4], &[]),
                    (service.fleet_digest().unwrap(), 5),
                    ambient::now()
                )
                .is_err()
        );
        // Nobody confirms it: after ten seconds it halves, the local key is hot again, and the slack is the preset's.
        poll_until(&mut control, service, at(11)).await;
        assert_eq!(shed(service)[2], 20_000);
        poll_until(&mut control, service, at(13)).await;
        assert_eq!((shed(service)[2], hot()[0].0), (10_000, 7));
        assert_eq!(service.live.total.slack_min(), 0.0);
        poll_until(&mut control, service, at(40)).await;
        assert!(shed(service)[2] < 500 && shed(service)[1] == 0);
        // In the end this proxy sheds by itself again, from nothing on.
        poll_until(&mut control, service, at(121)).await;
        assert_eq!(shed(service), [0; 5]);
        poll_until(&mut control, service, at(140)).await;
        assert!(shed(service)[1] > 0, "{:?}", shed(service));
        // And a reload takes it all back.
        take(
            service,
            &OfferedTable {
                digest: service.fleet_digest().unwrap(),
                table: Arc::new(FleetTable { shed: vec![9; 5], hot: vec![] }),
                ..offer(service, 4, [0; 4], &[])
            },
        );
        poll_until(&mut control, service, at(141)).await;
        assert_eq!(shed(service), [9; 5]);
        let without = in_force_of(&registry, 3, "", 0..5);
        control.poll(&without.services[0], ambient::now());
        assert_eq!((shed(&without.services[0]), without.services[0].live.total.slack_min()), (vec![0; 5], 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_goes_back_to_the_proxy_gives_back_what_the_fleet_has_put_into_force() {
        let registry = Registry::default();
        let snapshot = in_force(&registry, 1, "shed: { scope: fleet }");
        let mut control = LoadControl::new(ambient::now());
        take(&snapshot.services[0], &offer(&snapshot.services[0], 1, [5; 4], &[(9, 3)]));
        let begin = ambient::now();
        poll_until(&mut control, &snapshot.services[0], begin + Duration::from_secs(1)).await;
        assert_eq!(shed(&snapshot.services[0]), [5; 4]);
        let own = in_force(&registry, 2, "shed: { scope: proxy }");
        poll_until(&mut control, &own.services[0], begin + Duration::from_secs(2)).await;
        let service = &own.services[0];
        assert_eq!((shed(service), service.live.total.slack_min()), (vec![0; 4], 0.0));
        assert!(
            service.live.fleet_bounds.in_force(ambient::now()).is_none() && service.live.hot_table.load().is_empty()
        );
    }
}
