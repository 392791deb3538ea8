//! Objects, changes of them, and what is held: leases, locks, tokens.

use super::build::{
    Schemas, body, described, either, flag, list, may, must, named, number, object, or_null, text, words,
};
use crate::state::TEXT_BYTES_MAX;
use serde_json::{Value, json};

pub(super) fn objects() -> Schemas {
    let one = |kind: &'static str, of: &str, says: &str| object(says, vec![must(kind, named(of), "")]);
    let yaml = json!({ "type": "string", "maxLength": TEXT_BYTES_MAX });
    vec![
        ("Text", object("A text as its author wrote it.", vec![must("text", yaml, "YAML")])),
        (
            "Certificate",
            object(
                "A certificate and its key.",
                vec![
                    must("certificate", text(), "PEM: the certificate, then the intermediate ones"),
                    must("key", text(), "PEM: the private key; lists do not show it"),
                ],
            ),
        ),
        ("BackendState", described(words(&["ready", "drain", "maintenance"]), "What its operator wants.")),
        (
            "Backend",
            object(
                "A registered backend.",
                vec![
                    must("address", text(), "IP address and port"),
                    may(
                        "additional_address",
                        or_null(text()),
                        "The same backend's address of the other family, IPv4 or IPv6, with a port; it takes rules 3",
                    ),
                    may(
                        "weight",
                        json!({ "type": "integer", "minimum": 0, "default": 100 }),
                        "100 is normal, at most 1600",
                    ),
                    may(
                        "tier",
                        json!({ "type": "integer", "minimum": 0, "default": 0 }),
                        "0 takes the traffic, up to 7 are backups",
                    ),
                    may("zone", or_null(text()), "The zone that it stands in"),
                    may("state", named("BackendState"), ""),
                    may("ejected", flag(), "The fleet has agreed that it is down"),
                    may("lease", or_null(number()), "It goes with this lease"),
                    may("source", or_null(text()), "Who put it there: a discovery source's name, or nothing"),
                ],
            ),
        ),
        (
            "DocumentObject",
            one("document", "Text", "A configuration as a file would say it; proxies read that of `document/main`."),
        ),
        ("ServiceObject", one("service", "Text", "A service: an entry of `services`.")),
        ("CertificateObject", one("certificate", "Certificate", "A certificate and its key.")),
        ("BackendObject", one("backend", "Backend", "A registered backend.")),
        (
            "Object",
            described(
                either(&["DocumentObject", "ServiceObject", "CertificateObject", "BackendObject"].map(named)),
                "What stands under a key, of the key's kind.",
            ),
        ),
        (
            "Entry",
            object(
                "An object, and since when it is as it is.",
                vec![
                    must("key", named("Key"), ""),
                    must("object", named("Object"), ""),
                    must("created", number(), "The revision that put it there"),
                    must("modified", number(), "The revision that changed it last: what `If-Match` compares"),
                ],
            ),
        ),
        (
            "Objects",
            object(
                "Objects by name.",
                vec![
                    must("epoch", number(), "Revisions of different epochs are not comparable"),
                    must("revision", number(), "As of this one"),
                    must("objects", list(named("Entry")), "In the order of their keys"),
                ],
            ),
        ),
        (
            "ObjectBody",
            described(
                either(&["Text", "Certificate", "Backend"].map(named)),
                "As the key's kind says: documents and services are `Text`.",
            ),
        ),
        (
            "BackendPatch",
            body(
                "What of a backend is to be otherwise.",
                vec![
                    may("weight", or_null(json!({ "type": "integer", "minimum": 0 })), "100 is normal"),
                    may("state", or_null(named("BackendState")), "What its operator wants"),
                ],
            ),
        ),
    ]
}

pub(super) fn changes() -> Schemas {
    let fields = || {
        vec![
            may("conditions", list(named("Condition")), "All must hold"),
            must("ops", list(named("Op")), "In this order, all or none"),
            may("note", text(), "Why, in the author's words"),
            may("force", flag(), "The guards against accidents are off (`operate`)"),
        ]
    };
    let mut rollout = fields();
    rollout.push(may("policy", or_null(named("Policy")), "How it is rolled out"));
    let whole = || {
        vec![
            must("key", named("Key"), ""),
            must("before", or_null(named("Object")), "Null: it was not there"),
            must("after", or_null(named("Object")), "Null: it is not there any more"),
        ]
    };
    let key = || must("key", named("Key"), "");
    let op = |name: &'static str, of: Value, says: &str| object(says, vec![must(name, of, "")]);
    vec![
        (
            "Done",
            object(
                "It holds.",
                vec![
                    must("revision", number(), "The topology's revision after it"),
                    must("changed", number(), "Objects that it changed"),
                    must("id", number(), "What it made: a lease's id, else 0"),
                ],
            ),
        ),
        (
            "Stored",
            object(
                "It holds.",
                vec![
                    must("revision", number(), "The topology's revision after it"),
                    must("changed", number(), "Objects that it changed"),
                    may("id", number(), "Without `ttl`: 0"),
                    may("lease", or_null(number()), "With `ttl`: the backend's lease"),
                ],
            ),
        ),
        (
            "Condition",
            object(
                "What must be so.",
                vec![key(), must("modified", number(), "The revision that changed it last; 0: it is not there")],
            ),
        ),
        ("PutOp", op("put", object("", vec![key(), must("object", named("Object"), "")]), "Makes or replaces it.")),
        ("DeleteOp", op("delete", object("", vec![key()]), "Removes it; it must be there.")),
        (
            "BackendOp",
            op(
                "backend",
                object(
                    "",
                    vec![
                        key(),
                        may("weight", or_null(json!({ "type": "integer", "minimum": 0 })), "Absent: as it is"),
                        may("state", or_null(named("BackendState")), "Absent: as it is"),
                    ],
                ),
                "Changes a backend in part; it must be there.",
            ),
        ),
        ("Op", described(either(&["PutOp", "DeleteOp", "BackendOp"].map(named)), "A change of one object.")),
        ("TransactionBody", body("Several changes, all or none.", fields())),
        ("RolloutBody", body("Several changes, all or none, and how they are rolled out.", rollout)),
        ("Change", object("One object's change, as it was and as it is.", whole())),
        (
            "Checked",
            object(
                "What a transaction would change.",
                vec![
                    must("valid", flag(), "Always true: else there is a problem"),
                    must("changes", list(named("Change")), "By key"),
                ],
            ),
        ),
        (
            "Revision",
            object(
                "A revision that is remembered.",
                vec![
                    must("revision", number(), "Its number"),
                    must("at_ms", number(), "Unix milliseconds, by the proposer's clock"),
                    must("author", text(), "Who asked for it"),
                    must("note", text(), "Why, in the author's words"),
                    must("changes", list(named("Change")), "What it did"),
                ],
            ),
        ),
        ("Revisions", object("The last revisions.", vec![must("revisions", list(named("Revision")), "Newest first")])),
        (
            "RollbackBody",
            body(
                "Objects become as they were.",
                vec![must("to", number(), "At this revision"), may("note", text(), "Why, in the author's words")],
            ),
        ),
    ]
}

/// Leases, locks, tokens.
pub(super) fn holding() -> Schemas {
    vec![
        (
            "Lease",
            object(
                "A promise to be alive: what hangs on it goes when it is broken.",
                vec![
                    must("id", number(), "Its number"),
                    must("ttl_ms", number(), "Milliseconds that may pass between two heartbeats"),
                    must("owner", text(), "Who holds it, in the holder's words"),
                    must(
                        "caller",
                        or_null(text()),
                        "Whose token or certificate it was made with; null: an earlier version's",
                    ),
                ],
            ),
        ),
        ("Leases", object("All leases.", vec![must("leases", list(named("Lease")), "By number")])),
        (
            "LeaseBody",
            body(
                "A lease.",
                vec![must("ttl", named("Duration"), ""), may("owner", or_null(text()), "Absent: whoever asks")],
            ),
        ),
        ("KeepAliveBody", body("Heartbeats of many leases.", vec![must("ids", list(number()), "Which")])),
        ("KeptAlive", object("Of many leases.", vec![must("missing", list(number()), "Those that are not there")])),
        (
            "Lock",
            object(
                "A lock that somebody has.",
                vec![
                    must("name", text(), "Its name"),
                    must("owner", text(), "Who has it"),
                    must("lease", number(), "It goes with this lease"),
                    must("token", number(), "Greater than that of any holder before: a fencing token"),
                ],
            ),
        ),
        ("Locks", object("All locks that somebody has.", vec![must("locks", list(named("Lock")), "By name")])),
        (
            "LockBody",
            body(
                "Takes a lock.",
                vec![
                    must("lease", number(), "It goes with this lease"),
                    may("owner", or_null(text()), "Absent: whoever asks"),
                ],
            ),
        ),
        ("Locked", object("The lock is the caller's.", vec![must("token", number(), "The fencing token")])),
        (
            "Whoami",
            object(
                "Who asks.",
                vec![
                    must("name", text(), "As the history and the audit log have it"),
                    must("role", named("Role"), "What they may do"),
                    must("via", words(&["token", "certificate", "anonymous"]), "What they have shown"),
                ],
            ),
        ),
        (
            "Token",
            object(
                "A bearer token; its text is nowhere.",
                vec![
                    must("name", text(), "Its name"),
                    must("role", named("Role"), ""),
                    must("expires_at_ms", or_null(number()), "Unix milliseconds from which it holds no more"),
                ],
            ),
        ),
        (
            "Tokens",
            object("All tokens but those of members' files.", vec![must("tokens", list(named("Token")), "By name")]),
        ),
        (
            "TokenBody",
            body(
                "A token.",
                vec![
                    must("role", named("Role"), ""),
                    may("ttl", or_null(named("Duration")), "How long it holds; absent: for ever"),
                ],
            ),
        ),
        (
            "MadeToken",
            object(
                "A token, with its text.",
                vec![
                    must("name", text(), "Its name"),
                    must("role", named("Role"), ""),
                    must("token", text(), "What to send as `Authorization: Bearer`; shown this once"),
                    must("expires_at_ms", or_null(number()), "Unix milliseconds from which it holds no more"),
                ],
            ),
        ),
    ]
}
