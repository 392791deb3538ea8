//! Where a key, or a whole request, goes and why.

mod described;
mod handoff;
mod key;
mod listener;
mod nearest;
mod request;
mod verdict;

pub use described::{Described, DescribedError};
pub use key::{ExplainError, Explanation, Priorities, explain, explain_hash};
pub(crate) use key::{Subject, live};
pub use verdict::explain_request;
pub(crate) use verdict::live_request;
