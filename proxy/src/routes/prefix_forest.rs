//! Texts, and which of them another text begins with: found in one pass over that text, however many there are.
//!
//! Radix trees in a few flat arrays, the children of a node side by side. Building and asking go by loops, not by recursion:
//! how deep a tree is, the file decides.

use std::collections::VecDeque;
use std::ops::Range;

/// No value.
const NONE: u32 = u32::MAX;

/// What a tree is asked about, byte by byte in the order of its keys.
pub(super) trait Text: Copy {
    /// How many bytes it has.
    fn len(self) -> usize;
    /// One of them.
    fn byte(self, at: usize) -> u8;
    /// Whether these bytes stand there.
    fn has(self, at: usize, bytes: &[u8]) -> bool;
}

/// A text from its beginning, as it is.
#[derive(Clone, Copy)]
pub(super) struct Forwards<'t>(pub(super) &'t [u8]);

impl Text for Forwards<'_> {
    #[inline]
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn byte(self, at: usize) -> u8 {
        self.0[at]
    }

    #[inline]
    fn has(self, at: usize, bytes: &[u8]) -> bool {
        self.0[at..].starts_with(bytes)
    }
}

/// A host from its end, in lower case: hosts below one domain begin alike.
#[derive(Clone, Copy)]
pub(super) struct HostFromEnd<'t>(pub(super) &'t [u8]);

impl Text for HostFromEnd<'_> {
    #[inline]
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn byte(self, at: usize) -> u8 {
        self.0[self.0.len() - 1 - at].to_ascii_lowercase()
    }

    #[inline]
    fn has(self, at: usize, bytes: &[u8]) -> bool {
        let left = &self.0[..self.0.len() - at];
        left.len() >= bytes.len() && left.iter().rev().zip(bytes).all(|(one, key)| one.to_ascii_lowercase() == *key)
    }
}

/// A host as a key: what [`HostFromEnd`] reads of it.
pub(super) fn host_key(host: &str) -> Vec<u8> {
    host.bytes().rev().map(|byte| byte.to_ascii_lowercase()).collect()
}

/// A node: what its keys have in common after what their parent's have.
struct Node {
    label: u32,
    label_len: u32,
    children: u32,
    children_len: u16,
    /// Of the key that ends here.
    value: u32,
}

/// Some trees, each with keys of its own.
pub(super) struct PrefixForest<V> {
    nodes: Box<[Node]>,
    /// The byte that leads to each node.
    first_bytes: Box<[u8]>,
    labels: Box<[u8]>,
    values: Box<[V]>,
}

impl<V> PrefixForest<V> {
    /// So many trees, known by their numbers. Keys are sorted by tree and bytes, and differ; `values` are theirs.
    pub(super) fn new(trees: usize, keys: &[(usize, &[u8])], values: Vec<V>) -> Self {
        let mut nodes = Vec::new();
        let mut labels = Vec::new();
        let mut first_bytes = vec![0; trees];
        // Keys that are to be a node, and how many of their bytes are spent: in the order of the nodes.
        let mut pending: VecDeque<(Range<usize>, usize)> = VecDeque::new();
        let mut end = 0;
        for tree in 0..trees {
            let start = end;
            end += keys[start..].partition_point(|(of, _)| *of == tree);
            pending.push_back((start..end, 0));
        }
        while let Some((range, spent)) = pending.pop_front() {
            let mut node = Node { label: small(labels.len()), label_len: 0, children: 0, children_len: 0, value: NONE };
            if let [(_, first), ..] = keys[range.clone()] {
                // Sorted: what the first and the last have in common, all have.
                let last = keys[range.end - 1].1;
                let common = first[spent..].iter().zip(&last[spent..]).take_while(|(one, other)| one == other).count();
                let depth = spent + common;
                labels.extend_from_slice(&first[spent..depth]);
                node.label_len = small(common);
                let mut next = range.start;
                if first.len() == depth {
                    node.value = small(next);
                    next += 1;
                }
                node.children = small(nodes.len() + 1 + pending.len());
                while next < range.end {
                    let byte = keys[next].1[depth];
                    let end = next + keys[next..range.end].partition_point(|(_, key)| key[depth] == byte);
                    pending.push_back((next..end, depth));
                    first_bytes.push(byte);
                    node.children_len += 1;
                    next = end;
                }
            }
            nodes.push(node);
        }
        Self { nodes: nodes.into(), first_bytes: first_bytes.into(), labels: labels.into(), values: values.into() }
    }

    /// Shows all keys that the text begins with, the shortest first: their lengths and values.
    #[inline]
    pub(super) fn each_prefix<'f>(&'f self, tree: usize, text: impl Text, mut found: impl FnMut(usize, &'f V)) {
        let Some(mut node) = self.nodes.get(tree) else { return };
        let mut at = 0;
        loop {
            let label = node.label as usize;
            let label = &self.labels[label..label + node.label_len as usize];
            if !text.has(at, label) {
                return;
            }
            at += label.len();
            if let Some(value) = self.values.get(node.value as usize) {
                found(at, value);
            }
            if at == text.len() {
                return;
            }
            let children = node.children as usize;
            let bytes = &self.first_bytes[children..children + usize::from(node.children_len)];
            let Some(child) = memchr::memchr(text.byte(at), bytes) else { return };
            node = &self.nodes[children + child];
        }
    }
}

#[cfg(test)]
impl<V> PrefixForest<V> {
    /// The room that it takes.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.first_bytes.len() + self.labels.len();
        size_of_val(&*self.nodes) + size_of_val(&*self.values) + texts
    }
}

/// A count of nodes, keys or bytes of a file.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).expect("invariant: a configuration has fewer than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn forest(keys: &BTreeSet<(usize, Vec<u8>)>, trees: usize) -> PrefixForest<Vec<u8>> {
        let sorted: Vec<(usize, &[u8])> = keys.iter().map(|(tree, key)| (*tree, key.as_slice())).collect();
        PrefixForest::new(trees, &sorted, keys.iter().map(|(_, key)| key.clone()).collect())
    }

    proptest::proptest! {
        #[test]
        fn every_key_that_a_text_begins_with_is_found_in_its_tree_and_no_other(
            keys in proptest::collection::btree_set((0_usize..3, proptest::collection::vec(97_u8..100, 0..6)), 0..40),
            text in proptest::collection::vec(97_u8..100, 0..9),
        ) {
            let forest = forest(&keys, 3);
            for tree in 0..3 {
                let mut found = Vec::new();
                forest.each_prefix(tree, Forwards(&text), |len, key| {
                    assert_eq!(len, key.len());
                    found.push(key.clone());
                });
                let mut wanted: Vec<Vec<u8>> =
                    keys.iter().filter(|(of, key)| *of == tree && text.starts_with(key)).map(|(_, key)| key.clone()).collect();
                wanted.sort_by_key(Vec::len);
                proptest::prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn a_host_is_read_from_its_end_whatever_its_case() {
        let keys = BTreeSet::from([(0, host_key("Example.COM")), (0, host_key(".example.com")), (0, host_key("com"))]);
        let forest = forest(&keys, 1);
        let found = |host: &str| {
            let mut lens = Vec::new();
            forest.each_prefix(0, HostFromEnd(host.as_bytes()), |len, _| lens.push(len));
            lens
        };
        assert_eq!(found("A.eXample.com"), [3, 11, 12]);
        assert_eq!(found("example.com"), [3, 11]);
        assert_eq!(found("example.org"), [0; 0]);
        assert_eq!(found(""), [0; 0]);
    }

    #[test]
    fn a_tree_as_deep_as_its_keys_are_long_is_built_and_asked_in_a_loop() {
        let keys: BTreeSet<(usize, Vec<u8>)> = (0..3_000).map(|len| (0, vec![b'a'; len])).collect();
        let forest = forest(&keys, 1);
        let mut found = 0;
        forest.each_prefix(0, Forwards(&[b'a'; 65_536]), |_, _| found += 1);
        assert_eq!(found, 3_000);
    }
}
