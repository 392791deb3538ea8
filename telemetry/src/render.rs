//! The Prometheus text that `/metrics` serves: cells summed over workers, then what went through the facade.

use crate::catalogue::{self, Kind, Metric};
use crate::cells::{BUCKETS_MICROS, CLASSES, Cell, Registry, RetryLimit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::fmt::Write;
use std::sync::Arc;

/// The metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    /// The data path's numbers.
    pub cells: Arc<Registry>,
    facade: PrometheusHandle,
}

/// A gauge that the caller reads at scrape time: metric, label values, number.
pub type Sample = (Metric, Vec<String>, f64);

impl Metrics {
    /// Installs the recorder of the `metrics` facade, once per process; a second call records nowhere but in cells.
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
        Self { cells: Arc::default(), facade }
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
        const NAMES: [&str; CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "session"];
        text.head(&catalogue::REQUESTS);
        self.cells.for_services(|name, cells| {
            for (class, label) in NAMES.iter().enumerate() {
                let sum = sum(cells, |cells| &cells.requests[class]);
                text.sample(catalogue::REQUESTS.name, catalogue::REQUESTS.labels, &[name, label], sum as f64);
            }
        });
        self.service_counters(text);
        self.durations(text);
        for (metric, of_service) in [(catalogue::PROXY_ERRORS, true), (catalogue::REJECTED, false)] {
            text.head(&metric);
            self.cells.for_errors(|name, reason, count| {
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
            (catalogue::RETRIES, (|cells| &cells.retries) as fn(&crate::cells::ServiceCells) -> &Cell),
            (catalogue::SPILLS, |cells| &cells.spills),
            (catalogue::KEPT, |cells| &cells.kept),
            (catalogue::OWNED, |cells| &cells.owned),
            (catalogue::KEYED, |cells| &cells.keyed),
            (catalogue::SPILL_DISTANCE, |cells| &cells.distance),
            (catalogue::HOT, |cells| &cells.hot),
            (catalogue::BUDGET_EXHAUSTED, |cells| &cells.retries_refused[RetryLimit::Budget as usize]),
            (catalogue::HEDGES, |cells| &cells.hedges),
            (catalogue::HEDGES_WON, |cells| &cells.hedges_won),
            (catalogue::HEDGE_BUDGET_EXHAUSTED, |cells| &cells.hedges_refused),
            (catalogue::SHADOWED, |cells| &cells.shadowed),
            (catalogue::SHADOW_MOVED, |cells| &cells.shadow_moved),
            (catalogue::QUEUED, |cells| &cells.queued),
        ] {
            text.head(&metric);
            self.cells.for_services(|name, cells| {
                text.sample(metric.name, metric.labels, &[name], sum(cells, pick) as f64);
            });
        }
        let metric = catalogue::RETRIES_REFUSED;
        text.head(&metric);
        self.cells.for_services(|name, cells| {
            for limit in RetryLimit::ALL {
                let sum = sum(cells, |cells| &cells.retries_refused[limit as usize]);
                text.sample(metric.name, metric.labels, &[name, limit.name()], sum as f64);
            }
        });
    }

    fn durations(&self, text: &mut Text) {
        let metric = catalogue::REQUEST_DURATION;
        text.head(&metric);
        self.cells.for_services(|name, cells| {
            let mut count = 0;
            for (index, bound) in
                BUCKETS_MICROS.iter().map(|&micros| micros as f64 / 1e6).chain([f64::INFINITY]).enumerate()
            {
                count += sum(cells, |cells| &cells.durations.buckets[index]);
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
                text.sample(&format!("{}_bucket", metric.name), &["service", "le"], &[name, &bound], count as f64);
            }
            let total = sum(cells, |cells| &cells.durations.sum_micros) as f64 / 1e6;
            text.sample(&format!("{}_sum", metric.name), metric.labels, &[name], total);
            text.sample(&format!("{}_count", metric.name), metric.labels, &[name], count as f64);
        });
    }

    fn shortages(&self, text: &mut Text) {
        let metric = catalogue::LOCAL_SHORTAGE;
        text.head(&metric);
        self.cells.for_shortages(|operation, resource, count| {
            text.sample(metric.name, metric.labels, &[operation, resource], count as f64);
        });
    }

    fn backends(&self, text: &mut Text) {
        for (metric, pick) in [
            (catalogue::BACKEND_REQUESTS, (|cells| &cells.requests) as fn(&crate::cells::BackendCells) -> &Cell),
            (catalogue::BACKEND_FAILURES, |cells| &cells.failures),
            (catalogue::BACKEND_CONNECTS, |cells| &cells.connects),
        ] {
            text.head(&metric);
            self.cells.for_backends(|service, id, cells| {
                text.sample(metric.name, metric.labels, &[service, id], sum(cells, pick) as f64);
            });
        }
    }

    fn workers(&self, text: &mut Text) {
        for (metric, pick) in [
            (catalogue::RECEIVED_BYTES, (|cells| &cells.received_bytes) as fn(&crate::cells::WorkerCells) -> &Cell),
            (catalogue::SENT_BYTES, |cells| &cells.sent_bytes),
            (catalogue::CONNECTIONS, |cells| &cells.connections),
            (catalogue::ACCEPTED, |cells| &cells.accepted),
            (catalogue::UPSTREAM_IDLE, |cells| &cells.upstream_idle),
            (catalogue::ACCEPT_ERRORS, |cells| &cells.accept_errors),
            (catalogue::COMPRESSED, |cells| &cells.compressed),
            (catalogue::COMPRESSION_SKIPPED, |cells| &cells.compression_skipped),
            (catalogue::COMPRESSION_INPUT, |cells| &cells.compression_input),
            (catalogue::COMPRESSION_OUTPUT, |cells| &cells.compression_output),
        ] {
            text.head(&metric);
            self.cells.for_workers(|cells| text.sample(metric.name, metric.labels, &[], sum(cells, pick) as f64));
        }
        for (metric, pick, others) in [
            (
                catalogue::ACCESS_LOG_LOST,
                (|cells| &cells.access_log_lost) as fn(&crate::cells::WorkerCells) -> &Cell,
                self.cells.unwritten_lines(),
            ),
            (catalogue::PANICS, |cells| &cells.panics, self.cells.panics()),
        ] {
            text.head(&metric);
            self.cells.for_workers(|cells| {
                let all = sum(cells, pick).wrapping_add(others);
                text.sample(metric.name, metric.labels, &[], all as f64);
            });
        }
    }
}

fn sum<T>(cells: &[Arc<T>], pick: impl Fn(&T) -> &Cell) -> u64 {
    cells.iter().fold(0, |sum, cells| sum.wrapping_add(pick(cells).get()))
}

/// Text exposition format 0.0.4.
struct Text(String);

impl Text {
    fn head(&mut self, metric: &Metric) {
        // Writing to a String does not fail.
        let _ =
            writeln!(self.0, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind.as_str());
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
