//! Watches the configuration file: by its directory, because editors and Kubernetes replace files, and by its content,
//! because events carry little.

use crate::ambient;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use ringway_config::FileStamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Quiet time after an event before the file is read: editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the file is looked at although no event came: network file systems send none.
const POLL: Duration = Duration::from_secs(5);
/// After so many looks all is read again, whatever the stamps say: a network file system may answer for them out of its memory.
const LOOKS_MAX: u32 = 12;

/// Calls `changed` whenever the content of the file, or of one of those that it names, is another than before, or cannot be
/// read any more. Never returns.
pub async fn watch(path: &Path, named: impl Fn() -> Vec<PathBuf>, changed: impl AsyncFn()) {
    let (sender, mut events) = mpsc::channel(1);
    let awaited = Arc::new(Mutex::new(HashSet::new()));
    let asked = Arc::clone(&awaited);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let names = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if event.as_ref().map_or(true, |event| concerns(event, &names)) {
            // Full means that one is waiting already.
            let _ = sender.try_send(());
        }
    });
    let mut watched = HashSet::new();
    let mut looks = Looks::default();
    let mut changes = Changes::new(looks.look(path, &named(), ambient::time_of_day()));
    loop {
        let files = named();
        let files = || files.iter().map(PathBuf::as_path).chain([path]);
        *awaited.lock().unwrap_or_else(PoisonError::into_inner) = names(files());
        for file in files() {
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
        if changes.handle(path, looks.look(path, &named(), ambient::time_of_day())) {
            changed().await;
        }
    }
}

/// The names of the files, and of what links lead to.
fn names<'a>(files: impl Iterator<Item = &'a Path>) -> HashSet<OsString> {
    let mut names = HashSet::new();
    for file in files {
        names.extend(file.file_name().map(OsStr::to_owned));
        let behind = std::fs::read_link(file).ok();
        names.extend(behind.as_deref().and_then(Path::file_name).map(OsStr::to_owned));
    }
    names
}

/// Whether an event may be about one of the files with these names. Whatever comes or goes in their directories may: a link that
/// leads to them is replaced, for one. But others are written to, logs all the time, and that is none of their business.
fn concerns(event: &Event, names: &HashSet<OsString>) -> bool {
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_) | ModifyKind::Any)
        | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            event.paths.is_empty()
                || event.paths.iter().any(|path| path.file_name().is_none_or(|name| names.contains(name)))
        }
        EventKind::Access(_) => false,
        _ => true,
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

#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What has been read, and of which version: a file is read again only where its stamp does not say that it is the same.
#[derive(Default)]
struct Looks {
    known: HashMap<PathBuf, (FileStamp, FileState)>,
    /// Looks since all was read.
    count: u32,
}

impl Looks {
    /// `now`: the time of day.
    fn look(&mut self, path: &Path, named: &[PathBuf], now: SystemTime) -> Seen {
        self.count += 1;
        if self.count >= LOOKS_MAX {
            (self.count, self.known) = (0, HashMap::new());
        }
        let mut known = HashMap::new();
        let seen = named.iter().map(PathBuf::as_path).chain([path]).map(|path| {
            let state = match self.settled(path, now) {
                Some((stamp, Some(state))) => {
                    known.insert(path.to_owned(), (stamp, state.clone()));
                    state
                }
                Some((stamp, None)) => {
                    let state = read(path);
                    // What could not be read is tried again: the cause may pass without a trace on the file.
                    if matches!(state, FileState::Content(_)) {
                        known.insert(path.to_owned(), (stamp, state.clone()));
                    }
                    state
                }
                None => read(path),
            };
            (path.to_owned(), state)
        });
        let seen = Seen(seen.collect());
        self.known = known;
        seen
    }

    /// The stamp of a file that has not been written to for a moment, and what it is known to say. `None`: it must be read.
    fn settled(&self, path: &Path, now: SystemTime) -> Option<(FileStamp, Option<FileState>)> {
        let data = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let stamp = FileStamp::of(&data);
        if !stamp.is_settled(now) {
            return None;
        }
        let known = self.known.get(path).filter(|(known, _)| *known == stamp);
        Some((stamp, known.map(|(_, state)| state.clone())))
    }
}

fn read(path: &Path) -> FileState {
    match ringway_config::read_bytes(path) {
        Ok(bytes) => FileState::Content(xxhash_rust::xxh3::xxh3_64(&bytes)),
        Err(error) => FileState::Unreadable(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, MetadataKind, RemoveKind, RenameMode};

    fn look(path: &Path, named: &[PathBuf]) -> Seen {
        Looks::default().look(path, named, ambient::time_of_day())
    }

    #[test]
    fn only_what_may_change_a_file_is_heard() {
        let names = HashSet::from([OsString::from("c.yaml")]);
        let heard =
            |kind: EventKind, name: &str| concerns(&Event::new(kind).add_path(Path::new("/d").join(name)), &names);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let touched = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        for kind in [written, closed, touched] {
            assert!(heard(kind, "c.yaml") && !heard(kind, "a.log"), "{kind:?}");
        }
        // A link on the way to it may have another name.
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        for kind in [EventKind::Create(CreateKind::Any), EventKind::Remove(RemoveKind::Any), renamed, EventKind::Any] {
            assert!(heard(kind, "c.yaml") && heard(kind, "..data"), "{kind:?}");
        }
        assert!(!heard(EventKind::Access(AccessKind::Read), "c.yaml"));
        assert!(concerns(&Event::new(written), &names), "an event that says nothing may say this");
    }

    /// What is known of a file that does not change is not read again; whatever may have changed is.
    #[test]
    fn a_file_is_read_again_when_its_stamp_is_another_or_too_young_to_tell() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut looks = Looks::default();
        let now = ambient::time_of_day();
        let young = looks.look(&file, &[], now);
        assert!(looks.known.is_empty(), "it has been written to just now");
        // Another content of the same length, in the same moment.
        std::fs::write(&file, "b").unwrap();
        assert_ne!(looks.look(&file, &[], now), young);
        let later = now + Duration::from_secs(10);
        let seen = looks.look(&file, &[], later);
        assert_eq!(seen, looks.look(&file, &[], later));
        // What is known under this stamp is not read again.
        looks.known.get_mut(&file).unwrap().1 = FileState::Content(7);
        assert_eq!(looks.look(&file, &[], later).0[&file], FileState::Content(7));
        // Another stamp: it is read again, and what is not asked for any more is forgotten.
        std::fs::write(&file, "longer").unwrap();
        let other = directory.path().join("other");
        assert_ne!(looks.look(&file, std::slice::from_ref(&other), later), seen);
        assert_eq!(looks.known.len(), 1);
        assert_ne!(looks.look(&other, &[], later).0[&other], FileState::Content(7));
        assert!(looks.known.is_empty());
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_and_all_once_in_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.yaml");
        // No text of a file, but one that fails to be read for another reason than its absence.
        std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        let later = ambient::time_of_day() + Duration::from_secs(10);
        let mut looks = Looks::default();
        assert!(matches!(looks.look(&file, &[], later).0[&file], FileState::Unreadable(_)));
        assert!(looks.known.is_empty());
        std::fs::write(&file, "a").unwrap();
        let seen = looks.look(&file, &[], later);
        looks.known.get_mut(&file).unwrap().1 = FileState::Content(7);
        let found = (0..LOOKS_MAX).filter(|_| looks.look(&file, &[], later) == seen).count();
        assert!(found >= 1, "it has not been read again");
    }

    #[test]
    fn a_write_to_what_a_link_leads_to_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("c.yaml"), directory.path().join("real.yaml"));
        std::fs::write(&file, "a").unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        let names = names([link.as_path()].into_iter());
        let written = Event::new(EventKind::Modify(ModifyKind::Data(DataChange::Any)));
        assert!(concerns(&written.clone().add_path(link), &names));
        assert!(concerns(&written.clone().add_path(file), &names));
        assert!(!concerns(&written.add_path(directory.path().join("a.log")), &names));
    }

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
