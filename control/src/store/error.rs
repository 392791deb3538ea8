//! Why a store cannot be opened, or has stopped: in words for the operator, who has nothing but the message.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::record::{self, Identity};

/// What damage asks the operator to do; the same words in every message.
const CURE: &str = "nothing was changed; wipe the directory and rejoin as a learner under a new node id";

/// Why a store cannot be opened, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("{}: another process runs this member", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another cluster or member.
    #[error("{}: belongs to member {} of cluster {:?}, not to member {} of {:?}", .path.display(), .found.node, .found.cluster, .expected.node, .expected.cluster)]
    OtherMember {
        /// The file that says so.
        path: PathBuf,
        /// Whose it is.
        found: Box<Identity>,
        /// Whose it was taken for.
        expected: Box<Identity>,
    },
    /// The member has run here before and its log is gone, and with it its vote.
    #[error("{}: is missing although this member has run here; {CURE}", .path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// Written by a newer build.
    #[error("{}: {place}: format {found} is newer than the format {known} of this build; run the newer build", .path.display(), known = record::FORMAT)]
    Future {
        /// The file.
        path: PathBuf,
        /// Which of its records.
        place: Place,
        /// The record's format.
        found: u8,
    },
    /// The file is damaged.
    #[error("{}: {place}: {what}; {CURE}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which of its records.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database refused a write.
    #[error("write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
    /// The database panicked while it wrote.
    #[error("write {}: the database panicked: {message}", .path.display())]
    Panicked {
        /// The file.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
    /// A caller broke the order of the log.
    #[error("entry {index} does not follow entry {last}")]
    Hole {
        /// The entry that was to be appended.
        index: u64,
        /// The last one in the log.
        last: u64,
    },
    /// A value could not be encoded.
    #[error("encode {place}")]
    Encode {
        /// For which record.
        place: Place,
        /// The cause.
        source: postcard::Error,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Which record of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file itself.
    File,
    /// A log entry, by its index.
    Log(u64),
    /// Whose file it is.
    Identity,
    /// The vote.
    Vote,
    /// The commit position.
    Committed,
    /// The purge position.
    Purged,
    /// The list of snapshots.
    Snapshots,
    /// A snapshot's content, by its number.
    Snapshot(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Log(index) => write!(f, "log record {index}"),
            Self::Identity => f.write_str("the identity record"),
            Self::Vote => f.write_str("the vote record"),
            Self::Committed => f.write_str("the commit record"),
            Self::Purged => f.write_str("the purge record"),
            Self::Snapshots => f.write_str("the list of snapshots"),
            Self::Snapshot(number) => write!(f, "snapshot {number}"),
        }
    }
}
