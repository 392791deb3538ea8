//! Retries, their limits and their bodies.
