//! Changes that are rolled out: shown to every proxy, tried by some, and then everybody's or nobody's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Plant;
use super::clients::Record;
use super::disk::Random;
use super::world::World;
use crate::state::{Author, Backend, BackendState, Command, Key, Object, Op, Phase, Policy, Rollout, State, Text, Txn};
use crate::watch::view::View;

/// A leader that has just begun takes so long to know the fleet.
const FLEET_WAIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3);
/// For proxies to say yes, and to put it into force.
const DEADLINE_MS: u64 = 4_000;
/// When all is well, every rollout is over after this: two shares and their bakes, each with a deadline, and a leader that begins anew.
pub(super) const OVER_MAX: Duration = Duration::from_secs(50);

/// What the simulation needs to know of a change stands in its text, where the product reads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    number: u64,
    /// The proxy that says no to it.
    refused: Option<u64>,
    /// The proxy that says yes to it, and then cannot put it into force.
    stuck: Option<u64>,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (refused, stuck) = (self.refused.unwrap_or(0), self.stuck.unwrap_or(0));
        write!(f, "services: [ {{ name: s }} ]\n# {} {refused} {stuck}\n", self.number)
    }
}

impl Mark {
    fn read(object: Option<&Object>) -> Option<Self> {
        let Some(Object::Document(Text { text })) = object else { return None };
        let mut words = text.lines().last()?.strip_prefix("# ")?.split(' ').map(str::parse::<u64>);
        let mut next = || words.next()?.ok();
        let (number, refused, stuck) = (next()?, next()?, next()?);
        let proxy = |number: u64| (number > 0).then_some(number);
        Some(Self { number, refused: proxy(refused), stuck: proxy(stuck) })
    }

    pub(super) fn of(view: &View) -> Option<Self> {
        Self::read(view.objects.get(&document()).map(|object| &**object))
    }

    pub(super) fn is_refused_by(self, proxy: &str) -> bool {
        self.refused.is_some_and(|number| proxy == format!("p{number}"))
    }

    pub(super) fn is_stuck_at(self, proxy: &str) -> bool {
        self.stuck.is_some_and(|number| proxy == format!("p{number}"))
    }

    /// The change: a text, and a backend that goes with it.
    fn txn(self) -> Txn {
        let backend = Backend {
            address: "10.0.0.2:80".to_owned(),
            additional_address: None,
            weight: 100,
            tier: 0,
            zone: None,
            state: BackendState::Ready,
            ejected: false,
            lease: None,
            source: Some(format!("r{}", self.number)),
        };
        let text = Object::Document(Text { text: self.to_string() });
        Txn {
            by: Author::default(),
            request: None,
            conditions: Vec::new(),
            ops: vec![
                Op::Put { key: document(), object: text },
                Op::Put { key: backend_key(), object: Object::Backend(backend) },
            ],
            force: true,
        }
    }
}

fn document() -> Key {
    Key::Document("main".to_owned())
}

fn backend_key() -> Key {
    Key::Backend { service: "s".to_owned(), id: "rolled".to_owned() }
}

/// The mark of a rollout's change.
fn mark_of(rollout: &Rollout) -> Option<Mark> {
    rollout.txn.ops.iter().find_map(|op| match op {
        Op::Put { object, .. } => Mark::read(Some(object)),
        Op::Delete { .. } | Op::Backend { .. } => None,
    })
}

/// Shares that a rollout has come to, by the cluster's life and its number.
#[derive(Default)]
pub(super) struct Shares(BTreeMap<(u64, u64), u8>);

impl Shares {
    /// What a state says of rollouts: whether the change holds as a whole, and only where it may. What is wrong.
    pub(super) fn check(&mut self, era: u64, state: &State) -> Result<(), String> {
        let entry = state.objects.get(&document());
        let mark = Mark::read(state.object(&document()));
        let backend = match state.object(&backend_key()) {
            Some(Object::Backend(Backend { source: Some(source), .. })) => Some(source.clone()),
            _ => None,
        };
        if backend != mark.map(|mark| format!("r{}", mark.number)) {
            return Err(format!("half of a rollout holds: {mark:?} and {backend:?}"));
        }
        for (id, rollout) in state.rollouts.iter() {
            let own = mark_of(rollout).is_some_and(|own| Some(own) == mark);
            match &rollout.phase {
                Phase::Committed(revision) => {
                    check_votes(*id, rollout)?;
                    if own && entry.is_some_and(|entry| entry.modified != *revision) {
                        return Err(format!("rollout {id} holds since another revision than its own {revision}"));
                    }
                }
                phase if own => return Err(format!("rollout {id} is {phase:?}, and holds")),
                Phase::Stage(_) => {
                    let share = self.0.entry((era, *id)).or_default();
                    *share = rollout.threshold().max(*share);
                }
                Phase::Preparing | Phase::Aborted(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a proxy may have had the change in force before it was everybody's. What it builds may be of a life that is over.
    fn has(&self, id: u64, proxy: &str) -> bool {
        let shares = self.0.iter().filter(|((_, of), _)| *of == id);
        shares.map(|(_, share)| *share).any(|share| Rollout::in_cohort(id, proxy, share))
    }
}

/// Nobody has refused what holds, whatever became of the refusal, and enough have said yes.
fn check_votes(id: u64, rollout: &Rollout) -> Result<(), String> {
    let refused = mark_of(rollout).and_then(|mark| mark.refused).map(|number| format!("p{number}"));
    if let Some(proxy) = refused.filter(|proxy| rollout.votes.contains_key(proxy)) {
        return Err(format!("rollout {id} holds, and {proxy} has refused it"));
    }
    let wanted = (rollout.participants.len() * usize::from(rollout.policy.quorum_percent)).div_ceil(100);
    if rollout.votes.len() < wanted {
        return Err(format!("rollout {id} holds by {} votes of {wanted}", rollout.votes.len()));
    }
    Ok(())
}

impl World {
    /// A proxy puts something into force. `view`: what it knows, and what holds for all.
    pub(super) fn in_force(&self, proxy: &str, view: &View, applied: &View) {
        let (all, own) = (Mark::of(view), Mark::of(applied));
        if all == own {
            return;
        }
        let Some(rollout) = view.rollout.as_ref() else {
            return self.violation(format_args!("{proxy} has {own:?} in force, and knows of no rollout"));
        };
        self.count("changes tried by some");
        if !self.with_shares(|shares| shares.has(rollout.id, proxy)) {
            let id = rollout.id;
            self.violation(format_args!("{proxy} has the change of rollout {id}, and does not go first"));
        }
    }
}

impl Record {
    /// Rolls out one change after the other.
    pub(super) async fn rollouts(self, mut random: Random) {
        let mut restores = 0;
        for number in 1.. {
            sleep(Duration::from_millis(random.below(2_000))).await;
            if self.stopped() {
                return;
            }
            let Some(_busy) = self.begin(&mut restores) else { continue };
            let Some(life) = self.serving(&mut random) else { continue };
            let plane = Arc::clone(&life.plane);
            let live = self.ask(&life, FLEET_WAIT, async move { plane.live_proxies().await }).await;
            let Some(Ok(participants)) = live else { continue };
            let proxy = |random: &mut Random| Some(1 + random.below(3));
            let (refused, stuck) = match random.below(5) {
                _ if self.world.has(Plant::RefusalsLost) => (Some(1), None),
                0 => (proxy(&mut random), None),
                1 => (None, proxy(&mut random)),
                _ => (None, None),
            };
            let policy = Policy {
                stages_percent: [vec![], vec![34], vec![34, 67]][random.below(3) as usize].clone(),
                bake_ms: [0, 500, 5_000][random.below(3) as usize],
                deadline_ms: DEADLINE_MS,
                quorum_percent: [100, 60][random.below(2) as usize],
                ..Policy::default()
            };
            let start = Command::RolloutStart { txn: Mark { number, refused, stuck }.txn(), policy, participants };
            let plane = Arc::clone(&life.plane);
            let started = self.ask(&life, PATIENCE, async move { plane.propose(&start).await }).await;
            if matches!(started, Some(Ok(_))) {
                self.world.count("rollouts");
            }
        }
    }
}
