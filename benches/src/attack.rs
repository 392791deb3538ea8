//! What hostile clients of HTTP/2 cost a proxy: attackers that send frames by hand, as many a second as is asked, and come again when they are cut off.

mod client;
mod frames;

pub use client::{Sent, attack};

/// How a client attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// CVE-2025-8671: requests, each followed by a frame for which the proxy has to reset the stream. Together in one write.
    MadeYouReset,
    /// The same, but the frame comes when the request is under way already.
    MadeYouResetApart,
    /// CVE-2023-44487: requests, each taken back in the same write.
    RapidReset,
    /// The same, but taken back when the request is under way already.
    RapidResetApart,
    /// Heads that name the longest field that a table can hold 16,000 times.
    HpackBomb,
    /// Heads that name it 60 times: past the limit of a head, but not so far that the connection is ended for one.
    HpackMany,
    /// A head that never ends (CVE-2024-27316).
    Continuation,
    /// SETTINGS, each of which is to be acknowledged.
    Settings,
    /// PINGs, each of which is to be answered.
    Ping,
    /// Bodies of frames without a byte in them.
    EmptyData,
    /// Heads of which every second byte is one that no head may have.
    Malformed,
}

impl Attack {
    /// All.
    pub const ALL: [Self; 11] = [
        Self::MadeYouReset,
        Self::MadeYouResetApart,
        Self::RapidReset,
        Self::RapidResetApart,
        Self::HpackBomb,
        Self::HpackMany,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::EmptyData,
        Self::Malformed,
    ];

    /// As on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MadeYouReset => "made-you-reset",
            Self::MadeYouResetApart => "made-you-reset-apart",
            Self::RapidReset => "rapid-reset",
            Self::RapidResetApart => "rapid-reset-apart",
            Self::HpackBomb => "hpack-bomb",
            Self::HpackMany => "hpack-many",
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::EmptyData => "empty-data",
            Self::Malformed => "malformed",
        }
    }
}
