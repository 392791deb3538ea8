//! Plays a cell in virtual time.

use super::cell::{Cell, CellMember, Random, State};
use ringway_ring::{BackendSet, FULL_SHARE, Load, MemberSpec, Pick, PickContext, PolicyParams, Slot, Total};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Mean time of a request in microseconds.
const SERVICE_MICROS: f64 = 10_000.0;
const DECAY_MILLIS: u32 = 10_000;

pub(crate) struct Outcome {
    /// Requests that each member has served.
    pub(crate) served: Vec<u64>,
    /// Requests that were given to it first.
    pub(crate) first: Vec<u64>,
    pub(crate) refused: u64,
    /// Times that a request was given a member again.
    pub(crate) again: u64,
    /// Keys of members that are well, which are elsewhere than when all are well.
    pub(crate) moved_needlessly: u64,
    /// Who got so many times its part, by weight, of what another had left.
    pub(crate) heaped: Option<(usize, f64)>,
}

impl Outcome {
    /// What each has, over its due.
    pub(crate) fn row(&self, due: &[f64]) -> String {
        let requests = self.served.iter().sum::<u64>() as f64;
        let over = |(&served, &due): (&u64, &f64)| {
            if due > 0.0 { format!("{:.2}", served as f64 / requests / due) } else { served.to_string() }
        };
        self.served.iter().zip(due).map(over).take(12).collect::<Vec<_>>().join(" ")
    }
}

struct Fleet {
    group: BackendSet,
    loads: Vec<Arc<Load>>,
}

fn fleet(policy: PolicyParams, members: &[CellMember]) -> Fleet {
    let ids: Vec<String> = (0..members.len()).map(|index| format!("b{index:03}")).collect();
    let loads: Vec<Arc<Load>> = ids.iter().map(|id| Arc::new(Load::new(id))).collect();
    let members = ids.iter().zip(members).zip(&loads).map(|((id, member), load)| MemberSpec {
        id,
        weight: member.weight(),
        requests_max: if member.state == State::Limited { 2 } else { u32::MAX },
        level: member.level,
        load: Arc::clone(load),
    });
    let group = BackendSet::build(policy, None, members, Arc::new(Total::new(1))).unwrap();
    group.install();
    Fleet { group, loads }
}

impl Fleet {
    /// Puts the members into their states, and what is in flight on some of them for good.
    fn settle(&self, members: &[CellMember]) {
        for (index, (load, member)) in self.loads.iter().zip(members).enumerate() {
            if matches!(member.state, State::Limited | State::Drained) {
                for _ in 0..2 {
                    let mut selection = self.group.begin(PickContext::default());
                    self.group.reserve(&mut selection, Slot(index as u16), false, 0);
                }
            }
            if let State::Shedding(percent) = member.state {
                load.set_shed((u32::from(FULL_SHARE) * percent / 100) as u16);
            }
            load.set_doubted(member.state == State::Doubted);
            load.set_active_fraction(member.active_fraction());
        }
        self.group.refresh();
    }
}

pub(crate) fn play(cell: &Cell, seed: u64) -> Outcome {
    let fleet = fleet(cell.policy, &cell.members);
    fleet.settle(&cell.members);
    if let Some(share) = cell.shares {
        fleet.group.set_level_shares(&[(0, share), (3, 1.0 - share)]);
    }
    // All equally fast as far as anybody knows, or those that were never used would be tried first.
    fleet.loads.iter().for_each(|load| load.observe(SERVICE_MICROS as f32, 1, DECAY_MILLIS));
    let count = cell.members.len();
    let mut outcome = Outcome {
        served: vec![0; count],
        first: vec![0; count],
        refused: 0,
        again: 0,
        moved_needlessly: 0,
        heaped: None,
    };
    let mut random = Random(seed);
    let mut running: BinaryHeap<Reverse<(u64, u16)>> = BinaryHeap::new();
    let mut now = 1_000;
    // Each that fails is a request more.
    let tries = 1 + cell.members.iter().filter(|member| member.state == State::Failing).count() / 3;
    let requests = if count > 50 { 2_500 } else { 1_500 } / tries.min(10) + cell.concurrency;
    for _ in 0..requests {
        if running.len() >= cell.concurrency
            && let Some(Reverse((at, slot))) = running.pop()
        {
            now = at;
            fleet.group.release(Slot(slot), 0);
            // What it took by chance is not told: all are equally fast.
            fleet.loads[usize::from(slot)].observe(SERVICE_MICROS as f32, (now / 1_000) as u32, DECAY_MILLIS);
        }
        let ask =
            PickContext { hash: random.next(), chance: random.next(), now_millis: (now / 1_000) as u32, owners: 0 };
        match serve(&fleet, cell, ask, &mut outcome) {
            Some(slot) => {
                let time = (-random.unit().ln() * SERVICE_MICROS) as u64 + 1;
                running.push(Reverse((now + time, slot.0)));
            }
            None => outcome.refused += 1,
        }
    }
    if cell.policy.hashes() && cell.shares.is_none() {
        follow_keys(cell, &fleet, &mut outcome);
    }
    outcome
}

/// A request, until somebody serves it who does not fail.
fn serve(Fleet { group, loads }: &Fleet, cell: &Cell, ask: PickContext, outcome: &mut Outcome) -> Option<Slot> {
    let mut selection = group.begin(ask);
    let mut given = Vec::new();
    while let Pick::Backend(slot) = group.next(&mut selection, 0) {
        let index = usize::from(slot.0);
        outcome.again += u64::from(given.contains(&slot));
        outcome.first[index] += u64::from(given.is_empty());
        given.push(slot);
        if cell.members[index].state != State::Failing {
            outcome.served[index] += 1;
            return Some(slot);
        }
        group.release(slot, 0);
        // As long as the service takes at the worst: what fails is not what is fast.
        loads[index].observe(10.0 * SERVICE_MICROS as f32, ask.now_millis, DECAY_MILLIS);
    }
    None
}

/// Where keys are that were elsewhere when all were well.
fn follow_keys(cell: &Cell, fleet: &Fleet, outcome: &mut Outcome) {
    let is_away = |member: &CellMember| matches!(member.state, State::Absent | State::Drained | State::Limited);
    let is_well =
        |member: &CellMember| member.state == State::Well || is_away(member) || member.state == State::Weightless;
    if !cell.members.iter().all(is_well) || cell.members.iter().any(|member| member.level > 0) {
        return;
    }
    let mut random = Random(99);
    let count = cell.members.len();
    let (mut left, mut taken) = (0_u64, vec![0_u64; count]);
    // At least 100 of its keys to each of the others.
    let away = cell.members.iter().filter(|member| is_away(member)).count();
    let keys = (100 * count * count).checked_div(away).map_or(1_000, |keys| keys.min(50_000));
    for _ in 0..keys {
        let ask = PickContext { hash: random.next(), chance: 0, now_millis: 1, owners: 0 };
        let Some(home) = fleet.group.owner(ask.hash) else { return };
        let mut selection = fleet.group.begin(ask);
        let Pick::Backend(now) = fleet.group.next(&mut selection, 0) else { return };
        fleet.group.release(now, 0);
        if is_away(&cell.members[usize::from(home.0)]) {
            left += 1;
            taken[usize::from(now.0)] += 1;
        } else {
            outcome.moved_needlessly += u64::from(home != now);
        }
    }
    for (index, (&taken, &due)) in taken.iter().zip(&cell.due()).enumerate() {
        let expected = left as f64 * due;
        // Points or entries of who is away that are followed by one of this one's.
        let weight = |away_only: bool| {
            let members = cell.members.iter().filter(|member| !away_only || is_away(member));
            members.map(|member| f64::from(member.weight())).sum::<f64>()
        };
        let points = match cell.policy {
            PolicyParams::Ring(params) => f64::from(params.points) * weight(true) / 100.0 * due,
            PolicyParams::Maglev(params) => f64::from(params.table_size) * weight(true) / weight(false) * due,
            _ => f64::INFINITY,
        };
        let most = 1.5_f64.max(1.0 + 5.0 * (2.0 / points).sqrt());
        if taken as f64 > most * expected + 5.0 * expected.sqrt() + 3.0 {
            outcome.heaped = Some((index, taken as f64 / expected));
        }
    }
}
