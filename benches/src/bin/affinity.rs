//! Hits and balance behind a fleet of proxies: Ringway, HAProxy and Envoy in front of the same caches, one after the other. Prints Markdown.
//!
//!     cargo build --profile dist --workspace && target/dist/affinity [--smoke] [--ringway PATH] [--proxies N] [--rate N] [--warm SECONDS] [--seconds SECONDS] [--seed N] [--zipf S]...
//!
//! And what becomes of bounds of the whole fleet when its control plane fails under load: the same with `faults` in front.
//!
//! A peer that is missing is named and skipped; so are bounds of the fleet where this Ringway's configuration does not know them. Each row
//! takes `warm` and `seconds` together.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::compare::affinity::{Effort, Fault, Fleet, disturb, fleets, measure, refused};
use ringway_benches::compare::{Result, rig};
use ringway_benches::simulate::workload::Workload;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "affinity [faults] [--smoke] [--ringway PATH] [--proxies N] [--rate N] [--warm S] [--seconds S] [--seed N] [--zipf S]...";

struct Arguments {
    effort: Effort,
    proxies: usize,
    exponents: Vec<f64>,
    are_faults: bool,
    is_smoke: bool,
}

fn arguments() -> Result<Arguments> {
    let ringway = rig::ringway()?;
    let mut effort = Effort { ringway, rate: 1_000.0, warm: 20, seconds: 30, seed: 42, core: 0 };
    let (mut proxies, mut exponents, mut are_faults, mut is_smoke) = (8, Vec::new(), false, false);
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "faults" => {
                are_faults = true;
                continue;
            }
            "--smoke" => {
                effort = Effort { rate: 200.0, warm: 2, seconds: 3, ..effort };
                (proxies, exponents, is_smoke) = (2, vec![1.1], true);
                continue;
            }
            _ => {}
        }
        let text = rest.next().ok_or_else(|| format!("{argument} needs a value; {USAGE}"))?;
        if argument == "--ringway" {
            effort.ringway = text.into();
            continue;
        }
        let number: f64 = text.parse().map_err(|error| format!("{argument} {text}: {error}"))?;
        match argument.as_str() {
            "--proxies" => proxies = number.max(1.0) as usize,
            "--rate" => effort.rate = number.max(1.0),
            "--warm" => effort.warm = number.max(0.0) as u64,
            "--seconds" => effort.seconds = number.max(1.0) as u64,
            "--seed" => effort.seed = number.max(0.0) as u64,
            "--zipf" => exponents.push(number),
            _ => return Err(format!("what is {argument}? {USAGE}")),
        }
    }
    if exponents.is_empty() {
        exponents = if are_faults { vec![1.1] } else { vec![0.9, 1.1] };
    }
    Ok(Arguments { effort, proxies, exponents, are_faults, is_smoke })
}

fn compare(arguments: &Arguments, workload: Workload, directory: &Path) -> Result<()> {
    let (effort, proxies) = (&arguments.effort, arguments.proxies);
    println!(
        "| {}, {proxies} proxies, {} requests/s | hit ratio | of one unbounded | away | peak/average | failed |",
        workload.name(),
        effort.rate
    );
    println!("|---|---|---|---|---|---|");
    let mut best = None;
    // The short form: what all are compared with, and what needs most to run at all.
    let is_played = |fleet: &Fleet| !arguments.is_smoke || fleet.proxies == 1 || fleet.members > 0;
    for fleet in fleets(proxies).into_iter().filter(is_played) {
        if fleet.members > 0
            && let Some(said) = refused(effort, directory)?
        {
            eprintln!("{}: skipped: {} refuses its configuration: {said}", fleet.name, effort.ringway.display());
            continue;
        }
        match measure(&fleet, workload, effort, directory) {
            Ok(outcome) => {
                let best = *best.get_or_insert(outcome.hits);
                if arguments.is_smoke && outcome.failed > 0 {
                    return Err(format!("{}: {} requests have failed", fleet.name, outcome.failed));
                }
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
    Ok(())
}

fn faults(arguments: &Arguments, workload: Workload, directory: &Path) -> Result<()> {
    let (effort, proxies) = (&arguments.effort, arguments.proxies);
    if let Some(said) = refused(effort, directory)? {
        eprintln!("skipped: {} refuses bounds of the fleet: {said}", effort.ringway.display());
        return Ok(());
    }
    println!(
        "| {}, {proxies} proxies, {} requests/s | failed | keys shed before | at the end | largest step of a second | table before, at the end | hit ratio | peak/average |",
        workload.name(),
        effort.rate
    );
    println!("|---|---|---|---|---|---|---|---|");
    for fault in Fault::ALL {
        let seen = disturb(fault, proxies, workload, effort, directory)
            .map_err(|error| format!("{}: {error}", fault.name()))?;
        println!(
            "| {} | {} | {:.1} % | {:.1} % | {:.1} points | {} | {:.3} | {:.2} |",
            fault.name(),
            seen.outcome.failed,
            seen.shed[0] * 100.0,
            seen.shed[1] * 100.0,
            seen.largest_step * 100.0,
            seen.tables.join(", "),
            seen.outcome.hits,
            seen.outcome.peak
        );
        if seen.outcome.failed > 0 {
            return Err(format!("{}: {} requests have failed", fault.name(), seen.outcome.failed));
        }
    }
    println!();
    Ok(())
}

fn run(directory: &Path) -> Result<()> {
    let arguments = arguments()?;
    let each = if arguments.are_faults { faults } else { compare };
    let workloads = arguments.exponents.iter().map(|&exponent| Workload::Zipf(exponent));
    workloads.into_iter().try_for_each(|workload| each(&arguments, workload, directory))
}

fn main() -> ExitCode {
    rig::run("affinity", run)
}
