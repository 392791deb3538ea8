//! A way out when a majority of the members is lost for good: one survivor's disk becomes a new cluster of one.
//!
//! The new cluster's members have another identity among each other, so nobody of the old one can ever mix in; proxies know
//! it by its old name, in an epoch above any before. Whether the others are really lost is not left to the operator's word:
//! all of them are asked, and where those that live could still elect a leader, nothing is done. Where no disk is left, a
//! backup stands for it: [`begin`].

use super::error::RunError;
use super::plan::{Plan, finish_founding, fresh_directory, random};
use super::settings::peer_tls;
use crate::Code;
use crate::consensus::replica::{Replica, content_of};
use crate::consensus::{Beginning, Identity, MemberInfo, PeerTls, StartError, Survivor};
use crate::http::Problem;
use crate::plane::{MemberView, question, read_answer, unix_ms};
use crate::state::backup::{self, BackupError};
use crate::state::{Author, EncodeError, Refusal, State};
use crate::store::StoreError;
use crate::transport::{CallError, Dialer, Peer, Rpc};
use bytes::Bytes;
use ringway_config::model::Member as Settings;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Until a member's address takes a connection: a host that is there does within a round trip.
const CONNECT: Duration = Duration::from_secs(3);
/// Until it answers.
const ANSWER: Duration = Duration::from_secs(5);
/// A member that is being restarted refuses connections for a moment.
const ATTEMPTS: usize = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(700);
/// Longest part of a cluster's name in the new identity, which travels in a header.
const NAME_PART_MAX: usize = 96;

/// What is said of a member of the old cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It lives, and this is how it is; a build before this one does not tell.
    Lives(Option<MemberView>),
    /// Something takes connections there and is not known to be anybody else.
    Strange(String),
    /// Another member, or one of another cluster, answers there.
    Another,
    /// Nothing is there.
    Gone(String),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lives(Some(view)) => write!(f, "lives: {} in term {}", view.role, view.term),
            Self::Lives(None) => f.write_str("lives"),
            Self::Strange(why) => write!(f, "takes connections: {why}"),
            Self::Another => f.write_str("gone: another member, or one of another cluster, answers there"),
            Self::Gone(why) => write!(f, "gone: {why}"),
        }
    }
}

impl Said {
    /// What may live does: two clusters of one past are worse than none. Of what answers, nobody is believed that it is lost; of
    /// what only takes connections, as a host between does, the operator is.
    fn may_live(&self, lost: bool) -> bool {
        match self {
            Self::Lives(_) => true,
            Self::Strange(_) => !lost,
            Self::Another | Self::Gone(_) => false,
        }
    }

    fn leader(&self) -> Option<u64> {
        match self {
            Self::Lives(view) => view.as_ref().and_then(|view| view.leader),
            Self::Strange(_) | Self::Another | Self::Gone(_) => None,
        }
    }
}

/// Another member of the old cluster.
#[derive(Debug)]
pub struct Other {
    /// Its id.
    pub node: u64,
    /// Where it was.
    pub info: MemberInfo,
    /// It voted.
    pub voter: bool,
    /// What is said of it.
    pub said: Said,
    /// The operator says that it is lost for good.
    pub lost: bool,
}

/// Why nothing is recovered; nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The member's directory.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The disk, or the new one.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new state.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The backup.
    #[error("this is no backup, or it is damaged: {0}")]
    Damaged(#[from] BackupError),
    /// What the disk or the backup has is no beginning of another cluster.
    #[error("{0}")]
    State(#[from] Refusal),
    /// Nobody needs a way out.
    #[error("{0}")]
    QuorumAlive(String),
    /// The disk says that this member is none.
    #[error("this member was removed from its cluster: recover one that was not")]
    Removed,
    /// It has never had a topology.
    #[error("there is no topology on this disk")]
    Empty,
}

impl RecoverError {
    /// As answers of members say what is refused.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::QuorumAlive(_) => Code::QuorumAlive,
            Self::Damaged(_) => Code::Damaged,
            Self::Removed => Code::Removed,
            Self::Empty | Self::Run(RunError::Nobody(_)) => Code::NoMember,
            Self::Start(StartError::Store(StoreError::Locked { .. })) | Self::Store(StoreError::Locked { .. }) => {
                Code::Running
            }
            Self::Run(_) | Self::Start(_) | Self::Store(_) | Self::Encode(_) | Self::State(_) => Code::Recover,
        };
        let detail = match code {
            Code::Running => format!("{self}: stop the member first"),
            _ => self.to_string(),
        };
        Problem::new(409, code, detail)
    }
}

/// A survivor that was looked at; nothing is done yet.
#[derive(Debug)]
pub struct Recovery {
    plan: Plan,
    survivor: Survivor,
    state: Arc<State>,
    /// The rest of the old cluster.
    pub others: Vec<Other>,
}

impl Recovery {
    /// Looks at a stopped member's disk, and asks all others of its cluster. `lost`: names of those that the operator knows to be
    /// lost for good, whatever takes connections where they were.
    ///
    /// # Errors
    /// It is none, runs, or is not needed: see [`RecoverError`].
    pub async fn look(settings: &Settings, lost: &[String]) -> Result<Self, RecoverError> {
        let directory = settings.directory.clone();
        let plan = Plan::read(&directory)?.ok_or_else(|| RunError::Nobody(directory.clone()))?;
        let plan = finish_founding(&directory, plan)?;
        let identity = Identity { cluster: plan.cluster.clone(), node: plan.node };
        let (replica, published) = Replica::new();
        let opened = tokio::task::spawn_blocking(move || Survivor::open(&directory, &identity, replica)).await;
        let survivor = opened.map_err(|error| StartError::Replay(error.to_string()))??;
        let state = Arc::clone(&published.borrow().state);
        let nodes = &survivor.membership.nodes;
        if !nodes.iter().any(|(node, _)| *node == plan.node) {
            return Err(RecoverError::Removed);
        }
        if state.cluster.is_empty() {
            return Err(RecoverError::Empty);
        }
        let others = ask_all(settings, &plan, &survivor, lost).await?;
        let recovery = Self { plan, survivor, state, others };
        recovery.is_needed()?;
        Ok(recovery)
    }

    fn is_needed(&self) -> Result<(), RecoverError> {
        let told = || self.others.iter().map(|other| format!("; {}", other.line())).collect::<String>();
        if let Some(leader) = self.others.iter().find_map(|other| other.said.leader()) {
            return Err(RecoverError::QuorumAlive(format!(
                "the cluster lives, member {leader} leads it: start this member, it comes back by itself{}",
                told()
            )));
        }
        let living =
            self.others.iter().filter(|other| other.said.may_live(other.lost)).map(|other| other.node).collect();
        if self.survivor.is_quorum(&living) {
            return Err(RecoverError::QuorumAlive(format!(
                "with this one, enough members may be there to elect a leader: start this member, and nothing is lost{}{}",
                told(),
                self.others
                    .iter()
                    .filter(|other| matches!(other.said, Said::Strange(_)) && !other.lost)
                    .map(Other::hint)
                    .collect::<String>()
            )));
        }
        Ok(())
    }

    /// What an operator is to know before it is done.
    #[must_use]
    pub fn summary(&self) -> String {
        let (state, survivor) = (&self.state, &self.survivor);
        let mut text = format!(
            "cluster   {}, epoch {}, revision {}, {} objects, as member {} has it\nlog       last entry {}, known to be committed up to {}\n",
            state.cluster,
            state.epoch,
            state.revision,
            state.objects.size(),
            self.plan.node,
            survivor.last,
            survivor.committed,
        );
        for other in &self.others {
            text.push_str(&format!("member    {}\n", other.line()));
        }
        let uncertain = survivor.last.saturating_sub(survivor.committed);
        if uncertain > 0 {
            text.push_str(&format!(
                "kept      {uncertain} entries that this member did not know to be committed: they may have been acknowledged\n"
            ));
        }
        text.push_str(
            "lost      whatever the others had acknowledged without this member\n\
             then      a new cluster of one; members of the old one, this one's old disk too, can never join it\n",
        );
        text
    }

    /// Makes the new cluster. The disk as it was is kept beside; gives back where, and the new plan.
    ///
    /// # Errors
    /// Files. Begun and broken off, it goes on when the member starts, or when it is asked for again.
    pub async fn go(self, settings: &Settings) -> Result<(Plan, State), RecoverError> {
        let directory = &settings.directory;
        let mut state = (*self.state).clone();
        state.found_anew(unix_ms() / 1000)?;
        let plan = found(settings, &state, self.survivor.beginning(), Some(&self.plan)).await?;
        self.survivor.close().await;
        Ok((finish_founding(directory, plan)?, state))
    }
}

/// The first member of a new cluster that has a backup's topology from its first moment: no proxy ever sees it without.
///
/// # Errors
/// The directory is somebody's, the backup is none, or files. Begun and broken off, it can be asked for again.
pub async fn begin(settings: &Settings, backup: Bytes) -> Result<(Plan, State), RecoverError> {
    Plan::nobodys(&settings.directory)?;
    let backup = backup::read(&backup)?;
    let now_ms = unix_ms();
    let by = Author { at_ms: now_ms, author: "control init".into(), note: String::new() };
    let state = backup.first_state(by, now_ms / 1000)?;
    let plan = found(settings, &state, Beginning::default(), None).await?;
    Ok((finish_founding(&settings.directory, plan)?, state))
}

/// Writes a new cluster's disk beside what is in the directory; the plan says that it is to take its place.
async fn found(
    settings: &Settings,
    state: &State,
    beginning: Beginning,
    old: Option<&Plan>,
) -> Result<Plan, RecoverError> {
    let directory = &settings.directory;
    let name: String = state.cluster.chars().take(NAME_PART_MAX).collect();
    let identity = Identity { cluster: format!("{name}@{:016x}", random()), node: random() };
    let info = MemberInfo {
        name: settings.name.clone(),
        peer_address: settings.peer_advertise.clone(),
        api_address: settings.advertise.clone(),
    };
    let fresh = fresh_directory(directory)?;
    let content = content_of(state, beginning.index)?;
    beginning.write(&fresh, &identity, info, &content).await?;
    Ok(Plan::founding(directory, old, identity, unix_ms())?)
}

impl Other {
    fn line(&self) -> String {
        let vote = if self.voter { "voter" } else { "learner" };
        format!("{} ({}, {vote}, {}): {}", self.info.name, self.node, self.info.peer_address, self.said)
    }

    fn hint(&self) -> String {
        let name = &self.info.name;
        format!(
            "; if what takes connections at {} is not {name}, and {name} is lost for good: --lost {name}",
            self.info.peer_address
        )
    }
}

async fn ask_all(
    settings: &Settings,
    plan: &Plan,
    survivor: &Survivor,
    lost: &[String],
) -> Result<Vec<Other>, RecoverError> {
    let mut tasks = Vec::new();
    let tls = settings.peer_tls.as_ref().map(|files| peer_tls(files, &mut tasks)).transpose();
    // Certificates that change meanwhile are not followed.
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let client = tls.map_err(RunError::from)?.map(|PeerTls { client, .. }| client);
    let source = Some(settings.peer_address.ip());
    let dialer = Arc::new(Dialer::new(plan.cluster.clone(), source, CONNECT, client));
    let others = survivor.membership.nodes.iter().filter(|(node, _)| *node != plan.node);
    let asked = others.map(|(node, info)| {
        let dialer = Arc::clone(&dialer);
        async move {
            let said = ask(dialer, *node, &info.peer_address).await;
            let voter = survivor.membership.configs.iter().any(|voters| voters.contains(node));
            Other { node: *node, info: info.clone(), voter, said, lost: lost.contains(&info.name) }
        }
    });
    Ok(futures_util::future::join_all(asked).await)
}

/// Only where no connection comes about is nothing there: a member that hangs, or whose certificate has ended, lives.
async fn ask(dialer: Arc<Dialer>, node: u64, address: &str) -> Said {
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let peer = Peer::new(dialer, node, address.to_owned());
                let answer: Result<Bytes, CallError> = peer.call(Rpc::Ask, &Bytes::from(question()), ANSWER).await;
                return match answer {
                    Ok(bytes) => Said::Lives(read_answer(&bytes)),
                    Err(CallError::Status { status, .. }) if status.as_u16() == 409 => Said::Another,
                    Err(error) => Said::Strange(crate::plane::why_silent(&error)),
                };
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no connection within {CONNECT:?}"),
        }
    }
    Said::Gone(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(leader: Option<u64>) -> Said {
        Said::Lives(Some(MemberView { leader, ..MemberView::default() }))
    }

    #[test]
    fn what_takes_connections_counts_as_living_unless_it_is_somebody_else() {
        assert!(view(None).may_live(false) && Said::Lives(None).may_live(true), "what answers lives, whatever is said");
        let strange = Said::Strange("no answer within 5s".into());
        assert!(strange.may_live(false) && !strange.may_live(true));
        assert!(!Said::Another.may_live(false) && !Said::Gone("refused".into()).may_live(false));
        assert_eq!(view(Some(7)).leader(), Some(7));
    }
}
