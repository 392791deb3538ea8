//! Calls of the engine, each of which is carried out to its end, whoever gives up waiting for it.
//!
//! Once the engine has ended, by a full disk for example, the first call that finds out waits for its task, and leaves a note that it does.
//! Where that call is dropped meanwhile, the note stays, and each further call panics: `join_core_task` in openraft 0.10's `raft_inner.rs`
//! (2026-08: in its newest source too). So no call of it is dropped: whoever gives up leaves it alone.

use openraft::type_config::TypeConfigExt as _;

use super::types::Types;

/// Carries a call out. `None`: it has panicked, or the process ends.
pub(super) async fn to_end<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> Option<T> {
    Types::spawn(call).await.ok()
}
