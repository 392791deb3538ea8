//! A member: its disk, which outlives it, and its lives on it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use redb::StorageBackend;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::Plant;
use super::clocks;
use super::disk::{Disk, Fault, Random};
use super::net::Net;
use super::scheduler::{Group, Scheduler, as_group};
use super::world::World;
use crate::consensus::replica::{Published, Replica};
use crate::consensus::{
    Answerer, At, Core, Halt, Machine, MemberInfo, Node, RestoreError, SnapshotWriter, Status, Timing,
};
use crate::plane::Plane;
use crate::state::judge;
use crate::state::{Basis, Command, Refusal, State};
use crate::store::Store;
use crate::store::record::Identity;
use crate::transport::Inbox;

/// How fast clocks run, in thousandths of time: from half to twice.
const SPEEDS: [u64; 5] = [500, 700, 1000, 1400, 2000];

/// How far into the log members remember: small, so that a member that was away needs a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) snapshot_every: u64,
    pub(super) keep: u64,
}

/// What all members of a simulation share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) world: World,
    pub(super) net: Net,
    pub(super) scheduler: Scheduler,
    pub(super) memory: Memory,
    /// Clocks run at speeds of their own, and leap.
    pub(super) uneven: bool,
    /// Lives are numbered through.
    pub(super) lives: Arc<AtomicU64>,
}

pub(super) struct Member {
    pub(super) id: u64,
    pub(super) address: String,
    ground: Ground,
    /// What its disk holds while it is down.
    image: Vec<u8>,
    has_run: bool,
    /// How long a write may take, in milliseconds.
    slow_ms: Arc<AtomicU64>,
    pub(super) life: Option<Life>,
}

/// A process. All clones are one.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) id: u64,
    pub(super) group: Group,
    pub(super) plane: Arc<Plane>,
    pub(super) node: Node,
    disk: Disk,
    /// Why it must stop, once it must.
    stopped: Arc<Mutex<Option<String>>>,
}

/// A disk that stops its member's process the moment it has lost power: nothing may be said after that.
#[derive(Debug)]
struct Plug {
    disk: Disk,
    group: Group,
}

impl Plug {
    fn check<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        if self.disk.is_dark()
            && let Some(scheduler) = Scheduler::current()
        {
            scheduler.pause(self.group);
        }
        result
    }
}

impl StorageBackend for Plug {
    fn len(&self) -> std::io::Result<u64> {
        self.check(self.disk.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.check(self.disk.read(offset, out))
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check(self.disk.set_len(len))
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check(self.disk.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check(self.disk.write(offset, data))
    }
}

impl Member {
    pub(super) fn new(id: u64, address: String, ground: Ground) -> Self {
        Self { id, address, ground, image: Vec::new(), has_run: false, slow_ms: Arc::default(), life: None }
    }

    pub(super) fn info(&self) -> MemberInfo {
        MemberInfo { name: format!("m{}", self.id), peer_address: self.address.clone(), api_address: String::new() }
    }

    /// Every write takes up to so long from now on; 0: as disks do.
    pub(super) fn slow(&self, ms: u64) {
        self.slow_ms.store(ms, Relaxed);
    }

    /// The disk fails like this after so many operations.
    pub(super) fn fail_disk(&self, operations: u64, fault: Fault) {
        if let Some(life) = &self.life {
            life.disk.fail_after(operations, fault);
        }
    }

    /// What was to come of [`Member::fail_disk`] does not.
    pub(super) fn spare(&self) {
        if let Some(life) = self.life.as_ref().filter(|life| !life.disk.has_failed()) {
            life.disk.repair();
        }
    }

    /// Starts its process. A disk that was whole when it went down must let it.
    pub(super) async fn boot(&mut self) {
        let ground = self.ground.clone();
        let group = ground.lives.fetch_add(1, Relaxed) + 1;
        if ground.uneven {
            let speed = SPEEDS[Random::new(self.id << 20 | group).below(SPEEDS.len() as u64) as usize];
            let speed = if ground.world.has(Plant::ClocksBeyondBounds) { speed * 8 } else { speed };
            ground.world.note(format_args!("m{}'s clock runs at {speed} thousandths", self.id));
            clocks::run(group, speed);
        }
        let disk = Disk::with(std::mem::take(&mut self.image), self.id << 32 | group);
        let core = self.core();
        let starting = start(ground.clone(), core, group, disk.clone(), self.has_run, Arc::clone(&self.slow_ms));
        let (sender, receiver) = oneshot::channel();
        let task = async move { drop(sender.send(starting.await)) };
        drop(ground.scheduler.spawn(group, task));
        match receiver.await {
            Ok(Ok((life, inbox))) => {
                self.has_run = true;
                ground.net.open(&self.address, self.id, group, inbox);
                self.life = Some(life);
            }
            Ok(Err(why)) => ground.world.violation(format_args!("m{} does not start: {why}", self.id)),
            Err(_) => ground.world.violation(format_args!("m{} died when it started", self.id)),
        }
    }

    fn core(&self) -> Core {
        Core {
            identity: Identity { cluster: "simulated".to_owned(), node: self.id },
            info: self.info(),
            timing: Timing::lan(),
            snapshot_every: self.ground.memory.snapshot_every,
            keep: self.ground.memory.keep,
            answerer: None,
        }
    }

    /// Ends its process where it stands. `power`: its machine too, with what was not synced.
    pub(super) fn crash(&mut self, power: bool) {
        let Some(life) = self.life.take() else { return };
        self.ground.net.close(&self.address);
        let power = power || life.disk.is_dark();
        // What the dead drop must not reach the disk any more.
        life.disk.fail_after(0, Fault::Broken);
        self.ground.scheduler.kill(life.group);
        let disk = life.disk.clone();
        drop(life);
        if power {
            disk.lose_power();
        }
        self.image = disk.image();
        let what = if power { "loses power" } else { "is killed" };
        let digest = blake3::hash(&self.image).to_hex();
        self.ground.world.note(format_args!("m{} {what}; its disk is {}", self.id, &digest[..12]));
        self.ground.world.count("crashes");
    }

    pub(super) fn pause(&self) {
        if let Some(life) = &self.life {
            self.ground.scheduler.pause(life.group);
        }
    }

    pub(super) fn resume(&self) {
        if let Some(life) = self.life.as_ref().filter(|life| !life.disk.is_dark()) {
            self.ground.scheduler.resume(life.group);
        }
    }
}

impl Life {
    pub(super) fn status(&self) -> Status {
        // By its own clock.
        as_group(self.group, || self.node.status())
    }

    /// Why it must stop; `None` while it can go on.
    pub(super) fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap().clone()
    }

    /// It has no power, or what it had on its disk is refused: its own fault it is not.
    pub(super) fn is_excused(&self) -> bool {
        self.disk.has_failed()
    }

    pub(super) fn is_dark(&self) -> bool {
        self.disk.is_dark()
    }
}

async fn start(
    ground: Ground,
    core: Core,
    group: Group,
    disk: Disk,
    has_run: bool,
    slow_ms: Arc<AtomicU64>,
) -> Result<(Life, Inbox), String> {
    let id = core.identity.node;
    let random = Mutex::new(Random::new(id << 40 | group));
    let pace = move || {
        let ms = match slow_ms.load(Relaxed) {
            0 => [0, 0, 0, 1, 1, 2, 3, 12][random.lock().unwrap().below(8) as usize],
            slow => random.lock().unwrap().below(slow),
        };
        let paced = async move {
            if ms > 0 {
                sleep(Duration::from_millis(ms)).await;
            }
        };
        paced.boxed()
    };
    let plug = Plug { disk: disk.clone(), group };
    let (store, writer) =
        Store::open_in_turns(&core.identity, has_run, plug, pace).map_err(|error| error.to_string())?;
    ground.world.booted(id, &store);
    drop(ground.scheduler.spawn(group, writer));
    let slot: Arc<OnceLock<Weak<Plane>>> = Arc::default();
    let (witness, published) = Witness::new(id, ground.world.clone());
    let core = Core { answerer: Some(answerer(Arc::clone(&slot), ground.world.clone())), ..core };
    let (node, inbox) =
        Node::start_carried(core, witness, store, ground.net.line(id)).await.map_err(|error| error.to_string())?;
    let plane = Arc::new(
        Plane::new(node.clone(), published).with_clocks(clocks::wall, clocks::lessors).with_judge(judge_of(id)),
    );
    let _ = slot.set(Arc::downgrade(&plane));
    let stopped: Arc<Mutex<Option<String>>> = Arc::default();
    let (running, says) = (Arc::clone(&plane), Arc::clone(&stopped));
    drop(ground.scheduler.spawn(group, async move {
        let why = running.run().await;
        *says.lock().unwrap() = Some(why);
    }));
    Ok((Life { id, group, plane, node, disk, stopped }, inbox))
}

/// As a member of the product answers others.
fn answerer(slot: Arc<OnceLock<Weak<Plane>>>, world: World) -> Answerer {
    Arc::new(move |question: Bytes| {
        let silent = world.has(Plant::RemovalUntold) && question.starts_with(b"{\"removed\"");
        let plane = slot.get().and_then(Weak::upgrade).filter(|_| !silent);
        Box::pin(async move {
            match plane {
                Some(plane) => plane.answer(&question).await,
                None => Vec::new(),
            }
        })
    })
}

/// Members run two builds: one takes what the other refuses. What either puts into the log, all apply alike.
fn judge_of(member: u64) -> fn(&State, &Command) -> Result<Option<Basis>, Refusal> {
    if member.is_multiple_of(2) { lax } else { judge::judge }
}

/// A build that does not look at addresses.
fn lax(state: &State, command: &Command) -> Result<Option<Basis>, Refusal> {
    match judge::judge(state, command) {
        Err(refusal) if refusal.code == "bad_address" => Ok(Some(Basis { epoch: state.epoch, ..Basis::default() })),
        judged => judged,
    }
}

/// The product's state machine, watched.
struct Witness {
    member: u64,
    world: World,
    replica: Replica,
    published: watch::Receiver<Published>,
    last: Option<u64>,
}

impl Witness {
    fn new(member: u64, world: World) -> (Self, watch::Receiver<Published>) {
        let (replica, published) = Replica::new();
        (Self { member, world, replica, published: published.clone(), last: None }, published)
    }

    fn digest(&self) -> String {
        digest(&self.published.borrow())
    }
}

/// A command as a faulty build has it, the same on all members.
fn planted<'a>(world: &World, command: &'a [u8]) -> Cow<'a, [u8]> {
    let Ok(read) = postcard::from_bytes(command) else { return command.into() };
    let faulty = match read {
        Command::RestoreAs { by, whole, .. } if world.has(Plant::EpochsThatProxiesHaveSeen) => {
            Command::RestoreCommit { by, whole }
        }
        Command::RaiseEpoch { to, .. } if world.has(Plant::EpochsThatProxiesHaveSeen) => {
            Command::RaiseEpoch { seen: (0, 0), to }
        }
        Command::LeaseExpire { at_ms, ids, .. } if world.has(Plant::LeasesWithoutEnd) => {
            Command::LeaseExpire { leader: u64::MAX, at_ms, ids }
        }
        Command::RolloutVotes { id, mut votes } if world.has(Plant::RefusalsLost) => {
            votes.values_mut().for_each(|vote| vote.refusal = None);
            Command::RolloutVotes { id, votes }
        }
        Command::LockAcquire { name, owner, lease } if world.has(Plant::LocksForAll) => {
            Command::LockAcquire { name: format!("{name}.{owner}"), owner, lease }
        }
        _ => return command.into(),
    };
    postcard::to_allocvec(&faulty).unwrap().into()
}

/// Objects by their own digest, the rest by what is easily counted; whole states are compared at the end.
pub(super) fn digest(published: &Published) -> String {
    let state = &published.state;
    let rest = (state.leases.size(), state.locks.size(), state.next_id);
    format!("r{} {:.8} {rest:?}", state.revision, state.digest.to_string())
}

impl Machine for Witness {
    fn apply(&mut self, at: At, command: &[u8]) -> Result<Vec<u8>, Halt> {
        let command = &*planted(&self.world, command);
        let answer = self.replica.apply(at, command)?;
        if self.last.is_some_and(|last| last >= at.index) {
            self.world.violation(format_args!("m{} applies {} after {:?}", self.member, at.index, self.last));
        }
        self.last = Some(at.index);
        self.world.came_to(&self.published.borrow().state);
        self.world.applied(self.member, at, command, &answer, self.digest());
        Ok(answer)
    }

    fn freeze(&self) -> SnapshotWriter {
        self.world.count("snapshots built");
        self.replica.freeze()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.replica.restore(bytes)?;
        let index = self.published.borrow().index;
        self.last = Some(index);
        self.world.came_to(&self.published.borrow().state);
        self.world.count("snapshots restored");
        self.world.restored(self.member, index, &self.digest());
        Ok(())
    }
}
