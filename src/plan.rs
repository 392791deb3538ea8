//! `ringway plan`: prints what a change of configuration would move.

use anyhow::bail;
use ringway_proxy::{MovementMethod, ServicePlan};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Flows that the table names of each service; `--json` names all.
const FLOWS_SHOWN: usize = 12;

/// Exit 0: within the limit; 1: some service moves more than it, or a file is not valid.
pub(crate) fn plan(old: &Path, new: &Path, json: bool, max_move: Option<f64>) -> anyhow::Result<ExitCode> {
    if let Some(percent) = max_move
        && !(0.0..=100.0).contains(&percent)
    {
        bail!("--max-move is a percentage from 0 to 100, not {percent}");
    }
    let mut configs = Vec::new();
    for path in [old, new] {
        match ringway_config::load_file(path) {
            Ok(loaded) => configs.push(loaded.config),
            Err(diagnostics) => {
                writeln!(crate::terminal::stderr(), "{diagnostics}")?;
                return Ok(ExitCode::from(1));
            }
        }
    }
    let plans = ringway_proxy::plan(&configs[0], &configs[1])?;
    let changes = ringway_config::diff(&configs[0], &configs[1]);
    let over: Vec<&ServicePlan> =
        plans.iter().filter(|plan| max_move.is_some_and(|most| plan.movement.moved * 100.0 > most + 1e-9)).collect();
    let mut out = crate::terminal::stdout().lock();
    if json {
        let answer = json!({
            "services": plans.iter().map(service_json).collect::<Vec<_>>(),
            "changes": changes.changes,
            "needs_restart": changes.needs_restart,
            "max_move_percent": max_move,
            "within_limit": over.is_empty(),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        write_table(&mut out, &plans)?;
        for plan in &over {
            let most = max_move.unwrap_or_default();
            let moved = plan.movement.moved * 100.0;
            writeln!(out, "service {}: {moved:.2} % of the keys move, more than {most} %", plan.name)?;
        }
    }
    Ok(if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn service_json(plan: &ServicePlan) -> serde_json::Value {
    let moves: Vec<_> = plan
        .movement
        .moves
        .iter()
        .map(|flow| json!({ "from": flow.from, "to": flow.to, "percent": flow.share * 100.0 }))
        .collect();
    let shares: Vec<_> = plan
        .shares
        .iter()
        .map(|(id, before, after)| {
            json!({ "backend": id, "before_percent": before * 100.0, "after_percent": after * 100.0 })
        })
        .collect();
    json!({
        "name": plan.name,
        "kind": plan.kind,
        "moved_percent": plan.movement.moved * 100.0,
        "method": method(plan),
        "moves": moves,
        "shares": shares,
    })
}

fn method(plan: &ServicePlan) -> String {
    match plan.movement.method {
        MovementMethod::Exact => "exact".to_owned(),
        MovementMethod::Sampled(keys) => format!("sampled, {keys} keys"),
    }
}

pub(crate) fn write_table(out: &mut impl Write, plans: &[ServicePlan]) -> std::io::Result<()> {
    for plan in plans {
        let moved = plan.movement.moved * 100.0;
        match plan.kind {
            "added" => writeln!(out, "service {}: new", plan.name)?,
            "removed" => writeln!(out, "service {}: removed", plan.name)?,
            "no_keys" => writeln!(out, "service {}: balanced without keys, nothing to move", plan.name)?,
            "other_key" => writeln!(
                out,
                "service {}: the key is read from elsewhere, {moved:.2} % of the keys move as if at random",
                plan.name
            )?,
            _ if plan.movement.moves.is_empty() => writeln!(out, "service {}: no key moves", plan.name)?,
            _ => writeln!(out, "service {}: {moved:.2} % of the keys move ({})", plan.name, method(plan))?,
        }
        for flow in plan.movement.moves.iter().take(FLOWS_SHOWN) {
            writeln!(out, "  {:>7.3} %  {} -> {}", flow.share * 100.0, flow.from, flow.to)?;
        }
        let rest = plan.movement.moves.len().saturating_sub(FLOWS_SHOWN);
        if rest > 0 {
            writeln!(out, "  and {rest} smaller flows (--json has all)")?;
        }
        let changed = plan.shares.iter().filter(|(_, before, after)| (before - after).abs() > 5e-6);
        for (id, before, after) in changed.take(FLOWS_SHOWN) {
            writeln!(out, "  {id}: {:.2} % -> {:.2} % of the keys", before * 100.0, after * 100.0)?;
        }
    }
    Ok(())
}
