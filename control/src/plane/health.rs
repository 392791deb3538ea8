//! What is known of other members here.

use super::views::MemberView;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// What is known of another member here.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// When it last answered.
    pub(super) heard: Option<Instant>,
    /// What it said then. A build before this one answers, and says nothing of itself.
    pub view: Option<MemberView>,
    /// Why it has not answered when it was asked last; `None`: it has.
    pub silent: Option<String>,
}

impl Health {
    /// Since it last answered.
    #[must_use]
    pub fn heard_age(&self) -> Option<Duration> {
        self.heard.map(|at| at.elapsed())
    }

    /// Whether it answered when it was asked last.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.heard.is_some() && self.silent.is_none()
    }
}

/// By member.
pub(super) type Roll = Mutex<BTreeMap<u64, Health>>;
