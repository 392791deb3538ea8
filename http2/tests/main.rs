//! The codec from outside: two ends in memory, and beside strangers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod conformance;
mod differential;
mod exchanges;
mod floods;
mod hpack;
mod leaving;
mod model;
mod strangers;
mod windows;
