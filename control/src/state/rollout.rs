//! Two-phase rollout: a change is shown to every live proxy, holds for growing shares of them, and then for all; or for
//! nobody. A pure machine: commands move it, [`Rollout::next`] says what the leader should propose.
//!
//! The coordinator's state is in the log, so it does not block when a leader dies. Source: Gray, Lamport, "Consensus on
//! Transaction Commit", 2006.

use super::model::Change;
use super::txn::{Refusal, Txn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a change is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Shares of the proxies that go first, in percent, rising; empty is all at once.
    pub stages_percent: Vec<u8>,
    /// How long each share is watched before the next, in milliseconds.
    pub bake_ms: u64,
    /// How long proxies have to prepare, in milliseconds.
    pub deadline_ms: u64,
    /// Proxies that must have said yes at the deadline, in percent of those that were live; one no is always the end.
    pub quorum_percent: u8,
    /// A share's rate of failed requests may exceed that of the rest, or of before, by this many percent of all requests.
    pub error_margin_percent: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stages_percent: Vec::new(),
            bake_ms: 30_000,
            deadline_ms: 10_000,
            quorum_percent: 100,
            error_margin_percent: 1,
        }
    }
}

/// What a proxy says of a change that it has built but does not use yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// `None`: yes. What is wrong, otherwise.
    pub refusal: Option<String>,
    /// Of all rings that it would use, as a text: equal on all proxies with equal files.
    pub digest: String,
    /// Key space that would move, in millionths, of the service that moves most.
    pub moved_ppm: u32,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Proxies build it.
    Preparing,
    /// It holds for a share of them: the index into the policy's stages.
    Stage(u32),
    /// It holds for all, since this revision.
    Committed(u64),
    /// It holds for nobody.
    Aborted(String),
}

impl Phase {
    /// Whether it is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Committed(_) | Self::Aborted(_))
    }
}

/// A change on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Unique, rising.
    pub id: u64,
    /// The change that was asked for.
    pub txn: Txn,
    /// What it changes, as of the revision that it began at.
    pub changes: Vec<Change>,
    /// How.
    pub policy: Policy,
    /// Live proxies when it began.
    pub participants: Vec<String>,
    /// What they have said.
    pub votes: BTreeMap<String, Vote>,
    /// Where it stands.
    pub phase: Phase,
}

/// What a leader should propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: ask again after at most this many milliseconds, or when something has happened.
    Wait(u64),
    /// [`super::Command::RolloutAdvance`].
    Advance(u32),
    /// [`super::Command::RolloutCommit`].
    Commit,
    /// [`super::Command::RolloutAbort`].
    Abort(String),
}

/// What the leader has seen of the proxies since a stage began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Failed requests of proxies that have the change in force, in millionths of all.
    pub cohort_ppm: u32,
    /// Of the others; where they say too little, with what all did before.
    pub rest_ppm: u32,
    /// Requests that the cohort's figure stands on.
    pub cohort_requests: u64,
    /// Participants of the cohort that are gone.
    pub cohort_lost: u32,
    /// Participants of the cohort that this leader has not heard of yet.
    pub cohort_unheard: u32,
    /// Participants of the cohort that do not have the change in force.
    pub cohort_waiting: u32,
    /// One of those, with its reason if it has told one.
    pub straggler: Option<String>,
    /// A proxy of the cohort that has met what it cannot put into force, and why.
    pub stuck: Option<String>,
    /// For how long, all in all, any of the cohort was without the change.
    pub waited_ms: u64,
    /// For how long all of the cohort have had it; `None`: not all have.
    pub baked_ms: Option<u64>,
    /// Participants that have ended in order, and have not voted.
    pub left: usize,
    /// All of the cohort have ended in order: nobody tries the change.
    pub cohort_left: bool,
}

/// What a vote's digest is of: epoch and revision of the topology under the change. `None`: an older proxy has not said.
fn basis(digest: &str) -> Option<(u64, u64)> {
    let (prefix, _) = digest.split_once(';')?;
    let (epoch, revision) = prefix.split_once('.')?;
    Some((epoch.parse().ok()?, revision.parse().ok()?))
}

impl Vote {
    /// A digest that is compared only with those of the same revision: backends come and go while proxies build. Older
    /// proxies have only the rings, which begin with a service's name and `=`.
    #[must_use]
    pub fn digest(epoch: u64, revision: u64, rings: &str) -> String {
        format!("{epoch}.{revision};{rings}")
    }
}

impl Rollout {
    /// Requests below which a rate says nothing.
    pub const REQUESTS_MIN: u64 = 20;

    /// Share of the proxies that it holds for now, in percent.
    #[must_use]
    pub fn percent(&self) -> u8 {
        match &self.phase {
            Phase::Preparing | Phase::Aborted(_) => 0,
            Phase::Stage(index) => self.policy.stages_percent.get(*index as usize).copied().unwrap_or(100),
            Phase::Committed(_) => 100,
        }
    }

    /// The share as proxies are told it: those belong to it whose hash lies below, in percent of all hashes.
    ///
    /// The least value that takes in `percent` of the participants, rounded up: of three proxies, one in ten would mostly
    /// be nobody, and a change that nobody has tried would hold for all. Proxies of any version compare their own hash
    /// with a number, so they need not know each other.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        let percent = self.percent();
        if percent == 0 || percent >= 100 || self.participants.is_empty() {
            return percent;
        }
        let wanted = (self.participants.len() * usize::from(percent)).div_ceil(100);
        let mut counts = [0_usize; 100];
        for proxy in &self.participants {
            counts[usize::from(Self::bucket(self.id, proxy))] += 1;
        }
        let mut inside = 0;
        let enough = |count: &usize| {
            inside += count;
            inside >= wanted
        };
        // A hundred buckets: below the last one are all participants.
        counts.iter().position(enough).map_or(100, |bucket| bucket as u8 + 1)
    }

    /// Whether a proxy belongs to a share: every proxy, and the leader, say the same.
    #[must_use]
    pub fn in_cohort(id: u64, proxy: &str, threshold: u8) -> bool {
        Self::bucket(id, proxy) < threshold
    }

    /// Its place among all hashes, in percent: 0 to 99.
    fn bucket(id: u64, proxy: &str) -> u8 {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(proxy.as_bytes(), id);
        // Multiplied, not divided: 100 takes everybody.
        ((u128::from(hash) * 100) >> 64) as u8
    }

    pub(super) fn vote(&mut self, votes: BTreeMap<String, Vote>) -> Result<(), Refusal> {
        for (proxy, vote) in votes {
            // The first word holds, and only that of those that were asked.
            if self.participants.contains(&proxy) {
                self.votes.entry(proxy).or_insert(vote);
            }
        }
        Ok(())
    }

    /// What should come next. `elapsed_ms`: since this phase was entered, by the asker's clock: after a change of
    /// leader it begins anew, never shorter.
    #[must_use]
    pub fn next(&self, elapsed_ms: u64, observed: &Observed) -> Step {
        match &self.phase {
            Phase::Committed(_) | Phase::Aborted(_) => Step::Wait(u64::MAX),
            Phase::Preparing => self.prepared(elapsed_ms, observed.left),
            Phase::Stage(index) => match self.harm(observed) {
                Some(reason) => Step::Abort(reason),
                None => self.baked(index + 1, observed),
            },
        }
    }

    /// What speaks against the change where it is in force.
    fn harm(&self, observed: &Observed) -> Option<String> {
        if observed.cohort_lost > 0 {
            return Some(format!("{} proxies that had the change are gone", observed.cohort_lost));
        }
        if observed.cohort_left {
            return Some("all proxies that had the change have been stopped".into());
        }
        if let Some(why) = &observed.stuck {
            return Some(format!("stuck where it goes first: {why}"));
        }
        let margin = u32::from(self.policy.error_margin_percent) * 10_000;
        let enough = observed.cohort_requests >= Self::REQUESTS_MIN;
        (enough && observed.cohort_ppm > observed.rest_ppm.saturating_add(margin)).then(|| {
            format!(
                "proxies that had the change failed {:.2} % of requests, the others {:.2} %",
                f64::from(observed.cohort_ppm) / 10_000.0,
                f64::from(observed.rest_ppm) / 10_000.0
            )
        })
    }

    /// What a share has not in force yet cannot be watched there.
    fn baked(&self, next: u32, observed: &Observed) -> Step {
        let Some(baked_ms) = observed.baked_ms else {
            if observed.waited_ms < self.policy.deadline_ms {
                return Step::Wait(self.policy.deadline_ms - observed.waited_ms);
            }
            return Step::Abort(format!(
                "{} of the proxies that go first have not put it into force in time, {} among them",
                observed.cohort_waiting + observed.cohort_unheard,
                observed.straggler.as_deref().unwrap_or("none heard of"),
            ));
        };
        if baked_ms < self.policy.bake_ms {
            return Step::Wait(self.policy.bake_ms - baked_ms);
        }
        if (next as usize) < self.policy.stages_percent.len() { Step::Advance(next) } else { Step::Commit }
    }

    fn prepared(&self, elapsed_ms: u64, left: usize) -> Step {
        let refused: Vec<String> = self
            .votes
            .iter()
            .filter_map(|(proxy, vote)| vote.refusal.as_ref().map(|why| format!("{proxy}: {why}")))
            .collect();
        if let Some(first) = refused.first() {
            return Step::Abort(match refused.len() {
                1 => format!("refused by {first}"),
                more => format!("refused by {more} proxies, first {first}"),
            });
        }
        let mut first: BTreeMap<Option<(u64, u64)>, (&str, &str)> = BTreeMap::new();
        for (proxy, vote) in &self.votes {
            let (digest, other) = *first.entry(basis(&vote.digest)).or_insert((&vote.digest, proxy));
            if digest != vote.digest {
                return Step::Abort(format!("{other} and {proxy} would build different rings from it"));
            }
        }
        let asked = self.participants.len().saturating_sub(left);
        if self.votes.len() >= asked {
            return if self.policy.stages_percent.is_empty() { Step::Commit } else { Step::Advance(0) };
        }
        if elapsed_ms < self.policy.deadline_ms {
            return Step::Wait(self.policy.deadline_ms - elapsed_ms);
        }
        let wanted = (asked * usize::from(self.policy.quorum_percent)).div_ceil(100);
        if self.votes.len() < wanted {
            let silent: Vec<&str> = self
                .participants
                .iter()
                .filter(|proxy| !self.votes.contains_key(*proxy))
                .map(String::as_str)
                .take(5)
                .collect();
            return Step::Abort(format!(
                "{} of {} proxies have not said whether they can build it, {} among them",
                self.participants.len() - self.votes.len(),
                self.participants.len(),
                silent.join(", ")
            ));
        }
        if self.policy.stages_percent.is_empty() { Step::Commit } else { Step::Advance(0) }
    }
}
