//! The Prometheus text that `/metrics` serves: counters summed over workers, then what went through the facade.

use crate::catalogue::{self, Kind, Metric};
use crate::counters::{BUCKETS_MICROS, CLASS_NAMES, Cell, Durations, Registry, RetryLimit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::fmt::Write;
use std::sync::Arc;

/// The metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    /// The data path's numbers.
    pub counters: Arc<Registry>,
    facade: PrometheusHandle,
}

/// A gauge that the caller reads at scrape time: metric, label values, number.
pub type Sample = (Metric, Vec<String>, f64);

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

    /// The whole text.
    #[must_use]
    pub fn render(&self, samples: &[Sample]) -> String {
        let mut text = Text(String::with_capacity(16 * 1024));
        self.services(&mut text);
        self.backends(&mut text);
        self.workers(&mut text);
        self.shortages(&mut text);
        let mut last = "";
        for (metric, labels, value) in samples {
            if metric.name != last {
                text.head(metric);
                last = metric.name;
            }
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            text.sample(metric.name, metric.labels, &labels, *value);
        }
        text.0.push_str(&self.facade.render());
        text.0
    }

    fn services(&self, text: &mut Text) {
        text.head(&catalogue::REQUESTS);
        self.counters.for_services(|name, counters| {
            for (class, label) in CLASS_NAMES.iter().enumerate() {
                let sum = sum(counters, |counters| &counters.requests[class]);
                text.sample(catalogue::REQUESTS.name, catalogue::REQUESTS.labels, &[name, label], sum as f64);
            }
        });
        self.service_counters(text);
        self.durations(text);
        for (metric, of_service) in [(catalogue::PROXY_ERRORS, true), (catalogue::REJECTED, false)] {
            text.head(&metric);
            self.counters.for_errors(|name, reason, count| {
                if of_service && !name.is_empty() {
                    text.sample(metric.name, metric.labels, &[name, reason], count as f64);
                } else if !of_service && name.is_empty() {
                    text.sample(metric.name, metric.labels, &[reason], count as f64);
                }
            });
        }
    }

    /// Those that count one thing of a service each.
    fn service_counters(&self, text: &mut Text) {
        for (metric, pick) in [
            (catalogue::RETRIES, (|counters| &counters.retries) as fn(&crate::counters::ServiceCounters) -> &Cell),
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
            (catalogue::SHADOWED, |counters| &counters.shadowed),
            (catalogue::SHADOW_MOVED, |counters| &counters.shadow_moved),
            (catalogue::QUEUED, |counters| &counters.queued),
        ] {
            text.head(&metric);
            self.counters.for_services(|name, counters| {
                text.sample(metric.name, metric.labels, &[name], sum(counters, pick) as f64);
            });
        }
        let metric = catalogue::RETRIES_REFUSED;
        text.head(&metric);
        self.counters.for_services(|name, counters| {
            for limit in RetryLimit::ALL {
                let sum = sum(counters, |counters| &counters.retries_refused[limit as usize]);
                text.sample(metric.name, metric.labels, &[name, limit.name()], sum as f64);
            }
        });
    }

    fn durations(&self, text: &mut Text) {
        let metric = catalogue::REQUEST_DURATION;
        text.head(&metric);
        self.counters.for_services(|name, counters| {
            text.histogram(&metric, &[name], counters, |counters| &counters.durations);
        });
    }

    fn shortages(&self, text: &mut Text) {
        let metric = catalogue::LOCAL_SHORTAGE;
        text.head(&metric);
        self.counters.for_shortages(|operation, resource, count| {
            text.sample(metric.name, metric.labels, &[operation, resource], count as f64);
        });
    }

    fn backends(&self, text: &mut Text) {
        for (metric, pick) in [
            (
                catalogue::BACKEND_REQUESTS,
                (|counters| &counters.requests) as fn(&crate::counters::BackendCounters) -> &Cell,
            ),
            (catalogue::BACKEND_FAILURES, |counters| &counters.failures),
            (catalogue::BACKEND_CONNECTS, |counters| &counters.connects),
            (catalogue::BACKEND_PRECONNECTS, |counters| &counters.preconnects),
        ] {
            text.head(&metric);
            self.counters.for_backends(|service, id, counters| {
                text.sample(metric.name, metric.labels, &[service, id], sum(counters, pick) as f64);
            });
        }
        let metric = catalogue::BACKEND_RESPONSES;
        text.head(&metric);
        self.counters.for_backends(|service, id, counters| {
            for (class, label) in CLASS_NAMES.iter().enumerate() {
                let sum = sum(counters, |counters| &counters.responses[class]);
                text.sample(metric.name, metric.labels, &[service, id, label], sum as f64);
            }
        });
        let metric = catalogue::BACKEND_REQUEST_DURATION;
        text.head(&metric);
        self.counters.for_backends(|service, id, counters| {
            text.histogram(&metric, &[service, id], counters, |counters| &counters.durations);
        });
    }

    fn workers(&self, text: &mut Text) {
        for (metric, pick) in [
            (
                catalogue::RECEIVED_BYTES,
                (|counters| &counters.received_bytes) as fn(&crate::counters::WorkerCounters) -> &Cell,
            ),
            (catalogue::SENT_BYTES, |counters| &counters.sent_bytes),
            (catalogue::CONNECTIONS, |counters| &counters.connections),
            (catalogue::ACCEPTED, |counters| &counters.accepted),
            (catalogue::UPSTREAM_IDLE, |counters| &counters.upstream_idle),
            (catalogue::ACCEPT_ERRORS, |counters| &counters.accept_errors),
            (catalogue::COMPRESSED, |counters| &counters.compressed),
            (catalogue::COMPRESSION_SKIPPED, |counters| &counters.compression_skipped),
            (catalogue::COMPRESSION_INPUT, |counters| &counters.compression_input),
            (catalogue::COMPRESSION_OUTPUT, |counters| &counters.compression_output),
        ] {
            text.head(&metric);
            self.counters
                .for_workers(|counters| text.sample(metric.name, metric.labels, &[], sum(counters, pick) as f64));
        }
        for (metric, pick, others) in [
            (
                catalogue::ACCESS_LOG_LOST,
                (|counters| &counters.access_log_lost) as fn(&crate::counters::WorkerCounters) -> &Cell,
                self.counters.unwritten_lines(),
            ),
            (catalogue::PANICS, |counters| &counters.panics, self.counters.panics()),
        ] {
            text.head(&metric);
            self.counters.for_workers(|counters| {
                let all = sum(counters, pick).wrapping_add(others);
                text.sample(metric.name, metric.labels, &[], all as f64);
            });
        }
    }
}

fn sum<T>(counters: &[Arc<T>], pick: impl Fn(&T) -> &Cell) -> u64 {
    counters.iter().fold(0, |sum, counters| sum.wrapping_add(pick(counters).get()))
}

/// Text exposition format 0.0.4.
struct Text(String);

impl Text {
    fn head(&mut self, metric: &Metric) {
        // Writing to a String does not fail.
        let _ =
            writeln!(self.0, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind.as_str());
    }

    fn histogram<T>(&mut self, metric: &Metric, values: &[&str], counters: &[Arc<T>], pick: impl Fn(&T) -> &Durations) {
        let (mut labels, mut count) = (metric.labels.to_vec(), 0);
        labels.push("le");
        for (index, bound) in
            BUCKETS_MICROS.iter().map(|&micros| micros as f64 / 1e6).chain([f64::INFINITY]).enumerate()
        {
            count += sum(counters, |counters| &pick(counters).buckets[index]);
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
            let values: Vec<&str> = values.iter().copied().chain([&*bound]).collect();
            self.sample(&format!("{}_bucket", metric.name), &labels, &values, count as f64);
        }
        let total = sum(counters, |counters| &pick(counters).sum_micros) as f64 / 1e6;
        self.sample(&format!("{}_sum", metric.name), metric.labels, values, total);
        self.sample(&format!("{}_count", metric.name), metric.labels, values, count as f64);
    }

    fn sample(&mut self, name: &str, labels: &[&str], values: &[&str], number: f64) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let mut separator = '{';
            for (label, value) in labels.iter().zip(values) {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{separator}{label}=\"{value}\"");
                separator = ',';
            }
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {number}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn metrics() -> Metrics {
        Metrics { counters: Arc::default(), facade: PrometheusBuilder::new().build_recorder().handle() }
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
        let text = metrics.render(&[]);
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
        let text = metrics.render(&[]);
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
    fn errors_with_a_service_and_without_one_are_different_metrics() {
        let metrics = metrics();
        metrics.counters.error("s", "timeout");
        metrics.counters.error("", "no_route");
        metrics.counters.error("", "no_route");
        let text = metrics.render(&[]);
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
        let text = metrics.render(&[]);
        assert_eq!(number(&text, &format!("{} ", catalogue::PANICS.name)), 2.0);
        assert_eq!(number(&text, &format!("{} ", catalogue::ACCESS_LOG_LOST.name)), 5.0);
    }

    #[test]
    fn labels_are_escaped_and_a_metric_is_described_once_however_many_samples_it_has() {
        let sample = |value: &str| (catalogue::REQUESTS, vec![value.to_owned(), "x".to_owned()], 1.5);
        let mut text = Text(String::new());
        text.sample("m", &["l"], &["a\"b\\c\nd"], 1.0);
        assert_eq!(text.0, "m{l=\"a\\\"b\\\\c\\nd\"} 1\n");
        let metrics = metrics();
        let before = metrics.render(&[]).matches("# TYPE ringway_requests_total ").count();
        let text = metrics.render(&[sample("a"), sample("b")]);
        assert_eq!(text.matches("# TYPE ringway_requests_total ").count(), before + 1);
        assert!(
            text.contains("{service=\"a\",class=\"x\"} 1.5\n") && text.contains("{service=\"b\",class=\"x\"} 1.5\n")
        );
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
        let text = metrics.render(&[]);
        assert!(text.contains("service=\"a\"") && !text.contains("service=\"b\""), "{text}");
        assert!(text.contains("reason=\"no_route\""));
        assert_eq!((metrics.counters.backend_requests("a", "x"), metrics.counters.backend_requests("b", "x")), (1, 0));
    }
}
