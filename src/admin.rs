//! The admin listener of a running proxy, as commands ask it.

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::{Method, StatusCode};
use ringway_config::plain::{line, lines};
use ringway_control::http::{Client, Endpoint, EndpointError, Followed, Lines, Opened, Patience};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Longest answer that is read: a walk of 65,535 backends fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait until an answer begins to what changes nothing.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const PATIENCE: Patience = Patience { head: BEGIN_PATIENCE, body: Duration::from_secs(60) };
/// The same for a change, which takes as long as a build does.
const CHANGE_PATIENCE: Patience = Patience { head: Duration::from_secs(60), body: Duration::from_secs(60) };
/// So often a proxy that works on a change is asked whether it is there, and so long it has to say so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// What may be done although nobody has said so.
const MAY_BE_DONE: &str = "it may still be done";
/// Longest refusal of it that is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Which proxy is asked, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// The admin listener of a running proxy: `127.0.0.1:9901`, `https://HOST:PORT`, `unix:PATH`.
    #[arg(short, long, global = true, value_name = "ADDRESS", env = "RINGWAY_ADMIN", default_value = "127.0.0.1:9901", value_parser = endpoint)]
    admin: Endpoint,
    #[command(flatten)]
    credentials: Credentials,
}

/// Who asks.
#[derive(Debug, Args)]
struct Credentials {
    /// File with a bearer token.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities of the listener's certificate; without it, the public ones.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_ADMIN_CA")]
    ca: Option<PathBuf>,
    /// PEM file of a certificate that is shown to the listener.
    #[arg(long, global = true, value_name = "FILE", requires = "key_file", alias = "cert")]
    certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    key_file: Option<PathBuf>,
}

/// What a listener has answered.
pub(crate) enum Answer {
    Done(Value),
    Refused(String),
}

/// An address of a command line.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).ok_or_else(|| "write `127.0.0.1:9901`, `https://HOST:PORT` or `unix:PATH`".to_owned())
}

impl std::fmt::Display for Access {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.admin.fmt(out)
    }
}

impl Access {
    /// Asks; whoever cannot be asked is an error.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let (status, body) = send(&self.admin, &self.credentials, (method, path), body, true)?;
        if !status.is_success() {
            return Ok(Answer::Refused(refusal(status, &body)));
        }
        let value =
            serde_json::from_slice(&body).with_context(|| format!("the answer of {} is not JSON", self.admin))?;
        Ok(Answer::Done(value))
    }

    /// As [`Access::ask`] by POST, of what answers in lines.
    pub(crate) async fn follow(&self, path: &str, body: &Value) -> anyhow::Result<Result<Box<Lines>, String>> {
        let sent = (Method::POST, path, body.to_string().into());
        let client = client(&self.admin, &self.credentials)?;
        Ok(match client.follow(sent, ANSWER_BYTES_MAX, BEGIN_PATIENCE).await? {
            Followed::Lines(lines) => Ok(lines),
            Followed::Refused(status, body) => Err(refusal(status, &body)),
        })
    }

    /// A response that goes on: its body, as it comes.
    pub(crate) async fn open(&self, path: &str) -> anyhow::Result<Opened> {
        let mut opened = client(&self.admin, &self.credentials)?.open(path, BEGIN_PATIENCE).await?;
        if opened.status.is_success() {
            return Ok(opened);
        }
        let said = Limited::new(&mut opened.body, REFUSAL_BYTES_MAX).collect();
        let said = tokio::time::timeout(BEGIN_PATIENCE, said).await.ok().and_then(Result::ok);
        let said = said.map(Collected::to_bytes).unwrap_or_default();
        bail!("{} refuses: {}", self.admin, refusal(opened.status, &said))
    }

    /// As [`Access::ask`], of what is no JSON.
    pub(crate) fn text(&self, path: &str, json: bool) -> anyhow::Result<Result<String, String>> {
        let (status, body) = send(&self.admin, &self.credentials, (Method::GET, path), None, json)?;
        let text = String::from_utf8(body).context("the answer is no text")?;
        Ok(if status.is_success() { Ok(text) } else { Err(refusal(status, text.as_bytes())) })
    }
}

fn send(
    admin: &Endpoint,
    credentials: &Credentials,
    (method, path): (Method, &str),
    body: Option<&Value>,
    json: bool,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let client = client(admin, credentials)?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    // What is to be explained is sent, and changes nothing.
    let changes = method != Method::GET && path != "/explain";
    let patience = if changes { CHANGE_PATIENCE } else { PATIENCE };
    let sent = client.send((method, path, body.into(), json), ANSWER_BYTES_MAX, patience);
    let (status, body) = crate::run::control_runtime()?.block_on(async {
        if !changes {
            return anyhow::Ok(sent.await?);
        }
        tokio::select! {
            answer = sent => match answer {
                Err(why @ EndpointError::Unanswered { .. }) => bail!("{why}: {MAY_BE_DONE}"),
                answer => Ok(answer?),
            },
            why = silence(&client) => bail!("{admin}: no answer, nor a sign of life ({why}): {MAY_BE_DONE}"),
        }
    })?;
    Ok((status, body.to_vec()))
}

/// Waits until a proxy gives no sign of life any more; why. One that builds for long still does.
async fn silence(client: &Client) -> EndpointError {
    let patience = Patience { head: SIGN_OF_LIFE, body: SIGN_OF_LIFE };
    loop {
        tokio::time::sleep(SIGN_OF_LIFE).await;
        if let Err(why) = client.send((Method::GET, "/healthz", "".into(), false), REFUSAL_BYTES_MAX, patience).await {
            return why;
        }
    }
}

fn client(admin: &Endpoint, credentials: &Credentials) -> anyhow::Result<Client> {
    let identity = credentials.certificate.as_deref().zip(credentials.key_file.as_deref());
    Ok(Client::new(admin.clone(), credentials.token_file.as_deref(), credentials.ca.as_deref(), identity)?)
}

/// Why somebody says no, and what may help.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = value["error"].as_str().map_or_else(|| status.to_string(), lines);
    // Members tell what is wrong in a way of their own (RFC 9457).
    if let (Some(detail), true) = (value["detail"].as_str(), value["code"].is_string()) {
        return format!(
            "{}: this is the API of a member of a control plane, not the admin listener of a proxy: ask it by `ringway control`, for \
             example `ringway control proxies`",
            line(detail)
        );
    }
    if status == StatusCode::UNAUTHORIZED {
        return format!(
            "{said}: `--token-file FILE`, `--certificate FILE --key-file FILE` or `--admin unix:PATH` say who asks"
        );
    }
    said
}

/// Tells why it was refused: exit 1.
pub(crate) fn refused(why: &str) -> anyhow::Result<ExitCode> {
    writeln!(crate::terminal::stderr(), "ringway: refused: {}", lines(why))?;
    Ok(ExitCode::from(1))
}

/// A segment of a path, percent-encoded.
pub(crate) fn escape(text: &str) -> String {
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

/// A time of a command line, in whole seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    ringway_config::parse_duration(text)
        .filter(|duration| duration.subsec_nanos() == 0 && !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is no time of whole seconds: write for example `30s`, `10m` or `1h30m`"))
}
