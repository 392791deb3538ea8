//! How much may be lost at once.

/// What is taken for an accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// A service's weight, or the listeners, may lose so much at once, in percent.
    pub loss_percent: u8,
}

impl Default for Guards {
    fn default() -> Self {
        Self { loss_percent: 50 }
    }
}
