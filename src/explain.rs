//! `ringway explain`: prints where a key or a whole request goes, from a file or as a running proxy sees it.

use crate::admin::{Access, Answer, escape};
use crate::terminal;
use anyhow::{Context, bail};
use clap::Args;
use hyper::Method;
use ringway_config::plain::line;
use ringway_proxy::Described;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is to be explained, and by what.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// A configuration file, instead of a running proxy: nothing is known of loads, health and hot keys then.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
    /// The service.
    #[arg(short, long, value_name = "NAME", required_unless_present = "request", conflicts_with = "request")]
    service: Option<String>,
    /// The key, as the request would have it; parts of a composite key are joined by `\0`.
    #[arg(short, long, required_unless_present_any = ["request", "hash"], conflicts_with_all = ["request", "hash"])]
    key: Option<String>,
    /// The key's hash, 16 hex digits, as logs have it.
    #[arg(long, value_name = "HEX", value_parser = hash, conflicts_with = "request")]
    hash: Option<u64>,
    /// A whole request, instead of a key: its method and target, `GET /x`.
    #[arg(short, long, value_name = "LINE")]
    request: Option<String>,
    /// A field of the request, `host: a`; may be given again.
    #[arg(short = 'H', long = "header", value_name = "FIELD", requires = "request")]
    headers: Vec<String>,
    /// The address that the request comes from; 127.0.0.1 if it is not given.
    #[arg(long, value_name = "ADDRESS", requires = "request")]
    from: Option<IpAddr>,
    /// The listener that gets it, where several could.
    #[arg(long, value_name = "NAME", requires = "request")]
    listener: Option<String>,
    /// The name that the client asks for in TLS.
    #[arg(long, value_name = "NAME", requires = "request")]
    sni: Option<String>,
    /// A file with the request's body: its length counts.
    #[arg(long, value_name = "FILE", requires = "request")]
    body: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Backends that are printed at most: all that may be tried.
const STEPS_MAX: usize = 16;
/// Prints what is asked for.
pub(crate) fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let explanation = match (&arguments.request, &arguments.config) {
        (Some(request), _) => {
            let answer = of_request(&described(arguments, request)?, arguments)?;
            return print(&answer, arguments.json, write_request);
        }
        (None, Some(file)) => of_key(file, arguments)?,
        (None, None) => of_key_live(arguments)?,
    };
    print(&explanation, arguments.json, |out, answer| {
        write_key(out, answer, arguments.key.as_deref().map(plain).as_deref())
    })
}

/// Prints an answer: as JSON, or in words.
pub(crate) fn print(
    answer: &Value,
    json: bool,
    write: impl FnOnce(&mut dyn Write, &Value) -> std::io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut out = terminal::stdout().lock();
    if json {
        writeln!(out, "{answer:#}")?
    } else {
        write(&mut out, answer)?
    }
    Ok(ExitCode::SUCCESS)
}

/// The request that the command line describes.
fn described(arguments: &ExplainArguments, request: &str) -> anyhow::Result<Described> {
    let mut described = Described::of_line(request)?;
    for header in &arguments.headers {
        let Some((name, value)) = header.split_once(':') else {
            bail!("{header:?} is no field: write `name: value`");
        };
        described.headers.push((name.trim_end().to_owned(), value.trim().to_owned()));
    }
    described.from = arguments.from.unwrap_or(described.from);
    (described.listener, described.server_name) = (arguments.listener.clone(), arguments.sni.clone());
    if let Some(file) = &arguments.body {
        let length = std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?;
        described.body_bytes = length.len();
    }
    Ok(described)
}

fn of_request(described: &Described, arguments: &ExplainArguments) -> anyhow::Result<Value> {
    if let Some(file) = &arguments.config {
        let config = ringway_config::load_file(file)?.config;
        return Ok(ringway_proxy::explain_request(&config, described)?);
    }
    let body = json!({
        "method": described.method, "target": described.target, "headers": described.headers,
        "from": described.from, "listener": described.listener.as_deref().unwrap_or_default(),
        "server_name": described.server_name.as_deref().unwrap_or_default(), "body_bytes": described.body_bytes,
    });
    ask(arguments, Method::POST, "/explain", Some(&body))
}

/// By the file: the key's hash, its owner, and the walk that spill, skip and retry follow.
fn of_key(file: &Path, arguments: &ExplainArguments) -> anyhow::Result<Value> {
    let config = ringway_config::load_file(file)?.config;
    let service = arguments.service.as_deref().unwrap_or_default();
    let explanation = match (arguments.hash, &arguments.key) {
        (Some(hash), _) => ringway_proxy::explain_hash(&config, service, hash)?,
        (None, key) => ringway_proxy::explain(&config, service, plain(key.as_deref().unwrap_or_default()).as_bytes())?,
    };
    let mut answer = explanation.json();
    answer["key"] = json!(arguments.key.as_deref().map(plain));
    Ok(answer)
}

/// As a running proxy sees it now.
fn of_key_live(arguments: &ExplainArguments) -> anyhow::Result<Value> {
    let subject = match (arguments.hash, &arguments.key) {
        (Some(hash), _) => format!("hash={hash:016x}"),
        (None, key) => format!("key={}", escape(&plain(key.as_deref().unwrap_or_default()))),
    };
    let service = escape(arguments.service.as_deref().unwrap_or_default());
    ask(arguments, Method::GET, &format!("/explain?service={service}&{subject}"), None)
}

/// A text of an answer, on one line.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), line)
}

/// A whole request: the way that it takes, then what its key comes to.
fn write_request(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    for step in answer["steps"].as_array().into_iter().flatten() {
        writeln!(out, "{}", text(step))?;
    }
    writeln!(out, "{}", text(&answer["verdict"]))?;
    let explanation = &answer["explanation"];
    if explanation.is_null() {
        return Ok(());
    }
    writeln!(out)?;
    write_walk(out, explanation)
}

fn write_key(out: &mut dyn Write, answer: &Value, key: Option<&str>) -> std::io::Result<()> {
    writeln!(out, "service     {} ({})", text(&answer["service"]), text(&answer["policy"]))?;
    if let Some(key) = key {
        writeln!(out, "key         {}", key.replace('\0', "\\0"))?;
    }
    writeln!(out, "hash        {}", text(&answer["hash"]))?;
    if answer["generation"].is_u64() {
        writeln!(out, "generation  {}", answer["generation"])?;
    }
    writeln!(out, "priority    {}", priorities(&answer["priority"]))?;
    write_walk(out, answer)
}

/// Who takes the key, and who follows: of a running proxy with what speaks for and against each.
fn write_walk(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let name = |value: &Value| value.as_str().map_or_else(|| "(nobody: every weight is 0)".into(), line);
    let steps = || answer["walk"].as_array().into_iter().flatten();
    if steps().all(Value::is_string) {
        writeln!(out, "owner       {}", name(&answer["owner"]))?;
        return writeln!(out, "then        {}", steps().skip(1).map(text).collect::<Vec<_>>().join(", "));
    }
    writeln!(out, "goes to     {}", answer["backend"].as_str().map_or_else(|| "nobody".into(), line))?;
    let handoff = &answer["handoff"];
    if handoff.is_object() {
        let (previous, next) = (text(&handoff["previous"]), text(&handoff["next"]));
        writeln!(out, "hand-off    from {previous} to {next}: {}", text(&handoff["text"]))?;
    }
    if answer["panic"] == true {
        writeln!(
            out,
            "panic       too few backends are healthy: those that are up come first, then the others all the same"
        )?;
    }
    // Those that would be tried, in that order, before those of which it says why they would not.
    let mut steps: Vec<&Value> = steps().collect();
    steps.sort_by_key(|step| step["turn"].as_u64().unwrap_or(u64::MAX));
    let tried = steps.iter().filter(|step| step["turn"].is_u64()).count();
    for (index, step) in steps.into_iter().take(STEPS_MAX).enumerate() {
        if index == tried {
            writeln!(out, "not tried")?;
        }
        let cap = if step["cap"].is_null() { "no limit".to_owned() } else { text(&step["cap"]) };
        writeln!(
            out,
            "  {:<20} {:<10} {} of {cap} in flight: {}",
            text(&step["id"]),
            text(&step["state"]),
            text(&step["in_flight"]),
            text(&step["verdict"])
        )?;
        if step["state"] != "up"
            && let Some(why) = step["why"].as_str()
        {
            writeln!(out, "  {:<20} {}", "", line(why))?;
        }
    }
    Ok(())
}

/// The service's priority, then those that routes give to what they send here.
fn priorities(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| "unknown".into(), line);
    let mut text = word(&answer["service"]);
    for route in answer["routes"].as_array().into_iter().flatten() {
        // Writing to a String does not fail.
        let _ =
            write!(text, "; {} by route {} of {}", word(&route["priority"]), route["route"], word(&route["listener"]));
    }
    text
}

/// A shell cannot pass the NUL that joins the parts of a composite key.
fn plain(key: &str) -> String {
    key.replace("\\0", "\0")
}

/// The hash of a key, as logs have it.
fn hash(text: &str) -> Result<u64, String> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    hash.ok_or_else(|| "write the 16 hex digits that logs and `explain` show".to_owned())
}

/// JSON of an admin listener.
fn ask(arguments: &ExplainArguments, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    match arguments.access.ask(method, path, body)? {
        Answer::Done(value) => Ok(value),
        Answer::Refused(why) => bail!("{}: {why}", arguments.access),
    }
}
