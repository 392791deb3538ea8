//! `ringway tap`: the whole lives of the next requests of a running proxy that match, and of its sessions of TCP and flows of UDP.

use crate::admin::{Access, refused, seconds};
use crate::terminal;
use anyhow::{Context, bail};
use clap::Args;
use ringway_config::plain::line;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Longest line that is read: a life has bounded heads and steps.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Beyond the time of the tap, how long its end may take to come.
const GRACE: Duration = Duration::from_secs(30);

/// Which requests, and how they are shown.
#[derive(Debug, Args)]
pub(crate) struct TapArguments {
    #[command(flatten)]
    access: Access,
    /// That come to this listener.
    #[arg(short, long, value_name = "NAME")]
    listener: Option<String>,
    /// Of this service.
    #[arg(short, long, value_name = "NAME")]
    service: Option<String>,
    /// That take the listener's route with this number, from 1.
    #[arg(long, value_name = "NUMBER")]
    route: Option<u32>,
    /// With this method.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Whose path begins like this.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// With this field, `name: value`; several must all be there.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Of clients of this network.
    #[arg(long, value_name = "NETWORK")]
    from: Option<String>,
    /// Whose key has this hash, 16 hex digits.
    #[arg(long, value_name = "HEX")]
    hash: Option<String>,
    /// That end with this status or a greater one, or without a response.
    #[arg(long, value_name = "STATUS")]
    status_min: Option<u16>,
    /// That take as long as this at least, in seconds, for example `0.5`.
    #[arg(long, value_name = "SECONDS", value_parser = time)]
    slower: Option<f64>,
    /// How many.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    count: u32,
    /// For how long they are waited for.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, default_value = "60s")]
    duration: Duration,
    /// Show values of fields and the query, but for what is a secret by its name (authorization, cookies, tokens) or marked as one.
    #[arg(long)]
    values: bool,
    /// Print JSON, a line for each.
    #[arg(long)]
    json: bool,
}

/// A time in seconds, or in parts of one. What is no number is no condition either.
fn time(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
    seconds.ok_or_else(|| format!("`{text}` is no time in seconds: write for example `0.5`"))
}

/// Exit 0: all that was asked for came; 1: not all, or refused.
pub(crate) fn tap(arguments: &TapArguments) -> anyhow::Result<ExitCode> {
    let body = body(arguments)?;
    crate::run::control_runtime()?.block_on(async {
        let mut lives = match arguments.access.follow("/tap", &body).await? {
            Ok(lives) => lives,
            Err(why) => return refused(&why),
        };
        let mut told = 0;
        while let Some(next) =
            lives.next(LINE_BYTES_MAX, arguments.duration + GRACE).await.map_err(anyhow::Error::msg)?
        {
            let value: Value = serde_json::from_slice(&next).context("a line is not JSON")?;
            let mut out = terminal::stdout().lock();
            if arguments.json {
                writeln!(out, "{value}")?;
            } else {
                write(&mut out, &value)?;
            }
            out.flush()?;
            told += u32::from(value["request"].is_object() || value["session"].is_object());
            if value["end"].is_object() {
                return Ok(if told == arguments.count { ExitCode::SUCCESS } else { ExitCode::from(1) });
            }
        }
        bail!("the proxy has ended the tap")
    })
}

/// What is asked for.
fn body(arguments: &TapArguments) -> anyhow::Result<Value> {
    let mut headers = Map::new();
    for header in &arguments.headers {
        let Some((name, value)) = header.split_once(':') else { bail!("{header:?} is no field: write `name: value`") };
        headers.insert(name.trim_end().to_owned(), value.trim().into());
    }
    let mut body = Map::new();
    for (name, value) in [
        ("listener", json!(arguments.listener)),
        ("service", json!(arguments.service)),
        ("route", json!(arguments.route)),
        ("method", json!(arguments.method)),
        ("path_prefix", json!(arguments.path)),
        ("client", json!(arguments.from)),
        ("hash", json!(arguments.hash)),
        ("status_min", json!(arguments.status_min)),
        ("duration_min_seconds", json!(arguments.slower)),
        ("headers", if headers.is_empty() { Value::Null } else { headers.into() }),
        ("values", if arguments.values { json!(true) } else { Value::Null }),
        ("count", json!(arguments.count)),
        ("for_seconds", json!(arguments.duration.as_secs())),
    ] {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    }
    Ok(body.into())
}

/// A line of the answer, for people.
fn write(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    if value["tap"].is_object() {
        return writeln!(out, "waiting for {} of the next that match", value["tap"]["count"]);
    }
    if let Some(end) = value["end"].as_object() {
        let number = |name: &str| end.get(name).and_then(Value::as_u64).unwrap_or_default();
        let why = match end.get("why").and_then(Value::as_str).unwrap_or_default() {
            "count" => "all that were asked for",
            "time" => "the time is over",
            "role" => "whoever asks may not operate any more",
            _ => "the tap has ended",
        };
        write!(out, "{why}: {} shown", number("told"))?;
        for (name, what) in [
            ("lost", "lost"),
            ("passed_by", "passed by, too many were followed already"),
            ("under_way", "not ended yet"),
        ] {
            if number(name) > 0 {
                write!(out, ", {} {what}", number(name))?;
            }
        }
        return writeln!(out);
    }
    if value["session"].is_object() { write_session(out, value) } else { write_life(out, value) }
}

/// A session of TCP, or a flow of UDP.
fn write_session(out: &mut dyn Write, life: &Value) -> io::Result<()> {
    let session = &life["session"];
    write!(out, "\n{} {}", time_of_day(session["at"].as_f64().unwrap_or_default()), text(&session["protocol"]))?;
    write!(out, " from {} to listener {}", text(&session["peer"]), text(&session["listener"]))?;
    write_tls(out, &session["tls"])?;
    if let Some(name) = session["server_name"].as_str() {
        write!(out, ", server name {}", line(name))?;
    }
    writeln!(out)?;
    write!(out, "  service {}", text(&life["service"]))?;
    write_placement(out, life)?;
    for step in life["steps"].as_array().into_iter().flatten() {
        write_step(out, step)?;
    }
    write!(out, "  {}  ", at(&life["duration_seconds"]))?;
    match life["reason"].as_str() {
        Some(reason) => write!(out, "{}", line(reason))?,
        None => write!(out, "not ended yet")?,
    }
    writeln!(out, ", {} B in, {} B out", life["received_bytes"], life["sent_bytes"])
}

fn write_tls(out: &mut dyn Write, tls: &Value) -> io::Result<()> {
    let Some(version) = tls["version"].as_str() else { return Ok(()) };
    write!(out, ", TLS {}{}", line(version), if tls["resumed"] == true { ", resumed" } else { "" })
}

fn write_life(out: &mut dyn Write, life: &Value) -> io::Result<()> {
    let (request, response) = (&life["request"], &life["response"]);
    let query = match request["query"].as_str() {
        Some(query) => format!("?{}", line(query)),
        None if request["query"].is_object() => "?...".into(),
        None => String::new(),
    };
    writeln!(
        out,
        "\n{} {} {}{query} {}",
        time_of_day(request["at"].as_f64().unwrap_or_default()),
        text(&request["method"]),
        text(&request["path"]),
        text(&request["protocol"])
    )?;
    write!(out, "  from {} (connected: {})", text(&request["client"]), text(&request["peer"]))?;
    write!(out, " to listener {}", text(&request["listener"]))?;
    write_tls(out, &request["tls"])?;
    writeln!(out)?;
    write_fields(out, &request["fields"])?;
    write_routing(out, life)?;
    for step in life["steps"].as_array().into_iter().flatten() {
        write_step(out, step)?;
    }
    let duration = at(&life["duration_seconds"]);
    write!(out, "  {duration}  ")?;
    let is_unfinished = life["unfinished"] == true;
    match response["status"].as_u64() {
        Some(status) if is_unfinished => write!(out, "not ended yet: response {status} has begun")?,
        Some(status) => write!(out, "response {status}")?,
        None if is_unfinished => write!(out, "not ended yet: no response so far")?,
        None => write!(out, "no response")?,
    }
    if let Some(reason) = response["reason"].as_str() {
        write!(out, " ({})", line(reason))?;
    }
    match (life["received_bytes"].as_u64(), life["sent_bytes"].as_u64()) {
        (Some(received), Some(sent)) => writeln!(out, ", {received} B in, {sent} B out")?,
        _ => writeln!(out)?,
    }
    write_fields(out, &response["fields"])
}

fn write_routing(out: &mut dyn Write, life: &Value) -> io::Result<()> {
    match life["route"]["number"].as_u64() {
        Some(number) => write!(out, "  route {number}")?,
        None => write!(out, "  no route")?,
    }
    if let Some(path) = life["route"]["path"].as_str() {
        write!(out, " ({})", line(path))?;
    }
    if let Some(service) = life["service"].as_str() {
        write!(out, ", service {}", line(service))?;
    }
    write_placement(out, life)
}

/// Its key, and where that leads.
fn write_placement(out: &mut dyn Write, life: &Value) -> io::Result<()> {
    let candidates: Option<Vec<String>> = life["candidates"].as_array().map(|all| all.iter().map(text).collect());
    for (name, value) in [
        ("key", life["key_hash"].as_str().map(line)),
        ("owner", life["owner"].as_str().map(line)),
        ("hand-off", life["handoff"].as_str().map(line)),
        ("candidates", candidates.map(|candidates| candidates.join(" "))),
    ] {
        if let Some(value) = value {
            write!(out, ", {name} {value}")?;
        }
    }
    writeln!(out)
}

fn write_step(out: &mut dyn Write, step: &Value) -> io::Result<()> {
    if step["kind"] == "queue" {
        writeln!(out, "  {}  waits for a backend with room", at(&step["began_seconds"]))?;
        if step["ended_seconds"].is_null() {
            return Ok(());
        }
        return writeln!(out, "  {}  has waited", at(&step["ended_seconds"]));
    }
    let (kind, backend, address) = (text(&step["kind"]), text(&step["backend"]), text(&step["address"]));
    writeln!(out, "  {}  {kind} on {backend}, {address}", at(&step["began_seconds"]))?;
    if let Some(connection) = step["connection"].as_str() {
        writeln!(out, "  {}    {} connection", at(&step["connected_seconds"]), line(connection))?;
    }
    if !step["response_seconds"].is_null() {
        writeln!(out, "  {}    the response begins: {}", at(&step["response_seconds"]), step["status"])?;
    }
    if step["ended_seconds"].is_null() {
        return Ok(());
    }
    let how = step["error"].as_str().map(|error| format!(": {}", line(error))).unwrap_or_default();
    writeln!(out, "  {}    the {kind} is over{how}", at(&step["ended_seconds"]))
}

fn write_fields(out: &mut dyn Write, fields: &Value) -> io::Result<()> {
    for field in fields.as_array().into_iter().flatten() {
        match (field["value"].as_str(), field["left_out"].as_u64()) {
            (_, Some(count)) => writeln!(out, "    and {count} fields more")?,
            (Some(value), _) => writeln!(out, "    {}: {}", text(&field["name"]), line(value))?,
            (None, None) => writeln!(out, "    {}: ({} bytes)", text(&field["name"]), field["bytes"])?,
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match (value.as_str(), value["bytes"].as_u64()) {
        (Some(text), _) => line(text),
        (None, Some(bytes)) => format!("({bytes} bytes)"),
        (None, None) => "-".into(),
    }
}

/// Seconds since the request began.
fn at(value: &Value) -> String {
    format!("{:+10.6} s", value.as_f64().unwrap_or_default())
}

/// The time of day of seconds of Unix time, in UTC.
fn time_of_day(unix_seconds: f64) -> String {
    let of_day = unix_seconds.rem_euclid(86_400.0);
    let whole = of_day as u64;
    format!("{:02}:{:02}:{:06.3}Z", whole / 3600, whole / 60 % 60, of_day % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> String {
        let mut out = Vec::new();
        write(&mut out, value).map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn a_life_is_told_in_its_order_and_nothing_in_it_does_anything_to_the_terminal() {
        let text = written(&json!({
            "request": {
                "at": 45_296.5, "method": "GET", "path": "/a\u{1b}[2J", "query": { "bytes": 7 }, "protocol": "HTTP/2",
                "client": "10.0.0.1", "peer": "127.0.0.1:9", "listener": "web\u{9b}31m", "tls": { "version": "1.3", "resumed": true },
                "fields": [ { "name": "host", "value": "a\u{7}" }, { "name": "cookie", "bytes": 120 }, { "left_out": 3 } ],
            },
            "route": { "number": 1, "path": "/a*" }, "service": "s", "key_hash": "00ff", "owner": "b0", "candidates": [ "b0", "b1" ],
            "steps": [
                { "kind": "queue", "began_seconds": 0.001, "ended_seconds": 0.002 },
                { "kind": "try", "backend": "b0", "address": "127.0.0.1:80", "began_seconds": 0.002, "connection": "new",
                  "connected_seconds": 0.003, "ended_seconds": 0.004, "error": "upstream_closed" },
            ],
            "response": { "status": 502, "reason": "upstream_closed", "fields": null }, "duration_seconds": 0.005,
            "received_bytes": 10, "sent_bytes": 20,
        }));
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{7}']), "{text:?}");
        let mut rest = text.as_str();
        for part in [
            "12:34:56.500Z GET /a",
            "?... HTTP/2",
            "TLS 1.3, resumed",
            "cookie: (120 bytes)",
            "and 3 fields more",
            "route 1 (/a*), service s, key 00ff, owner b0, candidates b0 b1",
            "+0.001000 s  waits",
            "try on b0, 127.0.0.1:80",
            "new connection",
            "the try is over: upstream_closed",
            "+0.005000 s  response 502 (upstream_closed), 10 B in, 20 B out",
        ] {
            let Some(place) = rest.find(part) else { panic!("{part}:\n{text}") };
            rest = &rest[place..];
        }
    }

    #[test]
    fn a_session_is_told_with_its_placement_its_tries_and_its_end() {
        let mut life = json!({
            "session": { "at": 0.0, "protocol": "TCP", "peer": "10.0.0.1:9", "client": "10.0.0.1", "listener": "db\u{1b}[2J",
                "tls": { "version": "1.3", "resumed": true }, "server_name": "a.example" },
            "service": "s", "key_hash": "00ff", "owner": "b0", "candidates": [ "b0", "b1" ],
            "steps": [
                { "kind": "try", "backend": "b0", "address": "127.0.0.1:80", "began_seconds": 0.001, "ended_seconds": 0.002, "error": "connect_failed" },
                { "kind": "try", "backend": "b1", "address": "127.0.0.1:81", "began_seconds": 0.002, "connection": "new",
                  "connected_seconds": 0.003, "ended_seconds": 1.0 },
            ],
            "reason": "closed", "duration_seconds": 1.0, "received_bytes": 10, "sent_bytes": 20,
        });
        let text = written(&life);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let mut rest = text.as_str();
        for part in [
            "00:00:00.000Z TCP from 10.0.0.1:9 to listener db",
            ", TLS 1.3, resumed, server name a.example",
            "service s, key 00ff, owner b0, candidates b0 b1",
            "try on b0",
            "the try is over: connect_failed",
            "try on b1",
            "new connection",
            "+1.000000 s  closed, 10 B in, 20 B out",
        ] {
            let Some(place) = rest.find(part) else { panic!("{part}:\n{text}") };
            rest = &rest[place..];
        }
        life["reason"] = Value::Null;
        assert!(written(&life).contains("not ended yet, 10 B in"), "{}", written(&life));
    }

    #[test]
    fn what_has_not_ended_says_so_and_how_far_it_has_come() {
        let life = |status: Value| {
            written(&json!({
                "unfinished": true, "request": { "at": 0.0, "method": "GET", "path": "/slow" }, "route": { "number": 1 },
                "steps": [
                    { "kind": "queue", "began_seconds": 0.001, "ended_seconds": null },
                    { "kind": "try", "backend": "b0", "address": "127.0.0.1:80", "began_seconds": 0.002, "ended_seconds": null },
                ],
                "response": { "status": status }, "duration_seconds": 9.0,
            }))
        };
        let none = life(Value::Null);
        assert!(none.contains("+9.000000 s  not ended yet: no response so far\n"), "{none}");
        assert!(none.contains("try on b0") && !none.contains("is over") && !none.contains("has waited"), "{none}");
        assert!(life(200.into()).contains("not ended yet: response 200 has begun\n"));
    }

    #[test]
    fn what_is_no_time_is_refused_and_not_left_out() {
        assert_eq!((time("0.5"), time("0")), (Ok(0.5), Ok(0.0)));
        for text in ["nan", "NaN", "inf", "-inf", "-1", "1s", ""] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tap_that_ends_says_why_and_what_is_missing() {
        let end = json!({ "end": { "why": "time", "told": 2, "lost": 1, "passed_by": 0, "under_way": 3 } });
        assert_eq!(written(&end), "the time is over: 2 shown, 1 lost, 3 not ended yet\n");
    }
}
