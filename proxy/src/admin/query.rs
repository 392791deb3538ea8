//! The query of a target, as a form writes it.

/// Its pairs, in their order; a name without a value has an empty one.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, Vec<u8>)> + Clone {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (name, unescape(value)))
}

/// Percent-decoding, as of a form; what is no escape stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes_and_what_is_no_escape_stands_for_itself() {
        let found: Vec<_> = pairs("a=1&&b=x+y%20z%00%zz&c&=d").collect();
        let expected: [(&str, &[u8]); 4] = [("a", b"1"), ("b", b"x y z\0%zz"), ("c", b""), ("", b"d")];
        assert_eq!(found, expected.map(|(name, value)| (name, value.to_vec())));
    }
}
