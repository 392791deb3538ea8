//! Who gets what is left by whom.
