//! Watches the configuration file: by its directory, because editors and Kubernetes replace files, and by its content,
//! because events carry little.

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Quiet time after an event before the file is read: editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the file is looked at although no event came: network file systems send none.
const POLL: Duration = Duration::from_secs(5);

/// Calls `changed` whenever the content of the file, or of one of those that it names, is another than before, or cannot be
/// read any more. Never returns.
pub async fn watch(path: &Path, named: impl Fn() -> Vec<PathBuf>, changed: impl AsyncFn()) {
    let (sender, mut events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // Full means that one is waiting already.
        let _ = sender.try_send(());
    });
    let mut watched = HashSet::new();
    let mut changes = Changes::new(look(path, &named()));
    loop {
        for file in named().iter().map(PathBuf::as_path).chain([path]) {
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if watched.insert(directory.to_owned()) {
                watch_directory(&mut watcher, directory);
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
        if changes.handle(path, look(path, &named())) {
            changed().await;
        }
    }
}

fn watch_directory(watcher: &mut notify::Result<RecommendedWatcher>, directory: &Path) {
    let watching = match watcher {
        Ok(watcher) => watcher.watch(directory, RecursiveMode::NonRecursive).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = watching {
        let seconds = POLL.as_secs();
        tracing::warn!(error, ?directory, "file events are not to be had: files are looked at every {seconds}s");
    }
}

/// Which looks are a change.
struct Changes {
    seen: Seen,
    /// The file was gone at the last look.
    was_gone: bool,
}

impl Changes {
    fn new(seen: Seen) -> Self {
        Self { seen, was_gone: false }
    }

    /// Takes a look in; whether it is a change. A file that is replaced by removing it first counts as gone only when the next
    /// look finds it gone too.
    fn handle(&mut self, path: &Path, now: Seen) -> bool {
        let is_gone = now.is_gone(path) && !self.seen.is_gone(path);
        if is_gone && !self.was_gone {
            self.was_gone = true;
            return false;
        }
        self.was_gone = false;
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// What was found at each path. A file that cannot be read is a state as any other: what the configuration in force names
/// must not keep the next one from being read, which may name it no more.
#[derive(Debug, PartialEq, Eq)]
struct Seen(BTreeMap<PathBuf, FileState>);

#[derive(Debug, PartialEq, Eq)]
enum FileState {
    /// A hash of its content.
    Content(u64),
    Unreadable(std::io::ErrorKind),
}

impl Seen {
    fn is_gone(&self, path: &Path) -> bool {
        self.0.get(path) == Some(&FileState::Unreadable(std::io::ErrorKind::NotFound))
    }
}

fn look(path: &Path, named: &[PathBuf]) -> Seen {
    let find = |path: &Path| match ringway_config::read_bytes(path) {
        Ok(bytes) => FileState::Content(xxhash_rust::xxh3::xxh3_64(&bytes)),
        Err(error) => FileState::Unreadable(error.kind()),
    };
    Seen(named.iter().map(PathBuf::as_path).chain([path]).map(|path| (path.to_owned(), find(path))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_that_is_missing_hides_no_change_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let (file, named) = (directory.path().join("c.yaml"), [directory.path().join("cert.pem")]);
        std::fs::write(&file, "a").unwrap();
        std::fs::write(&named[0], "certificate").unwrap();
        let whole = look(&file, &named);
        std::fs::remove_file(&named[0]).unwrap();
        let without = look(&file, &named);
        assert_ne!(whole, without);
        assert_eq!(without, look(&file, &named));
        std::fs::write(&file, "b").unwrap();
        assert_ne!(without, look(&file, &named));
        assert!(!without.is_gone(&file));
        std::fs::remove_file(&file).unwrap();
        assert!(look(&file, &named).is_gone(&file));
    }

    #[test]
    fn a_file_without_an_end_is_looked_at_up_to_the_limit() {
        let endless = Path::new("/dev/zero");
        assert!(look(endless, &[]).0[endless] == FileState::Unreadable(std::io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn a_file_is_gone_when_two_looks_in_a_row_find_it_gone() {
        let path = Path::new("c.yaml");
        let there = |content| Seen([(path.to_owned(), FileState::Content(content))].into());
        let gone = || Seen([(path.to_owned(), FileState::Unreadable(std::io::ErrorKind::NotFound))].into());
        let forbidden =
            || Seen([(path.to_owned(), FileState::Unreadable(std::io::ErrorKind::PermissionDenied))].into());
        let mut changes = Changes::new(there(1));
        for (now, changed) in [
            (there(1), false),
            (gone(), false),
            (there(1), false),
            (gone(), false),
            (there(2), true),
            (gone(), false),
            (gone(), true),
            (gone(), false),
            (there(2), true),
            (forbidden(), true),
            (gone(), false),
            (gone(), true),
        ] {
            let text = format!("{now:?}");
            assert_eq!(changes.handle(path, now), changed, "{text}");
        }
    }
}
