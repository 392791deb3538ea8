//! Where a request, a session or a flow belongs: split, client address, hash key, rate limits.

pub(crate) mod admission;
pub(crate) mod affinity_cookie;
pub(crate) mod forwarded;
pub(crate) mod hash_key;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
pub(crate) mod split;
