//! The end in good order: not ready any more, no new connections, what runs may end.

use super::control::Control;
use crate::dispatcher::Command;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, oneshot};

impl Control {
    /// Is ready no longer, and after the configured delay stops accepting, lets requests end, for at most the configured time.
    /// `true`: all have ended.
    pub(crate) async fn drain(&self) -> bool {
        self.draining.store(true, Relaxed);
        let (delay, timeout) = {
            let config = &self.current.load().config;
            (config.drain_delay, config.drain_timeout)
        };
        if !delay.is_zero() {
            tracing::info!(?delay, "not ready any more; new connections are still accepted");
            tokio::time::sleep(delay).await;
        }
        tracing::info!("draining: no new connections, requests in flight may end");
        let all = async {
            drain_workers(&self.commands).await;
            // A worker that had no connection left may have been handed one by another that was not draining yet: from here on
            // none does that.
            drain_workers(&self.commands).await;
        };
        tokio::time::timeout(timeout, all).await.is_ok()
    }
}

/// Returns when each worker has ended its last connection, or has ended itself.
async fn drain_workers(commands: &[mpsc::UnboundedSender<Command>]) {
    let mut waits = Vec::new();
    for sender in commands {
        let (done, wait) = oneshot::channel();
        // A worker that has ended has nothing left to drain.
        if sender.send(Command::Drain { done }).is_ok() {
            waits.push(wait);
        }
    }
    for wait in waits {
        let _ = wait.await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::testing;
    use super::*;
    use crate::ambient;
    use std::time::Duration;

    const TEXT: &str = "drain_delay: 5s\ndrain_timeout: 30s\n\
        listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\n\
        services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n";

    #[tokio::test(start_paused = true)]
    async fn workers_are_drained_twice_behind_the_delay_and_not_for_ever() {
        let (control, [mut one, two]) = testing::control(Source::Memory);
        control.apply(testing::config(TEXT)).unwrap();
        drop(two);
        let begin = ambient::now();
        let worker = async {
            let mut drained = Vec::new();
            while let Some(command) = one.recv().await {
                if let Command::Drain { done } = command {
                    drained.push(ambient::since(begin));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = done.send(());
                    if drained.len() == 2 {
                        break;
                    }
                }
            }
            drained
        };
        let (all, drained) = tokio::join!(control.drain(), worker);
        assert!(all && control.is_draining());
        assert_eq!(drained.iter().map(Duration::as_secs).collect::<Vec<_>>(), [5, 6]);
        // A worker that does not end is not waited for longer than configured.
        let begin = ambient::now();
        let (control, _receivers) = testing::control(Source::Memory);
        control.apply(testing::config(TEXT)).unwrap();
        assert!(!control.drain().await);
        assert_eq!(ambient::since(begin).as_secs(), 35);
    }
}
