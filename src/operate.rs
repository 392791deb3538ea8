//! What an operator changes of a running proxy, without a file: `ringway backend`, `spread`, `overrides`, `config`, `reload`.

use crate::admin::{Access, Answer, escape, refused, seconds};
use crate::explain::print;
use crate::save::{Edit, Edited};
use crate::terminal;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use ringway_config::plain::line;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A backend, by its service and its id.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The service.
    service: String,
    /// The backend's id.
    backend: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// It takes no new keys; what it has ends in peace, and clients that a cookie has bound to it stay for a time.
    Drain {
        #[command(flatten)]
        of: Named,
    },
    /// It takes its keys.
    Ready {
        #[command(flatten)]
        of: Named,
    },
    /// As `drain`, but nobody stays: clients that a cookie has bound to it go elsewhere.
    Maintenance {
        #[command(flatten)]
        of: Named,
    },
    /// Change its weight.
    Weight {
        #[command(flatten)]
        of: Named,
        /// 100 is normal, 1600 is the most.
        weight: u32,
    },
}

/// A change of a backend.
#[derive(Debug, Args)]
pub(crate) struct BackendArguments {
    #[command(flatten)]
    access: Access,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Write it into the file too, `--config FILE`: that field alone is changed.
    #[arg(long, global = true, requires = "config")]
    save: bool,
    /// Also where no backend of the service takes traffic then.
    #[arg(long, global = true)]
    force: bool,
    /// The file of the running proxy, for `--save`.
    #[arg(short, long, global = true, value_name = "FILE", requires = "save")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: BackendCommand,
}

/// A key that is to be spread, or that is to be spread no longer.
#[derive(Debug, Args)]
pub(crate) struct SpreadArguments {
    #[command(flatten)]
    access: Access,
    /// The service.
    service: String,
    /// The key, as the request would have it; parts of a composite key are joined by `\0`.
    #[arg(required_unless_present = "hash", conflicts_with = "hash")]
    key: Option<String>,
    /// The key's hash, 16 hex digits, as logs have it.
    #[arg(long, value_name = "HEX")]
    hash: Option<String>,
    /// How many backends serve it.
    #[arg(long, value_name = "COUNT", required_unless_present = "end")]
    owners: Option<u16>,
    /// For how long, for example `10m`.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, required_unless_present = "end")]
    duration: Option<Duration>,
    /// It is spread no longer: what somebody has spread by hand goes home.
    #[arg(long, conflicts_with_all = ["owners", "duration"])]
    end: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What has been changed.
#[derive(Debug, Args)]
pub(crate) struct OverridesArguments {
    #[command(flatten)]
    access: Access,
    /// All back to what the file says.
    #[arg(long)]
    clear: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is in force.
#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    #[command(flatten)]
    access: Access,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The file, read again.
#[derive(Debug, Args)]
pub(crate) struct ReloadArguments {
    #[command(flatten)]
    access: Access,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit 0: done; 1: refused. Whoever cannot be asked is an error.
pub(crate) fn backend(arguments: &BackendArguments) -> anyhow::Result<ExitCode> {
    // What is not named is as in the file: `drain` after `maintenance` lets clients stay again.
    let (of, mut body) = match &arguments.command {
        BackendCommand::Drain { of } => (of, json!({ "drain": true, "maintenance": null })),
        BackendCommand::Ready { of } => (of, json!({ "drain": false, "maintenance": false })),
        BackendCommand::Maintenance { of } => (of, json!({ "drain": null, "maintenance": true })),
        BackendCommand::Weight { of, weight } => (of, json!({ "weight": weight })),
    };
    if arguments.force {
        body["force"] = json!(true);
    }
    // Another one than the proxy runs may be what is meant, and is told.
    if let Some(file) = arguments.config.as_deref().and_then(|file| file.canonicalize().ok()) {
        body["file"] = json!(file.display().to_string());
    }
    let fields: Vec<(&str, String)> = match &arguments.command {
        BackendCommand::Drain { .. } => vec![("drain", "true".into()), ("maintenance", "false".into())],
        BackendCommand::Ready { .. } => vec![("drain", "false".into()), ("maintenance", "false".into())],
        BackendCommand::Maintenance { .. } => vec![("maintenance", "true".into())],
        BackendCommand::Weight { weight, .. } => vec![("weight", weight.to_string())],
    };
    // What cannot be saved is not done either.
    let file = arguments.config.as_deref().filter(|_| arguments.save);
    let edited = match file
        .map(|file| Edited::new(file, Edit { service: &of.service, backend: &of.backend, fields: &fields }))
        .transpose()
    {
        Ok(edited) => edited,
        Err(why) => return refused(&format!("{why:#}")),
    };
    let path = format!("/services/{}/backends/{}", escape(&of.service), escape(&of.backend));
    match arguments.access.ask(Method::POST, &path, Some(&body))? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(mut answer) => {
            let saved = edited.map(Edited::write).transpose();
            if let (Some(file), Ok(Some(()))) = (file, &saved) {
                tell_saved(&mut answer, file, of);
                take_up(&arguments.access, &mut answer, file);
            }
            let printed = print(&answer, arguments.json, write_change);
            // Said even where nobody reads the rest.
            saved.context("the change is in force until the process ends, and is not in the file")?;
            printed
        }
    }
}

/// What is in the file too is neither over when the process ends, nor otherwise there.
fn tell_saved(answer: &mut Value, file: &Path, of: &Named) {
    let theirs = format!("service {:?}: backend {:?}: ", of.service, of.backend);
    if let Some(overridden) = answer["overridden"].as_array_mut() {
        overridden.retain(|line| !line.as_str().is_some_and(|line| line.starts_with(&theirs)));
    }
    answer["saved"] = json!(file.display().to_string());
    answer["note"] = json!(format!("saved in {}: it lasts", file.display()));
}

/// Has the proxy read what was saved: until it has, what is in the file would be told as otherwise there.
fn take_up(access: &Access, answer: &mut Value, file: &Path) {
    let why = match access.ask(Method::POST, "/reload", None) {
        Ok(Answer::Done(read)) => {
            answer["generation"] = read["generation"].clone();
            return;
        }
        Ok(Answer::Refused(why)) => why,
        Err(why) => terminal::once(&why),
    };
    answer["note"] = json!(format!("saved in {}, which the proxy has not read: {why}", file.display()));
}

pub(crate) fn spread(arguments: &SpreadArguments) -> anyhow::Result<ExitCode> {
    let mut body = match (arguments.owners, arguments.duration) {
        (Some(owners), Some(duration)) => json!({ "owners": owners, "for_seconds": duration.as_secs() }),
        _ => json!({ "end": true }),
    };
    match (&arguments.key, &arguments.hash) {
        (Some(key), _) => body["key"] = json!(key.replace("\\0", "\0")),
        (None, Some(hash)) => body["hash"] = json!(hash),
        (None, None) => bail!("name a key, or its hash"),
    }
    let path = format!("/services/{}/hot-keys", escape(&arguments.service));
    match arguments.access.ask(Method::POST, &path, Some(&body))? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) => print(&answer, arguments.json, write_change),
    }
}

pub(crate) fn overrides(arguments: &OverridesArguments) -> anyhow::Result<ExitCode> {
    let method = if arguments.clear { Method::DELETE } else { Method::GET };
    match arguments.access.ask(method, "/overrides", None)? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) if arguments.clear => print(&answer, arguments.json, write_change),
        Answer::Done(answer) => print(&answer, arguments.json, write_overrides),
    }
}

/// Prints what is in force: as a file, or as JSON.
pub(crate) fn config(arguments: &ConfigArguments) -> anyhow::Result<ExitCode> {
    match arguments.access.text("/config", arguments.json)? {
        Err(why) => refused(&why),
        Ok(text) => {
            terminal::write_as_written(&text)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn reload(arguments: &ReloadArguments) -> anyhow::Result<ExitCode> {
    match arguments.access.ask(Method::POST, "/reload", None)? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) => print(&answer, arguments.json, write_change),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), line)
}

/// What came of a change, or of a reload.
fn write_change(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let list = |name: &str| answer[name].as_array().into_iter().flatten();
    if list("changes").next().is_none() && list("needs_restart").next().is_none() {
        writeln!(out, "nothing has changed")?;
    }
    for change in list("changes") {
        writeln!(out, "{}", text(change))?;
    }
    for warning in list("warnings") {
        writeln!(out, "warning: {}", text(warning))?;
    }
    for change in list("needs_restart") {
        writeln!(out, "{} (needs a restart)", text(change))?;
    }
    for moved in list("moved") {
        let percent = moved["percent"].as_f64().unwrap_or_default();
        writeln!(out, "service {:?}: {percent:.2} % of the keys move", text(&moved["service"]))?;
    }
    for line in list("overridden") {
        writeln!(out, "stands: {}", text(line))?;
    }
    write!(out, "generation {}", text(&answer["generation"]))?;
    match answer["note"].as_str() {
        Some(note) => writeln!(out, "; {}", line(note)),
        None => writeln!(out),
    }
}

fn write_overrides(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let list = answer["overrides"].as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        return writeln!(out, "all is as in the file");
    }
    for entry in list {
        let what = match &entry["hash"] {
            Value::Null => format!("backend {:?}", text(&entry["backend"])),
            hash => format!("key {}", text(hash)),
        };
        let (service, field, value) = (text(&entry["service"]), text(&entry["field"]), text(&entry["value"]));
        write!(out, "service {service:?}: {what}: {field} {value}, by {}", text(&entry["by"]))?;
        match entry["seconds_left"].as_f64() {
            Some(left) => writeln!(out, ", for {left:.0} s more")?,
            None => writeln!(out)?,
        }
    }
    writeln!(out, "{}", text(&answer["note"]))
}
