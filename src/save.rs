//! `--save`: what was changed of a running proxy's backend, in its file as well.

use anyhow::{Context, bail};
use ringway_config::{Diagnostic, Severity, load_str, set_backend_fields};
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for somebody else who saves: that takes moments.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Most files of other processes that may be in the way.
const LEFT_MAX: u32 = 100;

/// Fields of a backend that are to be written into a file.
pub(crate) struct Edit<'a> {
    pub(crate) service: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) fields: &'a [(&'a str, String)],
}

/// A file that is to be changed so: looked at, and written anew beside it. Dropped, it has not been.
pub(crate) struct Edited<'a> {
    edit: Edit<'a>,
    path: PathBuf,
    /// What it was when it was looked at.
    before: String,
    fresh: Fresh,
}

/// What is to take a file's place, on the disk already: whoever replaces the file by it needs no more room, and no more permissions.
struct Fresh {
    /// `None`: it is in its place.
    path: Option<PathBuf>,
    /// Owner, group and mode.
    access: (u32, u32, u32),
}

impl<'a> Edited<'a> {
    /// Changes these fields of a backend, and nothing else.
    ///
    /// # Errors
    /// The backend does not stand in the file, the file would have errors that it has not now, or it cannot be written.
    pub(crate) fn new(file: &Path, edit: Edit<'a>) -> anyhow::Result<Self> {
        // What a link leads to is replaced, not the link.
        let path = file.canonicalize().with_context(|| format!("read {}", file.display()))?;
        let before = read(&path)?;
        let fresh = Fresh::new(&path, &edit.of(&path, &before)?)?;
        Ok(Self { edit, path, before, fresh })
    }

    /// Puts it into place, whole or not at all. What others have written since it was looked at is kept.
    pub(crate) fn write(self) -> anyhow::Result<()> {
        let Self { edit, path, before, mut fresh } = self;
        let failed = || format!("write {}", path.display());
        let locked = lock(&path).with_context(failed)?;
        let now = read(&path)?;
        if now != before || access(&locked.metadata().with_context(failed)?) != fresh.access {
            fresh = Fresh::new(&path, &edit.of(&path, &now)?)?;
        }
        fresh.replace(&path).with_context(failed)?;
        // Only then is the new name there after a power cut as well.
        let directory = path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).with_context(failed)
    }
}

impl Fresh {
    fn new(of: &Path, text: &str) -> anyhow::Result<Self> {
        let failed = || format!("write {}", of.display());
        let old = std::fs::metadata(of).with_context(failed)?;
        let (mut file, path) = create_beside(of).with_context(failed)?;
        let this = Self { path: Some(path), access: access(&old) };
        this.fill(&mut file, text, &old).with_context(failed)?;
        Ok(this)
    }

    fn fill(&self, file: &mut File, text: &str, old: &Metadata) -> io::Result<()> {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            // Somebody else's file, that its owner could not read any more, is left as it is.
            fchown(&*file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn replace(mut self, path: &Path) -> io::Result<()> {
        if let Some(fresh) = &self.path {
            std::fs::rename(fresh, path)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nobody asks for it any more, and there is nobody to tell.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A new file in the same directory. One of the same name may be left of a process that was killed.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut number = 0;
    loop {
        let fresh = path.with_file_name(format!(".{name}.{}.{number}.new", std::process::id()));
        match File::create_new(&fresh) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < LEFT_MAX => number += 1,
            made => return Ok((made?, fresh)),
        }
    }
}

/// Owner, group and mode.
fn access(of: &Metadata) -> (u32, u32, u32) {
    (of.uid(), of.gid(), of.mode())
}

impl Edit<'_> {
    /// The text with it, if it is as valid as it was.
    fn of(&self, path: &Path, before: &str) -> anyhow::Result<String> {
        let after = set_backend_fields(before, self.service, self.backend, self.fields)
            .with_context(|| format!("--save into {}", path.display()))?;
        let known = errors(path, before);
        let is_new =
            |found: &&Diagnostic| !known.iter().any(|one| (one.code, &one.message) == (found.code, &found.message));
        if let Some(first) = errors(path, &after).iter().find(is_new) {
            bail!("--save: {} would not be valid: {}", path.display(), first.message);
        }
        Ok(after)
    }
}

/// What is wrong with it as seen from here: whoever changes a backend may not have the proxy's variables.
fn errors(path: &Path, text: &str) -> Vec<Diagnostic> {
    let read = load_str(&path.display().to_string(), text, &|name| std::env::var(name).ok());
    let found = read.err().map_or_else(Vec::new, |found| found.0);
    found.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

fn read(path: &Path) -> anyhow::Result<String> {
    let failed = || format!("read {}", path.display());
    String::from_utf8(ringway_config::read_bytes(path).with_context(failed)?).with_context(failed)
}

/// Waits until nobody else saves into the file. It is replaced by who does: then the new one is waited for.
fn lock(path: &Path) -> io::Result<File> {
    let begin = Instant::now();
    loop {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => {
                let (held, there) = (file.metadata()?, std::fs::metadata(path)?);
                if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
                    return Ok(file);
                }
            }
            Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "somebody else holds a lock on it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "listeners: [ { name: l, address: \"127.0.0.1:1\", service: s } ]\n\
                        services:\n  - name: s\n    backends:\n      - { id: a, address: \"127.0.0.1:8\" }\n      \
                        - { id: b, address: \"127.0.0.1:9\" }\n";

    fn drain<'a>(backend: &'a str, fields: &'a [(&'a str, String)]) -> Edit<'a> {
        Edit { service: "s", backend, fields }
    }

    #[test]
    fn what_others_write_meanwhile_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringway.yaml");
        std::fs::write(&file, FILE).unwrap();
        let fields = [("drain", "true".to_owned())];
        let (a, b) =
            (Edited::new(&file, drain("a", &fields)).unwrap(), Edited::new(&file, drain("b", &fields)).unwrap());
        std::fs::write(&file, format!("{FILE}# by hand\n")).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| b.write());
            a.write().unwrap();
            other.join().unwrap().unwrap();
        });
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("drain: true").count(), 2, "{text}");
        assert!(text.ends_with("# by hand\n"), "{text}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        // What is no longer there is not written either.
        let late = Edited::new(&file, drain("a", &fields)).unwrap();
        std::fs::write(&file, FILE.replace("id: a", "id: c")).unwrap();
        assert!(late.write().is_err());
        assert!(!std::fs::read_to_string(&file).unwrap().contains("drain"));
    }

    #[test]
    fn what_was_wrong_before_is_not_the_edits_fault() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringway.yaml");
        std::fs::write(&file, format!("{FILE}zone: ${{RINGWAY_TEST_UNSET}}\n")).unwrap();
        let saved = |value: &str| {
            let fields = [("weight", value.to_owned())];
            Edited::new(&file, drain("a", &fields)).and_then(|edited| edited.write())
        };
        assert!(saved("7").is_ok());
        assert!(std::fs::read_to_string(&file).unwrap().contains("weight: 7"));
        assert!(saved("1601").unwrap_err().to_string().contains("would not be valid"));
    }
}
