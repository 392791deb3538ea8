//! What a running proxy shows live: its stream of frames, for the commands that draw it.

use crate::admin::{Access, escape};
use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt as _;
use ringway_control::http::Opened;
use serde_json::{Map, Value};
use std::time::Duration;

/// Longest event that is read: a frame of 65,535 backends fits.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for the next event: there is one each second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which proxy is looked at.
#[derive(Debug, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) access: Access,
    /// The backends of this service.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// A stream of what is shown.
pub(crate) struct Live {
    opened: Opened,
    rest: Vec<u8>,
    /// What is shown now.
    pub(crate) frame: Value,
}

impl Target {
    /// Begins a stream.
    pub(crate) async fn look(&self) -> anyhow::Result<Live> {
        let service = self.service.as_deref().map(|name| format!("?service={}", escape(name)));
        let opened = self.access.open(&format!("/live{}", service.unwrap_or_default())).await?;
        Ok(Live { opened, rest: Vec::new(), frame: Value::Null })
    }
}

impl Live {
    /// Waits for the next event, and takes it in.
    pub(crate) async fn next(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                return self.take(&event);
            }
            if self.rest.len() > EVENT_BYTES_MAX {
                bail!("an event of the stream is too long");
            }
            let next =
                tokio::time::timeout(PATIENCE, self.opened.body.frame()).await.context("the stream has stalled")?;
            let Some(next) = next else { bail!("the proxy has ended the stream") };
            if let Some(data) = next.context("read the stream")?.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }

    fn take(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let event = String::from_utf8_lossy(event);
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let data: Value = serde_json::from_str(field("data: ")).context("an event is not JSON")?;
        match field("event: ") {
            "frame" => self.frame = data,
            "change" => merge(&mut self.frame, data),
            _ => {}
        }
        Ok(())
    }
}

/// Merges a patch, as RFC 7396 has it.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_adds_and_takes_away() {
        let mut shown = json!({ "a": { "x": 1, "y": 2 }, "b": 3 });
        merge(&mut shown, json!({ "a": { "x": null, "z": 4 }, "b": { "c": 5 }, "d": null }));
        assert_eq!(shown, json!({ "a": { "y": 2, "z": 4 }, "b": { "c": 5 } }));
    }
}
