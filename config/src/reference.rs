//! What is printed from the schema: JSON Schema for editors, the reference for people.

use crate::decode::{Decode, Field, Shape};
use crate::schema::Root;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// JSON Schema (draft 2020-12) of the file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = shape(&Root::shape());
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Ringway configuration");
    schema
}

fn shape(of: &Shape) -> Value {
    // Any value may be given by the environment instead.
    let variable = json!({ "type": "string", "pattern": "\\$\\{" });
    match of {
        Shape::Boolean => json!({ "anyOf": [{ "type": "boolean" }, variable] }),
        Shape::Integer { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, variable] })
        }
        Shape::Number { min } => json!({ "anyOf": [{ "type": "number", "minimum": min }, variable] }),
        Shape::Text { pattern: None, .. } => json!({ "type": ["string", "integer"] }),
        Shape::Text { pattern: Some(pattern), .. } => {
            json!({ "anyOf": [{ "type": "string", "pattern": pattern }, { "type": "integer", "minimum": 0 }, variable] })
        }
        Shape::Choice(words) => json!({ "anyOf": [{ "enum": words }, variable] }),
        Shape::List(item) => json!({ "type": "array", "items": shape(item) }),
        Shape::Section { doc, fields, .. } => {
            let fields = fields();
            let mut properties = Map::new();
            for field in &fields {
                let mut property = shape(&field.shape);
                property["description"] = json!(one_line(field.doc));
                if let Some(default) = field.default.filter(|default| !matches!(*default, "{}" | "[]")) {
                    property["default"] = default_value(default, &field.shape);
                }
                properties.insert(field.name.to_owned(), property);
            }
            let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
            json!({
                "type": ["object", "null"],
                "description": one_line(doc),
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            })
        }
    }
}

fn default_value(text: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Boolean | Shape::Integer { .. } | Shape::Number { .. } => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        _ => json!(text),
    }
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The configuration reference, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Printed from the schema; do not edit. `ringway schema` prints the same as JSON Schema, for completion in editors.\n\n\
         Durations are written `500ms`, `2s`, `1m30s`, `1h`; sizes `65536`, `64KiB`, `1MiB`. `${NAME}` and\n\
         `${NAME:-default}` in a value stand for environment variables; `$${` is `${` itself.\n",
    );
    let mut sections = vec![("(top)".to_owned(), Root::shape())];
    let mut at = 0;
    while at < sections.len() {
        let (path, shape) = sections[at].clone();
        at += 1;
        let Shape::Section { doc, fields, .. } = shape else { continue };
        let fields = fields();
        if fields.is_empty() {
            continue;
        }
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "\n## `{path}`\n\n{}\n\n| field | what it is | type | default |\n|---|---|---|---|\n",
            one_line(doc)
        );
        for field in &fields {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                field.name,
                one_line(field.doc),
                type_name(&field.shape),
                default_text(field)
            );
            let (suffix, inner) = match &field.shape {
                Shape::List(item) => ("[]", (**item).clone()),
                other => ("", other.clone()),
            };
            if matches!(inner, Shape::Section { .. }) {
                let prefix = if path == "(top)" { String::new() } else { format!("{path}.") };
                sections.push((format!("{prefix}{}{suffix}", field.name), inner));
            }
        }
    }
    out
}

fn default_text(field: &Field) -> String {
    match (field.required, field.default) {
        (true, _) => "required".into(),
        (false, None) => "absent".into(),
        (false, Some("{}")) => "see below".into(),
        (false, Some(default)) => format!("`{default}`"),
    }
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Boolean => "boolean".into(),
        Shape::Integer { min, max } if *max >= u64::from(u32::MAX) => format!("integer from {min}"),
        Shape::Integer { min, max } => format!("integer, {min} to {max}"),
        Shape::Number { min } => format!("number from {min}"),
        Shape::Text { kind, .. } => (*kind).into(),
        Shape::Choice(words) => format!("`{}`", words.join("`, `")),
        Shape::List(item) => format!("list of {}", type_name(item)),
        Shape::Section { .. } => "section".into(),
    }
}
