//! What a cell of the table is about, and who is due what there.

use ringway_ring::{FULL_SHARE, PolicyParams};
use std::fmt;

/// What a member is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Well,
    /// Down.
    Absent,
    /// Takes nothing new, and still has some.
    Drained,
    /// At so many percent of its slow start.
    Ramping(u32),
    /// At its hard limit.
    Limited,
    /// Gives away so many percent of what it would get.
    Shedding(u32),
    /// Down, while health is not relied on.
    Doubted,
    /// Up for all that anybody knows; every request fails, and goes on to somebody else.
    Failing,
    /// Of weight 0.
    Weightless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellMember {
    pub(crate) weight: u32,
    pub(crate) level: u8,
    pub(crate) state: State,
}

impl CellMember {
    pub(crate) fn weight(&self) -> u32 {
        if self.state == State::Weightless { 0 } else { self.weight }
    }

    /// What health leaves it.
    pub(crate) fn active_fraction(&self) -> u16 {
        match self.state {
            State::Absent | State::Drained => 0,
            State::Ramping(percent) => (u32::from(FULL_SHARE) * percent / 100) as u16,
            _ => FULL_SHARE,
        }
    }

    /// Its part of what is given by weight, if it may be asked.
    fn effective_weight(&self, counts_failing: bool) -> f64 {
        let part = match self.state {
            State::Well | State::Doubted => 1.0,
            State::Absent | State::Drained | State::Limited | State::Weightless => 0.0,
            State::Ramping(percent) => f64::from(percent) / 100.0,
            State::Shedding(percent) => 1.0 - f64::from(percent) / 100.0,
            State::Failing => f64::from(u8::from(counts_failing)),
        };
        f64::from(self.weight) * part
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) policy: PolicyParams,
    pub(crate) members: Vec<CellMember>,
    /// Requests in flight.
    pub(crate) concurrency: usize,
    /// Share of the keys that is at home in the first level; all if not said.
    pub(crate) shares: Option<f64>,
}

impl Cell {
    /// A fleet as chance will have it.
    pub(crate) fn drawn(policy: PolicyParams, states: &[State], random: &mut Random) -> Self {
        let most = if random.below(4) == 0 { 60 } else { 12 };
        let count = 1 + random.below(most);
        let well = random.below(10);
        let weights = [1, 10, 50, 100, 100, 100, 200, 1600];
        let (equal, kinds) = (random.below(2) == 0, 1 + random.below(4));
        let allowed: Vec<State> = (0..kinds).map(|_| states[random.below(states.len())]).collect();
        let members = (0..count)
            .map(|_| CellMember {
                weight: if equal { 100 } else { weights[random.below(weights.len())] },
                level: 0,
                state: if random.below(10) < well { State::Well } else { allowed[random.below(allowed.len())] },
            })
            .collect();
        let mut members: Vec<CellMember> = members;
        if policy.hashes() {
            // Who is full or fails is not known where it is reckoned what of its keys each takes.
            let reckoned = |member: &CellMember| matches!(member.state, State::Ramping(_) | State::Shedding(_));
            let unknown =
                |member: &CellMember| matches!(member.state, State::Limited | State::Failing | State::Shedding(_));
            if members.iter().any(reckoned) {
                members.iter_mut().filter(|member| unknown(member)).for_each(|member| member.state = State::Absent);
            }
        }
        let concurrency = if policy.hashes() { 1 } else { [1, 2, 5, 16, 64][random.below(5)] };
        Self { policy, members, concurrency, shares: None }
    }

    /// How far from what is due a count may be for no other reason than chance: five standard deviations. Where turns are given
    /// in order it is a few turns.
    pub(crate) fn noise(&self, expected: f64, share: f64) -> f64 {
        let by_chance = 5.0 * (expected * (1.0 - share)).sqrt() + 4.0;
        if self.policy != PolicyParams::RoundRobin {
            return by_chance;
        }
        let drawn = |member: &CellMember| {
            matches!(member.state, State::Shedding(_) | State::Failing | State::Doubted) || member.level > 0
        };
        // After sixteen turns of others in a row, one is drawn.
        let weights = |due: f64| {
            let asked = self.due().into_iter().zip(&self.members).filter(move |(share, _)| *share >= due);
            asked.map(|(_, member)| member.weight()).sum::<u32>()
        };
        let few = weights(f64::MIN_POSITIVE) * 10 <= weights(0.0) * 6;
        let ramps = self.members.iter().any(|member| matches!(member.state, State::Ramping(_)));
        match () {
            () if few || self.members.iter().any(drawn) || ramps && self.members.len() > 50 => by_chance,
            () if ramps => 3.0 + 2.5 * expected.sqrt(),
            () => 5.0,
        }
    }

    /// Shares of all requests, by member.
    pub(crate) fn due(&self) -> Vec<f64> {
        self.shared(false)
    }

    /// Shares of first tries, by member.
    pub(crate) fn due_of_first_tries(&self) -> Vec<f64> {
        self.shared(true)
    }

    fn shared(&self, counts_failing: bool) -> Vec<f64> {
        let mut due = vec![0.0; self.members.len()];
        let mut levels: Vec<u8> = self.members.iter().map(|member| member.level).collect();
        levels.sort_unstable();
        levels.dedup();
        let has_any = |level: u8| {
            self.of_level(level, counts_failing).iter().any(|(_, effective_weight)| *effective_weight > 0.0)
        };
        let open: Vec<u8> = levels.iter().copied().filter(|&level| has_any(level)).collect();
        let Some(&first) = open.first() else { return due };
        let last = *open.last().unwrap();
        for &level in &levels {
            let part = match self.shares {
                Some(share) if level == levels[0] => share,
                Some(share) => 1.0 - share,
                None => f64::from(u8::from(level == levels[0])),
            };
            // Keys of a level that has nobody go to the other.
            let at = if has_any(level) {
                level
            } else if level == first {
                last
            } else {
                first
            };
            for (index, share) in self.divided(at, counts_failing) {
                due[index] += share * part;
            }
        }
        due
    }

    /// Members of a level, and what each claims.
    fn of_level(&self, level: u8, counts_failing: bool) -> Vec<(usize, f64)> {
        let members = || self.members.iter().enumerate().filter(|(_, member)| member.level == level);
        // Those that are believed to be down are asked where nobody else can be.
        let up = |member: &CellMember| member.state != State::Doubted && member.effective_weight(counts_failing) > 0.0;
        let any_up = members().any(|(_, member)| up(member));
        let effective_weight =
            |member: &CellMember| if any_up && !up(member) { 0.0 } else { member.effective_weight(counts_failing) };
        members().map(|(index, member)| (index, effective_weight(member))).collect()
    }

    fn divided(&self, level: u8, counts_failing: bool) -> Vec<(usize, f64)> {
        let claims = self.of_level(level, counts_failing);
        let sheds = |index: usize| matches!(self.members[index].state, State::Shedding(_));
        if self.policy.hashes() && claims.iter().any(|&(index, _)| sheds(index)) {
            // It gives away a part of the keys that it has by its weight.
            let sum: f64 = claims
                .iter()
                .map(
                    |&(index, effective_weight)| {
                        if sheds(index) { f64::from(self.members[index].weight) } else { effective_weight }
                    },
                )
                .sum();
            let given: f64 = claims
                .iter()
                .filter(|&&(index, _)| sheds(index))
                .map(|&(index, effective_weight)| (f64::from(self.members[index].weight) - effective_weight) / sum)
                .sum();
            let others: f64 =
                claims.iter().filter(|&&(index, _)| !sheds(index)).map(|(_, effective_weight)| effective_weight).sum();
            let share = |&(index, effective_weight): &(usize, f64)| {
                (index, effective_weight / sum + if sheds(index) { 0.0 } else { given * effective_weight / others })
            };
            return claims.iter().map(share).collect();
        }
        if self.policy != PolicyParams::First {
            let sum: f64 = claims.iter().map(|(_, effective_weight)| effective_weight).sum();
            return claims.into_iter().map(|(index, effective_weight)| (index, effective_weight / sum)).collect();
        }
        // In the order of ids: each takes its part of what those before it have left. Who ramps, ramps beside those who ramp
        // least; who has failed is not asked again.
        let parts: Vec<(usize, f64)> = claims
            .iter()
            .map(|&(index, effective_weight)| (index, effective_weight / f64::from(self.members[index].weight.max(1))))
            .collect();
        let present = |index: usize| self.members[index].weight() > 0 && self.members[index].active_fraction() > 0;
        let ramp = |index: usize| f64::from(self.members[index].active_fraction()) / f64::from(FULL_SHARE);
        let up = |index: usize| self.members[index].state != State::Doubted;
        let any_up = parts.iter().any(|&(index, _)| present(index) && up(index));
        let most = parts
            .iter()
            .filter(|&&(index, _)| present(index) && (up(index) || !any_up))
            .map(|&(index, _)| ramp(index))
            .fold(0.0, f64::max);
        let mut left = 1.0;
        let mut shares: Vec<(usize, f64)> = Vec::new();
        for (index, part) in parts {
            let part = (part / most).min(1.0);
            shares.push((index, left * part));
            left *= 1.0 - part;
        }
        // What nobody took on account of ramps and shedding, the first who can takes.
        if let Some((_, share)) = shares
            .iter_mut()
            .find(|(index, _)| claims.iter().any(|(other, effective_weight)| other == index && *effective_weight > 0.0))
        {
            *share += left;
        }
        shares
    }

    /// How far from what is due a member may be because of the policy itself: factors, below and above.
    pub(crate) fn slack(&self, index: usize) -> (f64, f64) {
        let equal = || {
            let claims: Vec<f64> = self
                .members
                .iter()
                .map(|member| member.effective_weight(false))
                .filter(|effective_weight| *effective_weight > 0.0)
                .collect();
            claims.iter().all(|effective_weight| *effective_weight == claims[0])
        };
        match self.policy {
            PolicyParams::RoundRobin | PolicyParams::Random | PolicyParams::First => (1.0, 1.0),
            PolicyParams::PowerOfTwo | PolicyParams::LeastRequest if self.concurrency == 1 || equal() => (0.98, 1.02),
            // Each further try is drawn anew, and finds the light ones idle.
            PolicyParams::PowerOfTwo | PolicyParams::LeastRequest
                if self.members.iter().any(|member| member.state == State::Failing) =>
            {
                (0.5, 4.0)
            }
            // Of few requests in flight nobody has his due to the letter.
            PolicyParams::PowerOfTwo | PolicyParams::LeastRequest => (0.55, 1.6),
            // What is remembered of its latency fades: who is seldom asked looks a little faster.
            PolicyParams::PeakEwma(_) if equal() => (0.9, 1.1),
            PolicyParams::PeakEwma(_) => (0.5, 2.0),
            PolicyParams::Ring(params) => {
                let points = f64::from(params.points) * f64::from(self.members[index].weight.max(1)) / 100.0;
                (0.9 - 5.0 / points.sqrt(), 1.1 + 5.0 / points.sqrt())
            }
            _ => (0.9, 1.1),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.state != State::Well)
            .map(|(index, member)| format!("{index} {:?}", member.state))
            .take(6)
            .collect();
        let weights: Vec<u32> = self.members.iter().map(|member| member.weight).take(8).collect();
        write!(
            f,
            "{} | {} members, {weights:?} | {} in flight | {:?} | {}",
            self.policy.name(),
            self.members.len(),
            self.concurrency,
            self.shares,
            away.join(", ")
        )
    }
}

/// Numbers that look drawn, the same every time. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Above 0, up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}
