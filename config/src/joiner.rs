//! A file and a fleet's texts, joined time and again. Where nothing has changed since but registered backends, the configuration of
//! before is changed at these, and no text is read anew.

use crate::check;
use crate::diagnostic::{Diagnostics, Text};
use crate::env::Lookup;
use crate::findings::Findings;
use crate::fleet::{FleetBackend, FleetConfig};
use crate::limits;
use crate::load::{Loaded, join, read_file};
use crate::model::{Backend, Config, Protocol, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_128;

/// Joins, and keeps what it has joined last: what the next change is made on.
#[derive(Debug, Default)]
pub struct Joiner {
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    /// Of the file's text.
    text: u128,
    fleet: Arc<FleetConfig>,
    loaded: Loaded,
    /// Services with backends that are both written and registered, of which what is written is not kept, and those that are awaited.
    entangled: HashSet<String>,
}

/// Backends that are registered, by service, sorted by id.
type Registered<'a> = BTreeMap<&'a str, Vec<&'a FleetBackend>>;

impl Joiner {
    /// As [`crate::load_file_with`], and what comes of it is the same.
    ///
    /// # Errors
    /// As [`crate::load_file_with`].
    pub fn load_file(&self, path: &Path, fleet: &Arc<FleetConfig>) -> Result<Loaded, Diagnostics> {
        let text = read_file(path, limits::Pipes::Refused)?;
        self.load(Text::new(&path.display().to_string(), &text), &|name| std::env::var(name).ok(), fleet)
    }

    fn load(&self, text: Text<'_>, environment: Lookup<'_>, fleet: &Arc<FleetConfig>) -> Result<Loaded, Diagnostics> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = xxh3_128(text.text.as_bytes());
        if let Some(last) = last.as_mut().filter(|last| last.text == digest && last.fleet.has_texts_of(fleet))
            && has_parts_as_read(&last.loaded.config)
            && let Some(config) = last.change(fleet)
        {
            last.loaded.config = config;
            last.fleet = Arc::clone(fleet);
            last.loaded.origin = last.loaded.origin.with(fleet);
            return Ok(last.loaded.clone());
        }
        let (joined, entangled) = join(text, environment, fleet, Findings::default());
        let mut loaded = joined?;
        loaded.origin = loaded.origin.with(fleet);
        if let Some(last) = &*last {
            loaded.config.share(&last.loaded.config);
        }
        *last = Some(Last { text: digest, fleet: Arc::clone(fleet), loaded: loaded.clone(), entangled });
        Ok(loaded)
    }
}

impl Last {
    /// The configuration with other backends registered. `None`: it has to be read anew.
    fn change(&self, fleet: &FleetConfig) -> Option<Config> {
        // Without a control plane a service needs backends of its own, and more is to be found about them.
        self.loaded.config.control.as_ref()?;
        let (before, now) = (by_service(&self.fleet.backends), by_service(&fleet.backends));
        let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
        let changed = names.into_iter().filter(|name| before.get(name) != now.get(name));
        let mut config = self.loaded.config.clone();
        let places: HashMap<&str, usize> = self
            .loaded
            .config
            .services
            .iter()
            .enumerate()
            .map(|(index, service)| (service.name.as_str(), index))
            .collect();
        for name in changed {
            let none = Vec::new();
            let service = &mut config.services[*places.get(name)?];
            let (before, now) = (before.get(name).unwrap_or(&none), now.get(name).unwrap_or(&none));
            let backends = self.backends(service, before, now)?;
            *service = Arc::new(Service { backends, ..Service::clone(service) });
        }
        Some(config)
    }

    /// A service's backends: those that are written, then those that are registered.
    fn backends(&self, service: &Service, before: &[&FleetBackend], now: &[&FleetBackend]) -> Option<Vec<Backend>> {
        if self.entangled.contains(&service.name) || !check::is_plain(service, &service.backends) {
            return None;
        }
        let (written, registered) =
            service.backends.split_at_checked(service.backends.len().checked_sub(before.len())?)?;
        let known: HashMap<&str, (&FleetBackend, &Backend)> = before
            .iter()
            .zip(registered)
            .map(|(of_fleet, backend)| (of_fleet.id.as_str(), (*of_fleet, backend)))
            .collect();
        let zone = self.loaded.config.zone.as_deref();
        let mut backends = written.to_vec();
        for of_fleet in now {
            let backend = match known.get(of_fleet.id.as_str()) {
                Some((before, backend)) if before == of_fleet => Backend::clone(backend),
                _ => check::registered(of_fleet, service, zone)?,
            };
            backends.push(backend);
        }
        check::is_plain(service, &backends).then_some(backends)
    }
}

fn by_service(backends: &[FleetBackend]) -> Registered<'_> {
    let mut of = Registered::new();
    for backend in backends {
        of.entry(&backend.service).or_default().push(backend);
    }
    of.values_mut().for_each(|backends| backends.sort_by(|a, b| a.id.cmp(&b.id)));
    of
}

/// Whether files whose content is a part of the configuration have that content still.
fn has_parts_as_read(config: &Config) -> bool {
    let pages = config.listeners.iter().filter_map(|listener| match &listener.protocol {
        Protocol::Http(http) => Some(&http.errors),
        Protocol::Tcp(_) | Protocol::Udp(_) => None,
    });
    pages.flatten().all(|page| match &page.file {
        Some(path) => limits::read_bytes(path).is_ok_and(|content| content == page.body),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FleetText;
    use crate::load::load_str_with;
    use proptest::prelude::*;

    /// A file of a proxy in zone `z1`, a document and a service of its own, with these lines in each service.
    fn texts(of_service: &str, written: &str) -> (String, FleetConfig) {
        // A service that is nowhere is awaited.
        let file = "control: { members: [ \"http://127.0.0.1:1\" ] }\nzone: z1\n\
                    listeners: [ { name: web, address: \"127.0.0.1:0\", service: main }, \
                    { name: other, address: \"127.0.0.1:0\", service: awaited } ]\n";
        let document = format!("services:\n  - name: main\n    {of_service}\n    backends: [ {written} ]\n");
        let text = |name: &str, text: String| FleetText { name: name.into(), text };
        let fleet = FleetConfig {
            documents: vec![text("document", document)],
            services: vec![("own".into(), text("service/own", of_service.to_owned()))],
            ..FleetConfig::default()
        };
        (file.to_owned(), fleet)
    }

    fn backend(service: &str, id: u8, address: u8, weight: u32) -> FleetBackend {
        FleetBackend {
            service: service.into(),
            id: if id == 0 { "not an id".into() } else { format!("b{id}") },
            address: if address == 0 { "nowhere".into() } else { format!("10.0.0.{address}:80") },
            additional_address: (address % 4 == 1)
                .then(|| format!("[fd00::{}]:80", if weight % 2 == 1 { id % 2 } else { id })),
            weight,
            tier: id % 2,
            zone: [None, Some("z1".into()), Some("z2".into())][usize::from(address % 3)].clone(),
            drain: weight == 3,
            maintenance: weight == 7,
        }
    }

    fn load(joiner: &Joiner, file: &str, fleet: &FleetConfig) -> Result<Loaded, String> {
        let fleet = Arc::new(fleet.clone());
        joiner.load(Text::new("file.yaml", file), &|_| None, &fleet).map_err(|error| error.to_string())
    }

    fn anew(file: &str, fleet: &FleetConfig) -> Result<Loaded, String> {
        load_str_with("file.yaml", file, &|_| None, fleet).map_err(|error| error.to_string())
    }

    /// Whether the last load of all was made by a change.
    fn is_changed(joiner: &Joiner, fleet: &FleetConfig) -> bool {
        joiner.last.lock().unwrap().as_ref().is_some_and(|last| last.change(fleet).is_some())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn what_is_changed_is_as_what_is_read_anew(
            of_service in prop::sample::select(vec![
                "timeouts: { connect: 1s }",
                "zone_aware: true",
                "balance: { policy: maglev, table_size: 251, hash_key: [ { path: {} } ] }",
                "balance: { policy: hrw, hash_key: [ { path: {} } ] }",
                "outlier: { failure_percentage: { min_hosts: 5 } }",
                "health: { tcp: {}, agent: { port: 80 } }",
                "limits: { requests_max: 5 }",
            ]),
            written in prop::sample::select(vec![
                "",
                "{ id: b1, address: \"10.0.0.9:80\", requests_max: 7 }, { id: w, address: \"10.0.0.1:80\", weight: 0 }",
            ]),
            steps in prop::collection::vec(
                prop::collection::vec((0..4_u8, 0..6_u8, 0..40_u8, 0..12_u32), 0..4), 1..10,
            ),
        ) {
            let (file, mut fleet) = texts(of_service, written);
            let joiner = Joiner::default();
            for step in steps {
                for (service, id, address, weight) in step {
                    let new = backend(["main", "own", "awaited", "nobody"][usize::from(service)], id, address, weight);
                    fleet.backends.retain(|known| (&known.service, &known.id) != (&new.service, &new.id));
                    // What leaves is as likely as what is wrong.
                    if weight == 9 || weight < 10 && id > 0 && address > 0 && service < 3 {
                        fleet.backends.push(new);
                    }
                }
                prop_assert_eq!(load(&joiner, &file, &fleet), anew(&file, &fleet));
            }
        }
    }

    #[test]
    fn a_change_of_backends_reads_nothing_and_leaves_other_services_as_they_are() {
        let (file, mut fleet) = texts("timeouts: { connect: 1s }", "{ id: w, address: \"10.0.0.200:80\" }");
        let joiner = Joiner::default();
        let first = load(&joiner, &file, &fleet).unwrap();
        for number in 1..20 {
            fleet.backends.push(backend("main", number, number, 100));
            assert!(is_changed(&joiner, &fleet), "{number}");
            let next = load(&joiner, &file, &fleet).unwrap();
            let (before, now) = (&first.config.services, &next.config.services);
            assert_eq!(now[0].backends.len(), usize::from(number) + 1);
            assert!(Arc::ptr_eq(&before[1], &now[1]));
        }
        fleet.backends[3].weight = 50;
        fleet.backends.remove(7);
        assert!(is_changed(&joiner, &fleet));
        assert_eq!(load(&joiner, &file, &fleet), anew(&file, &fleet));
        // What is the same is the same value, also when it has been read anew.
        let again = load(&joiner, &format!("{file}# so\n"), &fleet).unwrap();
        let known = joiner.last.lock().unwrap().as_ref().unwrap().loaded.config.services.clone();
        assert!(again.config.services.iter().zip(&known).all(|(one, other)| Arc::ptr_eq(one, other)));
        assert!(Arc::ptr_eq(&again.config.services[1], &first.config.services[1]));
    }

    #[test]
    fn whatever_else_differs_is_read() {
        let (file, fleet) = texts("timeouts: { connect: 1s }", "");
        let one = FleetConfig { backends: vec![backend("main", 1, 1, 100)], ..fleet.clone() };
        let joiner = Joiner::default();
        load(&joiner, &file, &fleet).unwrap();
        let (_, other) = texts("timeouts: { connect: 2s }", "");
        let other = FleetConfig { backends: one.backends.clone(), ..other };
        assert_eq!(load(&joiner, &file, &other), anew(&file, &other));
        let drained = file.replace("zone: z1", "zone: z2");
        assert_eq!(load(&joiner, &drained, &one), anew(&drained, &one));
        // A file that has become wrong is told of each time, and what was joined before it is still known.
        for _ in 0..2 {
            assert!(load(&joiner, "listeners: 3\n", &one).is_err());
        }
        assert_eq!(load(&joiner, &drained, &fleet), anew(&drained, &fleet));
    }

    #[test]
    fn a_page_that_is_a_part_of_the_configuration_is_read_again_once_it_has_changed() {
        let path = std::env::temp_dir().join(format!("ringway-joiner-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let (file, mut fleet) = texts("timeouts: { connect: 1s }", "");
        let page = format!("service: main, errors: [ {{ status: [ 503 ], file: {path:?} }} ]");
        let file = file.replace("service: main", &page);
        let joiner = Joiner::default();
        load(&joiner, &file, &fleet).unwrap();
        fleet.backends.push(backend("main", 1, 1, 100));
        assert_eq!(load(&joiner, &file, &fleet), anew(&file, &fleet));
        fleet.backends.push(backend("main", 2, 2, 100));
        std::fs::write(&path, "another").unwrap();
        let (loaded, expected) = (load(&joiner, &file, &fleet), anew(&file, &fleet));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(loaded, expected);
        assert!(format!("{loaded:?}").contains(&format!("{:?}", b"another".to_vec())));
    }
}
