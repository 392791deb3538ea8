//! What can be read out of a tree, and what it looks like.

use crate::findings::Findings;
use crate::node::Node;

/// Something that can be read out of the tree.
pub(crate) trait Decode: Sized {
    /// `None`: it could not be, and a finding says why.
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self>;

    /// What it looks like.
    fn shape() -> Shape;
}

/// What a value looks like: JSON Schema and the reference are printed from it.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Boolean,
    Integer { min: u64, max: u64 },
    Number { min: f64 },
    Text { kind: &'static str, pattern: Option<&'static str> },
    Choice(&'static [&'static str]),
    List(Box<Self>),
    Section { doc: &'static str, fields: fn() -> Vec<Field> },
}

/// A field of a section.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) required: bool,
    pub(crate) default: Option<&'static str>,
    pub(crate) shape: Shape,
}
