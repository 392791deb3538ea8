//! Services of a TCP listener by the server name that a client asks for.

use super::prefix_forest::{HostFromEnd, PrefixForest, host_key, small};
use ringway_config::model::HostMatch;
use std::collections::BTreeMap;

/// No entry.
const NONE: u32 = u32::MAX;

/// The first entries for a name.
struct Named {
    /// For the name itself.
    exact: u32,
    /// For what ends so, and has something before it.
    below: u32,
}

/// A list of names, ready to be asked.
pub(crate) struct NameTable(PrefixForest<Named>);

impl NameTable {
    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n HostMatch>) -> Self {
        let mut known: BTreeMap<Vec<u8>, Named> = BTreeMap::new();
        for (index, name) in names.enumerate() {
            let (HostMatch::Exact(text) | HostMatch::Suffix(text)) = name;
            let named = known.entry(host_key(text)).or_insert(Named { exact: NONE, below: NONE });
            let place = match name {
                HostMatch::Exact(_) => &mut named.exact,
                HostMatch::Suffix(_) => &mut named.below,
            };
            *place = small(index).min(*place);
        }
        let (keys, values): (Vec<Vec<u8>>, Vec<Named>) = known.into_iter().unzip();
        let keys: Vec<(usize, &[u8])> = keys.iter().map(|key| (0, key.as_slice())).collect();
        Self(PrefixForest::new(1, &keys, values))
    }

    /// The index of the first name that matches. With or without the dot of the root, it is one name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut first = NONE;
        self.0.each_prefix(0, HostFromEnd(name), |len, named| {
            first = first.min(if len == name.len() { named.exact } else { named.below });
        });
        (first != NONE).then_some(first as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(name: &str) -> HostMatch {
        HostMatch::Exact(name.into())
    }

    fn below(suffix: &str) -> HostMatch {
        HostMatch::Suffix(suffix.into())
    }

    #[test]
    fn the_first_name_that_matches_is_found_not_the_closest() {
        let names =
            [below(".b.example"), exact("a.b.example"), exact("c.example"), below(".example"), exact("c.example")];
        let table = NameTable::new(names.iter());
        for (name, found) in [
            ("a.b.example", Some(0)),
            ("A.B.Example.", Some(0)),
            ("b.example", Some(3)),
            ("c.example", Some(2)),
            ("x.y.example", Some(3)),
            ("example", None),
            (".example", None),
            ("", None),
            (".", None),
            ("xexample", None),
        ] {
            assert_eq!(table.find(name), found, "{name}");
        }
        assert_eq!(NameTable::new([].into_iter()).find("a"), None);
    }

    /// As the list says it.
    fn searched(names: &[HostMatch], name: &str) -> Option<usize> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        names.iter().position(|wanted| match wanted {
            HostMatch::Exact(host) => *host == name,
            HostMatch::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        })
    }

    proptest::proptest! {
        #[test]
        fn a_table_finds_what_a_search_of_its_list_finds(
            names in proptest::collection::vec((proptest::bool::ANY, "[ab](\\.[ab]){0,3}"), 0..30),
            asked in proptest::collection::vec("[abAB]?(\\.?[abAB]){0,5}\\.?", 1..20),
        ) {
            let names: Vec<HostMatch> = names.into_iter()
                .map(|(is_exact, name)| if is_exact { exact(&name) } else { below(&format!(".{name}")) })
                .collect();
            let table = NameTable::new(names.iter());
            for name in &asked {
                proptest::prop_assert_eq!(table.find(name), searched(&names, name), "{} in {:?}", name, names);
            }
        }
    }
}
