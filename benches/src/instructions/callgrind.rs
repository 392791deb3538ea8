//! Callgrind's file of counts.

use std::collections::HashMap;

/// Runs until two clocks agree well enough, once in a process's life: not the same number of instructions twice.
const LEFT_OUT: &str = "quanta::Calibration::calibrate";

/// All instructions, but for those that are no measure of anything. `None`: it is no such file.
#[must_use]
pub fn instructions(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse::<u64>().ok()?;
    // A name is written out where it first comes; later its number stands for it.
    let mut names: HashMap<&str, bool> = HashMap::new();
    let (mut inside, mut left_out) = (false, 0);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, name.starts_with(LEFT_OUT));
            }
            if line.starts_with("fn=") {
                inside = names.get(number).copied().unwrap_or(false);
            }
        } else if inside && line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            // A place and what was spent there; behind a `calls=`, what was spent in the function that was called.
            left_out += line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok())?;
        }
    }
    total.checked_sub(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_repeat_is_left_out_with_all_that_it_calls() {
        let text = "events: Ir\n\nfn=(1) main\n0 10\ncfn=(2) quanta::Calibration::calibrate\ncalls=1 0\n0 600\n\
                    fn=(3) clock\n0 500\n\nfn=(2)\n0 40\n+3 60\ncfn=(3)\ncalls=7 0\n* 500\n\nfn=(1)\n0 5\n\ntotals: 1115\n";
        assert_eq!(instructions(text), Some(515));
        assert_eq!(instructions("fn=(1) main\n0 10\n\ntotals: 10\n"), Some(10));
        assert_eq!(instructions("fn=(1) main\n0 10\n"), None);
    }
}
