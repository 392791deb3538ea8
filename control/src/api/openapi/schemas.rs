//! What bodies and answers look like, by name. Answers may get more fields in later versions, bodies of requests have no others.
//! The tests hold this to the code: names of fields to what serde reads, answers to those of a running member.

mod fleet;
mod objects;

use crate::Code;
use crate::state::NAME_BYTES_MAX;
use serde_json::{Map, Value, json};

/// A field: its name, what it holds, whether it is always there, what it says.
type Field = (&'static str, Value, bool, &'static str);

fn must(name: &'static str, of: Value, says: &'static str) -> Field {
    (name, of, true, says)
}

fn may(name: &'static str, of: Value, says: &'static str) -> Field {
    (name, of, false, says)
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// Of 64 bits, without a sign.
pub(super) fn number() -> Value {
    json!({ "type": "integer", "format": "uint64", "minimum": 0 })
}

fn percent() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 100 })
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

fn either(of: &[Value]) -> Value {
    json!({ "oneOf": of })
}

fn or_null(of: Value) -> Value {
    match of.get("type").and_then(Value::as_str).map(str::to_owned) {
        Some(kind) if of.get("enum").is_none() => {
            let mut of = of;
            of["type"] = json!([kind, "null"]);
            of
        }
        _ => either(&[of, json!({ "type": "null" })]),
    }
}

/// What stands under a name.
pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(says: &str, fields: Vec<Field>) -> Value {
    let required: Vec<&str> = fields.iter().filter(|(.., always, _)| *always).map(|(name, ..)| *name).collect();
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, of, _, says)| (name.to_owned(), described(of, says))).collect();
    let mut schema = described(json!({ "type": "object", "properties": properties }), says);
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A reference stands alone: not every generator reads what stands beside it.
fn described(mut of: Value, says: &str) -> Value {
    if !says.is_empty() && of.get("$ref").is_none() {
        of["description"] = json!(says);
    }
    of
}

/// Of a request alone; more is refused.
fn body(says: &str, fields: Vec<Field>) -> Value {
    let mut schema = object(says, fields);
    schema["additionalProperties"] = json!(false);
    schema
}

/// All of them.
pub(super) fn all() -> Value {
    let parts = [
        basics(),
        objects::objects(),
        objects::changes(),
        objects::holding(),
        fleet::proxies(),
        fleet::rollouts(),
        fleet::members(),
        fleet::status(),
        fleet::stream(),
    ];
    parts.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect::<Map<_, _>>().into()
}

type Schemas = Vec<(&'static str, Value)>;

fn basics() -> Schemas {
    let codes = Code::ALL.iter().filter(|code| !Code::LOCAL.contains(code));
    let meanings: Vec<String> = codes.clone().map(|code| format!("- `{}`: {}", code.name(), code.meaning())).collect();
    let codes: Vec<&str> = codes.map(|code| code.name()).collect();
    let name = format!("[A-Za-z0-9._:-]{{1,{NAME_BYTES_MAX}}}");
    vec![
        (
            "Code",
            described(
                words(&codes),
                &format!("Stable: what clients decide by. Later versions may have more.\n\n{}", meanings.join("\n")),
            ),
        ),
        (
            "Problem",
            object(
                "Nothing was changed, unless the code is `unknown_outcome` (RFC 9457).",
                vec![
                    must("status", json!({ "type": "integer" }), "The answer's status"),
                    must("code", named("Code"), ""),
                    must("detail", text(), "What is wrong, and what to do"),
                    may("findings", list(text()), "Where a configuration is wrong"),
                ],
            ),
        ),
        ("Nothing", object("It is done, and there is no more to say.", vec![])),
        (
            "Name",
            json!({ "type": "string", "pattern": format!("^{name}$"), "description": "1 to 128 letters, digits and `._:-`" }),
        ),
        (
            "Key",
            json!({
                "type": "string", "pattern": format!("^((document|service|certificate)/{name}|backend/{name}/{name})$"),
                "description": "`document/NAME`, `service/NAME`, `certificate/NAME` or `backend/SERVICE/ID`",
            }),
        ),
        (
            "Duration",
            json!({
                "type": "string", "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$", "examples": ["10s"],
                "description": "A time as in files: `500ms`, `10s`, `1h30m`",
            }),
        ),
        (
            "Consistency",
            described(
                words(&["linearizable", "stale"]),
                "`stale` reads what this member has; else what all members have agreed on.",
            ),
        ),
        ("Role", described(words(&["read", "register", "operate", "admin"]), "Each includes those before it.")),
    ]
}
