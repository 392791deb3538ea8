//! Whether a file may have changed, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two writes in this time may carry the same time: kernels' clocks for files tick a few milliseconds apart, others' (FAT, some
/// network file systems) two seconds.
const GRAIN: Duration = Duration::from_secs(2);

/// What a file system says of a file's version: another content has another stamp, unless it was written within the grain of the
/// file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Unlike `modified`, nobody can set it.
    changed: (i64, i64),
}

impl FileStamp {
    /// Of the file that a path leads to, past links. Taken before the file is read: what is written after that shows in the next one.
    #[must_use]
    pub fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    /// Whether any write after this time of day gives another stamp. As long as it does not, the file has to be read again.
    #[must_use]
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        UNIX_EPOCH
            .checked_add(Duration::new(seconds, nanos.min(999_999_999)))
            .and_then(|changed| changed.checked_add(GRAIN))
            .is_some_and(|settled| settled <= now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_versions_apart_once_it_is_old_enough() {
        let directory = std::env::temp_dir().join(format!("ringway-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (file, other) = (directory.join("a"), directory.join("b"));
        std::fs::write(&file, "one").unwrap();
        let stamp = |path: &std::path::Path| FileStamp::of(&std::fs::metadata(path).unwrap());
        let first = stamp(&file);
        assert_eq!(first, stamp(&file));
        let changed = UNIX_EPOCH + Duration::new(first.changed.0 as u64, first.changed.1 as u32);
        assert!(!first.is_settled(changed) && !first.is_settled(changed + GRAIN - Duration::from_nanos(1)));
        assert!(first.is_settled(changed + GRAIN));
        // A clock that was set back: nothing is taken for settled that may not be.
        assert!(!first.is_settled(changed - Duration::from_secs(3600)));
        // Another file in its place, with the same times and the same length.
        std::fs::write(&other, "two").unwrap();
        let times = std::fs::metadata(&file).unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(times.modified().unwrap()).unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_ne!(first, stamp(&file));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
