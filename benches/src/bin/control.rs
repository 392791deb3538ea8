//! The control plane, measured: three members with real fsync and mutual TLS on this machine. Prints a Markdown table.
//!
//!     cargo build --profile dist --workspace && target/dist/control [--smoke] [--kills COUNT] [SCENARIO...]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table, and what goes wrong")]

use ringway_benches::compare::Result;
use ringway_benches::control::loads;
use ringway_benches::control::members::Members;
use ringway_benches::control::proxies;
use ringway_benches::control::scenario::{self, Effort, Row};
use std::process::ExitCode;

const NAMES: [&str; 11] = [
    "idle",
    "failover",
    "writes",
    "watchers",
    "watchers-many",
    "heartbeats",
    "loads",
    "rollout",
    "restart",
    "cold-start",
    "large-service",
];

async fn measure(effort: &Effort, names: &[String]) -> Result<Vec<Row>> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("ringway");
    let mut rows = Vec::new();
    for name in names {
        let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
        let mut members =
            Members::start(&binary, directory.path(), 3).await.map_err(|error| format!("{name}: {error}"))?;
        let measured = match name.as_str() {
            "idle" => {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                Ok(scenario::idle(&members))
            }
            "failover" => scenario::failover(&mut members, effort).await,
            "writes" => scenario::writes(&members, effort).await,
            "watchers" => scenario::watchers(&members, effort).await,
            "watchers-many" => scenario::watchers(&members, &Effort { watchers: effort.watchers * 9, ..*effort }).await,
            "heartbeats" => scenario::heartbeats(&members, effort).await,
            "loads" => loads::loads(&members, effort).await,
            "rollout" => scenario::rollout(&members, effort).await,
            "cold-start" => proxies::cold_start(&mut members).await,
            "large-service" => proxies::large_service(&members, effort).await,
            _ => scenario::restart(&mut members, effort).await,
        };
        rows.extend(measured.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(rows)
}

fn main() -> ExitCode {
    let mut effort =
        Effort { watchers: 1000, changes: 20, kills: 50, seconds: 5, backends: 10_000, proxies: 1000, state_mib: 60 };
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--kills" => match arguments.next().and_then(|count| count.parse().ok()) {
                Some(count) => effort.kills = count,
                None => {
                    eprintln!("write --kills COUNT");
                    return ExitCode::from(2);
                }
            },
            "--smoke" => {
                effort = Effort {
                    watchers: 100,
                    changes: 3,
                    kills: 2,
                    seconds: 1,
                    backends: 200,
                    proxies: 50,
                    state_mib: 4,
                };
            }
            name if NAMES.contains(&name) => names.push(argument),
            _ => {
                eprintln!("what is {argument}? control [--smoke] [--kills COUNT] [{}]", NAMES.join(" | "));
                return ExitCode::from(2);
            }
        }
    }
    if names.is_empty() {
        names = NAMES.iter().map(|name| (*name).to_owned()).collect();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("control: {error}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(measure(&effort, &names)) {
        Ok(rows) => {
            println!("| what | measured | aim |\n|---|---|---|");
            for row in rows {
                println!("| {} | {} | {} |", row.name, row.figure, row.aim);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("control: {error}");
            ExitCode::from(2)
        }
    }
}
