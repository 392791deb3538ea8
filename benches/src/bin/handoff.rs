//! What a change of a cache tier's members costs its users: Ringway at once, along a slow start and by hand-off, HAProxy and Envoy, one
//! after the other. Prints Markdown.
//!
//!     cargo build --profile dist --workspace && target/dist/handoff [--smoke] [--ringway PATH] [--rate N] [--keys N] [--window SECONDS] [--warm SECONDS] [--seed N] [SCENARIO | VARIANT]...
//!
//! A peer that is missing is named and skipped; so is a variant that this Ringway's configuration does not know. Each row takes `warm`
//! and `window` together, and a few seconds; a restart takes a window more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints tables, and what goes wrong")]

use ringway_benches::compare::handoff::{Effort, Outcome, Scenario, Variant, measure};
use ringway_benches::compare::{Result, rig};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "handoff [--smoke] [--ringway PATH] [--rate N] [--keys N] [--window SECONDS] [--warm SECONDS] [--seed N] \
                     [join | grow | drain | restart | immediate | slow_start | handoff | obeyed | haproxy | envoy]...";
/// Hits before the change below which the rig itself is broken.
const SMOKE_HITS: f64 = 0.9;

struct Arguments {
    effort: Effort,
    scenarios: Vec<Scenario>,
    variants: Vec<Variant>,
    is_smoke: bool,
}

fn word(variant: Variant) -> &'static str {
    match variant {
        Variant::Immediate => "immediate",
        Variant::SlowStart => "slow_start",
        Variant::Handoff => "handoff",
        Variant::HandoffObeyed => "obeyed",
        Variant::Haproxy => "haproxy",
        Variant::Envoy => "envoy",
    }
}

fn arguments() -> Result<Arguments> {
    let ringway = rig::ringway()?;
    let mut effort = Effort { ringway, rate: 1_000.0, keys: 4_000, warm: 20, window: 60, seed: 42, core: 0 };
    let (mut scenarios, mut variants, mut is_smoke) = (Vec::new(), Vec::new(), false);
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut next = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        let number = |text: String| -> Result<u64> {
            text.parse::<u64>().map_err(|error| format!("{argument} {text}: {error}")).map(|number| number.max(1))
        };
        match argument.as_str() {
            "--smoke" => {
                is_smoke = true;
                effort = Effort { rate: 300.0, keys: 500, warm: 2, window: 2, ..effort };
            }
            "--ringway" => effort.ringway = next()?.into(),
            "--rate" => effort.rate = number(next()?)? as f64,
            "--keys" => effort.keys = number(next()?)?,
            "--window" => effort.window = number(next()?)?,
            "--warm" => effort.warm = number(next()?)?,
            "--seed" => effort.seed = number(next()?)?,
            name => {
                let scenario = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
                let variant = Variant::ALL.into_iter().find(|variant| word(*variant) == name);
                if scenario.is_none() && variant.is_none() {
                    return Err(format!("what is {argument}? {USAGE}"));
                }
                scenarios.extend(scenario);
                variants.extend(variant);
            }
        }
    }
    if scenarios.is_empty() {
        scenarios = if is_smoke { vec![Scenario::Join] } else { Scenario::ALL.to_vec() };
    }
    if variants.is_empty() {
        variants = if is_smoke { vec![Variant::Immediate, Variant::HandoffObeyed] } else { Variant::ALL.to_vec() };
    }
    Ok(Arguments { effort, scenarios, variants, is_smoke })
}

fn row(variant: Variant, outcome: &Outcome, immediate: Option<i64>) -> String {
    let part = match immediate {
        Some(all) if all > 0 => format!("{:.0} %", outcome.extra as f64 / all as f64 * 100.0),
        _ => "-".to_owned(),
    };
    format!(
        "| {} | {:.1} % | {:.3} | {:.3} | {:.3} | {} | {part} | {:.1}x | {} |",
        variant.name(),
        outcome.moved * 100.0,
        outcome.before,
        outcome.worst,
        outcome.worst_steady,
        outcome.extra,
        outcome.peak,
        outcome.failed
    )
}

fn table(scenario: Scenario, arguments: &Arguments, directory: &Path) -> Result<()> {
    let effort = &arguments.effort;
    println!(
        "| {}; {} requests/s, {} keys, window {} s, seed {} | keys moved | hit ratio before | worst 3 s | the same without the change | misses users had extra | of immediate | fetches, peak | failed |",
        scenario.title(),
        effort.rate,
        effort.keys,
        effort.window,
        effort.seed
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut immediate = None;
    for &variant in &arguments.variants {
        if let Some(said) = variant.refused(effort, directory)? {
            eprintln!("{}: skipped: {} refuses its configuration: {said}", variant.name(), effort.ringway.display());
            continue;
        }
        match measure(scenario, variant, effort, directory) {
            Ok(outcome) => {
                if variant == Variant::Immediate {
                    immediate = Some(outcome.extra);
                }
                println!("{}", row(variant, &outcome, immediate));
                let is_own = !matches!(variant, Variant::Haproxy | Variant::Envoy);
                if arguments.is_smoke && is_own && (outcome.failed > 0 || outcome.before < SMOKE_HITS) {
                    return Err(format!("{}: requests failed, or hit nothing", variant.name()));
                }
            }
            Err(error) if variant == Variant::Immediate => return Err(format!("{}: {error}", variant.name())),
            Err(error) => eprintln!("{}: skipped: {error}", variant.name()),
        }
    }
    println!();
    Ok(())
}

fn compare(directory: &Path) -> Result<()> {
    let arguments = arguments()?;
    arguments.scenarios.iter().try_for_each(|&scenario| table(scenario, &arguments, directory))
}

fn main() -> ExitCode {
    rig::run("handoff", compare)
}
