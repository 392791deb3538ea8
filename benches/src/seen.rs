//! What it costs to be seen: traces, the page of metrics, and the stream that the page in a browser lives by. The numbers of
//! docs/benchmarks.md, "What it costs to be seen".

mod http;
pub mod pages;
mod process;
pub mod traces;

pub use http::serve;
pub use process::{Cpu, Ringway};

/// The middle one; of an even count the upper of the two. 0 of nothing.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 4.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
