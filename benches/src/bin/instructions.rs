//! The gate on instructions: what a request costs in user space in six scenarios, beside what was recorded. Fails where one costs
//! over 3 % more; says where one costs so much less that the record is to be made anew.
//!
//!     cargo build --release --workspace && target/release/instructions [--record | --busy [--workers N]] [--requests N] [--sample SHARE] [SCENARIO...]
//!
//! `--busy` counts under load instead, over one worker or so many, with what locks the bus, and compares with nothing.
//!
//! `--sample` counts with traces, so many of which are recorded, as `1%`, until all are delivered: to be read beside what is recorded
//! without.
//!
//! Needs valgrind and h2load. The record is benches/instructions.json: of a build by `--release --workspace`, no other. It holds
//! for one compiler; where the compiler has changed and the counts with it, record them anew in that commit.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table, and what goes wrong")]

use ringway_benches::compare::Result;
use ringway_benches::instructions::record::{Record, Verdict};
use ringway_benches::instructions::{Load, Scenario, Setting, write_certificate};
use std::process::{Command, ExitCode};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
/// Each count is made so often, and the least taken.
const TIMES: u32 = 3;

struct Arguments {
    record: bool,
    busy: bool,
    workers: u32,
    requests: u64,
    sample: Option<String>,
    scenarios: Vec<Scenario>,
}

fn arguments() -> Result<Arguments> {
    let (record, busy, scenarios) = (false, false, Vec::new());
    let mut arguments = Arguments { record, busy, workers: 1, requests: 2000, sample: None, scenarios };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--record" => arguments.record = true,
            "--busy" => arguments.busy = true,
            "--sample" => arguments.sample = Some(rest.next().ok_or("--sample needs a share")?),
            "--requests" => {
                let number = rest.next().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
                arguments.requests = number.ok_or("--requests needs a number")?;
            }
            "--workers" => {
                let number = rest.next().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
                arguments.workers = number.ok_or("--workers needs a number")?;
            }
            name => match Scenario::ALL.into_iter().find(|scenario| scenario.name() == name) {
                Some(scenario) => arguments.scenarios.push(scenario),
                None => {
                    let names = Scenario::ALL.map(Scenario::name).join(" | ");
                    return Err(format!(
                        "what is {name}? instructions [--record | --busy [--workers N]] [--requests N] [--sample SHARE] [{names}]"
                    ));
                }
            },
        }
    }
    if arguments.scenarios.is_empty() {
        arguments.scenarios = Scenario::ALL.to_vec();
    }
    Ok(arguments)
}

fn toolchain() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().map_err(|error| format!("ask rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Counts under load.
fn count_busy(workers: u32, requests: u64, sample: Option<&str>, scenarios: Vec<Scenario>) -> Result<()> {
    let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    write_certificate(directory.path())?;
    println!("| scenario, busy | workers | user instructions per request | of them locked |\n|---|---|---|---|");
    for scenario in scenarios {
        let name = scenario.name();
        let setting = Setting { directory: directory.path(), sample };
        let counted = scenario.count(Load::Busy(workers), requests, TIMES, &setting);
        let counted = counted.map_err(|error| format!("{name}: {error}"))?;
        println!("| {name} | {workers} | {} | {} |", counted.instructions, counted.locked);
    }
    Ok(())
}

/// Counts each scenario, two at a time: what else the machine does is in no count.
fn count_at_rest(scenarios: &[Scenario], requests: u64, sample: Option<&str>) -> Vec<Result<u64>> {
    let count = |scenario: Scenario| {
        let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
        write_certificate(directory.path())?;
        let setting = Setting { directory: directory.path(), sample };
        Ok(scenario.count(Load::AtRest, requests, TIMES, &setting)?.instructions)
    };
    let pairs = scenarios.chunks(2).flat_map(|pair| {
        std::thread::scope(|scope| {
            let started: Vec<_> = pair.iter().map(|scenario| scope.spawn(move || count(*scenario))).collect();
            let ended = started.into_iter().map(|count| count.join());
            ended.map(|count| count.unwrap_or_else(|_| Err("the count panicked".to_owned()))).collect::<Vec<_>>()
        })
    });
    pairs.collect()
}

fn gate() -> Result<bool> {
    let Arguments { record: records, busy, workers, requests, sample, scenarios } = arguments()?;
    let sample = sample.as_deref();
    if records && sample.is_some() {
        return Err("what is recorded has no traces: --record or --sample".to_owned());
    }
    if busy {
        return count_busy(workers, requests, sample, scenarios).map(|()| true);
    }
    let toolchain = toolchain()?;
    let recorded = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"));
    let recorded = recorded.and_then(|text| Record::parse(&text).map_err(|error| format!("{FILE}: {error}")));
    let mut record = match (recorded, records) {
        (Ok(record), _) => record,
        (Err(_), true) => Record::new(&toolchain),
        (Err(error), false) => return Err(error),
    };
    let (mut passes, mut differs) = (true, false);
    println!("| scenario | user instructions per request | recorded | |\n|---|---|---|---|");
    for (scenario, count) in scenarios.iter().zip(count_at_rest(&scenarios, requests, sample)) {
        let name = scenario.name();
        let count = count.map_err(|error| format!("{name}: {error}"))?;
        let (verdict, percent) = record.judge(name, count);
        let words = match verdict {
            Verdict::More => "MORE than may be",
            Verdict::Same => "as recorded",
            Verdict::Less => "less: record it anew (--record)",
            Verdict::Unknown => "never recorded (--record)",
        };
        passes &= !matches!(verdict, Verdict::More | Verdict::Unknown);
        differs |= verdict != Verdict::Same;
        let before = record.count(name).map_or("-".to_owned(), |before| format!("{before} ({percent:+.1} %)"));
        println!("| {name} | {count} | {before} | {words} |");
        if records {
            record.set(name, count);
        }
    }
    if records {
        record.toolchain = toolchain;
        std::fs::write(FILE, record.text()).map_err(|error| format!("{FILE}: {error}"))?;
        return Ok(true);
    }
    if differs && record.toolchain != toolchain {
        eprintln!("recorded with {}; this is {toolchain}", record.toolchain);
    }
    Ok(passes)
}

fn main() -> ExitCode {
    match gate() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
