//! From the tree to the sections of `schema`: everything that is wrong is gathered, nothing stops at the first error.

use crate::diagnostic::At;
use crate::findings::Findings;
use crate::node::{Node, Value};

mod duration;
mod fields;
mod scalars;
mod shape;
mod words;

pub use duration::{duration_text, parse_duration};
pub(crate) use fields::SectionReader;
use fields::list_example;
pub(crate) use scalars::BLANK;
pub(crate) use scalars::{Bytes, Factor, Int, Limit, Number, Percent, SECRET, Secret, Share, URL, Url};
pub(crate) use shape::{Decode, Field, Movable, Shape};
pub(crate) use words::word;

/// Declares a section: struct, decoder, shape.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal {
            $( $(#[doc = $field_doc:literal])+ $kind:ident $(($default:literal))? $field:ident: $type:ty, )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        #[allow(dead_code, reason = "not every section's place is asked for")]
        pub(crate) struct $name {
            pub(crate) place: Place,
            $( $(#[doc = $field_doc])+ pub(crate) $field: section!(@type $kind $type), )*
        }

        impl Decode for $name {
            fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
                const NAMES: &[&str] = &[$(stringify!($field)),*];
                let _reader = SectionReader::new(node, $title, NAMES, Self::shape, findings)?;
                // All fields are read before any failure ends this section.
                $( let $field = _reader.$kind::<$type>(stringify!($field), section!(@preset $type $(, $default)?), findings); )*
                Some(Self { place: node.place, $( $field: $field?, )* })
            }

            fn move_to(&mut self, place: Place) {
                self.place = place;
                $( $crate::decode::Movable::move_to(&mut self.$field, place); )*
            }

            fn shape() -> Shape {
                fn fields() -> Vec<Field> {
                    vec![$( Field {
                        name: stringify!($field).trim_start_matches("r#"),
                        doc: concat!($($field_doc, "\n"),+),
                        required: section!(@required $kind),
                        default: section!(@default $($default)?),
                        shape: <$type as Decode>::shape(),
                    }, )*]
                }
                Shape::Section { doc: concat!($($doc, "\n"),+), fields }
            }
        }
    };
    (@type optional $type:ty) => { Option<At<$type>> };
    (@type $kind:ident $type:ty) => { At<$type> };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    // The default, and the place for what has been read from it.
    (@preset $type:ty) => { None };
    (@preset $type:ty, $default:literal) => {{
        static READ: std::sync::OnceLock<$type> = std::sync::OnceLock::new();
        Some(($default, &READ))
    }};
    (@required required) => { true };
    (@required $kind:ident) => { false };
}
pub(crate) use section;

/// Declares a choice between words.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl Decode for $name {
            fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),+];
                match crate::decode::word(node, WORDS, findings)? {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn shape() -> Shape {
                Shape::Choice(&[$($word),+])
            }
        }
    };
}
pub(crate) use choice;

/// A list; what could not be read of it is missing, and `lost` says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<T> {
    items: Vec<At<T>>,
    pub(crate) lost: bool,
}

impl<T> std::ops::Deref for List<T> {
    type Target = [At<T>];

    fn deref(&self) -> &[At<T>] {
        &self.items
    }
}

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let Value::List(nodes) = &node.value else {
            return findings.wrong_type(node, "a list", &list_example::<T>(node));
        };
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            items.extend(T::decode(node, findings).map(|value| At { value, place: node.place }));
        }
        Some(Self { lost: items.len() < nodes.len(), items })
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}
