//! `GET /metrics` of a member, in Prometheus' text format or OpenMetrics. `docs/metrics.md` has the same table.

use super::member::Api;
use super::request::Call;
use super::response::Body;
use crate::consensus::Role as MemberRole;
use crate::http::Problem;
use crate::lessor::{LoadRefusal, PROXY_STATES};
use crate::state::Role;
use crate::store::latency::Latencies;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY};
use ringway_telemetry::exposition::{Format, Page, unit};
use ringway_telemetry::process;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// A metric of a member.
struct Metric {
    /// What follows `ringway_control_`; unit last.
    name: &'static str,
    /// Of the exposition format.
    kind: &'static str,
    /// One sentence.
    help: &'static str,
    /// Its label, if it has one.
    label: &'static str,
    /// Its value now; none where it has no meaning.
    value: Value,
}

/// How a metric is read.
enum Value {
    /// One number.
    One(fn(&Api) -> Option<f64>),
    /// One for each value of the label.
    Each(fn(&Api) -> Vec<(String, f64)>),
    /// A histogram.
    Latency(fn(&Api) -> Latencies),
}

/// All of them, in the order of the documentation.
const METRICS: &[Metric] = &[
    Metric {
        name: "revision",
        kind: "gauge",
        help: "Revision of the topology on this member.",
        label: "",
        value: Value::One(|api| Some(api.plane.state().revision as f64)),
    },
    Metric {
        name: "epoch",
        kind: "gauge",
        help: "Epoch of the topology: raised by each restore.",
        label: "",
        value: Value::One(|api| Some(api.plane.state().epoch as f64)),
    },
    Metric {
        name: "term",
        kind: "gauge",
        help: "Term of the member.",
        label: "",
        value: Value::One(|api| Some(api.plane.status().term as f64)),
    },
    Metric {
        name: "leader",
        kind: "gauge",
        help: "Whether this member leads, with a quorum.",
        label: "",
        value: Value::One(|api| Some(f64::from(u8::from(api.plane.status().role == MemberRole::Leader)))),
    },
    Metric {
        name: "leader_age_seconds",
        kind: "gauge",
        help: "Since a leader was last heard of.",
        label: "",
        value: Value::One(|api| Some(api.plane.leader_age().map_or(f64::INFINITY, |age| age.as_secs_f64()))),
    },
    Metric {
        name: "api_connections_unproven",
        kind: "gauge",
        help: "Connections to the API that have shown no credentials yet.",
        label: "",
        value: Value::One(|api| Some(api.places.unproven().0 as f64)),
    },
    Metric {
        name: "api_connections_evicted_total",
        kind: "counter",
        help: "Connections to the API that were closed because newer ones needed their places.",
        label: "",
        value: Value::One(|api| Some(api.places.unproven().1 as f64)),
    },
    Metric {
        name: "log_last",
        kind: "gauge",
        help: "Index of the last entry of the log.",
        label: "",
        value: Value::One(|api| Some(api.plane.status().last_log.unwrap_or(0) as f64)),
    },
    Metric {
        name: "log_applied",
        kind: "gauge",
        help: "Index of the last entry that is applied.",
        label: "",
        value: Value::One(|api| Some(api.plane.status().applied.unwrap_or(0) as f64)),
    },
    Metric {
        name: "objects",
        kind: "gauge",
        help: "Objects of the topology.",
        label: "",
        value: Value::One(|api| Some(api.plane.state().objects.size() as f64)),
    },
    Metric {
        name: "objects_bytes",
        kind: "gauge",
        help: "About what the objects take.",
        label: "",
        value: Value::One(|api| Some(api.plane.state().objects_bytes as f64)),
    },
    Metric {
        name: "leases",
        kind: "gauge",
        help: "Leases.",
        label: "",
        value: Value::One(|api| Some(api.plane.state().leases.size() as f64)),
    },
    Metric {
        name: "watchers",
        kind: "gauge",
        help: "Watch streams that are open on this member.",
        label: "",
        value: Value::One(|api| Some(api.plane.hub.watchers() as f64)),
    },
    Metric {
        name: "proposals_total",
        kind: "counter",
        help: "Changes that were asked for here.",
        label: "",
        value: Value::One(|api| Some(api.plane.proposals.load(Relaxed) as f64)),
    },
    Metric {
        name: "refusals_total",
        kind: "counter",
        help: "Changes that were asked for here and refused.",
        label: "",
        value: Value::One(|api| Some(api.plane.refusals.load(Relaxed) as f64)),
    },
    Metric {
        name: "commit_seconds",
        kind: "histogram",
        help: "From a leader's proposal to its being committed and applied, on the member that leads.",
        label: "",
        value: Value::Latency(|api| api.plane.commits.read()),
    },
    Metric {
        name: "fsync_seconds",
        kind: "histogram",
        help: "Writes of the log, until they are on disk.",
        label: "",
        value: Value::Latency(|api| api.plane.node().disk_writes()),
    },
    Metric {
        name: "log_file_bytes",
        kind: "gauge",
        help: "What the log and its snapshots take on disk.",
        label: "",
        value: Value::One(|api| api.plane.node().disk_bytes().map(|bytes| bytes as f64)),
    },
    Metric {
        name: "member_lag",
        kind: "gauge",
        help: "Entries that another member lacks, as the leader knows it; on the member that leads.",
        label: "member",
        value: Value::Each(|api| {
            let status = api.plane.status();
            let others = status.voters.iter().chain(&status.learners).filter(|member| member.node != status.id);
            others.filter_map(|member| Some((member.info.name.clone(), member.lag? as f64))).collect()
        }),
    },
    Metric {
        name: "leader_changes_total",
        kind: "counter",
        help: "Leaders that came after another, as seen here.",
        label: "",
        value: Value::One(|api| Some(api.plane.leader_changes.load(Relaxed) as f64)),
    },
    Metric {
        name: "lapses_total",
        kind: "counter",
        help: "Times that this member led, and then had no quorum, or another leader.",
        label: "",
        value: Value::One(|api| Some(api.plane.lapses.load(Relaxed) as f64)),
    },
    Metric {
        name: "rules",
        kind: "gauge",
        help: "Rules of applying commands that all members have agreed on.",
        label: "",
        value: Value::One(|api| Some(f64::from(api.plane.state().rules))),
    },
    Metric {
        name: "proxies",
        kind: "gauge",
        help: "Proxies, by how they stand; on the member that leads.",
        label: "state",
        value: Value::Each(|api| {
            let Some(fleet) = api.plane.fleet_here() else { return Vec::new() };
            // Each state is there before the first proxy is in it: who alarms on one needs no special case.
            let mut counts: BTreeMap<String, f64> =
                PROXY_STATES.iter().map(|state| ((*state).to_owned(), 0.0)).collect();
            for proxy in fleet.proxies {
                *counts.entry(proxy.state.into_owned()).or_default() += 1.0;
            }
            counts.into_iter().collect()
        }),
    },
    Metric {
        name: "frozen_backends",
        kind: "gauge",
        help: "Backends that stay although their leases are overdue, by service; on the member that leads.",
        label: "service",
        value: Value::Each(|api| {
            let frozen = api.plane.fleet_here().map(|fleet| fleet.frozen).unwrap_or_default();
            frozen.into_iter().map(|(service, count)| (service, count as f64)).collect()
        }),
    },
    Metric {
        name: "rollouts_total",
        kind: "counter",
        help: "Rollouts that have ended since the member started, by result.",
        label: "result",
        value: Value::Each(|api| {
            let count = |index: usize| api.plane.rollouts_over[index].load(Relaxed) as f64;
            vec![("committed".into(), count(0)), ("aborted".into(), count(1))]
        }),
    },
    Metric {
        name: "fleet_load_reports_total",
        kind: "counter",
        help: "Reports of loads that proxies have sent here.",
        label: "",
        value: Value::One(|api| Some(api.plane.loads.reports.load(Relaxed) as f64)),
    },
    Metric {
        name: "fleet_load_reported_bytes_total",
        kind: "counter",
        help: "Bytes of these reports.",
        label: "",
        value: Value::One(|api| Some(api.plane.loads.bytes.load(Relaxed) as f64)),
    },
    Metric {
        name: "fleet_load_refused_total",
        kind: "counter",
        help: "Reports of loads, or parts of them, that were not taken, by reason; on the member that leads.",
        label: "reason",
        value: Value::Each(|api| {
            let refused = LoadRefusal::ALL.iter().zip(&api.plane.loads.refused);
            refused.map(|(why, count)| (why.name().to_owned(), count.load(Relaxed) as f64)).collect()
        }),
    },
    Metric {
        name: "fleet_load_published_total",
        kind: "counter",
        help: "Times that tables of loads were published; on the member that leads.",
        label: "",
        value: Value::One(|api| Some(api.plane.loads.published.load(Relaxed) as f64)),
    },
    Metric {
        name: "fleet_load_services",
        kind: "gauge",
        help: "Services with a table of loads, as far as they are known here.",
        label: "",
        value: Value::One(|api| Some(api.plane.loads.hub.now().services.len() as f64)),
    },
    Metric {
        name: "fleet_load_age_seconds",
        kind: "gauge",
        help: "Since the tables of loads were published, or known to hold; only where there are any.",
        label: "",
        value: Value::One(|api| api.plane.loads.hub.age(Instant::now()).map(|age| age.as_secs_f64())),
    },
    Metric {
        name: "certificate_not_after_seconds",
        kind: "gauge",
        help: "Unix time at which the first of this member's certificates ends.",
        // Read from the files: what will be served after the next look at them, and nobody asks often.
        label: "",
        value: Value::One(|api| {
            api.certificates
                .iter()
                .filter_map(|path| crate::transport::tls::not_after(path))
                .min()
                .map(|end| end as f64)
        }),
    },
];

pub(super) fn metrics(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let accept: Vec<&str> = ask.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::of_accept(&accept.join(","));
    let mut response = Response::new(Bytes::from(page(api, format)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(ringway_page::encoded(response, ask.headers))
}

fn page(api: &Api, format: Format) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, label, value } in METRICS {
        let mut samples = String::new();
        let written = match value {
            Value::One(read) => read(api).map_or(Ok(()), |value| sample(&mut samples, name, None, value)),
            Value::Each(read) => {
                read(api).iter().try_for_each(|(of, value)| sample(&mut samples, name, Some((label, of)), *value))
            }
            Value::Latency(read) => histogram(&mut samples, name, &read(api), format),
        };
        // Writing to a String does not fail. What has no sample is left out.
        if written.is_ok() && !samples.is_empty() {
            head(&mut text, &format!("ringway_control_{name}"), (kind, help), format);
            text.push_str(&samples);
        }
    }
    let mut page = Page::new(format, 4096);
    process::write(&mut page);
    text.push_str(&page.finish());
    text
}

/// The lines before a metric's samples. In OpenMetrics, a counter's family is its name without `_total`, and says its unit.
fn head(text: &mut String, name: &str, (kind, help): (&str, &str), format: Format) {
    let family = match format {
        Format::OpenMetrics if kind == "counter" => name.strip_suffix("_total").unwrap_or(name),
        Format::OpenMetrics | Format::Text => name,
    };
    // Writing to a String does not fail.
    let _ = write!(text, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
    if let (Format::OpenMetrics, Some(unit)) = (format, unit(family)) {
        let _ = writeln!(text, "# UNIT {family} {unit}");
    }
}

fn sample(out: &mut String, name: &str, label: Option<(&str, &str)>, value: f64) -> std::fmt::Result {
    write!(out, "ringway_control_{name}")?;
    if let Some((label, of)) = label {
        let escaped = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(out, "{{{label}=\"{escaped}\"}}")?;
    }
    if value.is_infinite() { writeln!(out, " +Inf") } else { writeln!(out, " {value}") }
}

fn histogram(out: &mut String, name: &str, read: &Latencies, format: Format) -> std::fmt::Result {
    let bucket = format!("{name}_bucket");
    for (bound, count) in &read.buckets {
        sample(out, &bucket, Some(("le", &bound_text(*bound, format))), *count as f64)?;
    }
    sample(out, &bucket, Some(("le", "+Inf")), read.count as f64)?;
    sample(out, &format!("{name}_sum"), None, read.sum)?;
    sample(out, &format!("{name}_count"), None, read.count as f64)
}

/// Numbers of buckets are floats in OpenMetrics.
fn bound_text(bound: f64, format: Format) -> String {
    match format {
        Format::OpenMetrics if bound.fract() == 0.0 => format!("{bound:.1}"),
        Format::OpenMetrics | Format::Text => bound.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_openmetrics_a_counter_is_a_family_and_units_are_told() {
        let head_of = |name: &str, kind: &str, format| {
            let mut text = String::new();
            head(&mut text, name, (kind, "H."), format);
            text
        };
        let counter = "# HELP ringway_control_lapses H.\n# TYPE ringway_control_lapses counter\n";
        assert_eq!(head_of("ringway_control_lapses_total", "counter", Format::OpenMetrics), counter);
        assert!(head_of("ringway_control_lapses_total", "counter", Format::Text).contains("lapses_total counter\n"));
        assert!(head_of("a_seconds", "histogram", Format::OpenMetrics).ends_with("# UNIT a_seconds seconds\n"));
        assert!(!head_of("a_seconds", "histogram", Format::Text).contains("UNIT"));
        let families: std::collections::BTreeSet<&str> =
            METRICS.iter().map(|metric| metric.name.strip_suffix("_total").unwrap_or(metric.name)).collect();
        assert_eq!(families.len(), METRICS.len(), "each family has its name for itself");
        assert_eq!(bound_text(1.0, Format::OpenMetrics), "1.0");
        assert_eq!(bound_text(0.5, Format::OpenMetrics), "0.5");
    }

    #[test]
    fn every_metric_of_members_is_documented_as_it_is() {
        let text = include_str!("../../../docs/metrics.md");
        for metric in METRICS {
            let label = if metric.label.is_empty() { String::new() } else { format!("`{}`", metric.label) };
            let row = format!("| `ringway_control_{}` | {} | {label} | {} |", metric.name, metric.kind, metric.help);
            assert!(text.contains(&row), "docs/metrics.md lacks:\n{row}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("| `ringway_control_")).count(), METRICS.len());
    }
}
