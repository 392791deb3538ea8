//! Clients that read, write and compare-and-set through any member, keep a lease alive, and remember all they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Plant;
use super::disk::Random;
use super::leases::Holder;
use super::linear::{self, Call, Operation};
use super::member::Life;
use super::proxies::Proxy;
use super::scheduler::Scheduler;
use super::world::{World, is_of};
use crate::consensus::{Read, Role};
use crate::plane::PlaneError;
use crate::state::{Author, Backend, Command, Condition, Digest, Key, Object, Op, State, Txn};
use crate::watch::view::View;

/// The registers.
pub(super) const KEYS: [&str; 3] = ["a", "b", "c"];
/// Of the lease that is kept alive.
const LEASE: Duration = Duration::from_secs(3);
/// Longer than a member takes to say that it does not know.
const PATIENCE_MS: u64 = 8_000;

/// What became of a write of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    Failed,
    Unknown,
}

#[derive(Default)]
struct Told {
    operations: Vec<(usize, Operation)>,
    writes: BTreeMap<u64, Outcome>,
    /// What the registers were at first, or after the last restore.
    initial: [u64; KEYS.len()],
}

/// What the clients share. All clones are one.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) world: World,
    pub(super) scheduler: Scheduler,
    /// Members' clocks run at speeds of their own.
    pub(super) uneven: bool,
    /// Leaps of clocks that nobody could notice, and when they were.
    pub(super) leaps: Arc<Mutex<Vec<(Instant, Duration)>>>,
    pub(super) holder: Arc<Mutex<Holder>>,
    /// Processes that run.
    pub(super) members: Arc<Mutex<BTreeMap<u64, Life>>>,
    told: Arc<Mutex<Told>>,
    next_value: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
    /// Nobody is to begin anything.
    pub(super) hold: Arc<AtomicBool>,
    /// Restores so far: what clients knew before one is not so after it.
    restores: Arc<AtomicU64>,
    /// Clients that are about something.
    pub(super) busy: Arc<AtomicU64>,
    /// What each who watches knows now.
    views: Arc<Mutex<BTreeMap<String, Option<View>>>>,
    /// Their processes, the last of each.
    pub(super) proxies: Arc<Mutex<BTreeMap<u64, Proxy>>>,
}

/// Epoch, revision and digest of what somebody knows.
type At = Option<(u64, u64, Digest)>;

/// A client is about something.
pub(super) struct Busy(Arc<AtomicU64>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn key(index: usize) -> Key {
    Key::Backend { service: "s".to_owned(), id: KEYS[index].to_owned() }
}

/// A register's value, and the revision that wrote it; 0 and 0 before the first.
fn register(state: &State, index: usize) -> (u64, u64) {
    let entry = state.objects.get(&key(index));
    entry.map_or((0, 0), |entry| (value(&entry.object).unwrap_or(0), entry.modified))
}

/// The value is in the backend's `source`.
fn value(object: &Object) -> Option<u64> {
    let Object::Backend(backend) = object else { return None };
    backend.source.as_deref()?.strip_prefix('w')?.parse().ok()
}

/// Members' builds differ in whether they take it: see `member.rs`.
fn is_odd(value: u64) -> bool {
    value % 8 == 1
}

/// Writes a register; `over`: only what this revision wrote.
fn write(index: usize, value: u64, over: Option<u64>) -> Command {
    let backend = Backend {
        address: if is_odd(value) { "nowhere" } else { "10.0.0.1:80" }.to_owned(),
        additional_address: None,
        weight: 100,
        tier: 0,
        zone: None,
        state: crate::state::BackendState::Ready,
        ejected: false,
        lease: None,
        source: Some(format!("w{value}")),
    };
    Command::Txn(Txn {
        by: Author::default(),
        request: None,
        conditions: over.map(|modified| Condition { key: key(index), modified }).into_iter().collect(),
        ops: vec![Op::Put { key: key(index), object: Object::Backend(backend) }],
        force: true,
    })
}

impl Record {
    pub(super) fn new(world: World, scheduler: Scheduler, uneven: bool) -> Self {
        Self {
            world,
            scheduler,
            uneven,
            leaps: Arc::default(),
            holder: Arc::default(),
            members: Arc::default(),
            told: Arc::default(),
            next_value: Arc::new(AtomicU64::new(1)),
            stop: Arc::default(),
            hold: Arc::default(),
            restores: Arc::default(),
            busy: Arc::default(),
            views: Arc::default(),
            proxies: Arc::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Any process that runs.
    fn any(&self, random: &mut Random) -> Option<Life> {
        let members = self.members.lock().unwrap();
        let at = random.below(members.len().max(1) as u64) as usize;
        members.values().nth(at).cloned()
    }

    /// Any process that serves, as its API has it: one that was removed says so, and no more.
    pub(super) fn serving(&self, random: &mut Random) -> Option<Life> {
        let life = self.any(random)?;
        if life.plane.is_removed() {
            self.world.count("answers that a member was removed");
            return None;
        }
        Some(life)
    }

    /// What somebody who watches knows now.
    pub(super) fn saw(&self, name: &str, view: Option<View>) {
        self.views.lock().unwrap().insert(name.to_owned(), view);
    }

    /// Those whose names begin so, and who know something else than this.
    pub(super) fn differing(&self, prefix: &str, state: &State) -> Vec<(String, At)> {
        let views = self.views.lock().unwrap();
        let differing = views
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .filter(|(_, view)| !view.as_ref().is_some_and(|view| is_of(view, state)));
        let at = |view: &Option<View>| view.as_ref().map(|view| (view.epoch, view.revision, view.digest));
        differing.map(|(name, view)| (name.clone(), at(view))).collect()
    }

    /// Those who watch know what a member has, or those of them whose names begin so.
    pub(super) fn check_views(&self, prefix: &str, state: &State) {
        for (name, at) in self.differing(prefix, state) {
            let members = (state.epoch, state.revision, state.digest);
            self.world.violation(format_args!("{name} ends at {at:?}, the members at {members:?}"));
        }
    }

    /// The highest epoch that any proxy has seen.
    pub(super) fn epoch_max(&self) -> u64 {
        let views = self.views.lock().unwrap();
        let proxies = views.iter().filter(|(name, _)| name.starts_with('p'));
        proxies.filter_map(|(_, view)| view.as_ref().map(|view| view.epoch)).max().unwrap_or(0)
    }

    /// Begins something; `None`: not now, and what was known before is so no more. `restores`: those that the caller knows of.
    pub(super) fn begin(&self, restores: &mut u64) -> Option<Busy> {
        let now = self.restores.load(Relaxed);
        if self.hold.load(Relaxed) || std::mem::replace(restores, now) != now {
            return None;
        }
        self.busy.fetch_add(1, Relaxed);
        Some(Busy(Arc::clone(&self.busy)))
    }

    /// After a restore: the registers are what they are in this state. `pending`: what was written without an answer may come about
    /// yet.
    pub(super) fn renew(&self, state: &State, pending: bool) {
        self.restores.fetch_add(1, Relaxed);
        self.forget_lock();
        let mut told = self.told();
        told.operations.retain(|(_, operation)| pending && operation.returned.is_none());
        told.initial = std::array::from_fn(|index| register(state, index).0);
    }

    /// There is another log.
    pub(super) fn forget_writes(&self) {
        self.told().writes.clear();
    }

    /// Has a member do something; `None`: it died over it, or it took too long.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        life: &Life,
        patience: Duration,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        drop(self.scheduler.spawn(life.group, async move { drop(sender.send(what.await)) }));
        timeout(patience, receiver).await.ok()?.ok()
    }

    fn done(&self, index: usize, call: Call, invoked: u64, returned: Option<u64>) {
        let ends = if returned.is_some() { "" } else { ", perhaps" };
        self.world.note(format_args!("{} {call:?}{ends}", KEYS[index]));
        self.told().operations.push((index, Operation { call, invoked, returned }));
    }

    async fn read(&self, life: &Life, index: usize, patience: Duration) -> Option<(u64, u64)> {
        let plane = Arc::clone(&life.plane);
        let invoked = self.world.tick();
        let stale = self.world.has(Plant::StaleReads);
        let read = async move {
            if !stale {
                plane.barrier().await?;
            }
            Ok::<_, PlaneError>(register(&plane.state(), index))
        };
        let found = self.ask(life, patience, read).await?.ok()?;
        self.done(index, Call::Read(found.0), invoked, Some(self.world.tick()));
        Some(found)
    }

    /// By the leader's lease: no member is asked.
    async fn read_by_lease(&self, index: usize) {
        let leader = {
            let members = self.members.lock().unwrap();
            members.values().find(|life| life.status().role == Role::Leader).cloned()
        };
        let Some(life) = leader else { return };
        let (node, plane) = (life.node.clone(), Arc::clone(&life.plane));
        let invoked = self.world.tick();
        let read = async move { node.read_barrier(Read::Lease).await.map(|()| register(&plane.state(), index)) };
        if let Some(Ok((found, _))) = self.ask(&life, Duration::from_secs(8), read).await {
            self.world.count("reads by lease");
            self.done(index, Call::Read(found), invoked, Some(self.world.tick()));
        }
    }

    /// Unconditionally, or only over what is `expected`; what the register is then, as far as that is known.
    async fn write(
        &self,
        life: &Life,
        index: usize,
        expected: Option<(u64, u64)>,
        patience: Duration,
    ) -> Option<(u64, u64)> {
        let value = self.next_value.fetch_add(1, Relaxed);
        let (plane, command) = (Arc::clone(&life.plane), write(index, value, expected.map(|(_, revision)| revision)));
        let call = expected.map_or(Call::Write(value), |(expected, _)| Call::Swap(expected, value));
        let invoked = self.world.tick();
        let answer = self.ask(life, patience, async move { plane.propose(&command).await }).await;
        let (outcome, known) = match answer {
            Some(Ok(done)) => {
                self.done(index, call, invoked, Some(self.world.tick()));
                self.world.count("writes");
                if is_odd(value) {
                    self.world.count("writes that some members' builds refuse");
                }
                (Outcome::Written, Some((value, done.revision)))
            }
            Some(Err(PlaneError::Refused(refusal))) if refusal.code == "stale" && expected.is_some() => {
                let refused = Call::Refused(expected.map_or(0, |(value, _)| value));
                self.done(index, refused, invoked, Some(self.world.tick()));
                (Outcome::Failed, None)
            }
            Some(Err(PlaneError::Refused(refusal))) if refusal.code == "bad_address" && is_odd(value) => {
                self.world.count("writes that a member's build has refused");
                (Outcome::Failed, None)
            }
            Some(Err(PlaneError::NoLeader)) => (Outcome::Failed, None),
            Some(Err(PlaneError::Unknown)) | None => {
                self.done(index, call, invoked, None);
                self.world.count("writes of unknown outcome");
                (Outcome::Unknown, None)
            }
            Some(Err(error)) => {
                self.world.violation(format_args!("a write is answered {error}"));
                (Outcome::Failed, None)
            }
        };
        self.told().writes.insert(value, outcome);
        known
    }

    /// Reads and writes until it is stopped.
    pub(super) async fn registers(self, mut random: Random) {
        let mut known: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut restores = 0;
        while !self.stopped() {
            sleep(Duration::from_millis(5 + random.below(120))).await;
            let Some(_busy) = self.begin(&mut restores) else {
                // After a restore, a revision may be another's.
                known.clear();
                continue;
            };
            let index = random.below(KEYS.len() as u64) as usize;
            // Some are impatient: what they give up on may come about all the same.
            let patience = Duration::from_millis([PATIENCE_MS, PATIENCE_MS, 300][random.below(3) as usize]);
            let Some(life) = self.serving(&mut random) else { continue };
            let now = match (random.below(10), known.get(&index).copied()) {
                (0, _) => self.write(&life, index, None, patience).await,
                (1..=5, Some(expected)) => self.write(&life, index, Some(expected), patience).await,
                // Only true clocks make it safe.
                (6, _) if !self.uneven => {
                    self.read_by_lease(index).await;
                    continue;
                }
                _ => self.read(&life, index, patience).await,
            };
            match now {
                Some(now) => drop(known.insert(index, now)),
                None => drop(known.remove(&index)),
            }
        }
    }

    /// Keeps a lease alive by whoever answers: it does not end before its time.
    pub(super) async fn lease(self, mut random: Random) {
        let mut lease: Option<(u64, Instant)> = None;
        let mut restores = 0;
        while !self.stopped() {
            sleep(Duration::from_millis(100 + random.below(200))).await;
            let Some(_busy) = self.begin(&mut restores) else {
                // A restore knows leases of its time alone.
                lease = None;
                continue;
            };
            let Some(life) = self.serving(&mut random) else { continue };
            let plane = Arc::clone(&life.plane);
            let begun = Instant::now();
            let patience = Duration::from_secs(1);
            let Some((id, heard)) = lease else {
                let ttl_ms = LEASE.as_millis() as u64;
                let grant = Command::LeaseGrant { owner: "kept".to_owned(), ttl_ms };
                let granted = self.ask(&life, patience, async move { plane.propose(&grant).await }).await;
                lease = granted.and_then(Result::ok).map(|done| (done.id, begun));
                continue;
            };
            let kept = self.ask(&life, patience, async move { plane.keep_alive(vec![id]).await }).await;
            match kept {
                Some(Ok(missing)) if missing.is_empty() => {
                    self.world.count("heartbeats of a lease");
                    lease = Some((id, begun));
                }
                Some(Ok(_)) => {
                    if heard.elapsed() < self.life_min(LEASE, heard) {
                        let silence = heard.elapsed();
                        self.world.violation(format_args!("lease {id} is gone {silence:?} after it was kept alive"));
                    }
                    lease = None;
                }
                _ => {}
            }
        }
    }

    /// Reads every register once more, through a member that must answer.
    pub(super) async fn read_all(&self, life: &Life) {
        for index in 0..KEYS.len() {
            if self.read(life, index, Duration::from_secs(8)).await.is_none() {
                self.world.violation(format_args!("m{} does not answer when all is well", life.id));
            }
        }
    }

    /// A write that must succeed now.
    pub(super) async fn write_at(&self, life: &Life) -> bool {
        self.write(life, 0, None, Duration::from_secs(8)).await.is_some()
    }

    /// Whether there is an order that explains what every client was told.
    pub(super) fn check_history(&self) {
        let told = self.told();
        for (index, name) in KEYS.iter().enumerate() {
            let history: Vec<Operation> =
                told.operations.iter().filter(|(of, _)| *of == index).map(|(_, operation)| *operation).collect();
            if let Err(why) = linear::check(told.initial[index], &history) {
                self.world.violation(format_args!("{name} is not linearizable: {why}"));
            }
        }
    }

    /// The same, and whether the log has what it must.
    pub(super) fn check(&self, commands: &[(u64, Bytes)]) {
        self.check_history();
        let told = self.told();
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, command) in commands {
            let command = match postcard::from_bytes(command) {
                Ok(Command::Judged { command, .. }) => *command,
                Ok(command) => command,
                Err(_) => continue,
            };
            let Command::Txn(txn) = command else { continue };
            for op in &txn.ops {
                if let Op::Put { object, .. } = op
                    && let Some(value) = value(object)
                {
                    *places.entry(value).or_default() += 1;
                }
            }
        }
        for (value, outcome) in &told.writes {
            let found = places.get(value).copied().unwrap_or(0);
            match outcome {
                Outcome::Written if found != 1 => {
                    self.world.violation(format_args!("w{value} was acknowledged and is {found} times in the log"));
                }
                Outcome::Unknown if found > 1 => {
                    self.world.violation(format_args!("w{value} is {found} times in the log"));
                }
                _ => {}
            }
        }
    }
}
