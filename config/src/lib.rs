//! The configuration file: schema, validated model, diagnostics, diff.

pub mod model;
