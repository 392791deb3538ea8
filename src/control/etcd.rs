//! `ringway control --etcd`: for those whose topology is in etcd, what etcdctl cannot do.

use super::access::Access;
use super::command::ControlCommand;
use super::{apply, show};
use anyhow::bail;
use ringway_config::model::{self, MemberUrl};
use ringway_control::etcd::{EtcdError, Store};
use ringway_control::state::Refusal;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// etcd, as the command line says.
fn store(access: &Access) -> anyhow::Result<Store> {
    let etcd = &access.etcd;
    let mut endpoints = Vec::new();
    for endpoint in &etcd.endpoints {
        match MemberUrl::parse(endpoint) {
            Some(url) => endpoints.push(url),
            None => bail!("`--etcd`: `{endpoint}` is not the address of etcd: write it as `https://10.0.0.1:2379`"),
        }
    }
    if etcd.prefix.len() < 2 || !etcd.prefix.ends_with('/') {
        bail!("{:?} cannot be what keys begin with: write a name that ends with `/`", etcd.prefix);
    }
    Ok(Store::new(&model::Etcd {
        endpoints,
        prefix: etcd.prefix.clone(),
        login: etcd.user.clone().zip(etcd.password_file.clone()),
        ca: access.ca.clone(),
        identity: access.certificate.clone().zip(access.key_file.clone()),
        server_name: None,
    })?)
}

/// Exit 0: done; 1: refused.
pub(super) async fn ask(access: &Access, command: ControlCommand) -> anyhow::Result<ExitCode> {
    let store = store(access)?;
    let printer = show::Printer { json: access.json };
    let done = match command {
        ControlCommand::Apply(apply) => apply::apply_to(&store, &printer, &apply).await,
        ControlCommand::Get { name, .. } => get(&store, &printer, &name).await,
        _ => bail!("etcd can only be asked to `apply` and to `get`: for all else there is etcdctl"),
    };
    let error = match done {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    let refused = match (error.downcast_ref::<Refusal>(), error.downcast_ref::<EtcdError>()) {
        (Some(refusal), _) => {
            let findings = refusal.findings.iter().map(|finding| format!("\n\n{finding}"));
            format!("{} ({}){}", refusal.message, refusal.code, findings.collect::<String>())
        }
        (_, Some(error @ (EtcdError::Changed(_) | EtcdError::Invalid(_)))) => error.to_string(),
        _ => return Err(error),
    };
    writeln!(crate::terminal::stderr(), "ringway: {refused}")?;
    Ok(ExitCode::from(1))
}

async fn get(store: &Store, printer: &show::Printer, name: &str) -> anyhow::Result<ExitCode> {
    let shown = store.show().await?;
    let found = shown.view.objects.iter().filter(|(key, _)| key.to_string().starts_with(name));
    let objects: Vec<_> = found
        .map(|(key, object)| {
            let (created, modified) = shown.revisions.get(key).copied().unwrap_or_default();
            json!({ "key": key, "object": object.redacted(), "created": created, "modified": modified })
        })
        .collect();
    printer.objects(name, &json!({ "revision": shown.view.revision, "objects": objects }))
}
