//! `ringway control run`, `init`, `join` and `authority`: what is done where a member is, or before there is one.

use super::access::Access;
use super::command::IssueTo;
use super::text::confirmed;
use anyhow::{Context, bail};
use ringway_config::model::Member as Settings;
use ringway_control::http::{Api, ApiError};
use ringway_control::member::authority::{self, Authority, Issues};
use ringway_control::member::recover::{self, RecoverError, Recovery};
use ringway_control::member::{Member, Origin, Plan, client_settings};
use ringway_control::state::State;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How long a certificate is valid when nothing is said.
pub(super) const DAYS: u64 = 365;

fn member_settings(file: &Path) -> anyhow::Result<Settings> {
    let config = ringway_config::load_file(file)?.config;
    config
        .control
        .and_then(|control| control.member)
        .with_context(|| format!("{}: there is no member in it: write `control: {{ member: {{}} }}`", file.display()))
}

pub(super) async fn run(file: &Path) -> anyhow::Result<ExitCode> {
    crate::terminal::install_logs();
    let settings = member_settings(file)?;
    let stop = crate::run::stop_signals()?;
    let signals = crate::run::Signals::new()?;
    let mut member = Member::start(&settings, false).await?;
    tokio::select! {
        () = signals.ignore() => Ok(ExitCode::SUCCESS),
        () = stop => {
            member.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        why = member.failed() => bail!("this member cannot go on: {why}"),
    }
}

pub(super) async fn init(
    file: &Path,
    cluster: Option<String>,
    backup: Option<&Path>,
    authority: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let settings = member_settings(file)?;
    if let Some(name) = cluster.as_ref().filter(|name| !ringway_control::state::is_name(name)) {
        bail!("{name:?} is no name for a cluster: write 1 to 128 letters, digits and `._:-`");
    }
    Plan::nobodys(&settings.directory)?;
    let backup = backup.map(|path| std::fs::read(path).with_context(|| path.display().to_string())).transpose()?;
    if let Some(directory) = authority {
        issue_missing(directory, &settings, true)?;
    }
    if let Some(backup) = backup {
        let (plan, state) = recover::begin(&settings, backup.into()).await.map_err(refused)?;
        founded(&settings, &plan, &state)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::first(&settings.directory, cluster)?;
    let directory = settings.directory.display();
    writeln!(crate::terminal::stdout(), "{directory} is member {} of the new cluster {}", plan.node, plan.cluster)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn join(
    access: &Access,
    file: &Path,
    learner: bool,
    replace: Option<u64>,
    authority: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let settings = member_settings(file)?;
    Plan::nobodys(&settings.directory)?;
    if let Some(directory) = authority {
        issue_missing(directory, &settings, false)?;
    }
    // They are read when the member runs, wherever that is.
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    let (token_file, ca) = (absolute(&access.token_file)?, absolute(&access.ca)?);
    let client = Api::new(&client_settings(&access.members, token_file.clone(), ca.clone()))?;
    let origin = Origin::Join { members: access.members.clone(), token_file, ca, voter: !learner, replace };
    let plan = Plan::join(&settings.directory, &client, origin).await?;
    let directory = settings.directory.display();
    writeln!(
        crate::terminal::stdout(),
        "{directory} is member {} of cluster {}: it joins when it runs (`ringway control run`)",
        plan.node,
        plan.cluster
    )?;
    Ok(ExitCode::SUCCESS)
}

/// A survivor's disk becomes a new cluster.
pub(super) async fn recover(file: &Path, lost: &[String], yes: bool) -> anyhow::Result<ExitCode> {
    let settings = member_settings(file)?;
    let recovery = Recovery::look(&settings, lost).await.map_err(refused)?;
    write!(crate::terminal::stderr(), "{}", recovery.summary())?;
    if !yes && !confirmed("this cannot be undone")? {
        return Ok(ExitCode::from(1));
    }
    let (plan, state) = recovery.go(&settings).await.map_err(refused)?;
    founded(&settings, &plan, &state)?;
    Ok(ExitCode::SUCCESS)
}

fn refused(error: RecoverError) -> ApiError {
    ApiError::Refused(error.problem())
}

fn founded(settings: &Settings, plan: &Plan, state: &State) -> std::io::Result<()> {
    writeln!(
        crate::terminal::stdout(),
        "{} is member {} of a new cluster of {}, at revision {} of epoch {}: run it, and let new members join it",
        settings.directory.display(),
        plan.node,
        state.cluster,
        state.revision,
        state.epoch
    )
}

/// What a member's file names and nobody has made yet: certificates and keys, the authorities' own, and, for the `first`
/// member, its tokens.
fn issue_missing(directory: &Path, settings: &Settings, first: bool) -> anyhow::Result<()> {
    let members = Authority::open(directory, Issues::Members)?;
    let clients = Authority::open(directory, Issues::Clients)?;
    told(directory, members.is_new || clients.is_new)?;
    let made = |path: &Path, what: &str| writeln!(crate::terminal::stdout(), "made {}: {what}", path.display());
    let mut pairs = BTreeSet::new();
    let mut copies = Vec::new();
    if let Some(files) = &settings.peer_tls {
        pairs.insert((&files.certificate, &files.key));
        copies.extend(files.ca.as_ref().map(|path| (path, &members, "the authority of members' certificates")));
    }
    if let Some(files) = &settings.tls {
        pairs.insert((&files.certificate, &files.key));
        copies.extend(files.ca.as_ref().map(|path| (path, &clients, "the authority of clients' certificates")));
    }
    if pairs.is_empty() {
        bail!("nothing is to be issued: the member has neither `tls` nor `peer_tls`");
    }
    let hosts = hosts(settings);
    for (certificate, key) in pairs {
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => {
                members.issue(&settings.name, &hosts, DAYS)?.write(certificate, key)?;
                made(certificate, &format!("certificate of {} for {}, {DAYS} days", settings.name, hosts.join(", ")))?;
                made(key, "its private key")?;
            }
            (there, _) => bail!(
                "{} is there and {} is not: remove the one, or bring the other",
                if there { certificate.display() } else { key.display() },
                if there { key.display() } else { certificate.display() }
            ),
        }
    }
    for (path, authority, what) in copies {
        if !path.exists() {
            authority::write(path, authority.certificate(), false)?;
            made(path, what)?;
        }
    }
    for token in settings.tokens.iter().filter(|token| first && !token.file.exists()) {
        authority::write(&token.file, &authority::token()?, true)?;
        made(&token.file, &format!("token {}: whoever has it may do what its role says", token.name))?;
    }
    Ok(())
}

/// An authority that nobody meant to make is a wrong path, most likely.
fn told(directory: &Path, is_new: bool) -> anyhow::Result<()> {
    if is_new {
        writeln!(crate::terminal::stdout(), "made a new authority in {}: nobody trusts it yet", directory.display())?;
    }
    Ok(())
}

/// Under which names and addresses a member is reached.
fn hosts(settings: &Settings) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    for told in [&settings.advertise, &settings.peer_advertise] {
        let host = told.rsplit_once(':').map_or(told.as_str(), |(host, _)| host);
        hosts.insert(host.trim_start_matches('[').trim_end_matches(']').to_owned());
    }
    for address in [settings.address, settings.peer_address] {
        if !address.ip().is_unspecified() {
            hosts.insert(address.ip().to_string());
        }
    }
    hosts.into_iter().collect()
}

/// Certificates for other machines.
pub(super) fn authority(command: super::command::Authority) -> anyhow::Result<ExitCode> {
    let (to, hosts, issues) = match command {
        super::command::Authority::Member { to, hosts } => (to, hosts, Issues::Members),
        super::command::Authority::Client { to } => (to, Vec::new(), Issues::Clients),
    };
    let IssueTo { directory, name, out, days } = to;
    if !ringway_control::state::is_name(&name) {
        bail!("{name:?} is no name: write 1 to 128 letters, digits and `._:-`");
    }
    // Both before anything is written: the directory may be the one that is written to.
    let (members, clients) =
        (Authority::open(&directory, Issues::Members)?, Authority::open(&directory, Issues::Clients)?);
    told(&directory, members.is_new || clients.is_new)?;
    let issued = if issues == Issues::Members { &members } else { &clients }.issue(&name, &hosts, days)?;
    let (certificate, key) = (out.join(format!("{name}.pem")), out.join(format!("{name}.key")));
    let ca = out.join("members.pem");
    hand_out(&members, &ca)?;
    if issues == Issues::Members {
        // A member checks clients, too.
        hand_out(&clients, &out.join("clients.pem"))?;
    }
    issued.write(&certificate, &key)?;
    let mut out = crate::terminal::stdout().lock();
    writeln!(out, "made {}, {}; members are checked by {}", certificate.display(), key.display(), ca.display())?;
    Ok(ExitCode::SUCCESS)
}

/// An authority's certificate, to check others by. A file that is there may have those of others beside it.
fn hand_out(authority: &Authority, path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(authority::write(path, authority.certificate(), false)?);
    }
    let there = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if there.contains(authority.certificate().trim()) {
        return Ok(());
    }
    bail!("{} is of another authority: remove it, or write elsewhere (`--out DIRECTORY`)", path.display())
}
