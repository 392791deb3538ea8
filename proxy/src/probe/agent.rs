//! A query of an agent: HAProxy's agent-check protocol.

use super::address::{Checked, open_at};
use super::connection::CheckConnection;
use crate::net::shortage::{Resource, Shortage};
use ringway_config::model::Agent;
use ringway_health::{AgentMode, AgentReport};
use std::io;
use tokio::io::AsyncReadExt;

/// Bytes of an agent's line that are looked at.
const BYTES_MAX: usize = 1024;

/// The agent's report. No agent there, or no word that is known, is an empty report: the checks alone say whether a backend can be
/// reached.
///
/// # Errors
/// This host is short of something.
pub(super) async fn query(
    agent: &Agent,
    checked: Checked<'_>,
    shortage: &Shortage,
    opened: &mut Option<CheckConnection>,
) -> io::Result<AgentReport> {
    let connection = match open_at(checked, agent.timeout, shortage).await {
        Ok(stream) => opened.insert(CheckConnection::new(stream)),
        Err(error) if Resource::of(&error).is_some() => return Err(error),
        Err(_) => return Ok(AgentReport::default()),
    };
    if connection.write(agent.send.as_bytes()).await.is_err() {
        return Ok(AgentReport::default());
    }
    let mut line = Vec::with_capacity(128);
    while !line.contains(&b'\n') && line.len() < BYTES_MAX {
        match connection.stream.read_buf(&mut line).await {
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => break,
        }
    }
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    Ok(report(&String::from_utf8_lossy(&line[..end])))
}

/// The words of a line. Of several of one kind the last holds, as in HAProxy.
pub(crate) fn report(line: &str) -> AgentReport {
    let mut report = AgentReport::default();
    // What follows a `#` is for people.
    let words = line.split('#').next().unwrap_or_default();
    for word in words.split([' ', ',', '\t', '\r']).map(str::to_ascii_lowercase) {
        match word.as_str() {
            "up" => report.up = Some(true),
            "down" | "fail" | "failed" | "stopped" => report.up = Some(false),
            "ready" => report.mode = Some(AgentMode::Ready),
            "drain" => report.mode = Some(AgentMode::Drain),
            "maint" => report.mode = Some(AgentMode::Maintenance),
            word => {
                if let Some(weight) = word.strip_suffix('%').and_then(|number| number.parse::<u32>().ok()) {
                    report.percent = Some(weight.min(100) as u8);
                }
            }
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_speak_as_haproxys_do() {
        let nothing = AgentReport::default();
        let mode = |mode| AgentReport { mode: Some(mode), ..nothing };
        for (line, expected) in [
            ("up 75%", AgentReport { up: Some(true), percent: Some(75), mode: None }),
            ("50%", AgentReport { percent: Some(50), ..nothing }),
            ("0%", AgentReport { percent: Some(0), ..nothing }),
            ("250%", AgentReport { percent: Some(100), ..nothing }),
            ("ready", mode(AgentMode::Ready)),
            ("drain # for the update, up", mode(AgentMode::Drain)),
            ("MAINT\r", mode(AgentMode::Maintenance)),
            ("DOWN#disk full", AgentReport { up: Some(false), ..nothing }),
            ("fail", AgentReport { up: Some(false), ..nothing }),
            ("stopped", AgentReport { up: Some(false), ..nothing }),
            ("ready,up,30%", AgentReport { up: Some(true), percent: Some(30), mode: Some(AgentMode::Ready) }),
            ("what? -5% 5 % %", nothing),
            ("", nothing),
        ] {
            assert_eq!(report(line), expected, "{line:?}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_gone_or_silent_has_reported_nothing() {
        use crate::probe::Target;
        use std::net::SocketAddr;
        use tokio::io::AsyncWriteExt;
        use tokio::net::TcpListener;
        let shortage = Shortage::new(std::sync::Arc::default());
        let nothing = AgentReport::default();
        for (line, expected) in [
            (Some("drain\nup\n"), AgentReport { mode: Some(AgentMode::Drain), ..nothing }),
            (Some("down"), AgentReport { up: Some(false), ..nothing }),
            (Some(""), nothing),
            (None, nothing),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let agent = Agent {
                port: address.port(),
                address: None,
                send: "status\n".into(),
                interval: std::time::Duration::from_secs(5),
                timeout: std::time::Duration::from_secs(60),
            };
            let serve = async {
                let Some(line) = line else { return drop(listener) };
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut sent = [0; 7];
                stream.read_exact(&mut sent).await.unwrap();
                assert_eq!(&sent, b"status\n");
                stream.write_all(line.as_bytes()).await.unwrap();
            };
            let mut opened = None;
            // The backend is at another port of the same address.
            let backend = Target::from(SocketAddr::new(address.ip(), 9));
            let checked = backend.checked(agent.address, Some(agent.port));
            let queried = query(&agent, checked, &shortage, &mut opened);
            let ((), report) = tokio::join!(serve, queried);
            assert_eq!(report.unwrap(), expected, "{line:?}");
        }
    }
}
