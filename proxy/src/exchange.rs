//! One request and its response, from a parsed head to the last byte: which backend serves it, which attempts are made, which bytes go
//! up and which come down.

pub(crate) mod actions;
pub(crate) mod attempt;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod compress;
pub(crate) mod error_response;
mod handoff;
mod hedge;
pub(crate) mod local_reply;
pub(crate) mod marks;
pub(crate) mod mirror;
mod on_backend;
mod outcome;
mod pump;
pub(crate) mod request;
mod response;
mod retry;
mod run;
pub(crate) mod span_attributes;
pub(crate) mod tapped;
mod told_head;
mod trace;
mod trace_parts;
mod wish;

pub(crate) use outcome::Next;
pub(crate) use run::run;
