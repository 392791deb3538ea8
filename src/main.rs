//! The binary: command line and wiring, nothing else.

mod admin;
mod allocator;
mod control;
mod demo;
mod explain;
mod live;
mod log;
mod operate;
mod plan;
mod run;
mod save;
mod sessions;
mod status;
mod table;
mod tap;
mod terminal;
mod top;
mod workers;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// A layer-4/layer-7 reverse proxy that sends the same key to the same backend.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry traffic.
    Run {
        /// The configuration file; followed while running.
        #[arg(short, long, value_name = "FILE", required_unless_present = "file", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// The same.
        file: Option<PathBuf>,
    },
    /// Check a configuration file: exit 0 if it is valid, 1 if not.
    Check {
        /// The file.
        file: PathBuf,
        /// Print findings as JSON.
        #[arg(long)]
        json: bool,
        /// Look at the file alone, not at the certificates, keys, logs and secrets that it names: for a pipeline that has
        /// none of them.
        #[arg(long)]
        no_files: bool,
    },
    /// Say where a key or a whole request goes, and which backends are next: by a file, or as a running proxy sees it, with the
    /// reasons.
    Explain(explain::ExplainArguments),
    /// Say how a running proxy does: its services, or the backends of one.
    Status(status::StatusArguments),
    /// The same, drawn anew each second; `q` ends it.
    Top(top::TopArguments),
    /// Say what share of each service's keys and of each route's requests a change would move, from whom to whom: exit 1
    /// past --max-move.
    Plan {
        /// The configuration in force.
        old: PathBuf,
        /// The one that is to follow.
        new: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Most that may move of any service or route, in percent.
        #[arg(long, value_name = "PERCENT", value_parser = plan::percent)]
        max_move: Option<f64>,
    },
    /// List what clients of a running proxy have under way: requests, sessions and flows, or their connections.
    Sessions(sessions::SessionsArguments),
    /// Say what each worker of a running proxy has, and how it does; or all of one.
    Workers(workers::WorkersArguments),
    /// Show the whole life of the next requests, sessions and flows of a running proxy that match, step by step.
    Tap(Box<tap::TapArguments>),
    /// Change what a running proxy does with a backend, without a file: it lasts until the process ends.
    Backend(operate::BackendArguments),
    /// Have several backends serve a key of a running proxy for a time.
    Spread(operate::SpreadArguments),
    /// Say what was changed of a running proxy without a file.
    Overrides(operate::OverridesArguments),
    /// Say which lines the log of a running proxy has, or change that for a time.
    Log(log::LogArguments),
    /// Print what is in force in a running proxy, as a file: with every default and what was changed at run time, without secrets.
    Config(operate::ConfigArguments),
    /// Have a running proxy read its file again.
    Reload(operate::ReloadArguments),
    /// Members of the control plane, and everything that is asked of them.
    Control {
        #[command(flatten)]
        access: Box<control::Access>,
        #[command(subcommand)]
        command: control::ControlCommand,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Run sample backends, two proxies and a control plane of three in one process, to try it.
    Demo {
        /// Where the first proxy listens; the second takes any free port.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where the admin listener listens.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
        admin: SocketAddr,
        /// Where the first member of the control plane listens; the others take any free port.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9700")]
        control: SocketAddr,
        /// How many sample backends.
        #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
        backends: u16,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, file } => {
            let file = config.or(file).unwrap_or_default();
            allocator::keep_giving_back().and_then(|()| run::run(&file))
        }
        Command::Check { file, json, no_files } => check(&file, json, !no_files),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Plan { old, new, json, max_move } => plan::plan(&old, &new, json, max_move),
        Command::Control { access, command } => control::control(&access, command),
        Command::Sessions(arguments) => sessions::sessions(&arguments),
        Command::Workers(arguments) => workers::workers(&arguments),
        Command::Tap(arguments) => tap::tap(&arguments),
        Command::Backend(arguments) => operate::backend(&arguments),
        Command::Spread(arguments) => operate::spread(&arguments),
        Command::Overrides(arguments) => operate::overrides(&arguments),
        Command::Log(arguments) => log::log(&arguments),
        Command::Config(arguments) => operate::config(&arguments),
        Command::Reload(arguments) => operate::reload(&arguments),
        Command::Schema => schema(),
        Command::Demo { listen, admin, control, backends } => {
            demo::demo(&demo::Addresses { listen, admin, control }, backends)
        }
    };
    result.unwrap_or_else(|error| {
        // Whoever reads no more, as `head` does, knows that itself.
        if terminal::nobody_reads(&error) {
            return ExitCode::from(terminal::NOBODY_READS);
        }
        // Standard error may be closed; there is nobody else to tell.
        let _ = writeln!(terminal::stderr(), "ringway: {}", terminal::once(&error));
        ExitCode::from(2)
    })
}

/// Exit 0: valid (warnings or not); 1: not.
fn check(file: &std::path::Path, json: bool, files: bool) -> anyhow::Result<ExitCode> {
    let load = if files { ringway_config::load_file } else { ringway_config::load_file_alone };
    let findings = match load(file) {
        Ok(mut loaded) => {
            if files {
                loaded.warnings.extend(ringway_proxy::findings(&loaded.files, SystemTime::now()));
                loaded.warnings.sort_by_key(|finding| (finding.line, finding.column));
            }
            loaded.warnings
        }
        Err(found) => found.0,
    };
    let is_error = |finding: &ringway_config::Diagnostic| finding.severity == ringway_config::Severity::Error;
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_error);
    let valid = errors.is_empty();
    let mut out = terminal::stdout().lock();
    if json {
        let report = serde_json::json!({ "valid": valid, "errors": errors, "warnings": warnings });
        writeln!(out, "{report:#}")?;
    } else {
        for finding in errors.iter().chain(&warnings) {
            writeln!(out, "{finding}\n")?;
        }
        let verdict = if valid { "valid" } else { "not valid" };
        writeln!(out, "{}: {verdict}, {} errors, {} warnings", file.display(), errors.len(), warnings.len())?;
    }
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn schema() -> anyhow::Result<ExitCode> {
    writeln!(terminal::stdout(), "{:#}", ringway_config::json_schema())?;
    Ok(ExitCode::SUCCESS)
}
