//! What changes a running proxy: configurations are prepared and committed, sockets bound, files watched, checks driven.

pub(crate) mod bind;
pub(crate) mod control;
pub(crate) mod files;
pub(crate) mod handle;
pub(crate) mod health_driver;
pub(crate) mod topology;
pub(crate) mod watch;
