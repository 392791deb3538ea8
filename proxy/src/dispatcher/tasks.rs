//! Tasks of a worker: each is spawned here, so that no panic ends one uncounted.

use super::context::Dispatcher;
use ringway_telemetry::counters::WorkerCounters;
use std::future::Future;
use std::sync::Arc;

/// Counts a panic that ends the task it lives in.
struct PanicWatch {
    counters: Arc<WorkerCounters>,
    what: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.counters.panics.increment();
            tracing::error!("{} ended by a panic: this is a bug", self.what);
        }
    }
}

async fn watched(counters: Arc<WorkerCounters>, what: &'static str, task: impl Future<Output = ()>) {
    let _watch = PanicWatch { counters, what };
    #[cfg(test)]
    let task = crate::simulation::counted(what, task);
    task.await;
}

impl Dispatcher {
    /// Begins a task; `what` names it in the log if it ends by a panic.
    pub(crate) fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(watched(Arc::clone(&self.counters), what, task)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// Panics while it is dropped with a value of its own, as a task's future is.
    async fn fails(kept: Rc<()>) {
        tokio::task::yield_now().await;
        assert_eq!(Rc::strong_count(&kept), 0, "a panic, as in a bug");
    }

    #[test]
    fn every_task_that_panics_is_counted_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(<_>::default()).unwrap();
        let counters = Arc::new(WorkerCounters::default());
        runtime.block_on(async {
            for (panics, expected) in [(false, 0), (true, 1), (true, 2), (false, 2)] {
                let kept = Rc::new(());
                let task = async move {
                    if panics {
                        fails(kept).await;
                    }
                };
                let ended = tokio::task::spawn_local(watched(Arc::clone(&counters), "a test", task)).await;
                assert_eq!((ended.is_err(), counters.panics.get()), (panics, expected));
            }
        });
    }
}
