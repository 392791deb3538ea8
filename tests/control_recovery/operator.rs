//! What operators type, read and generate.
