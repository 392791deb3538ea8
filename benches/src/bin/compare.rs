//! The comparison: Ringway beside HAProxy, nginx, Envoy and Traefik on the same backends, interleaved, the proxy on one
//! core and load and backends on another. Prints Markdown tables; medians of the rounds.
//!
//!     cargo build --profile dist --workspace && target/dist/compare [--rounds N] [--seconds N] [--json FILE] [--smoke] [SCENARIO...]
//!
//! Needs nginx (the backends) and wrk. A peer that is missing is named and skipped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::compare::scenario::{Effort, NAMES, run};
use ringway_benches::compare::{Result, report::Table};
use std::process::ExitCode;
use std::time::Duration;

struct Arguments {
    effort: Effort,
    json: Option<String>,
    scenarios: Vec<String>,
}

fn arguments() -> Result<Arguments> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load_core = usize::from(cores > 1);
    let mut effort = Effort {
        rounds: 5,
        warms: true,
        time: Duration::from_secs(4),
        idle: 8000,
        many: 1000,
        proxy_core: 0,
        load_core,
    };
    let (mut json, mut scenarios) = (None, Vec::new());
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut number = || {
            let text = rest.next().ok_or_else(|| format!("{argument} needs a number"))?;
            text.parse::<usize>().map_err(|error| format!("{argument} {text}: {error}"))
        };
        match argument.as_str() {
            "--rounds" => effort.rounds = number()?.max(1),
            "--seconds" => effort.time = Duration::from_secs(number()?.max(1) as u64),
            "--smoke" => {
                let time = Duration::from_millis(250);
                effort = Effort { rounds: 1, warms: false, time, idle: 200, many: 50, ..effort };
            }
            "--json" => json = Some(rest.next().ok_or("--json needs a file")?),
            name if NAMES.contains(&name) => scenarios.push(argument),
            _ => {
                return Err(format!(
                    "what is {argument}? compare [--rounds N] [--seconds N] [--json FILE] [--smoke] [{}]",
                    NAMES.join(" | ")
                ));
            }
        }
    }
    if scenarios.is_empty() {
        scenarios = NAMES.iter().map(|name| (*name).to_owned()).collect();
    }
    Ok(Arguments { effort, json, scenarios })
}

fn compare() -> Result<bool> {
    let Arguments { effort, json, scenarios } = arguments()?;
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(effort.load_core);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|error| format!("take core {}: {error}", effort.load_core))?;
    let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    let mut tables: Vec<Table> = Vec::new();
    let mut clean = true;
    for name in &scenarios {
        let table = run(name, &effort, directory.path()).map_err(|error| format!("{name}: {error}"))?;
        println!("{}", table.markdown());
        let failed = table.sum("ringway", "errors") + table.sum("ringway", "failed");
        if failed > 0.0 {
            eprintln!("{name}: {failed} requests failed through ringway");
            clean = false;
        }
        tables.push(table);
    }
    if let Some(path) = json {
        let tables: Vec<_> = scenarios
            .iter()
            .zip(&tables)
            .map(|(name, table)| {
                let mut value = table.json();
                value["scenario"] = name.as_str().into();
                value
            })
            .collect();
        let text = serde_json::to_string_pretty(&tables).map_err(|error| error.to_string())?;
        std::fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(clean)
}

fn main() -> ExitCode {
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
