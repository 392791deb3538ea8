//! Services by their names.

use crate::diagnostic::{At, closest, listed};
use crate::findings::Findings;
use std::collections::HashMap;

/// So many unknown names are answered with the one that was meant.
const SUGGESTED_MAX: usize = 100;

/// The services' names.
pub(super) struct Names<'a> {
    pub(super) index: HashMap<&'a str, usize>,
    /// Every service could be read: a name that is not here is nobody's.
    pub(super) complete: bool,
}

/// The service that is meant; that there is none is a finding.
pub(super) fn service_index(at: &At<String>, services: &Names<'_>, findings: &mut Findings) -> Option<usize> {
    if let Some(&index) = services.index.get(at.value.as_str()) {
        return Some(index);
    }
    // Perhaps it is the one that could not be read: its own finding will do.
    if services.complete {
        // Where nothing fits anything, a search for each costs more than it helps.
        let few = findings.dangling.len() < SUGGESTED_MAX;
        let help = match few.then(|| closest(&at.value, services.index.keys().copied())) {
            None => "write one that stands below `services`".to_owned(),
            Some(Some(name)) => format!("write `{name}`"),
            Some(None) => {
                let mut names: Vec<&str> = services.index.keys().copied().collect();
                names.sort_unstable();
                format!("the services are {}", listed(&names))
            }
        };
        findings.dangling.push((at.place, at.value.clone()));
        findings.error(at.place, "dangling_service", format!("there is no service {:?}", at.value), help);
    }
    None
}
