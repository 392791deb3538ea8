//! Tries after and beside the first: retries, hedges, and what of them can never come about.

use super::text::nonzero;
use crate::diagnostic::At;
use crate::findings::Findings;
use crate::model::{self, KEPT_BYTES_MAX};
use crate::schema::{self, RetryOnName, SameBackendName, StatusesName};
use std::time::Duration;

/// A floor of so many tries a second in each worker is as good as no budget.
const BUDGET_MIN_USUAL: u64 = 1_000;

pub(super) fn retry(section: &schema::ServiceSection, findings: &mut Findings) -> model::Retry {
    let retry = &section.retry.value;
    if retry.body_bytes_max.value.0 > KEPT_BYTES_MAX as u64 {
        findings.error(
            retry.body_bytes_max.place,
            "out_of_range",
            "`body_bytes_max` is more than a worker keeps of all its requests together, 16 MiB",
            "write `16MiB` or less; `64KiB` is much already",
        );
    }
    floor(&retry.budget_min, findings);
    if retry.attempts.value.0 > 0 {
        never(section, findings);
    }
    let usual = [RetryOnName::Connect, RetryOnName::Reset, RetryOnName::BadResponse, RetryOnName::Timeout];
    let has = |name: RetryOnName| match &retry.on {
        Some(on) => on.value.iter().any(|at| at.value == name),
        None => usual.contains(&name),
    };
    model::Retry {
        attempts: retry.attempts.value.0 as u32,
        on: model::RetryOn {
            connect: has(RetryOnName::Connect),
            reset: has(RetryOnName::Reset),
            bad_answer: has(RetryOnName::BadResponse),
            timeout: has(RetryOnName::Timeout) && retry.on_timeout.value,
            gateway: has(RetryOnName::Gateway),
            server_errors: has(RetryOnName::ServerErrors),
            conflict: has(RetryOnName::Conflict),
            throttled: has(RetryOnName::Throttled),
        },
        non_idempotent: retry.non_idempotent.value,
        per_try_timeout: retry.per_try_timeout.value,
        budget_percent: retry.budget.value.0,
        budget_min: retry.budget_min.value.0 as u32,
        backoff: retry.backoff.value,
        same_backend: match retry.same_backend.value {
            SameBackendName::Never => model::SameBackend::Never,
            SameBackendName::LastResort => model::SameBackend::LastResort,
            SameBackendName::Always => model::SameBackend::Always,
        },
        body_bytes_max: retry.body_bytes_max.value.0 as usize,
    }
}

/// What lets no retry come about, although there are attempts.
fn never(section: &schema::ServiceSection, findings: &mut Findings) {
    let retry = &section.retry.value;
    let request = section.timeouts.value.request.value;
    if retry.budget.value.0 == 0 && retry.budget_min.value.0 == 0 {
        findings.warning(
            retry.budget.place,
            "unused_retries",
            "a budget of nothing allows no retry",
            "write `attempts: 0` if none is wanted, else a `budget` or a `budget_min` above 0",
        );
    }
    if let Some(at) = section.limits.value.retries_max.as_ref().filter(|at| at.value.0 == 0) {
        findings.warning(
            at.place,
            "unused_retries",
            "`retries_max: 0` allows no retry",
            "write `attempts: 0` in `retry` if none is wanted, else 1 or more",
        );
    }
    for (at, name, least) in [
        (&retry.per_try_timeout, "per_try_timeout", retry.per_try_timeout.value),
        // What is drawn at random may shorten it by half.
        (&retry.backoff, "backoff", retry.backoff.value / 2),
    ] {
        if !request.is_zero() && least >= request {
            findings.warning(
                at.place,
                "late_retry",
                format!(
                    "the whole exchange, `timeouts.request`, may take {request:?}: after `{name}` there is no time left"
                ),
                format!("write less than `{}ms`, or give `timeouts.request` more", request.as_millis()),
            );
        }
    }
}

fn floor(at: &At<schema::Count>, findings: &mut Findings) {
    if at.value.0 > BUDGET_MIN_USUAL {
        findings.warning(
            at.place,
            "high_budget_min",
            format!("{} tries a second more in each worker, whatever fails, are as good as no budget", at.value.0),
            "write `10` or so",
        );
    }
}

pub(super) fn hedge(
    section: &schema::ServiceSection,
    retry: &model::Retry,
    findings: &mut Findings,
) -> Option<model::Hedge> {
    let at = section.hedge.as_ref()?;
    let hedge = &at.value;
    nonzero(&hedge.after, "after", findings);
    floor(&hedge.budget_min, findings);
    if hedge.budget.value.0 == 0 && hedge.budget_min.value.0 == 0 {
        findings.warning(
            hedge.budget.place,
            "unused_hedge",
            "a budget of nothing allows no second try",
            "remove `hedge` if none is wanted, else write a `budget` or a `budget_min` above 0",
        );
    }
    let timeouts = &section.timeouts.value;
    let ends = [
        ("timeouts.request", timeouts.request.value),
        ("retry.per_try_timeout", retry.per_try_timeout),
        ("timeouts.response", timeouts.response.value),
    ];
    let first = ends.into_iter().filter(|(_, end)| !end.is_zero()).min_by_key(|(_, end)| *end);
    if let Some((name, end)) = first.filter(|(_, end)| hedge.after.value >= *end) {
        findings.warning(
            hedge.after.place,
            "late_hedge",
            format!("no second try is ever made: `{name}` ends the first after {end:?}"),
            format!("write less than `{}ms`, or give `{name}` more", end.as_millis()),
        );
    }
    let has = |name: StatusesName, otherwise: bool| match &hedge.non_fatal {
        Some(names) => names.value.iter().any(|at| at.value == name),
        None => otherwise,
    };
    Some(model::Hedge {
        after: hedge.after.value,
        budget_percent: hedge.budget.value.0,
        budget_min: hedge.budget_min.value.0 as u32,
        non_fatal: model::RetryOn {
            gateway: has(StatusesName::Gateway, true),
            server_errors: has(StatusesName::ServerErrors, retry.on.server_errors),
            conflict: has(StatusesName::Conflict, retry.on.conflict),
            throttled: has(StatusesName::Throttled, true),
            ..model::RetryOn::default()
        },
    })
}

/// Routes whose own time-out ends a request before its service's second try.
pub(super) fn routes(root: &schema::Root, findings: &mut Findings) {
    let hedges = |name: &str| -> Option<Duration> {
        let service = root.services.value.iter().find(|service| service.value.name.value == name)?;
        Some(service.value.hedge.as_ref()?.value.after.value)
    };
    let routes = root.listeners.value.iter().flat_map(|listener| listener.value.routes.value.iter());
    for route in routes {
        let Some(timeout) = route.value.timeout.as_ref().filter(|timeout| !timeout.value.is_zero()) else { continue };
        let targets = route.value.split.value.iter().map(|target| &target.value.service);
        for service in route.value.service.iter().chain(targets) {
            if let Some(after) = hedges(&service.value).filter(|after| *after >= timeout.value) {
                findings.warning(
                    timeout.place,
                    "late_hedge",
                    format!("no second try is ever made: {:?} makes it after {after:?}", service.value),
                    format!("write more than `{}ms`, or less for `hedge.after`", after.as_millis()),
                );
            }
        }
    }
}
