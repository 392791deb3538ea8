//! Schemas, put together.

use serde_json::{Map, Value, json};

/// By name.
pub(super) type Schemas = Vec<(&'static str, Value)>;

/// A field: its name, what it holds, whether it is always there, what it says.
pub(super) type Field = (&'static str, Value, bool, &'static str);

pub(in crate::api::openapi) fn must(name: &'static str, of: Value, says: &'static str) -> Field {
    (name, of, true, says)
}

pub(in crate::api::openapi) fn may(name: &'static str, of: Value, says: &'static str) -> Field {
    (name, of, false, says)
}

pub(in crate::api::openapi) fn text() -> Value {
    json!({ "type": "string" })
}

/// Of 64 bits, without a sign.
pub(in crate::api::openapi) fn number() -> Value {
    json!({ "type": "integer", "format": "uint64", "minimum": 0 })
}

pub(in crate::api::openapi) fn percent() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 100 })
}

pub(in crate::api::openapi) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(in crate::api::openapi) fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

pub(in crate::api::openapi) fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

pub(in crate::api::openapi) fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

pub(in crate::api::openapi) fn either(of: &[Value]) -> Value {
    json!({ "oneOf": of })
}

pub(in crate::api::openapi) fn or_null(of: Value) -> Value {
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
pub(in crate::api::openapi) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(in crate::api::openapi) fn object(says: &str, fields: Vec<Field>) -> Value {
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
pub(in crate::api::openapi) fn described(mut of: Value, says: &str) -> Value {
    if !says.is_empty() && of.get("$ref").is_none() {
        of["description"] = json!(says);
    }
    of
}

/// Of a request alone; more is refused.
pub(in crate::api::openapi) fn body(says: &str, fields: Vec<Field>) -> Value {
    let mut schema = object(says, fields);
    schema["additionalProperties"] = json!(false);
    schema
}
