//! `ringway explain`: prints where a key goes.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints the key's hash, its owner, and the walk that spill, skip and retry follow.
pub(crate) fn explain(file: &Path, service: &str, key: &str, json: bool) -> anyhow::Result<ExitCode> {
    let config = ringway_config::load_file(file)?.config;
    // A shell cannot pass the NUL that joins the parts of a composite key.
    let key = key.replace("\\0", "\0");
    let explanation = ringway_proxy::explain(&config, service, key.as_bytes())?;
    let owner = explanation.walk.first().map(String::as_str);
    let mut out = std::io::stdout().lock();
    if json {
        let answer = serde_json::json!({
            "service": explanation.service,
            "key": key,
            "hash": format!("{:016x}", explanation.hash),
            "owner": owner,
            "walk": explanation.walk,
            "ring_digest": format!("{:016x}", explanation.ring_digest),
        });
        writeln!(out, "{answer:#}")?;
    } else {
        writeln!(out, "service  {}", explanation.service)?;
        writeln!(out, "key      {}", key.replace('\0', "\\0"))?;
        writeln!(out, "hash     {:016x}", explanation.hash)?;
        writeln!(out, "owner    {}", owner.unwrap_or("(nobody: every weight is 0)"))?;
        writeln!(out, "then     {}", explanation.walk.get(1..).unwrap_or_default().join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}
