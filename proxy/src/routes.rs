//! Which of a listener's routes takes a request, and which of its services a server name: compiled once for each version of the
//! configuration, so that what is asked is looked up and not searched for.
//!
//! The order of the configuration decides, as if the list were gone through from its beginning: a table finds the first entry
//! that matches, not the most specific one.

mod by_field;
mod candidates;
mod name_table;
mod prefix_forest;
mod route_table;

pub(crate) use name_table::NameTable;
pub use route_table::RouteTable;
pub(crate) use route_table::{Unmet, path_of};
