//! `ringway control verify`: what every proxy says of itself, against the topology, against each other, and against rings
//! built here.

use super::apply;
use super::show::Printer;
use clap::Args;
use hyper::Method;
use ringway_control::http::Api;
use ringway_control::watch::view::View;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Proxies that must be among those that are known.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    expect: Vec<String>,
}

/// How long proxies may take to say that they have the latest revision: a heartbeat and some.
const SETTLE: Duration = Duration::from_secs(4);
/// How long a leader that has just begun is given to hear of every proxy, and a proxy to be found at the revision of the
/// moment where changes never end.
const KNOWN: Duration = Duration::from_secs(9);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Epoch and revision.
type Place = (u64, u64);

/// What a proxy must have.
struct Expected {
    digest: String,
    /// Ring digests by service.
    rings: BTreeMap<String, String>,
}

impl Expected {
    fn of(view: &View) -> Result<Self, String> {
        let rings = apply::rings(view).map_err(|error| format!("the topology cannot be built here: {error:#}"))?;
        Ok(Self { digest: view.digest.to_string(), rings })
    }
}

/// The topology at one moment.
struct Goal {
    here: Place,
    all: Expected,
    /// For those that have the change of the rollout with this number already.
    canaries: Option<(u64, Expected)>,
}

impl Goal {
    fn of(view: &View) -> Result<Self, String> {
        let candidate = view.rollout.as_ref().zip(view.candidate());
        let canaries =
            candidate.map(|(rollout, view)| Ok::<_, String>((rollout.id, Expected::of(&view)?))).transpose()?;
        Ok(Self { here: (view.epoch, view.revision), all: Expected::of(view)?, canaries })
    }

    /// What holds for a proxy that says that it has the change of this rollout.
    fn expected(&self, canary: Option<u64>) -> Option<&Expected> {
        match (canary, &self.canaries) {
            (None, _) => Some(&self.all),
            (Some(id), Some((under_way, expected))) if id == *under_way => Some(expected),
            // The rollout ended a moment ago.
            (Some(_), _) => None,
        }
    }
}

pub(super) async fn verify(api: &Api, printer: &Printer, verify: &Verify) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut first = None;
    let mut compared = BTreeSet::new();
    loop {
        let view = apply::snapshot(api).await?;
        let fleet: Value = api.json(Method::GET, "/v1/proxies", None).await?;
        let empty = Vec::new();
        let proxies = fleet["proxies"].as_array().unwrap_or(&empty);
        let mut findings = unheard(proxies, &verify.expect);
        let mut rings = BTreeMap::new();
        match Goal::of(&view) {
            Ok(goal) => {
                let first = *first.get_or_insert(goal.here);
                findings.extend(proxies.iter().flat_map(|proxy| judge(proxy, first, &goal, &mut compared)));
                rings = goal.all.rings;
            }
            Err(why) => findings.push(why),
        }
        let uncompared = proxies.iter().map(name).filter(|name| !compared.contains(*name));
        let uncompared: Vec<String> = uncompared.map(|name| format!("{name} was not compared")).collect();
        // A leader that has just begun has not heard of all: what it does not know cannot be verified.
        let known = fleet["settled"] != false || began.elapsed() > KNOWN;
        // A change of a moment ago is still on its way to some; where changes never end, each proxy is compared when it is at
        // the same one.
        let over = if findings.is_empty() { began.elapsed() > KNOWN } else { began.elapsed() > SETTLE };
        if known && (findings.is_empty() && uncompared.is_empty() || over) {
            if findings.is_empty() {
                findings = uncompared;
            }
            printer.verified(proxies.len(), compared.len(), &rings, &findings)?;
            return Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn name(proxy: &Value) -> &str {
    proxy["name"].as_str().unwrap_or("?")
}

/// Nothing said is nothing verified.
fn unheard(proxies: &[Value], expect: &[String]) -> Vec<String> {
    let missing = expect.iter().filter(|wanted| !proxies.iter().any(|proxy| name(proxy) == wanted.as_str()));
    let mut findings: Vec<String> = missing.map(|wanted| format!("{wanted} has not been heard of")).collect();
    if proxies.is_empty() && findings.is_empty() {
        findings.push("no proxy has been heard of: nothing was compared".to_owned());
    }
    findings
}

/// What is wrong with a proxy. It must have reached `first`, where the members were when the question was asked; what it has is
/// compared when it is where they are now. `compared` are those that have been found equal.
fn judge(proxy: &Value, first: Place, goal: &Goal, compared: &mut BTreeSet<String>) -> Vec<String> {
    let (name, state) = (name(proxy), proxy["state"].as_str().unwrap_or("?"));
    let heartbeat = &proxy["heartbeat"];
    let at = (heartbeat["epoch"].as_u64().unwrap_or(0), heartbeat["revision"].as_u64().unwrap_or(0));
    let here = goal.here;
    let mut findings = Vec::new();
    match state {
        // Judged below by where it is: the state goes with the time.
        "synced" | "behind" | "ahead" => {}
        _ => {
            let why = heartbeat["stuck"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            findings.push(format!("{name} is {state}{why}"));
        }
    }
    if state == "offline" {
        return findings;
    }
    let place = |(epoch, revision): Place| format!("{epoch}.{revision}");
    // A member that is asked may be a change older than the one that a proxy follows: not twice in a row, and not by an epoch.
    if at > here && (at.0 != here.0 || !compared.contains(name)) {
        findings.push(format!("{name} is ahead: it has {}, the members have {}", place(at), place(here)));
    }
    if at < first {
        findings.push(format!("{name} is behind: it has {}, the members have {}", place(at), place(first)));
    }
    if at != here {
        return findings;
    }
    let Some(expected) = goal.expected(heartbeat["canary"].as_u64()) else { return findings };
    let differing = differences(name, heartbeat, expected);
    if differing.is_empty() {
        compared.insert(name.to_owned());
    }
    findings.extend(differing);
    findings
}

fn differences(name: &str, heartbeat: &Value, expected: &Expected) -> Vec<String> {
    let mut findings = Vec::new();
    let digest = heartbeat["digest"].as_str().unwrap_or("none");
    if digest != expected.digest {
        findings.push(format!("{name} has another topology: {digest} instead of {}", expected.digest));
    }
    for (service, digest) in &expected.rings {
        match heartbeat["rings"][service].as_str() {
            Some(has) if has == digest => {}
            Some(has) => findings.push(format!("{name} has another ring for {service}: {has} instead of {digest}")),
            None => findings.push(format!("{name} has no ring for {service}, which should be {digest}")),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn goal() -> Goal {
        let expected = |digest: &str, ring: &str| Expected {
            digest: digest.to_owned(),
            rings: BTreeMap::from([("s".to_owned(), ring.to_owned())]),
        };
        Goal { here: (1, 7), all: expected("d", "aa"), canaries: Some((4, expected("e", "cc"))) }
    }

    fn judged(state: &str, place: Place, has: Value) -> (Vec<String>, bool) {
        let mut heartbeat = json!({ "epoch": place.0, "revision": place.1, "stuck": null, "digest": "d" });
        for (field, value) in has.as_object().unwrap() {
            heartbeat[field] = value.clone();
        }
        let proxy = json!({ "name": "p", "state": state, "heartbeat": heartbeat });
        let mut compared = BTreeSet::new();
        let findings = judge(&proxy, (1, 5), &goal(), &mut compared);
        (findings, !compared.is_empty())
    }

    #[test]
    fn a_proxy_that_has_reached_what_was_there_is_not_behind_and_rings_are_compared_at_one_revision() {
        let ring = |digest: &str| json!({ "rings": { "s": digest } });
        assert_eq!(judged("synced", (1, 7), ring("aa")), (vec![], true));
        assert_eq!(judged("behind", (1, 6), ring("bb")), (vec![], false));
        assert_eq!(judged("behind", (1, 4), ring("aa")).0, ["p is behind: it has 1.4, the members have 1.5"]);
        assert_eq!(
            judged("synced", (1, 7), ring("bb")),
            (vec!["p has another ring for s: bb instead of aa".into()], false)
        );
        assert_eq!(judged("drifted", (1, 7), ring("aa")).0, ["p is drifted"]);
        assert_eq!(judged("new", (1, 7), ring("aa")).0, ["p is new"]);
        assert_eq!(judged("offline", (1, 7), ring("bb")), (vec!["p is offline".into()], false));
    }

    #[test]
    fn a_proxy_that_is_ahead_or_has_not_all_of_it_is_named_whatever_its_state_is_called() {
        let ring = json!({ "rings": { "s": "aa" } });
        for state in ["behind", "ahead", "synced"] {
            assert_eq!(
                judged(state, (2, 3), ring.clone()),
                (vec!["p is ahead: it has 2.3, the members have 1.7".into()], false)
            );
        }
        assert_eq!(judged("synced", (1, 7), json!({})).0, ["p has no ring for s, which should be aa"]);
        let other = json!({ "rings": { "s": "aa" }, "digest": "x" });
        assert_eq!(judged("synced", (1, 7), other).0, ["p has another topology: x instead of d"]);
    }

    #[test]
    fn a_canary_is_compared_with_the_candidate() {
        let canary = |id: u64, ring: &str| json!({ "rings": { "s": ring }, "digest": "e", "canary": id });
        assert_eq!(judged("synced", (1, 7), canary(4, "cc")), (vec![], true));
        assert!(!judged("synced", (1, 7), canary(4, "aa")).0.is_empty());
        assert_eq!(judged("synced", (1, 7), canary(3, "cc")), (vec![], false));
    }

    #[test]
    fn no_proxy_and_those_never_heard_of_are_no_success() {
        let proxies = [json!({ "name": "p" })];
        assert!(unheard(&proxies, &["p".into()]).is_empty());
        assert_eq!(unheard(&proxies, &["q".into()]), ["q has not been heard of"]);
        assert_eq!(unheard(&[], &[]).len(), 1);
    }
}
