//! Which services a fleet has a say in.

use ringway_config::FleetConfig;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Services whose rings are the fleet's business. Texts are looked at once, as long as they stay the same.
#[derive(Default)]
pub(crate) struct Services {
    last: Mutex<Option<(Arc<FleetConfig>, BTreeSet<String>)>>,
}

impl Services {
    /// Those that a fleet's texts define, as far as names can be told without parsing them, and those with registered backends.
    pub(crate) fn of(&self, fleet: &Arc<FleetConfig>) -> BTreeSet<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|(known, _)| known.has_texts_of(fleet));
        let (_, of_texts) = last.insert((Arc::clone(fleet), known.map_or_else(|| of_texts(fleet), |(_, names)| names)));
        let mut names = of_texts.clone();
        names.extend(fleet.backends.iter().map(|backend| backend.service.clone()));
        names
    }
}

fn of_texts(fleet: &FleetConfig) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = fleet.services.iter().map(|(name, _)| name.clone()).collect();
    // A document alone, without any proxy's file: it was checked that way before it was agreed on.
    let texts = FleetConfig { backends: Vec::new(), ..fleet.clone() };
    if let Ok(loaded) = ringway_config::check_fleet(&texts) {
        names.extend(loaded.config.services.iter().map(|service| service.name.clone()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::{FleetBackend, FleetText};

    #[test]
    fn services_are_the_fleets_by_text_by_name_and_by_backend() {
        let services = Services::default();
        let found = |fleet: &FleetConfig| services.of(&Arc::new(fleet.clone())).into_iter().collect::<Vec<_>>();
        let text = |name: &str, text: &str| FleetText { name: name.into(), text: text.into() };
        let document = text("main", "services: [ { name: a, backends: [ { id: x, address: \"127.0.0.1:1\" } ] } ]");
        let fleet = FleetConfig {
            documents: vec![document],
            services: vec![("b".into(), text("service/b", "no mapping"))],
            ..FleetConfig::default()
        };
        assert_eq!(found(&fleet), ["b"]);
        let whole = FleetConfig { services: Vec::new(), ..fleet };
        assert_eq!(found(&whole), ["a"]);
        let backend = FleetBackend {
            service: "c".into(),
            id: "y".into(),
            address: "127.0.0.1:2".into(),
            additional_address: None,
            weight: 100,
            tier: 0,
            zone: None,
            drain: false,
            maintenance: false,
        };
        let registered = FleetConfig { backends: vec![backend], ..whole.clone() };
        assert_eq!((found(&registered), found(&whole)), (vec!["a".into(), "c".into()], vec!["a".to_owned()]));
    }
}
