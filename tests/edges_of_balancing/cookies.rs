//! Affinity cookies of backends that take nothing new.
