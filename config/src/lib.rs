//! The configuration file: schema, validated model, diagnostics, diff.
//!
//! text -> tree with places (`node`) -> variables (`env`) -> sections (`decode`, `schema`) -> [`mod@model`] (`check`).
//! Everything that is wrong is told at once, each with its place and what to write instead.

pub mod browser;
mod changes;
mod check;
mod decode;
mod diagnostic;
mod diff;
mod edit;
mod effective;
mod env;
mod files;
mod findings;
mod fleet;
mod joiner;
mod limits;
mod load;
pub mod model;
mod node;
pub mod plain;
mod reference;
mod schema;
mod stamp;

pub use changes::changes;
pub use decode::{duration_text, parse_duration};
pub use diagnostic::{Diagnostic, Diagnostics, Severity, Site, distance};
pub use diff::{Diff, diff};
pub use edit::{EditError, set_backend_fields};
pub use effective::{BackendPatch, Effective, Origin};
pub use env::Lookup;
pub use files::{FileUse, Named, NamedFile, Need};
pub use fleet::{FleetBackend, FleetConfig, FleetText};
pub use joiner::Joiner;
pub use limits::read_bytes;
pub use load::{
    Loaded, check_fleet, check_fleet_with_origin, load_file, load_file_again, load_file_alone, load_file_with,
    load_str, load_str_with, read_backends,
};
pub use reference::{json_schema, reference};
pub use stamp::FileStamp;
