//! What the API has of the member that it is of.

use super::audit::AuditLog;
use super::auth::{self, Gate, TokenError};
use super::fleet::Live;
use super::request::Call;
use super::response::Body;
use crate::Code;
use crate::consensus::MemberInfo;
use crate::http::Problem;
use crate::plane::{Plane, unix_ms};
use hyper::Response;
use ringway_places::{Limits, Places, Rarely};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Connections at once: a fleet's watchers, and as many again. Those that have shown no credentials yet have places of their own; a fleet of
/// some thousand proxies may come from one address, behind a NAT, and all at once when another member goes.
const LIMITS: Limits = Limits {
    proven_max: 25_000,
    proven_strangers_max: 25_000,
    unproven_max: 8192,
    unproven_per_address_max: 4096,
    silent_grace: Duration::ZERO,
    spoken_grace: Duration::from_secs(1),
    // A first packet that is lost is sent again after a second.
    first_byte: Duration::from_secs(2),
    proof: None,
};
/// Of a hundred descriptors, those that clients may have.
const DESCRIPTORS_SHARE: u64 = 80;

/// What every request needs.
pub struct Api {
    pub(super) plane: Arc<Plane>,
    pub(super) gate: Gate,
    pub(super) audit: Option<Mutex<AuditLog>>,
    /// This member's name and addresses.
    pub(super) me: MemberInfo,
    /// What members call their cluster among themselves: a restore may have given it another name.
    pub(super) identity: String,
    /// Files of this member's own certificates.
    pub(super) certificates: Vec<PathBuf>,
    pub(super) restoring: tokio::sync::Mutex<()>,
    pub(super) places: Arc<Places>,
    pub(super) evicted: Rarely,
    /// Who looks at the fleet's page.
    pub(super) live: Live,
}

impl Api {
    /// For a member.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn new(
        plane: Arc<Plane>,
        member: &ringway_config::model::Member,
        audit: Option<AuditLog>,
        me: MemberInfo,
        identity: String,
    ) -> Result<Self, TokenError> {
        let files = [&member.tls, &member.peer_tls].into_iter().flatten();
        let certificates = files.map(|files| files.certificate.clone()).collect();
        let live = Live::new(Arc::clone(&plane), me.name.clone());
        Ok(Self {
            plane,
            gate: Gate::new(member)?,
            audit: audit.map(Mutex::new),
            me,
            identity,
            certificates,
            restoring: Default::default(),
            places: Places::new(LIMITS.within_descriptors(DESCRIPTORS_SHARE)),
            evicted: Rarely::default(),
            live,
        })
    }

    /// Follows the files of the member's tokens for as long as it is polled.
    pub(crate) fn follow_tokens(
        &self,
        member: &ringway_config::model::Member,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.gate.follow(member)
    }

    /// An operator's next question, where none leads: who is missing?
    pub(super) fn with_members(&self, mut problem: Problem) -> Problem {
        if problem.is(Code::NoLeader) {
            let seen = self.plane.who_answers();
            problem.detail = format!("{}. Members, as {} sees them: {seen}", problem.detail, self.me.name);
        }
        problem
    }

    /// A line for each change that was asked for, whatever came of it.
    pub(super) fn audit(&self, ask: &Call<'_>, answer: &Result<Response<Body>, Problem>) {
        // Heartbeats and reports change nothing, and would bury what does.
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        let alive = matches!(path[..], ["v1", "proxies", _] | ["v1", "leases", _]) && ask.method == hyper::Method::PUT;
        let reports = path == ["v1", "loads"];
        if alive || reports || matches!(*ask.method, hyper::Method::GET | hyper::Method::HEAD) {
            return;
        }
        let (status, code) = match answer {
            Ok(response) => (response.status().as_u16(), ""),
            Err(problem) => (problem.status, problem.code.as_str()),
        };
        let path = format!("/{}", ask.path.join("/"));
        let role = auth::role_name(ask.caller.role);
        match &self.audit {
            None => tracing::info!(
                target: "audit", caller = ask.caller.name, role, from = %ask.from, method = %ask.method, path, status, code, "asked"
            ),
            Some(file) => {
                let line = serde_json::json!({
                    "unix_ms": unix_ms(), "caller": ask.caller.name, "role": role, "from": ask.from.to_string(),
                    "method": ask.method.as_str(), "path": path, "status": status, "code": code,
                });
                let mut log = file.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = log.write(&ringway_config::plain::lines(&line.to_string())) {
                    tracing::error!(%error, %line, "the audit log cannot be written");
                }
            }
        }
    }
}
