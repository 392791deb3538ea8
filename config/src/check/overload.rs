//! Overload: thresholds that follow each other, limits that are none. Warnings: a time that there is something to see in.

use super::text::nonzero;
use crate::diagnostic::Site;
use crate::findings::Findings;
use crate::model;
use crate::schema::{OutlierWarningsSection, OverloadSection};
use std::time::Duration;

/// Workers look at what is due this often: they are always late by as much.
const LAG_MIN: Duration = Duration::from_millis(100);

pub(super) fn overload(section: &OverloadSection, findings: &mut Findings) -> Option<model::Overload> {
    let before = ("stop_keep_alive", &section.stop_keep_alive);
    let shed = section.shed_low_priority.as_ref().map(|at| ("shed_low_priority", at));
    let after = [("refuse_requests", &section.refuse_requests), ("stop_accepting", &section.stop_accepting)];
    let thresholds: Vec<_> = [before].into_iter().chain(shed).chain(after).collect();
    for (name, at) in &thresholds {
        if at.value.0 == 0 {
            let message = format!("`{name}` at 0 % would hold for ever");
            let help = "write a percentage from 1 to 100; `enabled: false` turns all of it off";
            findings.error(at.place, "out_of_range", message, help);
        }
    }
    for ((before, earlier), (name, later)) in thresholds.iter().zip(&thresholds[1..]) {
        if later.value.0 < earlier.value.0 {
            let message = format!(
                "`{name}` at {} % comes before `{before}` at {} %, which it includes",
                later.value.0, earlier.value.0
            );
            findings.error(later.place, "out_of_range", message, format!("write at least {}%", earlier.value.0));
        }
    }
    if let Some(at) = section.memory_max.as_ref().filter(|at| at.value.0 == 0) {
        let help = "write a size, for example `1GiB`, or remove it: then it is the limit of the cgroup";
        findings.error(at.place, "out_of_range", "a process without memory serves nobody", help);
    }
    if let Some(at) = section.lag_max.as_ref().filter(|at| at.value < LAG_MIN) {
        let message = format!("`lag_max` is shorter than {LAG_MIN:?}: workers are always that late");
        findings.error(at.place, "bad_duration", message, "write for example `500ms`");
    }
    nonzero(&section.hold, "hold", findings);
    let share = |percent: u32| f64::from(percent) / 100.0;
    let (stop_keep_alive, refuse_requests) =
        (share(section.stop_keep_alive.value.0), share(section.refuse_requests.value.0));
    let shed = section.shed_low_priority.as_ref().map(|at| share(at.value.0));
    section.enabled.value.then(|| model::Overload {
        memory_bytes_max: section.memory_max.as_ref().map(|at| at.value.0),
        memory_site: section.memory_max.as_ref().map_or_else(Site::default, |at| Site::at(at.place)),
        lag_max: section.lag_max.as_ref().map(|at| at.value),
        connections: section.connections.value,
        stop_keep_alive,
        sheds_default: shed.is_some(),
        shed_low_priority: shed.unwrap_or(f64::midpoint(stop_keep_alive, refuse_requests)),
        refuse_requests,
        stop_accepting: share(section.stop_accepting.value.0),
        hold: section.hold.value,
    })
}

/// How often backends are compared with their peers; none is never.
pub(super) fn outlier_warnings(section: &OutlierWarningsSection, findings: &mut Findings) -> Option<Duration> {
    let interval = &section.interval;
    if interval.value < Duration::from_secs(1) {
        let message = "`interval` is shorter than a second: too few requests to judge anybody by";
        findings.error(
            interval.place,
            "bad_duration",
            message,
            "write for example `60s`; `enabled: false` turns it off",
        );
    }
    section.enabled.value.then_some(interval.value)
}
