//! Hot keys and shedding: loads are sampled often, and a step of both is taken a few times a second.

use crate::snapshot::{HotTable, Service};
use ringway_ring::{FULL_SHARE, HotKeys, HotParams, ShedController, ShedParams};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Time between two steps.
const STEP_PERIOD: Duration = Duration::from_millis(250);
/// Time between two samples of loads for shedding.
const SAMPLE_PERIOD: Duration = Duration::from_millis(50);

/// The load control of one service.
pub(super) struct LoadControl {
    shed: ShedController,
    next_sample: Instant,
    next_step: Instant,
    /// Some backend may have a share that it sheds.
    is_shedding: bool,
}

impl LoadControl {
    pub(super) fn new(now: Instant) -> Self {
        Self { shed: ShedController::default(), next_sample: now, next_step: now, is_shedding: false }
    }

    /// Samples loads and takes a step, as far as they are due; gives when something is next.
    pub(super) fn poll(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let next = [self.sample(service, now), self.step(service, now)];
        next.into_iter().flatten().min()
    }

    fn sample(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        if service.config.shed.is_none() {
            if std::mem::take(&mut self.is_shedding) {
                service.backends.iter().for_each(|backend| backend.state.load.set_shed(0));
                self.shed = ShedController::default();
            }
            return None;
        }
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE_PERIOD;
            let eligible = service.backends.iter().filter_map(|backend| {
                let load = &backend.state.load;
                let share =
                    f64::from(load.active_fraction()) / f64::from(FULL_SHARE) * f64::from(backend.config.weight);
                (share > 0.0).then(|| (backend.config.id.as_str(), load.in_flight(), share / 100.0))
            });
            self.shed.handle_sample(eligible);
        }
        Some(self.next_sample)
    }

    fn step(&mut self, service: &Service, now: Instant) -> Option<Instant> {
        let (hot, shed) = (service.config.hot_keys, service.config.shed);
        if hot.is_none() {
            forget_hot_keys(service);
        }
        let hot = hot.filter(|_| has_hot_keys(service));
        if hot.is_none() && shed.is_none() {
            return None;
        }
        if self.next_step > now {
            return Some(self.next_step);
        }
        self.next_step = now + STEP_PERIOD;
        if let Some(params) = shed {
            self.step_shedding(service, &params);
        }
        if let Some(params) = hot {
            step_hot_keys(service, &params, now);
        }
        Some(self.next_step)
    }

    fn step_shedding(&mut self, service: &Service, params: &ShedParams) {
        self.is_shedding = true;
        for (id, share) in self.shed.step(params) {
            if let Some(slot) = service.slot_of(id) {
                service.backends[usize::from(slot.0)].state.load.set_shed(share);
            }
        }
    }
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

/// The keys that are hot, and those that an operator has spread.
fn step_hot_keys(service: &Service, params: &HotParams, now: Instant) {
    let live = &service.live;
    let mut keys = live.hot.lock().unwrap_or_else(PoisonError::into_inner);
    keys.update(params, service.backend_set.members_of_a_key());
    let mut table: HotTable = keys.keys().iter().map(|(hash, key)| (*hash, key.owners)).collect();
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
    use crate::snapshot::{Registry, Snapshot};
    use ringway_ring::{Report, Slot};

    /// A version of one service of four backends that is in force.
    fn in_force(registry: &Registry, generation: u64, balance: &str) -> Snapshot {
        let backends: String =
            (1..=4).map(|port| format!("{{ id: b{port}, address: \"127.0.0.1:{port}\" }}, ")).collect();
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
}
