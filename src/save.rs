//! `--save`: what was changed of a running proxy's backend, in its file as well.

use anyhow::{Context, bail};
use ringway_config::{Diagnostic, Severity, load_str, set_backend_fields};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

/// Fields of a backend that are to be written into a file.
pub(crate) struct Edit<'a> {
    pub(crate) service: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) fields: &'a [(&'a str, String)],
}

/// A file that is to be changed so, looked at and not written yet.
pub(crate) struct Edited<'a> {
    edit: Edit<'a>,
    path: PathBuf,
    /// What it was when it was looked at, and what it is to be.
    before: String,
    after: String,
}

impl<'a> Edited<'a> {
    /// Changes these fields of a backend, and nothing else.
    ///
    /// # Errors
    /// The backend does not stand in the file, or the file would have errors that it has not now.
    pub(crate) fn new(file: &Path, edit: Edit<'a>) -> anyhow::Result<Self> {
        // What a link leads to is replaced, not the link.
        let path = file.canonicalize().with_context(|| format!("read {}", file.display()))?;
        let before = read(&path)?;
        let after = edit.of(&path, &before)?;
        Ok(Self { edit, path, before, after })
    }

    /// Puts it into place, whole or not at all. What others have written since it was looked at is kept.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let failed = || format!("write {}", self.path.display());
        let locked = lock(&self.path).with_context(failed)?;
        let now = read(&self.path)?;
        let again = if now == self.before { None } else { Some(self.edit.of(&self.path, &now)?) };
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let fresh = self.path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let text = again.as_ref().unwrap_or(&self.after);
        let written = locked
            .metadata()
            .and_then(|old| write_to(&fresh, text, &old))
            .and_then(|()| std::fs::rename(&fresh, &self.path));
        if written.is_err() {
            // It may not be there at all.
            let _ = std::fs::remove_file(&fresh);
        }
        written.with_context(failed)?;
        // Only then is the new name there after a power cut as well.
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).with_context(failed)
    }
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
    loop {
        let file = File::open(path)?;
        file.lock()?;
        let (held, there) = (file.metadata()?, std::fs::metadata(path)?);
        if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}

fn write_to(fresh: &Path, text: &str, old: &Metadata) -> io::Result<()> {
    let mut file = File::create_new(fresh)?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        // Somebody else's file, that its owner could not read any more, is left as it is.
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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
