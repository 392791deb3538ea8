//! The data path in virtual time on one thread: everything that happens is drawn from a seed, and happens again with it.
//!
//! Real are the workers with all that they do for a connection, the configuration, snapshots, the health machine. Simulated are the
//! clock, the network (`transport/memory.rs`), clients and backends, and the control side, which runs checks and puts configurations
//! into force.
//!
//! ```sh
//! proxy/simulate 1000             # RINGWAY_SIM_SEEDS=1000 cargo test -p ringway-proxy --lib simulation, and faster
//! proxy/simulate --seed 17        # RINGWAY_SIM_SEED=17: one, with its trace
//! ```
#![allow(clippy::print_stdout, reason = "a simulation says which seeds it plays, and a single one what happens")]

mod backends;
mod checks;
mod clients;
mod floods;
mod handing;
mod happenings;
mod ledger;
mod message;
mod random;
mod scenarios;
mod sessions;
mod setup;
mod streams;
mod world;

use crate::ambient;
use crate::planted::{self, Fault};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Seeds that every test run plays.
const SEEDS: u64 = 16;
/// Seeds that are scanned for the faults whose places they reach.
const SEEDS_PLANTED: u64 = 24;
/// Seeds that a planted fault is played with, first those that reach its place most often.
const TRIES_PLANTED: usize = 8;
/// Failures that are shown at a time.
const FAILED_MAX: usize = 10;
/// How often tasks may be polled while time stands still.
const POLLS_MAX: u64 = 200_000;

thread_local! {
    /// Polls altogether, at this instant, and since when.
    static POLLS: Cell<(u64, u64, Option<Instant>)> = const { Cell::new((0, 0, None)) };
    static SPUN: Cell<bool> = const { Cell::new(false) };
}

/// A thread's runtime, whose time only the tasks in it wait for.
fn runtime() -> tokio::runtime::LocalRuntime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build_local(<_>::default()).expect("a runtime")
}

fn begin() {
    POLLS.set((0, 0, None));
    SPUN.set(false);
}

fn polls() -> u64 {
    POLLS.get().0
}

fn has_spun() -> bool {
    SPUN.get()
}

/// Counts how often a task is polled, and ends it if it never stops.
pub(crate) async fn counted<T>(what: &str, task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    poll_fn(|context| {
        let (all, here, at) = POLLS.get();
        let now = ambient::now();
        let here = if at == Some(now) { here + 1 } else { 1 };
        POLLS.set((all + 1, here, Some(now)));
        if here > POLLS_MAX {
            SPUN.set(true);
            panic!("{what} is polled again and again while time stands still");
        }
        task.as_mut().poll(context)
    })
    .await
}

/// How often the place of each planted fault was reached.
type FaultPlaces = BTreeMap<Fault, u64>;

/// Plays a seed for its hash; a failure says how to replay it.
fn play(seed: u64, loud: bool, fault: Option<Fault>) -> Result<String, String> {
    play_noting(seed, loud, fault).0
}

/// The same; also returns which faults' places it reached.
fn play_noting(seed: u64, loud: bool, fault: Option<Fault>) -> (Result<String, String>, FaultPlaces) {
    let (played, places) = std::thread::scope(|scope| {
        let run = || {
            planted::plant(fault);
            let played = catch_unwind(AssertUnwindSafe(|| world::play(seed, loud)));
            (played, planted::passed())
        };
        let thread = std::thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, run);
        thread.expect("a thread").join().expect("caught inside")
    });
    let why = match played {
        Ok(Ok((hash, summary))) => {
            println!("seed {seed}: {hash}, {summary}");
            return (Ok(hash), places);
        }
        Ok(Err(why)) => why,
        Err(_) => "VIOLATION it panicked, see above".to_owned(),
    };
    let why = format!("seed {seed} fails; play it again by\n    proxy/simulate --seed {seed}\n{why}");
    if fault.is_none() {
        println!("{why}");
    }
    (Err(why), places)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn requests_end_once_and_everything_is_given_back_whatever_happens() {
    if let Some(seed) = number("RINGWAY_SIM_SEED") {
        play(seed, true, None).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let (first, seeds) = (number("RINGWAY_SIM_FIRST").unwrap_or(1), number("RINGWAY_SIM_SEEDS").unwrap_or(SEEDS));
    let (next, failed) = (AtomicU64::new(first), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds || failed.lock().unwrap().len() >= FAILED_MAX {
                        return;
                    }
                    if play(seed, false, None).is_err() {
                        failed.lock().unwrap().insert(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "seeds {failed:?} fail; play them again by `proxy/simulate --seed N`");
}

#[test]
fn a_seed_is_played_twice_alike_and_another_otherwise() {
    let first = play(3, false, None).unwrap_or_else(|why| panic!("{why}"));
    // In a process of its own: other addresses, another state of the system's randomness.
    let here = std::env::current_exe().expect("a test runs");
    let again = std::process::Command::new(here)
        .args(["--exact", "simulation::requests_end_once_and_everything_is_given_back_whatever_happens", "--nocapture"])
        .env("RINGWAY_SIM_SEED", "3")
        .output()
        .expect("this program starts");
    let again = String::from_utf8_lossy(&again.stdout);
    assert!(again.contains(&format!("seed 3: {first}")), "{first} is not in\n{again}");
    assert_ne!(play(4, false, None).unwrap_or_else(|why| panic!("{why}")), first);
}

/// A simulation that finds nothing proves nothing: each of these faults is found, with the violation that stands beside it. A seed that
/// never reaches the place of a fault cannot find it: so first all seeds are scanned for that, and only a few of those that reach it
/// are played with it.
#[test]
fn planted_faults_are_found() {
    let faults: &[(Fault, &[&str])] = &[
        (Fault::ReservationLeaked, &["in flight"]),
        (
            Fault::TimerLost,
            &["is held for", "floods, and that ends", "never answered", "never end", "not closed", "in the end"],
        ),
        (Fault::WakeUpLost, &["wait for room"]),
        (
            Fault::BodyTruncated,
            &[
                "is not what was sent",
                "malformed",
                "never answered",
                "half an answer",
                "has got",
                "given up without a word",
            ],
        ),
        (Fault::TruncationHidden, &["that was cut off", "ended true", "given up without a word"]),
        (Fault::UnsafeRetry, &["is a POST and was sent twice", "are allowed"]),
        (Fault::OldVersionCounted, &["connected"]),
        (Fault::PermitLeaked, &["places are taken"]),
        (Fault::ReplayBytesLeaked, &["bytes kept"]),
        (Fault::BusyLoop, &["while time stands still"]),
        (Fault::StaleConnectionUsed, &["without a cause", "is an answer", "nobody's", "tried"]),
        (Fault::ClientCloseMissed, &["its client has left", "places are taken"]),
        (Fault::RemovedIdleCounted, &["idle connections are counted"]),
        (Fault::HandedKeyForgotten, &["goes back"]),
        (Fault::HandoffFieldPassed, &["of a previous owner", "has got a copy"]),
        (Fault::HandoffKept, &["windows are open", "are kept"]),
        (Fault::HandoffCopiesUnbounded, &["copies are under way"]),
        (Fault::FloodUnlimited, &["floods, and that ends"]),
        (Fault::InformationalsUnlimited, &["informational responses to request"]),
        (Fault::FloodHeld, &["floods, and that ends false"]),
        (Fault::HandoffCopyLeaked, &["copies of handed keys", "copies are under way"]),
    ];
    let seeds = number("RINGWAY_SIM_SEEDS").unwrap_or(SEEDS_PLANTED);
    let passed = Mutex::new(Vec::new());
    in_parallel(seeds, |index| {
        // Another test checks that they pass.
        let (_, places) = play_noting(index + 1, false, None);
        passed.lock().unwrap().push((index + 1, places));
    });
    let passed = passed.into_inner().unwrap();
    let unseen = Mutex::new(Vec::new());
    in_parallel(faults.len() as u64, |index| {
        let (fault, words) = faults[index as usize];
        let often = |places: &FaultPlaces| places.get(&fault).copied().unwrap_or_default();
        let mut seeds: Vec<(u64, u64)> = passed.iter().map(|(seed, places)| (often(places), *seed)).collect();
        seeds.sort_by_key(|(often, seed)| (std::cmp::Reverse(*often), *seed));
        seeds.retain(|(often, _)| *often > 0);
        println!(
            "{fault:?} is come to by {} seeds: (how often, seed) {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(TRIES_PLANTED)]
        );
        let tried = seeds.into_iter().take(TRIES_PLANTED);
        let found = tried.into_iter().find_map(|(_, seed)| Some((seed, play(seed, false, Some(fault)).err()?)));
        let line = found.as_ref().and_then(|(_, why)| why.lines().find(|line| line.starts_with("VIOLATION")));
        println!("{fault:?} is found by seed {:?}: {line:?}", found.as_ref().map(|(seed, _)| seed));
        if !line.is_some_and(|line| words.iter().any(|word| line.contains(word))) {
            unseen.lock().unwrap().push(format!("{fault:?} is found as {line:?}"));
        }
    });
    let unseen = unseen.into_inner().unwrap();
    assert!(unseen.is_empty(), "{unseen:#?}");
}

/// Runs so many jobs, on all processors.
fn in_parallel(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    if index >= count {
                        return;
                    }
                    work(index);
                }
            });
        }
    });
}
