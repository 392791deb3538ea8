//! The workers' threads, and how they begin and end.

use super::commands::run;
use crate::ambient;
use crate::dispatcher::{Command, Shared};
use ringway_telemetry::threads::join_by;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long workers that are told to end are waited for: they look for what they are told each time that they have done something.
const END_TIME: Duration = Duration::from_secs(3);

/// All workers. Dropping it ends them, whatever they serve, and waits for their threads: a start that fails leaves none behind. One that is stuck is
/// waited for no longer than [`END_TIME`].
pub(crate) struct Crew {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts them; on return each is ready.
    ///
    /// # Errors
    /// No thread, or no runtime, could be created.
    pub(crate) async fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let mut crew = Self { commands: Vec::new(), threads: Vec::new() };
        let mut ready = Vec::new();
        for index in 0..shared.workers {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (started, start) = oneshot::channel();
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            crew.threads.push(thread.spawn(move || run(index, shared, receiver, started))?);
            crew.commands.push(sender);
            ready.push(start);
        }
        for start in ready {
            start.await.map_err(io::Error::other)??;
        }
        // Set once, here.
        let _ = shared.commands.set(crew.commands.clone());
        Ok(crew)
    }

    pub(crate) fn commands(&self) -> Vec<mpsc::UnboundedSender<Command>> {
        self.commands.clone()
    }
}

impl Crew {
    /// Ends the workers, whatever they serve, and waits for their threads. `false`: one is stuck and was waited for no longer.
    pub(crate) fn end(&mut self) -> bool {
        for sender in &self.commands {
            // A worker that has ended needs no command.
            let _ = sender.send(Command::Stop);
        }
        let until = ambient::now() + END_TIME;
        let mut ended = true;
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            match join_by(thread, until) {
                Some(true) => {}
                Some(false) => tracing::error!(name, "a worker has panicked"),
                None => {
                    ended = false;
                    tracing::error!(name, "a worker is stuck: the process ends without waiting for it any longer");
                }
            }
        }
        ended
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
    }
}
