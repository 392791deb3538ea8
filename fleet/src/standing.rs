//! Where a proxy stands with what the fleet has agreed on: what is to be in force, what is being loaded, what is. Pure.

use ringway_config::FleetConfig;
use ringway_control::state::{Key, Vote};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::Heartbeat;
use ringway_proxy::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No hand-off of keys lasts longer.
pub(crate) const HANDOFF_MAX: Duration = Duration::from_secs(60 * 60);

/// A topology as this proxy takes it.
#[derive(Default)]
pub(crate) struct Target {
    pub(crate) config: Arc<FleetConfig>,
    /// Services that it has a say in.
    pub(crate) named: BTreeSet<String>,
    /// What it was made from; none where the file is alone.
    pub(crate) view: Option<Arc<View>>,
    /// The rollout whose change it has before it is for all.
    pub(crate) canary: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Standing {
    /// What is to be in force: the newest that was said, good or not.
    target: Arc<Target>,
    /// What was joined with the file last: what a reload that is under way is about.
    joined: Arc<Target>,
    /// What is in force.
    applied: Arc<Target>,
    /// The digests of the rings that came into force with it: told with it, so that nobody sees one without the other.
    rings: Option<BTreeMap<String, u64>>,
    /// Why `target` is not in force.
    stuck: Option<String>,
    /// The last vote.
    vote: Option<(u64, Vote)>,
}

impl Standing {
    pub(crate) fn set_target(&mut self, target: Arc<Target>) {
        self.target = target;
    }

    /// A load begins: it is about the newest target.
    pub(crate) fn join(&mut self) -> Arc<Target> {
        self.joined = Arc::clone(&self.target);
        Arc::clone(&self.joined)
    }

    /// When what was joined was agreed on, if it is another revision than the one in force.
    pub(crate) fn agreed_at(&self) -> Option<SystemTime> {
        let (joined, applied) = (self.joined.view.as_ref()?, self.applied.view.as_ref());
        let is_new = applied.is_none_or(|applied| (applied.epoch, applied.revision) != (joined.epoch, joined.revision));
        joined.at_ms.filter(|_| is_new).map(|at_ms| UNIX_EPOCH + Duration::from_millis(at_ms))
    }

    /// What is in force, and since when it is agreed on, if that is no longer ago than any hand-off of keys lasts.
    pub(crate) fn recent(&self, now: SystemTime) -> Option<(Arc<View>, SystemTime)> {
        let view = self.applied.view.as_ref().filter(|_| self.applied.canary.is_none())?;
        let at = UNIX_EPOCH + Duration::from_millis(view.at_ms?);
        let is_recent = now.duration_since(at).is_ok_and(|age| age < HANDOFF_MAX);
        is_recent.then(|| (Arc::clone(view), at))
    }

    /// What was joined is in force before the proxy has begun to serve.
    pub(crate) fn begin(&mut self) {
        self.applied = Arc::clone(&self.joined);
    }

    /// The file alone is in force: what was stored does not fit it.
    pub(crate) fn begin_alone(&mut self, reason: String) {
        let none = Arc::<Target>::default();
        (self.target, self.joined, self.applied) = (Arc::clone(&none), Arc::clone(&none), none);
        self.stuck = Some(reason);
    }

    /// What was joined has come into force.
    pub(crate) fn handle_applied(&mut self, rings: BTreeMap<String, u64>) {
        self.applied = Arc::clone(&self.joined);
        self.rings = Some(rings);
        // The file alone says nothing about what did not fit it.
        if self.applied.view.is_some() {
            self.stuck = None;
        }
    }

    /// What was joined has not. A file that is wrong takes away nothing of what is in force.
    pub(crate) fn handle_refused(&mut self, reason: impl FnOnce() -> String) {
        if !Arc::ptr_eq(&self.joined, &self.applied) {
            self.stuck = Some(reason());
        }
    }

    /// The target cannot be put into force, whatever became of the load.
    pub(crate) fn handle_stuck(&mut self, reason: String) {
        self.stuck = Some(reason);
    }

    /// Rings that were in force before the fleet was heard.
    pub(crate) fn note_first_rings(&mut self, rings: BTreeMap<String, u64>) {
        self.rings.get_or_insert(rings);
    }

    /// Whether a rollout has not been voted on: a proxy votes once.
    pub(crate) fn is_unvoted(&self, rollout: u64) -> bool {
        self.vote.as_ref().is_none_or(|(id, _)| *id != rollout)
    }

    /// `None`: no rollout is under way.
    pub(crate) fn set_vote(&mut self, vote: Option<(u64, Vote)>) {
        self.vote = vote;
    }

    pub(crate) fn stuck(&self) -> Option<&String> {
        self.stuck.as_ref()
    }

    pub(crate) fn applied(&self) -> &Target {
        &self.applied
    }

    /// What the fleet is told. `refused`: what was said last is no topology; `instance`: of this process.
    pub(crate) fn heartbeat(&self, report: Report, refused: Option<String>, instance: u64) -> Heartbeat {
        let named = &self.applied.named;
        let applied = self.applied.view.as_ref();
        let registered = |key: &Key| applied.is_some_and(|view| view.objects.contains_key(key));
        let down = report.down.into_iter().map(|(service, id)| Key::Backend { service, id }).filter(registered);
        let rings = self.rings.iter().flatten().filter(|(name, _)| named.contains(name.as_str()));
        Heartbeat {
            version: env!("CARGO_PKG_VERSION").into(),
            epoch: applied.map_or(0, |view| view.epoch),
            revision: applied.map_or(0, |view| view.revision),
            digest: applied.map(|view| view.digest.to_string()).unwrap_or_default(),
            rings: rings.map(|(name, digest)| (name.clone(), format!("{digest:016x}"))).collect(),
            stuck: refused.or_else(|| self.stuck.clone()),
            generation: report.generation,
            vote: self.vote.clone(),
            down: down.collect(),
            requests: report.requests,
            failed: report.failed,
            canary: self.applied.canary,
            instance,
            cluster: applied.map(|view| view.cluster.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_control::watch::wire::Snapshot;

    fn target(revision: u64) -> Arc<Target> {
        let snapshot = Snapshot {
            cluster: "shop".into(),
            epoch: 1,
            revision,
            digest: String::new(),
            objects: <_>::default(),
            rollout: None,
            at_ms: None,
        };
        let view = View::from_snapshot(snapshot, None).unwrap();
        Arc::new(Target { named: BTreeSet::from(["fleet".into()]), view: Some(Arc::new(view)), ..Target::default() })
    }

    #[test]
    fn the_time_of_a_revision_is_told_until_it_is_in_force_and_of_none_that_the_file_has_changed_beside() {
        let at = |revision: u64, at_ms| {
            let target = target(revision);
            let view = View { at_ms, ..(**target.view.as_ref().unwrap()).clone() };
            Arc::new(Target { view: Some(Arc::new(view)), ..Target::default() })
        };
        let mut standing = Standing::default();
        assert_eq!(standing.agreed_at(), None);
        standing.set_target(at(1, Some(5_000)));
        standing.join();
        assert_eq!(standing.agreed_at(), Some(UNIX_EPOCH + Duration::from_secs(5)));
        standing.handle_applied(rings());
        // The same revision, joined with another file.
        standing.join();
        assert_eq!(standing.agreed_at(), None);
        // It may still be under way, for an hour.
        let recent =
            |seconds| standing.recent(UNIX_EPOCH + Duration::from_secs(seconds)).map(|(view, _)| view.revision);
        assert_eq!([4, 5, 3_604, 3_605].map(recent), [None, Some(1), Some(1), None]);
        standing.set_target(at(2, None));
        standing.join();
        assert_eq!(standing.agreed_at(), None, "the member does not say");
    }

    fn report() -> Report {
        let down = vec![("fleet".to_owned(), "not registered".to_owned())];
        Report { generation: 4, rings: BTreeMap::new(), down, requests: 10, failed: 1 }
    }

    fn rings() -> BTreeMap<String, u64> {
        BTreeMap::from([("fleet".to_owned(), 1), ("own".to_owned(), 2)])
    }

    #[test]
    fn a_topology_that_does_not_fit_leaves_what_is_in_force_and_says_why() {
        let mut standing = Standing::default();
        standing.set_target(target(1));
        standing.join();
        standing.handle_applied(rings());
        standing.set_target(target(2));
        standing.join();
        standing.handle_refused(|| "port taken".into());
        let told = standing.heartbeat(report(), None, 9);
        assert_eq!((told.revision, told.stuck.as_deref()), (1, Some("port taken")));
        standing.join();
        standing.handle_applied(rings());
        let told = standing.heartbeat(report(), None, 9);
        assert_eq!((told.revision, told.stuck), (2, None));
    }

    #[test]
    fn a_file_that_is_wrong_says_nothing_about_the_topology_in_force() {
        let mut standing = Standing::default();
        standing.set_target(target(1));
        standing.join();
        standing.handle_applied(rings());
        // The same target, with another file.
        standing.join();
        standing.handle_refused(|| "line 3".into());
        assert_eq!(standing.stuck(), None);
    }

    #[test]
    fn a_target_that_comes_while_a_load_is_under_way_is_not_taken_for_what_came_into_force() {
        let mut standing = Standing::default();
        standing.set_target(target(1));
        standing.join();
        standing.set_target(target(2));
        standing.handle_applied(rings());
        assert_eq!(standing.heartbeat(report(), None, 9).revision, 1);
    }

    #[test]
    fn what_did_not_fit_stays_told_while_the_file_serves_alone() {
        let mut standing = Standing::default();
        standing.set_target(target(1));
        standing.join();
        standing.begin_alone("does not fit".into());
        standing.join();
        standing.handle_applied(rings());
        assert_eq!(standing.stuck().map(String::as_str), Some("does not fit"));
        assert_eq!(standing.heartbeat(report(), None, 9).revision, 0);
    }

    #[test]
    fn a_heartbeat_tells_the_fleets_rings_and_registered_backends_alone() {
        let mut standing = Standing::default();
        standing.set_target(target(1));
        standing.join();
        standing.handle_applied(rings());
        let told = standing.heartbeat(report(), Some("no topology".into()), 9);
        assert_eq!(told.rings.keys().collect::<Vec<_>>(), ["fleet"]);
        assert_eq!((told.down, told.requests, told.instance), (Vec::new(), 10, 9));
        assert_eq!(told.stuck.as_deref(), Some("no topology"));
    }

    #[test]
    fn a_rollout_is_voted_on_once() {
        let mut standing = Standing::default();
        assert!(standing.is_unvoted(1));
        standing.set_vote(Some((1, Vote { refusal: None, digest: "d".into(), moved_ppm: 0 })));
        assert!(!standing.is_unvoted(1) && standing.is_unvoted(2));
        standing.set_vote(None);
        assert!(standing.is_unvoted(1));
    }
}
