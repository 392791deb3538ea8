//! `ringway workers`: what each worker of a running proxy has, and how it does; or all of one.

use crate::admin::{Access, Answer, refused};
use crate::explain::print;
use crate::table::{Column, cut, table};
use crate::terminal;
use clap::Args;
use hyper::Method;
use serde_json::Value;
use std::process::ExitCode;

/// Which workers.
#[derive(Debug, Args)]
pub(crate) struct WorkersArguments {
    #[command(flatten)]
    access: Access,
    /// The number of one, from 0: its listeners, and the backends that it has most to do with.
    worker: Option<u16>,
    /// Backends, at most.
    #[arg(long, value_name = "ROWS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000), requires = "worker")]
    limit: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const WORKERS: [Column; 9] = [
    Column { head: "worker", is_number: true, rank: 0 },
    Column { head: "state", is_number: false, rank: 0 },
    Column { head: "busy %", is_number: true, rank: 1 },
    Column { head: "lag ms", is_number: true, rank: 2 },
    Column { head: "connections", is_number: true, rank: 3 },
    Column { head: "under way", is_number: true, rank: 4 },
    Column { head: "tasks", is_number: true, rank: 6 },
    Column { head: "timers", is_number: true, rank: 7 },
    Column { head: "commands", is_number: true, rank: 5 },
];

const UPSTREAMS: [Column; 6] = [
    Column { head: "service", is_number: false, rank: 0 },
    Column { head: "backend", is_number: false, rank: 0 },
    Column { head: "in flight", is_number: true, rank: 1 },
    Column { head: "idle", is_number: true, rank: 2 },
    Column { head: "shared", is_number: true, rank: 3 },
    Column { head: "streams", is_number: true, rank: 4 },
];

const LISTENERS: [Column; 6] = [
    Column { head: "listener", is_number: false, rank: 0 },
    Column { head: "address", is_number: false, rank: 1 },
    Column { head: "kind", is_number: false, rank: 2 },
    Column { head: "state", is_number: false, rank: 4 },
    Column { head: "connections", is_number: true, rank: 3 },
    Column { head: "permits", is_number: true, rank: 5 },
];

/// Exit 0: told; 1: refused. Whoever cannot be asked is an error.
pub(crate) fn workers(arguments: &WorkersArguments) -> anyhow::Result<ExitCode> {
    let path = match arguments.worker {
        Some(worker) => format!("/workers/{worker}?limit={}", arguments.limit),
        None => "/workers".into(),
    };
    match arguments.access.ask(Method::GET, &path, None)? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) => {
            print(&answer, arguments.json, |out, answer| out.write_all(draw(answer, terminal::size().0).as_bytes()))
        }
    }
}

fn draw(answer: &Value, width: usize) -> String {
    let Some(all) = answer["workers"].as_array() else { return draw_one(answer, width) };
    table(&WORKERS, &all.iter().map(worker).collect::<Vec<_>>(), width)
}

fn draw_one(answer: &Value, width: usize) -> String {
    let mut text = table(&WORKERS, &[worker(answer)], width);
    let rows = |name: &str, row: fn(&Value) -> Vec<String>| -> Vec<Vec<String>> {
        answer[name].as_array().into_iter().flatten().map(row).collect()
    };
    let mut say = |name: &str, what: &Value| {
        let parts = what.as_object().into_iter().flatten().map(|(name, value)| format!("{name} {value}"));
        text.push_str(&cut(&format!("{name}: {}", parts.collect::<Vec<_>>().join(", ")), width));
        text.push('\n');
    };
    if answer["answers"] == true {
        say("buffers", &answer["buffers"]);
        say("HTTP/2", &answer["http2"]);
        text.push_str(&format!("\n{}\n", table(&LISTENERS, &rows("listeners", listener), width)));
        text.push_str(&table(&UPSTREAMS, &rows("upstreams", upstream), width));
        text.push_str(&cut(&format!("of {} backends", number(&answer["backends"])), width));
        text.push('\n');
    }
    text
}

fn worker(value: &Value) -> Vec<String> {
    let silent = value["silent_seconds"].as_f64();
    let state = match (value["answers"] == true, silent) {
        (true, _) if value["draining"] == true => "drains".to_owned(),
        (true, _) => "answers".into(),
        (false, Some(silent)) => format!("does not answer since {silent:.1} s"),
        (false, None) => "has ended".into(),
    };
    let under_way = value["under_way_by"].as_array().map(|counts| {
        let sum: u64 = counts.iter().filter_map(|entry| entry["count"].as_u64()).sum();
        sum.to_string()
    });
    vec![
        number(&value["worker"]),
        state,
        format!("{:.0}", value["busy_ratio"].as_f64().unwrap_or_default() * 100.0),
        format!("{:.1}", value["lag_seconds"].as_f64().unwrap_or_default() * 1e3),
        number(&value["connections"]),
        under_way.unwrap_or_else(|| "-".into()),
        number(&value["tasks"]),
        number(&value["timers_armed"]),
        number(&value["commands_waiting"]),
    ]
}

fn upstream(row: &Value) -> Vec<String> {
    let numbers = ["in_flight", "idle", "shared", "streams"].map(|name| number(&row[name]));
    [text(&row["service"]), text(&row["backend"])].into_iter().chain(numbers).collect()
}

fn listener(row: &Value) -> Vec<String> {
    let state = if row["open"] == true { "open" } else { "closing" };
    let [connections, permits] = ["connections", "permits_taken"].map(|name| number(&row[name]));
    vec![text(&row["name"]), text(&row["address"]), text(&row["kind"]), state.into(), connections, permits]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_worker_that_does_not_answer_is_said_so_and_names_do_nothing_to_the_terminal() {
        let stuck =
            json!({ "worker": 1, "answers": false, "silent_seconds": 4.25, "lag_seconds": 4.2, "busy_ratio": 1.0 });
        let well = json!({
            "worker": 0, "answers": true, "lag_seconds": 0.001, "busy_ratio": 0.25, "connections": 7, "tasks": 9,
            "timers_armed": 3, "commands_waiting": 0, "under_way_by": [ { "count": 2 }, { "count": 3 } ],
            "buffers": { "small_kept": 1 }, "http2": {}, "backends": 10_000,
            "listeners": [ { "name": "web\u{1b}[31m", "address": "127.0.0.1:80", "kind": "http", "open": true, "permits_taken": 7 } ],
            "upstreams": [ { "service": "s", "backend": "b\u{9b}2J", "in_flight": 5, "idle": 1, "shared": 0, "streams": 0 } ],
        });
        let text = draw(&json!({ "workers": [well, stuck] }), 200);
        assert!(text.contains("does not answer since 4.2 s") && text.contains("25"), "{text}");
        for width in [20, 60, 200] {
            let text = draw(&well, width);
            assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
        assert!(draw(&well, 200).contains("of 10000 backends"));
        assert_eq!(draw(&stuck, 200).lines().count(), 2);
    }
}
