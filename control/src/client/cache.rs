//! The last good topology on a proxy's disk: it starts and serves with the control plane gone.
//!
//! Two files take turns, so that a torn write costs one revision at most: `magic | format | BLAKE3 | JSON of the snapshot`,
//! written beside, synced, renamed, directory synced. A third one has what came before them, as what each change has replaced.

use super::past::Past;
use crate::watch::view::View;
use crate::watch::wire::Snapshot;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"ringwayT";
const FORMAT: u8 = 1;
const HEAD: usize = MAGIC.len() + 1 + 32;
/// Larger than any topology: a file that is larger is none of ours.
const BYTES_MAX: u64 = 256 << 20;

/// The directory with the two files.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    /// The slot that was written last: the other is next.
    last: Mutex<Option<(PathBuf, (u64, u64))>>,
    /// What is stored, and what came before it; read once.
    known: Mutex<Option<(View, Past)>>,
}

impl Cache {
    /// In this directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), last: Mutex::default(), known: Mutex::default() })
    }

    fn slots(&self) -> [PathBuf; 2] {
        ["topology.a", "topology.b"].map(|name| self.directory.join(name))
    }

    /// The newest topology that is whole.
    #[must_use]
    pub fn load(&self) -> Option<View> {
        let views = self.slots().into_iter().filter_map(|slot| match read(&slot) {
            Ok(view) => Some(view),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(file = %slot.display(), %error, "a stored topology is not used");
                }
                None
            }
        });
        views.max_by_key(|view| (view.epoch, view.revision))
    }

    fn past(&self) -> PathBuf {
        self.directory.join("topology.past")
    }

    /// What was in force before this topology, newest first, as far as that is known without a gap, and when each gave way. One that is older
    /// says nothing of when its members changed.
    #[must_use]
    pub fn load_before(&self, view: &View) -> Vec<(View, SystemTime)> {
        let past = self.load_past();
        let mut stored: Vec<View> = self.slots().into_iter().filter_map(|slot| read(&slot).ok()).collect();
        stored.retain(|stored| (&stored.cluster, stored.epoch) == (&view.cluster, view.epoch));
        // It may have come since, and be stored next.
        let is_before = |stored: &View| stored.revision + 1 == view.revision;
        let came_since = !stored.iter().any(|stored| stored.revision == view.revision);
        let known = past.before(view);
        match (stored.into_iter().find(is_before), view.at_ms) {
            // An earlier version has stored no more than the two.
            (Some(before), Some(at_ms)) if came_since || known.is_empty() => {
                let mut found = vec![(before.clone(), UNIX_EPOCH + Duration::from_millis(at_ms))];
                found.extend(past.before(&before));
                found
            }
            _ => known,
        }
    }

    fn load_past(&self) -> Past {
        let past = read_json(&self.past()).and_then(|json| Ok(serde_json::from_slice(&json)?));
        past.unwrap_or_else(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(file = %self.past().display(), %error, "what was stored of earlier topologies is not used");
            }
            Past::default()
        })
    }

    /// Remembers what this topology replaces, before it does.
    fn note_past(&self, view: &View) -> std::io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, past) = match known.take() {
            Some((before, past)) => (Some(before), past),
            None => (self.load(), self.load_past()),
        };
        let mut next = past.clone();
        if let Some(before) = &before {
            next.handle_change(before, view);
        }
        if next != past {
            self.write(&self.past(), &serde_json::to_vec(&next)?)?;
        }
        *known = Some((view.clone(), next));
        Ok(())
    }

    /// Replaces the older of the two, or the one of the same revision: what was before it stays. A rollout is not stored: it may be over by the time it is read.
    ///
    /// # Errors
    /// The disk's.
    pub fn store(&self, view: &View) -> std::io::Result<()> {
        let mut snapshot = view.snapshot();
        snapshot.rollout = None;
        let json = serde_json::to_vec(&snapshot)?;
        self.note_past(view)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |slot: &PathBuf| read(slot).ok().map(|view| (view.epoch, view.revision));
        let [a, b] = self.slots();
        let is_now = (view.epoch, view.revision);
        let first = match &*last {
            Some((last, age)) => (*last == a) == (*age == is_now),
            None => match (age(&a), age(&b)) {
                (of_a, of_b) if of_a == Some(is_now) || of_b == Some(is_now) => of_a == Some(is_now),
                (of_a, of_b) => of_a <= of_b,
            },
        };
        let slot = if first { a } else { b };
        self.write(&slot, &json)?;
        *last = Some((slot, is_now));
        Ok(())
    }

    /// Replaces a file, or leaves it as it is.
    fn write(&self, path: &Path, json: &[u8]) -> std::io::Result<()> {
        // Not its extension: files have each their own beside them.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // Certificates' keys are among it.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(MAGIC)?;
        file.write_all(&[FORMAT])?;
        file.write_all(blake3::hash(json).as_bytes())?;
        file.write_all(json)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Writes the certificates of a topology, where [`Cache::certificate`] says. The name has the content's hash in it: a
    /// new certificate is a new file, and the old one stays until no configuration names it.
    ///
    /// # Errors
    /// The disk's.
    pub fn place_certificates(&self, view: &View) -> std::io::Result<()> {
        let directory = self.directory.join("certificates");
        let mut wanted = Vec::new();
        for (name, pair) in view.certificates() {
            std::fs::create_dir_all(&directory)?;
            for (path, text) in [
                (file_of(&directory, name, pair, "pem"), &pair.certificate),
                (file_of(&directory, name, pair, "key"), &pair.key),
            ] {
                if !path.exists() {
                    let beside = path.with_extension("new");
                    let mut file =
                        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    std::fs::rename(&beside, &path)?;
                }
                wanted.push(path);
            }
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(()) };
        let old = Duration::from_secs(86_400);
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| !wanted.contains(path)) {
            let age = path.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
            // A rollback within the day finds its file again.
            if age.is_some_and(|age| age > old) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Where a certificate and its key stand.
    #[must_use]
    pub fn certificate(&self, view: &View, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.directory.join("certificates");
        match view.certificates().into_iter().find(|(known, _)| *known == name) {
            Some((name, pair)) => (file_of(&directory, name, pair, "pem"), file_of(&directory, name, pair, "key")),
            None => (directory.join("none.pem"), directory.join("none.key")),
        }
    }
}

fn file_of(directory: &Path, name: &str, pair: &crate::state::Certificate, kind: &str) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(pair.certificate.as_bytes());
    hasher.update(&[0]);
    hasher.update(pair.key.as_bytes());
    let hash = hasher.finalize().to_hex();
    directory.join(format!("{name}-{}.{kind}", &hash[..16]))
}

fn damaged(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

fn read(path: &Path) -> std::io::Result<View> {
    let snapshot: Snapshot = serde_json::from_slice(&read_json(path)?)?;
    View::from_snapshot(snapshot, None).map_err(|error| damaged(&error.to_string()))
}

/// What a file says, if it is whole.
fn read_json(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.len() < HEAD || &bytes[..MAGIC.len()] != MAGIC {
        return Err(damaged("it is no stored topology"));
    }
    if bytes[MAGIC.len()] != FORMAT {
        return Err(damaged("its format is another version's"));
    }
    let (head, json) = bytes.split_at(HEAD);
    if blake3::hash(json).as_bytes() != &head[MAGIC.len() + 1..] {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(json.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Certificate, Object};
    use std::sync::Arc;

    fn view(revision: u64) -> View {
        let mut snapshot = Snapshot {
            cluster: "c".into(),
            epoch: 1,
            revision,
            digest: String::new(),
            objects: Default::default(),
            rollout: None,
            at_ms: Some(revision * 1_000),
        };
        let text = crate::state::Text { text: format!("# {}", revision / 2) };
        Arc::make_mut(&mut snapshot.objects).insert("document/main".parse().unwrap(), Arc::new(Object::Document(text)));
        let pair = Certificate { certificate: format!("cert {revision}"), key: "key".into() };
        Arc::make_mut(&mut snapshot.objects)
            .insert("certificate/web".parse().unwrap(), Arc::new(Object::Certificate(pair)));
        View::from_snapshot(snapshot, None).unwrap()
    }

    #[test]
    fn the_newest_whole_topology_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&directory.path().join("made")).unwrap();
        assert_eq!(cache.load(), None);
        for revision in 1..=5 {
            cache.store(&view(revision)).unwrap();
            assert_eq!(cache.load().unwrap(), view(revision));
        }
        // What has placed keys changes with every second of them.
        let before = |cache: &Cache, view: &View| -> Vec<(u64, u64)> {
            let millis = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            cache.load_before(view).into_iter().map(|(view, at)| (view.revision, millis(at))).collect()
        };
        assert_eq!(before(&cache, &view(5)), [(3, 4_000), (1, 2_000)]);
        let [(three, _), _] = &cache.load_before(&view(5))[..] else { panic!("two changes are known") };
        let document = "document/main".parse().unwrap();
        assert_eq!(three.objects.get(&document), view(3).objects.get(&document));
        // One that has come since, and is not stored yet; and one after a gap.
        assert_eq!(before(&cache, &view(6)), [(5, 6_000), (3, 4_000), (1, 2_000)]);
        assert_eq!((before(&cache, &view(7)), before(&cache, &View { epoch: 2, ..view(5) })), (vec![], vec![]));
        // Stored again, by who goes on and by who starts anew, however often, it pushes out nothing.
        for cache in [cache, Cache::open(&directory.path().join("made")).unwrap()] {
            for _ in 0..3 {
                cache.store(&view(5)).unwrap();
                assert_eq!((cache.load(), before(&cache, &view(5))), (Some(view(5)), vec![(3, 4_000), (1, 2_000)]));
            }
        }
        let cache = Cache::open(&directory.path().join("made")).unwrap();
        // Every flipped bit and every cut is found: the other slot serves.
        let newest = cache.slots().into_iter().find(|slot| read(slot).unwrap().revision == 5).unwrap();
        let whole = std::fs::read(&newest).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&newest, &bytes).unwrap();
            assert_eq!(cache.load().unwrap().revision, 4, "byte {at}");
            std::fs::write(&newest, &whole[..at]).unwrap();
            assert_eq!(cache.load().unwrap().revision, 4, "cut at {at}");
        }
        cache.store(&view(6)).unwrap();
        assert_eq!(cache.load().unwrap().revision, 6);
        // What came before is found damaged, too: then nothing did.
        let whole = std::fs::read(cache.past()).unwrap();
        assert_eq!(before(&cache, &view(6)).len(), 1, "after a gap");
        for at in [0, MAGIC.len(), HEAD - 1, HEAD, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(cache.past(), &bytes).unwrap();
            assert_eq!(before(&cache, &view(6)), [], "byte {at}");
        }
    }

    #[test]
    fn certificates_stand_in_files_of_their_own_content() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        cache.place_certificates(&view(1)).unwrap();
        cache.place_certificates(&view(2)).unwrap();
        let (first, second) = (cache.certificate(&view(1), "web"), cache.certificate(&view(2), "web"));
        assert_ne!(first.0, second.0);
        assert_eq!(std::fs::read_to_string(&first.0).unwrap(), "cert 1");
        assert_eq!(std::fs::read_to_string(&second.0).unwrap(), "cert 2");
        assert_eq!(std::fs::read_to_string(&second.1).unwrap(), "key");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(second.1.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
