//! Traces: spans are encoded by the worker, and delivered by a thread of their own, by OTLP over HTTP.
//!
//! Lossy, as the access log is: what the exporter cannot keep up with, what a collector refuses, and what cannot be delivered is
//! dropped and counted. Traffic never waits for a collector.

mod batch;
mod collector;
mod counts;
mod export;
mod queue;
mod span;

use crate::threads::join_by;
pub use batch::{Sink, SpanBatch};
pub use collector::Collector;
pub use counts::{Outcome, SpanCounts};
use export::Export;
pub use span::{Attributes, Kind, Span};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

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
    /// that. It is not waited for beyond a time. `false`: it is delivering still.
    pub fn join(self, until: Instant) -> bool {
        let Self { thread, end } = self;
        drop(end);
        // One that has panicked has delivered what it could.
        join_by(thread, until).is_some()
    }
}

/// Starts an exporter. `resource`: attributes of this process; `counts` is told what becomes of spans. It ends when all sinks have been
/// dropped, or a few seconds after its handle has.
///
/// # Errors
/// There can be no thread, or it can wait for nothing.
pub fn start(
    collector: Collector,
    resource: &[(String, String)],
    counts: Arc<SpanCounts>,
) -> std::io::Result<(Sink, Exporter)> {
    let (sender, receiver) = queue::queue();
    let (end, ends) = oneshot::channel::<()>();
    let sink = Sink::new(sender, Arc::clone(&counts));
    let mut export = Export::new(receiver, collector, resource, counts);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("traces".into()).spawn(move || {
        // Built here: a runtime that is dropped within another one, because there is no thread for it, would be a panic.
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, result) = match built {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Whoever starts it waits for this word.
        let _ = tell.send(result);
        let Some(runtime) = runtime else { return };
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
        // A name that is still being looked up, or a file that is still being read, is not waited for.
        runtime.shutdown_background();
    })?;
    told.recv().map_err(std::io::Error::other)??;
    Ok((sink, Exporter { thread, end }))
}
