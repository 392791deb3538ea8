//! Windows in which keys that a change of a service has moved are handed over: who had them before, and since when.
//!
//! A version of a service has the windows of the version before it, and one more if it places keys otherwise. Where keys belong is looked up in
//! orders that are made of the configuration alone, as `ringway plan` does: a backend that is down, or ramps, moves no key from window to window.

use super::handoff_placement::Placement;
use crate::ambient;
use crate::planted::{self, Fault};
use ringway_config::model;
use ringway_ring::{
    BackendSet, BuildError, HandedKeys, HandoffRamp, HandoffTurn, Hash, HeldShare, KeysUnderWay, Published,
    RefusedKeys, Slot,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Changes under way at once, each with a mebibyte of keys once one has been handed over.
const WINDOWS_MAX: usize = 8;
/// A change that comes within such a part of the last one's window has the time of that one: a fleet grows backend by backend.
const TOGETHER_WITHIN: u32 = 8;

/// One change under way.
#[derive(Debug)]
pub(crate) struct Window {
    before: Arc<Placement>,
    /// When it was opened here, and how old the change was by then.
    opened: Instant,
    head_start: Duration,
    length: Duration,
    /// When the change was made, in Unix milliseconds.
    since_millis: u64,
    /// Made for the first of them.
    handed: OnceLock<HandedKeys>,
    /// Of which a copy brought nothing lately. Made for the first of them.
    refused: OnceLock<RefusedKeys>,
    /// Those of which a copy is under way.
    pub(super) copying: KeysUnderWay,
    /// Members of before, in their order, that could not be asked at some time since: what they had has gone to others, and does not go back.
    gone: Box<[AtomicBool]>,
}

/// A window as a version has it: slots of before as the slots of now; those of backends that are gone are none.
#[derive(Debug)]
struct Open {
    window: Arc<Window>,
    slots: Box<[Option<Slot>]>,
}

/// What a version of a service hands over.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    /// There is a window: all that a request looks at where there is none.
    is_open: AtomicBool,
    /// Newest first.
    windows: Published<Vec<Open>>,
    /// None where nothing is handed over.
    placement: Option<Arc<Placement>>,
}

/// A key that is being handed over.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Whose its next request is.
    pub(crate) turn: HandoffTurn,
    /// Who has had it, and how much of the load this one may carry as long as keys go over.
    pub(crate) previous: (Slot, HeldShare),
    /// Who is to have it.
    pub(crate) next: Slot,
    /// Where it is told, where it may be handed over by this request.
    pub(crate) window: Option<Arc<Window>>,
}

impl Window {
    /// Of a change that has the time of one before it.
    fn beside(&self, before: Arc<Placement>) -> Self {
        Self { since_millis: self.since_millis, ..Self::new(before, self.length, (self.head_start, self.opened)) }
    }

    fn new(before: Arc<Placement>, length: Duration, (age, now): (Duration, Instant)) -> Self {
        let since_millis = ambient::unix_millis().saturating_sub(age.as_millis() as u64);
        let gone = before.members.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            before,
            opened: now,
            head_start: age,
            length,
            since_millis,
            handed: OnceLock::new(),
            refused: OnceLock::new(),
            copying: KeysUnderWay::default(),
            gone,
        }
    }

    /// Remembers which of those that were there before have gone, or are taken away, in a version that follows.
    fn note_gone(&self, now: &Placement, service: &model::Service) {
        let is_away = |id: &str| {
            now.slot_of(id).is_none() || service.backends.iter().any(|backend| backend.id == id && backend.maintenance)
        };
        for (member, gone) in self.before.members.iter().zip(&self.gone) {
            if is_away(&member.id) {
                gone.store(true, Relaxed);
            }
        }
    }

    /// Whether one that had gone is there again.
    fn has_returned(&self, now: &Placement) -> bool {
        let mut members = self.before.members.iter().zip(&self.gone);
        members.any(|(member, gone)| gone.load(Relaxed) && now.slot_of(&member.id).is_some())
    }

    /// Whether the key has been handed over.
    pub(super) fn has_handed(&self, hash: Hash) -> bool {
        self.handed.get().is_some_and(|handed| handed.contains(hash))
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened) + self.head_start
    }

    fn is_over(&self, now: Instant) -> bool {
        self.elapsed(now) >= self.length
    }

    fn until(&self) -> Instant {
        self.opened + self.length.saturating_sub(self.head_start)
    }

    fn ramp(&self, now: Instant) -> HandoffRamp {
        HandoffRamp::at(self.elapsed(now), self.length)
    }

    /// Whether a copy of a request of the key is under way.
    pub(crate) fn is_copying(&self, hash: Hash) -> bool {
        self.copying.contains(hash)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.opened).as_millis() as u64
    }

    /// Whether the key's next copy waits, since the last ones brought nothing.
    pub(crate) fn waits(&self, hash: Hash, now: Instant) -> bool {
        self.refused.get().is_some_and(|refused| refused.waits(hash, self.millis(now)))
    }

    /// A copy of a request of the key has brought nothing.
    pub(super) fn refuse(&self, hash: Hash, now: Instant) {
        self.refused.get_or_init(RefusedKeys::default).refuse(hash, self.millis(now));
    }

    /// The key is handed over. `false`: it has been, perhaps just now.
    pub(crate) fn hand_over(&self, hash: Hash) -> bool {
        self.handed.get_or_init(HandedKeys::default).insert(hash)
    }
}

impl Open {
    fn new(window: Arc<Window>, now: &Placement) -> Self {
        let slots = window.before.members.iter().map(|member| now.slot_of(&member.id)).collect();
        Self { window, slots }
    }

    /// Who had a key before, if that has been there ever since, and its share of the load then.
    #[inline]
    fn before(&self, hash: Hash) -> Option<(Slot, f64)> {
        let slot = usize::from(self.window.before.set.taker(hash)?.0);
        if self.window.gone[slot].load(Relaxed) {
            return None;
        }
        Some((self.slots[slot]?, self.window.before.members[slot].share))
    }
}

/// The window of a change: with the time of the last one, if it comes soon after that and brings nobody back. Who has had a key, and which
/// have gone over, is its own in any case: a key that has gone over is with the backend that it went to.
fn open_window(
    under_way: &[Arc<Window>],
    old: Arc<Placement>,
    placement: &Placement,
    (length, age, now): (Duration, Duration, Instant),
) -> Window {
    let is_soon = |newest: &&Arc<Window>| {
        newest.elapsed(now).saturating_sub(age) < newest.length / TOGETHER_WITHIN && !newest.has_returned(placement)
    };
    if let Some(newest) = under_way.first().filter(is_soon) {
        return newest.beside(old);
    }
    // No change is over before those that came before it: where their keys are is told by all of them.
    let others = under_way.iter().map(|window| window.until().saturating_duration_since(now) + age);
    Window::new(old, others.fold(length, Duration::max), (age, now))
}

impl Handoff {
    /// Of a version that is prepared. `before`: the set of the one in force.
    pub(super) fn prepare(before: Option<&BackendSet>, config: &model::Service) -> Result<Self, BuildError> {
        // Clients whose cookies are keys stay where they are.
        let handoff = config.handoff.as_ref().filter(|_| config.affinity_cookie.is_none());
        let placement = handoff.map(|_| Placement::build(before, config)).transpose()?;
        Ok(Self { placement: placement.map(Arc::new), ..Self::default() })
    }

    /// Whether keys are being handed over.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// Takes over from the version before: its windows go on, and where keys belong elsewhere since a change of this age, another opens.
    /// `true`: one has. `before`: what that version was made of.
    pub(super) fn succeed(
        &self,
        before: &Self,
        (set, old): (&BackendSet, &model::Service),
        new: &model::Service,
        (age, now): (Duration, Instant),
    ) -> bool {
        let (Some(config), Some(placement)) = (&new.handoff, &self.placement) else { return false };
        // Of other keys, nobody has had any.
        if old.hash_key != new.hash_key || old.policy.seed() != new.policy.seed() || !old.policy.hashes() {
            return false;
        }
        let known = before.placement.as_ref().map(Arc::clone);
        let Some(old) = known.or_else(|| Placement::build(Some(set), old).ok().map(Arc::new)) else { return false };
        let under_way = before.windows.load();
        let is_over = under_way.first().is_none_or(|newest| newest.window.is_over(now));
        let kept = under_way.iter().filter(|_| !is_over);
        let mut windows: Vec<Arc<Window>> = kept.map(|open| Arc::clone(&open.window)).collect();
        windows.iter().for_each(|window| window.note_gone(placement, new));
        let moves = !old.places_alike(placement) && old.set.taker(0).is_some();
        if moves && age >= config.window {
            let (service, seconds) = (&new.name, age.as_secs());
            tracing::warn!(
                service,
                seconds,
                "hand-off: by this clock the change is older than the window: its keys move at once"
            );
        }
        let opens = moves && age < config.window;
        if opens {
            let window = open_window(&windows, old, placement, (config.window, age, now));
            window.note_gone(placement, new);
            windows.insert(0, Arc::new(window));
            if windows.get(WINDOWS_MAX).is_some_and(|first| !first.is_over(now)) {
                let service = &new.name;
                tracing::warn!(
                    service,
                    "hand-off: {WINDOWS_MAX} changes are under way since: what the first one has not handed over moves at once"
                );
            }
            windows.truncate(WINDOWS_MAX);
        }
        self.put(windows.into_iter().map(|window| Open::new(window, placement)).collect());
        opens
    }

    /// As [`Handoff::succeed`], of a process that has just started: what its service was before changes of these ages is known, newest first, but
    /// not which keys have gone over since.
    pub(super) fn recall(
        &self,
        before: &[(Arc<model::Service>, Duration)],
        new: &Arc<model::Service>,
        now: Instant,
    ) -> bool {
        let Some(handoff) = &new.handoff else { return false };
        let mut versions = vec![(Arc::clone(new), Duration::ZERO)];
        versions.extend(before.iter().take_while(|(_, age)| *age < handoff.window).cloned());
        versions.reverse();
        let placed = |service: &model::Service| -> Option<Self> {
            let placement = Placement::build(None, service).ok()?;
            Some(Self { placement: Some(Arc::new(placement)), ..Self::default() })
        };
        let mut opened = false;
        let mut last = None;
        for pair in versions.windows(2) {
            let [(old, age), (next, _)] = pair else { break };
            let Some(known) = last.take().or_else(|| placed(old)) else { return opened };
            let Some(placement) = known.placement.as_ref().map(Arc::clone) else { return opened };
            let of_known = (&placement.set, &**old);
            if Arc::ptr_eq(next, new) {
                opened = self.succeed(&known, of_known, next, (*age, now));
            } else if let Some(this) = placed(next) {
                this.succeed(&known, of_known, next, (*age, now));
                last = Some(this);
            }
        }
        opened || self.is_open()
    }

    fn put(&self, windows: Vec<Open>) {
        let is_open = !windows.is_empty();
        self.windows.store(Arc::new(windows));
        self.is_open.store(is_open, Relaxed);
    }

    /// Gives all of it back: another version goes on.
    pub(super) fn close(&self) {
        if self.is_open() {
            self.put(Vec::new());
        }
    }

    /// What is being done with a key. `None`: no change under way has moved it, or who had it is gone. `changes`: the request may change
    /// something, and hand the key over before its time.
    pub(crate) fn look(&self, hash: Hash, now: Instant, changes: bool) -> Option<Moving> {
        let next = self.placement.as_ref()?.set.taker(hash)?;
        self.windows.with(|windows| {
            let (mut moves, mut held): (Option<&Open>, Option<(Slot, f64)>) = (None, None);
            for open in windows.iter() {
                let before = open.before(hash);
                let slot = before.map(|(slot, _)| slot);
                match moves {
                    None if open.window.is_over(now) => {}
                    None if slot != Some(next) => (moves, held) = (Some(open), before),
                    None => {}
                    // Whoever had it before that has gone since, and it has gone from there.
                    Some(_) if before.is_none() => break,
                    Some(_) if slot == held.map(|(slot, _)| slot) => {}
                    // An earlier change has moved it there too, but it has not been handed over: it is where it was.
                    Some(_) if !open.window.has_handed(hash) => held = before,
                    Some(_) => break,
                }
            }
            let (window, (previous, share)) = (&moves?.window, held?);
            let ramp = window.ramp(now);
            let is_late = || window.elapsed(now) * 2 > window.length;
            let has_handed = window.has_handed(hash) && !(is_late() && planted::is_planted(Fault::HandedKeyForgotten));
            let turn = HandoffTurn::of(hash, ramp, has_handed);
            let may_be_told = turn == HandoffTurn::First || changes && turn == HandoffTurn::Previous;
            let window = may_be_told.then(|| Arc::clone(window));
            let held = HeldShare { before: share, left: 1.0 - ramp.share() };
            (previous != next).then_some(Moving { turn, previous: (previous, held), next, window })
        })
    }

    /// A backend could not be asked for a key that it had: its keys are others' from now on.
    #[cold]
    pub(crate) fn handle_lost(&self, previous: Slot) {
        self.windows.with(|windows| {
            for open in windows.iter() {
                let of_it = open.slots.iter().zip(&open.window.gone).filter(|(slot, _)| **slot == Some(previous));
                of_it.for_each(|(_, gone)| gone.store(true, Relaxed));
            }
        });
    }

    /// Closes the windows once the newest is over, which is the last of them. Gives how many were closed, and when they will be.
    pub(crate) fn poll(&self, now: Instant) -> (usize, Option<Instant>) {
        if !self.is_open() {
            return (0, None);
        }
        let windows = self.windows.load();
        match windows.first().filter(|newest| !newest.window.is_over(now)) {
            Some(newest) => (0, Some(newest.window.until())),
            None if planted::is_planted(Fault::HandoffKept) => (0, None),
            None => {
                self.put(Vec::new());
                (windows.len(), None)
            }
        }
    }

    /// Share of the moved keys that may be handed over by now, of the newest change; 1 where none is under way.
    pub(crate) fn progress(&self, now: Instant) -> f64 {
        self.windows.with(|windows| windows.first().map_or(1.0, |open| open.window.ramp(now).share()))
    }

    /// Its windows, without keeping them.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> Vec<std::sync::Weak<Window>> {
        self.windows.with(|windows| windows.iter().map(|open| Arc::downgrade(&open.window)).collect())
    }

    /// The changes under way, newest first, as the status shows them.
    pub(crate) fn json(&self, now: Instant) -> Vec<Value> {
        let windows = self.windows.load();
        let window = |Open { window, .. }: &Open| {
            json!({
                "since": window.since_millis as f64 / 1e3,
                "until": (window.since_millis as f64 + window.length.as_secs_f64() * 1e3) / 1e3,
                "progress": window.ramp(now).share(),
                "filter_fill": window.handed.get().map_or(0.0, HandedKeys::fill),
                "copies_in_flight": window.copying.count(),
            })
        };
        windows.iter().filter(|open| !open.window.is_over(now)).map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::handoff_copy::CopyOfKey;
    use crate::snapshot::{Registry, Service, Snapshot};
    use ringway_ring::{CopyPlace, PreviousOwner};

    const WINDOW: Duration = Duration::from_secs(80);

    /// Versions of one service, one after the other.
    struct Versions {
        registry: Registry,
        generation: u64,
        start: Instant,
        in_force: Option<Snapshot>,
    }

    impl Versions {
        fn new() -> Self {
            Self { registry: Registry::default(), generation: 0, start: ambient::now(), in_force: None }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Puts the next one into force, so long after the start. Whether it opens a window.
        fn put(&mut self, seconds: u64, age: u64, backends: &[&str]) -> bool {
            self.put_with(seconds, age, "hash_key: [ { path: {} } ]", backends)
        }

        fn put_with(&mut self, seconds: u64, age: u64, balance: &str, backends: &[&str]) -> bool {
            self.put_of(("80s", balance), seconds, age, backends)
        }

        fn put_for(&mut self, window: &str, seconds: u64, backends: &[&str]) -> bool {
            self.put_of((window, "hash_key: [ { path: {} } ]"), seconds, 0, backends)
        }

        fn put_of(&mut self, (window, balance): (&str, &str), seconds: u64, age: u64, backends: &[&str]) -> bool {
            let port = |fields: &str| u32::from(fields.as_bytes()[4]);
            let backends: Vec<String> = backends
                .iter()
                .map(|fields| format!("{{ {fields}, address: \"127.0.0.1:{}\" }}", port(fields)))
                .collect();
            let text = format!(
                "listeners: [ {{ name: web, address: \"127.0.0.1:0\", service: s }} ]\n\
                 services: [ {{ name: s, balance: {{ {balance} }}, handoff: {{ window: {window} }}, backends: [ {} ] }} ]\n",
                backends.join(", ")
            );
            let config =
                ringway_config::load_str("t.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).config;
            self.generation += 1;
            let (now, age) = (self.at(seconds), Duration::from_secs(age));
            let snapshot = self.registry.prepare(Arc::new(config), self.generation, 1, now).unwrap();
            let opened = self.registry.hand_over(&snapshot, age, now);
            self.registry.commit(&snapshot, now);
            self.registry.settle(&snapshot);
            self.in_force = Some(snapshot);
            !opened.is_empty()
        }

        fn service(&self) -> &Service {
            &self.in_force.as_ref().unwrap().services[0]
        }

        /// From whom to whom each of many keys is being handed over, at that time.
        fn moving(&self, seconds: u64) -> Vec<Option<(String, String, HandoffTurn)>> {
            let service = self.service();
            let id = |slot: Slot| service.backends[usize::from(slot.0)].config.id.clone();
            let look = |hash| service.handoff.look(hash, self.at(seconds), false);
            let told = |moving: Moving| (id(moving.previous.0), id(moving.next), moving.turn);
            keys().map(|hash| look(hash).map(told)).collect()
        }

        fn windows(&self) -> usize {
            self.service().handoff.json(self.start).len()
        }
    }

    fn keys() -> impl Iterator<Item = Hash> {
        (0..2_000_u64).map(|number| ringway_ring::hash_key(&number.to_le_bytes(), 0))
    }

    const AB: [&str; 2] = ["id: a", "id: b"];
    const ABC: [&str; 3] = ["id: a", "id: b", "id: c"];

    #[test]
    fn a_backend_that_joins_gets_keys_of_all_others_and_no_other_key_is_looked_after() {
        let mut versions = Versions::new();
        assert!(!versions.put(0, 0, &AB) && !versions.service().handoff.is_open(), "nobody had anything before");
        assert!(versions.put(1, 0, &ABC) && versions.service().handoff.is_open());
        let moving = versions.moving(1);
        let moved = moving.iter().flatten().count();
        assert!((400..900).contains(&moved), "{moved}");
        assert!(moving.iter().flatten().all(|(previous, next, _)| next == "c" && previous != "c"));
        for (hash, moving) in keys().zip(&moving) {
            let owner = versions.service().backend_set.owner(hash).unwrap();
            assert_eq!(moving.is_some(), owner == Slot(2));
        }
        // By the middle, half of them may go; at the end there is nothing to look after.
        let first =
            versions.moving(41).into_iter().flatten().filter(|(_, _, turn)| *turn == HandoffTurn::First).count();
        assert!((0.45..0.6).contains(&(first as f64 / moved as f64)), "{first} of {moved}");
        assert!(versions.moving(81).iter().all(Option::is_none));
        assert_eq!(versions.service().handoff.poll(versions.at(80)), (0, Some(versions.at(81))));
        assert_eq!(versions.service().handoff.poll(versions.at(81)), (1, None));
        assert!(!versions.service().handoff.is_open() && versions.windows() == 0);
    }

    #[test]
    fn the_filter_is_given_back_at_the_end_and_the_version_before_keeps_nothing() {
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        versions.put(1, 0, &ABC);
        let window = versions.service().handoff.windows.with(|windows| Arc::downgrade(&windows[0].window));
        let before = Arc::clone(&versions.in_force.as_ref().unwrap().services[0]);
        // Another version has it now.
        versions.put_with(2, 0, "hash_key: [ { path: {} } ], points: 256, bounded_load: { factor: 2.0 }", &ABC);
        assert!(!before.handoff.is_open() && versions.windows() == 1);
        assert!(window.upgrade().is_some());
        versions.service().handoff.poll(versions.at(81));
        assert!(window.upgrade().is_none());
    }

    #[test]
    fn drains_and_weights_move_keys_and_who_is_gone_is_nobodys_previous_owner() {
        let mut versions = Versions::new();
        versions.put(0, 0, &ABC);
        assert!(versions.put(1, 0, &["id: a", "id: b", "id: c, drain: true"]));
        assert!(versions.moving(1).iter().flatten().all(|(previous, next, _)| previous == "c" && next != "c"));
        assert!(versions.service().may_ask_again(Slot(2)));
        // Gone: its keys are where they are.
        versions.put(30, 0, &AB);
        assert!(versions.moving(30).iter().all(Option::is_none));
        let mut versions = Versions::new();
        versions.put(0, 0, &ABC);
        assert!(versions.put(1, 0, &["id: a", "id: b", "id: c, weight: 50"]));
        let moving = versions.moving(1);
        assert!(moving.iter().flatten().count() > 100);
        assert!(moving.iter().flatten().all(|(previous, ..)| previous == "c"));
        assert!(versions.put(50, 0, &["id: a", "id: b", "id: c, maintenance: true"]));
        assert!(!versions.service().may_ask_again(Slot(2)));
    }

    #[test]
    fn changes_one_after_the_other_are_one_and_a_later_one_hands_over_from_whoever_has_the_key() {
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        assert!(versions.put(1, 0, &ABC));
        let of_c = versions.moving(9);
        assert!(versions.put(9, 0, &["id: a", "id: b", "id: c", "id: d"]) && versions.windows() == 2);
        // Nothing has gone over: all are where they were at first, and their time is that of the first change.
        let (of_both, mut only_alone) = (versions.moving(9), 0);
        assert!(of_both.iter().flatten().all(|(previous, ..)| previous == "a" || previous == "b"));
        for (both, alone) in of_both.iter().zip(&of_c) {
            if let (Some((.., next, turn)), Some((.., of_c))) = (both, alone) {
                assert_eq!(turn, of_c);
                only_alone += u32::from(next == "d");
            }
        }
        assert!(only_alone > 0, "d gets what c was to have");
        // What has been handed over to c or d by now, and what has not, when e comes.
        let handed: Vec<bool> =
            versions.moving(39).iter().map(|moving| matches!(moving, Some((_, _, HandoffTurn::First)))).collect();
        for (hash, _) in keys().zip(&handed).filter(|(_, handed)| **handed) {
            let moving = versions.service().handoff.look(hash, versions.at(39), false).expect("it is moving");
            assert!(moving.window.expect("it may go over").hand_over(hash));
        }
        let before = versions.moving(40);
        let placed: Vec<String> = keys()
            .map(|hash| versions.service().backend_set.owner(hash).unwrap())
            .map(|slot| ["a", "b", "c", "d"][usize::from(slot.0)].to_owned())
            .collect();
        assert!(versions.put(40, 0, &["id: a", "id: b", "id: c", "id: d", "id: e"]) && versions.windows() == 3);
        let mut from_new = 0;
        for ((after, before), (owner, handed)) in
            versions.moving(40).iter().zip(&before).zip(placed.iter().zip(&handed))
        {
            let Some((previous, next, _)) = after.as_ref().filter(|(_, next, _)| next == "e") else {
                // What e does not get goes on as it did.
                assert_eq!(after, before);
                continue;
            };
            let has_it = match before {
                Some((previous, ..)) if !handed => previous,
                _ => owner,
            };
            assert_eq!((previous, next.as_str()), (has_it, "e"));
            from_new += usize::from(owner != "a" && owner != "b" && *handed);
        }
        assert!(from_new > 0);
        // The first one is over in its time; but what it had not handed over is where it was before it, not where it would have gone.
        let (at_the_end, after) = (versions.moving(80), versions.moving(82));
        let held = |moving: &[Option<(String, String, HandoffTurn)>]| -> Vec<Option<String>> {
            let to_e = moving.iter().map(|moving| moving.as_ref().filter(|(_, next, _)| next == "e"));
            to_e.map(|moving| moving.map(|(previous, ..)| previous.clone())).collect()
        };
        assert_eq!(held(&at_the_end), held(&after));
        assert!(after.iter().flatten().all(|(_, next, _)| next == "e"));
        assert_eq!(versions.windows(), 3);
        assert_eq!(versions.service().handoff.poll(versions.at(81)), (0, Some(versions.at(120))));
        assert_eq!(versions.service().handoff.poll(versions.at(120)), (3, None));
    }

    #[test]
    fn a_key_that_has_gone_over_is_with_the_backend_it_went_to_however_soon_the_next_change_comes() {
        let abcd = ["id: a", "id: b", "id: c", "id: d"];
        for (now, then) in [(&ABC[..], &abcd[..]), (&["id: a", "id: b, drain: true", "id: c"], &ABC)] {
            let mut versions = Versions::new();
            let first = if then.len() == 4 { &AB[..] } else { &ABC };
            versions.put(0, 0, first);
            versions.put(1, 0, now);
            let mut went = std::collections::BTreeMap::new();
            for hash in keys() {
                let Some(moving) = versions.service().handoff.look(hash, versions.at(3), false) else { continue };
                if let Some(window) = moving.window.filter(|_| moving.turn == HandoffTurn::First) {
                    assert!(window.hand_over(hash));
                    let id = versions.service().backends[usize::from(moving.next.0)].config.id.clone();
                    went.insert(hash, id);
                }
            }
            versions.put(3, 0, then);
            let mut moved = 0;
            for (hash, moving) in keys().zip(versions.moving(3)) {
                let Some(holder) = went.get(&hash) else { continue };
                let service = versions.service();
                let owner = &service.backends[usize::from(service.backend_set.owner(hash).unwrap().0)].config.id;
                match moving {
                    Some((_, next, HandoffTurn::Next)) => assert_eq!((&next, holder), (owner, owner)),
                    Some((previous, next, _)) => {
                        assert_eq!((&previous, &next), (holder, owner));
                        moved += 1;
                    }
                    // Whoever has it goes on, or there is nobody to ask.
                    None => assert!(owner == holder || service.backends.iter().all(|known| known.config.id != *holder)),
                }
            }
            assert!(moved > 0, "{now:?} {then:?}");
        }
    }

    #[test]
    fn many_changes_at_once_end_the_first_one_and_each_has_its_time() {
        let mut versions = Versions::new();
        versions.put(0, 0, &["id: a", "id: b"]);
        for change in 1..=WINDOWS_MAX as u64 + 1 {
            // The bounds of what is together are 10 s.
            let weight = format!("id: b, weight: {}", 100 + 20 * change);
            assert!(versions.put_for("1h", change * 600, &["id: a", &weight]), "{change}");
        }
        assert_eq!(versions.windows(), WINDOWS_MAX);
        let moved = versions.moving(WINDOWS_MAX as u64 * 600 + 601);
        assert!(moved.iter().flatten().count() > 0);
    }

    #[test]
    fn a_change_that_was_made_a_while_ago_is_as_far_here_as_elsewhere() {
        let (mut early, mut late) = (Versions::new(), Versions::new());
        late.start = early.start;
        early.put(0, 0, &AB);
        late.put(0, 0, &AB);
        assert!(early.put(1, 0, &ABC) && late.put(21, 20, &ABC));
        for seconds in [21, 50, 80] {
            assert_eq!(early.moving(seconds), late.moving(seconds));
        }
        assert_eq!(late.service().handoff.poll(late.at(81)), (1, None));
        // It is over elsewhere.
        assert!(!late.put(300, 80, &AB));
    }

    #[test]
    fn a_process_that_starts_within_a_window_hands_over_what_those_do_that_were_there() {
        let (mut there, mut anew) = (Versions::new(), Versions::new());
        anew.start = there.start;
        there.put(0, 0, &AB);
        assert!(there.put(1, 0, &ABC));
        // What it has stored of before, and of services that there are no more.
        let old = there_before();
        anew.registry.remember(vec![(old, Duration::from_secs(20))]);
        assert!(anew.put(21, 0, &ABC));
        for seconds in [21, 50, 80] {
            assert_eq!(there.moving(seconds), anew.moving(seconds));
        }
        assert_eq!(anew.service().handoff.poll(anew.at(81)), (1, None));
        // It is asked once.
        assert!(!anew.put(90, 0, &ABC));
        let mut late = Versions::new();
        late.registry.remember(vec![(there_before(), WINDOW)]);
        assert!(!late.put(0, 0, &ABC), "it is over elsewhere");
    }

    #[test]
    fn a_process_that_starts_while_several_changes_are_under_way_places_all_their_keys_as_the_others_do() {
        let abcd = ["id: a", "id: b", "id: c", "id: d"];
        let abcde = ["id: a", "id: b, weight: 40", "id: c", "id: d", "id: e"];
        let (mut there, mut anew) = (Versions::new(), Versions::new());
        anew.start = there.start;
        there.put(0, 0, &AB);
        assert!(there.put(1, 0, &ABC) && there.put(31, 0, &abcd) && there.put(35, 0, &abcde));
        let last = |age| (of_backends(&abcd), Duration::from_secs(age));
        let all =
            vec![last(5), (of_backends(&ABC), Duration::from_secs(9)), (of_backends(&AB), Duration::from_secs(39))];
        anew.registry.remember(all);
        assert!(anew.put(40, 0, &abcde) && anew.windows() == 3);
        for seconds in [40, 60, 80, 100, 110] {
            assert_eq!(there.moving(seconds), anew.moving(seconds), "{seconds}");
        }
        assert_eq!(anew.service().handoff.poll(anew.at(111)), there.service().handoff.poll(there.at(111)));
        // Of the last one alone, some are looked for elsewhere.
        let mut alone = Versions::new();
        alone.start = there.start;
        alone.registry.remember(vec![last(5)]);
        assert!(alone.put(40, 0, &abcde) && alone.moving(40) != there.moving(40));
        // One that is over elsewhere is none here.
        let mut late = Versions::new();
        late.registry.remember(vec![last(50), (of_backends(&ABC), WINDOW)]);
        assert!(late.put(0, 0, &abcde) && late.windows() == 1);
    }

    /// The configuration that `a` and `b` are of.
    fn there_before() -> model::Config {
        of_backends(&AB)
    }

    fn of_backends(backends: &[&str]) -> model::Config {
        let mut versions = Versions::new();
        versions.put(0, 0, backends);
        model::Config::clone(&versions.in_force.as_ref().unwrap().config)
    }

    #[test]
    fn a_backend_that_goes_and_comes_back_gets_its_keys_from_those_that_have_them_now() {
        // Gone for a while, soon and late; taken away; or found to be away by a request.
        for (back, away) in [
            (21, &["id: b", "id: c"][..]),
            (5, &["id: b", "id: c"]),
            (21, &["id: a, drain: true, maintenance: true", "id: b", "id: c"]),
        ] {
            let mut versions = Versions::new();
            versions.put(0, 0, &ABC);
            let owned: Vec<bool> =
                keys().map(|hash| versions.service().backend_set.owner(hash) == Some(Slot(0))).collect();
            assert!(versions.put(1, 0, away));
            assert!(versions.moving(1).iter().all(Option::is_none), "nobody who could be asked has had them");
            assert!(versions.put(back, 0, &ABC), "{back}: it is no part of the change before");
            for (moving, owned) in versions.moving(back).iter().zip(&owned) {
                let told = moving.as_ref().map(|(previous, next, _)| (previous != "a", next == "a"));
                assert_eq!(told, owned.then_some((true, true)));
            }
        }
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        versions.put(1, 0, &ABC);
        versions.service().handoff.handle_lost(Slot(0));
        assert!(versions.moving(2).iter().flatten().all(|(previous, ..)| previous == "b"));
        // And who joins then gets them from whoever has them.
        versions.put(21, 0, &["id: a", "id: b", "id: c", "id: d"]);
        assert!(versions.moving(21).iter().flatten().any(|(previous, next, _)| previous == "c" && next == "d"));
    }

    #[test]
    fn no_change_is_over_before_one_that_came_before_it() {
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        versions.put(1, 0, &ABC);
        versions.put_for("10s", 21, &["id: a", "id: b", "id: c", "id: d"]);
        assert_eq!(versions.service().handoff.poll(versions.at(32)), (0, Some(versions.at(81))));
        let second = versions.moving(32).into_iter().flatten().filter(|(_, next, _)| next == "d").count();
        assert!(second > 200, "{second}");
    }

    #[test]
    fn a_previous_owner_that_is_down_is_lost_and_one_that_sheds_or_ramps_declines_unless_it_leaves() {
        let mut versions = Versions::new();
        versions.put(0, 0, &["id: a", "id: b", "id: c, drain: true"]);
        let service = versions.service();
        let said = |slot: u16| -> Vec<PreviousOwner> {
            let mut said: Vec<PreviousOwner> = keys().map(|hash| service.previous_owner(Slot(slot), hash)).collect();
            said.sort_unstable_by_key(|said| format!("{said:?}"));
            said.dedup();
            said
        };
        assert_eq!((said(0), said(2)), (vec![PreviousOwner::Serves], vec![PreviousOwner::Serves]));
        let load = |slot: usize| &service.backends[slot].state.load;
        load(0).set_shed(ringway_ring::FULL_SHARE / 2);
        assert_eq!(said(0), [PreviousOwner::Declines, PreviousOwner::Serves]);
        load(0).set_shed(0);
        load(0).set_active_fraction(ringway_ring::FULL_SHARE / 2);
        assert_eq!(said(0), [PreviousOwner::Declines, PreviousOwner::Serves]);
        load(0).set_active_fraction(0);
        load(1).set_doubted(true);
        load(2).set_doubted(true);
        assert!((0..3).all(|slot| said(slot) == [PreviousOwner::Lost]));
    }

    #[test]
    fn a_request_that_comes_as_the_copy_arrives_goes_where_the_key_is_and_one_that_was_refused_waits() {
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        versions.put(1, 0, &ABC);
        let (now, later) = (versions.at(3), versions.at(4));
        let due = |hash: &Hash| {
            let moving = versions.service().handoff.look(*hash, now, false);
            moving.is_some_and(|moving| moving.turn == HandoffTurn::First)
        };
        let [one, other] = keys().filter(due).take(2).collect::<Vec<_>>()[..] else { panic!("two are due") };
        // Both have looked where the key is; the first one's copy arrives before the second has begun its own.
        let look = |hash| versions.service().handoff.look(hash, now, false).unwrap();
        let (first, second) = (look(one), look(one));
        let window = |moving: &Moving| Arc::clone(moving.window.as_ref().unwrap());
        let copy = CopyOfKey::begin(&window(&first), one, now).unwrap();
        assert_eq!(CopyOfKey::begin(&window(&second), one, now).err(), Some(CopyPlace::UnderWay));
        copy.arrive();
        assert_eq!(second.turn, HandoffTurn::First);
        assert_eq!(CopyOfKey::begin(&window(&second), one, now).err(), Some(CopyPlace::Arrived));
        assert!(!window(&second).is_copying(one), "nothing is left under way");
        let copy = CopyOfKey::begin(&window(&first), other, now).unwrap();
        copy.fail(now);
        assert_eq!(CopyOfKey::begin(&window(&first), other, now).err(), Some(CopyPlace::Waits));
        assert!(CopyOfKey::begin(&window(&first), other, later).is_ok());
        assert!(!window(&first).is_copying(other));
    }

    #[test]
    fn a_service_whose_clients_have_cookies_hands_nothing_over() {
        let mut versions = Versions::new();
        let cookie = "affinity_cookie: { secret: \"0123456789abcdef0123456789abcdef\" }";
        versions.put_with(0, 0, cookie, &AB);
        assert!(!versions.put_with(1, 0, cookie, &ABC) && !versions.service().handoff.is_open());
    }

    #[test]
    fn where_keys_are_others_nobody_has_had_them() {
        let mut versions = Versions::new();
        versions.put(0, 0, &AB);
        assert!(versions.put(1, 0, &ABC));
        assert!(!versions.put_with(2, 0, "hash_key: [ { host: {} } ]", &ABC));
        assert!(!versions.service().handoff.is_open());
        assert!(!versions.put_with(3, 0, "hash_key: [ { host: {} } ], seed: 7", &AB));
        // Another policy places the same keys elsewhere.
        assert!(versions.put_with(4, 0, "hash_key: [ { host: {} } ], seed: 7, policy: maglev", &AB));
        assert_eq!(WINDOW, versions.service().config.handoff.as_ref().unwrap().window);
    }
}
