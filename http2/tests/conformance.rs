//! What RFC 9113 and RFC 7541 demand of an endpoint, behaviour by behaviour.
//!
//! The list is h2spec's (2.6): 44 that every endpoint shows (`generic`), 95 of HTTP/2, 8 of HPACK. Each test is named by what it demands;
//! the comment above it has the section of today's RFC and h2spec's number. Where it means something to a client as well, it is run
//! against both roles.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod generic;
mod harness;
mod hostile;
mod hpack;
mod section_3_starting;
mod section_4_frames;
mod section_5_streams;
mod section_6_definitions;
mod section_7_errors;
mod section_8_semantics;
