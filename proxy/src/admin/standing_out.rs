//! What is wrong with backends against their peers, as the status and the live view tell it.

use crate::snapshot::Service;
use ringway_health::Reason;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Backends that a text names.
const NAMED_MAX: usize = 3;

/// Of a backend, by reason: what is wrong, in words, and for how long. `None`: nothing is known to be.
pub(super) fn of_backend(
    service: &Service,
    id: &str,
    tell: impl Fn(Instant) -> (&'static str, Value),
) -> Option<Value> {
    let standing_out = service.live.standing_out();
    let reasons = standing_out.of(id).map(|(one, since)| {
        let mut told = json!({ "text": one.what() });
        let (name, value) = tell(since);
        told[name] = value;
        (one.reason.name().to_owned(), told)
    });
    let reasons: Map<String, Value> = reasons.collect();
    (!reasons.is_empty()).then_some(Value::Object(reasons))
}

/// Of a service: how many of its backends stand out for each reason, and the first of them in words; or that it fails as a whole.
pub(super) fn of_service(service: &Service) -> Option<Value> {
    let standing_out = service.live.standing_out();
    if let Some((failing, _)) = standing_out.failing_whole() {
        return Some(json!({ "whole": true, "text": failing.to_string() }));
    }
    let mut all: Vec<_> = standing_out.all().map(|(one, _)| one).collect();
    if all.is_empty() {
        return None;
    }
    // Failing before slow, and the worst first.
    all.sort_by(|one, other| one.reason.cmp(&other.reason).then(other.own.total_cmp(&one.own)));
    let mut texts: Vec<String> = all.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if all.len() > NAMED_MAX {
        texts.push(format!("and {} more", all.len() - NAMED_MAX));
    }
    let mut told = json!({ "text": texts.join("; ") });
    for reason in Reason::ALL {
        let count = standing_out.count(reason);
        if count > 0 {
            told[reason.name()] = json!(count);
        }
    }
    Some(told)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::ambient;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use ringway_health::Observed;

    #[tokio::test]
    async fn it_is_told_who_fails_and_who_is_slow_by_how_much_and_since_when_and_nothing_of_the_others() {
        let (control, _receivers) = testing::control(Source::Memory);
        let backends: String = (0..6).map(|id| format!("{{ id: b{id}, address: \"127.0.0.1:9\" }}, ")).collect();
        let file = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\nservices: [ {{ name: s, backends: [ {backends} ] }} ]\n"
        );
        control.apply(testing::config(&file)).unwrap();
        let snapshot = control.shared().current.load();
        let service = snapshot.service("s").unwrap();
        let now = ambient::now();
        let since = |at: Instant| ("seconds", json!(now.saturating_duration_since(at).as_secs()));
        assert_eq!((of_service(service), of_backend(service, "b0", since)), (None, None));
        let observed = |id: usize, failures, mean_micros, middle_bucket| Observed {
            id: format!("b{id}").into(),
            requests: 100,
            failures,
            timed: 100,
            mean_micros,
            middle_bucket,
        };
        let one = [observed(0, 100, 1000, 1), observed(1, 0, 900_000, 9)];
        let window: Vec<Observed> = one.into_iter().chain((2..6).map(|id| observed(id, 0, 1000, 1))).collect();
        service.live.standing_out().handle_window(&window, now);
        let text = "fails 100.0 % of 100 requests (5xx or no response), its peers 0.0 %";
        assert_eq!(of_backend(service, "b0", since), Some(json!({ "failing": { "text": text, "seconds": 0 } })));
        assert_eq!(of_backend(service, "b2", since), None);
        let told = of_service(service).unwrap();
        assert_eq!((&told["failing"], &told["slow"]), (&json!(1), &json!(1)));
        assert!(told["text"].as_str().unwrap().starts_with("b0 fails 100.0 %"), "{told}");
        let all: Vec<Observed> = (0..6).map(|id| observed(id, if id == 0 { 0 } else { 50 }, 1000, 1)).collect();
        service.live.standing_out().handle_window(&all, now);
        let told = of_service(service).unwrap();
        assert!(told["whole"] == true && told["text"].as_str().unwrap().starts_with("41.7 % of 600"), "{told}");
    }
}
