//! The fleet's texts, read: once for each state that is judged or kept, not once for each question about it. Whoever judges and
//! the leader's lessor share one; a state of some megabytes takes a second to read.

use crate::state::{CONTROL_PLANE, Entry, Key, State, from_objects};
use ringway_config::{Diagnostics, FleetConfig, Loaded, check_fleet};
use rpds::RedBlackTreeMapSync as Map;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// States that are kept: the one that holds, and what two that are judged at a time would make of it.
const STATES_MAX: usize = 3;

/// Where a certificate and its key are said to stand, while a configuration is checked: no file's path looks like it.
pub(crate) const CERTIFICATES: &str = "/control plane/certificates";
pub(crate) const CERTIFICATE: &str = "certificate";
pub(crate) const KEY: &str = "key";

/// What a state's objects are together, or why they are no configuration.
pub(crate) type Read = Result<Loaded, Diagnostics>;

/// See the module.
pub(crate) struct Parsed {
    /// The one that was asked for last is last.
    states: Mutex<VecDeque<Known>>,
    written: Mutex<Option<(Texts, Arc<Written>)>>,
    /// Who asks what is written must not wait until it is read.
    elsewhere: bool,
    wanted: AtomicBool,
    /// Configurations that were read.
    reads: AtomicU64,
}

struct Known {
    objects: Map<Key, Entry>,
    read: Arc<Read>,
}

/// What stands in the fleet's texts, besides registered backends.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Of each service, the weights of its backends.
    services: BTreeMap<String, BTreeMap<String, u32>>,
    /// Services of which a backend takes traffic.
    serving: BTreeSet<String>,
}

impl Written {
    fn of(services: &[Arc<ringway_config::model::Service>]) -> Self {
        let mut written = Self::default();
        for service in services {
            let backends = service.backends.iter();
            if backends.clone().any(|backend| !backend.drain && backend.weight > 0) {
                written.serving.insert(service.name.clone());
            }
            let weights = backends.map(|backend| (backend.id.clone(), backend.weight)).collect();
            written.services.insert(service.name.clone(), weights);
        }
        written
    }

    /// Whether a backend of the service that takes traffic is written.
    pub(crate) fn serves(&self, service: &str) -> bool {
        self.serving.contains(service)
    }

    /// The backends of a service that is written, and their weights.
    pub(crate) fn members(&self, service: &str) -> Option<&BTreeMap<String, u32>> {
        self.services.get(service)
    }
}

/// Which texts: epoch, how many, and the revision that changed one last.
type Texts = (u64, usize, u64);

impl Parsed {
    /// Reads what it is asked for at once.
    pub(crate) fn at_once() -> Self {
        Self {
            states: Mutex::default(),
            written: Mutex::default(),
            elsewhere: false,
            wanted: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        }
    }

    /// Leaves it to others to read what the lessor asks for: see [`Parsed::take_wanted`].
    pub(crate) fn elsewhere() -> Self {
        Self { elsewhere: true, ..Self::at_once() }
    }

    /// What all of a state's objects are together.
    pub(crate) fn configuration(&self, state: &State) -> Arc<Read> {
        if let Some(read) = self.known(state) {
            return read;
        }
        let read = Arc::new(self.read(&fleet(state)));
        let mut states = lock(&self.states);
        states.push_back(Known { objects: state.objects.clone(), read: Arc::clone(&read) });
        while states.len() > STATES_MAX {
            states.pop_front();
        }
        read
    }

    fn known(&self, state: &State) -> Option<Arc<Read>> {
        let mut states = lock(&self.states);
        let index = states.iter().position(|known| same(&known.objects, &state.objects))?;
        let found = states.remove(index)?;
        let read = Arc::clone(&found.read);
        states.push_back(found);
        Some(read)
    }

    fn read(&self, fleet: &FleetConfig) -> Read {
        self.reads.fetch_add(1, Relaxed);
        check_fleet(fleet)
    }

    /// What stands in the fleet's texts. `None`: they are to be read first.
    pub(crate) fn written(&self, state: &State) -> Option<Arc<Written>> {
        let known = self.known_written(texts(state));
        if known.is_none() && self.elsewhere {
            self.wanted.store(true, Relaxed);
            return None;
        }
        known.or_else(|| Some(self.read_written(state)))
    }

    fn known_written(&self, at: Texts) -> Option<Arc<Written>> {
        lock(&self.written).as_ref().filter(|(of, _)| *of == at).map(|(_, written)| Arc::clone(written))
    }

    /// Whether somebody waits for [`Parsed::read_written`]; says so once.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Relaxed)
    }

    /// Takes long where the texts are. Asked for again while it was read, it is known by now.
    pub(crate) fn read_written(&self, state: &State) -> Arc<Written> {
        let at = texts(state);
        if let Some(known) = self.known_written(at) {
            return known;
        }
        // Backends are last in the order of keys.
        let objects = state.objects.iter().take_while(|(key, _)| !matches!(key, Key::Backend { .. }));
        let fleet =
            from_objects(objects.map(|(key, entry)| (key, &*entry.object)), CONTROL_PLANE, |_| Default::default());
        // What cannot be read has no backends: the registered one stays.
        let services = self.read(&fleet).map(|loaded| loaded.config.services).unwrap_or_default();
        let written = Arc::new(Written::of(&services));
        *lock(&self.written) = Some((at, Arc::clone(&written)));
        written
    }

    #[cfg(test)]
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A state as its judges read it.
pub(crate) fn fleet(state: &State) -> FleetConfig {
    crate::state::fleet_config(state, |name| {
        let of = |what: &str| PathBuf::from(format!("{CERTIFICATES}/{name}/{what}"));
        (of(CERTIFICATE), of(KEY))
    })
}

/// By what they are, whatever revision has made them so: what was judged is what holds once it is applied.
fn same(one: &Map<Key, Entry>, other: &Map<Key, Entry>) -> bool {
    let equal = |(a, b): (&Entry, &Entry)| Arc::ptr_eq(&a.object, &b.object) || a.object == b.object;
    one.size() == other.size() && one.keys().eq(other.keys()) && one.values().zip(other.values()).all(equal)
}

fn texts(state: &State) -> Texts {
    let texts = || state.objects.iter().take_while(|(key, _)| !matches!(key, Key::Backend { .. }));
    (state.epoch, texts().count(), texts().map(|(_, entry)| entry.modified).max().unwrap_or(0))
}
