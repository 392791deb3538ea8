//! What bodies and answers look like, by name. Answers may get more fields in later versions, bodies of requests have no others.
//! The tests hold this to the code: names of fields to what serde reads, answers to those of a running member.

pub(super) mod build;
mod fleet;
mod loads;
mod objects;

use self::build::{Schemas, described, list, may, must, named, object, text, words};
use crate::Code;
use crate::state::NAME_BYTES_MAX;
use serde_json::{Map, Value, json};

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
        loads::loads(),
    ];
    parts.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect::<Map<_, _>>().into()
}

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
