//! Checks, agents and ejections.
