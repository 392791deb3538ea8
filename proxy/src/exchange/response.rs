//! Limits on a backend's response and its `Retry-After`, for every attempt.

use super::wish;
use crate::ambient;
use ringway_message::{Limits, ResponseHead};
use std::time::Duration;

/// Informational responses (1xx) that a backend may send before the final one.
pub(super) const INFORMATIONAL_MAX: u32 = 16;

/// Largest head of a response, and most fields in it.
pub(super) const RESPONSE_LIMITS: Limits = Limits { head_bytes_max: 64 * 1024, fields_max: 256 };

/// What a response with 429 or 503 asks for with `Retry-After`.
pub(super) fn retry_after(head: &ResponseHead, bytes: &[u8]) -> Option<Duration> {
    if !matches!(head.status, 429 | 503) {
        return None;
    }
    let value = |name: &[u8]| {
        let field = head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
        field.map(|field| field.value.of(bytes))
    };
    wish::retry_after(value(b"retry-after")?, value(b"date"), ambient::time_of_day())
}
