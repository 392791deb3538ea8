//! Backends by files of a directory.

use super::seen::Seen;
use notify::{RecursiveMode, Watcher};
use ringway_config::{FileStamp, FleetBackend, read_backends};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Looked at although no event came: network file systems send none.
const POLL: Duration = Duration::from_secs(5);
/// Quiet time after an event: files are written in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A directory, and what its files have said.
pub(super) struct Files {
    path: PathBuf,
    /// What each file said when it was last right, and which of its versions was looked at, once that tells.
    said: BTreeMap<PathBuf, (Option<FileStamp>, Vec<FleetBackend>)>,
    /// What is wrong with each file, as it was told: once.
    wrong: BTreeMap<PathBuf, String>,
    events: mpsc::Receiver<()>,
    /// Dropped, it watches no more.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // That a file is read, by this looker too, is no reason to read it again.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // Full means that one is waiting already.
            let _ = sender.try_send(());
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, directory = %path.display(), "file events are not to be had: it is looked at every 5s");
        }
        Self { path, said: BTreeMap::new(), wrong: BTreeMap::new(), events, _watcher: watcher.ok() }
    }

    /// All files together. A directory that cannot be read is no directory without files.
    pub(super) fn look(&mut self) -> Result<Seen, (String, Duration)> {
        let failed = |error: std::io::Error| (format!("{}: {error}", self.path.display()), POLL);
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if path.extension().is_some_and(|extension| extension == "yaml") && !hidden {
                files.push(path);
            }
        }
        files.sort();
        self.said.retain(|path, _| files.contains(path));
        self.wrong.retain(|path, _| files.contains(path));
        for path in files {
            let stamp = path.metadata().ok().map(|data| FileStamp::of(&data)).filter(|stamp| stamp.is_settled(now));
            if stamp.is_some() && self.said.get(&path).is_some_and(|(known, _)| *known == stamp) {
                continue;
            }
            match read_backends(&path) {
                Ok(backends) => {
                    self.wrong.remove(&path);
                    self.said.insert(path, (stamp, backends));
                }
                Err(diagnostics) => {
                    let text = diagnostics.to_string();
                    if self.wrong.get(&path) != Some(&text) {
                        tracing::error!(diagnostics = text, "a file of backends is wrong: what it said before stays");
                        self.wrong.insert(path.clone(), text);
                    }
                    let before = self.said.remove(&path).map(|(_, backends)| backends).unwrap_or_default();
                    // What could not be read is tried again: the cause may pass without a trace on the file.
                    let unread = diagnostics.0.iter().any(|finding| finding.code == "unreadable_file");
                    self.said.insert(path, (stamp.filter(|_| !unread), before));
                }
            }
        }
        let backends = self.said.values().flat_map(|(_, backends)| backends.iter().cloned()).collect();
        Ok(Seen { backends, again: POLL })
    }

    pub(super) async fn wait(&mut self, most: Duration) {
        if let Ok(Some(())) = tokio::time::timeout(most, self.events.recv()).await {
            // Until it is quiet, but not for ever.
            let quiet = async { while let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, self.events.recv()).await {} };
            let _ = tokio::time::timeout(DEBOUNCE * 10, quiet).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_says_what_it_said_before() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let mut files = Files::new(directory.path().to_owned());
        let ids = |files: &mut Files| -> Vec<String> {
            files.look().unwrap().backends.into_iter().map(|backend| backend.id).collect()
        };
        write("a.yaml", "- { service: s, id: a, address: \"10.0.0.1:80\" }\n");
        write("b.yaml", "- { service: s, id: b, address: \"10.0.0.2:80\", weight: 50 }\n");
        write("other.txt", "nothing");
        assert_eq!(ids(&mut files), ["a", "b"]);
        // Of the same length and the same time, as what is unpacked or copied with its times may be.
        let modified = |name: &str| directory.path().join(name).metadata().unwrap().modified().unwrap();
        let before = modified("a.yaml");
        write("a.yaml", "- { service: s, id: x, address: \"10.0.0.1:80\" }\n");
        std::fs::File::options()
            .write(true)
            .open(directory.path().join("a.yaml"))
            .unwrap()
            .set_modified(before)
            .unwrap();
        assert_eq!(modified("a.yaml"), before);
        assert_eq!(ids(&mut files), ["x", "b"]);
        write("a.yaml", "- { service: s, id: a, address: \"10.0.0.1:80\" }\n");
        assert_eq!(ids(&mut files), ["a", "b"]);
        write("a.yaml", "- { service: s, id: a2, adress: \"10.0.0.1:80\" }\n");
        assert_eq!(ids(&mut files), ["a", "b"]);
        write(
            "a.yaml",
            "- { service: s, id: a3, address: \"10.0.0.1:80\" }\n- { service: s, id: a4, address: \"10.0.0.1:81\" }\n",
        );
        assert_eq!(ids(&mut files), ["a3", "a4", "b"]);
        std::fs::remove_file(directory.path().join("b.yaml")).unwrap();
        assert_eq!(ids(&mut files), ["a3", "a4"]);
        std::fs::remove_dir_all(directory.path()).unwrap();
        assert!(files.look().is_err(), "a directory that is gone is not an empty one");
    }
}
