//! One request and its response, from a parsed head to the last byte: which backend, which tries, what goes up and what comes down.

pub(crate) mod actions;
pub(crate) mod answer;
pub(crate) mod attempt;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod compress;
mod hedge;
pub(crate) mod mirror;
mod on_backend;
mod outcome;
mod pump;
pub(crate) mod refusal;
pub(crate) mod request;
mod response;
mod retry;
mod run;
mod wish;

pub(crate) use outcome::Next;
pub(crate) use run::run;
