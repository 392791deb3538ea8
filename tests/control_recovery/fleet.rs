//! What `verify` and the list of proxies say of a fleet.
