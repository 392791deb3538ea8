//! Tasks of a worker: each is spawned here, so that no panic ends one uncounted.

use pin_project_lite::pin_project;
use ringway_telemetry::counters::WorkerCounters;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Counts a panic that ends the task it lives in: a task is dropped by it, wherever it comes from.
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

pin_project! {
    /// A task with its watch. No `async fn`: that would hold the task twice, as its argument and as what it awaits.
    struct Watched<T> {
        // Dropped before the watch.
        #[pin]
        task: T,
        watch: PanicWatch,
    }
}

impl<T: Future<Output = ()>> Future for Watched<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.project().task.poll(context)
    }
}

fn watched<T: Future<Output = ()>>(
    counters: Arc<WorkerCounters>,
    what: &'static str,
    task: T,
) -> impl Future<Output = ()> + use<T> {
    #[cfg(test)]
    let task = crate::simulation::counted(what, task);
    Watched { task, watch: PanicWatch { counters, what } }
}

/// Has the task that is polled be polled again once the runtime has looked at its sockets. A plain wake-up would not do: as long as a
/// task is ready, they are looked at only once in a while.
pub(crate) fn wake_after_sockets(context: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(context);
}

/// Bytes of a task that is moved as it is.
const MOVED_BYTES_MAX: usize = 512;

/// Begins a task; `what` names it in the log if it ends by a panic.
#[inline]
pub(super) fn spawn<T: Future<Output = ()> + 'static>(counters: &Arc<WorkerCounters>, what: &'static str, task: T) {
    let counters = Arc::clone(counters);
    // The runtime moves a task some ten times on its way in and out: of a large one, its address.
    if const { size_of::<T>() > MOVED_BYTES_MAX } {
        drop(tokio::task::spawn_local(watched(counters, what, Box::pin(task))));
    } else {
        drop(tokio::task::spawn_local(watched(counters, what, task)));
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

    /// Panics when it is dropped before its end.
    struct FailsInDrop;

    impl Drop for FailsInDrop {
        fn drop(&mut self) {
            panic!("a panic, as in a bug");
        }
    }

    #[test]
    fn a_task_that_panics_while_it_is_dropped_is_counted_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(<_>::default()).unwrap();
        let counters = Arc::new(WorkerCounters::default());
        runtime.block_on(async {
            let kept = FailsInDrop;
            let task = async move {
                let _kept = kept;
                std::future::pending::<()>().await;
            };
            let task = tokio::task::spawn_local(watched(Arc::clone(&counters), "a test", task));
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.is_err());
            assert_eq!(counters.panics.get(), 1);
        });
    }

    #[test]
    fn a_task_is_held_once() {
        let task = async {
            let room = [0_u8; 4096];
            tokio::task::yield_now().await;
            std::hint::black_box(&room);
        };
        let task_bytes = size_of_val(&task);
        let watch = PanicWatch { counters: Arc::default(), what: "a test" };
        assert!(size_of_val(&Watched { task, watch }) < task_bytes + 64);
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
