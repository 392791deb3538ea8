//! A worker without a thread, and what its configuration is made of: for the tests of what stands on it.

use super::Worker;
use crate::ambient;
use crate::snapshot::Registry;
use ringway_config::model::Config;
use ringway_telemetry::Metrics;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) struct Rig {
    pub(crate) worker: Rc<Worker>,
    registry: Registry,
    generation: u64,
}

fn config(services: &str) -> Config {
    let listener = "listeners: [ { name: web, address: \"127.0.0.1:0\", service: s } ]";
    let text = format!("workers: 1\n{listener}\nservices: [ {services} ]\n");
    ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}\n{text}")).config
}

impl Rig {
    /// With these services in force, of which `s` is one.
    pub(crate) fn new(services: &str) -> Self {
        let shared = crate::proxy::shared(&config(services), &Metrics::install());
        let mut this = Self { worker: Worker::new(0, shared), registry: Registry::default(), generation: 0 };
        this.apply(services);
        this
    }

    /// Puts others into force.
    pub(crate) fn apply(&mut self, services: &str) {
        self.generation += 1;
        let now = ambient::now();
        let snapshot = Arc::new(self.registry.prepare(Arc::new(config(services)), self.generation, 1, now).unwrap());
        self.registry.commit(&snapshot, now);
        self.worker.shared.current.store(Arc::clone(&snapshot));
        for (service, _) in self.registry.settle(&snapshot) {
            service.live.wake_all();
        }
    }

    /// Lets so much time pass, as far as the worker's timers know.
    pub(crate) fn pass(&self, time: std::time::Duration) {
        let ticks = self.worker.timers.millis();
        let begin = self.worker.timers.began();
        self.worker.timers.advance(begin + std::time::Duration::from_millis(ticks + 50) + time);
    }
}
