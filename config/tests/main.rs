//! Files as operators write them: what they say, and what is said of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;
mod contradictions;
mod fleet;
mod golden;
mod meaning;
mod said;
