//! `ringway plan`: prints what a change of configuration would move.

use anyhow::bail;
use ringway_config::Diff;
use ringway_proxy::{Movement, MovementMethod, Plan, RoutePlan, Scope, ServicePlan};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Flows that the table names of each service; `--json` names all.
const FLOWS_SHOWN: usize = 12;
/// Routes that the table names; `--json` names all.
const ROUTES_SHOWN: usize = 50;

/// Exit 0: within the limit; 1: a service or a route moves more than it, or a file is not valid.
pub(crate) fn plan(old: &Path, new: &Path, json: bool, max_move: Option<f64>) -> anyhow::Result<ExitCode> {
    if let Some(percent) = max_move
        && !(0.0..=100.0).contains(&percent)
    {
        bail!("--max-move is a percentage from 0 to 100, not {percent}");
    }
    let mut configs = Vec::new();
    for path in [old, new] {
        match ringway_config::load_file(path) {
            Ok(loaded) => configs.push((loaded.config, loaded.origin)),
            Err(diagnostics) => {
                writeln!(crate::terminal::stderr(), "{diagnostics}")?;
                return Ok(ExitCode::from(1));
            }
        }
    }
    let [(old, old_texts), (new, new_texts)] = &configs[..] else { bail!("two files are compared") };
    let plan = ringway_proxy::plan(old, new, Scope::Whole)?;
    let changes = ringway_config::changes((old, old_texts), (new, new_texts), &|name| std::env::var(name).ok());
    let over = over(&plan, max_move);
    let mut out = crate::terminal::stdout().lock();
    if json {
        let answer = json!({
            "services": plan.services.iter().map(service_json).collect::<Vec<_>>(),
            "routes": plan.routes.iter().map(route_json).collect::<Vec<_>>(),
            "moved_percent": plan.moved() * 100.0,
            "changes": changes.changes,
            "needs_restart": changes.needs_restart,
            "max_move_percent": max_move,
            "within_limit": over.is_empty(),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        write_changes(&mut out, &changes)?;
        write_table(&mut out, &plan)?;
        for line in &over {
            writeln!(out, "{line}")?;
        }
    }
    Ok(if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What moves more than it may, for people.
pub(crate) fn over(plan: &Plan, max_move: Option<f64>) -> Vec<String> {
    let Some(most) = max_move else { return Vec::new() };
    let line = |what: String, movement: &Movement, of: &str| {
        let moved = movement.moved * 100.0;
        (moved > most + 1e-9).then(|| format!("{what}: {moved:.2} % of the {of} move, more than {most} %"))
    };
    let services = plan.services.iter();
    let services = services.filter_map(|plan| line(format!("service {}", plan.name), &plan.movement, "keys"));
    let routes = plan.routes.iter();
    let routes = routes.filter_map(|plan| line(route_name(plan), &plan.movement, "requests"));
    services.chain(routes).collect()
}

fn route_name(plan: &RoutePlan) -> String {
    format!("listener {}, {}", plan.listener, plan.route)
}

fn moves_json(movement: &Movement) -> Vec<serde_json::Value> {
    let moves = movement.moves.iter();
    moves.map(|flow| json!({ "from": flow.from, "to": flow.to, "percent": flow.share * 100.0 })).collect()
}

fn route_json(plan: &RoutePlan) -> serde_json::Value {
    json!({
        "listener": plan.listener,
        "route": plan.route,
        "from": plan.from,
        "to": plan.to,
        "moved_percent": plan.movement.moved * 100.0,
        "method": method(&plan.movement),
        "moves": moves_json(&plan.movement),
    })
}

fn service_json(plan: &ServicePlan) -> serde_json::Value {
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
        "method": method(&plan.movement),
        "moves": moves_json(&plan.movement),
        "shares": shares,
        "heir": plan.successor,
    })
}

fn method(movement: &Movement) -> String {
    match movement.method {
        MovementMethod::Exact => "exact".to_owned(),
        MovementMethod::Sampled(keys) => format!("sampled, {keys} keys"),
    }
}

/// Fields that change.
pub(crate) fn write_changes(out: &mut impl Write, changes: &Diff) -> std::io::Result<()> {
    changes.lines().try_for_each(|line| writeln!(out, "{line}"))
}

pub(crate) fn write_table(out: &mut impl Write, plan: &Plan) -> std::io::Result<()> {
    for plan in &plan.services {
        write_service(out, plan)?;
    }
    let moved: Vec<&RoutePlan> = plan.routes.iter().filter(|plan| plan.movement.moved > 0.0).collect();
    for plan in moved.iter().take(ROUTES_SHOWN) {
        let moved = plan.movement.moved * 100.0;
        let (name, how) = (route_name(plan), method(&plan.movement));
        writeln!(out, "{name}: {moved:.2} % of the requests move ({} -> {}; {how})", plan.from, plan.to)?;
        // What one service does to its keys stands there.
        if plan.from != plan.to {
            write_flows(out, &plan.movement)?;
        }
    }
    let rest = moved.len().saturating_sub(ROUTES_SHOWN);
    if rest > 0 {
        writeln!(out, "and {rest} routes more (--json has all)")?;
    }
    Ok(())
}

fn write_service(out: &mut impl Write, plan: &ServicePlan) -> std::io::Result<()> {
    let moved = plan.movement.moved * 100.0;
    match plan.kind {
        "added" => writeln!(out, "service {}: new", plan.name)?,
        "removed" => match &plan.successor {
            Some(successor) => writeln!(out, "service {}: removed; service {successor} has its backends", plan.name)?,
            None => writeln!(out, "service {}: removed", plan.name)?,
        },
        "no_keys" if plan.movement.moves.is_empty() => {
            writeln!(out, "service {}: balanced without keys, nothing to move", plan.name)?;
        }
        "no_keys" => writeln!(out, "service {}: nobody takes its requests any more", plan.name)?,
        "other_key" if !plan.movement.moves.is_empty() => writeln!(
            out,
            "service {}: the key is read from elsewhere, {moved:.2} % of the keys move as if at random",
            plan.name
        )?,
        _ if plan.movement.moves.is_empty() => writeln!(out, "service {}: no key moves", plan.name)?,
        _ => writeln!(out, "service {}: {moved:.2} % of the keys move ({})", plan.name, method(&plan.movement))?,
    }
    write_flows(out, &plan.movement)?;
    let changed = plan.shares.iter().filter(|(_, before, after)| (before - after).abs() > 5e-6);
    for (id, before, after) in changed.take(FLOWS_SHOWN) {
        writeln!(out, "  {id}: {:.2} % -> {:.2} % of the keys", before * 100.0, after * 100.0)?;
    }
    Ok(())
}

fn write_flows(out: &mut impl Write, movement: &Movement) -> std::io::Result<()> {
    for flow in movement.moves.iter().take(FLOWS_SHOWN) {
        writeln!(out, "  {:>7.3} %  {} -> {}", flow.share * 100.0, flow.from, flow.to)?;
    }
    let rest = movement.moves.len().saturating_sub(FLOWS_SHOWN);
    if rest > 0 {
        writeln!(out, "  and {rest} smaller flows (--json has all)")?;
    }
    Ok(())
}

/// `12`, `12.5` or `12%`.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    text.trim_end_matches('%').parse().map_err(|_| format!("`{text}` is not a percentage: write for example `12%`"))
}
