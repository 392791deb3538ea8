//! Members: how they are, and what is left when most of them are gone.
