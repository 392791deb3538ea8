//! Where what a page shows comes from.

use serde_json::{Map, Value};
use std::collections::HashSet;

/// See the module; it is there for as long as somebody looks: a proxy, or a fleet. All that it shows are objects without nulls.
pub trait Source: Send + 'static {
    /// Looks at what is counted, once a second. `followed`: services that somebody looks at. What takes long has no place here: it is
    /// for the two below, which hold up nobody but those who look.
    fn sample(&mut self, followed: &HashSet<String>) -> impl Future<Output = ()> + Send;

    /// What all are shown: made once for each sample, however many look.
    fn common(&mut self) -> Map<String, Value>;

    /// What those who look at a service are shown besides; `None`: there is none of the name.
    fn service(&mut self, name: &str) -> Option<Value>;
}
