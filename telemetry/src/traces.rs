//! Traces: spans are encoded by the worker, and delivered by a thread of their own, by OTLP over HTTP.
//!
//! Lossy, as the access log is: what the exporter cannot keep up with, what a collector refuses, and what cannot be delivered is
//! dropped and counted. Traffic never waits for a collector.

mod batch;
mod collector;
mod counts;
mod export;
mod span;

pub use batch::{Batch, SpanBatch};
pub use collector::Collector;
pub use counts::{Outcome, SpanCounts};
use export::Export;
pub use span::{Attributes, Kind, Span};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for the exporter: 8 MiB of spans.
const BATCHES_MAX: usize = 128;
/// How long an exporter that is to end may still deliver what it has.
const END: Duration = Duration::from_secs(3);

/// An exporter's thread, and what it is steered by.
#[derive(Debug)]
pub struct Exporter {
    thread: JoinHandle<()>,
    /// Dropped, the exporter is to end.
    end: oneshot::Sender<()>,
}

impl Exporter {
    /// Delivers what has been handed over, for a few seconds at most, and ends. Its senders must be gone, or it takes as long as
    /// that.
    pub fn join(self) {
        let Self { thread, end } = self;
        drop(end);
        // One that has panicked has delivered what it could.
        let _ = thread.join();
    }
}

/// Starts an exporter. `resource`: attributes of this process; `report` is told what becomes of spans. It ends when all senders have been
/// dropped, or a few seconds after its handle has.
///
/// # Errors
/// There can be no thread.
pub fn start(
    collector: Collector,
    resource: &[(String, String)],
    report: impl Fn(Outcome, u64) + Send + 'static,
) -> std::io::Result<(mpsc::Sender<Batch>, Exporter)> {
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let (end, ends) = oneshot::channel::<()>();
    let mut export = Export::new(receiver, collector, resource, report);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("traces".into()).spawn(move || {
        runtime.block_on(async {
            let late = async {
                // Its sender says nothing: it is dropped.
                let _ = ends.await;
                tokio::time::sleep(END).await;
            };
            tokio::select! {
                () = export.run() => {}
                () = late => {}
            }
            export.give_up();
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((sender, Exporter { thread, end }))
}
