//! Members of the control plane, and what is shown to them.

use crate::http::{Api, ApiError};
use arc_swap::ArcSwap;
use ringway_config::model::Control;
use std::sync::Arc;

/// See the module.
pub(super) struct Members {
    settings: Control,
    pub(super) api: ArcSwap<Api>,
}

impl Members {
    pub(super) fn new(settings: &Control) -> Result<Self, ApiError> {
        Ok(Self { settings: settings.clone(), api: ArcSwap::from_pointee(Api::new(settings)?) })
    }

    /// For a connection that begins now: certificates and token as their files are. What cannot be read stays as it was.
    pub(super) fn renewed(&self) -> Arc<Api> {
        match Api::new(&self.settings) {
            Ok(api) => self.api.store(Arc::new(api)),
            Err(error) => tracing::warn!(%error, "towards the control plane, the old certificate or token stays"),
        }
        self.api.load_full()
    }
}
