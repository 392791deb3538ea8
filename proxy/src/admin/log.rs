//! `/log`: which lines the process's log has, and for how long that was changed.

use super::access::Caller;
use super::changes::{author, fields, unix_seconds};
use super::reply::{Reply, error, json_value};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::apply::log_filter::TIME_MAX;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// For how long another filter holds if nobody says it.
const SECONDS: u64 = 600;

/// What is in force, and what was at the start.
pub(super) fn shown(control: &ControlHandle) -> Reply {
    let Some((in_force, changed)) = control.log_filter() else {
        return error(StatusCode::CONFLICT, "this process has no filter of logs that could be changed");
    };
    let changed = changed.map(|changed| {
        let left = changed.until.saturating_duration_since(ambient::now());
        json!({
            "by": changed.author.by, "unix_seconds": unix_seconds(changed.author.at), "seconds_left": left.as_secs_f64(),
        })
    });
    json_value(StatusCode::OK, &json!({ "filter": in_force.filter, "start": in_force.start, "changed": changed }))
}

/// Puts another filter in force: `{ "filter": "info,ringway_proxy=debug", "for_seconds": 600 }`.
pub(super) fn change(control: &ControlHandle, caller: &Caller, body: &Value) -> Reply {
    let changed = wish(body).and_then(|(filter, time)| control.change_log(filter, time, &author(caller)));
    match changed {
        Ok(()) => shown(control),
        Err(problem) => error(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    }
}

/// The filter of the start again.
pub(super) fn restore(control: &ControlHandle, caller: &Caller) -> Reply {
    control.restore_log(&author(caller));
    shown(control)
}

fn wish(body: &Value) -> Result<(&str, Duration), String> {
    let fields = fields(body, &["filter", "for_seconds"])?;
    let filter = fields.get("filter").and_then(Value::as_str);
    let filter = filter.ok_or("write `filter`, for example \"info,ringway_proxy=debug\"")?;
    let seconds = fields.get("for_seconds").map_or(Some(SECONDS), Value::as_u64);
    let seconds = seconds.filter(|seconds| (1..=TIME_MAX.as_secs()).contains(seconds));
    let most = TIME_MAX.as_secs();
    let seconds = seconds.ok_or_else(|| format!("`for_seconds` is a whole number from 1 to {most} (a day)"))?;
    Ok((filter, Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_has_a_filter_and_a_time_that_ends() {
        assert_eq!(wish(&json!({ "filter": "debug" })), Ok(("debug", Duration::from_secs(600))));
        assert_eq!(wish(&json!({ "filter": "debug", "for_seconds": 7 })), Ok(("debug", Duration::from_secs(7))));
        for (body, said) in [
            (json!({}), "write `filter`"),
            (json!({ "filter": 3 }), "write `filter`"),
            (json!([]), "write an object"),
            (json!({ "filter": "debug", "for_seconds": 0 }), "`for_seconds` is a whole number from 1 to 86400"),
            (json!({ "filter": "debug", "for_seconds": 86_401 }), "`for_seconds` is"),
            (json!({ "filter": "debug", "for_seconds": -1 }), "`for_seconds` is"),
            (json!({ "filter": "debug", "for_seconds": "1h" }), "`for_seconds` is"),
            (json!({ "filter": "debug", "for": 1 }), "there is no field \"for\""),
        ] {
            let problem = wish(&body).unwrap_err();
            assert!(problem.contains(said), "{body}: {problem}");
        }
    }
}
