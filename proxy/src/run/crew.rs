//! The workers' threads, and how they begin and end.

use super::commands::run;
use crate::dispatcher::{Command, Shared};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// All workers. Dropping it ends them, whatever they serve, and waits for their threads: a start that fails leaves none behind.
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

impl Drop for Crew {
    fn drop(&mut self) {
        for sender in &self.commands {
            // A worker that has ended needs no command.
            let _ = sender.send(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
    }
}
