//! An agent beside a backend, as HAProxy's `agent-check` has it: what it says, and what holds of it.
//!
//! It is heard apart from the checks, at its own times, and nothing that a check finds takes back what it has said. Each of the
//! three things that it may say holds until it says another of the same kind.

use crate::recurring::Recurring;
use std::time::Duration;

/// When agents are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgentParams {
    /// Time between the starts of two questions to one.
    pub interval: Duration,
    /// How long a response may take.
    pub timeout: Duration,
}

/// What its operator wants of a backend, as its agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentMode {
    /// It takes its keys.
    #[default]
    Ready,
    /// It takes no new keys; clients that are bound to it stay.
    Drain,
    /// It takes no clients.
    Maintenance,
}

/// What an agent has said. What it has not is as it was: only the agent takes back what it has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentReport {
    /// Whether the backend works. One that does takes traffic only if its checks say so too.
    pub up: Option<bool>,
    /// Percent of its weight that it wants.
    pub percent: Option<u8>,
    /// What its operator wants.
    pub mode: Option<AgentMode>,
}

/// What holds of an agent's words, and when it is asked.
#[derive(Debug, Clone)]
pub(crate) struct AgentState {
    pub(crate) up: bool,
    pub(crate) percent: u8,
    pub(crate) mode: AgentMode,
    /// The questions to it.
    pub(crate) question: Recurring,
}

impl Default for AgentState {
    fn default() -> Self {
        Self { up: true, percent: 100, mode: AgentMode::Ready, question: Recurring::NEVER }
    }
}

impl AgentState {
    pub(crate) fn take_in(&mut self, report: AgentReport) {
        self.up = report.up.unwrap_or(self.up);
        self.percent = report.percent.map_or(self.percent, |percent| percent.min(100));
        self.mode = report.mode.unwrap_or(self.mode);
    }

    /// Percent of the weight that it leaves.
    pub(crate) fn leaves(&self) -> u8 {
        match self.mode {
            AgentMode::Ready => self.percent,
            AgentMode::Drain | AgentMode::Maintenance => 0,
        }
    }

    /// As the status shows it.
    pub(crate) fn word(&self) -> &'static str {
        match (self.up, self.mode) {
            (false, _) => "down",
            (true, AgentMode::Ready) => "up",
            (true, AgentMode::Drain) => "drain",
            (true, AgentMode::Maintenance) => "maintenance",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_has_said_holds_until_it_says_another_of_the_same_kind() {
        let mut state = AgentState::default();
        assert_eq!((state.word(), state.leaves()), ("up", 100));
        let report = AgentReport::default();
        state.take_in(AgentReport { percent: Some(30), ..report });
        state.take_in(AgentReport { up: Some(false), ..report });
        assert_eq!((state.word(), state.leaves()), ("down", 30));
        state.take_in(AgentReport { mode: Some(AgentMode::Drain), ..report });
        assert_eq!((state.word(), state.leaves()), ("down", 0));
        state.take_in(AgentReport { up: Some(true), ..report });
        assert_eq!((state.word(), state.leaves()), ("drain", 0));
        state.take_in(AgentReport { mode: Some(AgentMode::Maintenance), ..report });
        assert_eq!((state.word(), state.leaves()), ("maintenance", 0));
        state.take_in(AgentReport { mode: Some(AgentMode::Ready), ..report });
        assert_eq!((state.word(), state.leaves()), ("up", 30));
        state.take_in(AgentReport { percent: Some(255), ..report });
        assert_eq!(state.leaves(), 100, "never more than all");
    }
}
