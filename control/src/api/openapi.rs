//! `GET /openapi.json`: what the API is, so that clients can be generated from it. OpenAPI 3.1.

mod operations;
mod parameters;
mod schemas;

use operations::{Answer, Body, OPERATIONS, Operation};
use serde_json::{Map, Value, json};

/// Refusals that every operation has which takes credentials: of what is sent, of who asks, and where there is no leader.
const REFUSALS: &[u16] = &[400, 401, 403, 408, 410, 413, 500, 503, 504];

/// Whether anything of `/v1/NAME` is there.
pub(super) fn is_resource(name: &str) -> bool {
    let of = |path: &'static str| path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next());
    OPERATIONS.iter().any(|operation| of(operation.path) == Some(name))
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let entry = paths.entry(operation.path.to_owned()).or_insert_with(|| json!({}));
        entry[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringway control plane",
            "version": "1",
            "description": "Any member takes any request. Answers may get more fields, and refusals more codes, in later versions.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "parameters": parameters::all(),
            "headers": headers(),
            "responses": { "Problem": problem() },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let in_path =
        operation.path.split('/').filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')));
    let parameters: Vec<Value> = in_path
        .chain(operation.parameters.iter().copied())
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    let mut responses = answers(operation.answer);
    if !operation.is_open() {
        for status in REFUSALS.iter().chain(operation.refusals) {
            responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
        }
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": format!("Role: {}.", operation.role),
        "parameters": parameters,
        // Whether who shows nothing may ask is a member's to say.
        "security": if operation.is_open() { json!([]) } else { json!([{ "bearer": [] }, { "certificate": [] }, {}]) },
        "responses": responses,
    });
    let json_body = |name: &str| json!({ "application/json": { "schema": schemas::build::named(name) } });
    let body = match operation.body {
        Body::None => None,
        Body::Json(name) => Some((true, json_body(name))),
        Body::MaybeJson(name) => Some((false, json_body(name))),
        Body::Bytes => Some((true, json!({ "application/octet-stream": { "schema": bytes() } }))),
    };
    if let Some((required, content)) = body {
        described["requestBody"] = json!({ "required": required, "content": content });
    }
    described
}

fn bytes() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// What is answered if it is not refused.
fn answers(answer: Answer) -> Map<String, Value> {
    let placed = ["Ringway-Epoch", "Ringway-Revision", "Ringway-Leader-Age-Ms"];
    let with = |says: &str, headers: &[&str], content: Value| {
        let headers: Map<String, Value> = headers
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
            .collect();
        json!({ "description": says, "headers": headers, "content": content })
    };
    let tagged = [&placed[..], &["ETag"]].concat();
    let json_of = |name: &str| json!({ "application/json": { "schema": schemas::build::named(name) } });
    let plain = || json!({ "text/plain": { "schema": schemas::build::text() } });
    let lines = || json!({ "schema": schemas::build::text() });
    let ok = match answer {
        Answer::Json(name) => with("Done", &[], json_of(name)),
        Answer::Placed(name) => with("As of the place in the headers", &placed, json_of(name)),
        Answer::Tagged(name) | Answer::Later(name) => with("As of the place in the headers", &tagged, json_of(name)),
        Answer::Document => with("OpenAPI 3.1", &[], json!({ "application/json": { "schema": { "type": "object" } } })),
        Answer::Text | Answer::Ready => with("It is so", &[], plain()),
        Answer::Metrics => with(
            "Prometheus' text format, or OpenMetrics for who accepts it",
            &[],
            json!({ "text/plain": lines(), "application/openmetrics-text": lines() }),
        ),
        Answer::Lines => {
            with("It does not end", &[], json!({ "application/x-ndjson": lines(), "text/event-stream": lines() }))
        }
        Answer::Events => with("It does not end", &[], json!({ "text/event-stream": lines() })),
        Answer::Backup => with("A backup", &placed, json!({ "application/octet-stream": { "schema": bytes() } })),
    };
    let mut answers = Map::from_iter([("200".to_owned(), ok)]);
    match answer {
        Answer::Later(_) => {
            let mut nothing = with("Nothing later has come", &placed, json!({}));
            nothing.as_object_mut().map(|nothing| nothing.remove("content"));
            answers.insert("304".into(), nothing);
        }
        Answer::Ready => {
            answers.insert("503".into(), with("It is not so, and why", &[], plain()));
        }
        _ => {}
    }
    answers
}

fn headers() -> Value {
    let header = |says: &str, schema: Value| json!({ "description": says, "schema": schema });
    json!({
        "ETag": header("`\"REVISION\"`: what `If-Match` wants; of the topology, `\"EPOCH.REVISION\"`", schemas::build::text()),
        "Ringway-Epoch": header("The epoch that was read", schemas::build::number()),
        "Ringway-Revision": header("The revision that was read", schemas::build::number()),
        "Ringway-Leader-Age-Ms": header("Milliseconds since this member heard of a leader", schemas::build::number()),
        "Retry-After": header("With 503: seconds", schemas::build::number()),
        "WWW-Authenticate": header("With 401", schemas::build::text()),
    })
}

fn problem() -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    json!({
        "description": "Nothing was changed, unless the code is `unknown_outcome` (RFC 9457)",
        "headers": { "Retry-After": header("Retry-After"), "WWW-Authenticate": header("WWW-Authenticate") },
        "content": { "application/problem+json": { "schema": schemas::build::named("Problem") } },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{history, holding, members, objects, rollouts, tokens};
    use super::*;
    use crate::state::{self, Role};
    use crate::watch::wire;
    use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
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
        let described =
            OPERATIONS.iter().map(|operation| (operation.method.to_owned(), plain(operation.path))).collect();
        assert_eq!(served, described);
        let ids: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), OPERATIONS.len(), "an id is that of one operation");
    }

    /// Everything that is said to be elsewhere, in the document's order.
    fn references(of: &Value, found: &mut Vec<String>) {
        match of {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_everything_is_referred_to() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for kind in ["schemas", "parameters", "headers", "responses"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                // Streams of lines have no schema in this version of OpenAPI.
                let used = name == "WatchLine" || found.contains(&format!("#/components/{kind}/{name}"));
                assert!(used, "nothing refers to {kind}/{name}");
            }
        }
    }

    #[test]
    fn every_parameter_that_is_read_is_described_and_no_other() {
        let mut read: BTreeSet<String> = BTreeSet::new();
        for source in [
            include_str!("backups.rs"),
            include_str!("history.rs"),
            include_str!("holding.rs"),
            include_str!("loads.rs"),
            include_str!("member.rs"),
            include_str!("members.rs"),
            include_str!("proxies.rs"),
            include_str!("request.rs"),
            include_str!("response.rs"),
            include_str!("rollouts.rs"),
            include_str!("serve.rs"),
            include_str!("tokens.rs"),
            include_str!("objects.rs"),
            include_str!("owner.rs"),
            include_str!("routes.rs"),
            include_str!("stream.rs"),
        ] {
            for call in ["parameter(\"", "flag(\"", "headers.get(\""] {
                let names = source.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                read.extend(names.map(str::to_lowercase));
            }
            for name in source.split("header(header::").skip(1).filter_map(|rest| rest.split(')').next()) {
                read.insert(name.replace('_', "-").to_lowercase());
            }
        }
        let parameters = parameters::all();
        let described = parameters.as_object().unwrap().iter().filter(|(_, parameter)| parameter["in"] != "path");
        let mut described: BTreeSet<String> = described.map(|(name, _)| name.to_lowercase()).collect();
        // OpenAPI says these by types of contents.
        described.extend(["accept", "content-type"].map(str::to_owned));
        assert_eq!(read, described);
    }

    /// Sees what a type wants to read.
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("it has no names"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Self::Error::custom("seen"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(Self::Error::custom("seen"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }

    /// Names of a struct's fields, or of an enum's variants.
    fn names<T: DeserializeOwned>() -> BTreeSet<&'static str> {
        let mut names: &'static [&'static str] = &[];
        assert!(T::deserialize(Probe(&mut names)).is_err());
        names.iter().copied().collect()
    }

    fn schema(name: &str) -> Value {
        document()["components"]["schemas"][name].clone()
    }

    fn properties(schema: &Value) -> BTreeSet<&str> {
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// The schema's names are the type's.
    fn named<T: DeserializeOwned>(name: &str) {
        assert_eq!(properties(&schema(name)), names::<T>(), "{name}");
    }

    fn takes_null(of: &Value) -> bool {
        let null = |kind: &Value| kind == "null" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("null")));
        null(&of["type"]) || of["oneOf"].as_array().is_some_and(|choices| choices.iter().any(takes_null))
    }

    /// A body: names, what must be there, what may be null, and that no more may be there, are the type's.
    fn read<T: DeserializeOwned>(name: &str, whole: Value) {
        let schema = schema(name);
        let takes = |body: Value| serde_json::from_value::<T>(body).is_ok();
        assert!(takes(whole.clone()), "{name}");
        named::<T>(name);
        let fields = whole.as_object().unwrap();
        assert_eq!(properties(&schema), fields.keys().map(String::as_str).collect(), "{name}: the test's example");
        for field in fields.keys() {
            let mut without = fields.clone();
            without.remove(field);
            let required = schema["required"].as_array().is_some_and(|required| required.contains(&json!(field)));
            assert_eq!(takes(without.into()), !required, "{name}: whether {field} may be left out");
            let mut null = fields.clone();
            null.insert(field.clone(), Value::Null);
            let nullable = takes_null(&schema["properties"][field]);
            assert_eq!(takes(null.into()), nullable, "{name}: whether {field} may be null");
        }
        let mut more = fields.clone();
        more.insert("of_nobody".into(), json!(1));
        assert!(!takes(more.into()), "{name}");
    }

    #[test]
    fn bodies_are_described_as_they_are_read() {
        let text = json!({ "text": "" });
        let op = json!({ "put": { "key": "document/a", "object": { "document": text } } });
        let vote = json!({ "refusal": "no", "digest": "", "moved_ppm": 1 });
        let policy = json!({
            "stages_percent": [5], "bake_ms": 1, "deadline_ms": 1, "quorum_percent": 1, "error_margin_percent": 1
        });
        let condition = json!({ "key": "document/a", "modified": 1 });
        read::<state::Text>("Text", text);
        read::<state::Certificate>("Certificate", json!({ "certificate": "", "key": "" }));
        read::<state::Backend>(
            "Backend",
            json!({
                "address": "", "additional_address": "", "weight": 1, "tier": 0, "zone": "a", "state": "drain", "ejected": true, "lease": 1, "source": "a"
            }),
        );
        read::<objects::Patch>("BackendPatch", json!({ "weight": 1, "state": "ready" }));
        read::<state::Condition>("Condition", condition.clone());
        let whole = json!({ "conditions": [condition], "ops": [op], "note": "", "force": true, "policy": policy });
        read::<objects::TxnBody>("RolloutBody", whole);
        read::<state::Policy>("Policy", policy);
        read::<history::RollbackBody>("RollbackBody", json!({ "to": 1, "note": "" }));
        read::<holding::GrantBody>("LeaseBody", json!({ "ttl": "10s", "owner": "a" }));
        read::<holding::KeepBody>("KeepAliveBody", json!({ "ids": [1] }));
        read::<holding::LockBody>("LockBody", json!({ "lease": 1, "owner": "a" }));
        read::<tokens::TokenBody>("TokenBody", json!({ "role": "read", "ttl": "1h" }));
        read::<rollouts::AbortBody>("AbortBody", json!({ "reason": "" }));
        read::<members::JoinBody>(
            "JoinBody",
            json!({ "node": 1, "name": "", "peer_address": "", "api_address": "", "voter": true, "replace": 1 }),
        );
        read::<members::To>("TransferBody", json!({ "to": 1 }));
        read::<state::Vote>("Vote", vote.clone());
        read::<wire::Heartbeat>(
            "Heartbeat",
            json!({
                "version": "", "epoch": 1, "revision": 1, "digest": "", "rings": { "a": "" }, "stuck": "a", "generation": 1,
                "vote": [1, vote], "down": ["backend/a/b"], "requests": 1, "failed": 1, "canary": 1, "instance": 1, "cluster": ""
            }),
        );
        let (transaction, rollout) = (schema("TransactionBody"), schema("RolloutBody"));
        let mut with = properties(&transaction);
        with.insert("policy");
        assert_eq!(with, properties(&rollout), "a transaction is a rollout without a policy");
        assert_eq!(transaction["required"], rollout["required"]);
    }

    /// The names of the only field of each choice; of a choice that is a word, the word.
    fn choices(name: &str) -> BTreeSet<String> {
        let chosen = |reference: &Value| {
            let name = reference["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
            let schema = schema(name);
            match schema["enum"][0].as_str() {
                Some(word) => word.to_owned(),
                None => properties(&schema).into_iter().collect::<Vec<_>>().join(" "),
            }
        };
        schema(name)["oneOf"].as_array().unwrap().iter().map(chosen).collect()
    }

    #[test]
    fn what_is_one_of_several_is_described_with_all_of_them() {
        let of = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(choices("Object"), of(names::<state::Object>()));
        assert_eq!(choices("Op"), of(names::<state::Op>()));
        assert_eq!(choices("Phase"), of(names::<state::Phase>()));
        assert_eq!(choices("WatchLine"), of(names::<wire::Message>()));
        let words = |name: &str| {
            let words = schema(name)["enum"].as_array().unwrap().clone();
            words.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(words("Role"), of(names::<Role>()));
        assert_eq!(words("BackendState"), of(names::<state::BackendState>()));
        let (all, local) = (crate::Code::ALL, crate::Code::LOCAL);
        let answered = all.iter().filter(|code| !local.contains(code)).map(|code| code.name().to_owned());
        assert_eq!(words("Code"), answered.collect());
    }

    #[test]
    fn what_proxies_read_is_described_with_all_its_fields() {
        named::<wire::Snapshot>("Topology");
        named::<wire::Delta>("Delta");
        named::<wire::Ping>("Ping");
        named::<wire::Replaced>("Replaced");
        named::<wire::RolloutView>("RolloutView");
        named::<wire::ProxyView>("Proxy");
        named::<wire::ProxyLoads>("ProxyLoads");
        named::<crate::loads::Position>("LoadsPosition");
        named::<crate::loads::ReportAnswer>("LoadsTaken");
        named::<crate::loads::TablesLine>("TablesLine");
        named::<crate::loads::TableLine>("TableLine");
        named::<crate::loads::Confirmed>("Confirmed");
        named::<state::Change>("Change");
        named::<crate::http::Problem>("Problem");
    }
}
