//! What the simulation sees of everything, and what may not be: the trace, and the promises that members make to each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Plant;
use super::rollouts::Shares;
use super::tables::Published;
use super::watchers::{Known, Place, view_of};
use crate::consensus::replica::decode_answer;
use crate::consensus::{At, Role, Status};
use crate::state::{Command, Digest, State};
use crate::store::Store;
use crate::store::record::{self, LogId, Vote};
use crate::transport::{AppendAnswer, Call, Rpc, SnapshotAnswer, VoteAnswer};
use crate::watch::view::View;

/// Lines that a failure shows.
const LAST_LINES: usize = 80;

/// All clones are one.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Seen>>);

/// An entry as the first member that applied it saw it, and what came of it.
#[derive(Clone, PartialEq, Eq)]
struct Applied {
    term: u64,
    leader: u64,
    command: Bytes,
    answer: Vec<u8>,
    digest: String,
}

/// What a member has told others that it will not forget.
#[derive(Default)]
struct Promise {
    /// The greatest vote that it has granted, or served under.
    vote: Option<Vote>,
    /// The last entry that it has acknowledged, and to whom.
    entry: Option<(Vote, LogId)>,
}

struct Seen {
    began: Instant,
    loud: bool,
    hash: blake3::Hasher,
    last: VecDeque<String>,
    violations: Vec<String>,
    clock: u64,
    applied: BTreeMap<u64, Applied>,
    promises: BTreeMap<u64, Promise>,
    /// By term: who has said to lead.
    leaders: BTreeMap<u64, Vec<u64>>,
    counts: BTreeMap<&'static str, u64>,
    /// Lives of the cluster before this one.
    era: u64,
    /// What the objects were at each place, in each life that came there.
    states: BTreeMap<Place, Vec<(u64, Arc<State>)>>,
    plant: Option<Plant>,
    reigns: Reigns,
    shares: Shares,
    tables: Published,
}

/// How long who led has led without a break, as far as it was looked at.
#[derive(Default)]
struct Reigns {
    /// Leader and term.
    now: Option<(u64, u64)>,
    since: Option<Instant>,
    /// The time that earlier ones have certainly counted of a silence.
    counted: Duration,
}

/// Of a reign's beginning, what need not count: it may grant so much.
const REIGN_MIN: Duration = Duration::from_millis(1_500);

impl Reigns {
    fn look(&mut self, now: Option<(u64, u64)>) {
        if self.now == now {
            return;
        }
        // Of what a leader has seen of a silence, the log may miss the second half: see `lessor/leases.rs`.
        self.counted += self.length() / 2;
        (self.now, self.since) = (now, now.map(|_| Instant::now()));
    }

    fn length(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed().saturating_sub(REIGN_MIN))
    }
}

impl World {
    pub(super) fn new(loud: bool, plant: Option<Plant>) -> Self {
        Self(Arc::new(Mutex::new(Seen {
            began: Instant::now(),
            loud,
            hash: blake3::Hasher::new(),
            last: VecDeque::new(),
            violations: Vec::new(),
            clock: 0,
            applied: BTreeMap::new(),
            promises: BTreeMap::new(),
            leaders: BTreeMap::new(),
            counts: BTreeMap::new(),
            era: 0,
            states: BTreeMap::new(),
            plant,
            reigns: Reigns::default(),
            shares: Shares::default(),
            tables: Published::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// A line of the trace.
    pub(super) fn note(&self, what: impl fmt::Display) {
        self.lock().note(what);
    }

    /// What must not happen. The run ends soon after; not here, where the product might catch a panic.
    pub(super) fn violation(&self, what: impl fmt::Display) {
        self.lock().violation(what);
    }

    pub(super) fn is_good(&self) -> bool {
        self.lock().violations.is_empty()
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    pub(super) fn counted_of(&self, what: &str) -> u64 {
        self.lock().counts.get(what).copied().unwrap_or(0)
    }

    /// How much of a silence has counted so far, at least, by whoever led.
    pub(super) fn counted(&self) -> Duration {
        let seen = self.lock();
        seen.reigns.counted + seen.reigns.length()
    }

    /// Whether this fault is planted: it is to be found.
    pub(super) fn has(&self, plant: Plant) -> bool {
        self.lock().plant == Some(plant)
    }

    /// Lives of the cluster before this one.
    pub(super) fn era(&self) -> u64 {
        self.lock().era
    }

    /// Asks the rollouts' shares.
    pub(super) fn with_shares<T>(&self, ask: impl FnOnce(&Shares) -> T) -> T {
        ask(&self.lock().shares)
    }

    /// Asks what was published of loads, or notes it, in this life of the cluster.
    pub(super) fn with_tables(&self, act: impl FnOnce(&mut Published, u64) -> Result<(), String>) {
        let mut seen = self.lock();
        let era = seen.era;
        if let Err(why) = act(&mut seen.tables, era) {
            seen.violation(why);
        }
    }

    /// All members are lost: what comes next is another log.
    pub(super) fn be_reborn(&self) {
        let mut seen = self.lock();
        seen.era += 1;
        seen.applied.clear();
        seen.promises.clear();
        seen.leaders.clear();
    }

    /// A member has come to this state, by an entry or by a snapshot.
    pub(super) fn came_to(&self, state: &Arc<State>) {
        let mut seen = self.lock();
        let era = seen.era;
        if let Err(why) = seen.shares.check(era, state) {
            seen.violation(why);
        }
        let known = seen.states.entry((state.epoch, state.revision)).or_default();
        if !known.iter().any(|(of, known)| *of == era && is_same(known, state)) {
            known.push((era, Arc::clone(state)));
        }
        let of_era: Vec<Digest> = known.iter().filter(|(of, _)| *of == era).map(|(_, state)| state.digest).collect();
        if of_era.len() > 1 {
            let place = (state.epoch, state.revision);
            seen.violation(format_args!("there are different objects at {place:?}: {of_era:?}"));
        }
    }

    /// What somebody knows who was here once, in this epoch.
    pub(super) fn past(&self, number: u64) -> Option<Known> {
        let seen = self.lock();
        let era = seen.era;
        let of_era = |known: &&Vec<(u64, Arc<State>)>| known.iter().any(|(of, _)| *of == era);
        let last = seen.states.iter().rfind(|(_, known)| of_era(known)).map(|(place, _)| *place)?;
        let epoch: Vec<&Vec<(u64, Arc<State>)>> =
            seen.states.range((last.0, 0)..=last).map(|(_, known)| known).filter(of_era).collect();
        let states = epoch.get((number % epoch.len().max(1) as u64) as usize)?;
        let (_, state) = states.iter().find(|(of, _)| *of == era)?;
        Some(Known { era, view: view_of(state).filter(|view| !view.cluster.is_empty())? })
    }

    /// What somebody knows is what the objects were at that place, in this life of the cluster or in one before.
    pub(super) fn check_view(&self, who: &str, view: &View) {
        let mut seen = self.lock();
        let place = (view.epoch, view.revision);
        let known = seen.states.get(&place).map_or(&[][..], Vec::as_slice);
        if !known.iter().any(|(_, state)| is_of(view, state)) {
            let there: Vec<Digest> = known.iter().map(|(_, state)| state.digest).collect();
            let digest = view.digest;
            seen.violation(format_args!("{who} knows {digest} at {place:?}, where there was {there:?}"));
        }
    }

    /// Grows with every call: the order of what happens, finer than virtual time.
    pub(super) fn tick(&self) -> u64 {
        let mut seen = self.lock();
        seen.clock += 1;
        seen.clock
    }

    /// A member has applied an entry: the same one everywhere, with the same outcome.
    pub(super) fn applied(&self, member: u64, at: At, command: &[u8], answer: &[u8], digest: String) {
        let mut seen = self.lock();
        seen.note(format_args!("m{member} applies {} of t{}.m{}: {digest}", at.index, at.term, at.leader));
        let (command, answer) = (Bytes::copy_from_slice(command), answer.to_vec());
        let new = Applied { term: at.term, leader: at.leader, command, answer, digest };
        match seen.applied.get(&at.index) {
            None => {
                let raised = matches!(postcard::from_bytes(&new.command), Ok(Command::RaiseEpoch { .. }));
                if raised && decode_answer(&new.answer).is_ok() {
                    *seen.counts.entry("epochs raised above what proxies have").or_default() += 1;
                }
                seen.applied.insert(at.index, new);
            }
            Some(known) if *known == new => {}
            Some(known) => {
                let other = if (known.term, known.leader, &known.command) == (new.term, new.leader, &new.command) {
                    "with another outcome"
                } else {
                    "as another entry"
                };
                seen.violation(format_args!("m{member} applies entry {} {other} than before", at.index));
            }
        }
    }

    /// The command of every entry that somebody has applied, but of those that were to be judged again.
    pub(super) fn commands(&self) -> Vec<(u64, Bytes)> {
        let again = |applied: &Applied| match decode_answer(&applied.answer) {
            Err(refusal) => matches!(refusal.code.as_str(), "moved" | "unjudged"),
            Ok(_) => false,
        };
        let seen = self.lock();
        let decided = seen.applied.iter().filter(|(_, applied)| !again(applied));
        decided.map(|(index, applied)| (*index, applied.command.clone())).collect()
    }

    /// A member goes on from a snapshot: the state that others had at its end.
    pub(super) fn restored(&self, member: u64, index: u64, digest: &str) {
        let mut seen = self.lock();
        seen.note(format_args!("m{member} restores {index}: {digest}"));
        if seen.applied.get(&index).is_some_and(|known| known.digest != digest) {
            seen.violation(format_args!("m{member} restores another state at {index} than was applied there"));
        }
    }

    /// A member's answer leaves it: what it promises has to be on its disk.
    pub(super) fn promised(&self, member: u64, call: &Call, rpc: Rpc, answer: &[u8]) {
        let mut seen = self.lock();
        let promise = seen.promises.entry(member).or_default();
        let index = rpc as u64;
        match call {
            Call::Vote(call) => {
                if let Ok(VoteAnswer { granted: true, .. }) = record::decode(index, answer) {
                    promise.vote(call.vote);
                }
            }
            Call::Append(call) if !call.entries.is_empty() => {
                let through = match record::decode(index, answer) {
                    Ok(AppendAnswer::Done) => call.entries.last().map(|entry| entry.id),
                    Ok(AppendAnswer::Through(id)) => id,
                    _ => None,
                };
                if let Some(through) = through {
                    promise.entry(call.vote, through);
                }
            }
            Call::Snapshot(call, _) => {
                if let (Ok(SnapshotAnswer { vote }), Some(last)) = (record::decode(index, answer), call.meta.last)
                    && vote == call.vote
                {
                    promise.entry(call.vote, last);
                }
            }
            _ => {}
        }
    }

    /// A member has opened its disk: what it promised is there, whatever happened to it.
    pub(super) fn booted(&self, member: u64, store: &Store) {
        let mut seen = self.lock();
        let (vote, last) = (store.vote(), store.last());
        seen.note(format_args!("m{member} boots with {} and the log through {}", Shown(vote), Shown(last)));
        let Some(promise) = seen.promises.get(&member) else { return };
        let forgotten = promise.vote.filter(|promised| vote.map(rank) < Some(rank(*promised)));
        let lost = promise.entry.filter(|(leader, id)| {
            // Under a later leader it may have been another's turn to say what stands there.
            vote.is_none_or(|vote| (vote.term, vote.leader) <= (leader.term, leader.leader)) && !has(store, *id)
        });
        if let Some(promised) = forgotten {
            seen.violation(format_args!("m{member} has promised {} and forgotten it", Shown(Some(promised))));
        }
        if let Some((_, id)) = lost {
            seen.violation(format_args!("m{member} has acknowledged {} and lost it", Shown(Some(id))));
        }
    }

    /// What running members say of themselves at one moment. `counting`: those that count silences, with the term in which they do.
    pub(super) fn looked<'a>(&self, all: impl Iterator<Item = &'a Status>, counting: &BTreeSet<(u64, u64)>) {
        let mut seen = self.lock();
        let all: Vec<&Status> = all.collect();
        let first = all.iter().filter(|status| status.role == Role::Leader).max_by_key(|status| status.term);
        seen.reigns.look(first.map(|status| (status.id, status.term)).filter(|leads| counting.contains(leads)));
        let mut now: BTreeMap<u64, u64> = BTreeMap::new();
        for status in all.into_iter().filter(|status| status.role == Role::Leader) {
            let (term, node) = (status.term, status.id);
            if let Some(other) = now.insert(term, node) {
                seen.violation(format_args!("m{other} and m{node} lead term {term} at once"));
            }
            let before = seen.leaders.entry(term).or_default();
            match before.last() {
                Some(last) if *last == node => {}
                // The engine's terms are pairs: within a number a greater member may follow a smaller one.
                Some(last) if *last > node => {
                    let last = *last;
                    seen.violation(format_args!("m{node} leads term {term} after m{last}"));
                }
                _ => {
                    before.push(node);
                    seen.note(format_args!("m{node} leads term {term}"));
                }
            }
        }
    }

    /// The whole trace in one number, and what was counted; or what went wrong, with the end of the trace.
    pub(super) fn finish(&self) -> Result<(String, String), String> {
        let seen = self.lock();
        let terms = seen.leaders.len();
        let counts: Vec<String> = seen.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let length = seen.began.elapsed();
        if seen.violations.is_empty() {
            let summary = format!(
                "{length:.1?}, {} entries, {terms} terms with a leader, {}",
                seen.applied.len(),
                counts.join(", ")
            );
            return Ok((seen.hash.finalize().to_hex()[..16].to_owned(), summary));
        }
        let last: Vec<&str> = seen.last.iter().map(String::as_str).collect();
        Err(format!("{}\nthe end of the trace:\n{}", seen.violations.join("\n"), last.join("\n")))
    }
}

impl Seen {
    fn note(&mut self, what: impl fmt::Display) {
        let line = format!("{:>10.3} {what}", self.began.elapsed().as_secs_f64() * 1000.0);
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        if self.loud {
            println!("{line}");
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn violation(&mut self, what: impl fmt::Display) {
        let text = format!("VIOLATION: {what}");
        self.note(&text);
        self.violations.push(text);
    }
}

impl Promise {
    fn vote(&mut self, vote: Vote) {
        if self.vote.map(rank) < Some(rank(vote)) {
            self.vote = Some(vote);
        }
    }

    fn entry(&mut self, leader: Vote, through: LogId) {
        self.vote(leader);
        match &mut self.entry {
            Some((known, id)) if rank(*known) == rank(leader) => *id = (*id).max(through),
            Some((known, _)) if rank(*known) > rank(leader) => {}
            slot => *slot = Some((leader, through)),
        }
    }
}

fn is_same(one: &State, other: &State) -> bool {
    (&one.cluster, one.digest) == (&other.cluster, other.digest)
}

/// Whether a view is of this state, object by object.
pub(super) fn is_of(view: &View, state: &State) -> bool {
    (&view.cluster, view.epoch, view.revision, view.digest)
        == (&state.cluster, state.epoch, state.revision, state.digest)
        && view.objects.len() == state.objects.size()
        && view.objects.iter().all(|(key, object)| state.object(key) == Some(&**object))
}

/// Votes in their order.
fn rank(vote: Vote) -> (u64, u64, bool) {
    (vote.term, vote.leader, vote.committed)
}

fn has(store: &Store, id: LogId) -> bool {
    let covered = store.purged().max(store.snapshot_meta().and_then(|meta| meta.last));
    covered.is_some_and(|covered| covered.index >= id.index)
        || store.entries(id.index..=id.index, usize::MAX).first().is_some_and(|entry| entry.id == id)
}

/// Short, for the trace.
pub(super) struct Shown<T>(pub(super) T);

impl fmt::Display for Shown<Option<Vote>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(vote) => write!(f, "v{}.m{}{}", vote.term, vote.leader, if vote.committed { "!" } else { "" }),
            None => f.write_str("no vote"),
        }
    }
}

impl fmt::Display for Shown<Option<LogId>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{}(t{}.m{})", id.index, id.term, id.leader),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Shown<&Call> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vote = |vote: &Vote| Shown(Some(*vote));
        match self.0 {
            Call::Append(call) => {
                let (previous, committed) = (Shown(call.previous), Shown(call.committed));
                let last = Shown(call.entries.last().map(|entry| entry.id));
                let (vote, count) = (vote(&call.vote), call.entries.len());
                write!(f, "append {vote} after {previous} {count} through {last} committed {committed}")
            }
            Call::Vote(call) => write!(f, "vote {} with {}", vote(&call.vote), Shown(call.last)),
            Call::PreVote(call) => write!(f, "pre-vote {} with {}", vote(&call.vote), Shown(call.last)),
            Call::Snapshot(call, content) => {
                write!(f, "snapshot {} through {}: {} bytes", vote(&call.vote), Shown(call.meta.last), content.len())
            }
            Call::Transfer(call) => write!(f, "transfer {} to m{}", vote(&call.from), call.to),
            Call::Ask(bytes) => write!(f, "ask {}", blake3::hash(bytes).to_hex().split_at(8).0),
        }
    }
}
