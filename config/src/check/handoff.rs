//! Hand-off of keys: what it needs, and what its fields may say.

use super::text::{editable_name, nonzero};
use crate::diagnostic::{At, Place};
use crate::findings::Findings;
use crate::model::{Handoff, HandoffCopy, SafeMethod};
use crate::schema::{self, SafeMethodName};
use ringway_ring::PolicyParams;
use std::time::Duration;

/// Longest window: for so long a change is not over.
const WINDOW_MAX: Duration = Duration::from_secs(3600);

/// Fields that clients, or Ringway itself, say something else in.
const TAKEN: [&str; 14] = [
    "authorization",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "origin",
    "range",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-ringway-explain",
    "x-ringway-handoff",
];

/// `None`: keys move at once.
pub(super) fn handoff(
    section: &schema::ServiceSection,
    policy: PolicyParams,
    findings: &mut Findings,
) -> Option<Handoff> {
    let at = section.handoff.as_ref()?;
    let handoff = &at.value;
    keys(at.place, section, policy, findings);
    nonzero(&handoff.window, "window", findings);
    if handoff.window.value > WINDOW_MAX {
        let message = "`window` is longer than an hour: a change would hardly ever be over";
        findings.error(handoff.window.place, "bad_duration", message, "write `1h` or less; `60s` is usual");
    }
    let copy = &handoff.copy.value;
    let method = |at: &At<SafeMethodName>| match at.value {
        SafeMethodName::Get => SafeMethod::Get,
        SafeMethodName::Head => SafeMethod::Head,
        SafeMethodName::Options => SafeMethod::Options,
    };
    Some(Handoff {
        window: handoff.window.value,
        copy: HandoffCopy {
            methods: match &copy.methods {
                None => vec![SafeMethod::Get, SafeMethod::Head],
                Some(methods) => methods.value.iter().map(method).collect(),
            },
            percent: copy.percent.value.0,
            in_flight_max: copy.in_flight_max.value.0 as u32,
            credentials: copy.credentials.value,
        },
        header: header(&handoff.header, findings),
    })
}

/// What is handed over are keys.
fn keys(place: Place, section: &schema::ServiceSection, policy: PolicyParams, findings: &mut Findings) {
    let balance = &section.balance.value;
    if !policy.hashes() {
        findings.error(
            place,
            "handoff_without_keys",
            format!("there is nothing to hand off: {} does not look at keys", policy.name()),
            "write `balance: { policy: ring, hash_key: [ ... ] }`, or remove `handoff`",
        );
    } else if balance.affinity_cookie.is_some() {
        findings.warning(
            place,
            "without_effect",
            "a cookie keeps each client on its backend here: nothing is handed off",
            "remove `balance.affinity_cookie`, or this",
        );
    } else if balance.hash_key.is_none() {
        findings.error(
            place,
            "handoff_without_keys",
            "without `hash_key` a key is a client's address, of which no backend has anything to hand off",
            "write what is cached by, for example `balance: { hash_key: [ { path: {} } ] }`, or remove `handoff`",
        );
    }
}

/// It is nobody's to write but ours.
fn header(at: &At<String>, findings: &mut Findings) -> String {
    let name = editable_name(at, findings);
    if TAKEN.contains(&name.as_str()) || name.starts_with("content-") && name != "content-length" {
        findings.error(
            at.place,
            "own_field",
            format!("`{name}` says something else to backends"),
            "write a name of its own, for example `x-ringway-previous-owner`",
        );
    }
    name
}
