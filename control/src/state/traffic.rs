//! What of an object matters to traffic.

use super::BackendState;
use super::model::{Key, Object};

/// The weight with which an object takes traffic; 0: it takes none, or is nothing that could.
pub(crate) fn takes_traffic(object: &Object) -> u32 {
    match object {
        Object::Backend(backend) if backend.state == BackendState::Ready => backend.weight,
        _ => 0,
    }
}

/// Whether a change of it is shown to proxies before it holds, when it is rolled out.
pub(crate) fn is_configuration(key: &Key) -> bool {
    !matches!(key, Key::Backend { .. })
}
