//! What can be asked: one table.

use Answer::{Json, Placed};

/// One thing that can be asked.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Unique: what generated clients call it.
    pub(super) id: &'static str,
    /// Groups them.
    pub(super) tag: &'static str,
    /// What the caller must be allowed.
    pub(super) role: &'static str,
    pub(super) summary: &'static str,
    /// Names of parameters, see `parameters.rs`; those of the path are in the path.
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// Statuses of refusals that not every operation has.
    pub(super) refusals: &'static [u16],
}

/// What it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// The schema's name.
    Json(&'static str),
    /// It may be left out.
    MaybeJson(&'static str),
    Bytes,
}

/// What it answers with 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The schema's name.
    Json(&'static str),
    /// The same, with the place that it was read at in headers.
    Placed(&'static str),
    /// The same, with an `ETag`.
    Tagged(&'static str),
    /// The same, or 304.
    Later(&'static str),
    /// This document.
    Document,
    Text,
    /// Text, or 503.
    Ready,
    Metrics,
    Lines,
    Events,
    Backup,
}

impl Operation {
    /// Whether it takes no credentials.
    pub(super) fn is_open(&self) -> bool {
        self.role == "none"
    }
}

const fn ask(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    role: &'static str,
    summary: &'static str,
) -> Operation {
    let (parameters, refusals): (&[&str], &[u16]) = (&[], &[]);
    Operation { method, path, id, tag, role, summary, parameters, body: Body::None, answer: Answer::Text, refusals }
}

impl Operation {
    const fn with(mut self, parameters: &'static [&'static str]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn takes(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    const fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    const fn refuses(mut self, statuses: &'static [u16]) -> Self {
        self.refusals = statuses;
        self
    }
}

/// Who may change an object.
const CHANGES: &str = "register for backends, operate for all else";
/// Refusals of what changes objects.
const CHANGED: &[u16] = &[404, 409, 412, 422];

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    ask("get", "/healthz", "getHealth", "member", "none", "The process lives"),
    ask("get", "/readyz", "getReadiness", "member", "none", "A leader was followed within the last five seconds")
        .answers(Answer::Ready),
    ask("get", "/openapi.json", "getDescription", "member", "none", "This document").answers(Answer::Document),
    ask("get", "/metrics", "getMetrics", "member", "read", "Prometheus' text format").answers(Answer::Metrics),
    ask("get", "/v1/status", "getStatus", "member", "read", "This member, its leader, and the topology's revision")
        .answers(Placed("Status")),
    ask("get", "/v1/whoami", "whoAmI", "member", "read", "Who asks, as this member knows them, and what they may do")
        .answers(Json("Whoami")),
    ask(
        "get",
        "/v1/live",
        "watchFleet",
        "member",
        "read",
        "What the fleet's page shows, as server-sent events: a whole `frame`, then once a second a `change`, a merge patch of it (RFC 7396). It \
         does not end. Later versions may show something else",
    )
    .with(&["service"])
    .answers(Answer::Events)
    .refuses(&[404]),
    ask("get", "/v1/topology", "getTopology", "topology", "register", "The whole topology; with `after`, as soon as it is later")
        .with(&["after", "wait", "consistency"])
        .answers(Answer::Later("Topology")),
    ask(
        "get",
        "/v1/watch",
        "watch",
        "topology",
        "register",
        "Lines of JSON, each a `WatchLine`; with `Accept: text/event-stream`, server-sent events of them. It does not end",
    )
    .with(&["from", "loads", "Last-Event-ID"])
    .answers(Answer::Lines),
    ask("get", "/v1/objects", "listObjects", "objects", "read", "Objects by name")
        .with(&["prefix", "consistency"])
        .answers(Placed("Objects")),
    ask("get", "/v1/objects/{key}", "getObject", "objects", "read", "One object; its ETag is what `If-Match` wants")
        .with(&["consistency"])
        .answers(Answer::Tagged("Entry"))
        .refuses(&[404]),
    ask(
        "put",
        "/v1/objects/{key}",
        "putObject",
        "objects",
        CHANGES,
        "Makes or replaces it, if the conditions hold. Backends with `ttl` get a lease, and the same request again is their \
         heartbeat. Documents and services are taken as they are, too, with `Content-Type: application/yaml`",
    )
    .with(&["ttl", "force", "note", "If-Match", "If-None-Match", "Idempotency-Key"])
    .takes(Body::Json("ObjectBody"))
    .answers(Json("Stored"))
    .refuses(CHANGED),
    ask("patch", "/v1/objects/{key}", "patchObject", "objects", "register", "Changes a backend's weight or state")
        .with(&["force", "note", "If-Match", "If-None-Match", "Idempotency-Key"])
        .takes(Body::Json("BackendPatch"))
        .answers(Json("Done"))
        .refuses(CHANGED),
    ask("delete", "/v1/objects/{key}", "deleteObject", "objects", CHANGES, "Removes it")
        .with(&["force", "note", "If-Match", "If-None-Match", "Idempotency-Key"])
        .answers(Json("Done"))
        .refuses(CHANGED),
    ask("post", "/v1/txn", "transact", "objects", CHANGES, "Several changes, all or none")
        .with(&["Idempotency-Key"])
        .takes(Body::Json("TransactionBody"))
        .answers(Json("Done"))
        .refuses(CHANGED),
    ask("post", "/v1/check", "check", "objects", CHANGES, "What a transaction would change, without changing it")
        .with(&["consistency", "Idempotency-Key"])
        .takes(Body::Json("RolloutBody"))
        .answers(Placed("Checked"))
        .refuses(CHANGED),
    ask("get", "/v1/history", "listRevisions", "history", "read", "The last revisions, newest first")
        .with(&["limit", "consistency"])
        .answers(Placed("Revisions")),
    ask("get", "/v1/history/{revision}", "getRevision", "history", "read", "One revision: who, when, why, and what")
        .with(&["consistency"])
        .answers(Placed("Revision"))
        .refuses(&[404]),
    ask(
        "post",
        "/v1/rollback",
        "rollBack",
        "history",
        "operate",
        "Objects become as they were at a revision, as a new revision",
    )
    .takes(Body::Json("RollbackBody"))
    .answers(Json("Done"))
    .refuses(CHANGED),
    ask("get", "/v1/leases", "listLeases", "leases", "read", "Leases")
        .with(&["consistency"])
        .answers(Placed("Leases")),
    ask("post", "/v1/leases", "grantLease", "leases", "register", "A lease; the answer's `id` is its number")
        .takes(Body::Json("LeaseBody"))
        .answers(Json("Done"))
        .refuses(&[422]),
    ask("post", "/v1/leases/keepalive", "keepAlive", "leases", "register", "Heartbeats of many leases")
        .takes(Body::Json("KeepAliveBody"))
        .answers(Json("KeptAlive")),
    ask("put", "/v1/leases/{lease}", "keepLeaseAlive", "leases", "register", "A heartbeat")
        .answers(Json("Nothing"))
        .refuses(&[404]),
    ask("delete", "/v1/leases/{lease}", "revokeLease", "leases", "register", "Ends it, and what hangs on it")
        .with(&["note"])
        .answers(Json("Done"))
        .refuses(&[404]),
    ask("get", "/v1/locks", "listLocks", "locks", "read", "Locks and their holders")
        .with(&["consistency"])
        .answers(Placed("Locks")),
    ask("put", "/v1/locks/{name}", "acquireLock", "locks", "register", "Takes it; the answer's `token` rises with every holder")
        .takes(Body::Json("LockBody"))
        .answers(Json("Locked"))
        .refuses(&[404, 409, 422]),
    ask("delete", "/v1/locks/{name}", "releaseLock", "locks", "register", "Gives it back")
        .with(&["token"])
        .answers(Json("Done"))
        .refuses(&[404, 409]),
    ask("get", "/v1/tokens", "listTokens", "tokens", "admin", "Names and roles of tokens")
        .with(&["consistency"])
        .answers(Placed("Tokens")),
    ask(
        "put",
        "/v1/tokens/{name}",
        "putToken",
        "tokens",
        "admin",
        "Makes or replaces a token, whose text is shown this once",
    )
    .takes(Body::Json("TokenBody"))
    .answers(Json("MadeToken"))
    .refuses(&[422]),
    ask("delete", "/v1/tokens/{name}", "deleteToken", "tokens", "admin", "Ends it").answers(Json("Done")).refuses(&[404]),
    ask(
        "get",
        "/v1/proxies",
        "listProxies",
        "proxies",
        "read",
        "The fleet; until `settled`, the leader has not yet heard of all",
    )
    .answers(Placed("Proxies")),
    ask("put", "/v1/proxies/{name}", "reportProxy", "proxies", "register", "A proxy's heartbeat")
        .takes(Body::Json("Heartbeat"))
        .answers(Json("Nothing")),
    ask(
        "delete",
        "/v1/proxies/{name}",
        "forgetProxy",
        "proxies",
        "register with `instance`, operate without",
        "A proxy ends in order: `instance` is what its heartbeats say; without, it is forgotten whoever it is",
    )
    .with(&["instance"])
    .answers(Json("Nothing"))
    .refuses(&[404]),
    ask("get", "/v1/loads", "listLoads", "proxies", "read", "Tables of loads, by service: what proxies shed, and which keys are hot")
        .answers(Placed("Loads")),
    ask("post", "/v1/loads", "reportLoads", "proxies", "register", "A proxy's report of the loads that it sees, as bytes")
        .takes(Body::Bytes)
        .answers(Json("LoadsTaken"))
        .refuses(&[404]),
    ask("get", "/v1/rollouts", "listRollouts", "rollouts", "read", "Rollouts, newest first")
        .with(&["consistency"])
        .answers(Placed("Rollouts")),
    ask(
        "post",
        "/v1/rollouts",
        "startRollout",
        "rollouts",
        "operate",
        "A transaction that every live proxy prepares before it holds for any",
    )
    .with(&["Idempotency-Key"])
    .takes(Body::Json("RolloutBody"))
    .answers(Json("Started"))
    .refuses(CHANGED),
    ask("get", "/v1/rollouts/{rollout}", "getRollout", "rollouts", "read", "One rollout")
        .with(&["consistency"])
        .answers(Placed("Rollout"))
        .refuses(&[404]),
    ask("post", "/v1/rollouts/{rollout}/abort", "abortRollout", "rollouts", "operate", "It holds for nobody")
        .takes(Body::MaybeJson("AbortBody"))
        .answers(Json("Done"))
        .refuses(&[404, 409]),
    ask("get", "/v1/members", "listMembers", "members", "read", "Members of the control plane").answers(Placed("Members")),
    ask("post", "/v1/members", "joinMember", "members", "admin", "A member that runs joins")
        .takes(Body::Json("JoinBody"))
        .answers(Json("Nothing"))
        .refuses(&[409]),
    ask("post", "/v1/members/{node}/promote", "promoteMember", "members", "admin", "A learner votes")
        .answers(Json("Nothing"))
        .refuses(&[409]),
    ask("delete", "/v1/members/{node}", "removeMember", "members", "admin", "A member goes")
        .answers(Json("Nothing"))
        .refuses(&[409]),
    ask("post", "/v1/transfer", "transferLeadership", "members", "admin", "Another member leads")
        .takes(Body::Json("TransferBody"))
        .answers(Json("Nothing"))
        .refuses(&[409]),
    ask("get", "/v1/backup", "backUp", "backup", "admin", "Everything, with a checksum")
        .with(&["consistency"])
        .answers(Answer::Backup),
    ask("post", "/v1/restore", "restore", "backup", "admin", "A backup becomes the topology, in a new epoch")
        .with(&["other_cluster", "note"])
        .takes(Body::Bytes)
        .answers(Json("Done"))
        .refuses(&[409, 422]),
];
