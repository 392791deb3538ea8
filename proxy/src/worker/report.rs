//! What a worker tells of itself: counts of what it has, and the backends that it has most to do with.

use super::active_listener::ActiveListener;
use super::context::Worker;
use super::view::View;
use crate::ambient;
use crate::dispatcher::{BufferCounts, ListenerReport, UpstreamReport, WorkerReport};
use std::cmp::Reverse;
use std::rc::Rc;
use std::sync::Arc;

impl Worker {
    /// Books what keys have been in flight that still are, where hot ones are looked for.
    pub(crate) fn book_keys(&self) {
        if self.view().services.iter().any(|this| this.service.looks_for_hot_keys) {
            self.sessions.book_keys(&self.booked, ambient::now());
        }
    }

    /// All but what its loop alone knows; of its backends so many at most. With none, nothing is said of its listeners either.
    pub(crate) fn report(&self, rows_max: usize) -> WorkerReport {
        let view = self.view();
        let (listeners, upstreams) = match rows_max {
            0 => (Vec::new(), Vec::new()),
            _ => (self.listeners(), self.upstreams(&view, rows_max)),
        };
        let (connections_by, under_way_by) = self.sessions.counts_by();
        WorkerReport {
            generation: view.snapshot.generation,
            is_draining: self.is_draining(),
            timers: self.timers.in_use(),
            timers_armed: self.timers.armed(),
            connections: self.open.get(),
            connections_by,
            under_way_by,
            buffers: self.buffer_counts(),
            http2_body_bytes: self.http2_memory.used_bytes(),
            http2_heads: self.http2_memory.heads_waiting(),
            http2_window_bytes: self.http2_memory.grown_bytes(),
            http2_kept_bytes: self.http2_memory.kept_bytes(),
            replay_bytes: self.kept_bytes.get(),
            mirrors: self.mirroring.get(),
            compressions: self.compressing.get(),
            bulk_waiting: self.bulk.waiting(),
            listeners,
            backends: view.services.iter().map(|service| service.upstreams.len()).sum(),
            upstreams,
            ..WorkerReport::default()
        }
    }

    fn buffer_counts(&self) -> BufferCounts {
        let (small_kept, large_kept, heads_kept) = self.buffers.kept();
        BufferCounts { small_kept, large_kept, heads_kept, large_used: self.buffers.large_out() }
    }

    /// Those that it accepts from, and those that are closed but for their connections.
    fn listeners(&self) -> Vec<ListenerReport> {
        let mut all = self.sessions.by_listener();
        for listener in self.listening.borrow().values() {
            if !all.iter().any(|(known, _)| Rc::ptr_eq(known, listener)) {
                all.push((Rc::clone(listener), 0));
            }
        }
        let report = |(listener, connections): (Rc<ActiveListener>, usize)| ListenerReport {
            name: listener.name().to_string(),
            address: listener.address_text.to_string(),
            kind: listener.key().kind,
            is_open: !listener.closing.get(),
            connections,
            taken: listener.permits.fullness(ambient::now()).taken,
        };
        let mut reports: Vec<_> = all.into_iter().map(report).collect();
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    /// The first of the backends that it has something to do with, by what is under way there.
    fn upstreams(&self, view: &View, rows_max: usize) -> Vec<UpstreamReport> {
        let under_way = self.sessions.under_way_on_backends();
        let mut used = Vec::new();
        for this in &view.services {
            let name = this.service.config.name.as_str();
            for (backend, upstream) in this.service.backends.iter().zip(&this.upstreams) {
                let in_flight = under_way.get(&Arc::as_ptr(&backend.state)).copied().unwrap_or(0);
                let (idle, (shared, streams)) = (upstream.pool.len(), upstream.shared.counts());
                if in_flight + idle + shared > 0 {
                    used.push((in_flight, idle + shared, (name, backend.config.id.as_str(), idle, shared, streams)));
                }
            }
        }
        used.sort_by_key(|(in_flight, connections, _)| Reverse((*in_flight, *connections)));
        used.truncate(rows_max);
        let report =
            |(in_flight, _, (service, backend, idle, shared, streams)): (usize, usize, Row<'_>)| UpstreamReport {
                service: service.to_owned(),
                backend: backend.to_owned(),
                in_flight,
                idle,
                shared,
                streams,
            };
        used.into_iter().map(report).collect()
    }
}

/// Names of service and backend, connections that idle, that are shared, and streams on these.
type Row<'a> = (&'a str, &'a str, usize, usize, usize);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use crate::worker::testing::Rig;

    #[tokio::test(start_paused = true)]
    async fn a_worker_with_thousands_of_backends_and_nothing_to_do_tells_little() {
        let backends: Vec<String> = (0..3000)
            .map(|at| format!("{{ id: b{at}, address: \"10.0.{}.{}:80\" }}", at / 250, at % 250 + 1))
            .collect();
        let rig = Rig::new(&format!("{{ name: s, backends: [ {} ] }}", backends.join(", ")));
        let report = rig.worker.report(10);
        assert_eq!((report.backends, report.upstreams.len(), report.connections), (3000, 0, 0));
        assert!(report.connections_by.is_empty() && report.under_way_by.is_empty());
        assert_eq!(report.timers_armed, 0);
        let timer = rig.worker.timer();
        timer.set(std::time::Duration::from_secs(1));
        let report = rig.worker.report(0);
        assert_eq!((report.timers_armed, report.backends, report.listeners.len()), (1, 3000, 0));
    }
}
