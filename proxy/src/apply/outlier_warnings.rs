//! The driver of outlier warnings: reads now and then what each backend has done, and tells the log, the journal and the metrics who
//! stands out from its peers.

use super::health_driver::supervise;
use crate::ambient;
use crate::dispatcher::Shared;
use crate::snapshot::Snapshot;
use crate::snapshot::journal::Happening;
use ringway_health::{Observed, StandingOut, Told, Whole};
use ringway_telemetry::Sums;
use ringway_telemetry::counters::{Registry as Counters, SESSION};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time until a changed interval is noticed.
const TURN: Duration = Duration::from_secs(1);
/// Backends that a line names.
const NAMED_MAX: usize = 3;
/// Responses with 1xx (WebSockets) and with 5xx, in [`Sums::classes`].
const UPGRADED: usize = 1;
const SERVER_ERRORS: usize = 5;

/// Drives it until the workers have ended.
pub(crate) async fn drive(shared: Arc<Shared>) {
    supervise(
        || drive_once(Arc::clone(&shared)),
        || {
            shared.counters.note_panic();
            tracing::error!("the driver of outlier warnings has panicked: a bug, please report it");
        },
    )
    .await;
}

async fn drive_once(shared: Arc<Shared>) {
    let mut driver = Driver::default();
    while shared.has_workers() {
        let pause = driver.turn(&shared, ambient::now()).await;
        tokio::time::sleep(pause).await;
    }
}

#[derive(Default)]
struct Driver {
    readings: Readings,
    /// When they were taken; none while nobody wants to know.
    read: Option<Instant>,
}

impl Driver {
    /// Does what is due; gives how long to wait.
    async fn turn(&mut self, shared: &Shared, now: Instant) -> Duration {
        let snapshot = shared.current.load();
        let Some(interval) = snapshot.config.outlier_interval else {
            if self.read.is_some() {
                *self = Self::default();
                snapshot.services.iter().for_each(|service| *service.live.standing_out() = StandingOut::default());
            }
            return TURN;
        };
        let next = self.read.map(|read| read + interval);
        if let Some(left) = next.map(|next| next.saturating_duration_since(now)).filter(|left| !left.is_zero()) {
            return left.min(TURN);
        }
        let windows = self.readings.take(&shared.counters);
        // The first reading only is where the first window begins.
        if self.read.replace(now).is_some() {
            judge(&snapshot, &windows, now, |service, told| tell(shared, service, told)).await;
        }
        interval.min(TURN)
    }
}

/// Compares the backends of each service.
async fn judge(snapshot: &Snapshot, windows: &Windows, now: Instant, tell: impl Fn(&str, &Told)) {
    for service in &snapshot.services {
        let name = service.config.name.as_str();
        let ids: HashSet<&str> = service.ids().into_iter().collect();
        let told = {
            let mut standing_out = service.live.standing_out();
            standing_out.retain(|id| ids.contains(id));
            standing_out.handle_window(windows.get(name).map_or(&[], Vec::as_slice), now)
        };
        tell(name, &told);
        // There may be many: nobody waits for all of them.
        tokio::task::yield_now().await;
    }
}

/// What each service's backends have done between two readings, where they have done anything.
type Windows = HashMap<Box<str>, Vec<Observed>>;

/// The numbers of backends that have had requests, as last read: by service and id.
#[derive(Default)]
struct Readings(HashMap<Box<str>, HashMap<Box<str>, Sums>>);

impl Readings {
    /// Reads anew. A backend that was not there before has had all its requests since.
    fn take(&mut self, counters: &Counters) -> Windows {
        let (mut before, mut windows) = (std::mem::take(&mut self.0), Windows::new());
        counters.backend_sums(
            |_| true,
            |service, id, sums| {
                if sums == Sums::default() {
                    return;
                }
                let earlier = before.get_mut(service).and_then(|backends| backends.remove(id)).unwrap_or_default();
                self.0.entry(service.into()).or_default().insert(id.into(), sums);
                let observed = observed(id, &sums.since(&earlier));
                if observed.requests > 0 {
                    windows.entry(service.into()).or_default().push(observed);
                }
            },
        );
        windows
    }
}

fn observed(id: &str, came: &Sums) -> Observed {
    // Class 0 has no response: the try failed, which is counted for itself, or it was given up, which says nothing.
    let responses: u64 = came.classes[1..].iter().sum();
    let timed: u64 = came.buckets.iter().sum();
    let half = timed.div_ceil(2);
    // Sessions and WebSockets last as long as clients want: that is no slowness.
    let is_its_own = came.classes[UPGRADED] + came.classes[SESSION] == 0;
    let below = came.buckets.iter().scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    Observed {
        id: id.into(),
        requests: responses + came.failures,
        failures: came.classes[SERVER_ERRORS] + came.failures,
        timed: if is_its_own { timed } else { 0 },
        mean_micros: came.duration_micros.checked_div(timed).unwrap_or(0),
        middle_bucket: below.take_while(|sum| *sum < half).count(),
    }
}

/// Logs what there is to tell of a service, and keeps it.
fn tell(shared: &Shared, service: &str, told: &Told) {
    let note = |to, backend: Option<&str>, text: &str| {
        let (backend, text) = (backend.unwrap_or_default().to_owned(), text.to_owned());
        let service = service.to_owned();
        shared.journal.note(&Happening { kind: "outlier", to, service, backend, text, ..Happening::default() });
    };
    if let [first, more @ ..] = &*told.stand_out {
        let text = named(&told.stand_out);
        tracing::warn!(service, backends = told.stand_out.len(), "backends of service {service} stand out: {text}");
        note("stands_out", more.is_empty().then_some(&first.id), &text);
    }
    if let [(first, _), more @ ..] = &*told.over {
        let over: Vec<String> = told.over.iter().map(|(id, reason)| format!("{id} (was {})", reason.name())).collect();
        let text = format!("no longer: {}", named(&over));
        tracing::info!(service, backends = over.len(), "backends of service {service} stand out {text}");
        note("over", more.is_empty().then_some(first), &text);
    }
    match told.whole {
        Some(Whole::Failing(failing)) => {
            let (text, requests) = (failing.to_string(), failing.requests);
            tracing::warn!(service, requests, "backends of service {service} are failing: {text}");
            note("failing", None, &text);
        }
        Some(Whole::Over) => {
            let text = "its backends are failing no longer, or some of them stand out";
            tracing::info!(service, "service {service}: {text}");
            note("over", None, text);
        }
        None => {}
    }
}

/// The first of them, and how many more there are.
fn named(all: &[impl Display]) -> String {
    let mut texts: Vec<String> = all.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if all.len() > NAMED_MAX {
        texts.push(format!("and {} more", all.len() - NAMED_MAX));
    }
    texts.join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::source::Source;
    use super::super::testing;
    use super::*;
    use ringway_health::Reason;
    use ringway_telemetry::counters::BackendCounters;

    /// Counts so many responses of a class that took so long.
    fn count(counters: &BackendCounters, class: usize, number: u64, millis: u64) {
        for _ in 0..number {
            counters.responses[class].increment();
            counters.durations.record(Duration::from_millis(millis));
        }
    }

    fn of<'a>(windows: &'a Windows, id: &str) -> Option<&'a Observed> {
        windows.get("s").and_then(|all| all.iter().find(|one| &*one.id == id))
    }

    #[test]
    fn a_window_is_what_all_workers_have_counted_between_two_readings() {
        let (counters, mut readings) = (Counters::default(), Readings::default());
        let (one, two) = (counters.backend("s", "a"), counters.backend("s", "a"));
        let _idle = counters.backend("s", "b");
        count(&one, 2, 30, 1);
        assert_eq!(of(&readings.take(&counters), "a").unwrap().requests, 30, "new: all it has had");
        count(&one, 2, 60, 1);
        count(&two, 5, 40, 200);
        two.responses[0].add(9);
        two.failures.add(4);
        let windows = readings.take(&counters);
        let expected = Observed {
            id: "a".into(),
            requests: 104,
            failures: 44,
            timed: 100,
            mean_micros: (60 * 1000 + 40 * 200_000) / 100,
            middle_bucket: 3,
        };
        assert_eq!((of(&windows, "a"), of(&windows, "b")), (Some(&expected), None));
        count(&one, SESSION, 1, 9000);
        count(&one, 2, 60, 1);
        assert_eq!(of(&readings.take(&counters), "a").unwrap().timed, 0, "sessions last as long as clients want");
        assert!(readings.take(&counters).is_empty(), "nothing has come since");
        assert!(!readings.0["s"].contains_key("b"), "who has nothing to do costs nothing");
    }

    #[test]
    fn counters_that_begin_anew_count_from_nothing_and_those_that_are_gone_are_forgotten() {
        let (counters, mut readings) = (Counters::default(), Readings::default());
        count(&counters.backend("s", "a"), 2, 500, 1);
        readings.take(&counters);
        counters.retain(|_| true, |_, _| false);
        assert!(readings.take(&counters).is_empty());
        assert!(readings.0.is_empty());
        count(&counters.backend("s", "a"), 5, 70, 1);
        assert_eq!(of(&readings.take(&counters), "a").unwrap().failures, 70);
        counters.retain(|_| true, |_, _| false);
        count(&counters.backend("s", "a"), 2, 60, 1);
        let windows = readings.take(&counters);
        assert_eq!((of(&windows, "a").unwrap().requests, of(&windows, "a").unwrap().failures), (60, 0));
    }

    #[test]
    fn a_line_names_three_and_how_many_more() {
        assert_eq!(named(&["a", "b", "c"]), "a; b; c");
        assert_eq!(named(&["a", "b", "c", "d", "e"]), "a; b; c; and 2 more");
    }

    #[tokio::test]
    async fn who_is_gone_or_not_to_be_told_is_shown_no_longer() {
        let (control, _receivers) = testing::control(Source::Memory);
        let config = |warnings: &str, backends: &str| {
            let entry = |id: &str| format!("{{ id: {id}, address: \"127.0.0.1:9\" }}");
            let backends: Vec<String> = backends.split(' ').map(entry).collect();
            testing::config(&format!(
                "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s }} ]\noutlier_warnings: {warnings}\n\
                 services: [ {{ name: s, backends: [ {} ] }} ]\n",
                backends.join(", ")
            ))
        };
        control.apply(config("{}", "a b c")).unwrap();
        let (shared, mut driver, mut now) = (control.shared(), Driver::default(), ambient::now());
        let cells = ["a", "b", "c"].map(|id| shared.counters.backend("s", id));
        let shown = || {
            let snapshot = shared.current.load();
            let standing_out = snapshot.service("s").unwrap().live.standing_out();
            Reason::ALL.map(|reason| standing_out.count(reason))
        };
        let events = || -> Vec<String> {
            shared
                .journal
                .entries()
                .iter()
                .filter(|(_, entry)| entry["kind"] == "outlier")
                .map(|(_, entry)| entry["to"].to_string())
                .collect()
        };
        count(&cells[0], 5, 400, 1);
        assert_eq!(driver.turn(&shared, now).await, TURN);
        let mut window = async |bad: [u64; 2]| {
            count(&cells[0], 5, bad[0], 1);
            cells.iter().for_each(|cells| count(cells, 2, 100, 1));
            count(&cells[1], 2, bad[1], 300);
            now += Duration::from_secs(59);
            assert_eq!(driver.turn(&shared, now).await, TURN, "not yet");
            now += Duration::from_secs(1);
            driver.turn(&shared, now).await;
            shown()
        };
        assert_eq!(window([0, 0]).await, [0, 0], "what was before the first reading is not told");
        assert_eq!(window([100, 200]).await, [1, 1]);
        assert_eq!(events(), ["\"stands_out\""]);
        assert_eq!(window([100, 200]).await, [1, 1]);
        assert_eq!(events().len(), 1, "it is told once");
        control.apply(config("{ interval: 60s }", "b c")).unwrap();
        assert_eq!(window([100, 200]).await[0], 0, "it is gone");
        control.apply(config("{ enabled: false }", "b c")).unwrap();
        now += Duration::from_secs(1);
        driver.turn(&shared, now).await;
        assert_eq!(shown(), [0, 0]);
    }
}
