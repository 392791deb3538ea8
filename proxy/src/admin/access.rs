//! Who asks the admin listener, and what they may: a token, a client certificate, the Unix socket, or nothing to show.

use super::reply::{Reply, error, json_value};
use crate::apply::handle::ControlHandle;
use crate::net::tls::AdminServer;
use crate::snapshot::Snapshot;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use ringway_config::model::{AdminRole, Anonymous};
use ringway_telemetry::catalogue;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a request has come from.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// The listener; with the names in the client's certificate, if it has shown one.
    Tcp { from: SocketAddr, tls: bool, names: Names },
    /// The Unix socket, by the user with this number.
    Socket { user: u32 },
}

/// Names in a certificate that a client has shown. They hold for as long as the authorities that they were checked by: afterwards somebody
/// may have taken them back.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    list: Vec<String>,
    checked_by: Option<Arc<AdminServer>>,
}

impl Names {
    pub(super) fn new(list: Vec<String>, checked_by: Arc<AdminServer>) -> Self {
        Self { list, checked_by: Some(checked_by) }
    }

    /// Whether there were some that hold no longer.
    pub(super) fn have_lapsed(&self, snapshot: &Snapshot) -> bool {
        let Some(checked_by) = &self.checked_by else { return false };
        !snapshot.admin_tls().is_some_and(|tls| tls.trusts_as(checked_by))
    }

    fn holding(&self, snapshot: &Snapshot) -> &[String] {
        if self.have_lapsed(snapshot) { &[] } else { &self.list }
    }
}

/// How it is known who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Token,
    Certificate,
    Socket,
    Anonymous,
}

/// What a request takes; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everybody may: a probe, what a browser shows before it has a token.
    Open,
    Read,
    /// To have the file read again.
    Reload,
    Operate,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    name: Option<String>,
    level: Level,
    via: Via,
    /// For the log.
    pub(super) by: String,
}

/// Why somebody is not let in; the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    NoCredentials,
    BadToken,
    Role,
    Foreign,
    Handshake,
}

impl Denial {
    pub(super) const ALL: [Self; 5] = [Self::NoCredentials, Self::BadToken, Self::Role, Self::Foreign, Self::Handshake];

    fn name(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadToken => "bad_token",
            Self::Role => "role",
            Self::Foreign => "foreign",
            Self::Handshake => "handshake",
        }
    }

    /// Counts it, and logs it now and then: whoever tries tokens must not fill the log.
    pub(super) fn note(self, control: &ControlHandle, peer: &Peer) {
        self.note_why(control, peer, "");
    }

    /// As [`Denial::note`]; `why`: what is known beside the reason.
    pub(super) fn note_why(self, control: &ControlHandle, peer: &Peer, why: &str) {
        metrics::counter!(catalogue::ADMIN_DENIED.name, "reason" => self.name()).increment(1);
        if let Some(others) = control.denial_due() {
            let (from, reason) = (peer.to_string(), self.name());
            tracing::warn!(from, reason, why, others, "a request to the admin listener is refused");
        }
    }
}

/// The counters that alerts are written for are there from the start.
pub(super) fn declare_metrics() {
    for denial in Denial::ALL {
        metrics::counter!(catalogue::ADMIN_DENIED.name, "reason" => denial.name()).absolute(0);
    }
    metrics::counter!(catalogue::ADMIN_EVICTED.name).absolute(0);
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { from, .. } => from.fmt(f),
            Self::Socket { user } => write!(f, "user {user} at the socket"),
        }
    }
}

impl Caller {
    /// Who asks. A token that nobody has is an error, whatever else is shown.
    pub(super) fn of(control: &ControlHandle, peer: &Peer, fields: &HeaderMap) -> Result<Self, Denial> {
        let snapshot = control.snapshot();
        let known = |name: &str, role: AdminRole, via: Via| Self {
            name: Some(name.to_owned()),
            level: match role {
                AdminRole::Read => Level::Read,
                AdminRole::Operate => Level::Operate,
            },
            via,
            by: name.to_owned(),
        };
        // Which of several would hold is not for us to guess (RFC 9110, 11.6.2: there is one).
        if fields.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err(Denial::BadToken);
        }
        if let Some(shown) = fields.get(AUTHORIZATION) {
            let token = bearer(shown).ok_or(Denial::BadToken)?;
            let (name, role) =
                snapshot.admin.as_ref().and_then(|access| access.of_token(token)).ok_or(Denial::BadToken)?;
            return Ok(known(name, role, Via::Token));
        }
        let (from, names) = match peer {
            Peer::Socket { .. } => {
                return Ok(Self { name: None, level: Level::Operate, via: Via::Socket, by: peer.to_string() });
            }
            Peer::Tcp { from, names, .. } => (from, names),
        };
        let access = snapshot.admin.as_deref();
        if let Some((name, role)) = access.and_then(|access| access.of_names(names.holding(&snapshot))) {
            return Ok(known(name, role, Via::Certificate));
        }
        // What the file says of loopback holds where the listener is, whatever the file says of its place by now.
        let on_loopback = control.admin_address().is_none_or(|address| address.ip().is_loopback());
        let level = match access.map_or(Anonymous::Nothing, |access| access.anonymous) {
            Anonymous::Reload if on_loopback => Level::Reload,
            Anonymous::Reload | Anonymous::Nothing => Level::Open,
            Anonymous::Read => Level::Read,
        };
        Ok(Self { name: None, level, via: Via::Anonymous, by: from.ip().to_string() })
    }

    /// Whether it has shown who it is, and may do more than everybody.
    pub(super) fn is_known(&self) -> bool {
        self.via != Via::Anonymous
    }

    /// Whether it may.
    pub(super) fn needs(&self, level: Level) -> Result<(), Denial> {
        match self.via {
            _ if self.level >= level => Ok(()),
            Via::Anonymous if self.level == Level::Open || level == Level::Operate => Err(Denial::NoCredentials),
            _ => Err(Denial::Role),
        }
    }

    /// What it may, as the API says it.
    fn role(&self) -> &'static str {
        match self.level {
            Level::Open => "none",
            Level::Read | Level::Reload => "read",
            Level::Operate => "operate",
        }
    }
}

/// The token in `Bearer TOKEN`; the word in any case.
fn bearer(field: &HeaderValue) -> Option<&[u8]> {
    let bytes = field.as_bytes();
    let (word, token) = bytes.split_at_checked(7)?;
    word.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// What one is told who is not let in.
pub(super) fn denied(denial: Denial, method: &Method) -> Reply {
    let mut reply = match denial {
        Denial::BadToken => {
            error(StatusCode::UNAUTHORIZED, "nobody has this token: write `Authorization: Bearer TOKEN`")
        }
        Denial::NoCredentials => error(
            StatusCode::UNAUTHORIZED,
            "show a token (`Authorization: Bearer TOKEN`) or a known client certificate, or ask by the Unix socket",
        ),
        Denial::Role => error(
            StatusCode::FORBIDDEN,
            &format!("{method} takes the role `operate` here, and whoever asks has the role `read`"),
        ),
        Denial::Foreign | Denial::Handshake => error(StatusCode::FORBIDDEN, "not from here"),
    };
    if reply.status() == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// Who asks, in their own view. Not knowing them is an answer as any other.
pub(super) fn whoami(caller: &Result<Caller, Denial>) -> Reply {
    let value = match caller {
        Ok(caller) => {
            let via = match caller.via {
                Via::Token => "token",
                Via::Certificate => "certificate",
                Via::Socket => "socket",
                Via::Anonymous => "anonymous",
            };
            json!({ "name": caller.name, "role": caller.role(), "via": via })
        }
        Err(_) => json!({ "name": null, "role": "none", "via": "anonymous" }),
    };
    json_value(StatusCode::OK, &value)
}
