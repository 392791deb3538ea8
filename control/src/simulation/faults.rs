//! What happens to the members: drawn from the seed, one thing after another, on a network that is bad in its own way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Plant;
use super::clients::Record;
use super::clocks;
use super::disk::{Fault, Random};
use super::member::{Ground, Life, Member, Memory};
use super::net::{Net, Weather};
use super::rollouts::OVER_MAX;
use super::scheduler::Scheduler;
use super::world::World;
use crate::consensus::{Role, Status};
use crate::plane::MemberChange;
use crate::state::{Command, RULES};

/// Once all is well again, a write takes no longer than this through any member: elections, back-offs of the engine and a
/// call that is still waited for are in it.
pub(super) const CALM: Duration = Duration::from_secs(15);
/// A member that was removed finds out within this when all is well.
const FIND_OUT_MAX: Duration = Duration::from_secs(4);
/// And has ended its streams, however slowly their last lines are read.
const END_MAX: Duration = Duration::from_secs(15);
/// Between two looks at everybody.
const LOOK: Duration = Duration::from_millis(10);
/// A restarted process is up again after this, at most.
const DOWN_MS: u64 = 3_000;

/// What may happen to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Crashes,
    Halves,
    OneWay,
    SlowDisk,
    FullDisk,
    Pause,
    Replace,
    Transfer,
    CutOff,
    LeftBehind,
    PowerCut,
    ForgetfulVoter,
    Restore,
    AnotherLife,
    Removal,
    Stranger,
    Leaps,
    Nothing,
}

/// As often as they stand here.
pub(super) const STEPS: &[Step] = &[
    Step::Crashes,
    Step::Crashes,
    Step::Halves,
    Step::OneWay,
    Step::SlowDisk,
    Step::FullDisk,
    Step::Pause,
    Step::Replace,
    Step::Transfer,
    Step::CutOff,
    Step::LeftBehind,
    Step::PowerCut,
    Step::ForgetfulVoter,
    Step::Restore,
    Step::AnotherLife,
    Step::Removal,
    Step::Stranger,
    Step::Leaps,
    Step::Nothing,
];

/// The members, and whoever does things to them.
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) random: Random,
    ground: Ground,
    pub(super) record: Record,
    pub(super) members: BTreeMap<u64, Member>,
    next: u64,
    /// Members that failed for their disk's sake, or lost their power: when they come up again.
    pub(super) down: BTreeMap<u64, Instant>,
    /// Of any life of the cluster.
    pub(super) backups: Vec<Vec<u8>>,
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Cluster {
    pub(super) fn new(seed: u64, world: World, scheduler: Scheduler) -> Self {
        let mut random = Random::new(seed);
        let memory = Memory { snapshot_every: 15 + random.below(60), keep: random.below(20) };
        let net = Net::new(seed, world.clone(), scheduler.clone());
        let uneven = random.below(2) == 0 || world.has(Plant::ClocksBeyondBounds);
        let record = Record::new(world.clone(), scheduler.clone(), uneven);
        let lives = Arc::new(AtomicU64::new(0));
        let ground = Ground { world: world.clone(), net, scheduler, memory, uneven, lives };
        clocks::begin();
        let (members, down, backups) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { world, random, ground, record, members, next: 1, down, backups }
    }

    /// Three members, or five; as the build before rules has it, or with rules from the first entry on.
    pub(super) async fn form(&mut self) {
        let count = [3, 3, 5][self.random.below(3) as usize];
        let cluster = "simulated".to_owned();
        let first = match self.random.below(2) {
            0 => Command::Init { cluster },
            _ => Command::Found { cluster, epoch: clocks::wall() / 1000, rules: RULES },
        };
        self.found(count, first).await;
    }

    /// New members make a cluster.
    pub(super) async fn found(&mut self, count: u64, name: Command) {
        self.world.note(format_args!("{count} members, {:?}", self.ground.memory));
        let first = self.add().await;
        let Some(life) = self.life(first) else { return };
        let node = life.node.clone();
        let initialized = self.record.ask(&life, CALM, async move { node.initialize().await }).await;
        if !matches!(initialized, Some(Ok(()))) {
            self.world.violation(format_args!("the first member does not begin: {initialized:?}"));
        }
        self.until("a first leader", |status| status.role == Role::Leader).await;
        for _ in 1..count {
            let node = self.add().await;
            if !self.change(first, self.join(node, None), CALM).await {
                self.world.violation(format_args!("m{node} does not join a cluster where all is well"));
            }
        }
        let plane = Arc::clone(&life.plane);
        if !matches!(self.record.ask(&life, CALM, async move { plane.propose(&name).await }).await, Some(Ok(_))) {
            self.world.violation("the cluster cannot be named");
        }
    }

    fn life(&self, id: u64) -> Option<Life> {
        self.members.get(&id)?.life.clone()
    }

    fn join(&self, node: u64, replace: Option<u64>) -> MemberChange {
        let info = self.members[&node].info();
        let info = (info.name, info.peer_address, info.api_address);
        MemberChange::Join { node, info, voter: true, replace }
    }

    /// A new member that is in no cluster yet.
    async fn add(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut member = Member::new(id, format!("m{id}:1"), self.ground.clone());
        member.boot().await;
        self.members.insert(id, member);
        self.show();
        id
    }

    /// Tells the clients who runs.
    pub(super) fn show(&self) {
        let running = self.members.values().filter_map(|member| Some((member.id, member.life.clone()?)));
        *self.record.members.lock().unwrap() = running.collect();
    }

    /// Asks for a change of the membership through a member until it holds.
    async fn change(&mut self, through: u64, change: MemberChange, within: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < within && self.world.is_good() {
            if let Some(life) = self.life(through) {
                let (plane, change) = (Arc::clone(&life.plane), change.clone());
                let changed =
                    self.record.ask(&life, ms(7_000), async move { plane.change_members(change).await }).await;
                if matches!(changed, Some(Ok(()))) {
                    return true;
                }
            }
            self.pass(ms(100)).await;
        }
        false
    }

    /// Lets time pass: looks at everybody, and brings up who is due.
    pub(super) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.world.is_good() {
            sleep(LOOK).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let lives: Vec<Life> = self.members.values().filter_map(|member| member.life.clone()).collect();
        let statuses: Vec<Status> = lives.iter().map(Life::status).collect();
        // Who leads counts silences once it has applied all that was decided before: without a quorum it does not come to that.
        let counts = |(life, status): &(&Life, &Status)| life.plane.keeps(status.term);
        let counting = lives.iter().zip(&statuses).filter(counts).map(|(_, status)| (status.id, status.term)).collect();
        self.world.looked(statuses.iter(), &counting);
        for life in &lives {
            let stopped = life.stopped();
            if let Some(why) = stopped.as_ref().filter(|_| !life.is_excused()) {
                self.world.violation(format_args!("m{} stops without a cause: {why}", life.id));
            }
            if life.is_dark() || stopped.is_some() {
                self.crash(life.id, false);
            }
        }
        let now = Instant::now();
        let due: Vec<u64> = self.down.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.boot(id).await;
        }
    }

    fn crash(&mut self, id: u64, power: bool) {
        let after = ms(self.random.below(DOWN_MS));
        // What it has published by now, others may have.
        self.record.look_at_tables();
        if let Some(member) = self.members.get_mut(&id) {
            member.crash(power);
            self.down.insert(id, Instant::now() + after);
        }
        self.show();
    }

    async fn boot(&mut self, id: u64) {
        self.down.remove(&id);
        if let Some(member) = self.members.get_mut(&id).filter(|member| member.life.is_none()) {
            member.boot().await;
        }
        self.show();
    }

    /// Waits for a member of whom something is true.
    async fn until(&mut self, what: &str, is: impl Fn(&Status) -> bool) -> Option<u64> {
        let began = Instant::now();
        while self.world.is_good() {
            let mut lives = self.members.values().filter_map(|member| member.life.as_ref());
            if let Some(found) = lives.find(|life| is(&life.status())) {
                return Some(found.id);
            }
            if began.elapsed() > CALM {
                self.world.violation(format_args!("{what} does not come"));
            }
            self.pass(LOOK).await;
        }
        None
    }

    fn leader(&self) -> Option<u64> {
        let mut lives = self.members.values().filter_map(|member| member.life.as_ref());
        lives.find(|life| life.status().role == Role::Leader).map(|life| life.id)
    }

    fn any(&mut self) -> u64 {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        ids[self.random.below(ids.len() as u64) as usize]
    }

    /// Rather the leader: that is where it hurts.
    fn victim(&mut self) -> u64 {
        match self.leader() {
            Some(leader) if self.random.below(2) == 0 => leader,
            _ => self.any(),
        }
    }

    fn weather(&mut self) -> Weather {
        match self.random.below(4) {
            0 => Weather::default(),
            1 => Weather { lost: 5 + self.random.below(80), ..Weather::default() },
            2 => Weather {
                late: 20 + self.random.below(300),
                late_ms: 30 + self.random.below(600),
                ..Weather::default()
            },
            _ => Weather {
                lost: self.random.below(60),
                late: self.random.below(150),
                late_ms: 20 + self.random.below(300),
                doubled: self.random.below(100),
            },
        }
    }

    /// Does everything that the seed says; `only`: these steps, in this order.
    pub(super) async fn suffer(&mut self, only: &[Step]) {
        let steps: Vec<Step> = match only.is_empty() {
            true => {
                let count = 5 + self.random.below(8);
                (0..count).map(|_| STEPS[self.random.below(STEPS.len() as u64) as usize]).collect()
            }
            false => only.to_vec(),
        };
        for step in steps {
            if !self.world.is_good() {
                return;
            }
            let weather = self.weather();
            self.ground.net.set_weather(weather);
            let length = ms(200 + self.random.below(2_500));
            self.world.note(format_args!("{step:?}"));
            match step {
                Step::Crashes => self.crashes(length).await,
                Step::Halves => self.halves(length).await,
                Step::OneWay => self.one_way(length).await,
                Step::SlowDisk => self.slow_disk(length).await,
                Step::FullDisk => self.full_disk(length).await,
                Step::Pause => self.pause(length).await,
                Step::Replace => self.replace().await,
                Step::Transfer => self.transfer(length).await,
                Step::CutOff => self.cut_off(length).await,
                Step::LeftBehind => self.left_behind().await,
                Step::PowerCut => self.power_cut_in_a_write(length).await,
                Step::ForgetfulVoter => self.forgetful_voter(length).await,
                Step::Restore => self.restore().await,
                Step::AnotherLife => self.another_life().await,
                Step::Removal => self.removal().await,
                Step::Stranger => self.stranger().await,
                Step::Leaps => self.leaps(length).await,
                Step::Nothing => self.pass(length).await,
            }
            let between = ms(self.random.below(1_500));
            self.pass(between).await;
        }
    }

    /// One member, some or all of them.
    async fn crashes(&mut self, length: Duration) {
        let all = self.random.below(6) == 0;
        let count = if all { self.members.len() as u64 } else { 1 + self.random.below(2) };
        let power = self.random.below(3) > 0;
        for at in 0..count {
            let id = if all { self.members.keys().copied().nth(at as usize).unwrap_or(1) } else { self.victim() };
            self.crash(id, power);
            if !all {
                let between = ms(self.random.below(300));
                self.pass(between).await;
            }
        }
        self.pass(length).await;
    }

    /// The power goes at some operation of the disk, in the middle of a transaction most likely.
    async fn power_cut_in_a_write(&mut self, length: Duration) {
        let id = self.victim();
        self.world.note(format_args!("m{id} is to lose power in a write"));
        if let Some(member) = self.members.get(&id) {
            member.fail_disk(self.random.below(60), Fault::PowerLoss);
        }
        self.pass(length).await;
    }

    /// A member that does not hear the leader asks one that does and that has just been restarted.
    async fn forgetful_voter(&mut self, length: Duration) {
        let Some(leader) = self.leader() else { return };
        let (deaf, restarted) = (self.any(), self.any());
        self.world.note(format_args!("m{leader} and m{deaf} do not hear each other"));
        self.ground.net.cut(leader, deaf);
        self.ground.net.cut(deaf, leader);
        self.pass(ms(600)).await;
        for _ in 0..3 {
            self.crash(restarted, false);
            self.boot(restarted).await;
            let between = ms(300 + self.random.below(300));
            self.pass(between).await;
        }
        self.pass(length).await;
        self.heal();
    }

    async fn halves(&mut self, length: Duration) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let here: Vec<u64> = ids.iter().copied().filter(|_| self.random.below(2) == 0).collect();
        self.world.note(format_args!("{here:?} are cut off from the others"));
        for one in &ids {
            for other in ids.iter().filter(|other| here.contains(one) != here.contains(other)) {
                self.ground.net.cut(*one, *other);
            }
        }
        self.pass(length).await;
        self.heal();
    }

    async fn one_way(&mut self, length: Duration) {
        for _ in 0..1 + self.random.below(3) {
            let (from, to) = (self.victim(), self.any());
            self.world.note(format_args!("m{from}->m{to} is cut"));
            self.ground.net.cut(from, to);
        }
        self.pass(length).await;
        self.heal();
    }

    fn heal(&self) {
        self.world.note("the network is whole");
        self.ground.net.heal();
    }

    async fn slow_disk(&mut self, length: Duration) {
        let (id, slow) = (self.victim(), 50 + self.random.below(3_000));
        self.world.note(format_args!("m{id}'s disk takes up to {slow} ms"));
        self.members[&id].slow(slow);
        self.pass(length + ms(slow)).await;
        self.members[&id].slow(0);
    }

    /// Its process ends by itself; when it comes up there is room again.
    async fn full_disk(&mut self, length: Duration) {
        let id = self.victim();
        self.world.note(format_args!("m{id}'s disk is full"));
        self.members[&id].fail_disk(self.random.below(20), Fault::Full);
        self.pass(length).await;
    }

    /// Longer than any lease, most of the time.
    async fn pause(&mut self, length: Duration) {
        let id = self.victim();
        self.world.note(format_args!("m{id} is stopped for {length:?}"));
        self.members[&id].pause();
        self.pass(length).await;
        self.world.note(format_args!("m{id} goes on"));
        if let Some(member) = self.members.get(&id) {
            member.resume();
        }
    }

    async fn transfer(&mut self, length: Duration) {
        let (to, through) = (self.any(), self.any());
        self.world.note(format_args!("m{to} is to lead"));
        if let Some(life) = self.life(through) {
            let plane = Arc::clone(&life.plane);
            let change = MemberChange::Transfer(to);
            // It may well fail in the middle of all this.
            let _ = self.record.ask(&life, ms(7_000), async move { plane.change_members(change).await }).await;
        }
        self.pass(length).await;
    }

    /// A new member takes the place of another, which is gone or goes.
    async fn replace(&mut self) {
        let old = self.any();
        self.ground.net.set_weather(Weather::default());
        let new = self.add().await;
        let through = self.members.keys().copied().find(|id| *id != old && *id != new).unwrap_or(new);
        self.world.note(format_args!("m{new} is to replace m{old}"));
        if self.random.below(2) == 0 {
            self.crash(old, true);
        }
        let replaced = self.change(through, self.join(new, Some(old)), ms(10_000)).await;
        self.world.count("replacements tried");
        if replaced && self.life(old).is_some() {
            self.leave(old).await;
        }
    }

    /// A member is removed while it runs, and is served from and written through.
    async fn removal(&mut self) {
        if self.members.len() <= 3 {
            let (new, through) = (self.add().await, self.any());
            self.change(through, self.join(new, None), ms(10_000)).await;
            self.world.count("members added");
        }
        let old = self.victim();
        let through = self.members.keys().copied().find(|id| *id != old).unwrap_or(old);
        self.world.note(format_args!("m{old} is to be removed"));
        self.change(through, MemberChange::Remove(old), ms(5_000)).await;
        let inside = self.settled().await.is_some_and(|inside| inside.contains(&old));
        if !inside && self.life(old).is_some() {
            self.leave(old).await;
        }
    }

    /// Members' clocks leap: as after a time in which their machines were stopped, or by less than anybody could notice.
    async fn leaps(&mut self, length: Duration) {
        for _ in 0..1 + self.random.below(3) {
            let (id, by) = (self.victim(), [100, 400, 1_000, 8_000][self.random.below(4) as usize]);
            if let Some(life) = self.life(id).filter(|_| self.ground.uneven) {
                self.world.note(format_args!("m{id}'s clock leaps by {by} ms"));
                clocks::leap(life.group, ms(by));
                self.record.leapt(ms(by));
                self.world.count("leaps of clocks");
            }
            let between = ms(self.random.below(800));
            self.pass(between).await;
        }
        self.pass(length).await;
    }

    /// A member runs, is in the proxies' lists, and is in no cluster yet: nobody stays with it.
    async fn stranger(&mut self) {
        self.calm().await;
        let id = self.add().await;
        self.world.note(format_args!("m{id} runs, and is in no cluster"));
        self.pass(ms(3_000)).await;
        let began = Instant::now();
        while self.world.is_good() && !self.write_anywhere().await && began.elapsed() < CALM {
            self.pass(ms(50)).await;
        }
        self.record.hold.store(true, Relaxed);
        self.follow().await;
        self.record.hold.store(false, Relaxed);
        if let Some(mut member) = self.members.remove(&id) {
            member.crash(false);
        }
        self.show();
    }

    async fn write_anywhere(&mut self) -> bool {
        match self.whoever() {
            Some(life) => self.record.write_at(&life).await,
            None => false,
        }
    }

    /// A removed member finds out, ends its streams and serves nobody; then its operator ends it.
    async fn leave(&mut self, id: u64) {
        self.ground.net.set_weather(Weather::default());
        // Who was removed before a word of its joining came through knows nobody who could tell: it is in no cluster, and says so.
        let heard = |life: &Life| !life.status().voters.is_empty();
        if !self.life(id).is_some_and(|life| heard(&life)) {
            self.world.count("members that were removed before they heard that they were in");
        }
        for (what, within) in [("does not find out", FIND_OUT_MAX), ("knows it, and streams on", END_MAX)] {
            let began = Instant::now();
            while let Some(life) = self.life(id).filter(|life| self.world.is_good() && heard(life)) {
                let streams = life.plane.hub.watchers();
                if life.plane.is_removed() && (streams == 0 || within == FIND_OUT_MAX) {
                    self.world.count("members that found out that they were removed, and ended their streams");
                    break;
                }
                if began.elapsed() > within {
                    self.world.violation(format_args!("m{id} was removed and {what}"));
                }
                self.pass(LOOK).await;
            }
        }
        if let Some(mut member) = self.members.remove(&id) {
            member.crash(false);
        }
        self.down.remove(&id);
        self.show();
    }

    /// The members, when all is well.
    async fn settled(&mut self) -> Option<Vec<u64>> {
        self.calm().await;
        let leader = self.until("a leader when all is well", |status| status.role == Role::Leader).await?;
        let status = self.life(leader)?.status();
        Some(status.voters.iter().chain(&status.learners).map(|member| member.node).collect())
    }

    /// One member misses so much that the others have no log of it any more.
    async fn left_behind(&mut self) {
        let id = self.any();
        self.isolate(id);
        let Memory { snapshot_every, keep } = self.ground.memory;
        self.pass(ms((snapshot_every + keep) * 60)).await;
        self.heal();
        self.pass(ms(500)).await;
    }

    fn isolate(&self, id: u64) {
        self.world.note(format_args!("m{id} is cut off"));
        for other in self.members.keys() {
            self.ground.net.cut(id, *other);
            self.ground.net.cut(*other, id);
        }
    }

    /// A follower is cut off from a cluster where all else is well, and comes back: nobody stands for election.
    async fn cut_off(&mut self, length: Duration) {
        self.ground.net.set_weather(Weather::default());
        self.calm().await;
        let Some((leader, term)) = self.steady() else { return };
        let follower = self.any();
        if follower == leader {
            return;
        }
        self.isolate(follower);
        let began = self.ground.lives.load(Relaxed);
        self.pass(length).await;
        self.heal();
        self.pass(ms(2_000)).await;
        let later = self.steady();
        let untouched = self.ground.lives.load(Relaxed) == began && self.down.is_empty();
        if untouched && later != Some((leader, term)) {
            self.world.violation(format_args!(
                "m{follower} comes back, and instead of m{leader} in term {term} there is {later:?}"
            ));
        }
        self.world.count("returns without an election");
    }

    /// Who leads in which term, if all agree.
    fn steady(&self) -> Option<(u64, u64)> {
        let leader = self.leader()?;
        let term = self.life(leader)?.status().term;
        let mut lives = self.members.values().filter_map(|member| member.life.as_ref());
        lives.all(|life| life.status().term == term).then_some((leader, term))
    }

    /// Whatever was done is undone, and everybody is up.
    pub(super) async fn calm(&mut self) {
        self.heal();
        self.ground.net.set_weather(Weather::default());
        for member in self.members.values() {
            member.slow(0);
            member.resume();
        }
        let waiting: Vec<u64> = self.down.keys().copied().collect();
        for id in waiting {
            self.boot(id).await;
        }
        self.pass(ms(3_000)).await;
    }

    /// All is well: everybody takes writes, and all come to the same state.
    pub(super) async fn recover(&mut self) {
        self.world.note("all is well");
        for member in self.members.values() {
            // Faults that have been drawn and have not come.
            member.spare();
        }
        let members = self.settled_members().await;
        for life in &members {
            let began = Instant::now();
            while self.world.is_good() && !self.record.write_at(life).await {
                if began.elapsed() > CALM {
                    self.world.violation(format_args!("m{} takes no write when all is well", life.id));
                }
                self.pass(ms(50)).await;
            }
        }
        self.record.stop.store(true, Relaxed);
        self.pass(ms(9_000)).await;
        self.end_of_rollouts(&members).await;
        self.loads_settle().await;
        for life in &members {
            self.record.read_all(life).await;
        }
        self.pass(ms(1_000)).await;
        self.agree(&members);
    }

    /// A rollout is everybody's or nobody's in the end.
    async fn end_of_rollouts(&mut self, members: &[Life]) {
        let began = Instant::now();
        while self.world.is_good() {
            let states = members.iter().map(|life| life.plane.state());
            let under_way: Vec<u64> = states.filter_map(|state| state.rollout().map(|rollout| rollout.id)).collect();
            let Some(id) = under_way.first() else { return };
            if began.elapsed() > OVER_MAX {
                self.world.violation(format_args!("rollout {id} does not end when all is well"));
            }
            self.pass(ms(200)).await;
        }
    }

    /// Those who are members when all is said; those that were removed end.
    async fn settled_members(&mut self) -> Vec<Life> {
        let Some(inside) = self.settled().await else { return Vec::new() };
        let outside: Vec<u64> = self.members.keys().copied().filter(|id| !inside.contains(id)).collect();
        for id in outside {
            if let Some(mut member) = self.members.remove(&id) {
                member.crash(false);
            }
            self.down.remove(&id);
        }
        self.show();
        inside.iter().filter_map(|id| self.life(*id)).collect()
    }

    fn agree(&self, members: &[Life]) {
        let mut states = members.iter().map(|life| {
            let published = life.plane.published();
            let published = published.borrow().clone();
            (life.id, published.index, published.state.encode().unwrap())
        });
        let Some((first, index, state)) = states.next() else { return };
        for (id, other_index, other) in states {
            if other_index != index {
                self.world.violation(format_args!("m{first} is at {index}, m{id} at {other_index}"));
            } else if other != state {
                self.world.violation(format_args!("m{first} and m{id} have different states at {index}"));
            }
        }
        self.world.note(format_args!("all are at {index}: {}", &blake3::hash(&state).to_hex()[..12]));
        if let Some(life) = members.first() {
            self.record.check_views("", &life.plane.state());
        }
    }
}
