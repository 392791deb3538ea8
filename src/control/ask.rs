//! Commands that a member of the control plane answers.

use super::access::Access;
use super::command::{Certificate, ControlCommand, Proxies, Token};
use super::show::Printer;
use super::text::path_of;
use super::{apply, backend, backup, lock, verify, watch};
use anyhow::Context;
use hyper::Method;
use ringway_control::http::{Api, ApiError};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Exit 0: done; 1: not as it should be.
pub(super) async fn ask(access: &Access, command: ControlCommand) -> anyhow::Result<ExitCode> {
    let api = access.api()?;
    let printer = Printer { json: access.json };
    match command {
        ControlCommand::Run { .. }
        | ControlCommand::Init { .. }
        | ControlCommand::Join { .. }
        | ControlCommand::Recover { .. }
        | ControlCommand::Authority(_) => unreachable!("invariant: handled before anybody is asked"),
        ControlCommand::Members
        | ControlCommand::Transfer { .. }
        | ControlCommand::Remove { .. }
        | ControlCommand::Promote { .. } => {
            members(&api, &printer, command).await?;
        }
        ControlCommand::Status => printer.status(&get(&api, "/v1/status").await?)?,
        ControlCommand::Get { name, stale } => {
            let consistency = if stale { "&consistency=stale" } else { "" };
            let path = format!("/v1/objects?prefix={}{consistency}", path_of(&[&name]).trim_start_matches('/'));
            return printer.objects(&name, &get(&api, &path).await?);
        }
        ControlCommand::Apply(apply) => return apply::apply(&api, &printer, &apply).await,
        ControlCommand::Diff { file, document } => return apply::diff(&api, &printer, &file, &document).await,
        ControlCommand::History { .. } | ControlCommand::Rollback { .. } => history(&api, &printer, command).await?,
        ControlCommand::Watch { from } => return watch::watch(&api, from).await,
        ControlCommand::Backend(command) => return backend::change(&api, &printer, command).await,
        ControlCommand::Certificate(command) => return certificate(&api, &printer, command).await,
        ControlCommand::Lock(command) => return lock::lock(access, &api, &printer, command).await,
        ControlCommand::Token(command) => token(&api, &printer, command).await?,
        ControlCommand::Rollouts { id, abort } => rollouts(&api, &printer, id, abort).await?,
        ControlCommand::Proxies { action: Some(Proxies::Forget { name }) } => {
            printer.done(&send(&api, Method::DELETE, &path_of(&["v1", "proxies", &name]), json!({})).await?)?;
        }
        ControlCommand::Proxies { action: None } => printer.proxies(&get(&api, "/v1/proxies").await?)?,
        ControlCommand::Verify(verify) => return verify::verify(&api, &printer, &verify).await,
        ControlCommand::Backup { file, stale: false } => backup::backup(&api, &file, "/v1/backup", "").await?,
        ControlCommand::Backup { file, stale: true } => backup::stale_backup(&api, &file).await?,
        ControlCommand::Restore { file, other_cluster, yes } => {
            if !backup::restore(&api, &printer, &file, other_cluster, yes).await? {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(api: &Api, path: &str) -> Result<Value, ApiError> {
    api.json(Method::GET, path, None).await
}

async fn send(api: &Api, method: Method, path: &str, body: Value) -> Result<Value, ApiError> {
    api.json(method, path, Some(&body)).await
}

async fn members(api: &Api, printer: &Printer, command: ControlCommand) -> anyhow::Result<()> {
    match command {
        ControlCommand::Transfer { node } => {
            printer.done(&send(api, Method::POST, "/v1/transfer", json!({ "to": node })).await?)
        }
        ControlCommand::Remove { node } => {
            let path = path_of(&["v1", "members", &node.to_string()]);
            printer.done(&send(api, Method::DELETE, &path, json!({})).await?)
        }
        ControlCommand::Promote { node } => {
            let path = path_of(&["v1", "members", &node.to_string(), "promote"]);
            printer.done(&send(api, Method::POST, &path, json!({})).await?)
        }
        _ => printer.members(&get(api, "/v1/members").await?),
    }
}

async fn history(api: &Api, printer: &Printer, command: ControlCommand) -> anyhow::Result<()> {
    match command {
        ControlCommand::History { revision: Some(revision), .. } => {
            printer.revision(&get(api, &format!("/v1/history/{revision}")).await?)
        }
        ControlCommand::History { revision: None, limit } => {
            printer.history(&get(api, &format!("/v1/history?limit={limit}")).await?)
        }
        ControlCommand::Rollback { revision, note } => {
            let body = json!({ "to": revision, "note": note });
            printer.done(&send(api, Method::POST, "/v1/rollback", body).await?)
        }
        _ => Ok(()),
    }
}

async fn certificate(api: &Api, printer: &Printer, command: Certificate) -> anyhow::Result<ExitCode> {
    match command {
        Certificate::Put { name, certificate, key, force, phases } => {
            let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
            let object = json!({ "certificate": { "certificate": read(&certificate)?, "key": read(&key)? } });
            let put = json!({ "put": { "key": format!("certificate/{name}"), "object": object } });
            apply::roll_out(api, printer, &phases, json!({ "ops": [put], "force": force })).await
        }
        Certificate::Remove { name, phases } => {
            let delete = json!({ "delete": { "key": format!("certificate/{name}") } });
            apply::roll_out(api, printer, &phases, json!({ "ops": [delete] })).await
        }
    }
}

async fn token(api: &Api, printer: &Printer, command: Token) -> anyhow::Result<()> {
    match command {
        Token::Create { name, role, ttl } => {
            let body = json!({ "role": role, "ttl": ttl });
            printer.token(&send(api, Method::PUT, &path_of(&["v1", "tokens", &name]), body).await?)
        }
        Token::Delete { name } => {
            printer.done(&send(api, Method::DELETE, &path_of(&["v1", "tokens", &name]), json!({})).await?)
        }
        Token::List => printer.tokens(&get(api, "/v1/tokens").await?),
    }
}

async fn rollouts(api: &Api, printer: &Printer, id: Option<u64>, abort: bool) -> anyhow::Result<()> {
    match (id, abort) {
        (Some(id), true) => {
            printer.done(&send(api, Method::POST, &format!("/v1/rollouts/{id}/abort"), json!({})).await?)
        }
        (Some(id), false) => printer.rollout(&get(api, &format!("/v1/rollouts/{id}")).await?),
        (None, _) => printer.rollouts(&get(api, "/v1/rollouts").await?),
    }
}
