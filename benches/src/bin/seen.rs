//! What it costs to be seen: the numbers of docs/benchmarks.md, "What it costs to be seen".
//!
//!     cargo build --release --workspace && target/release/seen [traces] [metrics] [page] [--turns N] [--requests N]
//!
//! Needs h2load for `traces`, whose instructions `instructions --sample SHARE` counts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::compare::Result;
use ringway_benches::seen::{pages, traces};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const SHARES: [&str; 2] = ["1%", "100%"];

fn number(text: Option<String>, name: &str) -> Result<u64> {
    text.and_then(|text| text.parse().ok()).filter(|number| *number > 0).ok_or(format!("{name} needs a number"))
}

fn run() -> Result<()> {
    let (mut turns, mut requests, mut what) = (9, 30_000, Vec::new());
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--turns" => turns = number(rest.next(), "--turns")? as usize,
            "--requests" => requests = number(rest.next(), "--requests")?,
            "traces" | "metrics" | "page" => what.push(argument),
            _ => {
                return Err(format!("what is {argument}? seen [traces] [metrics] [page] [--turns N] [--requests N]"));
            }
        }
    }
    let directory = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
    let wants = |name: &str| what.is_empty() || what.iter().any(|wanted| wanted == name);
    if wants("traces") {
        show_traces(turns, requests, directory.path())?;
    }
    if wants("metrics") {
        show_metrics(turns, directory.path())?;
    }
    if wants("page") {
        show_page(directory.path())?;
    }
    Ok(())
}

fn show_traces(turns: usize, requests: u64, directory: &Path) -> Result<()> {
    println!(
        "| recorded | microseconds of a core per request | of them the kernel's | more than without |\n|---|---|---|---|"
    );
    let costs = traces::measure(&SHARES, (turns, requests), directory)?;
    for (share, cost) in ["no `tracing`"].iter().chain(&SHARES).zip(costs) {
        let traces::Cost { micros, kernel_micros, more_percent } = cost;
        println!("| {share} | {micros:.2} | {kernel_micros:.2} | {more_percent:+.1} % |");
    }
    println!();
    Ok(())
}

fn show_metrics(times: usize, directory: &Path) -> Result<()> {
    println!("| `/metrics` of 10,000 backends | best ms | median ms | bytes |\n|---|---|---|---|");
    for of_each in ["auto", "full"] {
        let timed = pages::metrics(10_000, of_each, times, directory)?;
        for (name, timed) in ["plain", "gzip"].iter().zip(timed) {
            let pages::Timed { best_millis, median_millis, bytes } = timed;
            println!("| `backends: {of_each}`, {name} | {best_millis:.0} | {median_millis:.0} | {bytes} |");
        }
    }
    println!();
    Ok(())
}

fn show_page(directory: &Path) -> Result<()> {
    println!(
        "| the page of a service of so many backends | ms of a core a second, with 500 requests | those alone | first bytes | bytes a second |"
    );
    println!("|---|---|---|---|---|");
    for backends in [4, 1000] {
        let looked = pages::page(backends, Duration::from_secs(10), directory)?;
        let pages::Looked { millis_per_second, unseen_millis_per_second, first_bytes, bytes_per_second } = looked;
        println!(
            "| {backends} | {millis_per_second:.0} | {unseen_millis_per_second:.0} | {first_bytes} | {bytes_per_second:.0} |"
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
