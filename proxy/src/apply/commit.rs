//! A change that is ready is put into force, which cannot fail.

use super::access_log::NewLog;
use super::control::{Control, State};
use super::exporter::NewExporter;
use super::health_driver;
use super::listeners::NewSockets;
use super::movements;
use super::outcome::Applied;
use super::prepare::Change;
use crate::net::shortage::PER_CONNECTION;
use crate::snapshot::{Service, ServiceLive, Snapshot, handoff_events, health_events};
use ringway_config::model::{Config, Metrics};
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

impl Control {
    /// Remembers what was in force before what the proxy starts with, if that is known: keys that a change under way has moved are handed
    /// over by this proxy too.
    pub(crate) fn recall(&self) {
        self.registry.remember(self.source.before());
    }

    /// Puts a change into force. Requests read the new snapshot before the workers hear of new sockets, and what it takes away
    /// takes effect once they read it.
    pub(super) fn commit(&self, change: Change<'_>) -> Applied {
        let Change { state, old, new, diff, sockets, access, exporter, age, now } = change;
        let (generation, new) = (new.generation, Arc::new(new));
        self.put_into_force(state, &old, &new, (sockets, access, exporter), (age, now));
        // Nobody waits for it.
        let moved = movements::movements(&old, &new);
        for (name, movement) in &moved {
            if let Some(service) = new.service(name) {
                *service.live.moved.lock().unwrap_or_else(PoisonError::into_inner) = (movement.moved, generation);
            }
        }
        // It may be freed here, which takes its time: nobody who asks for the status waits for that.
        drop(old);
        tracing::info!(generation, changes = %diff, "configuration applied");
        movements::log(&moved);
        Applied { generation, diff, moved, overridden: Vec::new(), warnings: Vec::new() }
    }

    /// Has the lock until the change is in force. What was in force before is only lent: it cannot be freed under the lock.
    fn put_into_force(
        &self,
        mut state: MutexGuard<'_, State>,
        old: &Snapshot,
        new: &Arc<Snapshot>,
        (sockets, access, exporter): (NewSockets, Option<NewLog>, Option<NewExporter>),
        (age, now): (Duration, Instant),
    ) {
        for service in &self.registry.hand_over(new, age, now) {
            handoff_events::opened(service);
        }
        self.registry.commit(new, now);
        self.current.store(Arc::clone(new));
        for (service, events) in &self.registry.settle(new) {
            // A request that waits for room looks among the new backends too.
            service.live.wake_all();
            health_events::publish(service, events);
        }
        state.listeners.reconcile(&new.config, sockets, (&self.commands, &self.shared.doors));
        tell_of_metrics(old, new);
        self.compare_with_descriptors(&old.config, &new.config, old.generation == 0);
        if let Some(log) = access {
            self.shared.access.store(Arc::new(log.sink));
            // The old writer ends by itself when the workers have dropped their ends.
            state.access = log.writer;
        }
        if let Some(new) = exporter {
            self.shared.spans.store(Arc::new(new.sink));
            // The old one delivers what it has, and ends.
            state.exporter = new.exporter;
        }
        self.reconcile_drivers(&old.services, &new.services);
        let loses = old.services.iter().any(|service| loses_some(service, new));
        // Once more at the next change: what was under way then has counted since.
        if self.lost_some.swap(loses, Relaxed) || loses {
            self.metrics.counters.retain(
                |name| new.service(name).is_some(),
                |name, id| new.service(name).is_some_and(|service| service.slot_of(id).is_some()),
            );
        }
    }

    /// Logs where the process may have fewer descriptors than `connections_max` could take.
    fn compare_with_descriptors(&self, old: &Config, new: &Config, first: bool) {
        let shortage = &self.shared.shortage;
        let most = new.process.connections_max;
        if first {
            shortage.count_idle_use();
        }
        if (first || old.process.connections_max != most) && most > shortage.connections_max() {
            tracing::warn!(
                "connections_max {most} can take {} descriptors ({PER_CONNECTION} a connection), and this process may have \
                 {}: {} connections are served at once, more wait in the kernel's queue; raise `ulimit -n` (systemd: \
                 LimitNOFILE=), or lower connections_max",
                most.saturating_mul(PER_CONNECTION),
                shortage.limit(),
                shortage.connections_max(),
            );
        }
    }

    /// A driver for each service that is new; those of services that have gone see that and end.
    fn reconcile_drivers(&self, old: &[Arc<Service>], new: &[Arc<Service>]) {
        let driven: HashSet<*const ServiceLive> = old.iter().map(|old| Arc::as_ptr(&old.live)).collect();
        let unchanged: HashSet<*const Service> = old.iter().map(Arc::as_ptr).collect();
        let unchanged: HashSet<*const Service> =
            new.iter().map(Arc::as_ptr).filter(|service| unchanged.contains(service)).collect();
        for service in new {
            if !driven.contains(&Arc::as_ptr(&service.live)) {
                self.runtime.spawn(health_driver::drive(
                    Arc::clone(&self.current),
                    Arc::clone(&service.live),
                    Arc::clone(&self.metrics.counters),
                    Arc::clone(&self.shared.shortage),
                    Arc::clone(&self.shared.overload),
                ));
            }
        }
        for service in old.iter().chain(new).filter(|service| !unchanged.contains(&Arc::as_ptr(service))) {
            service.live.health_changed.notify_one();
        }
    }
}

/// Whether a service, or a backend of it, is not in this version. Backends are in the order of their ids.
fn loses_some(before: &Arc<Service>, new: &Snapshot) -> bool {
    let Some(now) = new.service(&before.config.name) else { return true };
    if Arc::ptr_eq(before, now) {
        return false;
    }
    let mut ids = now.backends.iter().map(|backend| &backend.config.id);
    !before.backends.iter().all(|gone| ids.any(|id| *id == gone.config.id))
}

/// Logs where the metrics begin to leave something out because there are too many backends.
fn tell_of_metrics(old: &Snapshot, new: &Snapshot) {
    let Metrics::FullUpTo(most) = new.config.metrics else { return };
    let ((_, before), (_, backends)) = (old.backend_metrics(), new.backend_metrics());
    if backends > 0 && (before == 0 || old.config.metrics != new.config.metrics) {
        tracing::warn!(
            backends,
            "there are more than {most} backends: the metrics leave out durations, responses by class and states of each; \
             write `metrics: {{ backends: full }}` to have them, or `basic` to agree"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::free_port;
    use super::super::prepare::Files;
    use super::super::source::Source;
    use super::super::testing;
    use crate::dispatcher::Command;

    fn text(port: u16, services: &[&str]) -> String {
        let service =
            |name: &&str| format!("  - {{ name: {name}, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }}\n");
        let services: String = services.iter().map(service).collect();
        format!("listeners: [ {{ name: l, address: \"127.0.0.1:{port}\", service: s }} ]\nservices:\n{services}")
    }

    #[tokio::test]
    async fn requests_read_the_new_version_before_a_worker_hears_of_its_sockets() {
        let (control, [mut receiver, _other]) = testing::control(Source::Memory);
        let change = control.prepare(testing::config(&text(free_port(), &["s"])), Files::Read(None)).unwrap().unwrap();
        assert_eq!(control.current.load().generation, 0);
        let current = std::sync::Arc::clone(&control.current);
        let listener = std::thread::spawn(move || {
            let command = receiver.blocking_recv();
            (matches!(command, Some(Command::Listen { .. })), current.load().generation)
        });
        assert_eq!(control.commit(change).generation, 1);
        assert_eq!(listener.join().unwrap(), (true, 1));
    }

    #[tokio::test]
    async fn each_service_has_one_driver_as_long_as_it_is_configured() {
        let (control, _receivers) = testing::control(Source::Memory);
        let port = free_port();
        let live = |name: &str| {
            let service = control.current.load().service(name).cloned();
            service.map(|service| std::sync::Arc::downgrade(&service.live))
        };
        control.apply(testing::config(&text(port, &["s", "t"]))).unwrap();
        let (kept, gone) = (live("s").unwrap(), live("t").unwrap());
        control.apply(testing::config(&text(port, &["s", "u"]))).unwrap();
        assert!(live("s").unwrap().ptr_eq(&kept), "what outlives versions");
        // The driver of what is configured no more lets go of it.
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(kept.strong_count() > 0 && live("t").is_none());
    }
}
