//! `ringway log`: which lines the log of a running proxy has, changed for a time.

use crate::admin::{Access, Answer, refused, seconds};
use crate::explain::print;
use clap::Args;
use hyper::Method;
use ringway_config::plain::line;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The filter of the log.
#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    #[command(flatten)]
    access: Access,
    /// The filter that is to hold: a level (off, error, warn, info, debug, trace), or parts TARGET=LEVEL between commas. Without it, the one
    /// in force is shown.
    #[arg(long, value_name = "FILTER", conflicts_with = "back")]
    filter: Option<String>,
    /// For how long, for example `10m`; a day at most.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, requires = "filter", default_value = "10m")]
    duration: Duration,
    /// The filter of the start again.
    #[arg(long)]
    back: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit 0: done; 1: refused. Whoever cannot be asked is an error.
pub(crate) fn log(arguments: &LogArguments) -> anyhow::Result<ExitCode> {
    let answer = match &arguments.filter {
        Some(filter) => {
            let body = json!({ "filter": filter, "for_seconds": arguments.duration.as_secs() });
            arguments.access.ask(Method::POST, "/log", Some(&body))?
        }
        None => {
            let method = if arguments.back { Method::DELETE } else { Method::GET };
            arguments.access.ask(method, "/log", None)?
        }
    };
    match answer {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) => print(&answer, arguments.json, write),
    }
}

fn write(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let text = |value: &Value| line(value.as_str().unwrap_or_default());
    writeln!(out, "{}", text(&answer["filter"]))?;
    let changed = &answer["changed"];
    match changed["seconds_left"].as_f64() {
        Some(left) => {
            let (by, start) = (text(&changed["by"]), text(&answer["start"]));
            writeln!(out, "changed by {by}, for {left:.0} s more; then {start} as at the start")
        }
        None if answer["filter"] == answer["start"] => writeln!(out, "as at the start"),
        None => writeln!(out, "changed; at the start it was {}", text(&answer["start"])),
    }
}
