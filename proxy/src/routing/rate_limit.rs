//! A service's limits on the rate and on the concurrency of requests, sessions and flows alike.

use crate::error::ProxyError;
use crate::routing::hash_key::{self, KeyInput};
use crate::snapshot::connections;
use crate::snapshot::{Service, ServiceLive};
use crate::worker::Worker;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Checks a request, a session or a flow against its service's rate limit.
///
/// # Errors
/// [`ProxyError::RateLimited`].
pub(crate) fn admit(
    service: &Service,
    worker: &Worker,
    input: &KeyInput<'_>,
    key_bytes: &mut Vec<u8>,
    now: Instant,
) -> Result<(), ProxyError> {
    let (Some(limit), Some(limiter)) = (&service.config.rate_limit, &service.limiter) else { return Ok(()) };
    if !hash_key::extract(&limit.key, input, key_bytes) {
        return Ok(());
    }
    let hash = ringway_ring::hash_key(key_bytes, worker.shared.secret);
    limiter.admit(hash, now).map_err(|wait| {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        ProxyError::RateLimited { seconds: u32::try_from(seconds).unwrap_or(u32::MAX) }
    })
}

/// One request, session or flow of a service that limits their number.
pub(crate) struct Admission(Arc<ServiceLive>);

impl Admission {
    /// Counts one more; `None`: the service has no limit.
    ///
    /// # Errors
    /// [`ProxyError::ServiceFull`].
    pub(crate) fn enter(service: &Service) -> Result<Option<Self>, ProxyError> {
        if service.config.requests_max == u32::MAX {
            return Ok(None);
        }
        if !connections::add_below(&service.live.admitted, service.config.requests_max) {
            return Err(ProxyError::ServiceFull);
        }
        Ok(Some(Self(Arc::clone(&service.live))))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Relaxed);
    }
}
