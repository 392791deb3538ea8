//! How the consensus engine prints options, results and lists in its logs.
//!
//! It stands in for the crate of this name, which can print dates as well and brings a database of time zones for that, a
//! build script that generates it, and a second copy of the regular expressions' engine: a tenth of a first build. Names and
//! signatures are those that the engine asks for; the rest is absent.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

/// How many elements of a list are printed if the caller does not say.
const ELEMENTS_MAX: usize = 5;

/// An option: its value, or `None`.
#[derive(Debug, Clone, Copy)]
pub struct DisplayOption<'a, T>(&'a Option<T>);

/// Gives options a [`Display`].
pub trait DisplayOptionExt<T> {
    /// What prints it.
    fn display(&self) -> DisplayOption<'_, T>;
}

impl<T: Display> DisplayOptionExt<T> for Option<T> {
    fn display(&self) -> DisplayOption<'_, T> {
        DisplayOption(self)
    }
}

impl<T: Display> Display for DisplayOption<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("None"),
        }
    }
}

/// A result: `Ok(value)` or `Err(error)`.
#[derive(Debug, Clone, Copy)]
pub struct DisplayResult<'a, T, E>(&'a Result<T, E>);

/// Gives results a [`Display`].
pub trait DisplayResultExt<T, E> {
    /// What prints it.
    fn display(&self) -> DisplayResult<'_, T, E>;
}

impl<T: Display, E: Display> DisplayResultExt<T, E> for Result<T, E> {
    fn display(&self) -> DisplayResult<'_, T, E> {
        DisplayResult(self)
    }
}

impl<T: Display, E: Display> Display for DisplayResult<'_, T, E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => write!(f, "Ok({value})"),
            Err(error) => write!(f, "Err({error})"),
        }
    }
}

/// A list: its first elements, and the last if some between are left out.
#[derive(Debug, Clone, Copy)]
pub struct DisplayList<I> {
    elements: I,
    elements_max: usize,
}

impl<I: ExactSizeIterator<Item: Display> + Clone> Display for DisplayList<I> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = self.elements.len();
        // With something left out, the last place is the last element's.
        let first = if count > self.elements_max { self.elements_max.saturating_sub(1) } else { count };
        f.write_str("[")?;
        for (index, element) in self.elements.clone().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match index {
                _ if index < first => write!(f, "{separator}{element}")?,
                _ if index == first => write!(f, "{separator}..")?,
                _ => {}
            }
            if index + 1 == count && first < count && self.elements_max > 0 {
                write!(f, ",{element}")?;
            }
        }
        f.write_str("]")
    }
}

/// Gives slices a [`Display`].
pub trait DisplaySliceExt<T> {
    /// What prints a few of the elements.
    fn display(&self) -> DisplayList<std::slice::Iter<'_, T>> {
        self.display_n(ELEMENTS_MAX)
    }

    /// What prints at most so many of them.
    fn display_n(&self, elements_max: usize) -> DisplayList<std::slice::Iter<'_, T>>;
}

impl<T: Display> DisplaySliceExt<T> for [T] {
    fn display_n(&self, elements_max: usize) -> DisplayList<std::slice::Iter<'_, T>> {
        DisplayList { elements: self.iter(), elements_max }
    }
}

/// Gives sets a [`Display`].
pub trait DisplayBTreeSetExt<T> {
    /// What prints a few of the elements.
    fn display(&self) -> DisplayList<std::collections::btree_set::Iter<'_, T>> {
        self.display_n(ELEMENTS_MAX)
    }

    /// What prints at most so many of them.
    fn display_n(&self, elements_max: usize) -> DisplayList<std::collections::btree_set::Iter<'_, T>>;
}

impl<T: Display> DisplayBTreeSetExt<T> for BTreeSet<T> {
    fn display_n(&self, elements_max: usize) -> DisplayList<std::collections::btree_set::Iter<'_, T>> {
        DisplayList { elements: self.iter(), elements_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_is_there_and_says_what_is_left_out() {
        assert_eq!(Some(3).display().to_string(), "3");
        assert_eq!(None::<u8>.display().to_string(), "None");
        assert_eq!(Ok::<_, String>(1).display().to_string(), "Ok(1)");
        assert_eq!(Err::<u8, _>("no").display().to_string(), "Err(no)");
        assert_eq!([1, 2, 3].display().to_string(), "[1,2,3]");
        assert_eq!([0_u8; 0].display().to_string(), "[]");
        assert_eq!([1, 2, 3, 4, 5].display().to_string(), "[1,2,3,4,5]");
        assert_eq!([1, 2, 3, 4, 5, 6].display().to_string(), "[1,2,3,4,..,6]");
        assert_eq!([1, 2].display_n(1).to_string(), "[..,2]");
        assert_eq!([1].display_n(0).to_string(), "[..]");
        assert_eq!(BTreeSet::from([2, 1]).display().to_string(), "[1,2]");
    }
}
