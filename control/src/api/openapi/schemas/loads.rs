//! Loads: what is said to reports of them, and tables.

use super::build::{Schemas, either, flag, list, map, may, must, named, number, object, or_null, text};
use serde_json::{Value, json};

pub(super) fn loads() -> Schemas {
    let share = json!({ "type": "number", "minimum": 0, "maximum": 100 });
    let shed = object(
        "A member that sheds keys.",
        vec![must("member", number(), "Its place in the order of ids"), must("percent", share, "Share of its keys")],
    );
    let hot = object("A hot key.", vec![must("hash", text(), "Its hash"), must("owners", number(), "Its owners")]);
    let table = object(
        "The table of a service, for proxies that place its keys by one ring.",
        vec![
            must("digest", text(), "Of the ring and members that it is of, as proxies report it"),
            must("revision", number(), "The topology's revision of which proxies have reported it"),
            must("position", named("LoadsPosition"), ""),
            must("members", number(), "How many the ring has"),
            must("shed", list(shed), "Members that shed keys"),
            must("hot_keys", list(hot), "Keys with several owners"),
        ],
    );
    let tables = object(
        "Tables of loads.",
        vec![
            must("position", known(), "Where they are; null: none are published"),
            must("age_ms", or_null(number()), "Milliseconds since they were published, or known to hold"),
            must("fresh", flag(), "Proxies go by them"),
            must(
                "services",
                map(list(table)),
                "By service: one for each ring, as those of proxies in several zones are",
            ),
        ],
    );
    let mut all = vec![("Loads", tables)];
    all.extend(reports());
    all.extend(lines());
    all
}

fn known() -> Value {
    either(&[named("LoadsPosition"), json!({ "type": "null" })])
}

fn reports() -> Schemas {
    let position = object(
        "The place of tables among all: later ones are greater.",
        vec![
            must("epoch", number(), "The cluster's"),
            must("term", number(), "The leader's"),
            must("seq", number(), "Counts what this leader has published"),
        ],
    );
    let taken = object(
        "What the leader says to a report of loads.",
        vec![
            must("position", known(), "Of the tables that are in force, where this leader has published any"),
            must("want", list(text()), "Services of which it wants to know what is in force at the proxy"),
            must(
                "refused",
                map(text()),
                "Services of which it has not taken the report, and why; under an empty name: all of it",
            ),
        ],
    );
    let proxy = object(
        "How a proxy reports the loads that it sees.",
        vec![
            must("age_ms", number(), "Milliseconds since it has"),
            must("services", number(), "Of so many services"),
            must("holds", known(), "The table by which it goes"),
            may("refused", text(), "Why a report was refused lately"),
        ],
    );
    vec![("LoadsPosition", position), ("LoadsTaken", taken), ("ProxyLoads", proxy)]
}

fn lines() -> Schemas {
    let owners = json!({ "type": "array", "prefixItems": [text(), number()], "minItems": 2, "maxItems": 2 });
    let table = object(
        "What has changed in a table.",
        vec![
            must("revision", number(), "The topology's"),
            may("members", number(), "It begins anew, with so many members that shed nothing"),
            may("at", named("LoadsPosition"), "With which it came, of an earlier leader: it is not known to hold"),
            may("shed", list(number()), "By turns: how many members after the one before, and its share, of 65535"),
            may(
                "hot",
                list(owners),
                "Hashes of hot keys, in hexadecimal digits, and the number of their owners; 0: hot no more",
            ),
        ],
    );
    let tables = object(
        "Tables of loads, or what has changed in them.",
        vec![
            must("position", named("LoadsPosition"), ""),
            may("from", named("LoadsPosition"), "It is a change of these; without, it tells the whole"),
            must(
                "services",
                map(map(or_null(named("TableLine")))),
                "By service, and by the digest of the ring and members, in hexadecimal digits; null: it has none any more",
            ),
        ],
    );
    let confirmed = object(
        "That tables hold still.",
        vec![
            must("position", named("LoadsPosition"), ""),
            must("age_ms", number(), "Milliseconds since that was known"),
        ],
    );
    let line = |name: &'static str, of: &str, says: &str| object(says, vec![must(name, named(of), "")]);
    vec![
        ("TableLine", table),
        ("TablesLine", tables),
        ("Confirmed", confirmed),
        ("LoadsLine", line("loads", "TablesLine", "Tables of loads; with `loads`.")),
        ("LoadsConfirmedLine", line("loads_confirmed", "Confirmed", "That these hold still; with `loads`.")),
    ]
}
