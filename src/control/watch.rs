//! `ringway control watch`: every change once, in order, whichever member says it and however often members come and go.

use anyhow::bail;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Bytes, Incoming};
use ringway_config::model::MemberUrl;
use ringway_control::Code;
use ringway_control::http::{Api, ApiError, Problem};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Members say something every five seconds; one that has been silent for three of them is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// A member that has heard of no leader for so long is left for another.
const LEADER_AGE_MS: u64 = 5_000;
/// Between two rounds in which no member had anything to say: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest line: a whole topology.
const LINE_BYTES_MAX: usize = 256 << 20;

/// Epoch and revision.
pub(super) type Place = (u64, u64);

/// `EPOCH.REVISION`.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let parsed = text.split_once('.').and_then(|(epoch, revision)| Some((epoch.parse().ok()?, revision.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is no place in the history: write EPOCH.REVISION, for example `1.42`"))
}

/// What has been printed.
struct Watcher {
    at: Option<Place>,
    rollout: Option<Vec<u8>>,
    /// Somebody has had something to say since the last round began.
    heard: bool,
}

/// What a line is to whoever has seen all before it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// New.
    Print,
    /// Known already.
    Skip,
    /// Something is missing before it: it is asked for again, from what is known.
    Gap,
    /// The member has lost its leader.
    Leave,
}

pub(super) async fn watch(api: &Api, from: Option<Place>) -> anyhow::Result<ExitCode> {
    if api.members().is_empty() {
        bail!("no member is named: `--members https://HOST:9700`");
    }
    let mut watcher = Watcher { at: from, rollout: None, heard: false };
    let (mut pause, mut begun) = (PAUSE.0, false);
    loop {
        watcher.heard = false;
        for member in api.members() {
            let why = match watcher.follow(api, member).await {
                Ok(why) => why,
                // Who may not, may not anywhere; who asks for nonsense is told so.
                Err(Failed::Api(ApiError::Refused(problem))) if problem.status < 500 => {
                    return Err(ApiError::Refused(problem).into());
                }
                Err(Failed::Api(error)) if !begun && !watcher.heard && api.members().len() == 1 => {
                    return Err(error.into());
                }
                Err(Failed::Api(error)) => error.to_string(),
                Err(Failed::Out(error)) => return Err(error.into()),
            };
            let at = watcher.at.map_or_else(String::new, |(epoch, revision)| format!(" after {epoch}.{revision}"));
            writeln!(crate::terminal::stderr(), "ringway: {member}: {why}; going on{at} elsewhere")?;
        }
        if watcher.heard {
            (pause, begun) = (PAUSE.0, true);
        } else if !begun {
            bail!("no member can be watched: see above");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Failed {
    Api(ApiError),
    /// Nobody reads what is printed.
    Out(std::io::Error),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl Watcher {
    /// Prints what a member says until it says no more; why.
    async fn follow(&mut self, api: &Api, member: &MemberUrl) -> Result<String, Failed> {
        let from = self.at.map_or_else(String::new, |(epoch, revision)| format!("?from={epoch}.{revision}"));
        let mut link = api.connect(member).await?;
        let response = api.begin(&mut link, Method::GET, &format!("/v1/watch{from}"), Bytes::new()).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let text = http_body_util::Limited::new(body, 64 << 10).collect().await;
            let text = text.map(|text| text.to_bytes()).unwrap_or_default();
            let problem = serde_json::from_slice(&text)
                .unwrap_or_else(|_| Problem::new(status.as_u16(), Code::Http, format!("{member} answers {status}")));
            return Err(ApiError::Refused(problem).into());
        }
        let others = api.members().len() > 1;
        let mut buffer = Vec::new();
        loop {
            let data = match next(&mut body).await {
                Ok(data) => data,
                Err(why) => return Ok(why),
            };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                match self.step(&line) {
                    Step::Print => {
                        let mut out = crate::terminal::stdout().lock();
                        out.write_all(&line).and_then(|()| out.flush()).map_err(Failed::Out)?;
                        self.heard = true;
                    }
                    Step::Skip => self.heard = true,
                    Step::Gap => return Ok("it has left out a change".into()),
                    Step::Leave if others => return Ok("it has heard of no leader for a while".into()),
                    Step::Leave => {}
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Ok("its line does not end".into());
            }
        }
    }

    fn step(&mut self, line: &[u8]) -> Step {
        let Ok(said) = serde_json::from_slice::<Value>(line) else { return Step::Gap };
        let place = |of: &Value| of["epoch"].as_u64().zip(of["revision"].as_u64());
        if let Some(snapshot) = said.get("snapshot") {
            let Some(at) = place(snapshot) else { return Step::Gap };
            if self.at.is_some_and(|known| at <= known) {
                return Step::Skip;
            }
            self.at = Some(at);
            return Step::Print;
        }
        if let Some(delta) = said.get("delta") {
            let (Some(at), Some(known)) = (place(delta), self.at) else { return Step::Gap };
            if at <= known {
                return Step::Skip;
            }
            if (at.0, delta["previous"].as_u64()) != (known.0, Some(known.1)) {
                return Step::Gap;
            }
            self.at = Some(at);
            return Step::Print;
        }
        if let Some(ping) = said.get("ping") {
            return if ping["leader_age_ms"].as_u64().is_none_or(|age| age > LEADER_AGE_MS) {
                Step::Leave
            } else {
                Step::Print
            };
        }
        if said.get("rollout").is_some() {
            // A member says it to everybody who comes; it is said once here.
            if self.rollout.as_deref() == Some(line) || (self.rollout.is_none() && said["rollout"].is_null()) {
                return Step::Skip;
            }
            self.rollout = Some(line.to_vec());
        }
        Step::Print
    }
}

/// The next piece, or why there is none.
async fn next(body: &mut Incoming) -> Result<Bytes, String> {
    loop {
        match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => return Ok(data),
                Err(_) => continue,
            },
            Ok(Some(Err(error))) => return Err(format!("the stream broke off: {error}")),
            Ok(None) => return Err("it has ended the stream".into()),
            Err(_) => return Err(format!("it has said nothing for {}s", SILENCE.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_printed_once_and_none_is_left_out() {
        let mut watcher = Watcher { at: Some((1, 5)), rollout: None, heard: false };
        let mut step = |text: String| watcher.step(text.as_bytes());
        let delta = |epoch: u64, previous: u64, revision: u64| {
            format!(r#"{{"delta":{{"epoch":{epoch},"previous":{previous},"revision":{revision}}}}}"#)
        };
        let snapshot =
            |epoch: u64, revision: u64| format!(r#"{{"snapshot":{{"epoch":{epoch},"revision":{revision}}}}}"#);
        assert_eq!(step(delta(1, 4, 5)), Step::Skip);
        assert_eq!(step(delta(1, 5, 6)), Step::Print);
        assert_eq!(step(delta(1, 7, 8)), Step::Gap);
        assert_eq!(step(delta(2, 6, 7)), Step::Gap);
        assert_eq!(step(delta(1, 6, 9)), Step::Print, "several that came at once");
        assert_eq!(step(snapshot(1, 9)), Step::Skip);
        assert_eq!(step(snapshot(2, 3)), Step::Print, "another epoch");
        assert_eq!(step(delta(2, 3, 4)), Step::Print);
        assert_eq!(step(r#"{"rollout":null}"#.into()), Step::Skip);
        assert_eq!(step(r#"{"rollout":{"id":1}}"#.into()), Step::Print);
        assert_eq!(step(r#"{"rollout":{"id":1}}"#.into()), Step::Skip);
        assert_eq!(step(r#"{"rollout":null}"#.into()), Step::Print);
        assert_eq!(step(r#"{"ping":{"revision":4,"leader_age_ms":10}}"#.into()), Step::Print);
        assert_eq!(step(r#"{"ping":{"revision":4,"leader_age_ms":null}}"#.into()), Step::Leave);
        assert_eq!(step("{".into()), Step::Gap);
        assert_eq!((place("1.42"), place("1").is_err(), place("-1.2").is_err()), (Ok((1, 42)), true, true));
    }
}
