//! Places on the listeners of members: who is known comes first.
