//! Backups, and what is made of them: in place, or by new members after all the old ones are lost with their disks. Those who watch
//! have seen more than a backup has.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::clocks;
use super::faults::{CALM, Cluster, ms};
use super::member::Life;
use crate::plane::{Plane, PlaneError};
use crate::state::{Applied, Author, Command, RULES, Refusal, State};

/// Small, so that a backup has several.
const PART_BYTES: usize = 2_000;
/// From a restore on, when all is well, until every proxy has what the members have: two heartbeats, a build, and a start of its own.
const FOLLOW_MAX: Duration = Duration::from_secs(8);

/// What proxies' names begin with.
const PROXIES: &str = "p";

/// As the API does it.
async fn restore(plane: Arc<Plane>, content: Vec<u8>) -> Result<Applied, PlaneError> {
    let old = State::decode(&content).map_err(|error| Refusal::new(crate::Code::Damaged, error.to_string()))?;
    plane.barrier().await?;
    let rules = plane.state().rules;
    let epoch = plane.next_epoch(old.epoch).await?;
    let whole = *blake3::hash(&content).as_bytes();
    for (number, part) in content.chunks(PART_BYTES).enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        plane.propose(&Command::RestoreChunk { whole, number, bytes: part.to_vec() }).await?;
    }
    let by = Author::default();
    let command = match rules {
        0 => Command::RestoreCommit { by, whole },
        _ => Command::RestoreAs { by, whole, epoch, other_cluster: false },
    };
    plane.propose(&command).await
}

impl Cluster {
    /// What a member has, after a barrier.
    async fn backup(&mut self) {
        let began = Instant::now();
        while self.world.is_good() {
            if let Some(state) = self.read_state().await {
                let place = (state.epoch, state.revision);
                self.world.note(format_args!("a backup of {place:?}"));
                self.backups.push(state.encode().unwrap());
                return;
            }
            if began.elapsed() > CALM {
                self.world.violation("no backup can be made when all is well");
            }
            self.pass(ms(100)).await;
        }
    }

    async fn read_state(&mut self) -> Option<Arc<State>> {
        let life = self.whoever()?;
        let plane = Arc::clone(&life.plane);
        let read = async move { plane.barrier().await.map(|()| plane.state()) };
        self.record.ask(&life, CALM, read).await?.ok()
    }

    /// Any member that runs and has not been removed.
    pub(super) fn whoever(&mut self) -> Option<Life> {
        let lives = self.record.listed();
        let at = self.random.below(lives.len().max(1) as u64) as usize;
        lives.get(at).cloned()
    }

    /// A backup holds instead of all that came after it. Nobody writes meanwhile; what was written without an answer may come
    /// before it, or after.
    pub(super) async fn restore(&mut self) {
        self.calm().await;
        if self.backups.is_empty() || self.random.below(2) == 0 {
            self.backup().await;
        }
        let between = ms(self.random.below(3_000));
        self.pass(between).await;
        self.hold().await;
        self.record.check_history();
        let Some(state) = self.restore_any().await else { return };
        self.record.renew(&state, true);
        self.follow().await;
        self.record.hold.store(false, Relaxed);
        self.world.count("restores");
    }

    /// All members and their disks are lost, and others are made of a backup. Their wall clocks may be behind.
    pub(super) async fn another_life(&mut self) {
        self.calm().await;
        self.backup().await;
        let between = ms(self.random.below(3_000));
        self.pass(between).await;
        self.record.hold.store(true, Relaxed);
        self.wipe();
        self.hold().await;
        self.record.check(&self.world.commands());
        self.record.forget_writes();
        self.world.be_reborn();
        if self.random.below(2) == 0 {
            clocks::set_back(Duration::from_secs(self.random.below(200)));
        }
        let ahead = self.record.epoch_max();
        let count = [1, 3][self.random.below(2) as usize];
        let epoch = clocks::wall() / 1000;
        let first = Command::Found { cluster: "simulated".to_owned(), epoch, rules: RULES };
        self.found(count, first).await;
        // Operators are slower than this, mostly: proxies may have said where they are.
        let between = ms(self.random.below(4_000));
        self.pass(between).await;
        let Some(state) = self.restore_any().await else { return };
        self.record.renew(&state, false);
        self.follow().await;
        let epoch = self.read_state().await.map_or(0, |state| state.epoch);
        if self.world.is_good() && epoch < ahead {
            self.world.violation(format_args!("the new members are in epoch {epoch}, proxies have seen {ahead}"));
        }
        self.record.hold.store(false, Relaxed);
        self.world.count("lives after the first");
    }

    fn wipe(&mut self) {
        self.world.note("all members are lost, and their disks");
        for (_, mut member) in std::mem::take(&mut self.members) {
            member.crash(true);
        }
        self.down.clear();
        self.show();
    }

    /// Nobody writes: on return, nobody waits for what was written before.
    async fn hold(&mut self) {
        self.record.hold.store(true, Relaxed);
        while self.record.busy.load(Relaxed) > 0 && self.world.is_good() {
            self.pass(ms(20)).await;
        }
    }

    async fn restore_any(&mut self) -> Option<Arc<State>> {
        let content = self.backups[self.random.below(self.backups.len() as u64) as usize].clone();
        let began = Instant::now();
        while self.world.is_good() {
            if let Some(life) = self.whoever() {
                let plane = Arc::clone(&life.plane);
                let restored = self.record.ask(&life, CALM, restore(plane, content.clone())).await;
                self.world.note(format_args!("restored through m{}: {restored:?}", life.id));
                if let Some(Ok(_)) = restored
                    && let Some(state) = self.read_state().await
                {
                    return Some(state);
                }
            }
            if began.elapsed() > CALM {
                self.world.violation("a restore does not come about when all is well");
            }
            self.pass(ms(100)).await;
        }
        None
    }

    /// Waits until all proxies have what the members have.
    pub(super) async fn follow(&mut self) {
        let began = Instant::now();
        while self.world.is_good() {
            let lives = self.record.listed();
            let states: Vec<Arc<State>> = lives.iter().map(|life| life.plane.state()).collect();
            let Some(state) = states.iter().max_by_key(|state| (state.epoch, state.revision)) else { return };
            if self.record.differing(PROXIES, state).is_empty() {
                return;
            }
            if began.elapsed() > FOLLOW_MAX {
                self.record.check_views(PROXIES, state);
                return;
            }
            self.pass(ms(50)).await;
        }
    }
}
