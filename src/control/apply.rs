//! `ringway control apply` and `diff`: from a file to the fleet, with what it moves shown before.

use super::show::Printer;
use super::text::{confirmed, path_of};
use anyhow::{Context, bail};
use clap::Args;
use hyper::Method;
use ringway_config::{Diff, FleetConfig, check_fleet, check_fleet_with_origin};
use ringway_control::etcd::Store;
use ringway_control::http::{Api, ApiError};
use ringway_control::state::{Key, Object, Text};
use ringway_control::watch::view::View;
use ringway_control::watch::wire::Snapshot;
use ringway_proxy::{Plan, Scope};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file: a configuration without `control`.
    file: PathBuf,
    /// Name of the document; proxies read `main`.
    #[arg(long, default_value = "main")]
    document: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    note: String,
    /// Refuse if more than this many percent of a service's keys, or of a route's requests, would move.
    #[arg(long, value_name = "PERCENT", value_parser = crate::plan::percent)]
    max_move: Option<f64>,
    /// Even if it leaves little or nothing to take traffic.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    phases: Phases,
}

/// How a change comes to the proxies.
#[derive(Debug, Args)]
pub(crate) struct Phases {
    /// At once, without asking proxies whether they can build it.
    #[arg(long)]
    direct: bool,
    /// Shares of the proxies that go first, in percent.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', conflicts_with = "direct")]
    stages: Vec<u8>,
    /// How long each share is watched.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::text::duration)]
    bake: Duration,
    /// How long proxies have to prepare.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::text::duration)]
    deadline: Duration,
}

impl Phases {
    /// Whether proxies are asked only because some are to go first.
    pub(super) fn staged(&self) -> bool {
        !self.stages.is_empty()
    }
}

/// The topology as it is.
pub(super) async fn snapshot(api: &Api) -> anyhow::Result<View> {
    let bytes = api.call(Method::GET, "/v1/topology", "").await?;
    let snapshot: Snapshot = serde_json::from_slice(&bytes).context("the member's topology cannot be read")?;
    Ok(View::from_snapshot(snapshot, None)?)
}

fn fleet_config(view: &View) -> FleetConfig {
    view.fleet_config(|name| (format!("{name}.pem").into(), format!("{name}.key").into()))
}

/// What proxies have in common of the rings of the services that the fleet's texts define, built here by the same code that proxies have. Services that
/// place without keys, and those without backends, have none.
pub(super) fn rings(view: &View) -> anyhow::Result<BTreeMap<String, String>> {
    let loaded = check_fleet(&fleet_config(view))?;
    let mut rings = BTreeMap::new();
    for service in loaded.config.services.iter().filter(|service| !service.backends.is_empty()) {
        let digest = ringway_proxy::agreed_digest(service).with_context(|| format!("service {:?}", service.name))?;
        if let Some(digest) = digest {
            rings.insert(service.name.clone(), format!("{digest:016x}"));
        }
    }
    Ok(rings)
}

/// What the file would change and move.
fn plan(view: &View, key: &Key, text: &str) -> anyhow::Result<(Diff, Plan)> {
    let mut next = view.clone();
    Arc::make_mut(&mut next.objects).insert(key.clone(), Arc::new(Object::Document(Text { text: text.to_owned() })));
    let before = check_fleet_with_origin(fleet_config(view))?;
    let after = check_fleet_with_origin(fleet_config(&next))?;
    let (old, new) = ((&before.config, &before.origin), (&after.config, &after.origin));
    let changes = ringway_config::changes(old, new, &|_| None);
    Ok((changes, ringway_proxy::plan(&before.config, &after.config, Scope::Fleet)?))
}

/// Shows what the file would change and move; false: more than the caller lets it.
fn planned(printer: &Printer, apply: &Apply, view: &View, key: &Key, text: &str) -> anyhow::Result<bool> {
    let (changes, plan) = plan(view, key, text)?;
    if !printer.json {
        let mut out = crate::terminal::stderr().lock();
        crate::plan::write_changes(&mut out, &changes)?;
        crate::plan::write_table(&mut out, &plan)?;
    }
    let over = crate::plan::over(&plan, apply.max_move);
    for line in &over {
        printer.say(&format!("{line}: refused"))?;
    }
    Ok(over.is_empty())
}

/// As [`apply`], where the topology is in etcd: there are no rollouts, and the change holds for all at once.
pub(super) async fn apply_to(store: &Store, printer: &Printer, apply: &Apply) -> anyhow::Result<ExitCode> {
    if apply.phases.staged() {
        bail!("etcd has no rollouts: without `--stages`, the change holds for all proxies at once");
    }
    let text = std::fs::read_to_string(&apply.file).with_context(|| apply.file.display().to_string())?;
    let key = key_of(&apply.document)?;
    let shown = store.show().await?;
    if shown.check(&key, &text, apply.force)?.changed == 0 {
        printer.say("nothing changes")?;
        return Ok(ExitCode::SUCCESS);
    }
    // What is wrong as a whole has no keys that could move: the file mends it.
    let whole = check_fleet(&fleet_config(&shown.view)).is_ok();
    if apply.document == "main" && whole && !planned(printer, apply, &shown.view, &key, &text)? {
        return Ok(ExitCode::from(1));
    }
    if !apply.yes && !confirmed(&format!("{key} is changed for the whole fleet, at once"))? {
        return Ok(ExitCode::from(1));
    }
    let modified = shown.revisions.get(&key).map_or(0, |(_, modified)| *modified);
    let revision = store.put_document(&key, &text, modified).await?;
    printer.done(&json!({ "revision": revision, "changed": 1 }))?;
    Ok(ExitCode::SUCCESS)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn key_of(document: &str) -> anyhow::Result<Key> {
    Ok(format!("document/{document}").parse()?)
}

fn text_of(view: &View, key: &Key) -> String {
    match view.objects.get(key).map(|object| &**object) {
        Some(Object::Document(text)) => text.text.clone(),
        _ => String::new(),
    }
}

pub(super) async fn apply(api: &Api, printer: &Printer, apply: &Apply) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&apply.file).with_context(|| apply.file.display().to_string())?;
    let key = key_of(&apply.document)?;
    let view = snapshot(api).await?;
    // Who has changed it in the meantime is told, not overwritten.
    let entry = api.json(Method::GET, &path_of(&["v1", "objects", &key.to_string()]), None).await;
    let modified = match entry {
        Ok(entry) => entry["modified"].as_u64().unwrap_or(0),
        Err(ApiError::Refused(problem)) if problem.status == 404 => 0,
        Err(error) => return Err(error.into()),
    };
    let body = json!({
        "conditions": [{ "key": key, "modified": modified }],
        "ops": [{ "put": { "key": key, "object": { "document": { "text": text } } } }],
        "note": apply.note,
        "force": apply.force,
    });
    // The member's word on it first: its findings name the line.
    let checked = api.json(Method::POST, "/v1/check", Some(&body)).await?;
    if checked["changes"].as_array().is_none_or(Vec::is_empty) {
        printer.say("nothing changes")?;
        return Ok(ExitCode::SUCCESS);
    }
    if apply.document == "main" && !planned(printer, apply, &view, &key, &text)? {
        return Ok(ExitCode::from(1));
    }
    if !apply.yes && !confirmed(&format!("{key} is changed for the whole fleet"))? {
        return Ok(ExitCode::from(1));
    }
    roll_out(api, printer, &apply.phases, body).await
}

/// A transaction of any kind of objects, as an operator wants it to come to the proxies; until it is over.
pub(super) async fn roll_out(
    api: &Api,
    printer: &Printer,
    phases: &Phases,
    mut body: Value,
) -> anyhow::Result<ExitCode> {
    if phases.direct {
        printer.done(&api.json(Method::POST, "/v1/txn", Some(&body)).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    body["policy"] = json!({
        "stages_percent": phases.stages, "bake_ms": millis(phases.bake), "deadline_ms": millis(phases.deadline),
    });
    let started = api.json(Method::POST, "/v1/rollouts", Some(&body)).await?;
    if started["id"].is_null() {
        printer.say("nothing changes")?;
        return Ok(ExitCode::SUCCESS);
    }
    follow(api, printer, &started["id"]).await
}

/// Until it is over.
async fn follow(api: &Api, printer: &Printer, id: &Value) -> anyhow::Result<ExitCode> {
    let mut shown = String::new();
    let mut failures = 0;
    loop {
        let rollout = match api.json(Method::GET, &format!("/v1/rollouts/{id}"), None).await {
            Ok(rollout) => rollout,
            // A new leader is being elected: the rollout goes on with it.
            Err(error) if failures < 50 => {
                failures += 1;
                tracing::debug!(%error, "the rollout's state is not known");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures = 0;
        let line = super::show::rollout_line(&rollout);
        if line != shown && !printer.json {
            writeln!(crate::terminal::stderr(), "{line}")?;
            shown = line;
        }
        let phase = &rollout["phase"];
        if phase.get("committed").is_some() {
            if printer.json {
                writeln!(crate::terminal::stdout(), "{rollout}")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if phase.get("aborted").is_some() {
            if printer.json {
                writeln!(crate::terminal::stdout(), "{rollout}")?;
            }
            return Ok(ExitCode::from(1));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Line by line: what only the fleet has with `-`, what only the file has with `+`.
pub(super) async fn diff(api: &Api, printer: &Printer, file: &Path, document: &str) -> anyhow::Result<ExitCode> {
    let new = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let key = key_of(document)?;
    if new.is_empty() {
        bail!("{}: the file is empty", file.display());
    }
    let old = text_of(&snapshot(api).await?, &key);
    let lines = super::show::line_diff(&old, &new);
    printer.diff(&lines)?;
    Ok(if old == new { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
