//! `ringway explain`: prints where a key goes, from a file or as a running proxy sees it.

use anyhow::{Context, bail};
use ringway_config::plain::line;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Backends that are printed at most: all that may be tried.
const STEPS_MAX: usize = 16;
/// Longest answer of an admin listener that is read: a walk of 65,535 backends fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the key's hash, its owner, and the walk that spill, skip and retry follow.
pub(crate) fn explain(file: &Path, service: &str, key: &str, json: bool) -> anyhow::Result<ExitCode> {
    let config = ringway_config::load_file(file)?.config;
    let key = plain(key);
    let explanation = ringway_proxy::explain(&config, service, key.as_bytes())?;
    let owner = explanation.walk.first().map(String::as_str);
    let mut out = crate::terminal::stdout().lock();
    if json {
        let answer = serde_json::json!({
            "service": explanation.service,
            "policy": explanation.policy,
            "key": key,
            "hash": format!("{:016x}", explanation.hash),
            "owner": owner,
            "walk": explanation.walk,
            "ring_digest": format!("{:016x}", explanation.ring_digest),
            "priority": explanation.priorities.json(),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        writeln!(out, "service  {} ({})", explanation.service, explanation.policy)?;
        writeln!(out, "key      {}", key.replace('\0', "\\0"))?;
        writeln!(out, "hash     {:016x}", explanation.hash)?;
        writeln!(out, "owner    {}", owner.unwrap_or("(nobody: every weight is 0)"))?;
        writeln!(out, "then     {}", explanation.walk.get(1..).unwrap_or_default().join(", "))?;
        writeln!(out, "priority {}", priorities(&explanation.priorities.json()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a running proxy, and prints what it says.
pub(crate) fn explain_live(admin: SocketAddr, service: &str, key: &str, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/explain?service={}&key={}", escape(service), escape(&plain(key)));
    let answer = crate::run::control_runtime()?.block_on(get(admin, &path))?;
    let mut out = crate::terminal::stdout().lock();
    if json {
        writeln!(out, "{answer:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), line);
    writeln!(out, "service     {} ({})", text(&answer["service"]), text(&answer["policy"]))?;
    writeln!(out, "key         {}", plain(key).replace('\0', "\\0"))?;
    writeln!(out, "hash        {}", text(&answer["hash"]))?;
    writeln!(out, "generation  {}", text(&answer["generation"]))?;
    writeln!(out, "priority    {}", priorities(&answer["priority"]))?;
    writeln!(out, "goes to     {}", answer["backend"].as_str().map_or_else(|| "nobody".into(), line))?;
    if answer["panic"] == true {
        writeln!(
            out,
            "panic       too few backends are healthy: those that are up come first, then the others all the same"
        )?;
    }
    // Those that would be tried, in that order, before those of which it says why they would not.
    let mut steps: Vec<&Value> = answer["walk"].as_array().into_iter().flatten().collect();
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
    Ok(ExitCode::SUCCESS)
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

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// JSON of an admin listener.
async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let (status, body) = ringway_control::http::get(admin, path, ANSWER_BYTES_MAX, PATIENCE).await?;
    let value: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
    if !status.is_success() {
        bail!("{admin} answers {status}: {}", value["error"].as_str().unwrap_or_default());
    }
    Ok(value)
}
