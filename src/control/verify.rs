//! `ringway control verify`: what every proxy says of itself, against the topology, against each other, and against rings
//! built here.

use super::apply;
use super::show::Printer;
use hyper::Method;
use ringway_control::http::Api;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long proxies may take to say that they have the latest revision: a heartbeat and some.
const SETTLE: Duration = Duration::from_secs(4);
/// How long a leader that has just begun is given to hear of every proxy.
const KNOWN: Duration = Duration::from_secs(9);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Epoch and revision.
type Place = (u64, u64);

pub(super) async fn verify(api: &Api, printer: &Printer) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut goal = None;
    let mut compared = BTreeSet::new();
    loop {
        let snapshot = apply::snapshot(api).await?;
        let fleet: Value = api.json(Method::GET, "/v1/proxies", None).await?;
        let here = (snapshot.epoch, snapshot.revision);
        let goal = *goal.get_or_insert(here);
        let expected = apply::rings(&snapshot);
        let empty = Vec::new();
        let proxies = fleet["proxies"].as_array().unwrap_or(&empty);
        let findings: Vec<String> =
            proxies.iter().flat_map(|proxy| judge(proxy, goal, here, &expected, &mut compared)).collect();
        let all = proxies.iter().all(|proxy| proxy["name"].as_str().is_some_and(|name| compared.contains(name)));
        // A change of a moment ago is still on its way to some; where changes never end, each proxy is compared when it is at
        // the same one.
        // A leader that has just begun has not heard of all: what it does not know cannot be verified.
        let known = fleet["settled"] != false || began.elapsed() > KNOWN;
        if known && (findings.is_empty() && all || began.elapsed() > SETTLE) {
            printer.verified(proxies.len(), compared.len(), &expected, &findings)?;
            return Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is wrong with a proxy. It must have reached `goal`; its rings are compared when it is at `here`.
fn judge(
    proxy: &Value,
    goal: Place,
    here: Place,
    expected: &BTreeMap<String, String>,
    compared: &mut BTreeSet<String>,
) -> Vec<String> {
    let name = proxy["name"].as_str().unwrap_or("?");
    let state = proxy["state"].as_str().unwrap_or("?");
    let heartbeat = &proxy["heartbeat"];
    let at = (heartbeat["epoch"].as_u64().unwrap_or(0), heartbeat["revision"].as_u64().unwrap_or(0));
    let mut findings = Vec::new();
    match state {
        "synced" => {}
        // It goes with the time: behind what was there when the question was asked is behind.
        "behind" if at >= goal => {}
        _ => {
            let why = heartbeat["stuck"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            findings.push(format!("{name} is {state}{why}"));
        }
    }
    if state == "offline" || at != here {
        return findings;
    }
    compared.insert(name.to_owned());
    for (service, digest) in expected {
        if let Some(has) = heartbeat["rings"][service].as_str().filter(|has| has != digest) {
            findings.push(format!("{name} has another ring for {service}: {has} instead of {digest}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(state: &str, revision: u64, ring: &str) -> (Vec<String>, bool) {
        let proxy = json!({
            "name": "p", "state": state,
            "heartbeat": { "epoch": 1, "revision": revision, "rings": { "s": ring }, "stuck": null },
        });
        let mut compared = BTreeSet::new();
        let expected = BTreeMap::from([("s".to_owned(), "aa".to_owned())]);
        let findings = judge(&proxy, (1, 5), (1, 7), &expected, &mut compared);
        (findings, !compared.is_empty())
    }

    #[test]
    fn who_has_reached_what_was_there_is_not_behind_and_rings_are_compared_at_one_revision() {
        assert_eq!(judged("synced", 7, "aa"), (vec![], true));
        assert_eq!(judged("behind", 6, "bb"), (vec![], false));
        assert_eq!(judged("behind", 4, "aa"), (vec!["p is behind".into()], false));
        assert_eq!(judged("synced", 7, "bb").0, ["p has another ring for s: bb instead of aa"]);
        assert_eq!(judged("drifted", 7, "aa").0, ["p is drifted"]);
        assert_eq!(judged("offline", 7, "bb"), (vec!["p is offline".into()], false));
    }
}
