//! Limits as places on the walk.
