//! Proxies: the product's client with its cache on a disk, without its sockets. What `src/fleet.rs` does with a topology is done
//! here as it does it, but for the building: it takes its time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ringway_config::model::MemberUrl;
use tokio::time::{Instant, sleep, timeout};

use super::Plant;
use super::clients::Record;
use super::disk::Random;
use super::loads::{Balance, LIE};
use super::member::Life;
use super::rollouts::Mark;
use super::scheduler::Group;
use super::watchers::Stream;
use crate::client::{BACKOFF, Client, FRESH_MS, HEARTBEAT, is_stale};
use crate::member::client_settings;
use crate::state::{Rollout, Vote};
use crate::watch::view::View;
use crate::watch::wire::{Heartbeat, RolloutView};

/// Their lives are numbered from here on: members' are below.
const FIRST_LIFE: Group = 1 << 40;
/// How often another member is looked for, while the one that is followed has no leader.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How long a member has to say how old its leader's last word is.
const AGE_WAIT: Duration = Duration::from_secs(2);

/// A proxy's process. All clones are one.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) record: Record,
    pub(super) client: Arc<Client>,
    pub(super) instance: u64,
    stand: Arc<Mutex<Stand>>,
    pub(super) requests: Arc<AtomicU64>,
    pub(super) balance: Arc<Mutex<Balance>>,
}

/// What is in force.
#[derive(Default)]
pub(super) struct Stand {
    pub(super) applied: Option<View>,
    canary: Option<u64>,
    vote: Option<(u64, Vote)>,
    stuck: Option<String>,
}

impl Record {
    /// A proxy on a disk of its own, which outlives its processes.
    pub(super) async fn proxy(self, number: u64, mut random: Random) {
        let Ok(disk) = directory() else { return self.world.violation("there is no place for proxies' disks") };
        let name = format!("p{number}");
        for life in 0.. {
            let group = FIRST_LIFE + number * 1_000 + life;
            let mut settings = client_settings(&["http://m:1".to_owned()], None, None);
            settings.directory = disk.path().to_owned();
            let client = match Client::new(&settings, name.clone()) {
                Ok(client) => Arc::new(client),
                Err(error) => return self.world.violation(format_args!("{name} does not start: {error}")),
            };
            let stored = client.topology().known();
            let at = stored.as_ref().map(|view| (view.epoch, view.revision));
            self.world.note(format_args!("{name} starts with {at:?}"));
            if let Some(view) = &stored {
                self.world.check_view(&name, view);
            }
            self.saw(&name, stored.as_deref().cloned());
            let (stand, requests) = (Arc::default(), Arc::default());
            let balance = Arc::new(Mutex::new(Balance::new(number, random.below(4) == 0)));
            let proxy = Proxy { record: self.clone(), client, instance: group, stand, requests, balance };
            self.proxies.lock().unwrap().insert(number, proxy.clone());
            let mut random = || Random::new(random.below(u64::MAX));
            drop(self.scheduler.spawn(group, proxy.clone().follow(random())));
            drop(self.scheduler.spawn(group, proxy.clone().report(random())));
            drop(self.scheduler.spawn(group, proxy.clone().tell_loads(random())));
            drop(self.scheduler.spawn(group, proxy.clone().apply(random())));
            sleep(Duration::from_millis(3_000 + random().below(20_000))).await;
            while self.stopped() {
                sleep(BACKOFF.1).await;
            }
            self.world.note(format_args!("{name} is killed"));
            self.world.count("proxies killed");
            self.scheduler.kill(group);
            sleep(Duration::from_millis(random().below(1_000))).await;
        }
    }

    /// All processes that serve, by their ids: what a proxy has for a list.
    pub(super) fn listed(&self) -> Vec<Life> {
        self.members.lock().unwrap().values().filter(|life| !life.plane.is_removed()).cloned().collect()
    }
}

/// In memory, where there is such a place: what it costs to sync is none of the simulation's time.
fn directory() -> std::io::Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

impl Proxy {
    pub(super) fn stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap()
    }

    /// As [`Client::follow`].
    async fn follow(self, mut random: Random) {
        let mut from = random.below(5) as usize;
        let mut wait = BACKOFF.0;
        loop {
            let members = self.record.listed();
            let began = Instant::now();
            if let Some(life) = members.get(from % members.len().max(1)) {
                let better = self.follow_one(life, &mut random).await;
                from = better
                    .map_or(from + 1, |id| self.record.listed().iter().position(|life| life.id == id).unwrap_or(0));
            }
            if began.elapsed() > BACKOFF.1 {
                wait = BACKOFF.0;
            }
            sleep(Duration::from_millis(random.below(wait.as_millis() as u64))).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Until the stream ends; the member that is to be followed next, where it matters.
    async fn follow_one(&self, life: &Life, random: &mut Random) -> Option<u64> {
        let member = MemberUrl { tls: false, host: format!("m{}", life.id), port: 1 };
        let name = self.client.name().to_owned();
        let mut stream = Stream::open(&self.record, &name, life, self.client.topology().position(), true);
        self.begin_tables();
        let mut looked: Option<Instant> = None;
        loop {
            sleep(Duration::from_millis(random.below(20))).await;
            let message = stream.next().await?;
            if self.take_tables(&message) {
                continue;
            }
            if is_stale(&message) && looked.is_none_or(|at| at.elapsed() > LOOK_AROUND) {
                looked = Some(Instant::now());
                if let Some(better) = self.led(life.id).await {
                    self.record.world.count("proxies that left a member without a leader");
                    return Some(better);
                }
            }
            let before = self.place();
            if let Err(error) = self.client.topology().take(&member, message) {
                self.record.world.note(format_args!("{name} leaves m{}: {error}", life.id));
                self.record.world.count("lines that proxies have not taken");
                return None;
            }
            if self.place() < before {
                let after = self.place();
                self.record.world.violation(format_args!("{name} goes back from {before:?} to {after:?}"));
            }
            let known = self.client.topology().known();
            if let Some(view) = &known {
                self.record.world.check_view(&name, view);
            }
            self.record.saw(&name, known.as_deref().cloned());
        }
    }

    fn place(&self) -> Option<(u64, u64)> {
        self.client.topology().known().map(|view| (view.epoch, view.revision))
    }

    /// A member that has heard of a leader just now.
    async fn led(&self, than: u64) -> Option<u64> {
        for life in self.record.listed().into_iter().filter(|life| life.id != than) {
            let plane = Arc::clone(&life.plane);
            let age = self.record.ask(&life, AGE_WAIT, async move { plane.leader_age() }).await.flatten();
            if age.is_some_and(|age| age.as_millis() as u64 <= FRESH_MS) {
                return Some(life.id);
            }
        }
        None
    }

    /// As [`Client::report`].
    async fn report(self, mut random: Random) {
        let mut from = 0;
        loop {
            let wait = HEARTBEAT.mul_f64(0.8 + random.below(200) as f64 / 1_000.0);
            let _ = timeout(wait, self.client.topology().heartbeat_wanted()).await;
            sleep(Duration::from_millis(20)).await;
            let members = self.record.listed();
            for _ in 0..members.len() {
                let life = &members[from % members.len()];
                let (plane, name, said) = (Arc::clone(&life.plane), self.client.name().to_owned(), self.heartbeat());
                let told = self.record.ask(life, HEARTBEAT, async move { plane.heartbeat(name, said).await }).await;
                if matches!(told, Some(Ok(()))) {
                    self.record.world.count("heartbeats of proxies");
                    break;
                }
                from += 1;
            }
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let stand = self.stand();
        let applied = stand.applied.as_ref();
        let mut requests = self.requests.fetch_add(10, Relaxed);
        if self.balance().lies && self.record.world.has(Plant::LiesWithoutContradiction) {
            requests *= LIE;
        }
        Heartbeat {
            version: "simulated".into(),
            epoch: applied.map_or(0, |view| view.epoch),
            revision: applied.map_or(0, |view| view.revision),
            digest: applied.map(|view| view.digest.to_string()).unwrap_or_default(),
            rings: Default::default(),
            stuck: stand.stuck.clone(),
            generation: 1,
            vote: stand.vote.clone(),
            down: Vec::new(),
            requests,
            failed: 0,
            canary: stand.canary,
            instance: self.instance,
            cluster: applied.map(|view| view.cluster.clone()).unwrap_or_default(),
        }
    }

    /// Puts into force what the fleet has agreed on, one at a time, and votes on what it has not yet.
    async fn apply(self, mut random: Random) {
        let mut view = self.client.view();
        loop {
            let now = view.borrow_and_update().clone();
            if let Some(now) = now {
                let slow = [20, 20, 20, 200, 2_000][random.below(5) as usize];
                sleep(Duration::from_millis(random.below(slow))).await;
                self.put_into_force(&now);
                self.client.heartbeat_now();
            }
            if view.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn put_into_force(&self, view: &View) {
        let name = self.client.name();
        let everybody = self.record.world.has(Plant::CanariesForAll);
        let goes_first = |rollout: &&RolloutView| everybody || Rollout::in_cohort(rollout.id, name, rollout.percent);
        let canary = view.rollout.as_ref().filter(goes_first).map(|rollout| rollout.id);
        let next = match everybody {
            true => view.candidate().unwrap_or_else(|| view.clone()),
            false => view.in_force(name),
        };
        let mut stand = self.stand();
        self.vote(&mut stand, view);
        if Mark::of(&next).is_some_and(|mark| mark.is_stuck_at(name)) {
            stand.stuck = Some("it cannot be put into force here".to_owned());
            return;
        }
        self.record.world.in_force(name, view, &next);
        (stand.applied, stand.canary, stand.stuck) = (Some(next), canary, None);
        if canary.is_none()
            && let Err(error) = self.client.cache().store(view)
        {
            self.record.world.violation(format_args!("{name} cannot store its topology: {error}"));
        }
    }

    fn vote(&self, stand: &mut Stand, view: &View) {
        let (Some(rollout), Some(candidate)) = (&view.rollout, view.candidate()) else {
            stand.vote = None;
            return;
        };
        if stand.vote.as_ref().is_some_and(|(id, _)| *id == rollout.id) {
            return;
        }
        let rings = candidate.digest.to_string();
        let digest = Vote::digest(candidate.epoch, candidate.revision, &rings);
        let refuses = Mark::of(&candidate).is_some_and(|mark| mark.is_refused_by(self.client.name()));
        let refusal = refuses.then(|| "it does not fit this file".to_owned());
        stand.vote = Some((rollout.id, Vote { refusal, digest, moved_ppm: 0 }));
    }
}
