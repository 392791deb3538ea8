//! What a running proxy shows live: its stream of frames, for the commands that draw it.

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ringway_config::plain::line;
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest event that is read: a frame of 65,535 backends fits.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for the next event: there is one each second.
const PATIENCE: Duration = Duration::from_secs(10);

type Sender = http1::SendRequest<Empty<Bytes>>;

/// Which proxy is looked at.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The admin listener of a running proxy.
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,
    /// A file with a token that may read, where the listener asks for one.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The backends of this service.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// A stream of what is shown.
pub(crate) struct Live {
    /// The connection lasts as long as it does.
    _sender: Sender,
    body: Incoming,
    rest: Vec<u8>,
    /// What is shown now.
    pub(crate) frame: Value,
}

impl Target {
    /// Begins a stream.
    pub(crate) async fn look(&self) -> anyhow::Result<Live> {
        let service = self.service.as_deref().map(|name| format!("?service={}", crate::admin::escape(name)));
        let (sender, response) = self.get(&format!("/live{}", service.unwrap_or_default())).await?;
        Ok(Live { _sender: sender, body: response.into_body(), rest: Vec::new(), frame: Value::Null })
    }

    /// JSON of a path.
    pub(crate) async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let (_sender, response) = self.get(path).await?;
        let body = response.into_body().collect().await.context("read the response")?;
        serde_json::from_slice(&body.to_bytes()).context("the answer is not JSON")
    }

    async fn get(&self, path: &str) -> anyhow::Result<(Sender, Response<Incoming>)> {
        let admin = self.admin;
        let asked = async {
            let stream = TcpStream::connect(admin).await.with_context(|| format!("connect to {admin}"))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            drop(tokio::spawn(connection));
            let mut request = Request::get(path).header(HOST, admin.to_string());
            if let Some(file) = &self.token_file {
                let token = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
            }
            let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
            anyhow::Ok((sender, response))
        };
        let (sender, response) =
            tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("{admin} says nothing"))??;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let said: Value = serde_json::from_slice(&body).unwrap_or_default();
            bail!("{admin} answers {status}: {}", line(said["error"].as_str().unwrap_or_default()));
        }
        Ok((sender, response))
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
            let next = tokio::time::timeout(PATIENCE, self.body.frame()).await.context("the stream has stalled")?;
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
