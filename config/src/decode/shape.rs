//! What can be read out of a tree, and what it looks like.

use crate::diagnostic::{At, Place};
use crate::findings::Findings;
use crate::node::Node;

/// Something that can be read out of the tree.
pub(crate) trait Decode: Clone {
    /// `None`: it could not be, and a finding says why.
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self>;

    /// As if it stood here: of a default, which is read once and stands wherever it is not written.
    fn move_to(&mut self, _: Place) {}

    /// What it looks like.
    fn shape() -> Shape;
}

/// A section that few files have, outside the one that it belongs to: it takes no room there.
impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        T::decode(node, findings).map(Self::new)
    }

    fn move_to(&mut self, place: Place) {
        T::move_to(self, place);
    }

    fn shape() -> Shape {
        T::shape()
    }
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

/// A field as it stands in its section.
pub(crate) trait Movable {
    fn move_to(&mut self, place: Place);
}

impl<T: Decode> Movable for At<T> {
    fn move_to(&mut self, place: Place) {
        self.place = place;
        self.value.move_to(place);
    }
}

impl<T: Decode> Movable for Option<At<T>> {
    fn move_to(&mut self, place: Place) {
        self.iter_mut().for_each(|field| field.move_to(place));
    }
}
