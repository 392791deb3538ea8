//! Consensus: one log, one machine, several members that stay the same.
//!
//! The only module that sees the engine (openraft). The rest of the crate proposes commands, waits for read barriers
//! and watches a [`Status`]; disk and wire carry structs of `store/record.rs`.
//!
//! ```text
//! propose -> engine -> log.rs -> store           (this member's disk)
//!               |-> network.rs -> transport      (the others' disks)
//!               '-> machine.rs -> Machine::apply (once a quorum has it)
//! ```

mod convert;
mod housekeeping;
mod log;
mod machine;
mod members;
mod network;
mod node;
mod options;
mod outcome;
pub mod replica;
mod replicated;
mod start;
mod status;
#[cfg(test)]
mod suite;
mod survivor;
mod to_end;
mod types;

pub use self::members::MemberError;
pub use self::node::Node;
#[cfg(test)]
pub(crate) use self::options::Core;
pub use self::options::{Answerer, Options, PeerTls, StartError, Timing};
pub use self::outcome::{COMMAND_BYTES_MAX, Failure, ProposeError, Proposed, Read};
pub use self::replicated::{At, Halt, Machine, RestoreError, SnapshotWriter};
pub use self::status::{MemberStatus, Role, Status};
pub use self::survivor::{Beginning, Survivor};
pub use crate::store::record::{Identity, MemberInfo};

/// For [`crate::fuzzing`]: an entry from a wire is the engine's or is refused, and comes back as it was.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_entry(entry: &crate::store::record::Entry) {
    if let Ok(taken) = convert::to_entry(entry) {
        let back = convert::entry(&taken);
        assert_eq!(back.id, entry.id);
        let again = convert::to_entry(&back).map(|again| convert::entry(&again)).ok();
        assert_eq!(again.as_ref(), Some(&back), "{entry:?}");
    }
}
