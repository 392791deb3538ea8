//! Leases that end, and locks that go with them, whatever members' clocks say.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::clients::Record;
use super::disk::Random;
use crate::state::Command;

/// A leader's clock is at most so much faster, or slower, than time.
const SPEED_MAX: u32 = 2;
/// What a leader can be behind another, which begins before the first has noticed: its lease by the slowest clock.
const DEPOSED_MAX: Duration = Duration::from_millis(600);
/// A leap that is longer counts as a time in which nobody could be heard.
const UNNOTICED_MAX: Duration = Duration::from_millis(500);
/// From the moment at which a lease is due until its end is decided: writes are slow, messages are lost.
const DECIDED_MAX: Duration = Duration::from_secs(5);
/// A heartbeat that was not answered may arrive within this.
const LATE_MAX: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(1);

/// Who believes to have the lock.
#[derive(Default)]
pub(super) struct Holder {
    who: u64,
    until: Option<Instant>,
    /// The last token, and in which life of the cluster.
    token: (u64, u64),
}

/// A lease of a client's.
struct Lease {
    id: u64,
    ttl: Duration,
    /// When the last heartbeat that was answered was sent.
    heard: Instant,
    /// The last moment at which one may have arrived.
    last: Instant,
}

impl Record {
    /// Somebody's clock leaps by so much.
    pub(super) fn leapt(&self, by: Duration) {
        if by < UNNOTICED_MAX {
            self.leaps.lock().unwrap().push((Instant::now(), by));
        }
    }

    /// How long a lease lives at least from a heartbeat on: its time, by the fastest clock, and what leaders are unsure of.
    pub(super) fn life_min(&self, ttl: Duration, heard: Instant) -> Duration {
        if !self.uneven {
            return ttl;
        }
        let leaps = self.leaps.lock().unwrap();
        let leapt: Duration = leaps.iter().filter(|(at, _)| *at >= heard).map(|(_, by)| *by).sum();
        (ttl.saturating_sub(leapt) / SPEED_MAX).saturating_sub(DEPOSED_MAX)
    }

    /// After a restore nobody has a lock that was taken before: whoever believes so has not heard of it yet.
    pub(super) fn forget_lock(&self) {
        self.holder.lock().unwrap().until = None;
    }

    async fn grant(&self, owner: String, ttl: Duration, random: &mut Random) -> Option<Lease> {
        let life = self.serving(random)?;
        let plane = Arc::clone(&life.plane);
        let heard = Instant::now();
        let grant = Command::LeaseGrant { owner, ttl_ms: ttl.as_millis() as u64 };
        let done = self.ask(&life, PATIENCE, async move { plane.propose(&grant).await }).await?.ok()?;
        Some(Lease { id: done.id, ttl, heard, last: Instant::now() })
    }

    /// A heartbeat; `false`: the lease is gone.
    async fn keep(&self, lease: &mut Lease, random: &mut Random) -> bool {
        let Some(life) = self.serving(random) else { return true };
        let (plane, id, begun) = (Arc::clone(&life.plane), lease.id, Instant::now());
        match self.ask(&life, PATIENCE, async move { plane.keep_alive(vec![id]).await }).await {
            Some(Ok(missing)) if missing.is_empty() => {
                (lease.heard, lease.last) = (begun, lease.last.max(Instant::now()));
                true
            }
            Some(Ok(_)) => false,
            Some(Err(_)) | None => {
                lease.last = Instant::now() + LATE_MAX;
                true
            }
        }
    }

    /// Grants leases, keeps them for a while, and lets them die: they do, in time.
    pub(super) async fn mortals(self, mut random: Random) {
        let mut restores = 0;
        while !self.stopped() {
            sleep(Duration::from_millis(200 + random.below(800))).await;
            let Some(busy) = self.begin(&mut restores) else { continue };
            let ttl = Duration::from_secs(1 + random.below(3));
            let Some(mut lease) = self.grant("mortal".to_owned(), ttl, &mut random).await else { continue };
            for _ in 0..random.below(4) {
                sleep(Duration::from_millis(200)).await;
                if !self.keep(&mut lease, &mut random).await {
                    break;
                }
            }
            drop(busy);
            self.outlive(&lease, &mut restores).await;
        }
    }

    /// Waits for the end of a lease that nobody keeps.
    async fn outlive(&self, lease: &Lease, restores: &mut u64) {
        tokio::time::sleep_until(lease.last).await;
        let (counted, due) = (self.world.counted(), lease.ttl * SPEED_MAX + DECIDED_MAX);
        while self.begin(restores).is_some() {
            if !self.has_lease(lease.id) {
                return self.world.count("leases that ended in time");
            }
            if self.world.counted().saturating_sub(counted) > due {
                let (id, ttl, silent) = (lease.id, lease.ttl, lease.last.elapsed());
                return self
                    .world
                    .violation(format_args!("lease {id} of {ttl:?} is there after {silent:?} of silence"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// As who has applied most has it.
    fn has_lease(&self, id: u64) -> bool {
        let members = self.members.lock().unwrap();
        let published = members.values().map(|life| life.plane.published());
        let latest = published.max_by_key(|published| published.borrow().index);
        latest.is_none_or(|published| published.borrow().state.leases.contains_key(&id))
    }

    /// Takes a lock that another wants too, keeps it for a while, and gives it back, or forgets it.
    pub(super) async fn locker(self, number: u64, mut random: Random) {
        let mut restores = 0;
        while !self.stopped() {
            sleep(Duration::from_millis(random.below(500))).await;
            let Some(_busy) = self.begin(&mut restores) else {
                self.believe(number, None);
                continue;
            };
            let ttl = Duration::from_secs(2 + random.below(3));
            let Some(mut lease) = self.grant(format!("l{number}"), ttl, &mut random).await else { continue };
            if self.acquire(number, &lease, &mut random).await {
                self.have(number, &mut lease, &mut random).await;
            }
        }
    }

    async fn acquire(&self, number: u64, lease: &Lease, random: &mut Random) -> bool {
        let Some(life) = self.serving(random) else { return false };
        let (plane, era) = (Arc::clone(&life.plane), self.world.era());
        let acquire = Command::LockAcquire { name: "l".to_owned(), owner: format!("l{number}"), lease: lease.id };
        let done = self.ask(&life, PATIENCE, async move { plane.propose(&acquire).await }).await;
        let Some(Ok(done)) = done else { return false };
        let mut holder = self.holder.lock().unwrap();
        if holder.who != number && holder.until.is_some_and(|until| until > Instant::now()) {
            self.world.violation(format_args!("l{number} has the lock, and l{} has it too", holder.who));
        }
        if (era, done.id) <= holder.token {
            let (token, last) = (done.id, holder.token.1);
            self.world.violation(format_args!("l{number} has the lock by token {token}, after {last}"));
        }
        let until = lease.heard + self.life_min(lease.ttl, lease.heard);
        *holder = Holder { who: number, until: Some(until), token: (era, done.id) };
        self.world.count("locks taken");
        true
    }

    fn believe(&self, number: u64, until: Option<Instant>) {
        let mut holder = self.holder.lock().unwrap();
        if holder.who == number {
            holder.until = until;
        }
    }

    async fn have(&self, number: u64, lease: &mut Lease, random: &mut Random) {
        for _ in 0..random.below(8) {
            sleep(Duration::from_millis(200)).await;
            if self.hold.load(Relaxed) || !self.keep(lease, random).await {
                return self.believe(number, None);
            }
            self.believe(number, Some(lease.heard + self.life_min(lease.ttl, lease.heard)));
        }
        if random.below(2) == 0 {
            return;
        }
        self.believe(number, None);
        let token = self.holder.lock().unwrap().token.1;
        let Some(life) = self.serving(random) else { return };
        let (plane, release) = (Arc::clone(&life.plane), Command::LockRelease { name: "l".to_owned(), token });
        let _ = self.ask(&life, PATIENCE, async move { plane.propose(&release).await }).await;
    }
}
