//! `ringway control`: members, and everything that is asked of them.

mod apply;
mod etcd;
mod member;
mod show;
mod verify;
mod watch;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use ringway_config::model::{Control, MemberUrl};
use ringway_control::Code;
use ringway_control::http::{Api, ApiError, Problem};
use ringway_control::member::client_settings;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whom to ask, and how to print what they say.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Addresses of members' API; any will do.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "RINGWAY_CONTROL",
        default_value = "http://127.0.0.1:9700"
    )]
    members: Vec<String>,
    /// File with a bearer token.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities of members' certificates; without it, the public ones.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_CA")]
    ca: Option<PathBuf>,
    /// PEM file of a certificate that is shown to members.
    #[arg(long, global = true, value_name = "FILE", requires = "key_file")]
    certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    etcd: etcd::Etcd,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    directory: PathBuf,
    /// Common name of the certificate.
    #[arg(long)]
    name: String,
    /// Directory that the files are written to.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
    /// How long it is valid.
    #[arg(long, value_name = "DAYS", default_value = "365d", value_parser = days)]
    days: u64,
}

/// A backend that is changed, and how.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The service.
    service: String,
    /// The backend's stable identity.
    id: String,
    /// Even if little or nothing is left to take traffic.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    phases: apply::Phases,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// Register a backend.
    Add {
        #[command(flatten)]
        of: Named,
        /// IP address and port.
        address: String,
        /// 100 is normal.
        #[arg(long, default_value_t = 100)]
        weight: u32,
        /// 0 takes the traffic.
        #[arg(long, default_value_t = 0)]
        tier: u8,
        /// The zone that it stands in.
        #[arg(long)]
        zone: Option<String>,
        /// It goes when it has not been added again for this long, for example `10s`.
        #[arg(long, value_parser = duration_text)]
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
        #[arg(long, default_value = "30s", value_parser = duration_text)]
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
        #[arg(long, value_parser = duration_text)]
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

/// Exit 0: done; 1: refused, or not as it should be; 2: nobody could be asked.
pub(crate) fn control(access: &Access, command: Command) -> anyhow::Result<ExitCode> {
    crate::run::control_runtime()?.block_on(async {
        match command {
            Command::Run { config } => member::run(&config).await,
            Command::Init { config, cluster, backup, authority } => {
                or_refused(access, member::init(&config, cluster, backup.as_deref(), authority.as_deref()).await)
            }
            Command::Recover { config, lost, yes } => or_refused(access, member::recover(&config, &lost, yes).await),
            Command::Join { config, learner, replace, authority } => {
                member::join(access, &config, learner, replace, authority.as_deref()).await
            }
            Command::Authority(command) => member::authority(command),
            command if access.etcd.is_meant() => etcd::ask(access, command).await,
            command => or_refused(access, ask(access, command).await),
        }
    })
}

/// A refusal is an answer.
fn or_refused(access: &Access, done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match done {
        Err(error) => match error.downcast_ref::<ApiError>() {
            Some(ApiError::Refused(problem)) => show_problem(access, problem),
            _ => Err(error),
        },
        done => done,
    }
}

impl Access {
    fn api(&self) -> anyhow::Result<Api> {
        for member in &self.members {
            if MemberUrl::parse(member).is_none() {
                bail!(
                    "`--members` (or RINGWAY_CONTROL): `{member}` is not the address of a member: write it as \
                     `https://10.0.0.1:9700`"
                );
            }
        }
        let mut settings: Control = client_settings(&self.members, self.token_file.clone(), self.ca.clone());
        settings.identity = self.certificate.clone().zip(self.key_file.clone());
        Ok(Api::new(&settings)?)
    }
}

/// Where something is asked for, percent-encoded.
fn path_of(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            // A key's own slashes stay: they part its kind from its names.
            if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
                path.push(byte as char);
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    path
}

async fn ask(access: &Access, command: Command) -> anyhow::Result<ExitCode> {
    let api = access.api()?;
    let printer = show::Printer { json: access.json };
    let get = async |path: &str| api.json(Method::GET, path, None).await;
    let put = async |method: Method, path: String, body: Value| api.json(method, &path, Some(&body)).await;
    match command {
        Command::Run { .. }
        | Command::Init { .. }
        | Command::Join { .. }
        | Command::Recover { .. }
        | Command::Authority(_) => {
            unreachable!("invariant: handled before anybody is asked")
        }
        Command::Members => printer.members(&get("/v1/members").await?)?,
        Command::Transfer { node } => {
            printer.done(&put(Method::POST, "/v1/transfer".into(), json!({ "to": node })).await?)?
        }
        Command::Remove { node } => {
            printer.done(&put(Method::DELETE, path_of(&["v1", "members", &node.to_string()]), json!({})).await?)?;
        }
        Command::Promote { node } => {
            let path = path_of(&["v1", "members", &node.to_string(), "promote"]);
            printer.done(&put(Method::POST, path, json!({})).await?)?;
        }
        Command::Status => printer.status(&get("/v1/status").await?)?,
        Command::Get { name, stale } => {
            let consistency = if stale { "&consistency=stale" } else { "" };
            let path = format!("/v1/objects?prefix={}{consistency}", path_of(&[&name]).trim_start_matches('/'));
            return printer.objects(&name, &get(&path).await?);
        }
        Command::Apply(apply) => return apply::apply(&api, &printer, &apply).await,
        Command::Diff { file, document } => return apply::diff(&api, &printer, &file, &document).await,
        Command::History { revision: Some(revision), .. } => {
            printer.revision(&get(&format!("/v1/history/{revision}")).await?)?;
        }
        Command::History { revision: None, limit } => {
            printer.history(&get(&format!("/v1/history?limit={limit}")).await?)?
        }
        Command::Rollback { revision, note } => {
            let body = json!({ "to": revision, "note": note });
            printer.done(&put(Method::POST, "/v1/rollback".into(), body).await?)?;
        }
        Command::Watch { from } => return watch::watch(&api, from).await,
        Command::Backend(backend) => return change_backend(&api, &printer, backend).await,
        Command::Certificate(Certificate::Put { name, certificate, key, force, phases }) => {
            let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
            let object = json!({ "certificate": { "certificate": read(&certificate)?, "key": read(&key)? } });
            let put = json!({ "put": { "key": format!("certificate/{name}"), "object": object } });
            return apply::roll_out(&api, &printer, &phases, json!({ "ops": [put], "force": force })).await;
        }
        Command::Certificate(Certificate::Remove { name, phases }) => {
            let delete = json!({ "delete": { "key": format!("certificate/{name}") } });
            return apply::roll_out(&api, &printer, &phases, json!({ "ops": [delete] })).await;
        }
        Command::Lock(Lock::Acquire { name, ttl, owner }) => {
            let lease =
                put(Method::POST, "/v1/leases".into(), json!({ "ttl": ttl, "owner": owner })).await?["id"].clone();
            let taken =
                put(Method::PUT, path_of(&["v1", "locks", &name]), json!({ "lease": lease, "owner": owner })).await;
            if taken.is_err() {
                // Nothing hangs on it; else it expires by itself.
                let _ = api.json(Method::DELETE, &format!("/v1/leases/{lease}"), None).await;
            }
            printer.lock(&name, &taken?["token"], &lease)?;
        }
        Command::Lock(Lock::Renew { name, token }) => {
            let held = get("/v1/locks").await?;
            let Some(lock) = held["locks"].as_array().into_iter().flatten().find(|lock| lock["name"] == name.as_str())
            else {
                return refused(access, Code::NotFound, &format!("nobody holds lock {name:?}: it may have expired"));
            };
            if lock["token"] != token {
                let now = show::text(&lock["token"]);
                return refused(access, Code::WrongToken, &format!("lock {name:?} is held with token {now} now"));
            }
            // A lease is of one lock's holder: if that has changed since, the lease is not there.
            let lease = lock["lease"].clone();
            put(Method::PUT, format!("/v1/leases/{lease}"), json!({})).await?;
            printer.lock(&name, &lock["token"], &lease)?;
        }
        Command::Lock(Lock::Release { name, token }) => {
            let path = format!("{}?token={token}", path_of(&["v1", "locks", &name]));
            printer.done(&put(Method::DELETE, path, json!({})).await?)?;
        }
        Command::Lock(Lock::List) => printer.locks(&get("/v1/locks").await?)?,
        Command::Token(Token::Create { name, role, ttl }) => {
            let body = json!({ "role": role, "ttl": ttl });
            printer.token(&put(Method::PUT, path_of(&["v1", "tokens", &name]), body).await?)?;
        }
        Command::Token(Token::Delete { name }) => {
            printer.done(&put(Method::DELETE, path_of(&["v1", "tokens", &name]), json!({})).await?)?;
        }
        Command::Token(Token::List) => printer.tokens(&get("/v1/tokens").await?)?,
        Command::Rollouts { id: Some(id), abort: true } => {
            printer.done(&put(Method::POST, format!("/v1/rollouts/{id}/abort"), json!({})).await?)?;
        }
        Command::Rollouts { id: Some(id), abort: false } => {
            printer.rollout(&get(&format!("/v1/rollouts/{id}")).await?)?
        }
        Command::Rollouts { id: None, .. } => printer.rollouts(&get("/v1/rollouts").await?)?,
        Command::Proxies { action: Some(Proxies::Forget { name }) } => {
            printer.done(&put(Method::DELETE, path_of(&["v1", "proxies", &name]), json!({})).await?)?;
        }
        Command::Proxies { action: None } => printer.proxies(&get("/v1/proxies").await?)?,
        Command::Verify(verify) => return verify::verify(&api, &printer, &verify).await,
        Command::Backup { file, stale: false } => backup(&api, &file, "/v1/backup", "").await?,
        Command::Backup { file, stale: true } => stale_backup(&api, &file).await?,
        Command::Restore { file, other_cluster, yes } => {
            let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
            if !yes && !confirmed("the whole topology becomes the backup's")? {
                return Ok(ExitCode::from(1));
            }
            let answer = api
                .call(Method::POST, if other_cluster { "/v1/restore?other_cluster=true" } else { "/v1/restore" }, bytes)
                .await?;
            printer.done(&serde_json::from_slice(&answer)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn change_backend(api: &Api, printer: &show::Printer, backend: Backend) -> anyhow::Result<ExitCode> {
    let key = |of: &Named| format!("backend/{}/{}", of.service, of.id);
    let part = |of: &Named, what: &str, value: Value| json!({ "backend": { "key": key(of), what: value } });
    let (of, op) = match backend {
        Backend::Add { of, address, weight, tier, zone, ttl: Some(ttl) } => {
            if of.phases.staged() {
                bail!("`--ttl` is for a backend that says itself that it is there: it cannot be rolled out");
            }
            let path = path_of(&["v1", "objects", "backend", &of.service, &of.id]);
            let body = json!({ "address": address, "weight": weight, "tier": tier, "zone": zone });
            let force = if of.force { "&force=true" } else { "" };
            printer.done(&api.json(Method::PUT, &format!("{path}?ttl={ttl}{force}"), Some(&body)).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Backend::Add { of, address, weight, tier, zone, ttl: None } => {
            let object = json!({ "backend": { "address": address, "weight": weight, "tier": tier, "zone": zone } });
            let op = json!({ "put": { "key": key(&of), "object": object } });
            (of, op)
        }
        Backend::Drain { of } => {
            let op = part(&of, "state", json!("drain"));
            (of, op)
        }
        Backend::Ready { of } => {
            let op = part(&of, "state", json!("ready"));
            (of, op)
        }
        Backend::Maintenance { of } => {
            let op = part(&of, "state", json!("maintenance"));
            (of, op)
        }
        Backend::Weight { of, weight } => {
            let op = part(&of, "weight", json!(weight));
            (of, op)
        }
        Backend::Remove { of } if !of.phases.staged() => {
            let force = if of.force { "?force=true" } else { "" };
            let path = path_of(&["v1", "objects", "backend", &of.service, &of.id]);
            printer.done(&api.json(Method::DELETE, &format!("{path}{force}"), None).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Backend::Remove { of } => {
            let op = json!({ "delete": { "key": key(&of) } });
            (of, op)
        }
    };
    let body = json!({ "ops": [op], "force": of.force });
    if of.phases.staged() {
        return apply::roll_out(api, printer, &of.phases, body).await;
    }
    // Backends come and go: without stages, at once.
    printer.done(&api.json(Method::POST, "/v1/txn", Some(&body)).await?)?;
    Ok(ExitCode::SUCCESS)
}

/// What a member would have said, had it been asked.
fn refused(access: &Access, code: Code, detail: &str) -> anyhow::Result<ExitCode> {
    let status = if code == Code::NotFound { 404 } else { 409 };
    show_problem(access, &Problem::new(status, code, detail))
}

fn show_problem(access: &Access, problem: &Problem) -> anyhow::Result<ExitCode> {
    if access.json {
        writeln!(crate::terminal::stdout(), "{}", json!(problem))?;
    } else {
        // As an error of any other kind would say it.
        writeln!(crate::terminal::stderr(), "ringway: {}", ApiError::Refused(problem.clone()))?;
    }
    Ok(ExitCode::from(1))
}

/// A time, as in files.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    // Numbers alone were seconds once, and scripts have them.
    let seconds = || text.parse().ok().map(std::time::Duration::from_secs);
    ringway_config::parse_duration(text)
        .or_else(seconds)
        .ok_or_else(|| format!("`{text}` is no time: write for example `500ms`, `30s` or `1h30m`"))
}

/// A time that members are to read.
fn duration_text(text: &str) -> Result<String, String> {
    match ringway_config::parse_duration(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("`{text}` is no time: write for example `500ms`, `30s` or `1h30m`")),
    }
}

/// Days: `365d`, or the number alone.
fn days(text: &str) -> Result<u64, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
    days.filter(|days| (1..=7300).contains(days))
        .ok_or_else(|| format!("`{text}` is not 1d to 7300d: write for example `365d`"))
}

/// `yes`, from a person.
fn confirmed(what: &str) -> anyhow::Result<bool> {
    write!(crate::terminal::stderr(), "{what}. Go on? [y/N] ")?;
    crate::terminal::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "yes"))
}

/// Of the member that has come farthest among those that answer.
async fn stale_backup(api: &Api, file: &Path) -> anyhow::Result<()> {
    let mut newest: Option<((u64, u64, u64), Api, Value)> = None;
    let mut last = ApiError::NoMembers;
    for member in api.members() {
        let one = api.only(member);
        match one.json(Method::GET, "/v1/status", None).await {
            Ok(status) => {
                let number = |value: &Value| value.as_u64().unwrap_or(0);
                let place =
                    (number(&status["epoch"]), number(&status["revision"]), number(&status["member"]["applied"]));
                if newest.as_ref().is_none_or(|(known, ..)| *known < place) {
                    newest = Some((place, one, status));
                }
            }
            Err(error) => {
                writeln!(crate::terminal::stderr(), "{member} is not asked: {error}")?;
                last = error;
            }
        }
    }
    let Some(((epoch, revision, applied), one, status)) = newest else { return Err(last.into()) };
    let age = match status["leader_age_ms"].as_u64() {
        Some(ms) => format!("which last knew of a leader {} ago", show::span(ms)),
        None => "which has known of no leader since it started".to_owned(),
    };
    let what = format!(
        ": revision {revision} of epoch {epoch}, entry {applied} of the log, of member {}, {age}",
        show::text(&status["member"]["name"])
    );
    backup(&one, file, "/v1/backup?consistency=stale", &what).await
}

async fn backup(api: &Api, file: &Path, path: &str, what: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let bytes = api.call(Method::GET, path, "").await?;
    let beside = file.with_extension("part");
    // Certificates' keys are in it.
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    out.write_all(&bytes)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    writeln!(crate::terminal::stderr(), "{} bytes written to {}{what}", bytes.len(), file.display())?;
    Ok(())
}
