//! `GET /metrics` of a member, in Prometheus' text format. `docs/metrics.md` has the same table.

use super::{Api, Ask, Body, full};
use crate::consensus::Role as MemberRole;
use crate::http::Problem;
use crate::state::Role;
use hyper::{Response, StatusCode};
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

/// A metric of a member.
struct Metric {
    /// What follows `ringway_control_`; unit last.
    name: &'static str,
    /// Of the exposition format.
    kind: &'static str,
    /// One sentence.
    help: &'static str,
    /// Its value now; none where it has no meaning.
    value: fn(&Api) -> Option<f64>,
}

/// All of them, in the order of the documentation.
const METRICS: &[Metric] = &[
    Metric {
        name: "revision",
        kind: "gauge",
        help: "Revision of the topology on this member.",
        value: |api| Some(api.plane.state().revision as f64),
    },
    Metric {
        name: "epoch",
        kind: "gauge",
        help: "Epoch of the topology: raised by each restore.",
        value: |api| Some(api.plane.state().epoch as f64),
    },
    Metric {
        name: "term",
        kind: "gauge",
        help: "Term of the member.",
        value: |api| Some(api.plane.status().term as f64),
    },
    Metric {
        name: "leader",
        kind: "gauge",
        help: "Whether this member leads, with a quorum.",
        value: |api| Some(f64::from(u8::from(api.plane.status().role == MemberRole::Leader))),
    },
    Metric {
        name: "leader_age_seconds",
        kind: "gauge",
        help: "Since a leader was last heard of.",
        value: |api| Some(api.plane.leader_age().map_or(f64::INFINITY, |age| age.as_secs_f64())),
    },
    Metric {
        name: "api_connections_unproven",
        kind: "gauge",
        help: "Connections to the API that have shown no credentials yet.",
        value: |api| Some(api.places.unproven().0 as f64),
    },
    Metric {
        name: "api_connections_evicted_total",
        kind: "counter",
        help: "Connections to the API that were closed because newer ones needed their places.",
        value: |api| Some(api.places.unproven().1 as f64),
    },
    Metric {
        name: "log_last",
        kind: "gauge",
        help: "Index of the last entry of the log.",
        value: |api| Some(api.plane.status().last_log.unwrap_or(0) as f64),
    },
    Metric {
        name: "log_applied",
        kind: "gauge",
        help: "Index of the last entry that is applied.",
        value: |api| Some(api.plane.status().applied.unwrap_or(0) as f64),
    },
    Metric {
        name: "objects",
        kind: "gauge",
        help: "Objects of the topology.",
        value: |api| Some(api.plane.state().objects.size() as f64),
    },
    Metric {
        name: "objects_bytes",
        kind: "gauge",
        help: "About what the objects take.",
        value: |api| Some(api.plane.state().objects_bytes as f64),
    },
    Metric {
        name: "leases",
        kind: "gauge",
        help: "Leases.",
        value: |api| Some(api.plane.state().leases.size() as f64),
    },
    Metric {
        name: "watchers",
        kind: "gauge",
        help: "Watch streams that are open on this member.",
        value: |api| Some(api.plane.hub.watchers() as f64),
    },
    Metric {
        name: "proposals_total",
        kind: "counter",
        help: "Changes that were asked for here.",
        value: |api| Some(api.plane.proposals.load(Relaxed) as f64),
    },
    Metric {
        name: "refusals_total",
        kind: "counter",
        help: "Changes that were asked for here and refused.",
        value: |api| Some(api.plane.refusals.load(Relaxed) as f64),
    },
    Metric {
        name: "certificate_not_after_seconds",
        kind: "gauge",
        help: "Unix time at which the first of this member's certificates ends.",
        // Read from the files: what will be served after the next look at them, and nobody asks often.
        value: |api| api.certificates.iter().filter_map(|path| crate::tls::not_after(path)).min().map(|end| end as f64),
    },
];

pub(super) fn metrics(api: &Api, ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let mut text = String::new();
    for Metric { name, kind, help, value } in METRICS {
        let Some(value) = value(api) else { continue };
        let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "# HELP ringway_control_{name} {help}\n# TYPE ringway_control_{name} {kind}\nringway_control_{name} {value}"
        );
    }
    Ok(full(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}

#[cfg(test)]
mod tests {
    use super::METRICS;

    #[test]
    fn every_metric_of_members_is_documented_as_it_is() {
        let text = include_str!("../../../docs/metrics.md");
        for metric in METRICS {
            let row = format!("| `ringway_control_{}` | {} |  | {} |", metric.name, metric.kind, metric.help);
            assert!(text.contains(&row), "docs/metrics.md lacks:\n{row}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("| `ringway_control_")).count(), METRICS.len());
    }
}
