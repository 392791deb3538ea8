//! What a proxy does about a rollout: whether it goes first, and how it votes. Pure.

use ringway_control::state::{Rollout, Vote};
use ringway_control::watch::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// The rollout in whose first share a proxy is. Also where the change makes no difference any more: the leader waits for
/// everyone that goes first.
pub(crate) fn goes_first(view: &View, proxy: &str) -> Option<u64> {
    let rollout = view.rollout.as_ref()?;
    Rollout::in_cohort(rollout.id, proxy, rollout.percent).then_some(rollout.id)
}

/// A candidate as this proxy would have it.
pub(crate) struct Candidate<'a> {
    /// Ring digests by service, those of the proxy's own file too.
    pub(crate) rings: &'a BTreeMap<String, u64>,
    /// Services that the fleet has a say in.
    pub(crate) named: &'a BTreeSet<String>,
    /// Largest share of a service's key space that would move, 0 to 1.
    pub(crate) moved: f64,
}

/// A vote for what was built, or against what could not be.
pub(crate) fn vote(view: &View, built: Result<Candidate<'_>, String>) -> Vote {
    match built {
        Ok(candidate) => Vote {
            refusal: None,
            digest: Vote::digest(view.epoch, view.revision, &rings_text(&candidate)),
            moved_ppm: (candidate.moved * 1e6) as u32,
        },
        Err(refusal) => Vote { refusal: Some(refusal), digest: String::new(), moved_ppm: 0 },
    }
}

/// Services that only this proxy's file knows are its own business.
fn rings_text(candidate: &Candidate<'_>) -> String {
    let rings = candidate.rings.iter().filter(|(name, _)| candidate.named.contains(name.as_str()));
    rings.map(|(name, digest)| format!("{name}={digest:016x};")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_control::watch::wire::{RolloutView, Snapshot};

    fn view(percent: Option<u8>) -> View {
        let rollout = percent.map(|percent| RolloutView { id: 7, percent, changes: Vec::new() });
        let snapshot = Snapshot {
            cluster: "shop".into(),
            epoch: 1,
            revision: 3,
            digest: String::new(),
            objects: <_>::default(),
            rollout,
            at_ms: None,
        };
        View::from_snapshot(snapshot, None).unwrap()
    }

    fn candidate<'a>(rings: &'a BTreeMap<String, u64>, named: &'a BTreeSet<String>, moved: f64) -> Candidate<'a> {
        Candidate { rings, named, moved }
    }

    #[test]
    fn a_proxy_that_goes_first_stays_first_as_the_share_grows_and_none_does_without_a_rollout() {
        for proxy in 0..200 {
            let name = format!("p{proxy}");
            assert_eq!(goes_first(&view(None), &name), None);
            assert_eq!(goes_first(&view(Some(0)), &name), None);
            assert_eq!(goes_first(&view(Some(100)), &name), Some(7));
            let shares: Vec<bool> = (0..=100).map(|share| goes_first(&view(Some(share)), &name).is_some()).collect();
            assert!(shares.is_sorted(), "{name} leaves a share that grows");
        }
        let first = (0..1000).filter(|proxy| goes_first(&view(Some(20)), &format!("p{proxy}")).is_some()).count();
        assert!((120..280).contains(&first), "{first} of 1000 in a share of 20 %");
    }

    #[test]
    fn proxies_with_other_services_of_their_own_vote_alike() {
        let named = BTreeSet::from(["fleet".to_owned()]);
        let alone = BTreeMap::from([("fleet".to_owned(), 5)]);
        let more = BTreeMap::from([("fleet".to_owned(), 5), ("own".to_owned(), 9)]);
        let other = BTreeMap::from([("fleet".to_owned(), 6)]);
        let cast = |rings| vote(&view(None), Ok(candidate(rings, &named, 0.25)));
        assert_eq!(cast(&alone), cast(&more));
        assert_ne!(cast(&alone).digest, cast(&other).digest);
        assert_eq!((cast(&alone).refusal, cast(&alone).moved_ppm), (None, 250_000));
    }

    #[test]
    fn what_cannot_be_built_is_refused_with_its_reason() {
        let cast = vote(&view(None), Err("port taken".into()));
        assert_eq!(cast, Vote { refusal: Some("port taken".into()), digest: String::new(), moved_ppm: 0 });
    }
}
