//! `ringway sessions`: what clients of a running proxy have under way, as a table that fits the terminal.

use crate::admin::{Access, Answer, escape, refused, seconds};
use crate::explain::print;
use crate::table::{Column, cut, table};
use crate::terminal;
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::Value;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

/// What is listed, and in which order.
#[derive(Debug, Args)]
pub(crate) struct SessionsArguments {
    #[command(flatten)]
    access: Access,
    /// Clients' connections, busy or idle, instead of what is under way on them.
    #[arg(long)]
    connections: bool,
    /// Of this service.
    #[arg(short, long, value_name = "NAME")]
    service: Option<String>,
    /// On this backend.
    #[arg(short, long, value_name = "ID")]
    backend: Option<String>,
    /// Of this listener.
    #[arg(short, long, value_name = "NAME")]
    listener: Option<String>,
    /// Of the client with this address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// In this state: queued, connecting, waiting, responding, relaying; of connections: idle, receiving (part of a head), busy.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Of listeners of this kind: http, tcp, udp.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// As old as this at least, for example `30s`.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    older: Option<Duration>,
    /// What comes first: the oldest, or what has moved most bytes.
    #[arg(long, value_name = "ORDER", default_value = "age")]
    sort: Sort,
    /// Rows, at most.
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// By what rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Age,
    Bytes,
}

const SESSIONS: [Column; 11] = [
    Column { head: "age", is_number: true, rank: 0 },
    Column { head: "state", is_number: false, rank: 0 },
    Column { head: "client", is_number: false, rank: 3 },
    Column { head: "service", is_number: false, rank: 2 },
    Column { head: "backend", is_number: false, rank: 1 },
    Column { head: "in", is_number: true, rank: 6 },
    Column { head: "out", is_number: true, rank: 5 },
    Column { head: "protocol", is_number: false, rank: 7 },
    Column { head: "tls", is_number: false, rank: 9 },
    Column { head: "listener", is_number: false, rank: 8 },
    Column { head: "request", is_number: false, rank: 4 },
];

const CONNECTIONS: [Column; 7] = [
    Column { head: "age", is_number: true, rank: 0 },
    Column { head: "state", is_number: false, rank: 0 },
    Column { head: "client", is_number: false, rank: 1 },
    Column { head: "under way", is_number: true, rank: 2 },
    Column { head: "protocol", is_number: false, rank: 4 },
    Column { head: "tls", is_number: false, rank: 5 },
    Column { head: "listener", is_number: false, rank: 3 },
];

/// Exit 0: listed; 1: refused. Whoever cannot be asked is an error.
pub(crate) fn sessions(arguments: &SessionsArguments) -> anyhow::Result<ExitCode> {
    match arguments.access.ask(Method::GET, &arguments.path(), None)? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(answer) => {
            print(&answer, arguments.json, |out, answer| out.write_all(draw(answer, terminal::size().0).as_bytes()))
        }
    }
}

impl SessionsArguments {
    fn path(&self) -> String {
        let mut query = vec![
            format!("sort={}", if self.sort == Sort::Age { "age" } else { "bytes" }),
            format!("limit={}", self.limit),
        ];
        if self.connections {
            query.push("connections".into());
        }
        for (name, value) in [
            ("service", &self.service),
            ("backend", &self.backend),
            ("listener", &self.listener),
            ("state", &self.state),
            ("kind", &self.kind),
            ("client", &self.client.map(|client| client.to_string())),
            ("older", &self.older.map(|older| older.as_secs().to_string())),
        ] {
            query.extend(value.as_ref().map(|value| format!("{name}={}", escape(value))));
        }
        format!("/sessions?{}", query.join("&"))
    }
}

/// The table, and how much there is beside it.
fn draw(answer: &Value, width: usize) -> String {
    let list = |name: &str| answer[name].as_array().map(Vec::as_slice);
    let mut text = match (list("sessions"), list("connections")) {
        (Some(rows), _) => table(&SESSIONS, &rows.iter().map(session).collect::<Vec<_>>(), width),
        (None, Some(rows)) => table(&CONNECTIONS, &rows.iter().map(connection).collect::<Vec<_>>(), width),
        (None, None) => String::new(),
    };
    let mut say = |line: String| {
        text.push_str(&cut(&line, width));
        text.push('\n');
    };
    if answer["shown"] != answer["total"] {
        say(format!("the first {} of {}", answer["shown"], answer["total"]));
    }
    let silent: Vec<String> = list("silent_workers").into_iter().flatten().map(ToString::to_string).collect();
    if !silent.is_empty() {
        say(format!("of these workers nothing is known, they do not answer: {}", silent.join(", ")));
    }
    text
}

fn session(row: &Value) -> Vec<String> {
    vec![
        age(row),
        text(&row["state"]),
        text(&row["client"]),
        text(&row["service"]),
        text(&row["backend"]),
        bytes(&row["received_bytes"]),
        bytes(&row["sent_bytes"]),
        text(&row["protocol"]),
        tls(row),
        text(&row["listener"]),
        text(&row["request"]),
    ]
}

fn connection(row: &Value) -> Vec<String> {
    vec![
        age(row),
        text(&row["state"]),
        text(&row["client"]),
        row["under_way"].to_string(),
        text(&row["protocol"]),
        tls(row),
        text(&row["listener"]),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn tls(row: &Value) -> String {
    match (row["tls"]["version"].as_str(), row["tls"]["resumed"] == true) {
        (None, _) => "-".into(),
        (Some(version), false) => version.to_owned(),
        (Some(version), true) => format!("{version} resumed"),
    }
}

fn age(row: &Value) -> String {
    let seconds = row["age_seconds"].as_f64().unwrap_or_default();
    match seconds as u64 {
        0..60 => format!("{seconds:.1}s"),
        whole @ 60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        whole => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// In the greatest unit that leaves a whole number.
fn bytes(value: &Value) -> String {
    let bytes = value.as_u64().unwrap_or_default();
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_fit_the_terminal_and_what_clients_have_written_does_nothing_to_it() {
        let row = json!({
            "age_seconds": 61.5, "state": "responding", "client": "[2001:db8::1]:50000", "service": "s", "backend": "b\u{1b}[31m",
            "received_bytes": 3000, "sent_bytes": 12, "protocol": "HTTP/2", "listener": "web",
            "tls": { "version": "1.3", "resumed": true }, "request": "GET /\u{1b}]0;owned\u{7}\r\n",
        });
        let answer = json!({ "sessions": [row], "total": 7, "shown": 1, "silent_workers": [3] });
        for width in [20, 40, 80, 200] {
            let text = draw(&answer, width);
            assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{text:?}");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert_eq!(text.lines().count(), 4, "{text}");
        }
        let text = draw(&answer, 200);
        for word in ["1m01s", "2.9 KiB", "12 B", "1.3 resumed", "the first 1 of 7", "do not answer: 3"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn idle_connections_have_a_table_of_their_own() {
        let row =
            json!({ "age_seconds": 7200.0, "state": "idle", "client": "127.0.0.1:1", "under_way": 0, "tls": null });
        let text = draw(&json!({ "connections": [row], "total": 1, "shown": 1, "silent_workers": [] }), 200);
        assert!(text.contains("2h00m") && text.contains("under way"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
