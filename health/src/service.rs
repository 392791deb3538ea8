//! All backends of a service: who is checked when, who may be ejected, and when health is ignored.

use crate::event::{Event, EventKind, Outcome, Probe};
use crate::member::{MemberState, MemberView};
use crate::params::{CheckParams, Initial, Params};
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Events that nobody has asked for are forgotten beyond so many.
const EVENTS_MAX: usize = 10_000;
/// A backend that counts as down until it is checked is checked within this time.
const FIRST_CHECK: Duration = Duration::from_millis(100);

/// A member as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Stable identity: state hangs on it.
    pub id: &'a str,
    /// In percent.
    pub weight: u32,
    /// Whether it is being drained.
    pub drain: bool,
}

/// The health of a service's backends.
#[derive(Debug)]
pub struct ServiceHealth {
    params: Params,
    /// Sorted by id.
    members: Vec<MemberState>,
    random: u64,
    started: bool,
    panic: bool,
    events: VecDeque<Event>,
    /// A share has changed since it was asked.
    changed: bool,
    /// The last time it was told.
    now: Instant,
}

impl ServiceHealth {
    /// Without members yet. Equal seeds and equal histories give equal behaviour.
    #[must_use]
    pub fn new(params: Params, seed: u64, now: Instant) -> Self {
        Self {
            params,
            members: Vec::new(),
            random: seed,
            started: false,
            panic: false,
            events: VecDeque::new(),
            changed: true,
            now,
        }
    }

    /// Changes the parameters; states stay, schedules follow at their next turn.
    pub fn set_params(&mut self, params: Params, now: Instant) {
        self.now = now;
        let gained = self.params.check.is_none() && params.check.is_some();
        let lost = self.params.check.is_some() && params.check.is_none();
        self.params = params;
        for index in 0..self.members.len() {
            if lost {
                let member = &mut self.members[index];
                (member.next_check, member.checking) = (None, false);
                if !std::mem::replace(&mut member.up, true) {
                    member.ramp_up(params.slow_start, now);
                }
            } else if gained {
                self.schedule_first(index);
            } else if let (Some(check), Some(next)) = (params.check, self.members[index].next_check) {
                // A shorter interval holds at once.
                let latest = now + self.members[index].check_interval(&check);
                self.members[index].next_check = Some(next.min(latest));
            }
        }
        self.settle(now);
    }

    /// Changes the membership: who stays keeps all that is known of him.
    pub fn set_members(&mut self, members: &[Member<'_>], now: Instant) {
        self.now = now;
        let ids: HashSet<&str> = members.iter().map(|member| member.id).collect();
        self.members.retain(|state| ids.contains(state.id.as_str()));
        for member in members {
            let index = match self.find(member.id) {
                Ok(index) => index,
                Err(index) => {
                    let mut state = MemberState::new(member.id, self.params.check.as_ref());
                    // What the fleet begins with has its share at once; who joins it later comes along the ramp.
                    if self.started && !member.drain && state.up {
                        state.ramp_up(self.params.slow_start, now);
                    }
                    self.members.insert(index, state);
                    self.schedule_first(index);
                    self.members[index].drain = member.drain;
                    index
                }
            };
            let state = &mut self.members[index];
            state.weight = member.weight;
            if member.drain && !state.drain {
                state.ramp_down(self.params.drain_ramp, now);
                state.drain = true;
                self.tell(index, EventKind::Draining);
            } else if !member.drain && state.drain {
                state.drain = false;
                state.ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Undrained);
            }
        }
        self.started = true;
        self.settle(now);
    }

    /// An active check has ended.
    pub fn handle_probe(&mut self, id: &str, probe: Probe, now: Instant) {
        self.now = now;
        let (Ok(index), Some(check)) = (self.find(id), self.params.check) else { return };
        let member = &mut self.members[index];
        if member.handle_probe(probe, &check) {
            match probe {
                Probe::Success => {
                    member.ramp_up(self.params.slow_start, now);
                    self.tell(index, EventKind::Up);
                }
                Probe::Failure(failure) => self.tell(index, EventKind::Down(failure)),
            }
        }
        // From one start to the next: the check's own time is part of the interval.
        let member = &self.members[index];
        let interval = self.params.check.map(|check| member.check_interval(&check)).unwrap_or_default();
        let began = member.next_check.unwrap_or(now);
        let shortened = interval.mul_f64(1.0 - check.jitter * self.fraction());
        self.members[index].next_check = Some((began + shortened).max(now));
        self.settle(now);
    }

    /// A request of live traffic has ended.
    pub fn handle_outcome(&mut self, id: &str, outcome: Outcome, now: Instant) {
        self.now = now;
        let Ok(index) = self.find(id) else { return };
        let params = self.params.outlier;
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::ConnectionFailure | Outcome::ConnectTimeout | Outcome::Timeout => true,
            Outcome::Status(status) => params.on.counts(status),
        };
        let member = &mut self.members[index];
        if !failed {
            member.failures = 0;
            return;
        }
        if params.consecutive_failures == 0 || member.ejected_until.is_some() {
            return;
        }
        member.failures = match outcome {
            // Nobody answers there: each more that tries would wait as long.
            Outcome::ConnectTimeout => params.consecutive_failures.max(member.failures + 1),
            _ => member.failures.saturating_add(1),
        };
        let failures = member.failures;
        if failures < params.consecutive_failures {
            return;
        }
        if self.may_eject_another() {
            let jitter = self.fraction();
            let duration = self.members[index].eject(&params, jitter, now);
            self.tell(index, EventKind::Ejected { failures, duration });
            self.settle(now);
        } else if failures == params.consecutive_failures {
            self.tell(index, EventKind::EjectionWithheld);
        }
    }

    fn may_eject_another(&self) -> bool {
        let ejected = self.members.iter().filter(|member| member.ejected_until.is_some()).count();
        let allowed = self.members.len() * self.params.outlier.max_ejection_percent as usize / 100;
        // One always may, if that leaves somebody.
        let allowed = allowed.max(usize::from(self.members.len() > 1));
        ejected < allowed
    }

    /// Time has passed: ejections end, ramps move.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.members.len() {
            if self.members[index].ejected_until.is_some_and(|until| until <= now) {
                self.members[index].return_from_ejection(now);
                self.members[index].ramp_up(self.params.slow_start, now);
                self.tell(index, EventKind::Returned);
            }
        }
        self.settle(now);
    }

    /// When [`ServiceHealth::handle_timeout`] or [`ServiceHealth::poll_probe`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members
            .iter()
            .flat_map(|member| {
                let check = member.next_check.filter(|_| !member.checking);
                [check, member.ejected_until, member.next_step(self.now)]
            })
            .flatten()
            .min()
    }

    /// A backend whose check is due; the check counts as begun. Call until `None`.
    pub fn poll_probe(&mut self, now: Instant) -> Option<String> {
        self.now = now;
        let due = |member: &&mut MemberState| !member.checking && member.next_check.is_some_and(|at| at <= now);
        let member = self.members.iter_mut().filter(due).min_by_key(|member| member.next_check)?;
        member.checking = true;
        // The interval runs from here.
        member.next_check = Some(now);
        Some(member.id.clone())
    }

    /// What has happened since; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether any share has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Share of its keys that a backend takes now: 0 none, 65535 all.
    #[must_use]
    pub fn share(&self, id: &str) -> Option<u16> {
        self.find(id).ok().map(|index| self.members[index].share)
    }

    /// Whether a success would now change something: its last outcome was a failure.
    #[must_use]
    pub fn is_suspect(&self, id: &str) -> bool {
        self.find(id).is_ok_and(|index| self.members[index].failures > 0)
    }

    /// Whether health is being ignored.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// A backend as the status shows it.
    #[must_use]
    pub fn view(&self, id: &str, now: Instant) -> Option<MemberView> {
        self.find(id).ok().map(|index| self.members[index].view(self.params.check.is_some(), now))
    }

    fn find(&self, id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.id.as_str().cmp(id))
    }

    fn tell(&mut self, index: usize, kind: EventKind) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(Event { id: self.members[index].id.clone(), kind });
        }
    }

    /// First checks are spread over an interval, so that they never all fall together.
    fn schedule_first(&mut self, index: usize) {
        let Some(check) = self.params.check else { return };
        let CheckParams { interval, initial, .. } = check;
        let spread = if initial == Initial::Down { interval.min(FIRST_CHECK) } else { interval };
        let offset = spread.mul_f64(self.fraction());
        self.members[index].next_check = Some(self.now + offset);
    }

    /// Works out all shares, and whether there is panic.
    fn settle(&mut self, now: Instant) {
        let (mut all, mut healthy) = (0, 0);
        for member in &mut self.members {
            member.update_share(now);
            if !member.drain {
                all += u64::from(member.weight);
                healthy += if member.is_healthy() { u64::from(member.weight) } else { 0 };
            }
        }
        let panic = all > 0 && healthy * 100 < u64::from(self.params.panic_threshold_percent) * all;
        if panic != self.panic {
            self.panic = panic;
            let kind = if panic { EventKind::PanicBegan } else { EventKind::PanicEnded };
            self.events.push_back(Event { id: String::new(), kind });
        }
        for member in &mut self.members {
            // In panic the unhealthy take their keys back; the healthy keep their ramps, and who drains goes on draining.
            let share = if panic && !member.is_healthy() { member.share_if_healthy(now) } else { member.own_share };
            self.changed |= share != member.share;
            member.share = share;
        }
    }

    /// A number from 0 to 1: SplitMix64 (Steele, Lea, Flood, 2014).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
