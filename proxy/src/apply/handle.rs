//! What steers a running proxy from any thread. Building a configuration takes seconds where the topology is large: whoever
//! runs on the control thread has that done elsewhere, and goes on.

use crate::apply::control::{Applied, Control, Proxy, ReloadError};
use std::sync::Arc;

/// Outlives the proxy, if it must: what is asked of one that has ended is refused, and changes nothing.
#[derive(Clone)]
pub struct Handle {
    pub(crate) control: Arc<Control>,
}

impl Proxy {
    /// To steer it from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { control: Arc::clone(&self.control) }
    }
}

impl Handle {
    /// Reads the file again and applies it, on the caller's thread. Logged and counted inside.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload_blocking(&self) -> Result<Applied, ReloadError> {
        self.control.reload().0
    }

    /// Reads the file again and applies it, while everything else on the caller's runtime goes on. What comes of it is logged
    /// and counted.
    pub async fn reload(&self) {
        let handle = self.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || drop(handle.reload_blocking())).await {
            tracing::error!(%error, "a reload has ended before its time");
        }
    }

    /// Opens the access log's file again, for whoever has renamed it and says so.
    pub fn reopen_logs(&self) {
        self.control.reopen_logs();
    }
}
