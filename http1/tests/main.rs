//! The codec from outside: properties, and beside other parsers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod differential;
mod heads;
mod oracle;
mod properties;
