//! What is asked beside the body: in the path, behind it, in headers.

use super::schemas::build::{flag, named, number, text};
use serde_json::{Map, Value, json};

/// Where it stands, its name, what it holds, whether it must be there, what it says.
type Parameter = (&'static str, &'static str, Value, bool, &'static str);

fn all_parameters() -> Vec<Parameter> {
    let place = json!({ "type": "string", "pattern": "^[0-9]+\\.[0-9]+$", "examples": ["1.42"] });
    vec![
        ("path", "key", named("Key"), true, "Its slashes may stand as they are, or as `%2F`"),
        ("path", "name", named("Name"), true, ""),
        ("path", "revision", number(), true, ""),
        ("path", "lease", number(), true, "Its number"),
        ("path", "rollout", number(), true, "Its number"),
        ("path", "node", number(), true, "The member's number"),
        ("query", "after", place.clone(), false, "`EPOCH.REVISION`: waits for what is later; 304 where nothing comes"),
        (
            "query",
            "wait",
            named("Duration"),
            false,
            "How long to wait for what is later, at most 35s; 30s if nothing is said",
        ),
        ("query", "from", place.clone(), false, "`EPOCH.REVISION`: goes on after it"),
        ("query", "loads", flag(), false, "Lines of tables of loads, too"),
        ("query", "prefix", text(), false, "Objects whose names begin so"),
        ("query", "consistency", named("Consistency"), false, "`linearizable` if nothing is said"),
        ("query", "ttl", named("Duration"), false, "For backends: it goes when it has not been put again for so long"),
        ("query", "service", named("Name"), false, "A service whose backends are shown beside"),
        ("query", "force", flag(), false, "The guards against accidents are off (`operate`)"),
        ("query", "note", text(), false, "Why, in the author's words"),
        ("query", "limit", number(), false, "At most so many, and at most 1000; 20 if nothing is said"),
        ("query", "token", number(), true, "The fencing token"),
        (
            "query",
            "instance",
            number(),
            false,
            "What the proxy's heartbeats say: only if no other process has spoken in its name since",
        ),
        ("query", "other_cluster", flag(), false, "Even if it is a backup of another cluster: this one keeps its name"),
        ("header", "If-Match", text(), false, "`\"REVISION\"`: the revision that changed it last, its ETag"),
        ("header", "If-None-Match", text(), false, "`*`: it must not be there"),
        (
            "header",
            "Idempotency-Key",
            text(),
            false,
            "A name of the request, 1 to 128 bytes: asked again, it gets the first answer",
        ),
        ("header", "Last-Event-ID", place, false, "As `from`: what browsers say when they come back"),
    ]
}

/// All of them, by name.
pub(super) fn all() -> Value {
    let parameters = all_parameters().into_iter().map(|(place, name, schema, required, says)| {
        let mut parameter = json!({ "name": name, "in": place, "required": required, "schema": schema });
        if !says.is_empty() {
            parameter["description"] = json!(says);
        }
        (name.to_owned(), parameter)
    });
    parameters.collect::<Map<_, _>>().into()
}
