//! The course of a rollout as a proxy sees it, told step by step. Pure.

use ringway_control::state::{Object, Vote};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::{Replaced, RolloutView};
use std::sync::Arc;

/// What a rollout has come to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// In a word.
    pub(crate) to: &'static str,
    /// As a sentence.
    pub(crate) text: String,
    /// Objects that it changes.
    pub(crate) keys: Vec<String>,
}

/// The rollout that is followed, if one is under way.
#[derive(Default)]
pub(crate) struct Course {
    rollout: Option<RolloutView>,
    /// What its objects were when it was first heard of, in its order.
    before: Vec<Option<Arc<Object>>>,
    /// Its change is in force here, with the first share.
    is_first: bool,
}

impl Course {
    /// A view is in force, or could not be: `canary` is the rollout whose change is.
    pub(crate) fn handle_view(&mut self, view: &View, canary: Option<u64>) -> Vec<Step> {
        let next = view.rollout.as_ref();
        let mut steps = Vec::new();
        if let Some(over) = self.rollout.take_if(|known| next.is_none_or(|next| next.id != known.id)) {
            self.is_first = false;
            steps.push(ended(self, &over, view));
        }
        if let Some(next) = next {
            if canary == Some(next.id) && !std::mem::replace(&mut self.is_first, true) {
                let text =
                    format!("rollout {}: in force here, with the first {} % of the proxies", next.id, next.percent);
                steps.push(Step { to: "first", text, keys: keys(next) });
            }
            if self.rollout.is_none() {
                self.before = next.changes.iter().map(|change| view.objects.get(&change.key).cloned()).collect();
            }
            self.rollout = Some(next.clone());
        }
        steps
    }
}

/// What this proxy has said of a rollout.
pub(crate) fn voted(rollout: &RolloutView, vote: &Vote) -> Step {
    let id = rollout.id;
    match &vote.refusal {
        None => {
            let percent = f64::from(vote.moved_ppm) / 1e4;
            let text = format!(
                "rollout {id}: built, not in force yet; {percent} % of the keys of the service that moves most would move"
            );
            Step { to: "prepared", text, keys: keys(rollout) }
        }
        Some(why) => Step { to: "refused", text: format!("rollout {id}: {why}"), keys: keys(rollout) },
    }
}

/// It holds for all where its objects are as it wanted them, and is gone where they are as they were before: nobody says so otherwise.
/// Where a later change has made something else of them, neither can be told.
fn ended(course: &Course, over: &RolloutView, view: &View) -> Step {
    let id = over.id;
    let now = |change: &Replaced| view.objects.get(&change.key);
    let holds = over.changes.iter().all(|change| now(change) == change.object.as_ref());
    let before = over.changes.iter().zip(&course.before).all(|(change, before)| now(change) == before.as_ref());
    let (to, text) = match (holds, before) {
        (true, _) => ("committed", format!("rollout {id}: in force for all, by revision {}", view.revision)),
        (false, true) => ("aborted", format!("rollout {id}: over, and nothing of it holds")),
        (false, false) => ("over", format!("rollout {id}: over; its objects have been changed since")),
    };
    Step { to, text, keys: Vec::new() }
}

fn keys(rollout: &RolloutView) -> Vec<String> {
    rollout.changes.iter().map(|change| change.key.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_control::watch::wire::Snapshot;
    use std::collections::BTreeMap;

    fn view(revision: u64, weight: u32, rollout: Option<(u64, u8)>) -> View {
        let object = |weight: u32| {
            let text = format!("{{ \"backend\": {{ \"address\": \"10.0.0.1:80\", \"weight\": {weight} }} }}");
            Arc::new(serde_json::from_str(&text).unwrap())
        };
        let key: ringway_control::state::Key = "backend/s/a".parse().unwrap();
        let changes = vec![Replaced { key: key.clone(), object: Some(object(50)) }];
        let snapshot = Snapshot {
            cluster: "shop".into(),
            epoch: 1,
            revision,
            digest: String::new(),
            objects: Arc::new(BTreeMap::from([(key, object(weight))])),
            rollout: rollout.map(|(id, percent)| RolloutView { id, percent, changes }),
            at_ms: None,
        };
        View::from_snapshot(snapshot, None).unwrap()
    }

    #[test]
    fn each_step_is_told_once_and_how_it_ends() {
        let mut course = Course::default();
        let mut words =
            |view: &View, canary| course.handle_view(view, canary).into_iter().map(|step| step.to).collect::<Vec<_>>();
        assert_eq!(words(&view(1, 100, None), None), [""; 0]);
        assert_eq!(words(&view(1, 100, Some((7, 0))), None), [""; 0], "it is prepared, and voted on");
        assert_eq!(words(&view(1, 100, Some((7, 30))), Some(7)), ["first"]);
        assert_eq!(words(&view(1, 100, Some((7, 60))), Some(7)), [""; 0]);
        assert_eq!(words(&view(2, 50, None), None), ["committed"]);
        assert_eq!(words(&view(2, 100, Some((8, 0))), None), [""; 0]);
        assert_eq!(words(&view(2, 100, Some((9, 10))), Some(9)), ["aborted", "first"]);
        assert_eq!(words(&view(2, 100, None), None), ["aborted"]);
        assert_eq!(words(&view(2, 100, None), None), [""; 0]);
        assert_eq!(words(&view(2, 100, Some((10, 0))), None), [""; 0]);
        assert_eq!(words(&view(4, 70, None), None), ["over"], "what has come of it cannot be told from what holds now");
    }

    #[test]
    fn a_vote_says_what_would_move_or_why_not() {
        let rollout = view(1, 100, Some((7, 0))).rollout.unwrap();
        let vote = |refusal: Option<&str>| Vote {
            refusal: refusal.map(str::to_owned),
            digest: String::new(),
            moved_ppm: 125_000,
        };
        let yes = voted(&rollout, &vote(None));
        assert!(yes.to == "prepared" && yes.text.contains("12.5 %") && yes.keys == ["backend/s/a"], "{yes:?}");
        let no = voted(&rollout, &vote(Some("port taken")));
        assert_eq!((no.to, no.text.as_str()), ("refused", "rollout 7: port taken"));
    }
}
