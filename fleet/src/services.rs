//! Which services a fleet has a say in.

use ringway_config::FleetConfig;
use std::collections::BTreeSet;

/// Services whose rings are the fleet's business: those that its texts define, as far as names can be told without parsing
/// them, and those with registered backends.
pub(crate) fn fleet_services(fleet: &FleetConfig) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = fleet.services.iter().map(|(name, _)| name.clone()).collect();
    names.extend(fleet.backends.iter().map(|backend| backend.service.clone()));
    // A document alone, without any proxy's file: it was checked that way before it was agreed on.
    if let Ok(loaded) = ringway_config::check_fleet(fleet) {
        names.extend(loaded.config.services.into_iter().map(|service| service.name.clone()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::FleetText;

    #[test]
    fn services_are_the_fleets_by_text_by_name_and_by_backend() {
        let text = |name: &str, text: &str| FleetText { name: name.into(), text: text.into() };
        let document = text("main", "services: [ { name: a, backends: [ { id: x, address: \"127.0.0.1:1\" } ] } ]");
        let fleet = FleetConfig {
            documents: vec![document],
            services: vec![("b".into(), text("service/b", "no mapping"))],
            ..FleetConfig::default()
        };
        let found: Vec<String> = fleet_services(&fleet).into_iter().collect();
        assert!(found.contains(&"b".to_owned()), "{found:?}");
        let whole = FleetConfig { services: Vec::new(), ..fleet };
        assert_eq!(fleet_services(&whole).into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
