//! The live state of all services, and how a version is built on it and put into force.

use super::admin_access::{AdminAccess, AdminAccessError};
use super::backend::Backend;
use super::certificates;
use super::handoff::Handoff;
use super::journal::Journal;
use super::members;
use super::service::{Service, ServiceLive, cookie_value, lock};
use super::shadow::{Shadow, ShadowError};
use super::version::{ListenerTable, Snapshot, handoff_fields, identity_fields};
use crate::ambient;
use crate::net::tls::{self, ClientTls, ServerTls, Tickets, TlsError};
use crate::probe::Prober;
use ringway_config::model::{self, Config};
use ringway_health::{AgentParams, Event, ServiceHealth};
use ringway_ring::{BackendSet, BuildError, PolicyParams, Slot};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a valid configuration cannot be put into force.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A ring cannot be built.
    #[error("service {service:?}: {source}")]
    Build {
        /// The service.
        service: String,
        /// Why.
        source: BuildError,
    },
    /// The TLS of a listener cannot be set up.
    #[error("listener {listener:?}: {source}")]
    ListenerTls {
        /// The listener.
        listener: String,
        /// Why.
        source: TlsError,
    },
    /// The TLS of a service or its checks cannot be set up.
    #[error("service {service:?}: {source}")]
    Tls {
        /// The service.
        service: String,
        /// Why.
        source: TlsError,
    },
    /// The admin listener's files are of no use.
    #[error("admin listener: {0}")]
    Admin(#[from] AdminAccessError),
    /// The shadow configuration cannot be used.
    #[error("shadow configuration: {0}")]
    Shadow(#[from] ShadowError),
}

/// The live state of all services, by name.
#[derive(Default)]
pub struct Registry {
    services: Mutex<HashMap<Box<str>, Arc<ServiceLive>>>,
    tickets: Tickets,
    journal: Arc<Journal>,
    /// What the fleet had agreed on before what this proxy starts with, and how long ago that gave way.
    before: Mutex<Vec<(Config, Duration)>>,
}

impl Registry {
    /// One whose services' events are kept there.
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        Self { journal, ..Self::default() }
    }

    /// Builds the snapshot of a configuration. Changes nothing: new state belongs to the snapshot alone, and [`Registry::commit`]
    /// keeps it for the next one.
    ///
    /// # Errors
    /// A ring cannot be built.
    pub fn prepare(
        &self,
        config: Arc<Config>,
        generation: u64,
        workers: usize,
        now: Instant,
    ) -> Result<Snapshot, SnapshotError> {
        // Read before the files are: a file that changes in between is read again.
        let files_digest = tls::digest(&config);
        let service =
            |config: &Arc<model::Service>| self.service(config, (transport(config), check_files(config)), workers, now);
        let services: Box<[Arc<Service>]> = config.services.iter().map(service).collect::<Result<_, _>>()?;
        let shadow = match &config.shadow {
            Some(path) => Some(Arc::new(Shadow::load(path)?)),
            None => None,
        };
        let server = |listener: &model::Listener| {
            let Some(tls) = &listener.tls else { return Ok(None) };
            // Like a listener's sockets, its tickets stay when its name changes.
            let by_name = if listener.address.port() == 0 { listener.name.as_str() } else { "" };
            let built = ServerTls::new(&format!("{}{by_name}", listener.address), tls, &self.tickets);
            built
                .map(|tls| Some(Arc::new(tls)))
                .map_err(|source| SnapshotError::ListenerTls { listener: listener.name.clone(), source })
        };
        let tls = config.listeners.iter().map(server).collect::<Result<_, _>>()?;
        let identity_fields = identity_fields(&config);
        let handoff_fields = handoff_fields(&config);
        let admin = config.admin.as_ref().map(AdminAccess::build).transpose()?.map(Arc::new);
        let certificates = certificates::certificates(&config);
        let by_name = by_name(&services);
        let tables = config.listeners.iter().map(ListenerTable::new).collect();
        Ok(Snapshot {
            generation,
            config,
            services,
            by_name,
            tables,
            tls,
            identity_fields,
            handoff_fields,
            files_digest,
            certificates,
            shadow,
            admin,
        })
    }

    /// As [`Registry::prepare`], of a version that differs from the one in force by runtime changes of services alone: no file is
    /// looked at, so that none that has changed or broken since comes into force, or stands in the way.
    pub(crate) fn prepare_changed(
        &self,
        config: Arc<Config>,
        in_force: &Snapshot,
        workers: usize,
        now: Instant,
    ) -> Result<Snapshot, SnapshotError> {
        let service = |config: &Arc<model::Service>| {
            let files = match in_force.service(&config.name) {
                Some(service) => (service.transport, service.check_files),
                None => (transport(config), check_files(config)),
            };
            self.service(config, files, workers, now)
        };
        let services: Box<[Arc<Service>]> = config.services.iter().map(service).collect::<Result<_, _>>()?;
        Ok(Snapshot {
            generation: in_force.generation + 1,
            by_name: by_name(&services),
            services,
            tables: config.listeners.iter().map(ListenerTable::new).collect(),
            tls: in_force.tls.clone(),
            identity_fields: in_force.identity_fields.clone(),
            handoff_fields: in_force.handoff_fields.clone(),
            files_digest: in_force.files_digest,
            certificates: in_force.certificates.clone(),
            shadow: in_force.shadow.clone(),
            admin: in_force.admin.clone(),
            config,
        })
    }

    /// A service of a version that is prepared: the one in force, if nothing of it has changed. The numbers are those of its files.
    fn service(
        &self,
        config: &Arc<model::Service>,
        (transport, check_files): (u64, u64),
        workers: usize,
        now: Instant,
    ) -> Result<Arc<Service>, SnapshotError> {
        let live = self.live(config, workers, now);
        let in_force = lock(&live.newest).upgrade();
        if let Some(same) = in_force.as_ref().filter(|it| it.is_of(config, transport, check_files)) {
            return Ok(Arc::clone(same));
        }
        let backends = members::backends(config, &live);
        let backend_set = BackendSet::build_after(
            in_force.as_ref().map(|service| &service.backend_set),
            config.policy,
            config.bound,
            members::of_set(config, &backends),
            Arc::clone(&live.total),
        )
        .map_err(|source| SnapshotError::Build { service: config.name.clone(), source })?
        .with_all_full(config.all_full);
        // Results and connections of checks belong to what has made them.
        let prober =
            match in_force.as_ref().filter(|it| it.config.health == config.health && it.check_files == check_files) {
                Some(same) => same.prober.clone(),
                None => prober(config)?,
            };
        // Sessions with backends that stay are known there.
        let tls = match in_force.as_ref().filter(|it| it.transport == transport) {
            Some(same) => same.tls.clone(),
            None => client_tls(config)?,
        };
        let limiter = config.rate_limit.as_ref().map(|limit| live.limiter_for(limit, now));
        let handoff = Handoff::prepare(Some(&backend_set), config)
            .map_err(|source| SnapshotError::Build { service: config.name.clone(), source })?;
        Ok(Arc::new(Service {
            config: Arc::clone(config),
            backend_set,
            cookie_slots: cookie_slots(config, &backends),
            backends,
            live,
            tls,
            prober,
            transport,
            check_files,
            limiter,
            times_responses: times_responses(config),
            looks_for_hot_keys: config.hot_keys.is_some() && config.backends.len() > 1,
            limits_connections: limits_connections(config),
            handoff,
            turn: AtomicU64::new(0),
        }))
    }

    /// The state of a service that outlives snapshots, existing or new.
    fn live(&self, config: &model::Service, workers: usize, now: Instant) -> Arc<ServiceLive> {
        if let Some(live) = lock(&self.services).get(config.name.as_str()) {
            return Arc::clone(live);
        }
        // Jitter differs between services and processes; it is no secret.
        let seed = xxhash_rust::xxh3::xxh3_64(config.name.as_bytes()) ^ ambient::process_salt();
        let health = ServiceHealth::new(health_params(config), seed, now);
        Arc::new(ServiceLive::new(&config.name, health, workers, Arc::clone(&self.journal)))
    }

    /// The first version that comes into force follows these, newest first, of which each gave way so long ago, as far as hand-off of keys goes.
    pub(crate) fn remember(&self, before: Vec<(Config, Duration)>) {
        *lock(&self.before) = before;
    }

    /// Has the services of a prepared snapshot take over the windows of hand-off of those in force, and open others where they place keys
    /// otherwise; `age`: how long ago the change was made. Before [`Registry::commit`]. Gives the services that have opened one.
    pub fn hand_over(&self, snapshot: &Snapshot, age: Duration, now: Instant) -> Vec<Arc<Service>> {
        let remembered = std::mem::take(&mut *lock(&self.before));
        let opens = |service: &&Arc<Service>| {
            let Some(before) = lock(&service.live.newest).upgrade() else {
                let of = |(config, age): &'_ (Config, Duration)| {
                    let known = config.services.iter().find(|before| before.name == service.config.name);
                    known.map(|before| (Arc::clone(before), *age))
                };
                let before: Vec<_> = remembered.iter().map_while(of).collect();
                return Some(service.handoff.recall(&before, &service.config, now));
            };
            let of_before = (&before.backend_set, &*before.config);
            Some(service.handoff.succeed(&before.handoff, of_before, &service.config, (age, now)))
        };
        let changed = snapshot.services.iter().filter(|service| !service.is_newest());
        changed.filter(|service| opens(service).unwrap_or(false)).map(Arc::clone).collect()
    }

    /// Keeps the new state of a prepared snapshot, puts its memberships into force in the health machines, and forgets what the
    /// snapshot no longer has. Cannot fail. Backends that the version before has too keep their share for now: its readers have no
    /// others. [`Registry::settle`] follows once requests read the snapshot.
    pub fn commit(&self, snapshot: &Snapshot, now: Instant) {
        let kept = snapshot.services.iter().map(|service| (service.live.name.clone(), Arc::clone(&service.live)));
        *lock(&self.services) = kept.collect();
        self.tickets.keep(snapshot.tls.iter().flatten().map(|tls| &tls.tickets));
        snapshot.services.iter().for_each(|service| service.live.forget_departed());
        for service in snapshot.services.iter().filter(|service| !service.is_newest()) {
            let before = lock(&service.live.newest).upgrade();
            // Mostly nobody has come or gone.
            let same = before.is_some_and(|before| before.has_backends_of(service));
            let is_fresh = |backend: &Backend| !same && !service.live.knows(&backend.config.id);
            let fresh: Vec<bool> = service.backends.iter().map(is_fresh).collect();
            if !same {
                service.live.keep_backends(service);
            }
            service.live.keep_limiter(service, now);
            let mut health = service.live.health();
            health.set_params(health_params(&service.config), now);
            health.set_members(&members::of_health(service), now);
            for (backend, fresh) in service.backends.iter().zip(fresh) {
                let share = health.share(&backend.config.id).unwrap_or_default();
                if fresh || share > backend.state.load.active_fraction() {
                    backend.state.load.set_doubted(health.is_doubted(&backend.config.id));
                    backend.state.load.set_active_fraction(share);
                }
            }
            for backend in &service.backends {
                backend.state.set_concurrency(service.config.adaptive_concurrency);
            }
            service.backend_set.set_level_shares(health.level_shares());
            service.live.limits_connections.store(service.limits_connections, Relaxed);
            service.backend_set.install();
            if let Some(tls) = &service.tls {
                let addresses = service.backends.iter().map(|backend| backend.config.address);
                tls.keep(&addresses.collect());
            }
        }
    }

    /// Lets the removals of a committed snapshot take effect, now that requests read it: a request that has read the one before and
    /// finds no backend there looks here. Returns the health events of the services that have changed.
    pub fn settle(&self, snapshot: &Snapshot) -> Vec<(Arc<Service>, Vec<Event>)> {
        let mut happened = Vec::new();
        for service in snapshot.services.iter().filter(|service| !service.is_newest()) {
            let mut health = service.live.health();
            let before = std::mem::replace(&mut *lock(&service.live.newest), Arc::downgrade(service));
            before.upgrade().into_iter().for_each(|before| before.handoff.close());
            let events = service.write_health(&mut health);
            drop(health);
            service.live.health_changed.notify_one();
            happened.push((Arc::clone(service), events));
        }
        happened
    }
}

/// Whether anything depends on how long responses take.
fn times_responses(config: &model::Service) -> bool {
    let by_latency = matches!(config.policy, PolicyParams::PeakEwma(_));
    by_latency || config.outlier.latency.is_some() || config.adaptive_concurrency.is_some()
}

/// Whether connections are counted against a limit.
fn limits_connections(config: &model::Service) -> bool {
    let limited = |backend: &model::Backend| backend.connections_max.min(backend.pending_max) < u32::MAX;
    config.connections_max < u32::MAX || config.backends.iter().any(limited)
}

/// The backends by their cookies' values, where these name backends.
fn cookie_slots(config: &model::Service, backends: &[Backend]) -> HashMap<u64, Slot> {
    let sticky = config.affinity_cookie.is_some() && !config.policy.hashes();
    let named = backends.iter().enumerate().filter(|_| sticky);
    named.map(|(slot, backend)| (cookie_value(&backend.config.id), Slot(slot as u16))).collect()
}

/// What makes a service's checks, if it has any.
fn prober(config: &model::Service) -> Result<Option<Arc<Prober>>, SnapshotError> {
    let prober = config.health.as_ref().map(Prober::new).transpose();
    let prober = prober.map_err(|source| SnapshotError::Tls { service: config.name.clone(), source })?;
    Ok(prober.map(Arc::new))
}

/// TLS towards a service's backends, if it has it.
fn client_tls(config: &model::Service) -> Result<Option<Arc<ClientTls>>, SnapshotError> {
    let alpn: &[&[u8]] = match config.protocol {
        model::UpstreamProtocol::H2 => &[b"h2"],
        model::UpstreamProtocol::Http1 => &[b"http/1.1"],
    };
    let tls = config.tls.as_ref().map(|tls| ClientTls::new(tls, alpn)).transpose();
    let tls = tls.map_err(|source| SnapshotError::Tls { service: config.name.clone(), source })?;
    Ok(tls.map(Arc::new))
}

/// A number that changes with the protocol towards its backends, and with the files that its settings name.
fn transport(config: &model::Service) -> u64 {
    let spoken = format!("{:?} {:?} {:?}", config.protocol, config.proxy_protocol, config.tls);
    let mut transport = xxhash_rust::xxh3::Xxh3::new();
    transport.update(spoken.as_bytes());
    for path in config.tls.iter().flat_map(|tls| tls.files()) {
        transport.update(&ringway_config::read_bytes(path).unwrap_or_default());
    }
    transport.digest()
}

/// Whether two versions give connections to backends the same limits when these are opened. Where they do not, a connection of the first is
/// of use until one of the second is open.
pub(crate) fn sets_up_alike(before: &model::Service, after: &model::Service) -> bool {
    let of_http2 = |config: &model::Service| {
        (config.protocol == model::UpstreamProtocol::H2).then_some((config.keepalive, config.flood))
    };
    of_http2(before) == of_http2(after) && before.timeouts.tcp_user_timeout == after.timeouts.tcp_user_timeout
}

/// A number that changes with the files that its checks' TLS is made of.
fn check_files(config: &model::Service) -> u64 {
    let mut files = xxhash_rust::xxh3::Xxh3::new();
    for path in config.health.iter().filter_map(|health| health.tls.as_ref()).flat_map(|tls| tls.files()) {
        files.update(&ringway_config::read_bytes(path).unwrap_or_default());
    }
    files.digest()
}

fn by_name(services: &[Arc<Service>]) -> HashMap<Box<str>, usize> {
    services.iter().enumerate().map(|(index, service)| (service.config.name.as_str().into(), index)).collect()
}

fn health_params(config: &model::Service) -> ringway_health::Params {
    ringway_health::Params {
        check: config.health.as_ref().map(|health| health.params),
        agent: config
            .health
            .as_ref()
            .and_then(|health| health.agent.as_ref())
            .map(|agent| AgentParams { interval: agent.interval, timeout: agent.timeout }),
        outlier: config.outlier,
        panic_threshold_percent: config.panic_threshold_percent,
        panic_mode: config.panic_mode,
        overprovisioning_percent: config.overprovisioning_percent,
        slow_start: config.slow_start,
        drain_ramp: config.drain_ramp,
        keep_clients: config.keep_clients,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use ringway_health::{CheckFailure, Probe};

    /// A version of one service with a backend of the first tier, one of the second, and others; rebuilt, not served.
    fn prepared(registry: &Registry, generation: u64, second_tier: u8, others: &str) -> Snapshot {
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
             services:\n  - name: s\n    balance: {{ hash_key: [ {{ path: {{}} }} ] }}\n    panic_threshold: 0\n\
             \x20   health: {{ tcp: {{}}, fall: 1, rise: 1 }}\n    backends:\n\
             \x20     - {{ id: a, address: \"127.0.0.1:1\" }}\n\
             \x20     - {{ id: b, address: \"127.0.0.1:2\", tier: {second_tier} }}\n{others}"
        );
        let config = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        registry.prepare(Arc::new(config.config), generation, 1, ambient::now()).unwrap()
    }

    #[test]
    fn sessions_with_backends_that_stay_are_kept_over_a_change_and_no_others() {
        let registry = Registry::default();
        let version = |generation: u64, ports: &[u16]| {
            let backends = ports.iter().map(|port| format!("{{ id: b{port}, address: \"127.0.0.1:{port}\" }}"));
            let text = format!(
                "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, tls: {{ verify: false }}, backends: [ {} ] }} ]\n",
                backends.collect::<Vec<_>>().join(", ")
            );
            let loaded = ringway_config::load_str("t.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
            let snapshot = registry.prepare(Arc::new(loaded.config), generation, 1, ambient::now()).unwrap();
            registry.commit(&snapshot, ambient::now());
            registry.settle(&snapshot);
            snapshot
        };
        let of = |snapshot: &Snapshot, port: u16| {
            snapshot.services[0].tls.as_ref().unwrap().config_for(([127, 0, 0, 1], port).into())
        };
        let first = version(1, &[1, 2]);
        let (stays, goes) = (of(&first, 1), of(&first, 2));
        let second = version(2, &[1, 3]);
        assert!(Arc::ptr_eq(&of(&second, 1), &stays));
        assert!(!Arc::ptr_eq(&of(&second, 2), &goes), "what has gone is forgotten");
    }

    #[test]
    fn what_happens_while_versions_change_reaches_the_newest() {
        let registry = Registry::default();
        let now = ambient::now();
        let first = prepared(&registry, 1, 0, "");
        registry.commit(&first, now);
        registry.settle(&first);
        let second = prepared(&registry, 2, 1, "");
        registry.commit(&second, now);
        registry.settle(&second);
        let newest = &second.services[0];
        assert_eq!(newest.backend_set.level_shares(), [(0, 1.0), (2, 0.0)]);
        // A check ends, and its driver still holds the earlier version.
        let old = &first.services[0];
        let mut health = old.live.health();
        health.handle_probe("a", Probe::Failure(CheckFailure::Connect), now);
        assert!(health.take_changed());
        let events = old.apply_health(&mut health);
        drop(health);
        assert!(events.iter().any(|event| event.id == "a"), "{events:?}");
        assert_eq!(newest.backend_set.level_shares(), [(0, 0.0), (2, 1.0)]);
        assert_eq!(newest.backend_set.eligible_members(), 1);
    }

    /// A version of two services; rebuilt, not served.
    fn of_two(registry: &Registry, generation: u64, weight: u32, tls: &str) -> Snapshot {
        let text = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\nservices:\n\
             \x20 - {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:1\", weight: {weight} }} ] }}\n\
             \x20 - {{ name: t, {tls} backends: [ {{ id: a, address: \"127.0.0.1:2\" }} ] }}\n"
        );
        let config = ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        registry.prepare(Arc::new(config.config), generation, 1, ambient::now()).unwrap()
    }

    #[test]
    fn a_service_that_is_the_same_in_two_versions_is_one_value_and_hears_nothing_of_the_change() {
        let (registry, now) = (Registry::default(), ambient::now());
        let first = of_two(&registry, 1, 100, "");
        registry.commit(&first, now);
        assert_eq!(registry.settle(&first).len(), 2);
        let second = of_two(&registry, 2, 50, "");
        assert!(!Arc::ptr_eq(&first.services[0], &second.services[0]));
        assert!(Arc::ptr_eq(&first.services[1], &second.services[1]));
        registry.commit(&second, now);
        let changed: Vec<String> =
            registry.settle(&second).into_iter().map(|(service, _)| service.config.name.clone()).collect();
        assert_eq!(changed, ["s"]);
        assert!(second.services.iter().all(|service| service.is_newest()) && !first.services[0].is_newest());
    }

    #[test]
    fn a_service_is_built_anew_when_a_file_that_it_names_has_changed() {
        let (registry, now) = (Registry::default(), ambient::now());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let authority = || rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        std::fs::write(&path, authority()).unwrap();
        let tls = format!("tls: {{ ca: {path:?} }},");
        let put = |generation: u64, tls: &str| {
            let version = of_two(&registry, generation, 100, tls);
            registry.commit(&version, now);
            registry.settle(&version);
            version
        };
        let (first, second) = (put(1, &tls), put(2, &tls));
        assert!(Arc::ptr_eq(&first.services[1], &second.services[1]));
        std::fs::write(&path, authority()).unwrap();
        let third = put(3, &tls);
        assert!(!Arc::ptr_eq(&second.services[1], &third.services[1]));
        assert!(Arc::ptr_eq(&second.services[0], &third.services[0]));
    }

    #[test]
    fn backend_that_comes_back_still_carries_what_it_carries() {
        let registry = Registry::default();
        let now = ambient::now();
        let with_c = "      - { id: c, address: \"127.0.0.1:3\" }\n";
        let first = prepared(&registry, 1, 0, with_c);
        registry.commit(&first, now);
        registry.settle(&first);
        let (old, slot) = (&first.services[0], first.services[0].slot_of("c").unwrap());
        (0..7).for_each(|_| old.backend_set.resume(slot, 0));
        let second = prepared(&registry, 2, 0, "");
        registry.commit(&second, now);
        registry.settle(&second);
        assert_eq!(
            second.services[0].live.total.sum_of(0),
            0,
            "what a backend carries that has gone is nobody's share"
        );
        let third = prepared(&registry, 3, 0, with_c);
        registry.commit(&third, now);
        registry.settle(&third);
        let new = &third.services[0];
        assert_eq!(new.backends[2].state.load.in_flight(), 7);
        assert_eq!(new.live.total.sum_of(0), 7);
        (0..7).for_each(|_| old.backend_set.release(slot, 0));
        assert_eq!((new.backends[2].state.load.in_flight(), new.live.total.sum_of(0)), (0, 0));
        // Nothing runs there any more: a backend that comes back later is new.
        let next = prepared(&registry, 4, 0, "");
        registry.commit(&next, now);
        registry.settle(&next);
        drop((first, second, third));
        let next = prepared(&registry, 5, 0, "");
        registry.commit(&next, now);
        registry.settle(&next);
        assert!(lock(&registry.services)["s"].departed.lock().unwrap().is_empty());
    }

    #[test]
    fn settings_of_http2_are_set_up_anew_for_those_who_speak_it_and_are_no_other_transport() {
        let of = |service: &str| {
            let text = format!(
                "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, {service}, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
            );
            let loaded = ringway_config::load_str("test.yaml", &text, &|_| None);
            Arc::clone(&loaded.unwrap_or_else(|error| panic!("{error}")).config.services[0])
        };
        for http2 in ["http2: { flood: { pings_max: 7 } }", "http2: { keepalive: { idle: 7s } }"] {
            for (protocol, same) in [("protocol: http1", true), ("protocol: h2", false)] {
                let (before, after) = (of(protocol), of(&format!("{protocol}, {http2}")));
                assert_eq!(sets_up_alike(&before, &after), same, "{protocol}, {http2}");
                assert_eq!(transport(&before), transport(&after), "{protocol}, {http2}");
            }
        }
    }
}
