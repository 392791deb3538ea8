//! How much a request insists: what it asks of a member, step by step.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// One of a hot key's owners; bound.
    Hot,
    /// Thresholds and bound.
    Strict,
    /// No thresholds but health and drain; bound.
    Relaxed,
    /// As before, and in panic those that are believed to be down too.
    Doubted,
    /// Beyond the bound, in the order of the walk.
    Forced,
    /// Beyond the bound, the least loaded first.
    LeastLoaded,
    /// There is nobody left to ask.
    Over,
}

impl Stage {
    /// Whether ramps and shedding count for nothing.
    #[inline]
    pub(crate) fn is_relaxed(self) -> bool {
        !matches!(self, Self::Hot | Self::Strict)
    }

    /// Whether those that are believed to be down are asked too.
    #[inline]
    pub(crate) fn asks_doubted(self) -> bool {
        !matches!(self, Self::Hot | Self::Strict | Self::Relaxed)
    }
}
