//! The API: HTTP/1.1 and HTTP/2, JSON. Described by `GET /openapi.json`; errors are RFC 9457 problems with a stable `code`.

mod audit;
mod auth;
mod backups;
mod fleet;
mod history;
mod holding;
mod loads;
mod member;
mod members;
mod metrics;
mod objects;
mod openapi;
mod owner;
mod page;
mod proxies;
mod request;
mod response;
mod rollouts;
mod routes;
mod serve;
mod shown;
mod stream;
mod tokens;

pub use self::audit::AuditLog;
pub use self::auth::TokenError;
pub use self::member::Api;
#[cfg(test)]
pub(crate) use self::stream::{Wanted, feed};
