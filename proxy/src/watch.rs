//! Watches the configuration file: by its directory, because editors and Kubernetes replace files, and by its content,
//! because events say little.

use notify::{RecursiveMode, Watcher};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// Quiet time after an event before the file is read: editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the file is looked at although no event came: network file systems send none.
const POLL: Duration = Duration::from_secs(5);

/// Calls `changed` whenever the file's content is another than before. Never returns.
pub async fn watch(path: &Path, changed: impl Fn()) {
    let (sender, mut events) = mpsc::channel(1);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let watcher = notify::recommended_watcher(move |_| {
        // Full means that one is waiting already.
        let _ = sender.try_send(());
    })
    .and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "file events are not to be had: the file is looked at every {}s", POLL.as_secs());
    }
    let mut seen = digest(path);
    loop {
        match tokio::time::timeout(POLL, events.recv()).await {
            Ok(Some(())) => {
                // Wait until it is quiet, but not for ever.
                let quiet = async { while tokio::time::timeout(DEBOUNCE, events.recv()).await.is_ok() {} };
                let _ = tokio::time::timeout(DEBOUNCE * 10, quiet).await;
            }
            Ok(None) => tokio::time::sleep(POLL).await,
            Err(_) => {}
        }
        let now = digest(path);
        // A file that is missing is being replaced: what is in force stays.
        if now.is_some() && now != seen {
            seen = now;
            changed();
        }
    }
}

fn digest(path: &Path) -> Option<u64> {
    std::fs::read(path).ok().map(|bytes| xxhash_rust::xxh3::xxh3_64(&bytes))
}
