//! Proxies that have seen more than the cluster has: every sequence of backups, wipes and restores ends with all of them on
//! what the members have.

use super::*;
use crate::state::RULES;
use crate::watch::view::View;
use crate::watch::wire::Snapshot;

fn found(epoch: u64) -> State {
    let mut state = State::default();
    state.apply(ORIGIN, Command::Found { cluster: "c".into(), epoch, rules: RULES }).unwrap();
    state
}

fn change(state: &mut State, id: usize) {
    let op = Op::Put { key: key(&format!("backend/api/{id}")), object: backend(None) };
    crate::state::judge::run(state, Command::Txn(txn(vec![op]))).unwrap();
}

fn says(epoch: u64, revision: u64) -> Heartbeat {
    Heartbeat { cluster: "c".into(), epoch, revision, ..heartbeat(&State::default()) }
}

fn raises(commands: &[Command]) -> Vec<u64> {
    commands
        .iter()
        .filter_map(|command| if let Command::RaiseEpoch { to, .. } = command { Some(*to) } else { None })
        .collect()
}

#[test]
fn one_proxy_moves_the_epoch_once_a_minute_whatever_it_reports() {
    let start = Instant::now();
    let (mut state, mut lessor) = (found(100), lessor(start));
    let mut moves = Vec::new();
    for second in 0..130 {
        let now = start + Duration::from_secs(second);
        let lie = says(state.epoch + 1, 0);
        lessor.handle_heartbeat(&state, "liar".into(), lie, now);
        for command in lessor.handle_tick(&state, 1, 200_000, now) {
            if !raises(std::slice::from_ref(&command)).is_empty() {
                moves.push(second);
                state.apply(ORIGIN, command).unwrap();
            }
        }
    }
    assert!((2..=3).contains(&moves.len()), "{moves:?}");
    assert!(moves.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{moves:?}");
    // Another's word counts meanwhile.
    let now = start + Duration::from_secs(131);
    lessor.handle_heartbeat(&state, "other".into(), says(state.epoch + 5, 3), now);
    assert_eq!(raises(&lessor.handle_tick(&state, 1, 200_000, now)), [state.epoch + 6]);
}

#[test]
fn lies_under_many_names_move_the_epoch_seldom_and_not_far() {
    let start = Instant::now();
    let (mut state, mut lessor) = (found(100), lessor(start));
    let mut moves = Vec::new();
    for second in 0..180 {
        let now = start + Duration::from_secs(second);
        // As far as it is believed, and further.
        for (number, lie) in
            [state.epoch + (1 << 20), state.epoch + (1 << 20) + 1, 1 << 60, u64::MAX].into_iter().enumerate()
        {
            let name = format!("liar-{second}-{number}");
            lessor.handle_heartbeat(&state, name, says(lie, u64::MAX), now);
        }
        for command in lessor.handle_tick(&state, 1, 200_000, now) {
            if !raises(std::slice::from_ref(&command)).is_empty() {
                moves.push(second);
                state.apply(ORIGIN, command).unwrap();
            }
        }
    }
    assert!((10..=15).contains(&moves.len()), "{moves:?}");
    for minute in moves.windows(6) {
        assert!(minute[5] - minute[0] >= 60, "{moves:?}");
    }
    assert!(state.epoch <= 200 + 15 * ((1 << 20) + 1), "{}", state.epoch);
}

/// Numbers below a bound, from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// Members, and proxies that follow them as proxies do.
struct World {
    state: State,
    lessor: Lessor,
    proxies: Vec<View>,
    backups: Vec<Vec<u8>>,
    now: Instant,
    raised: usize,
}

impl World {
    fn restore(&mut self, backup: Vec<u8>) {
        let whole = *blake3::hash(&backup).as_bytes();
        let epoch = self.proxies.iter().map(|view| view.epoch).max().unwrap_or(0);
        self.state.apply(ORIGIN, Command::RestoreChunk { whole, number: 0, bytes: backup }).unwrap();
        let command = Command::RestoreAs { by: Author::default(), whole, epoch, other_cluster: false };
        self.state.apply(ORIGIN, command).unwrap();
    }

    /// New members know nothing; `birth` is what their clock says.
    fn wipe(&mut self, birth: u64) {
        self.state = found(birth);
        self.lessor = lessor(self.now);
    }

    /// Two seconds: whoever is not ahead is told what there is, all say where they are, the leader does what it does.
    fn step(&mut self) {
        self.now += Duration::from_secs(2);
        for (index, view) in self.proxies.iter_mut().enumerate() {
            // What it is told of the past it does not take.
            if let Ok(next) = View::from_snapshot(Snapshot::of(&self.state), Some(view)) {
                *view = next;
            }
            let said = says(view.epoch, view.revision);
            self.lessor.handle_heartbeat(&self.state, format!("p{index}"), said, self.now);
        }
        for command in self.lessor.handle_tick(&self.state, 1, 1_000_000, self.now) {
            self.raised += raises(std::slice::from_ref(&command)).len();
            let _ = self.state.apply(ORIGIN, command);
        }
    }

    fn follow(&mut self, seed: u64) {
        (0..4).for_each(|_| self.step());
        for view in &self.proxies {
            // Members that were made anew and given nothing tell proxies nothing.
            if self.state.revision == 0 && view.revision > 0 {
                continue;
            }
            let here = (&view.cluster, view.epoch, view.revision, view.digest);
            let members = (&self.state.cluster, self.state.epoch, self.state.revision, self.state.digest);
            assert_eq!(here, members, "seed {seed}");
            assert_eq!(view.objects.len(), self.state.objects.size(), "seed {seed}");
        }
    }
}

#[test]
fn every_sequence_of_changes_backups_wipes_and_restores_ends_with_all_proxies_on_what_the_members_have() {
    let mut raised = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let state = found(1000);
        let view = View::from_snapshot(Snapshot::of(&state), None).unwrap();
        let now = Instant::now();
        let mut world =
            World { lessor: lessor(now), proxies: vec![view; 3], backups: Vec::new(), now, raised: 0, state };
        for number in 0..30 {
            match random.below(6) {
                0 | 1 => change(&mut world.state, random.below(4)),
                2 => world.backups.push(world.state.encode().unwrap()),
                // The clock may have gone back since the last birth.
                3 => world.wipe(900 + random.below(200) as u64),
                _ if world.backups.is_empty() => {}
                what => {
                    let backup = world.backups[random.below(world.backups.len())].clone();
                    if what == 5 {
                        world.wipe(900 + random.below(200) as u64);
                    }
                    world.restore(backup);
                }
            }
            // Proxies may see any of it, or only what came of it.
            if random.below(2) == 0 {
                world.step();
            }
            if number % 5 == 4 {
                // The pace of one proxy's word is a minute: the fleet has three.
                world.now += Duration::from_secs(61);
                world.follow(seed);
            }
        }
        raised += world.raised;
    }
    assert!(raised > 0, "no proxy was ever ahead: nothing was tried");
}
