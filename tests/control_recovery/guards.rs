//! What is refused before it is agreed on.
