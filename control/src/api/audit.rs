//! The audit log's file: followed when it is rotated, and never with half a line before another.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An open audit log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    /// The last line may have been cut: a full disk takes a part.
    cut: bool,
}

impl AuditLog {
    /// Opens it for appending.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, cut: false })
    }

    /// Appends a line, in the file that has the name now.
    pub(crate) fn write(&mut self, line: &str) -> std::io::Result<()> {
        let own = self.file.metadata()?;
        let is_same =
            std::fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()));
        if !is_same && let Ok(fresh) = append(&self.path) {
            (self.file, self.cut) = (fresh, false);
        }
        let begin = if self.cut { "\n" } else { "" };
        let written = self.file.write_all(format!("{begin}{line}\n").as_bytes());
        self.cut = written.is_err();
        written
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_audit_log_is_let_go_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let mut log = AuditLog::open(&path).unwrap();
        log.write("one").unwrap();
        std::fs::rename(&path, directory.path().join("audit.1")).unwrap();
        std::fs::write(&path, "").unwrap();
        log.write("two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("audit.1")).unwrap(), "one\n");
    }
}
