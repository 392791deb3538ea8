//! What backends shed.

use ringway_ring::ShedParams;

/// When backends shed, and whose loads decide it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shed {
    /// When, and how much.
    pub params: ShedParams,
    /// Whose loads.
    pub scope: ShedScope,
}

/// Whose loads decide what is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShedScope {
    /// What this proxy sees.
    Proxy,
    /// What all proxies see, as the control plane's leader adds it up.
    Fleet,
}
