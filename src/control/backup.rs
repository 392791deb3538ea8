//! Everything, to a file and back.

use super::show;
use super::text::confirmed;
use anyhow::Context;
use hyper::Method;
use ringway_control::http::{Api, ApiError};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

/// Of the member that has come farthest among those that answer.
pub(super) async fn stale_backup(api: &Api, file: &Path) -> anyhow::Result<()> {
    let mut newest: Option<((u64, u64, u64), Api, Value)> = None;
    let mut last = ApiError::NoMembers;
    for member in api.members() {
        let one = api.only(member);
        match one.json(Method::GET, "/v1/status", None).await {
            Ok(status) => {
                let number = |value: &Value| value.as_u64().unwrap_or(0);
                let place =
                    (number(&status["epoch"]), number(&status["revision"]), number(&status["member"]["applied"]));
                if newest.as_ref().is_none_or(|(known, ..)| *known < place) {
                    newest = Some((place, one, status));
                }
            }
            Err(error) => {
                writeln!(crate::terminal::stderr(), "{member} is not asked: {error}")?;
                last = error;
            }
        }
    }
    let Some(((epoch, revision, applied), one, status)) = newest else { return Err(last.into()) };
    let age = match status["leader_age_ms"].as_u64() {
        Some(ms) => format!("which last knew of a leader {} ago", show::span(ms)),
        None => "which has known of no leader since it started".to_owned(),
    };
    let what = format!(
        ": revision {revision} of epoch {epoch}, entry {applied} of the log, of member {}, {age}",
        show::text(&status["member"]["name"])
    );
    backup(&one, file, "/v1/backup?consistency=stale", &what).await
}

pub(super) async fn backup(api: &Api, file: &Path, path: &str, what: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let bytes = api.call(Method::GET, path, "").await?;
    let beside = file.with_extension("part");
    // Certificates' keys are in it.
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    out.write_all(&bytes)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    writeln!(crate::terminal::stderr(), "{} bytes written to {}{what}", bytes.len(), file.display())?;
    Ok(())
}

/// False: whoever was asked does not want it.
pub(super) async fn restore(
    api: &Api,
    printer: &show::Printer,
    file: &Path,
    other_cluster: bool,
    yes: bool,
) -> anyhow::Result<bool> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    if !yes && !confirmed("the whole topology becomes the backup's")? {
        return Ok(false);
    }
    let path = if other_cluster { "/v1/restore?other_cluster=true" } else { "/v1/restore" };
    let answer = api.call(Method::POST, path, bytes).await?;
    printer.done(&serde_json::from_slice(&answer)?)?;
    Ok(true)
}
