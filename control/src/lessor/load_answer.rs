//! What is said to a proxy that reports its loads, and why a report is not taken.

use crate::loads::ReportAnswer;

/// Why a report, or a part of it, is not taken. Each has a name for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRefusal {
    /// It cannot be read.
    Malformed,
    /// No heartbeat has told of this proxy.
    Unknown,
    /// A later one was taken already.
    Older,
    /// It cannot be of this ring, or of any time.
    Absurd,
    /// It is of other members than its ring has, by the topology or by most proxies.
    Members,
    /// It contradicts the proxy's heartbeats.
    Contradiction,
    /// The leader holds as many as it can.
    Full,
}

impl LoadRefusal {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Malformed, Self::Unknown, Self::Older, Self::Absurd, Self::Members, Self::Contradiction, Self::Full];

    /// As in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Older => "older",
            Self::Absurd => "absurd",
            Self::Members => "members",
            Self::Contradiction => "contradiction",
            Self::Full => "full",
        }
    }
}

/// What is said to a report, and what was refused of it.
#[derive(Debug, Default)]
pub struct LoadsAnswer {
    /// For the proxy.
    pub answer: ReportAnswer,
    /// For the metrics.
    pub refused: Vec<LoadRefusal>,
}

impl LoadsAnswer {
    /// What a report is told that is not taken at all.
    pub(crate) fn refused(refusal: LoadRefusal, why: String) -> Self {
        let mut answer = Self::default();
        answer.refuse("", refusal, why);
        answer
    }

    /// What is told of it: what was refused first, and how much more.
    pub(super) fn said(&self) -> Option<String> {
        let (service, why) = self.answer.refused.iter().next()?;
        let more = self.answer.refused.len() - 1;
        Some(match (service.as_str(), more) {
            ("", _) => why.clone(),
            (service, 0) => format!("service {service:?}: {why}"),
            (service, more) => format!("service {service:?}: {why}; and {more} more"),
        })
    }

    pub(super) fn refuse(&mut self, service: &str, refusal: LoadRefusal, why: String) {
        self.answer.refused.insert(service.to_owned(), why);
        self.refused.push(refusal);
    }
}
