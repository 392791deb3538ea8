//! `GET /openapi.json`: what the API is, from one table.

use serde_json::{Map, Value, json};

/// Method, path, role, what it does.
const PATHS: &[(&str, &str, &str, &str)] = &[
    ("get", "/healthz", "none", "The process lives"),
    ("get", "/readyz", "none", "A leader was followed within the last five seconds"),
    ("get", "/openapi.json", "none", "This document"),
    ("get", "/metrics", "read", "Prometheus' text format"),
    ("get", "/v1/status", "read", "This member, its leader, and the topology's revision"),
    (
        "get",
        "/v1/topology",
        "register",
        "The whole topology; with `after=EPOCH.REVISION&wait=30s` as soon as it is later, else 304",
    ),
    (
        "get",
        "/v1/watch",
        "register",
        "Lines of JSON (server-sent events with `Accept: text/event-stream`): `snapshot`, `delta`, `rollout`, `ping`; `from=EPOCH.REVISION` resumes",
    ),
    (
        "get",
        "/v1/objects",
        "read",
        "Objects whose names begin with `prefix`; `consistency=stale` reads what this member has",
    ),
    ("get", "/v1/objects/{key}", "read", "One object; its ETag is what `If-Match` wants"),
    (
        "put",
        "/v1/objects/{key}",
        "register for backends, operate for all else",
        "Makes or replaces it, if `If-Match` or `If-None-Match: *` hold; YAML or JSON; backends with `ttl=10s` get a lease, and the same request again is their heartbeat; `force` sets guards aside",
    ),
    (
        "patch",
        "/v1/objects/{key}",
        "register",
        "Changes a backend's `weight` or `state` (`ready`, `drain`, `maintenance`)",
    ),
    ("delete", "/v1/objects/{key}", "register for backends, operate for all else", "Removes it"),
    (
        "post",
        "/v1/txn",
        "register for backends, operate for all else",
        "`{conditions: [{key, modified}], ops: [{put: {key, object}} | {delete: {key}} | {backend: {key, weight, state}}], note, force}`, all or none; `Idempotency-Key` makes it safe to repeat",
    ),
    ("post", "/v1/check", "as /v1/txn", "What a transaction would change, without changing it"),
    ("get", "/v1/history", "read", "The last `limit` revisions, newest first"),
    ("get", "/v1/history/{revision}", "read", "One revision: who, when, why, and what"),
    ("post", "/v1/rollback", "operate", "`{to, note}`: objects become as they were at a revision, as a new revision"),
    ("get", "/v1/leases", "read", "Leases"),
    ("post", "/v1/leases", "register", "`{ttl: \"10s\", owner}`: a lease; its `id`"),
    (
        "post",
        "/v1/leases/keepalive",
        "register",
        "`{ids}`: heartbeats of many leases; those that are not there come back as `missing`",
    ),
    ("put", "/v1/leases/{id}", "register", "A heartbeat"),
    ("delete", "/v1/leases/{id}", "register", "Ends it, and what hangs on it"),
    ("get", "/v1/locks", "read", "Locks and their holders"),
    ("put", "/v1/locks/{name}", "register", "`{lease, owner}`: takes it; the answer's `token` rises with every holder"),
    ("delete", "/v1/locks/{name}", "register", "Gives it back: `token=`"),
    ("get", "/v1/tokens", "admin", "Names and roles of tokens"),
    ("put", "/v1/tokens/{name}", "admin", "`{role, ttl}`: makes or replaces a token, whose text is shown this once"),
    ("delete", "/v1/tokens/{name}", "admin", "Ends it"),
    (
        "get",
        "/v1/proxies",
        "read",
        "The fleet: `synced`, `ahead`, `behind`, `drifted`, `stuck`, `offline`; until `settled`, the leader has not yet heard of all",
    ),
    ("put", "/v1/proxies/{name}", "register", "A proxy's heartbeat"),
    (
        "delete",
        "/v1/proxies/{name}",
        "register",
        "A proxy ends in order: `instance=` is what its heartbeats say; without, it is forgotten whoever it is (`operate`)",
    ),
    ("get", "/v1/rollouts", "read", "Rollouts, newest first"),
    (
        "post",
        "/v1/rollouts",
        "operate",
        "A transaction with `policy: {stages_percent, bake_ms, deadline_ms, quorum_percent, error_margin_percent}`: every live proxy prepares it before it holds for any",
    ),
    ("get", "/v1/rollouts/{id}", "read", "One rollout"),
    ("post", "/v1/rollouts/{id}/abort", "operate", "`{reason}`: it holds for nobody"),
    (
        "get",
        "/v1/members",
        "read",
        "Members of the control plane as the one that answers sees them: each with `reachable`, `last_heard_ms`, `role`, `term`, `lag` (null: not known, as of one that does not answer), `version`, `why` it does not answer; `leader` (null: none with a quorum) and `quorum` `{voters, reachable, needed}`",
    ),
    (
        "post",
        "/v1/members",
        "admin",
        "`{node, name, peer_address, api_address, voter, replace}`: a member that runs joins",
    ),
    ("post", "/v1/members/{node}/promote", "admin", "A learner votes"),
    ("delete", "/v1/members/{node}", "admin", "A member goes"),
    ("post", "/v1/transfer", "admin", "`{to}`: another member leads"),
    ("get", "/v1/backup", "admin", "Everything, with a checksum"),
    ("post", "/v1/restore", "admin", "A backup becomes the topology, in a new epoch"),
];

/// Whether anything of `/v1/NAME` is there.
pub(super) fn is_resource(name: &str) -> bool {
    PATHS.iter().any(|(_, path, ..)| path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()) == Some(name))
}

/// OpenAPI 3.1.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, role, summary) in PATHS {
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let operation = json!({
            "summary": summary,
            "description": format!("Role: {role}."),
            "parameters": parameters,
            "security": if *role == "none" { json!([]) } else { json!([{ "bearer": [] }, { "certificate": [] }]) },
            "responses": { "200": { "description": "Done" }, "default": { "$ref": "#/components/responses/Problem" } },
        });
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        entry[*method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ringway control plane", "version": "1" },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "responses": { "Problem": {
                "description": "Nothing was changed, unless the code is `unknown_outcome` (RFC 9457)",
                "content": { "application/problem+json": { "schema": {
                    "type": "object",
                    "required": ["status", "code", "detail"],
                    "properties": {
                        "status": { "type": "integer" },
                        "code": { "type": "string", "description": "Stable" },
                        "detail": { "type": "string" },
                        "findings": { "type": "array", "items": { "type": "string" } },
                    },
                } } },
            } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `"v1", "leases", id` of a pattern as `/v1/leases/{}`.
    fn path(pattern: &str) -> String {
        let part =
            |part: &str| part.strip_prefix('"').and_then(|part| part.strip_suffix('"')).unwrap_or("{}").to_owned();
        pattern.split(", ").fold(String::new(), |path, text| path + "/" + &part(text))
    }

    #[test]
    fn what_is_described_is_what_is_served() {
        let mut served: BTreeSet<(String, String)> = BTreeSet::new();
        for line in include_str!("routes.rs").lines().map(str::trim) {
            let Some((head, _)) = line.split_once("] => ").or_else(|| line.split_once("]) => ")) else { continue };
            if let Some(pattern) = head.strip_prefix('[') {
                served.insert(("get".into(), path(pattern)));
            } else if let Some((method, pattern)) = head.strip_prefix("(\"").and_then(|head| head.split_once("\", [")) {
                served.insert((method.to_lowercase(), path(pattern)));
            }
        }
        let plain = |path: &str| {
            let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
            path.split('/').map(part).collect::<Vec<_>>().join("/")
        };
        let described = PATHS.iter().map(|(method, path, ..)| ((*method).to_owned(), plain(path))).collect();
        assert_eq!(served, described);
    }
}
