//! What `/metrics` serves of the data path: counters summed over workers, then what went through the facade.

use crate::catalogue::{self, Kind, Metric};
use crate::counters::{BUCKETS_MICROS, CLASS_NAMES, CLASSES, Cell, Durations, Registry, RetryLimit};
use crate::counters::{BackendCounters, ServiceCounters, WorkerCounters};
use crate::exemplars::PerBucket;
use crate::exposition::{Bounds, Format, LabelSets, Page};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;

/// The metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    /// The data path's numbers.
    pub counters: Arc<Registry>,
    facade: PrometheusHandle,
}

/// How much a page says of each backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OfBackends {
    /// Nothing.
    Nothing,
    /// One number of each metric.
    Numbers,
    /// Durations, classes and states too.
    All,
}

impl Metrics {
    /// Installs the recorder of the `metrics` facade, once per process; a second call records nowhere but in counters.
    #[must_use]
    pub fn install() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let facade = recorder.handle();
        // An error means that another recorder is installed already (several proxies in one test process).
        let _ = metrics::set_global_recorder(recorder);
        for metric in catalogue::ALL {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
        Self { counters: Arc::default(), facade }
    }

    /// The whole page; `rest` writes what is read at a scrape.
    #[must_use]
    pub fn page(&self, format: Format, of_backends: OfBackends, rest: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(format, 64 * 1024);
        let bounds = Bounds::new(&BUCKETS_MICROS, format);
        self.services(&mut page, &bounds);
        if of_backends > OfBackends::Nothing {
            BackendSums::new(&self.counters).write(&mut page, &bounds, of_backends);
        }
        self.workers(&mut page);
        let metric = catalogue::LOCAL_SHORTAGE;
        page.head(&metric);
        self.counters.for_shortages(|operation, resource, count| {
            page.sample(&metric, &[operation, resource], count as f64);
        });
        rest(&mut page);
        page.append(&self.facade.render());
        page.finish()
    }

    fn services(&self, page: &mut Page, bounds: &Bounds) {
        page.head(&catalogue::REQUESTS);
        self.counters.for_services(|name, counters| {
            for (class, label) in CLASS_NAMES.iter().enumerate() {
                let sum = sum(counters, |counters| &counters.requests[class]);
                page.sample(&catalogue::REQUESTS, &[name, label], sum as f64);
            }
        });
        self.service_counters(page);
        page.head(&catalogue::REQUEST_DURATION);
        self.counters.for_services(|name, counters| {
            let mut labels = LabelSets::default();
            labels.push(&[("service", name)]);
            let (mut buckets, mut sum_micros, mut exemplars) = ([0; BUCKETS], 0, PerBucket::default());
            for counters in counters {
                add_durations(&counters.durations, &mut buckets, &mut sum_micros);
                counters.exemplars.add_to(&mut exemplars);
            }
            let counted = (&buckets[..], sum_micros as f64 / 1e6);
            for labels in labels.iter() {
                page.histogram(&catalogue::REQUEST_DURATION, labels, bounds, counted, Some(&exemplars));
            }
        });
        for (metric, of_service) in [(catalogue::PROXY_ERRORS, true), (catalogue::REJECTED, false)] {
            page.head(&metric);
            self.counters.for_errors(|name, reason, count| {
                if of_service && !name.is_empty() {
                    page.sample(&metric, &[name, reason], count as f64);
                } else if !of_service && name.is_empty() {
                    page.sample(&metric, &[reason], count as f64);
                }
            });
        }
    }

    /// Those that count one thing of a service each.
    fn service_counters(&self, page: &mut Page) {
        for (metric, pick) in [
            (catalogue::RETRIES, (|counters| &counters.retries) as fn(&ServiceCounters) -> &Cell),
            (catalogue::SPILLS, |counters| &counters.spills),
            (catalogue::KEPT, |counters| &counters.kept),
            (catalogue::OWNED, |counters| &counters.owned),
            (catalogue::KEYED, |counters| &counters.keyed),
            (catalogue::SPILL_DISTANCE, |counters| &counters.distance),
            (catalogue::HOT, |counters| &counters.hot),
            (catalogue::BUDGET_EXHAUSTED, |counters| &counters.retries_refused[RetryLimit::Budget as usize]),
            (catalogue::HEDGES, |counters| &counters.hedges),
            (catalogue::HEDGES_WON, |counters| &counters.hedges_won),
            (catalogue::HEDGE_BUDGET_EXHAUSTED, |counters| &counters.hedges_refused),
            (catalogue::HANDOFF_PREVIOUS, |counters| &counters.handoff_previous),
            (catalogue::HANDOFF_COPIES, |counters| &counters.handoff_copies),
            (catalogue::HANDOFF_COPIES_FAILED, |counters| &counters.handoff_copies_failed),
            (catalogue::HANDOFF_COPIES_REFUSED, |counters| &counters.handoff_copies_refused),
            (catalogue::HANDOFF_MOVED, |counters| &counters.handoff_moved),
            (catalogue::MIRRORED, |counters| &counters.mirrored),
            (catalogue::MIRROR_LEFT_OUT, |counters| &counters.mirror_left_out),
            (catalogue::SHADOWED, |counters| &counters.shadowed),
            (catalogue::SHADOW_MOVED, |counters| &counters.shadow_moved),
            (catalogue::QUEUED, |counters| &counters.queued),
            (catalogue::ADDITIONAL_CONNECTS, |counters| &counters.additional_connects),
        ] {
            page.head(&metric);
            self.counters.for_services(|name, counters| {
                page.sample(&metric, &[name], sum(counters, pick) as f64);
            });
        }
        let metric = catalogue::RETRIES_REFUSED;
        page.head(&metric);
        self.counters.for_services(|name, counters| {
            for limit in RetryLimit::ALL {
                let sum = sum(counters, |counters| &counters.retries_refused[limit as usize]);
                page.sample(&metric, &[name, limit.name()], sum as f64);
            }
        });
    }

    fn workers(&self, page: &mut Page) {
        for (metric, pick, others) in [
            (catalogue::RECEIVED_BYTES, (|counters| &counters.received_bytes) as fn(&WorkerCounters) -> &Cell, 0),
            (catalogue::SENT_BYTES, |counters| &counters.sent_bytes, 0),
            (catalogue::CONNECTIONS, |counters| &counters.connections, 0),
            (catalogue::ACCEPTED, |counters| &counters.accepted, 0),
            (catalogue::UPSTREAM_IDLE, |counters| &counters.upstream_idle, 0),
            (catalogue::PIPES, |counters| &counters.pipes, 0),
            (catalogue::SPLICED_BYTES, |counters| &counters.spliced_bytes, 0),
            (catalogue::ACCEPT_ERRORS, |counters| &counters.accept_errors, 0),
            (catalogue::COMPRESSED, |counters| &counters.compressed, 0),
            (catalogue::COMPRESSION_SKIPPED, |counters| &counters.compression_skipped, 0),
            (catalogue::COMPRESSION_INPUT, |counters| &counters.compression_input, 0),
            (catalogue::COMPRESSION_OUTPUT, |counters| &counters.compression_output, 0),
            (catalogue::ACCESS_LOG_LOST, |counters| &counters.access_log_lost, self.counters.unwritten_lines()),
            (catalogue::PANICS, |counters| &counters.panics, self.counters.panics()),
        ] {
            self.counters.for_workers(|counters| page.single(&metric, sum(counters, pick).wrapping_add(others) as f64));
        }
        let metric = catalogue::TRACE_SPANS;
        page.head(&metric);
        for (outcome, spans) in self.counters.spans.all() {
            page.sample(&metric, &[outcome.name()], spans as f64);
        }
    }
}

const BUCKETS: usize = BUCKETS_MICROS.len() + 1;
type OfBackend = fn(&BackendCounters) -> &Cell;
/// Metrics of backends that are one number each.
const NUMBERS: [(Metric, OfBackend); 5] = [
    (catalogue::BACKEND_REQUESTS, |counters| &counters.requests),
    (catalogue::BACKEND_FAILURES, |counters| &counters.failures),
    (catalogue::BACKEND_SPILLS, |counters| &counters.spills),
    (catalogue::BACKEND_CONNECTS, |counters| &counters.connects),
    (catalogue::BACKEND_PRECONNECTS, |counters| &counters.preconnects),
];

/// The numbers of all backends, read in one go: workers that take over a new version wait for no page to be written.
#[derive(Default)]
struct BackendSums {
    labels: LabelSets,
    sums: Vec<BackendSum>,
}

/// A backend's numbers, over all workers.
#[derive(Default)]
struct BackendSum {
    numbers: [u64; NUMBERS.len()],
    responses: [u64; CLASSES],
    buckets: [u64; BUCKETS],
    sum_micros: u64,
}

impl BackendSums {
    fn new(counters: &Registry) -> Self {
        let mut all = Self::default();
        counters.for_backends(|service, id, workers| {
            all.labels.push(&[("service", service), ("backend", id)]);
            all.sums.push(BackendSum::of(workers));
        });
        all
    }

    fn write(&self, page: &mut Page, bounds: &Bounds, of_backends: OfBackends) {
        for (index, (metric, _)) in NUMBERS.iter().enumerate() {
            page.head(metric);
            for (labels, sum) in self.labels.iter().zip(&self.sums) {
                page.labelled(metric, labels, sum.numbers[index] as f64);
            }
        }
        if of_backends < OfBackends::All {
            return;
        }
        let metric = catalogue::BACKEND_RESPONSES;
        page.head(&metric);
        for (labels, sum) in self.labels.iter().zip(&self.sums) {
            for (count, class) in sum.responses.iter().zip(CLASS_NAMES) {
                page.labelled_with(&metric, labels, class, *count as f64);
            }
        }
        let metric = catalogue::BACKEND_REQUEST_DURATION;
        page.head(&metric);
        for (labels, sum) in self.labels.iter().zip(&self.sums) {
            page.histogram(&metric, labels, bounds, (&sum.buckets, sum.sum_micros as f64 / 1e6), None);
        }
    }
}

impl BackendSum {
    fn of(workers: &[Arc<BackendCounters>]) -> Self {
        let mut all = Self::default();
        for counters in workers {
            for (sum, (_, pick)) in all.numbers.iter_mut().zip(NUMBERS) {
                *sum = sum.wrapping_add(pick(counters).get());
            }
            for (sum, cell) in all.responses.iter_mut().zip(&counters.responses) {
                *sum = sum.wrapping_add(cell.get());
            }
            add_durations(&counters.durations, &mut all.buckets, &mut all.sum_micros);
        }
        all
    }
}

fn add_durations(durations: &Durations, buckets: &mut [u64; BUCKETS], sum_micros: &mut u64) {
    for (sum, cell) in buckets.iter_mut().zip(&durations.buckets) {
        *sum = sum.wrapping_add(cell.get());
    }
    *sum_micros = sum_micros.wrapping_add(durations.sum_micros.get());
}

fn sum<T>(counters: &[Arc<T>], pick: impl Fn(&T) -> &Cell) -> u64 {
    counters.iter().fold(0, |sum, counters| sum.wrapping_add(pick(counters).get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn metrics() -> Metrics {
        Metrics { counters: Arc::default(), facade: PrometheusBuilder::new().build_recorder().handle() }
    }

    fn render(metrics: &Metrics) -> String {
        metrics.page(Format::Text, OfBackends::All, |_| {})
    }

    /// The number of the only line that begins so.
    fn number(text: &str, line: &str) -> f64 {
        let found: Vec<&str> = text.lines().filter_map(|text| text.strip_prefix(line)).collect();
        assert_eq!(found.len(), 1, "{line} in {text}");
        found[0].trim().parse().unwrap()
    }

    #[test]
    fn numbers_of_all_workers_are_summed() {
        let metrics = metrics();
        for amount in [1, 2] {
            let service = metrics.counters.service("s");
            service.requests[2].add(amount);
            service.spills.add(10 * amount);
            metrics.counters.backend("s", "b").requests.add(100 * amount);
            metrics.counters.worker().sent_bytes.add(1000 * amount);
        }
        let text = render(&metrics);
        assert_eq!(number(&text, "ringway_requests_total{service=\"s\",class=\"2xx\"}"), 3.0);
        assert_eq!(number(&text, "ringway_requests_total{service=\"s\",class=\"5xx\"}"), 0.0);
        assert_eq!(number(&text, &format!("{}{{service=\"s\"}}", catalogue::SPILLS.name)), 30.0);
        assert_eq!(
            number(&text, &format!("{}{{service=\"s\",backend=\"b\"}}", catalogue::BACKEND_REQUESTS.name)),
            300.0
        );
        assert_eq!(number(&text, &format!("{} ", catalogue::SENT_BYTES.name)), 3000.0);
    }

    #[test]
    fn a_duration_counts_in_its_bucket_and_in_all_above() {
        let metrics = metrics();
        let durations = &metrics.counters.service("s").durations;
        for micros in [100, 101, 250, 61_000_000] {
            durations.record(Duration::from_micros(micros));
        }
        let text = render(&metrics);
        let name = catalogue::REQUEST_DURATION.name;
        let bucket = |le: &str| number(&text, &format!("{name}_bucket{{service=\"s\",le=\"{le}\"}}"));
        assert_eq!(
            [bucket("0.0001"), bucket("0.00025"), bucket("0.0005"), bucket("60"), bucket("+Inf")],
            [1.0, 3.0, 3.0, 3.0, 4.0]
        );
        assert_eq!(number(&text, &format!("{name}_count{{service=\"s\"}}")), 4.0);
        assert_eq!(number(&text, &format!("{name}_sum{{service=\"s\"}}")), 61.000_451);
    }

    #[test]
    fn a_page_says_of_backends_what_it_is_told_to_and_every_metric_has_one_place() {
        let metrics = metrics();
        let counters = metrics.counters.backend("s", "b");
        counters.count_try(2, crate::counters::Measured::new(Duration::from_millis(3)));
        for (of_backends, all) in [(OfBackends::Nothing, 0), (OfBackends::Numbers, 5), (OfBackends::All, 7)] {
            let text = metrics.page(Format::Text, of_backends, |_| {});
            let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            assert_eq!(types.iter().filter(|line| line.starts_with("ringway_backend_")).count(), all);
            assert_eq!(types.iter().collect::<std::collections::BTreeSet<_>>().len(), types.len());
        }
        let text = render(&metrics);
        let of = |what: &str| number(&text, &format!("ringway_backend_{what}"));
        assert_eq!(of("responses_total{service=\"s\",backend=\"b\",class=\"2xx\"}"), 1.0);
        assert_eq!(of("request_duration_seconds_bucket{service=\"s\",backend=\"b\",le=\"0.0025\"}"), 0.0);
        assert_eq!(of("request_duration_seconds_bucket{service=\"s\",backend=\"b\",le=\"0.005\"}"), 1.0);
        assert_eq!(of("request_duration_seconds_sum{service=\"s\",backend=\"b\"}"), 0.003);
        let measured = crate::counters::Measured::new(Duration::from_millis(700));
        let service = metrics.counters.service("s");
        service.durations.count(measured);
        service.exemplars.note(measured, 0xab, 1_700_000_000_007);
        assert!(!render(&metrics).contains("trace_id"), "the other form has no place for it");
        let open = metrics.page(Format::OpenMetrics, OfBackends::All, |_| {});
        let exemplar = "le=\"1.0\"} 1 # {trace_id=\"000000000000000000000000000000ab\"} 0.7 1700000000.007\n";
        assert!(open.contains(exemplar), "{open}");
        assert!(open.contains("# TYPE ringway_backend_responses counter\n"), "{open}");
        assert!(open.contains(",le=\"1.0\"} 1\n") && open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn errors_with_a_service_and_without_one_are_different_metrics() {
        let metrics = metrics();
        metrics.counters.error("s", "timeout");
        metrics.counters.error("", "no_route");
        metrics.counters.error("", "no_route");
        let text = render(&metrics);
        assert_eq!(
            number(&text, &format!("{}{{service=\"s\",reason=\"timeout\"}}", catalogue::PROXY_ERRORS.name)),
            1.0
        );
        assert_eq!(number(&text, &format!("{}{{reason=\"no_route\"}}", catalogue::REJECTED.name)), 2.0);
        assert!(!text.contains("{service=\"\""), "{text}");
    }

    #[test]
    fn panics_and_lost_lines_count_wherever_they_happened() {
        let metrics = metrics();
        metrics.counters.worker().panics.increment();
        metrics.counters.note_panic();
        metrics.counters.access_log_lost(5);
        let text = render(&metrics);
        assert_eq!(number(&text, &format!("{} ", catalogue::PANICS.name)), 2.0);
        assert_eq!(number(&text, &format!("{} ", catalogue::ACCESS_LOG_LOST.name)), 5.0);
    }

    #[test]
    fn what_is_no_longer_configured_is_forgotten() {
        let metrics = metrics();
        for service in ["a", "b"] {
            metrics.counters.service(service).requests[1].increment();
            metrics.counters.backend(service, "x").requests.increment();
            metrics.counters.error(service, "timeout");
        }
        metrics.counters.error("", "no_route");
        metrics.counters.retain(|service| service == "a", |service, _| service == "a");
        let text = render(&metrics);
        assert!(text.contains("service=\"a\"") && !text.contains("service=\"b\""), "{text}");
        assert!(text.contains("reason=\"no_route\""));
        assert_eq!((metrics.counters.backend_requests("a", "x"), metrics.counters.backend_requests("b", "x")), (1, 0));
    }
}
