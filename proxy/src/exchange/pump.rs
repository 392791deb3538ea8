//! A request's bytes up, its response's bytes down.
//!
//! Both directions are driven by one task: [`Exchange`] is two small state machines over two ends, polled together,
//! so that a body can still be going up while its response comes down.

mod deliver;
mod finish;
mod head;
mod pace;
mod respond;
mod state;
#[cfg(test)]
mod testing;
mod upload;

pub(super) use state::Exchange;
