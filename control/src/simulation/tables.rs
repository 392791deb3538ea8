//! Tables of loads as leaders have published them, and what may not be said of them by anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringway_ring::{FULL_SHARE, FleetParams, FleetTable, HotParams, ShedParams};
use tokio::time::{Instant, sleep};

use super::clients::Record;
use super::member::Life;
use crate::client::FleetTables;
use crate::consensus::Role;
use crate::loads::{Position, Tables};

/// The service of which loads are told.
pub(super) const SERVICE: &str = "s";
/// What tables are made for.
pub(super) const PARAMS: FleetParams = FleetParams {
    shed: ShedParams { target: 1.2, share_max: 0.9 },
    hot: Some(HotParams {
        enter: 0.5,
        leave: 0.35,
        keys_max: 256,
        owners_max: 32,
        volume_min: 1_000,
        half_life_millis: 30_000,
    }),
};
/// The key that is hot, wherever it is told of.
pub(super) const HOT_KEY: u64 = 77;
/// Share of keys that a member sheds at most.
const MOST: u16 = (0.9 * FULL_SHARE as f64) as u16;
/// Less than this is not published.
const PUBLISHED_STEP: u16 = FULL_SHARE / 100;
/// A ring is in force for so many revisions.
const REVISIONS: u64 = 64;
/// Between two looks at everybody.
const LOOK: Duration = Duration::from_millis(10);
/// That, and the way of a line to a proxy that reads slowly: one is on its way, and one waits.
const SEEN_MAX: Duration = Duration::from_millis(80);
/// What a slow clock makes of a time.
const SPEED_MAX: u32 = 2;
/// Where clocks differ, the way of an answer may be taken for the time in which its sender waited: see `plane/loads.rs`.
const WAY_MAX: Duration = Duration::from_secs(6);
/// By a leader's clock, who does not report any more is forgotten after this.
const GONE: Duration = Duration::from_secs(10);
/// How long a report may be on its way: members that carry it stop, and go on.
const REPORT_WAY_MAX: Duration = Duration::from_secs(4);
/// A member that has not run for so long without a break has not taken its steps.
const RUNNING_MIN: Duration = Duration::from_secs(1);

/// A ring, as proxies of a zone have it at some revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) digest: u64,
}

impl Ring {
    pub(super) fn at(revision: u64, zone: u64) -> Self {
        Self { digest: (revision / REVISIONS) << 8 | zone }
    }

    pub(super) fn members(self) -> usize {
        3 + (self.digest >> 8) as usize % 2
    }

    /// Of rings of both zones.
    pub(super) fn members_digest(self) -> u64 {
        self.digest >> 8
    }

    /// The member that has too much.
    pub(super) fn busy(self) -> usize {
        (self.digest >> 8) as usize % 3
    }

    /// The one of which liars say so.
    pub(super) fn slandered(self) -> usize {
        (self.busy() + 1) % 3
    }

    /// What no table of it may say, whoever reports.
    fn check(self, table: &FleetTable) -> Result<(), String> {
        if table.shed.len() != self.members() {
            return Err(format!("{} shares of {} members", table.shed.len(), self.members()));
        }
        for (member, share) in table.shed.iter().enumerate() {
            let most = if [self.busy(), self.slandered()].contains(&member) { MOST } else { 0 };
            if *share > most {
                return Err(format!("member {member} sheds {share}, where {most} is the most"));
            }
        }
        match table.hot.as_slice() {
            [] | [(HOT_KEY, 2..=32)] => Ok(()),
            hot => Err(format!("its hot keys are {hot:?}")),
        }
    }

    /// Whether it is what honest proxies have led to.
    pub(super) fn is_reached_by(self, table: &FleetTable) -> bool {
        let is_most = |share: u16| share > MOST - PUBLISHED_STEP;
        let mut shed = table.shed.iter().enumerate();
        shed.all(|(member, share)| if member == self.busy() { is_most(*share) } else { *share == 0 })
            && !table.hot.is_empty()
    }
}

/// A table that a proxy goes by.
#[derive(Clone, Debug)]
pub(super) struct Obeyed {
    pub(super) position: Position,
    pub(super) ring: Ring,
    pub(super) table: Arc<FleetTable>,
    pub(super) confirmed: Instant,
}

/// In one life of the cluster: epochs of another may be the same.
struct Told {
    era: u64,
    tables: Arc<Tables>,
    /// When its leader was seen last to lead, and to have it.
    held: Instant,
}

/// All that leaders have published.
#[derive(Default)]
pub(super) struct Published {
    told: BTreeMap<Position, Vec<Told>>,
    /// Those of the cluster's lives, by life.
    epochs: BTreeSet<(u64, u64)>,
    /// By life and term, who has led.
    led: BTreeSet<(u64, u64, u64)>,
    /// When a proxy's process has reported last.
    reported: BTreeMap<String, Instant>,
    /// Since when a member's process has been seen to run, without a break.
    running: BTreeMap<u64, Instant>,
}

fn content(tables: &Tables) -> Vec<(&str, u64, u64, &FleetTable)> {
    tables.iter().map(|(name, digest, ring)| (name, digest, ring.revision, &*ring.table)).collect()
}

impl Published {
    /// What a member is now, by its own word.
    fn look_at(&mut self, era: u64, life: &Life, is_paused: bool, now: Instant) {
        let status = life.status();
        self.epochs.insert((era, life.plane.state().epoch));
        if status.role == Role::Leader {
            self.led.insert((era, status.term, life.id));
        }
        match is_paused {
            true => drop(self.running.remove(&life.group)),
            false => drop(self.running.entry(life.group).or_insert(now)),
        }
    }

    /// What it shows of tables. Once all have been looked at: who leads has published, and others have that.
    fn look(&mut self, era: u64, life: &Life, now: Instant) -> Result<(), String> {
        let tables = life.plane.loads.hub.now();
        let Some(position) = tables.position else { return Ok(()) };
        let told = self.told.entry(position).or_default();
        let status = life.status();
        let leads = status.role == Role::Leader && status.term == position.term;
        let Some(known) = told.iter_mut().find(|told| told.era == era) else {
            if !self.led.contains(&(era, position.term, life.id)) {
                return Err(format!("m{} has tables {position}, which no leader has published", life.id));
            }
            if !self.epochs.contains(&(era, position.epoch)) {
                return Err(format!("m{} has published {position}, in an epoch that has never been", life.id));
            }
            for (name, digest, ring) in tables.iter() {
                let lawful = if name == SERVICE { Ring { digest }.check(&ring.table) } else { Err(name.to_owned()) };
                lawful.map_err(|why| format!("m{} has published {position}: {why}", life.id))?;
            }
            told.push(Told { era, tables, held: now });
            return Ok(());
        };
        if content(&known.tables) != content(&tables) {
            return Err(format!("m{} has other tables {position} than were published", life.id));
        }
        if leads && self.running.contains_key(&life.group) {
            known.held = now;
        }
        Ok(())
    }

    pub(super) fn reported(&mut self, proxy: &str) {
        self.reported.insert(proxy.to_owned(), Instant::now());
    }

    fn may_publish(&self, era: u64, life: &Life) -> bool {
        let position = life.plane.loads.hub.now().position;
        position.is_some_and(|position| self.led.contains(&(era, position.term, life.id)))
    }

    /// A leader remembers those alone who report, and adds up rightly what that takes.
    fn check_reporters(&self, life: &Life, uneven: bool, now: Instant) -> Result<(), String> {
        let runs = self.running.get(&life.group).is_some_and(|since| now - *since > RUNNING_MIN);
        let Some((names, is_right)) = life.plane.load_reporters().filter(|_| runs) else { return Ok(()) };
        if !is_right {
            return Err(format!("m{} does not know what its reports take", life.id));
        }
        let most = REPORT_WAY_MAX + if uneven { GONE * SPEED_MAX } else { GONE };
        for name in names {
            let silence = self.reported.get(&name).map(|at| now - *at);
            if silence.is_none_or(|silence| silence > most) {
                return Err(format!("m{} goes by reports of {name} after {silence:?} of silence", life.id));
            }
        }
        Ok(())
    }

    /// What a proxy has taken for the fleet's tables, before and now.
    pub(super) fn check_known(&self, who: &str, before: Option<Position>, known: &Tables) -> Result<(), String> {
        let Some(position) = known.position else { return Ok(()) };
        if before > Some(position) {
            return Err(format!("{who} goes back from the tables {} to {position}", before.unwrap_or_default()));
        }
        let told = self.told.get(&position).map_or(&[][..], Vec::as_slice);
        match told.iter().any(|told| content(&told.tables) == content(known)) {
            true => Ok(()),
            false => Err(format!("{who} has tables {position}, which no leader has published")),
        }
    }

    /// A proxy of this ring goes by a table: of its own, and no younger than its leader has said.
    pub(super) fn check_obeyed(&self, who: &str, own: Ring, obeyed: &Obeyed, uneven: bool) -> Result<(), String> {
        let now = Instant::now();
        let position = obeyed.position;
        let told = self.told.get(&position).map_or(&[][..], Vec::as_slice);
        let is_own = |told: &&Told| {
            told.tables.of(SERVICE, own.digest).is_some_and(|ring| ring.table == obeyed.table)
                && told.tables.of(SERVICE, own.digest).is_some_and(|ring| told.tables.is_in_force(ring))
        };
        let Some(held) = told.iter().filter(is_own).map(|told| told.held).max() else {
            return Err(format!("{who} goes by a table {position} that is not of its ring {:x}", own.digest));
        };
        let (age, said) = (now - held, now - obeyed.confirmed);
        let most = match uneven {
            true => said * SPEED_MAX + SEEN_MAX + WAY_MAX,
            false => said + SEEN_MAX,
        };
        match age > most {
            true => Err(format!("{who} takes table {position} for {said:?} old, which nobody has held for {age:?}")),
            false => Ok(()),
        }
    }
}

impl Record {
    /// Notes what leaders have published, and that nobody else has.
    pub(super) fn look_at_tables(&self) {
        let lives: Vec<Life> = self.members.lock().unwrap().values().cloned().collect();
        let now = Instant::now();
        let is_paused = |life: &Life| self.scheduler.is_paused(life.group);
        self.world.with_tables(|tables, era| {
            lives.iter().for_each(|life| tables.look_at(era, life, is_paused(life), now));
            // First those who may publish.
            let (leaders, others): (Vec<_>, Vec<_>) = lives.iter().partition(|life| tables.may_publish(era, life));
            leaders.into_iter().chain(others).try_for_each(|life| {
                tables.look(era, life, now)?;
                tables.check_reporters(life, self.uneven, now)
            })
        });
    }

    /// Looks again and again, whatever else is waited for.
    pub(super) async fn watch_tables(self) {
        loop {
            sleep(LOOK).await;
            self.look_at_tables();
        }
    }

    /// What a proxy knows of tables now, which it did not before.
    pub(super) fn knows_tables(&self, who: &str, before: Option<Position>, known: &FleetTables) {
        // What has been published since the last look is known to nobody yet.
        self.look_at_tables();
        self.world.with_tables(|tables, _| tables.check_known(who, before, &known.tables));
    }
}
