//! Watches the configuration file: by its directory, because editors and Kubernetes replace files, and by its content,
//! because events say little.

use notify::{RecursiveMode, Watcher};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Quiet time after an event before the file is read: editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the file is looked at although no event came: network file systems send none.
const POLL: Duration = Duration::from_secs(5);

/// Calls `changed` whenever the content of the file, or of one of those that it names, is another than before. Never
/// returns.
pub async fn watch(path: &Path, named: impl Fn() -> Vec<PathBuf>, changed: impl Fn()) {
    let (sender, mut events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // Full means that one is waiting already.
        let _ = sender.try_send(());
    });
    let mut watched = HashSet::new();
    let mut seen = digest(path, &named());
    loop {
        for file in named().iter().map(PathBuf::as_path).chain([path]) {
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !watched.insert(directory.to_owned()) {
                continue;
            }
            let watching = match &mut watcher {
                Ok(watcher) => watcher.watch(directory, RecursiveMode::NonRecursive).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = watching {
                let seconds = POLL.as_secs();
                tracing::warn!(
                    error,
                    ?directory,
                    "file events are not to be had: files are looked at every {seconds}s"
                );
            }
        }
        match tokio::time::timeout(POLL, events.recv()).await {
            Ok(Some(())) => {
                // Wait until it is quiet, but not for ever.
                let quiet = async { while tokio::time::timeout(DEBOUNCE, events.recv()).await.is_ok() {} };
                let _ = tokio::time::timeout(DEBOUNCE * 10, quiet).await;
            }
            Ok(None) => tokio::time::sleep(POLL).await,
            Err(_) => {}
        }
        let now = digest(path, &named());
        // A file that is missing is being replaced: what is in force stays.
        if now.is_some() && now != seen {
            seen = now;
            changed();
        }
    }
}

fn digest(path: &Path, named: &[PathBuf]) -> Option<u64> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&std::fs::read(path).ok()?);
    for file in named {
        // A certificate that is missing is being replaced as well.
        hash.update(&std::fs::read(file).ok()?);
    }
    Some(hash.digest())
}
