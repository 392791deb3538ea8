//! One backend's part: check streaks, ejection, ramps.

use crate::agent::{AgentMode, AgentState};
use crate::event::{CheckFailure, EventKind, Probe};
use crate::member_view::MemberView;
use crate::params::{CheckParams, Initial, OutlierParams, SlowStartParams};
use crate::ramp::Ramp;
use crate::recurring::Recurring;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A share of 1: all keys.
pub(crate) const FULL: u16 = u16::MAX;

#[derive(Debug)]
pub(crate) struct MemberState {
    pub(crate) id: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) drain: bool,
    /// Drained, and clients that are bound to it are to go elsewhere.
    pub(crate) maintenance: bool,
    pub(crate) level: u8,
    /// Percent of its weight that its last good check asked for.
    pub(crate) check_percent: u8,
    /// What active checks say.
    pub(crate) check_up: bool,
    /// What its agent says, apart from them.
    pub(crate) agent: AgentState,
    /// Since when it takes no keys, its state aside.
    without_keys_since: Option<Instant>,
    /// It takes no keys, and keeps the clients that are bound to it.
    pub(crate) keeps_clients: bool,
    /// Whether a check has ended yet.
    checked: bool,
    /// Checks in a row that contradict `check_up`.
    streak: u32,
    /// It has been there from the start and was taken for down, as long as no check has said anything: to come up then is no comeback.
    pub(crate) presumed_down: bool,
    /// It has joined a fleet that was there, and has not come to its full share yet.
    pub(crate) joins: bool,
    /// Percent of its weight that it asked for last, of those above none.
    last_percent: u8,
    pub(crate) last_failure: Option<CheckFailure>,
    pub(crate) check: Recurring,
    /// Failures of live traffic in a row; those of the way to it apart, if they are counted apart.
    pub(crate) failures: u32,
    pub(crate) local_failures: u32,
    /// Successful checks in a row since it was ejected.
    pub(crate) good_checks: u32,
    /// The last change, and when it was.
    pub(crate) last_change: Option<(EventKind, Instant)>,
    pub(crate) ejected_until: Option<Instant>,
    /// It has asked for its ejection, which is no offence: what it had failed before counts on.
    by_wish: bool,
    /// It has asked, at the beginning of its ejection or since, to be left alone.
    asks_for_peace: bool,
    /// See [`crate::ServiceHealth::is_last_resort`]; as of when the shares were worked out last.
    pub(crate) last_resort: bool,
    /// It has asked in vain to be left alone, and that has been told.
    pub(crate) wish_withheld: bool,
    /// How often it has been ejected in a row, and when the last ejection ended.
    ejections: u32,
    returned_at: Option<Instant>,
    ramp: Option<Ramp>,
    /// Share that its own state gives it, panic aside.
    pub(crate) own_share: u16,
    /// Whether it was unhealthy when the shares were worked out last.
    pub(crate) doubted: bool,
    /// Share that it has.
    pub(crate) share: u16,
}

/// A member for which something is due: its id, and where it is found at once as long as the membership stays. It is of this one
/// membership: where the member has left and another has come under its id, the key names nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberKey {
    /// That of the member's state itself, which makes the two known to each other.
    pub(crate) id: Arc<str>,
    pub(crate) index: usize,
}

impl MemberKey {
    /// Its place among the members, sorted by id, when the key was made.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

/// Its id.
impl Deref for MemberKey {
    type Target = str;

    fn deref(&self) -> &str {
        &self.id
    }
}

/// A member, named by its id alone or by its key.
#[derive(Debug, Clone, Copy)]
pub struct MemberRef<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: Option<&'a MemberKey>,
}

impl<'a> From<&'a str> for MemberRef<'a> {
    fn from(id: &'a str) -> Self {
        Self { id, key: None }
    }
}

impl<'a> From<&'a MemberKey> for MemberRef<'a> {
    fn from(key: &'a MemberKey) -> Self {
        Self { id: &key.id, key: Some(key) }
    }
}

impl MemberState {
    pub(crate) fn new(id: &str, check: Option<&CheckParams>) -> Self {
        let up = check.is_none_or(|check| check.initial == Initial::Up);
        Self {
            id: id.into(),
            weight: 0,
            drain: false,
            maintenance: false,
            level: 0,
            check_percent: 100,
            check_up: up,
            agent: AgentState::default(),
            without_keys_since: None,
            keeps_clients: false,
            checked: false,
            presumed_down: false,
            joins: false,
            last_percent: 100,
            streak: 0,
            last_failure: None,
            check: Recurring::NEVER,
            failures: 0,
            local_failures: 0,
            good_checks: 0,
            last_change: None,
            ejected_until: None,
            by_wish: false,
            asks_for_peace: false,
            last_resort: false,
            wish_withheld: false,
            ejections: 0,
            returned_at: None,
            ramp: None,
            own_share: 0,
            doubted: false,
            share: 0,
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.is_up() && self.ejected_until.is_none()
    }

    /// Whether its checks and its agent say that it works: each of them alone takes it down.
    pub(crate) fn is_up(&self) -> bool {
        self.check_up && self.agent.up
    }

    /// Percent of its weight that it asks for, by its checks and by its agent: the lower.
    pub(crate) fn percent(&self) -> u8 {
        self.check_percent.min(self.agent.leaves()).min(100)
    }

    /// Whether it keeps its clients: worked out anew. `true`: that has changed.
    pub(crate) fn update_keeping(&mut self, keep: Option<Duration>, now: Instant) -> bool {
        self.without_keys_since = match self.weight_asked() {
            0 => self.without_keys_since.or(Some(now)),
            _ => None,
        };
        let may = keep.is_some() && self.without_keys_since.is_some() && !self.has_kept_long_enough(keep, now);
        let keeps = may && self.is_healthy() && !self.maintenance && self.agent.mode != AgentMode::Maintenance;
        std::mem::replace(&mut self.keeps_clients, keeps) != keeps
    }

    /// Whether the time for which it keeps its clients is over.
    pub(crate) fn has_kept_long_enough(&self, keep: Option<Duration>, now: Instant) -> bool {
        let times = self.without_keys_since.zip(keep);
        times.is_some_and(|(since, keep)| now.saturating_duration_since(since) >= keep)
    }

    /// When it keeps its clients no longer.
    fn keeps_until(&self, keep: Option<Duration>) -> Option<Instant> {
        self.without_keys_since.filter(|_| self.keeps_clients)?.checked_add(keep?)
    }

    /// The weight that is asked for, by its operator and by itself, in parts of a percent of a percent; none of one that is
    /// drained.
    pub(crate) fn weight_asked(&self) -> u64 {
        if self.drain { 0 } else { u64::from(self.weight) * u64::from(self.percent()) }
    }

    /// The weight that its level is built for, in the same unit. What is drained, by its operator or by itself, counts as before: the
    /// others of the level have not become more. Who joins counts as it comes.
    pub(crate) fn weight_built_for(&self, now: Instant) -> u64 {
        let percent = if self.percent() == 0 { self.last_percent } else { self.percent() };
        let whole = u64::from(self.weight) * u64::from(percent);
        match self.ramp {
            _ if !self.joins || self.drain => whole,
            Some(ramp) => whole * u64::from(ramp.share(now)) / u64::from(FULL),
            None if self.is_healthy() => whole,
            None => 0,
        }
    }

    /// Of that, what it carries: along its ramp, down and up.
    pub(crate) fn weight_carried(&self) -> u64 {
        u64::from(self.weight) * 100 * u64::from(self.own_share) / u64::from(FULL)
    }

    /// Takes in a check's result. `true`: what the checks say has changed.
    pub(crate) fn handle_probe(&mut self, probe: Probe, params: &CheckParams) -> bool {
        self.check.under_way = false;
        let good = !matches!(probe, Probe::Failure(_));
        self.good_checks = if good { self.good_checks.saturating_add(1) } else { 0 };
        if let Probe::Failure(failure) = probe {
            self.last_failure = Some(failure);
        }
        let first = !std::mem::replace(&mut self.checked, true);
        if good == self.check_up {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        // The first check decides alone: what it replaces was only assumed.
        let needed = if first {
            1
        } else if good {
            params.rise
        } else {
            params.fall
        };
        if self.streak < needed {
            return false;
        }
        (self.check_up, self.streak) = (good, 0);
        true
    }

    /// Time between this check's start and the next one's, without jitter.
    pub(crate) fn check_interval(&self, params: &CheckParams) -> Duration {
        match (self.streak > 0, self.check_up) {
            (true, _) => params.interval_transition,
            (false, true) => params.interval,
            (false, false) => params.interval_down,
        }
    }

    /// Ejects it, for as long as it has asked for at least; gives for how long. The n-th ejection in a row lasts n times the base;
    /// each base time spent in peace takes one off again.
    pub(crate) fn eject(&mut self, params: &OutlierParams, wish: Duration, fraction: f64, now: Instant) -> Duration {
        if let Some(returned) = self.returned_at.take() {
            let peace =
                now.saturating_duration_since(returned).as_secs_f64() / params.base_ejection.as_secs_f64().max(0.001);
            self.ejections = self.ejections.saturating_sub(peace as u32);
        }
        self.ejections = self.ejections.saturating_add(1);
        let duration = params.ejection(self.ejections, fraction).max(wish);
        self.leave_alone(duration, now);
        (self.by_wish, self.asks_for_peace) = (false, !wish.is_zero());
        (self.failures, self.local_failures) = (0, 0);
        duration
    }

    /// Ejects it for so long, without counting it as an offence. What it has failed before is not forgiven for that: who asks for
    /// a second each time, and never serves, must not be asked once a second for ever.
    pub(crate) fn leave_alone(&mut self, duration: Duration, now: Instant) {
        (self.by_wish, self.asks_for_peace) = (true, true);
        self.wish_withheld = false;
        self.ejected_until = Some(now + duration);
        self.good_checks = 0;
    }

    /// It has asked again while it is ejected: whichever is longer. `true`: for the first time.
    pub(crate) fn leave_alone_longer(&mut self, duration: Duration, now: Instant) -> bool {
        self.ejected_until = self.ejected_until.map(|until| until.max(now + duration));
        !std::mem::replace(&mut self.asks_for_peace, true)
    }

    /// Ejected, for what has failed there, and nothing else is known against it.
    pub(crate) fn may_be_last_resort(&self) -> bool {
        self.ejected_until.is_some() && !self.asks_for_peace && self.is_up() && self.weight_asked() > 0
    }

    pub(crate) fn return_from_ejection(&mut self, now: Instant) {
        self.ejected_until = None;
        if !std::mem::take(&mut self.by_wish) {
            self.returned_at = Some(now);
            (self.failures, self.local_failures) = (0, 0);
        }
    }

    /// Begins to take keys: at once, or along the ramp. A drained backend begins nothing, however well it is: its keys go, or
    /// have gone. One that was only presumed to be down has its share at once: it has been serving, and others know it.
    pub(crate) fn ramp_up(&mut self, slow_start: Option<SlowStartParams>, now: Instant) {
        if self.drain || self.presumed_down {
            return;
        }
        self.ramp = slow_start.map(|slow_start| Ramp {
            began: now,
            window: slow_start.window,
            from: (u32::from(FULL) * slow_start.initial_percent.clamp(1, 100) / 100) as u16,
            to: FULL,
        });
    }

    /// Begins to give keys away: at once, or along the ramp.
    pub(crate) fn ramp_down(&mut self, window: Duration, now: Instant) {
        self.ramp = Some(Ramp { began: now, window, from: self.own_share, to: 0 });
    }

    /// Works its own share out anew.
    pub(crate) fn update_share(&mut self, now: Instant) {
        let ramped = match self.ramp {
            Some(ramp) => {
                if ramp.is_over(now) && ramp.to == FULL {
                    self.ramp = None;
                }
                ramp.share(now)
            }
            None if self.drain => 0,
            None => FULL,
        };
        self.own_share = if self.is_healthy() { self.asked(ramped) } else { 0 };
        self.joins &= self.ramp.is_some() || !self.is_healthy();
        if self.percent() > 0 {
            self.last_percent = self.percent();
        }
    }

    /// Share that it would have if it were healthy: what panic gives.
    pub(crate) fn share_if_healthy(&self, now: Instant) -> u16 {
        self.asked(match self.ramp {
            Some(ramp) if self.drain => ramp.share(now),
            None if self.drain => 0,
            _ => FULL,
        })
    }

    /// What is left of a share of which it asks for a part.
    fn asked(&self, share: u16) -> u16 {
        (u32::from(share) * u32::from(self.percent()) / 100) as u16
    }

    /// When time alone changes something: its ejection ends, its ramp moves, it keeps its clients no longer.
    pub(crate) fn next_move(&self, keep: Option<Duration>, now: Instant) -> Option<Instant> {
        [self.ejected_until, self.next_step(now), self.keeps_until(keep)].into_iter().flatten().min()
    }

    /// When its ramp moves next.
    fn next_step(&self, now: Instant) -> Option<Instant> {
        self.ramp?.next_step(now)
    }

    pub(crate) fn view(&self, has_checks: bool, now: Instant) -> MemberView {
        let state = if self.drain {
            if self.share == 0 { "drained" } else { "draining" }
        } else if self.is_up() && self.percent() == 0 {
            "drained"
        } else if self.ejected_until.is_some() {
            "ejected"
        } else if has_checks && !self.checked {
            "unknown"
        } else if self.is_up() {
            if self.percent() < 100 { "degraded" } else { "up" }
        } else {
            "down"
        };
        MemberView {
            healthy: self.is_healthy(),
            state,
            share: self.share,
            consecutive_failures: self.failures.max(self.local_failures),
            ejections: self.ejections,
            percent: self.percent(),
            last_change: self.last_change.map(|(kind, at)| (kind, now.saturating_duration_since(at))),
            ejected_for: self.ejected_until.map(|until| until.saturating_duration_since(now)),
            check_failure: match self.last_failure.filter(|_| !self.check_up || self.streak > 0) {
                None if !self.agent.up => Some(CheckFailure::Agent),
                failure => failure,
            },
            agent: self.agent.word(),
            keeps_clients: self.keeps_clients,
        }
    }
}
