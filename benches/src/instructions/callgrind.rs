//! Callgrind's file of counts.

/// All instructions of the file. `None`: it is no such file, or it was not written to its end.
#[must_use]
pub fn instructions(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse::<u64>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_and_without_one_nothing_was_counted() {
        assert_eq!(instructions("events: Ir\n\nfn=(1) main\n0 10\n+3 5\n\ntotals: 15\n"), Some(15));
        assert_eq!(instructions("events: Ir\n\nfn=(1) main\n0 10\n"), None);
        assert_eq!(instructions("totals: many\n"), None);
        assert_eq!(instructions(""), None);
    }
}
