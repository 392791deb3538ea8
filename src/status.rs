//! `ringway status`: how a running proxy does, as tables that fit the terminal; what `ringway top` draws again and again.

use crate::admin::{Answer, refused};
use crate::live::Target;
use crate::table::{Column, cut, table};
use crate::terminal;
use anyhow::bail;
use clap::{Args, ValueEnum};
use hyper::Method;
use ringway_config::plain::line;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

/// What is asked of `ringway status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    target: Target,
    /// Print the whole status as JSON.
    #[arg(long)]
    json: bool,
}

/// By what rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// What needs a look first.
    State,
    Name,
    Requests,
    Errors,
    P99,
    InFlight,
}

const SERVICES: [Column; 10] = [
    Column { head: "service", is_number: false, rank: 0 },
    Column { head: "up", is_number: true, rank: 0 },
    Column { head: "state", is_number: false, rank: 1 },
    Column { head: "req/s", is_number: true, rank: 2 },
    Column { head: "5xx %", is_number: true, rank: 3 },
    Column { head: "p50 ms", is_number: true, rank: 6 },
    Column { head: "p99 ms", is_number: true, rank: 4 },
    Column { head: "in flight", is_number: true, rank: 5 },
    Column { head: "ring", is_number: false, rank: 8 },
    Column { head: "why", is_number: false, rank: 7 },
];

/// Why a backend is in its state is of more use than how much it should have.
const BACKENDS: [Column; 12] = [
    Column { head: "backend", is_number: false, rank: 0 },
    Column { head: "state", is_number: false, rank: 0 },
    Column { head: "share %", is_number: true, rank: 9 },
    Column { head: "accepts %", is_number: true, rank: 8 },
    Column { head: "in flight", is_number: true, rank: 5 },
    Column { head: "req/s", is_number: true, rank: 1 },
    Column { head: "5xx %", is_number: true, rank: 2 },
    Column { head: "p50 ms", is_number: true, rank: 7 },
    Column { head: "p99 ms", is_number: true, rank: 4 },
    Column { head: "spills/s", is_number: true, rank: 11 },
    Column { head: "address", is_number: false, rank: 10 },
    Column { head: "why", is_number: false, rank: 3 },
];

/// From this share of 5xx on, it is failing.
const FAILING_PERCENT: f64 = 5.0;

/// Lines that follow the first of why a reload was refused.
const REASON_LINES_MAX: usize = 8;

/// Prints it once.
pub(crate) fn status(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let target = &arguments.target;
    if arguments.json {
        return match target.access.ask(Method::GET, "/status", None)? {
            Answer::Done(status) => {
                writeln!(terminal::stdout(), "{status:#}")?;
                Ok(ExitCode::SUCCESS)
            }
            Answer::Refused(why) => refused(&why),
        };
    }
    let runtime = crate::run::control_runtime()?;
    let frame = runtime.block_on(settled(target))?;
    let text = draw(&frame, target.service.as_deref(), Sort::State, terminal::size().0);
    terminal::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The frame that has rates: those of the second since somebody looks.
pub(crate) async fn settled(target: &Target) -> anyhow::Result<Value> {
    let mut live = target.look().await?;
    // The first is the frame, the second the first look at the counters, the third has what came between two.
    for _ in 0..3 {
        live.next().await?;
    }
    if let Some(service) = &target.service
        && live.frame["service"].is_null()
    {
        bail!("there is no service {service:?}");
    }
    Ok(live.frame)
}

/// The tables.
pub(crate) fn draw(frame: &Value, service: Option<&str>, sort: Sort, width: usize) -> String {
    let mut text = head(frame, width);
    if let Some(name) = service {
        if let Some(panic) = frame["service"]["panic"]["text"].as_str() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{}", cut(&format!("panic: {}", line(panic)), width));
        }
        let gone = if frame["service"].is_null() { " is not there any more" } else { "" };
        let _ = writeln!(text, "\n{}", cut(&format!("service {}{gone}", line(name)), width));
        if !gone.is_empty() {
            return text;
        }
        text.push_str(&table(&BACKENDS, &rows(&frame["service"]["backends"], sort, backend), width));
        return text;
    }
    text.push('\n');
    text.push_str(&table(&SERVICES, &rows(&frame["services"], sort, of_service), width));
    text
}

/// The proxy, in a few lines.
fn head(frame: &Value, width: usize) -> String {
    let proxy = &frame["proxy"];
    let mut lines = vec![format!(
        "ringway {}, generation {}, {} connections, {} req/s, {} % 5xx, p50 {}, p99 {}",
        word(&proxy["version"]),
        proxy["generation"],
        proxy["connections"],
        number(&proxy["requests_per_second"], 1.0),
        number(&proxy["classes"]["5xx"], 1.0),
        time(&proxy["p50_seconds"]),
        time(&proxy["p99_seconds"]),
    )];
    if let Some(topology) = proxy["topology"].as_object() {
        let of = |name: &str| topology.get(name).map_or_else(|| "-".into(), word);
        lines.push(format!(
            "topology: {} in {}, revision {} of epoch {}, follows {}",
            of("proxy"),
            of("cluster"),
            of("revision"),
            of("epoch"),
            of("member")
        ));
    }
    lines.extend(wrong(frame));
    lines.iter().map(|line| cut(line, width) + "\n").collect()
}

/// What is not as it should be, and is none of a service or a backend.
fn wrong(frame: &Value) -> Vec<String> {
    let (mut lines, proxy) = (Vec::new(), &frame["proxy"]);
    if proxy["overload"] != "normal" {
        lines.push(format!("overload: {}", word(&proxy["overload"])));
    }
    for (resource, used) in proxy["used_up"].as_object().into_iter().flatten() {
        lines.push(format!("at its limit: {}, {} % of it is used", line(resource), number(used, 100.0)));
    }
    for (name, listener) in frame["listeners"].as_object().into_iter().flatten() {
        if listener["full"] == true {
            let connections = &listener["connections"];
            lines.push(format!("listener {} is full: {connections} connections, new ones wait", line(name)));
        }
    }
    if proxy["draining"] == true {
        lines.push("draining: no new connections are taken".into());
    }
    if proxy["last_reload"]["result"] == "refused" {
        let mut why = proxy["last_reload"]["error"].as_str().unwrap_or_default().lines();
        lines.push(format!("the last reload was refused: {}", line(why.next().unwrap_or_default())));
        lines.extend(why.take(REASON_LINES_MAX).map(|more| format!("  {}", line(more))));
    }
    let now = frame["at"].as_f64().unwrap_or_default();
    for certificate in frame["certificates"].as_object().into_iter().flat_map(|all| all.values()) {
        if let Some(standing) = standing(certificate, now) {
            lines.push(format!("certificate {}: {standing}", word(&certificate["file"])));
        }
    }
    lines
}

/// What is to be said of a certificate, if anything is.
fn standing(certificate: &Value, now: f64) -> Option<String> {
    let days = ((certificate["not_after"].as_f64().unwrap_or_default() - now) / 86_400.0).floor();
    match certificate["state"].as_str() {
        _ if days < 0.0 => Some(format!("expired {} days ago", -days)),
        Some(state) if !matches!(state, "valid" | "ends_soon") => Some(state.replace('_', " ")),
        _ if days < 30.0 => Some(format!("{days} days left")),
        _ => None,
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), line)
}

fn rows(entries: &Value, sort: Sort, row: fn(&str, &Value) -> Vec<String>) -> Vec<Vec<String>> {
    let mut entries: Vec<(&String, &Value)> = entries.as_object().into_iter().flatten().collect();
    let value = |entry: &Value| match sort {
        Sort::State => worry(entry),
        Sort::Name => 0.0,
        Sort::Requests => entry["requests_per_second"].as_f64().unwrap_or_default(),
        Sort::Errors => entry["classes"]["5xx"].as_f64().unwrap_or_default(),
        Sort::P99 => entry["p99_seconds"].as_f64().unwrap_or_default(),
        Sort::InFlight => entry["in_flight"].as_f64().unwrap_or_default(),
    };
    entries.sort_by(|(name, one), (other_name, other)| {
        value(other).total_cmp(&value(one)).then_with(|| name.cmp(other_name))
    });
    entries.into_iter().map(|(name, entry)| row(name, entry)).collect()
}

/// How much a service or a backend needs a look.
fn worry(entry: &Value) -> f64 {
    let is_short = entry["state"].is_null() && entry["up"] != entry["backends"];
    match (entry["panic"] == true, entry["state"].as_str()) {
        (true, _) => 6.0,
        (_, Some("down" | "ejected")) => 5.0,
        _ if is_failing(entry) => 4.0,
        (_, Some("degraded")) => 3.0,
        _ if is_short => 3.0,
        _ if is_slow(entry) => 2.0,
        (_, Some("unknown" | "draining" | "drained")) => 1.0,
        _ => 0.0,
    }
}

/// Whether it answers with 5xx as no healthy one does: against its peers, or in the last seconds.
fn is_failing(entry: &Value) -> bool {
    let stands_out = &entry["stands_out"];
    !stands_out["failing"].is_null()
        || stands_out["whole"] == true
        || entry["classes"]["5xx"].as_f64().is_some_and(|percent| percent >= FAILING_PERCENT)
}

fn is_slow(entry: &Value) -> bool {
    !entry["stands_out"]["slow"].is_null()
}

fn of_service(name: &str, entry: &Value) -> Vec<String> {
    let state = match (entry["panic"] == true, entry["waiting"].as_f64()) {
        (true, _) => "panic".to_owned(),
        (_, Some(waiting)) => format!("{waiting} wait"),
        _ if is_failing(entry) => "failing".into(),
        _ if entry["up"] != entry["backends"] => "degraded".into(),
        _ if is_slow(entry) => "slow".into(),
        _ => "fine".into(),
    };
    let stands_out = entry["stands_out"]["text"].as_str().map(str::to_owned);
    let out = entry["out"].as_str().map(|out| format!("out: {out}"));
    vec![
        name.to_owned(),
        format!("{}/{}", entry["up"], entry["backends"]),
        state,
        number(&entry["requests_per_second"], 1.0),
        number(&entry["classes"]["5xx"], 1.0),
        milliseconds(&entry["p50_seconds"]),
        milliseconds(&entry["p99_seconds"]),
        number(&entry["in_flight"], 1.0),
        entry["ring_digest"].as_str().or(entry["policy"].as_str()).unwrap_or_default().to_owned(),
        stands_out.into_iter().chain(out).collect::<Vec<_>>().join("; "),
    ]
}

fn backend(id: &str, entry: &Value) -> Vec<String> {
    let in_flight = number(&entry["in_flight"], 1.0);
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut state = text("state");
    for (is_so, word) in [(is_failing(entry), ", failing"), (is_slow(entry), ", slow")] {
        state.push_str(if is_so { word } else { "" });
    }
    let reason = Some(text("reason")).filter(|reason| entry["state"] != "up" && !reason.is_empty());
    let stands_out = entry["stands_out"].as_object().into_iter().flat_map(|reasons| reasons.values());
    let stands_out = stands_out.filter_map(|one| one["text"].as_str().map(str::to_owned));
    let set = entry["override"].as_str().map(|set| format!("set at run time: {set}"));
    let why: Vec<String> = reason.into_iter().chain(stands_out).chain(set).collect();
    vec![
        id.to_owned(),
        state,
        number(&entry["share"], 100.0),
        number(&entry["accept"], 100.0),
        entry["cap"].as_u64().map_or_else(|| in_flight.clone(), |cap| format!("{in_flight}/{cap}")),
        number(&entry["requests_per_second"], 1.0),
        number(&entry["classes"]["5xx"], 1.0),
        milliseconds(&entry["p50_seconds"]),
        milliseconds(&entry["p99_seconds"]),
        number(&entry["spills_per_second"], 1.0),
        text("address"),
        why.join("; "),
    ]
}

/// What is left out is nothing.
fn number(value: &Value, times: f64) -> String {
    let value = value.as_f64().unwrap_or_default() * times;
    let rounded = (value * 1e6).round() / 1e6;
    let rounded = if rounded >= 100.0 { rounded.round() } else { rounded };
    rounded.to_string()
}

/// No duration is none, not 0.
fn milliseconds(value: &Value) -> String {
    if value.is_null() { "-".into() } else { number(value, 1e3) }
}

fn time(value: &Value) -> String {
    if value.is_null() { "-".into() } else { format!("{} ms", number(value, 1e3)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_fails_or_is_slow_stands_before_the_others_and_it_is_said_how_much() {
        let frame = json!({
            "proxy": { "overload": "normal" },
            "services": {
                "a": { "backends": 3, "up": 3 },
                "e": { "backends": 3, "up": 2, "out": "zero, one" },
                "b": { "backends": 3, "up": 3, "stands_out": { "slow": 1, "text": "late takes 900.0 ms" } },
                "c": { "backends": 3, "up": 3, "classes": { "2xx": 65, "5xx": 35 } },
                "d": { "backends": 3, "up": 3, "stands_out": { "whole": true, "text": "30.0 % of 400 requests fail" } },
            },
            "service": { "backends": {
                "a": { "state": "up" },
                "late": { "state": "up", "stands_out": { "slow": { "text": "takes 900.0 ms" } } },
                "bad": { "state": "up", "stands_out": { "failing": { "text": "fails 100.0 % of 297 requests" } } },
                "new": { "state": "up", "classes": { "5xx": 100 } },
                "zero": { "state": "drained", "reason": "drained by ops" },
            } },
        });
        let column = |service: Option<&str>, at: usize| -> Vec<String> {
            let text = draw(&frame, service, Sort::State, 300);
            let head = if service.is_some() { "backend " } else { "service " };
            let rows = text.lines().skip_while(|line| !line.starts_with(head)).skip(1);
            rows.map(|row| {
                row.split("  ").filter(|cell| !cell.is_empty()).nth(at).unwrap_or_default().trim().to_owned()
            })
            .collect()
        };
        assert_eq!(column(None, 0), ["c", "d", "e", "b", "a"]);
        assert_eq!(column(None, 2), ["failing", "failing", "degraded", "slow", "fine"]);
        assert!(draw(&frame, None, Sort::State, 300).contains("out: zero, one"));
        assert_eq!(column(Some("s"), 0), ["bad", "new", "late", "zero", "a"]);
        assert_eq!(column(Some("s"), 1), ["up, failing", "up, failing", "up, slow", "drained", "up"]);
        let text = draw(&frame, Some("s"), Sort::State, 300);
        for why in ["fails 100.0 % of 297 requests", "takes 900.0 ms", "drained by ops"] {
            assert!(text.contains(why), "{why}: {text}");
        }
    }

    #[test]
    fn the_head_says_what_is_full_expired_and_refused_and_no_line_of_it_is_an_escape() {
        let day = 86_400;
        let frame = json!({
            "at": 4000 * day,
            "proxy": { "version": "1", "overload": "normal", "used_up": { "descriptors": 1.06 },
                "last_reload": { "result": "refused", "error": "error[x]: no\n  --> a.yaml:7:7\n  help: \u{1b}[31m" } },
            "listeners": { "web": { "full": true, "connections": 2 }, "other": { "full": false, "connections": 1 } },
            "certificates": {
                "a": { "file": "old.pem", "not_after": 1840 * day, "state": "expired" },
                "b": { "file": "soon.pem", "not_after": 4003 * day, "state": "ends_soon" },
                "c": { "file": "young.pem", "not_after": 5000 * day, "state": "not_yet_valid" },
                "d": { "file": "good.pem", "not_after": 5000 * day, "state": "valid" },
            },
        });
        let text = draw(&frame, None, Sort::State, 200);
        let head: Vec<&str> = text.lines().skip(1).take_while(|line| !line.is_empty()).collect();
        let expected = [
            "at its limit: descriptors, 106 % of it is used",
            "listener web is full: 2 connections, new ones wait",
            "the last reload was refused: error[x]: no",
            "    --> a.yaml:7:7",
            "    help: \\u001b[31m",
            "certificate old.pem: expired 2160 days ago",
            "certificate soon.pem: 3 days left",
            "certificate young.pem: not yet valid",
        ];
        assert_eq!(head, expected);
    }

    #[test]
    fn what_needs_a_look_stands_first_and_nothing_is_wider_than_the_terminal() {
        let frame = json!({
            "at": 1000.0,
            "proxy": { "version": "1", "generation": 3, "connections": 7, "overload": "normal", "requests_per_second": 12.5 },
            "certificates": { "c": { "file": "/etc/c.pem", "not_after": 1000 + 5 * 86_400 } },
            "services": { "s": { "backends": 2, "up": 1, "policy": "ring" } },
            "service": { "name": "s", "panic": { "text": "1 of 3 healthy = 33 % < 50 %: health is ignored" }, "backends": {
                "a": { "state": "up", "requests_per_second": 12.5, "p50_seconds": 0.0042, "accept": 1, "share": 0.5 },
                "b\u{1b}[31m": { "state": "ejected", "reason": "ejected for 30.0 s: 5 failures in a row", "accept": 0, "cap": 9 },
            } },
        });
        let text = draw(&frame, Some("s"), Sort::State, 100);
        let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("backend")).skip(1).collect();
        assert!(rows[0].starts_with("b") && rows[0].contains("ejected") && rows[1].starts_with("a"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("certificate /etc/c.pem: 5 days left") && text.contains("panic: 1 of 3"), "{text}");
        assert!(rows[1].contains("4.2"), "{text}");
        let gone = draw(&json!({ "proxy": {} }), Some("s"), Sort::State, 100);
        assert!(gone.ends_with("\nservice s is not there any more\n"), "{gone}");
        let narrow = draw(&frame, Some("s"), Sort::State, 80);
        assert!(narrow.contains("ejected for 30.0 s: 5"), "why it is out is of more use than its share: {narrow}");
        for width in [30, 60, 80, 200] {
            for service in [None, Some("s")] {
                let text = draw(&frame, service, Sort::Requests, width);
                assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            }
        }
    }
}
