//! Hits and balance behind a fleet of proxies: Ringway, HAProxy and Envoy in front of the same caches, one after the other. Prints Markdown.
//!
//!     cargo build --profile dist --workspace && target/dist/affinity [--proxies N] [--rate N] [--warm SECONDS] [--seconds SECONDS] [--zipf S]...
//!
//! A peer that is missing is named and skipped. Each row takes `warm` and `seconds` together.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::compare::Result;
use ringway_benches::compare::affinity::{Effort, fleets, measure};
use ringway_benches::simulate::workload::Workload;
use std::process::ExitCode;

fn compare() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut effort = Effort { rate: 1_000.0, warm: 20, seconds: 30, core: 0 };
    let (mut proxies, mut exponents) = (8, Vec::new());
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let text = rest.next().ok_or_else(|| format!("{argument} needs a number"))?;
        let number: f64 = text.parse().map_err(|error| format!("{argument} {text}: {error}"))?;
        match argument.as_str() {
            "--proxies" => proxies = number.max(1.0) as usize,
            "--rate" => effort.rate = number.max(1.0),
            "--warm" => effort.warm = number.max(0.0) as u64,
            "--seconds" => effort.seconds = number.max(1.0) as u64,
            "--zipf" => exponents.push(number),
            _ => {
                return Err(format!(
                    "what is {argument}? affinity [--proxies N] [--rate N] [--warm S] [--seconds S] [--zipf S]..."
                ));
            }
        }
    }
    if exponents.is_empty() {
        exponents = vec![0.9, 1.1];
    }
    let mut own = rustix::thread::CpuSet::new();
    own.set(usize::from(cores > 1));
    rustix::thread::sched_setaffinity(None, &own).map_err(|error| format!("take a core: {error}"))?;
    let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    for exponent in exponents {
        let workload = Workload::Zipf(exponent);
        println!(
            "| {}, {proxies} proxies, {} requests/s | hit ratio | of one unbounded | away | peak/average | failed |",
            workload.name(),
            effort.rate
        );
        println!("|---|---|---|---|---|---|");
        let mut best = None;
        for fleet in fleets(proxies) {
            match measure(&fleet, workload, &effort, directory.path()) {
                Ok(outcome) => {
                    let best = *best.get_or_insert(outcome.hits);
                    println!(
                        "| {} | {:.3} | {:.3} | {:.1} % | {:.2} | {} |",
                        fleet.name,
                        outcome.hits,
                        outcome.hits / best,
                        outcome.away * 100.0,
                        outcome.peak,
                        outcome.failed
                    );
                }
                Err(error) if best.is_none() => return Err(format!("{}: {error}", fleet.name)),
                Err(error) => eprintln!("{}: skipped: {error}", fleet.name),
            }
        }
        println!();
    }
    Ok(())
}

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("affinity: {error}");
            ExitCode::FAILURE
        }
    }
}
