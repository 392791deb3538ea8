//! The table of experiments: every policy, whatever keeps members away, in fleets of several sizes and weights, at several
//! concurrencies. What is right is reckoned here from the members alone, by rules that know nothing of the code:
//!
//! * what those who may be asked share, they share by their effective weights (weight times ramp, times what is not shed);
//! * policies that look at loads do so one request at a time exactly, and under load within a factor, the heavier never having
//!   less than the lighter (HAProxy's `leastconn`, and pairs drawn by weight as Envoy draws them, are no nearer);
//! * keys of who is away are spread over all others by weight, and no other key moves.
//!
//! In virtual time, with fixed seeds: who fails, fails always. `RINGWAY_CELLS=100000` plays as many drawn cells.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails; how many cells are drawn is the caller's to say"
)]

mod cell;
mod play;

use cell::{Cell, CellMember, Random, State};
use play::{Outcome, play};
use ringway_ring::{MaglevParams, PeakEwmaParams, PolicyParams, RendezvousParams, RingParams};

const RING: PolicyParams = PolicyParams::Ring(RingParams { points: 1024, seed: 0 });
const MAGLEV: PolicyParams = PolicyParams::Maglev(MaglevParams { table_size: 65_537, seed: 0 });
const RENDEZVOUS: PolicyParams = PolicyParams::Rendezvous(RendezvousParams { seed: 0 });
const PEAK_EWMA: PolicyParams = PolicyParams::PeakEwma(PeakEwmaParams { decay_millis: 10_000 });

/// What keeps somebody away, and what that leaves of him.
const STATES: [State; 10] = [
    State::Well,
    State::Absent,
    State::Drained,
    State::Ramping(10),
    State::Ramping(50),
    State::Limited,
    State::Shedding(30),
    State::Doubted,
    State::Failing,
    State::Weightless,
];

/// Who is away: neighbours in the order of ids, every other, all but few, one.
fn away(count: usize) -> Vec<Vec<usize>> {
    let mut sets = vec![(0..count / 2).collect::<Vec<_>>(), vec![count - 1]];
    if count > 3 {
        sets.push((1..count - 1).collect());
        sets.push((0..count).step_by(2).collect());
    }
    sets
}

fn weights(count: usize) -> [Vec<u32>; 2] {
    [vec![100; count], [100, 50, 200, 10, 1600, 100].into_iter().cycle().take(count).collect()]
}

fn cells(policy: PolicyParams, sizes: &[usize], concurrencies: &[usize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &count in sizes {
        for weights in weights(count) {
            for state in STATES {
                let sheds = matches!(state, State::Shedding(_));
                // What several give away they give to each other too.
                for away in away(count).into_iter().filter(|away| !(policy.hashes() && sheds && away.len() > 1)) {
                    let state_of = |index| if away.contains(&index) { state } else { State::Well };
                    let members = weights.iter().enumerate();
                    let members: Vec<CellMember> = members
                        .map(|(index, &weight)| CellMember { weight, level: 0, state: state_of(index) })
                        .collect();
                    for &concurrency in concurrencies {
                        cells.push(Cell { policy, members: members.clone(), concurrency, shares: None });
                    }
                    if state == State::Well {
                        break;
                    }
                }
            }
        }
    }
    cells
}

/// Tiers: the first is whole, has lost some, is gone, has to leave a part of the keys to the second.
fn tiers(policy: PolicyParams) -> Vec<Cell> {
    let member = |level, state| CellMember { weight: 100, level, state };
    let tier = |level, away: usize, state| {
        (0..5).map(move |index| member(level, if index < away { state } else { State::Well }))
    };
    let mut cells = Vec::new();
    for (away, state) in
        [(0, State::Well), (3, State::Absent), (5, State::Drained), (5, State::Limited), (2, State::Ramping(10))]
    {
        for shares in [None, Some(0.6)] {
            let members: Vec<CellMember> = tier(0, away, state).chain(tier(3, 1, State::Absent)).collect();
            cells.push(Cell { policy, members, concurrency: 1, shares });
        }
    }
    cells
}

fn everything(policy: PolicyParams) -> Vec<Cell> {
    let fleets = [cells(policy, &[2, 3, 6, 10], &[1, 16]), cells(policy, &[6], &[256]), cells(policy, &[100], &[16])];
    fleets.into_iter().flatten().chain(tiers(policy)).collect()
}

/// Judges them all; what is not right is told with its row, and the rows before it.
fn judge(cells: &[Cell]) {
    let (mut rows, mut wrong) = (String::new(), Vec::new());
    for (number, cell) in cells.iter().enumerate() {
        let outcome = play(cell, number as u64);
        let found = faults(cell, &outcome);
        let verdict = if found.is_empty() { "" } else { "WRONG" };
        rows.push_str(&format!("| {cell} | {} | {verdict} |\n", outcome.row(&cell.due())));
        wrong.extend(found.into_iter().map(|fault| format!("{cell}: {fault}")));
    }
    assert!(wrong.is_empty(), "{rows}\n{} of {} cells:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
}

/// What is not as it should be.
fn faults(cell: &Cell, outcome: &Outcome) -> Vec<String> {
    let due = cell.due();
    let mut faults = Vec::new();
    let requests: u64 = outcome.served.iter().sum();
    if due.iter().all(|&due| due == 0.0) {
        return if requests == 0 { faults } else { vec!["somebody served who may not be asked".to_owned()] };
    }
    if outcome.refused > 0 {
        faults.push(format!("{} refused, though somebody may be asked", outcome.refused));
    }
    for (index, (&served, &due)) in outcome.served.iter().zip(&due).enumerate() {
        let (served, expected) = (served as f64, due * requests as f64);
        let (low, high) = cell.slack(index);
        let noise = cell.noise(expected, due);
        if served < expected * low - noise || served > expected * high + noise || due == 0.0 && served > 0.0 {
            faults.push(format!("member {index} has {served} of {expected:.0}"));
        }
    }
    // First tries go to everybody by weight, those that will fail included; but for who looks at how long they take.
    let is_peak = matches!(cell.policy, PolicyParams::PeakEwma(_));
    if cell.members.iter().any(|member| member.state == State::Failing) && cell.concurrency == 1 && !is_peak {
        let due = cell.due_of_first_tries();
        for (index, (&tries, &due)) in outcome.first.iter().zip(&due).enumerate() {
            let expected = due * requests as f64;
            let noise = 5.0 * (expected * (1.0 - due)).sqrt() + 2.0;
            let (low, high) = cell.slack(index);
            if (tries as f64) < expected * low - noise || tries as f64 > expected * high + noise {
                faults.push(format!("member {index} has {tries} first tries of {expected:.0}"));
            }
        }
    }
    if outcome.again > 0 {
        faults.push(format!("{} times somebody was given twice", outcome.again));
    }
    if outcome.moved_needlessly > 0 {
        faults.push(format!("{} keys moved that need not", outcome.moved_needlessly));
    }
    if let Some((index, times)) = outcome.heaped {
        faults.push(format!("member {index} has {times:.2} times its part of what was left"));
    }
    // The heavier never has less, but for noise.
    for (one, member) in cell.members.iter().enumerate() {
        for (other, lighter) in cell.members.iter().enumerate() {
            let less = outcome.served[one] as f64 + 5.0 * (outcome.served[other] as f64).sqrt() + 2.0
                < outcome.served[other] as f64;
            let is_plain = [member, lighter].iter().all(|member| member.state == State::Well && member.level == 0);
            if cell.policy != PolicyParams::First && !is_peak && is_plain && member.weight > lighter.weight && less {
                faults.push(format!(
                    "member {one} of weight {} has less than {other} of {}",
                    member.weight, lighter.weight
                ));
            }
        }
    }
    faults
}

#[test]
fn what_members_leave_goes_to_all_others_by_weight_in_turn() {
    judge(&everything(PolicyParams::RoundRobin));
    // As many as turns that a request may pass over, and one more.
    judge(&cells(PolicyParams::RoundRobin, &[17], &[1]));
}

#[test]
fn what_members_leave_goes_to_all_others_by_weight_at_random() {
    judge(&everything(PolicyParams::Random));
}

#[test]
fn what_members_leave_goes_to_all_others_by_weight_and_load_where_two_are_compared() {
    judge(&everything(PolicyParams::PowerOfTwo));
}

#[test]
fn what_members_leave_goes_to_all_others_by_weight_and_load_where_all_are_compared() {
    judge(&everything(PolicyParams::LeastRequest));
}

#[test]
fn what_members_leave_goes_to_all_others_by_weight_and_latency_where_two_are_compared() {
    judge(&everything(PEAK_EWMA));
}

#[test]
fn what_members_leave_goes_to_the_next_that_is_there_where_the_first_serves_all() {
    judge(&cells(PolicyParams::First, &[2, 3, 6, 10, 100], &[1, 16]));
    judge(&tiers(PolicyParams::First));
}

#[test]
fn keys_of_members_that_are_away_go_to_all_others_by_weight_on_the_ring() {
    judge(&cells(RING, &[2, 3, 6, 10], &[1]));
    judge(&tiers(RING));
}

#[test]
fn keys_of_members_that_are_away_go_to_all_others_by_weight_in_the_table() {
    judge(&cells(MAGLEV, &[2, 3, 6, 10, 100], &[1]));
    judge(&tiers(MAGLEV));
}

#[test]
fn keys_of_members_that_are_away_go_to_all_others_by_weight_in_the_rendezvous() {
    judge(&cells(RENDEZVOUS, &[2, 3, 6, 10], &[1, 16]));
    judge(&tiers(RENDEZVOUS));
}

/// Fleets as nobody would think of them, with several things wrong at once.
#[test]
fn drawn_cells_hold_too() {
    let count = std::env::var("RINGWAY_CELLS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let policies = [
        PolicyParams::RoundRobin,
        PolicyParams::Random,
        PolicyParams::PowerOfTwo,
        PolicyParams::LeastRequest,
        PEAK_EWMA,
        PolicyParams::First,
        MAGLEV,
        RENDEZVOUS,
    ];
    let mut random = Random(13);
    let cells: Vec<Cell> =
        (0..count).map(|number| Cell::drawn(policies[number % policies.len()], &STATES, &mut random)).collect();
    judge(&cells);
}
