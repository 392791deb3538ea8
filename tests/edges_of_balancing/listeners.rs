//! Listeners that are full.
