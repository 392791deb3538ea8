//! What a member does without being asked: it sees which member leads, and does what a leader has to do while it is the one.

use super::at_work::{Lead, Leadership, Plane, changed};
use super::questions::{Question, Reply};
use super::views::LeaderSeen;
use crate::consensus::replica::decode_answer;
use crate::consensus::{Read, Role, Status};
use crate::lessor::{Lessor, PROXY_TTL};
use crate::state::{Command, Phase, RULES, State, to_bytes};
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a leader asks members which rules they know, as long as they may not all know the newest.
const RULES_PACE: Duration = Duration::from_millis(500);
/// How long a cause may take to be told.
const CAUSE_TIME: Duration = Duration::from_secs(5);
/// How often the leader looks whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// How often a member looks whether it leads: what it could not hear in between is known that exactly.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How often a member that hears of no leader asks the others whether it is still one of them, and how long each may take.
const REMOVAL_PACE: Duration = Duration::from_millis(500);
/// Revisions from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 1000;

impl Plane {
    /// Does what the leader has to do, while this member leads. Returns when the member must stop, with the reason.
    pub async fn run(&self) -> String {
        // Side by side: what waits for a quorum must keep nobody from seeing that there is none.
        tokio::select! {
            biased;
            () = self.hub.run(self.published.clone()) => self.why_machine_has_gone().await,
            failure = self.node.failed() => failure.to_string(),
            why = self.watch_failure() => why,
            never = self.watch_leadership() => match never {},
            never = self.agree_on_rules() => match never {},
            never = self.watch_removal() => match never {},
            never = self.work() => match never {},
            never = self.work_on_loads() => match never {},
        }
    }

    async fn watch_failure(&self) -> String {
        let mut published = self.published.clone();
        let failed = published.wait_for(|now| now.failed.is_some()).await.map(|now| now.failed.clone());
        match failed {
            Ok(why) => why.unwrap_or_default(),
            Err(_) => self.why_machine_has_gone().await,
        }
    }

    /// The state machine ends with the engine, and that by a cause of its own, such as a full disk, which it may tell a moment later.
    async fn why_machine_has_gone(&self) -> String {
        match tokio::time::timeout(CAUSE_TIME, self.node.failed()).await {
            Ok(failure) => failure.to_string(),
            Err(_) => "the state machine is gone".into(),
        }
    }

    /// Sees which member leads, and has the lessor know when nobody could be heard.
    async fn watch_leadership(&self) -> Infallible {
        let mut status = self.node.watch_status();
        let mut led = false;
        let mut over = self.state().rollouts.last().map_or(0, |(id, _)| *id);
        loop {
            let now = self.node.status();
            let leads = now.role == Role::Leader;
            self.note_leadership(&now);
            over = self.note_rollouts(&self.state(), over);
            if std::mem::replace(&mut led, leads) && !leads {
                self.lapses.fetch_add(1, Relaxed);
                let members = self.who_answers();
                tracing::warn!(
                    term = now.term,
                    role = now.role.name(),
                    members,
                    "this member leads no more, or has no quorum"
                );
            }
            let follows = leads || (now.leader.is_some() && matches!(now.role, Role::Follower | Role::Learner));
            if follows {
                *self.leader_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            let lead = if follows { Lead::Followed } else { Lead::Lost };
            self.lead.send_if_modified(|known| {
                // Nobody comes back under an id that was removed.
                *known != Lead::Removed && std::mem::replace(known, lead) != lead
            });
            if let Some((term, lessor)) = &mut *self.lessor() {
                match leads && *term == now.term {
                    true => lessor.handle_led((self.clock)()),
                    false => lessor.handle_lapse(),
                }
            }
            tokio::select! {
                biased;
                () = changed(&mut status) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Finds out that this member was removed: its leader stops to speak to it, often before it has heard why.
    async fn watch_removal(&self) -> Infallible {
        let mut lead = self.lead.subscribe();
        loop {
            let _ = lead.wait_for(|lead| *lead == Lead::Lost).await;
            tokio::time::sleep(REMOVAL_PACE).await;
            if *lead.borrow() != Lead::Lost || !self.others_have_removed_it().await {
                continue;
            }
            self.lead.send_replace(Lead::Removed);
            tracing::error!(
                "this member was removed from the control plane: it serves nobody any more; end the process, or give it an empty \
                 directory and let it join anew"
            );
            return std::future::pending().await;
        }
    }

    /// One that knows is enough: what is in a member's list was decided by a quorum.
    async fn others_have_removed_it(&self) -> bool {
        let status = self.node.status();
        let Ok(question) = Question::Removed(status.id).encode(self.state().rules) else { return false };
        for member in status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id) {
            let answer = self.node.ask(member.node, &member.info, question.clone(), REMOVAL_PACE).await;
            if answer.is_ok_and(|answer| matches!(Reply::decode(&answer), Reply::Removed(true))) {
                return true;
            }
        }
        false
    }

    /// Proposes what is due, while this member leads.
    async fn work(&self) -> Infallible {
        let mut status = self.node.watch_status();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checkpoint = 0;
        let mut reading: Option<JoinHandle<()>> = None;
        loop {
            let due = tokio::select! {
                biased;
                _ = tick.tick() => true,
                () = self.wake.notified() => false,
                _ = status.wait_for(|status| status.role == Role::Leader && status.term > self.kept.borrow().0) => false,
            };
            let now = self.node.status();
            if now.role != Role::Leader || !self.begin(now.term).await {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let state = self.state();
            let commands = match &mut *self.lessor() {
                Some((term, lessor)) if *term == now.term => {
                    let (at_ms, time) = ((self.wall)(), (self.clock)());
                    match due {
                        true => lessor.handle_tick(&state, now.id, at_ms, time),
                        false => lessor.handle_wake(&state, now.id, at_ms, time),
                    }
                }
                _ => continue,
            };
            if reading.as_ref().is_none_or(JoinHandle::is_finished) && self.parsed.take_wanted() {
                // What is due by it is due a tick later: nobody is to wait for a text of a megabyte.
                let (parsed, state) = (Arc::clone(&self.parsed), Arc::clone(&state));
                reading = Some(tokio::task::spawn_blocking(move || drop(parsed.read_written(&state))));
            }
            for command in commands {
                self.lead_in(now.term, &command).await;
            }
            if state.revision >= checkpoint + CHECKPOINT_EVERY {
                checkpoint = state.revision;
                let digest = state.digest.to_string();
                self.lead(&Command::Checkpoint { revision: state.revision, digest }).await;
            }
        }
    }

    /// A leader keeps nothing before it has applied all that was decided under those before it. `false`: it leads no more.
    async fn begin(&self, term: u64) -> bool {
        if self.kept.borrow().0 == term {
            return true;
        }
        if self.node.read_barrier(Read::Index).await.is_err() || self.node.status().term != term {
            return false;
        }
        let now = (self.clock)();
        let lessor = Lessor::new(now).with_forget(self.forget).with_tables(self.loads.hub.fresh(now));
        *self.lessor() = Some((term, lessor.with_parsed(Arc::clone(&self.parsed))));
        self.kept.send_replace((term, 0));
        true
    }

    /// Since when the present leader has led, as far as it was seen here. Not to hear of it for a moment does not end that.
    fn note_leadership(&self, now: &Status) {
        let Some((node, info)) = &now.leader else {
            if let (Some((term, node)), false) = (self.leadership().0, self.leaderless.swap(true, Relaxed)) {
                tracing::warn!(
                    term,
                    node,
                    "the leader is not heard of any more: an election follows, if a quorum is there"
                );
            }
            return;
        };
        let again = self.leaderless.swap(false, Relaxed);
        let leader = Some((now.term, *node));
        let mut leadership = self.leadership();
        if leadership.0 == leader {
            if again {
                tracing::info!(term = now.term, leader = info.name, node, "the leader is heard of again");
            }
            return;
        }
        if self.led.swap(true, Relaxed) {
            self.leader_changes.fetch_add(1, Relaxed);
        }
        let (own, after) = (*node == now.id, leadership.0.map(|(_, node)| node));
        tracing::info!(term = now.term, leader = info.name, node, own, ?after, "a member leads");
        *leadership = (leader, Instant::now());
        drop(leadership);
        let at_ms = (self.wall)();
        self.note_leader(LeaderSeen { term: now.term, node: *node, name: info.name.clone(), at_ms });
    }

    /// Counts rollouts after `counted` that are over; what to go on after.
    fn note_rollouts(&self, state: &State, counted: u64) -> u64 {
        let mut last = counted;
        for (id, rollout) in state.rollouts.range(counted + 1..) {
            let over = match &rollout.phase {
                Phase::Committed(_) => &self.rollouts_over[0],
                Phase::Aborted(_) => &self.rollouts_over[1],
                Phase::Preparing | Phase::Stage(_) => break,
            };
            over.fetch_add(1, Relaxed);
            last = *id;
        }
        last
    }

    pub(super) fn leadership(&self) -> MutexGuard<'_, Leadership> {
        self.leadership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the leader has led for long enough to have heard of every proxy that lives.
    #[must_use]
    pub fn knows_fleet(&self) -> bool {
        let leadership = self.leadership();
        leadership.0.is_some() && leadership.1.elapsed() > PROXY_TTL
    }

    /// As leader, has the newest rules hold that all members know.
    async fn agree_on_rules(&self) -> Infallible {
        let mut told = String::new();
        loop {
            tokio::time::sleep(RULES_PACE).await;
            let (state, status) = (self.state(), self.node.status());
            if state.rules >= RULES || state.cluster.is_empty() || status.role != Role::Leader {
                continue;
            }
            match self.rules_of_all(&status).await {
                Ok(version) if version > state.rules => drop(self.lead(&Command::Rules { version }).await),
                Ok(_) => {}
                Err(without) if without == told => {}
                Err(without) => {
                    tracing::info!(
                        members = without,
                        rules = RULES,
                        "these members are of an earlier version, or away: until all have been upgraded, the cluster goes \
                         by the rules of that version"
                    );
                    told = without;
                }
            }
        }
    }

    /// The newest rules that every member knows, those without a vote too; or the names of those that know none.
    async fn rules_of_all(&self, status: &Status) -> Result<u32, String> {
        let others = status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id);
        let mut version = RULES;
        let mut without = Vec::new();
        for member in others {
            let Ok(question) = Question::Rules.encode(0) else { return Ok(0) };
            match self.ask(member.node, &member.info, question).await {
                Reply::Rules(known) if known > 0 => version = version.min(known),
                _ => without.push(member.info.name.as_str()),
            }
        }
        if without.is_empty() { Ok(version) } else { Err(without.join(", ")) }
    }

    /// Proposes what the lessor of this term has seen: another would see something else.
    async fn lead_in(&self, term: u64, command: &Command) {
        if self.node.status().term == term && self.lead(command).await {
            match &mut *self.lessor() {
                Some((of, lessor)) if *of == term => lessor.handle_decided(command),
                _ => {}
            }
        }
        if matches!(command, Command::LeaseLives { .. }) {
            self.kept.send_modify(|(_, count)| *count += 1);
        }
    }

    /// Proposes as leader; a leader that is none any more has nothing to propose. `true`: it is decided, and applied here.
    async fn lead(&self, command: &Command) -> bool {
        let command = self.still_fits(command).await;
        if let Err(error) = self.is_known_to_all(&command) {
            tracing::error!(%error, "a leader's proposal");
            return false;
        }
        let Ok(bytes) = to_bytes(&*command) else { return false };
        match self.put(bytes).await {
            Ok(proposed) => {
                // What follows may be due at once.
                self.wake.notify_one();
                if let Err(refusal) = decode_answer(&proposed.answer) {
                    tracing::debug!(code = refusal.code, %refusal, "a leader's proposal was refused");
                    return false;
                }
                match &*command {
                    Command::RolloutAbort { id, reason } => tracing::warn!(rollout = id, reason, "rollout aborted"),
                    Command::RolloutCommit { id, .. } => tracing::info!(rollout = id, "rollout committed"),
                    Command::LeaseExpire { ids, .. } => tracing::warn!(leases = ids.len(), "leases have expired"),
                    Command::RaiseEpoch { to, .. } => tracing::warn!(epoch = to, "the epoch is raised"),
                    Command::Rules { version } => tracing::info!(rules = version, "all members know these rules"),
                    _ => {}
                }
                self.applied(proposed.index).await
            }
            Err(error) => {
                tracing::debug!(%error, "a leader's proposal came to nothing");
                false
            }
        }
    }

    /// A rollout that does not fit what has changed since it began ends here, or the leader would ask for ever.
    async fn still_fits<'a>(&self, command: &'a Command) -> Cow<'a, Command> {
        if let Command::RolloutCommit { id, .. } = command
            && self.state().rules > 0
            && let Err(refusal) = self.judge_here(command).await
        {
            let reason = format!("it does not fit what has changed meanwhile: {refusal}");
            return Cow::Owned(Command::RolloutAbort { id: *id, reason });
        }
        Cow::Borrowed(command)
    }
}
