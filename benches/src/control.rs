//! The control plane, measured: three members as processes with their own disks, TLS everywhere, clients in this process.

pub mod loads;
pub mod members;
pub mod proxies;
pub mod scenario;

/// Percentile `p` (0 to 1) of numbers, which are sorted here; 0 of none.
#[must_use]
pub fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * p).round() as usize).copied().unwrap_or(0.0)
}
