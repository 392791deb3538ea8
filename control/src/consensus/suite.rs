//! The engine's own tests of a log and a state machine, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log::Log;
use super::machine::{Retired, StateMachine};
use super::replicated::{At, Halt, Machine, RestoreError, SnapshotWriter};
use super::types::Types;
use crate::store::Store;
use crate::store::record::Identity;

/// Counts: all that the suite looks at is positions.
struct Counter(u64);

impl Machine for Counter {
    fn apply(&mut self, _: At, _: &[u8]) -> Result<Vec<u8>, Halt> {
        self.0 += 1;
        Ok(Vec::new())
    }

    fn freeze(&self) -> SnapshotWriter {
        let count = self.0;
        Box::new(move || Ok(count.to_le_bytes().to_vec()))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bytes = bytes.try_into().map_err(|_| RestoreError { reason: "not eight bytes".to_owned() })?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<Types, Log, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, StateMachine), StorageError<Types>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity { cluster: "suite".to_owned(), node: 1 };
        let store = Store::open(directory.path(), &identity).expect("a new store");
        let machine = StateMachine::new(Box::new(Counter(0)), store.clone(), Retired::default());
        Ok((directory, Log { store }, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_engines_suite() {
    Suite::test_all(Builder).await.expect("every case");
}
