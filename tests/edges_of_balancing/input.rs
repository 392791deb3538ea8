//! Limits and times that contradict each other, as the operator writes them.
