//! Where backends are found: sources that the leader looks at, and that register what they find, so that every proxy places
//! keys over one agreed set. A source changes and removes what it has registered itself, and nothing else.
//!
//! What a source cannot see is no news: a name server that is away, an empty answer, a file that is wrong leave things as they
//! are. Losing more than the guards allow at once is believed only after it has been so for a while.

mod directory;
mod dns;
mod etcd;
mod seen;

use self::seen::Seen;
use crate::consensus::Role;
use crate::plane::{Plane, unix_ms};
use crate::state::{Author, Backend, BackendState, Command, Key, Object, Op, RULES_TWO_ADDRESSES, State, Txn};
use ringway_config::FleetBackend;
use ringway_config::model::{Source, SourceKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a member that does not lead looks whether it does.
const IDLE: Duration = Duration::from_millis(500);
/// A loss that the guards refuse is believed when the source has said so for this long.
const BELIEVE_AFTER: Duration = Duration::from_secs(30);
/// Changes in one entry of the log.
const OPS_MAX: usize = 1000;

/// Something that can be looked at.
enum Looker {
    Dns(Box<dns::Names>),
    Directory(directory::Files),
    Etcd(Box<etcd::Keys>),
}

impl Looker {
    fn new(kind: &SourceKind) -> Result<Self, String> {
        Ok(match kind {
            SourceKind::Dns(settings) => Self::Dns(Box::new(dns::Names::new(settings.clone())?)),
            SourceKind::Directory(path) => Self::Directory(directory::Files::new(path.clone())),
            SourceKind::Etcd(settings) => Self::Etcd(Box::new(etcd::Keys::new(settings)?)),
        })
    }

    /// `Err`: nothing can be seen, and why.
    async fn look(&mut self) -> Result<Seen, (String, Duration)> {
        match self {
            Self::Dns(names) => names.look().await,
            Self::Directory(files) => files.look(),
            Self::Etcd(keys) => keys.look().await,
        }
    }

    /// Lets backends that are registered already keep their ids, where the source itself cannot tell.
    fn keep_ids(&self, found: &mut [FleetBackend], state: &State, source: &str) {
        let Self::Dns(names) = self else { return };
        let known = state.objects.iter().filter_map(|(key, entry)| match (key, &*entry.object) {
            (Key::Backend { id, .. }, Object::Backend(known)) if known.source.as_deref() == Some(source) => {
                Some((id.as_str(), known))
            }
            _ => None,
        });
        names.keep_ids(found, known);
    }

    /// Until it is worth looking again, at most so long.
    async fn wait(&mut self, most: Duration) {
        match self {
            Self::Dns(_) => tokio::time::sleep(most).await,
            Self::Directory(files) => files.wait(most).await,
            Self::Etcd(keys) => keys.wait(most).await,
        }
    }
}

/// Follows one source for as long as it is polled.
pub(crate) async fn follow(plane: Arc<Plane>, source: Source) {
    let name = source.name.as_str();
    let mut looker = loop {
        match Looker::new(&source.kind) {
            Ok(looker) => break looker,
            Err(error) => {
                tracing::error!(source = name, error, "a source cannot be set up");
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        }
    };
    let mut told = String::new();
    let mut refused: Option<Instant> = None;
    loop {
        if plane.status().role != Role::Leader {
            refused = None;
            tokio::time::sleep(IDLE).await;
            continue;
        }
        let again = match looker.look().await {
            Ok(mut seen) => {
                told.clear();
                looker.keep_ids(&mut seen.backends, &plane.state(), name);
                let force = refused.is_some_and(|since| since.elapsed() >= BELIEVE_AFTER);
                match register(&plane, name, &seen.backends, force).await {
                    Ok(changed) => {
                        refused = None;
                        if changed > 0 {
                            tracing::info!(source = name, changed, "backends have changed");
                        }
                    }
                    Err(error) => {
                        if refused.is_none() {
                            tracing::warn!(source = name, error, "what a source says is not taken, for now");
                        }
                        refused.get_or_insert_with(Instant::now);
                    }
                }
                if refused.is_some() { seen.again.min(BELIEVE_AFTER / 3) } else { seen.again }
            }
            Err((error, again)) => {
                if error != told {
                    tracing::warn!(source = name, error, "a source cannot be seen: what it said before stays");
                    told = error;
                }
                again
            }
        };
        looker.wait(again).await;
    }
}

async fn register(plane: &Plane, source: &str, found: &[FleetBackend], force: bool) -> Result<usize, String> {
    let state = plane.state();
    let ops = difference(&state, source, found);
    let count = ops.len();
    for part in ops.chunks(OPS_MAX) {
        let by = Author { at_ms: unix_ms(), author: format!("source {source}"), note: String::new() };
        let txn = Txn { by, request: None, conditions: Vec::new(), ops: part.to_vec(), force };
        match plane.propose(&Command::Txn(txn)).await {
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(count)
}

/// What makes the source's part of the state what the source says.
fn difference(state: &State, source: &str, found: &[FleetBackend]) -> Vec<Op> {
    let mut wanted: BTreeMap<Key, Backend> = BTreeMap::new();
    let has_second = state.rules >= RULES_TWO_ADDRESSES;
    for backend in found {
        let key = Key::Backend { service: backend.service.clone(), id: backend.id.clone() };
        // A name that no object may have would spoil the whole transaction.
        if key.to_string().parse::<Key>().is_err() {
            tracing::warn!(source, %key, "a backend is left out: its name is none");
            continue;
        }
        let known = match state.object(&key) {
            Some(Object::Backend(known)) => Some(known),
            _ => None,
        };
        // Somebody else's of the same name stays theirs.
        if known.is_some_and(|known| known.source.as_deref() != Some(source)) {
            continue;
        }
        let state = match (backend.maintenance, backend.drain, known) {
            (true, _, _) => BackendState::Maintenance,
            (false, true, _) => BackendState::Drain,
            // An operator's wish outlives what the source says.
            (false, false, Some(known)) => known.state,
            (false, false, None) => BackendState::Ready,
        };
        wanted.insert(
            key,
            Backend {
                address: backend.address.clone(),
                // Until all members know what a second one is, there is the first.
                additional_address: backend.additional_address.clone().filter(|_| has_second),
                weight: backend.weight,
                tier: backend.tier,
                zone: backend.zone.clone(),
                state,
                ejected: known.is_some_and(|known| known.ejected),
                lease: None,
                source: Some(source.to_owned()),
            },
        );
    }
    let mut ops = Vec::new();
    // What comes first: a service is never empty in between.
    for (key, backend) in &wanted {
        let object = Object::Backend(backend.clone());
        if state.object(key) != Some(&object) {
            ops.push(Op::Put { key: key.clone(), object });
        }
    }
    for (key, entry) in state.objects.iter() {
        if let Object::Backend(backend) = &*entry.object
            && backend.source.as_deref() == Some(source)
            && !wanted.contains_key(key)
        {
            ops.push(Op::Delete { key: key.clone() });
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Origin;

    fn found(id: &str, address: &str) -> FleetBackend {
        FleetBackend {
            service: "api".into(),
            id: id.into(),
            address: address.into(),
            additional_address: None,
            weight: 100,
            tier: 0,
            zone: None,
            drain: false,
            maintenance: false,
        }
    }

    fn apply(state: &mut State, ops: Vec<Op>) {
        let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops, force: true };
        state.apply(Origin { leader: 1 }, Command::Txn(txn)).unwrap();
    }

    #[test]
    fn a_source_changes_what_is_its_own_and_nothing_else() {
        let mut state = State::default();
        let by_hand: Backend = serde_json::from_str("{\"address\":\"10.0.0.9:1\"}").unwrap();
        apply(&mut state, vec![Op::Put { key: "backend/api/hand".parse().unwrap(), object: Object::Backend(by_hand) }]);
        let ops =
            difference(&state, "s", &[found("a", "10.0.0.1:1"), found("b", "10.0.0.2:1"), found("hand", "1.1.1.1:1")]);
        apply(&mut state, ops);
        assert_eq!(state.objects.size(), 3);
        // Drained by an operator: it stays so when its address changes.
        let drain =
            Op::Backend { key: "backend/api/a".parse().unwrap(), weight: None, state: Some(BackendState::Drain) };
        apply(&mut state, vec![drain]);
        assert_eq!(difference(&state, "s", &[found("a", "10.0.0.1:1"), found("b", "10.0.0.2:1")]), []);
        let ops = difference(&state, "s", &[found("a", "10.0.0.7:1"), found("bad name", "10.0.0.2:1")]);
        apply(&mut state, ops);
        let left: Vec<String> = state.objects.keys().map(ToString::to_string).collect();
        assert_eq!(left, ["backend/api/a", "backend/api/hand"]);
        let Some(Object::Backend(a)) = state.object(&"backend/api/a".parse().unwrap()) else { panic!() };
        assert_eq!((a.address.as_str(), a.state), ("10.0.0.7:1", BackendState::Drain));
        assert_eq!(difference(&state, "other", &[]), [], "another source has nothing here");
        // A second address, which is left out until all members know what it is.
        let mut two = found("a", "10.0.0.7:1");
        two.additional_address = Some("[fd00::7]:1".into());
        assert_eq!(difference(&state, "s", &[two.clone()]), []);
        state.rules = RULES_TWO_ADDRESSES;
        let ops = difference(&state, "s", &[two]);
        let [Op::Put { object: Object::Backend(a), .. }] = &*ops else { panic!("{ops:?}") };
        assert_eq!((a.additional_address.as_deref(), a.state), (Some("[fd00::7]:1"), BackendState::Drain));
    }
}
