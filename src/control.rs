//! `ringway control`: members, and everything that is asked of them.

mod apply;
mod etcd;
mod show;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use ringway_config::model::{Control, Member as Settings, MemberUrl};
use ringway_control::http::{Api, ApiError};
use ringway_control::member::{Member, Origin, Plan, client_settings};
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
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
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
    },
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
    /// Print every change as it comes, a line of JSON each.
    Watch,
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
    Proxies,
    /// Whether every proxy has what was agreed on: exit 1 if one has not.
    Verify,
    /// Write everything to a file, with a checksum.
    Backup {
        /// The file.
        file: PathBuf,
    },
    /// Make a backup the topology, in a new epoch.
    Restore {
        /// The file.
        file: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// Register a backend.
    Add {
        /// The service.
        service: String,
        /// Stable identity.
        id: String,
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
        #[arg(long)]
        ttl: Option<String>,
    },
    /// It takes no new keys; what it has ends in peace.
    Drain {
        /// The service.
        service: String,
        /// The backend.
        id: String,
    },
    /// It takes its keys.
    Ready {
        /// The service.
        service: String,
        /// The backend.
        id: String,
    },
    /// As `drain`, and shown as being worked on.
    Maintenance {
        /// The service.
        service: String,
        /// The backend.
        id: String,
    },
    /// Change its weight.
    Weight {
        /// The service.
        service: String,
        /// The backend.
        id: String,
        /// 100 is normal.
        weight: u32,
    },
    /// Deregister it.
    Remove {
        /// The service.
        service: String,
        /// The backend.
        id: String,
        /// Even if nothing is left.
        #[arg(long)]
        force: bool,
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
    },
    /// Remove it.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Take a lock for a time; prints its fencing token and its lease.
    Acquire {
        /// Of what.
        name: String,
        /// How long without a heartbeat.
        #[arg(long, default_value = "30s")]
        ttl: String,
        /// For whom; absent, whoever asks.
        #[arg(long)]
        owner: Option<String>,
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
pub(crate) enum Token {
    /// Make or replace a token; its text is printed this once.
    Create {
        /// For the audit log.
        name: String,
        /// read, register, operate or admin.
        #[arg(long)]
        role: String,
        /// How long it holds, for example `720h`.
        #[arg(long)]
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
            Command::Run { config } => run(&config).await,
            Command::Init { config, cluster } => init(&config, cluster),
            Command::Join { config, learner, replace } => join(access, &config, learner, replace).await,
            command if access.etcd.is_meant() => etcd::ask(access, command).await,
            command => match ask(access, command).await {
                Err(error) => match error.downcast_ref::<ApiError>() {
                    Some(ApiError::Refused(problem)) => {
                        if access.json {
                            writeln!(std::io::stdout(), "{}", json!(problem))?;
                        } else {
                            writeln!(std::io::stderr(), "ringway: {problem}")?;
                        }
                        Ok(ExitCode::from(1))
                    }
                    _ => Err(error),
                },
                done => done,
            },
        }
    })
}

fn member_settings(file: &Path) -> anyhow::Result<Settings> {
    let config = ringway_config::load_file(file)?.config;
    config
        .control
        .and_then(|control| control.member)
        .with_context(|| format!("{}: there is no member in it: write `control: {{ member: {{}} }}`", file.display()))
}

async fn run(file: &Path) -> anyhow::Result<ExitCode> {
    ringway_telemetry::logs::install();
    let settings = member_settings(file)?;
    let stop = crate::run::stop_signals()?;
    let mut member = Member::start(&settings, false).await?;
    tokio::select! {
        () = stop => {
            member.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        why = member.failed() => bail!("this member cannot go on: {why}"),
    }
}

fn init(file: &Path, cluster: Option<String>) -> anyhow::Result<ExitCode> {
    let settings = member_settings(file)?;
    if let Some(name) = cluster.as_ref().filter(|name| !ringway_control::state::is_name(name)) {
        bail!("{name:?} is no name for a cluster: write 1 to 128 letters, digits and `._:-`");
    }
    let plan = Plan::first(&settings.directory, cluster)?;
    let directory = settings.directory.display();
    writeln!(std::io::stdout(), "{directory} is member {} of the new cluster {}", plan.node, plan.cluster)?;
    Ok(ExitCode::SUCCESS)
}

async fn join(access: &Access, file: &Path, learner: bool, replace: Option<u64>) -> anyhow::Result<ExitCode> {
    let settings = member_settings(file)?;
    // They are read when the member runs, wherever that is.
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    let (token_file, ca) = (absolute(&access.token_file)?, absolute(&access.ca)?);
    let client = Api::new(&client_settings(&access.members, token_file.clone(), ca.clone()))?;
    let origin = Origin::Join { members: access.members.clone(), token_file, ca, voter: !learner, replace };
    let plan = Plan::join(&settings.directory, &client, origin).await?;
    let directory = settings.directory.display();
    writeln!(
        std::io::stdout(),
        "{directory} is member {} of cluster {}: it joins when it runs (`ringway control run`)",
        plan.node,
        plan.cluster
    )?;
    Ok(ExitCode::SUCCESS)
}

impl Access {
    fn api(&self) -> anyhow::Result<Api> {
        for member in &self.members {
            if MemberUrl::parse(member).is_none() {
                bail!("`{member}` is not the address of a member: write it as `https://10.0.0.1:9700`");
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
        Command::Run { .. } | Command::Init { .. } | Command::Join { .. } => {
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
        Command::Watch => return watch(&api).await,
        Command::Backend(backend) => printer.done(&change_backend(&api, backend).await?)?,
        Command::Certificate(Certificate::Put { name, certificate, key }) => {
            let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
            let body = json!({ "certificate": read(&certificate)?, "key": read(&key)? });
            printer.done(&put(Method::PUT, path_of(&["v1", "objects", "certificate", &name]), body).await?)?;
        }
        Command::Certificate(Certificate::Remove { name }) => {
            printer.done(&put(Method::DELETE, path_of(&["v1", "objects", "certificate", &name]), json!({})).await?)?;
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
        Command::Proxies => printer.proxies(&get("/v1/proxies").await?)?,
        Command::Verify => return verify(&api, &printer).await,
        Command::Backup { file } => backup(&api, &file).await?,
        Command::Restore { file, yes } => {
            let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
            if !yes && !confirmed("the whole topology becomes the backup's")? {
                return Ok(ExitCode::from(1));
            }
            let answer = api.call(Method::POST, "/v1/restore", bytes).await?;
            printer.done(&serde_json::from_slice(&answer)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn change_backend(api: &Api, backend: Backend) -> Result<Value, ApiError> {
    let path = |service: &str, id: &str| path_of(&["v1", "objects", "backend", service, id]);
    let state = async |service: &str, id: &str, state: &str| {
        api.json(Method::PATCH, &path(service, id), Some(&json!({ "state": state }))).await
    };
    match backend {
        Backend::Add { service, id, address, weight, tier, zone, ttl } => {
            let ttl = ttl.map(|ttl| format!("?ttl={ttl}")).unwrap_or_default();
            let body = json!({ "address": address, "weight": weight, "tier": tier, "zone": zone });
            api.json(Method::PUT, &format!("{}{ttl}", path(&service, &id)), Some(&body)).await
        }
        Backend::Drain { service, id } => state(&service, &id, "drain").await,
        Backend::Ready { service, id } => state(&service, &id, "ready").await,
        Backend::Maintenance { service, id } => state(&service, &id, "maintenance").await,
        Backend::Weight { service, id, weight } => {
            api.json(Method::PATCH, &path(&service, &id), Some(&json!({ "weight": weight }))).await
        }
        Backend::Remove { service, id, force } => {
            let force = if force { "?force=true" } else { "" };
            api.json(Method::DELETE, &format!("{}{force}", path(&service, &id)), None).await
        }
    }
}

/// `yes`, from a person.
fn confirmed(what: &str) -> anyhow::Result<bool> {
    write!(std::io::stderr(), "{what}. Go on? [y/N] ")?;
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "yes"))
}

async fn watch(api: &Api) -> anyhow::Result<ExitCode> {
    use http_body_util::BodyExt;
    let member = api.members().first().context("no member is named")?.clone();
    let mut link = api.connect(&member).await?;
    let response = api.begin(&mut link, Method::GET, "/v1/watch", hyper::body::Bytes::new()).await?;
    if !response.status().is_success() {
        bail!("{member} answers {}", response.status());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let mut out = std::io::stdout().lock();
            out.write_all(data)?;
            out.flush()?;
        }
    }
    bail!("{member} has ended the stream")
}

async fn backup(api: &Api, file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let bytes = api.call(Method::GET, "/v1/backup", "").await?;
    let beside = file.with_extension("part");
    // Certificates' keys are in it.
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    out.write_all(&bytes)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    writeln!(std::io::stderr(), "{} bytes written to {}", bytes.len(), file.display())?;
    Ok(())
}

/// What every proxy says of itself, against the topology, against each other, and against rings built here.
async fn verify(api: &Api, printer: &show::Printer) -> anyhow::Result<ExitCode> {
    let began = std::time::Instant::now();
    loop {
        let snapshot = apply::snapshot(api).await?;
        let fleet: Value = api.json(Method::GET, "/v1/proxies", None).await?;
        let expected = apply::rings(&snapshot);
        let findings = compare(&fleet, &expected);
        // A change of a moment ago is still on its way to some.
        if findings.is_empty() || began.elapsed() > SETTLE {
            let proxies = fleet["proxies"].as_array().map_or(0, Vec::len);
            printer.verified(proxies, &expected, &findings)?;
            return Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// How long proxies may take to say that they have the latest revision: a heartbeat and some.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(4);

fn compare(fleet: &Value, expected: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    let mut findings: Vec<String> = Vec::new();
    let empty = Vec::new();
    let proxies = fleet["proxies"].as_array().unwrap_or(&empty);
    for proxy in proxies {
        let name = proxy["name"].as_str().unwrap_or("?");
        let state = proxy["state"].as_str().unwrap_or("?");
        if state != "synced" {
            let why = proxy["heartbeat"]["stuck"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            findings.push(format!("{name} is {state}{why}"));
        }
        for (service, digest) in expected {
            let has = proxy["heartbeat"]["rings"][service].as_str();
            if state != "offline" && has.is_some_and(|has| has != digest) {
                findings
                    .push(format!("{name} has another ring for {service}: {} instead of {digest}", has.unwrap_or("?")));
            }
        }
    }
    findings
}
