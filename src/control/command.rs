//! The words of `ringway control`.

use super::{apply, text, verify, watch};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Run a member, as the file's `control.member` says.
    Run {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a member's directory the first of a new cluster.
    Init {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Name of the cluster; absent, it is drawn.
        #[arg(long, value_name = "NAME", conflicts_with = "backup")]
        cluster: Option<String>,
        /// The cluster has a backup's topology and name from its first moment: for members that are all lost.
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
        /// Directory of a certificate authority, made where there is none: certificates, keys and tokens that the file
        /// names and that are not there yet are issued.
        #[arg(long, value_name = "DIRECTORY")]
        authority: Option<PathBuf>,
    },
    /// Make a member's directory a member of a cluster that is there; it joins when it runs.
    Join {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// It only follows, and does not vote.
        #[arg(long)]
        learner: bool,
        /// The member, dead for good, that it takes the place of.
        #[arg(long, value_name = "NODE")]
        replace: Option<u64>,
        /// Directory of the certificate authority that `init` has made: certificates and keys that the file names and
        /// that are not there yet are issued.
        #[arg(long, value_name = "DIRECTORY")]
        authority: Option<PathBuf>,
    },
    /// Certificates for machines where the authority is not.
    #[command(subcommand)]
    Authority(Authority),
    /// Members of the control plane.
    Members,
    /// Let another member lead.
    Transfer {
        /// Its number, see `members`.
        node: u64,
    },
    /// Remove a member.
    Remove {
        /// Its number, see `members`.
        node: u64,
    },
    /// Let a learner vote.
    Promote {
        /// Its number, see `members`.
        node: u64,
    },
    /// The member that is asked, its leader, the topology's revision.
    Status,
    /// Objects: one, or those whose names begin so.
    Get {
        /// For example `document/main`, `service/`, `backend/api/`.
        #[arg(default_value = "")]
        name: String,
        /// Read what the member has, leader or not.
        #[arg(long)]
        stale: bool,
    },
    /// Put a configuration into force for the fleet: shows what would move, asks, rolls out.
    Apply(apply::Apply),
    /// Show how a file differs from what is in force: exit 1 if it does.
    Diff {
        /// The file.
        file: PathBuf,
        /// Name of the document.
        #[arg(long, default_value = "main")]
        document: String,
    },
    /// Revisions, newest first; or one, with all that it changed.
    History {
        /// The revision.
        revision: Option<u64>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Make objects as they were at a revision, as a new revision.
    Rollback {
        /// The revision.
        revision: u64,
        /// Why.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Print every change as it comes, a line of JSON each: each once, in order, from whichever member is there.
    Watch {
        /// Go on after this place; what is not remembered any more comes as a whole, as a snapshot.
        #[arg(long, value_name = "EPOCH.REVISION", value_parser = watch::place)]
        from: Option<watch::Place>,
    },
    /// Backends.
    #[command(subcommand)]
    Backend(Backend),
    /// Certificates.
    #[command(subcommand)]
    Certificate(Certificate),
    /// Locks.
    #[command(subcommand)]
    Lock(Lock),
    /// Tokens.
    #[command(subcommand)]
    Token(Token),
    /// Rollouts, newest first; or one.
    Rollouts {
        /// Its number.
        id: Option<u64>,
        /// Abort it.
        #[arg(long, requires = "id")]
        abort: bool,
    },
    /// The fleet's proxies.
    Proxies {
        #[command(subcommand)]
        action: Option<Proxies>,
    },
    /// Whether every proxy has what was agreed on: exit 1 if one has not.
    Verify(verify::Verify),
    /// Write everything to a file, with a checksum.
    Backup {
        /// The file.
        file: PathBuf,
        /// Of the member that has the newest, leader or not: what is left when a majority is lost.
        #[arg(long)]
        stale: bool,
    },
    /// When a majority of the members is lost for good: make a stopped survivor's directory the first member of a new
    /// cluster, with what it has, in a new epoch. Refused where the members that live could still elect a leader.
    Recover {
        /// The survivor's configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// A member that is lost for good, although something takes connections where it was.
        #[arg(long, value_name = "NAME")]
        lost: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Make a backup the topology, in a new epoch.
    Restore {
        /// The file.
        file: PathBuf,
        /// Even if it is a backup of another cluster: this one keeps its name.
        #[arg(long)]
        other_cluster: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Authority {
    /// Issue a member's certificate: NAME.pem, NAME.key, members.pem to check other members by, clients.pem to check clients by.
    Member {
        #[command(flatten)]
        to: IssueTo,
        /// DNS name or IP address under which it is reached; more than one may be given.
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
    },
    /// Issue a client's certificate: NAME.pem, NAME.key, and members.pem to check members by. `member.clients` says what
    /// the name may do.
    Client {
        #[command(flatten)]
        to: IssueTo,
    },
}

#[derive(Debug, Args)]
pub(crate) struct IssueTo {
    /// The authority's directory, made where there is none.
    pub(super) directory: PathBuf,
    /// Common name of the certificate.
    #[arg(long)]
    pub(super) name: String,
    /// Directory that the files are written to.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub(super) out: PathBuf,
    /// How long it is valid.
    #[arg(long, value_name = "DAYS", default_value = "365d", value_parser = text::days)]
    pub(super) days: u64,
}

/// A backend that is changed, and how.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The service.
    pub(super) service: String,
    /// The backend's stable identity.
    pub(super) id: String,
    /// Even if little or nothing is left to take traffic.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) phases: apply::Phases,
}

#[derive(Debug, Args)]
pub(crate) struct Added {
    /// IP address and port.
    pub(super) address: String,
    /// Its address of the other family, IPv4 or IPv6, with a port: whichever of the two takes a connection first is taken.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) additional_address: Option<String>,
    /// 100 is normal.
    #[arg(long, default_value_t = 100)]
    pub(super) weight: u32,
    /// 0 takes the traffic.
    #[arg(long, default_value_t = 0)]
    pub(super) tier: u8,
    /// The zone that it stands in.
    #[arg(long)]
    pub(super) zone: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// Register a backend.
    Add {
        #[command(flatten)]
        of: Named,
        #[command(flatten)]
        backend: Added,
        /// It goes when it has not been added again for this long, for example `10s`.
        #[arg(long, value_parser = text::duration_text)]
        ttl: Option<String>,
    },
    /// It takes no new keys; what it has ends in peace, and clients that a cookie has bound to it stay for a time.
    Drain {
        #[command(flatten)]
        of: Named,
    },
    /// It takes its keys.
    Ready {
        #[command(flatten)]
        of: Named,
    },
    /// As `drain`, but nobody stays: clients that a cookie has bound to it go elsewhere.
    Maintenance {
        #[command(flatten)]
        of: Named,
    },
    /// Change its weight.
    Weight {
        #[command(flatten)]
        of: Named,
        /// 100 is normal.
        weight: u32,
    },
    /// Deregister it.
    Remove {
        #[command(flatten)]
        of: Named,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Certificate {
    /// Make or replace a certificate: listeners name it as `control:NAME`.
    Put {
        /// Its name.
        name: String,
        /// PEM file, the certificate first.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
        /// Even if it has expired.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        phases: apply::Phases,
    },
    /// Remove it.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        phases: apply::Phases,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Take a lock for a time; prints its fencing token and its lease.
    Acquire {
        /// Of what.
        name: String,
        /// How long without a heartbeat.
        #[arg(long, default_value = "30s", value_parser = text::duration_text)]
        ttl: String,
        /// For whom; absent, whoever asks.
        #[arg(long)]
        owner: Option<String>,
    },
    /// Say that its holder lives: it is kept for its lease's time from now on.
    Renew {
        /// Of what.
        name: String,
        /// The fencing token that `acquire` has printed.
        #[arg(long)]
        token: u64,
    },
    /// Give it back.
    Release {
        /// Of what.
        name: String,
        /// The fencing token.
        token: u64,
    },
    /// Who has which.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Proxies {
    /// Forget a proxy that does not come back. One that lives is listed again with its next heartbeat.
    Forget {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make or replace a token; its text is printed this once.
    Create {
        /// For the audit log.
        name: String,
        /// read, register, operate or admin.
        #[arg(long)]
        role: String,
        /// How long it holds, for example `720h`.
        #[arg(long, value_parser = text::duration_text)]
        ttl: Option<String>,
    },
    /// End a token.
    Delete {
        /// Its name.
        name: String,
    },
    /// Names and roles.
    List,
}
