//! `--save`: what was changed of a running proxy's backend, in its file as well.

use anyhow::{Context, bail};
use ringway_config::{Severity, load_str, set_backend_fields};
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A file's new text, checked and not written yet.
pub(crate) struct Edited {
    path: PathBuf,
    text: String,
    permissions: Permissions,
}

impl Edited {
    /// Changes these fields of a backend, and nothing else.
    ///
    /// # Errors
    /// The backend does not stand in the file, or the file would not be valid.
    pub(crate) fn new(file: &Path, service: &str, backend: &str, fields: &[(&str, String)]) -> anyhow::Result<Self> {
        let read = || format!("read {}", file.display());
        // What a link leads to is replaced, not the link.
        let path = file.canonicalize().with_context(read)?;
        let permissions = std::fs::metadata(&path).with_context(read)?.permissions();
        let before = String::from_utf8(ringway_config::read_bytes(&path).with_context(read)?).with_context(read)?;
        let text = set_backend_fields(&before, service, backend, fields)
            .with_context(|| format!("--save into {}", file.display()))?;
        let checked = load_str(&file.display().to_string(), &text, &|name| std::env::var(name).ok());
        if let Err(found) = checked {
            let first = found.0.iter().find(|finding| finding.severity == Severity::Error);
            bail!("--save: {} would not be valid: {}", file.display(), first.map_or("", |first| &first.message));
        }
        Ok(Self { path, text, permissions })
    }

    /// Puts it into place, whole or not at all.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let fresh = self.path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let written = self.write_to(&fresh).and_then(|()| std::fs::rename(&fresh, &self.path));
        if written.is_err() {
            // It may not be there at all.
            let _ = std::fs::remove_file(&fresh);
        }
        written.with_context(|| format!("write {}", self.path.display()))
    }

    fn write_to(&self, fresh: &Path) -> std::io::Result<()> {
        let mut file = File::create_new(fresh)?;
        file.set_permissions(self.permissions.clone())?;
        file.write_all(self.text.as_bytes())?;
        file.sync_all()
    }
}
