//! Attacks over HTTP/2 against Ringway and HAProxy, with the same attacker: processor time that each took of the proxy, and its memory.
//! Prints Markdown tables, medians of the rounds.
//!
//!     cargo build --release --workspace && target/release/attacks [--rounds N] [--seconds N] [--rate N] [ATTACK...]
//!
//! `--rate`: units of the attack a second, 10,000 if it is left out; 0: all that the attacker can. Needs nginx (the backends).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::attack::{Attack, attack};
use ringway_benches::compare::peer::{Balance, Cover, Front, Peer, Running, Setup};
use ringway_benches::compare::scenario::Backends;
use ringway_benches::compare::{Result, report::Table};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// After an attack, until its connections have ended and what they held has been given back.
const CALM: Duration = Duration::from_secs(2);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(50);
const COLUMNS: [&str; 7] =
    ["CPU s", "connections", "units sent", "CPU us per unit", "resident MiB before", "at its peak", "after"];

struct Arguments {
    rounds: usize,
    time: Duration,
    a_second: u64,
    attacks: Vec<Attack>,
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments { rounds: 3, time: Duration::from_secs(4), a_second: 10_000, attacks: Vec::new() };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut number = || {
            let text = rest.next().ok_or_else(|| format!("{argument} needs a number"))?;
            text.parse::<u64>().map_err(|error| format!("{argument} {text}: {error}"))
        };
        match argument.as_str() {
            "--rounds" => arguments.rounds = number()?.max(1) as usize,
            "--seconds" => arguments.time = Duration::from_secs(number()?.max(1)),
            "--rate" => arguments.a_second = Some(number()?).filter(|rate| *rate > 0).unwrap_or(u64::MAX / 1_000_000),
            name => match Attack::ALL.into_iter().find(|attack| attack.name() == name) {
                Some(attack) => arguments.attacks.push(attack),
                None => {
                    let names = Attack::ALL.map(Attack::name).join(" | ");
                    return Err(format!("what is {name}? attacks [--rounds N] [--seconds N] [--rate N] [{names}]"));
                }
            },
        }
    }
    if arguments.attacks.is_empty() {
        arguments.attacks = Attack::ALL.to_vec();
    }
    Ok(arguments)
}

/// One attack on one proxy that has just been started: the row's values.
fn measure(kind: Attack, proxy: &Running, arguments: &Arguments) -> Result<[f64; COLUMNS.len()]> {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let (before, mut peak, mut looked) = (proxy.resident_kib(), 0, Instant::now());
    let cpu = proxy.cpu_nanos();
    let sent = attack(kind, proxy.port, arguments.a_second, arguments.time, || {
        if looked.elapsed() > LOOK {
            (peak, looked) = (peak.max(proxy.resident_kib()), Instant::now());
        }
    })?;
    let cpu = (proxy.cpu_nanos() - cpu) as f64;
    std::thread::sleep(CALM);
    let (units, connections) = (sent.units as f64, sent.connections as f64);
    let us = cpu / 1e3 / units.max(1.0);
    Ok([cpu / 1e9, connections, units, us, mib(before), mib(peak), mib(proxy.resident_kib())])
}

fn attacks(arguments: &Arguments, directory: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load_core = usize::from(cores > 1);
    let mut own = rustix::thread::CpuSet::new();
    own.set(load_core);
    rustix::thread::sched_setaffinity(None, &own).map_err(|error| format!("take core {load_core}: {error}"))?;
    let fleet = Backends::start(4, load_core, directory)?;
    let setup = Setup {
        front: Front::Http,
        balance: Balance::RoundRobin,
        backends: fleet.ports().to_vec(),
        cover: Cover::H2,
        ..Setup::default()
    };
    for &kind in &arguments.attacks {
        let mut table = Table::new(format!("{}, {:?}", kind.name(), arguments.time), &COLUMNS);
        for _ in 0..arguments.rounds {
            for peer in [Peer::Ringway, Peer::Haproxy] {
                match peer.start(&setup, 0, directory) {
                    Ok(proxy) => {
                        // What it does at its start is not measured.
                        std::thread::sleep(Duration::from_millis(300));
                        table.push(peer.name(), &measure(kind, &proxy, arguments)?);
                    }
                    Err(error) if peer == Peer::Ringway => return Err(error),
                    Err(error) => table.notes = vec![format!("skipped: {error}.")],
                }
            }
        }
        println!("{}", table.markdown());
    }
    Ok(())
}

fn main() -> ExitCode {
    let run = || {
        let arguments = arguments()?;
        let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
        attacks(&arguments, directory.path())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
