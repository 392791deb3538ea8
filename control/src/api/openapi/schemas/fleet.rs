//! Proxies, rollouts, members, and what proxies read.

use super::build::{
    Schemas, body, described, either, flag, list, map, may, must, named, number, object, or_null, percent, text, words,
};
use crate::consensus::Role;
use crate::lessor::PROXY_STATES;
use serde_json::{Value, json};

pub(super) fn proxies() -> Schemas {
    let vote = json!({
        "type": ["array", "null"], "prefixItems": [number(), named("Vote")], "minItems": 2, "maxItems": 2,
    });
    vec![
        (
            "Vote",
            object(
                "What a proxy says of a change that it has built but does not use yet.",
                vec![
                    may("refusal", or_null(text()), "Null: yes. What is wrong, otherwise"),
                    must("digest", text(), "Of all rings that it would use"),
                    must("moved_ppm", number(), "Key space that would move, in millionths"),
                ],
            ),
        ),
        (
            "Heartbeat",
            object(
                "What a proxy tells of itself, every two seconds.",
                vec![
                    must("version", text(), "Its version"),
                    must("epoch", number(), "Epoch of what is in force there"),
                    must("revision", number(), "Revision of what is in force there"),
                    must("digest", text(), "Its objects' digest"),
                    must("rings", map(text()), "Ring digests of the services that the fleet names"),
                    may("stuck", or_null(text()), "What it cannot put into force, and why"),
                    must("generation", number(), "Its generation"),
                    may("vote", vote, "A rollout's number, and its vote on it"),
                    must("down", list(named("Key")), "Registered backends that it sees down"),
                    must("requests", number(), "Requests that have ended since it started"),
                    must("failed", number(), "Those of them that it could not serve, or that were answered 5xx"),
                    may("canary", or_null(number()), "It has the change of the rollout with this number in force"),
                    may("instance", number(), "Drawn when its process started; 0: not told"),
                    may("cluster", text(), "The cluster that its topology is of; empty: none"),
                ],
            ),
        ),
        (
            "Proxy",
            object(
                "A proxy as the control plane sees it.",
                vec![
                    must("name", text(), "Its name in the fleet"),
                    must("heartbeat", named("Heartbeat"), ""),
                    must("age_ms", number(), "Milliseconds since"),
                    must("state", words(PROXY_STATES), "How it stands to what was agreed on"),
                    may(
                        "since_ms",
                        number(),
                        "For how many milliseconds it has stood so, as far as the leader has seen",
                    ),
                    may("loads", named("ProxyLoads"), "How it reports its loads, if it does"),
                ],
            ),
        ),
        (
            "Proxies",
            object(
                "The fleet.",
                vec![
                    must("epoch", number(), "The cluster's"),
                    must("revision", number(), "The topology's"),
                    must("digest", text(), "Of all objects"),
                    must("proxies", list(named("Proxy")), "By name"),
                    must(
                        "frozen",
                        map(number()),
                        "Services whose backends do not expire although they should, and how many",
                    ),
                    must("settled", flag(), "The leader has had the time to hear of all"),
                ],
            ),
        ),
    ]
}

pub(super) fn rollouts() -> Schemas {
    let stage = |name: &'static str, of: Value, says: &'static str| {
        let mut only = object(says, vec![must(name, of, says)]);
        only["additionalProperties"] = json!(false);
        only
    };
    let milliseconds = |default: u64| json!({ "type": "integer", "minimum": 0, "default": default });
    let share = |default: u64| json!({ "type": "integer", "minimum": 0, "maximum": 100, "default": default });
    vec![
        (
            "Policy",
            object(
                "How a change is rolled out.",
                vec![
                    may(
                        "stages_percent",
                        list(percent()),
                        "Shares of the proxies that go first, rising; empty is all at once",
                    ),
                    may("bake_ms", milliseconds(30_000), "How long each share is watched before the next"),
                    may("deadline_ms", milliseconds(10_000), "How long proxies have to prepare"),
                    may("quorum_percent", share(100), "Proxies that must have said yes at the deadline"),
                    may(
                        "error_margin_percent",
                        share(1),
                        "What a share's rate of failed requests may exceed that of the rest by",
                    ),
                ],
            ),
        ),
        ("Preparing", described(words(&["preparing"]), "Proxies build it.")),
        ("Stage", stage("stage", number(), "It holds for a share: the index into the policy's stages")),
        ("Committed", stage("committed", number(), "It holds for all, since this revision")),
        ("Aborted", stage("aborted", text(), "It holds for nobody, and why")),
        ("Phase", described(either(&["Preparing", "Stage", "Committed", "Aborted"].map(named)), "Where it stands.")),
        (
            "Refused",
            object(
                "A proxy that has said no.",
                vec![must("proxy", text(), "Its name"), must("reason", text(), "What is wrong")],
            ),
        ),
        (
            "Rollout",
            object(
                "A change on its way.",
                vec![
                    must("id", number(), "Its number"),
                    must("phase", named("Phase"), ""),
                    must("percent", percent(), "It holds for so many of the proxies"),
                    must("policy", named("Policy"), ""),
                    must("author", text(), "Who asked for it"),
                    must("note", text(), "Why, in the author's words"),
                    must("at_ms", number(), "Unix milliseconds, by the proposer's clock"),
                    must("participants", number(), "Proxies that were live when it began"),
                    must("votes", number(), "Those that have voted"),
                    must("refused", list(named("Refused")), "Those that have said no"),
                    must("moved_percent", json!({ "type": "number" }), "Key space that moves, where most moves"),
                    must("keys", list(named("Key")), "What it changes"),
                ],
            ),
        ),
        (
            "Rollouts",
            object("Rollouts that are remembered.", vec![must("rollouts", list(named("Rollout")), "Newest first")]),
        ),
        (
            "Started",
            object(
                "A rollout has begun, or nothing is to be changed.",
                vec![
                    must("revision", number(), "The topology's revision"),
                    must("changed", number(), "Objects that it has changed already: 0"),
                    must("id", or_null(number()), "The rollout; null: nothing is to be changed"),
                    may("participants", number(), "Live proxies, who must say yes"),
                ],
            ),
        ),
        ("AbortBody", body("It holds for nobody.", vec![may("reason", text(), "Why, in the caller's words")])),
    ]
}

pub(super) fn members() -> Schemas {
    vec![
        (
            "Member",
            object(
                "A member of the control plane.",
                vec![
                    must("node", number(), "Its number"),
                    must("name", text(), "Its name"),
                    must("peer_address", text(), "Where members reach it"),
                    must("api_address", text(), "Where clients reach it"),
                    must("voter", flag(), "It votes; else it only follows"),
                    must("leader", flag(), "It leads"),
                    must("reachable", flag(), "It answers the one that was asked"),
                    must("last_heard_ms", or_null(number()), "Milliseconds since it has answered; null: never"),
                    must("role", or_null(text()), "What it says it is, as in `OwnStatus`; null: it does not answer"),
                    must("term", or_null(number()), "The term of office that it was in"),
                    must(
                        "lag",
                        or_null(number()),
                        "Entries that it lacks; null: not known, as of one that does not answer",
                    ),
                    must("version", or_null(text()), "Its version"),
                    must("why", or_null(text()), "Why it does not answer"),
                ],
            ),
        ),
        (
            "Members",
            object(
                "Members of the control plane, as the one that answers sees them.",
                vec![
                    must("cluster", text(), "The cluster's name"),
                    must("term", number(), "The leader's term of office"),
                    must("answered_by", number(), "The member that was asked"),
                    must("members", list(named("Member")), "Voters, then learners"),
                    must("leader", or_null(named("LeaderName")), "Null: none with a quorum"),
                    must("quorum", named("Quorum"), ""),
                ],
            ),
        ),
        (
            "LeaderName",
            object(
                "The member that leads.",
                vec![must("node", number(), "Its number"), must("name", text(), "Its name")],
            ),
        ),
        (
            "Quorum",
            object(
                "Whether anything can be decided.",
                vec![
                    must("voters", number(), "Members that vote"),
                    must("reachable", number(), "Those of them that answer"),
                    must("needed", number(), "So many must"),
                ],
            ),
        ),
        (
            "JoinBody",
            body(
                "A member that runs joins.",
                vec![
                    must("node", number(), "Its number, never used before"),
                    must("name", text(), "Its name"),
                    must("peer_address", text(), "Where members reach it"),
                    must("api_address", text(), "Where clients reach it"),
                    may("voter", json!({ "type": "boolean", "default": true }), "It is to vote"),
                    may("replace", or_null(number()), "The member, dead for good, that it takes the place of"),
                ],
            ),
        ),
        ("TransferBody", body("Another member leads.", vec![must("to", number(), "Its number")])),
    ]
}

pub(super) fn status() -> Schemas {
    let roles = Role::ALL.map(Role::name);
    vec![
        (
            "OwnStatus",
            object(
                "The member that was asked.",
                vec![
                    must("node", number(), "Its number"),
                    must("name", text(), "Its name"),
                    must("role", words(&roles), "What it is"),
                    must("term", number(), "The term of office that it is in"),
                    must("last_log", or_null(number()), "Its log's last entry"),
                    must("committed", or_null(number()), "The last entry that a quorum has"),
                    must("applied", or_null(number()), "The last entry that holds here"),
                    must("snapshot", or_null(number()), "The last entry of its last snapshot"),
                    must("quorum_age_ms", or_null(number()), "On a leader, milliseconds since a quorum was heard of"),
                ],
            ),
        ),
        (
            "Leader",
            object(
                "The member that leads.",
                vec![
                    must("node", number(), "Its number"),
                    must("name", text(), "Its name"),
                    must("api_address", text(), "Where clients reach it"),
                ],
            ),
        ),
        (
            "Status",
            object(
                "This member, its leader, and the topology's revision.",
                vec![
                    must("version", text(), "The member's version"),
                    must("cluster", text(), "The cluster's name"),
                    must(
                        "identity",
                        text(),
                        "What members call their cluster among themselves: a restore may have given it another name",
                    ),
                    must("epoch", number(), "Revisions of different epochs are not comparable"),
                    must("revision", number(), "The topology's"),
                    must("digest", text(), "Of all objects"),
                    must("member", named("OwnStatus"), ""),
                    must("leader", or_null(named("Leader")), "Null: none is followed"),
                    must(
                        "leader_age_ms",
                        or_null(number()),
                        "Milliseconds since a leader with a quorum was heard of; null: never",
                    ),
                    must("objects", map(number()), "How many there are of each kind"),
                    must("objects_bytes", number(), "About how much memory they take"),
                    must("leases", number(), "How many there are"),
                    must("locks", number(), "How many are held"),
                    must("watchers", number(), "How many follow this member"),
                    must("rollout", or_null(named("Rollout")), "The one that is under way"),
                ],
            ),
        ),
    ]
}

/// What a line of the watch stream may be.
const LINES: [&str; 6] = ["SnapshotLine", "DeltaLine", "RolloutLine", "PingLine", "LoadsLine", "LoadsConfirmedLine"];

/// What proxies read.
pub(super) fn stream() -> Schemas {
    let line = |name: &'static str, of: Value, says: &str| object(says, vec![must(name, of, "")]);
    vec![
        (
            "Replaced",
            object(
                "An object as it is now.",
                vec![must("key", named("Key"), ""), must("object", or_null(named("Object")), "Null: it has gone")],
            ),
        ),
        (
            "RolloutView",
            object(
                "A change that proxies prepare, or that holds for some of them.",
                vec![
                    must("id", number(), "Its number"),
                    must("percent", percent(), "It holds for proxies whose hash lies below, in percent of all hashes"),
                    must("changes", list(named("Replaced")), "Objects as they will be"),
                ],
            ),
        ),
        (
            "Topology",
            object(
                "Everything that the fleet has agreed on, at one revision.",
                vec![
                    must("cluster", text(), "The cluster's name"),
                    must("epoch", number(), "Revisions of different epochs are not comparable"),
                    must("revision", number(), "Counts changes"),
                    must("digest", text(), "Of all objects"),
                    must("objects", map(named("Object")), "By key"),
                    must("rollout", or_null(named("RolloutView")), "The change that is under way"),
                    may("at_ms", number(), "When it was made, in Unix milliseconds; absent: that is not known"),
                ],
            ),
        ),
        (
            "Delta",
            object(
                "From one revision to another.",
                vec![
                    must("epoch", number(), "The cluster's epoch"),
                    must("previous", number(), "It is a change of this revision"),
                    must("revision", number(), "It makes this one"),
                    must("digest", text(), "Of all objects after it"),
                    must("changes", list(named("Replaced")), "Objects as they are now"),
                    may("at_ms", number(), "When it was made, in Unix milliseconds; absent: that is not known"),
                ],
            ),
        ),
        (
            "Ping",
            object(
                "A sign of life.",
                vec![
                    must("revision", number(), "The member's revision"),
                    must("leader_age_ms", or_null(number()), "Milliseconds since it heard of a leader; null: never"),
                    must("cluster", text(), "The member's cluster"),
                    must("epoch", number(), "The member's epoch"),
                    must("digest", text(), "The member's digest"),
                ],
            ),
        ),
        (
            "SnapshotLine",
            line("snapshot", named("Topology"), "Everything: the first line, and whenever changes alone will not do."),
        ),
        ("DeltaLine", line("delta", named("Delta"), "What is different.")),
        (
            "RolloutLine",
            line("rollout", or_null(named("RolloutView")), "The change that is under way, or that none is."),
        ),
        ("PingLine", line("ping", named("Ping"), "Nothing has changed.")),
        ("WatchLine", described(either(&LINES.map(named)), "A line of the watch stream.")),
    ]
}
