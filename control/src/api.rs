//! The API: HTTP/1.1 and HTTP/2, JSON. Described by `GET /openapi.json`; errors are RFC 9457 problems with a stable `code`.

mod audit;
mod auth;
mod member;
mod metrics;
mod objects;
mod openapi;
mod owner;
mod request;
mod response;
mod routes;
mod serve;
mod stream;

pub use self::audit::AuditLog;
pub use self::auth::TokenError;
pub use self::member::Api;
#[cfg(test)]
pub(crate) use self::stream::feed;
