//! `ringway control backend`.

use super::apply;
use super::command::{Added, Backend, Named};
use super::show::Printer;
use super::text::path_of;
use anyhow::bail;
use hyper::Method;
use ringway_control::http::Api;
use serde_json::{Value, json};
use std::process::ExitCode;

fn key(of: &Named) -> String {
    format!("backend/{}/{}", of.service, of.id)
}

fn path(of: &Named) -> String {
    path_of(&["v1", "objects", "backend", &of.service, &of.id])
}

/// A change of one field.
fn part(of: &Named, what: &str, value: Value) -> Value {
    json!({ "backend": { "key": key(of), what: value } })
}

fn object(added: &Added) -> Value {
    let Added { address, additional_address, weight, tier, zone } = added;
    let mut object = json!({ "address": address, "weight": weight, "tier": tier, "zone": zone });
    if let Some(more) = additional_address {
        // Members of an earlier version do not know it.
        object["additional_address"] = json!(more);
    }
    object
}

/// Backends come and go: without stages, at once. Exit 0: done; 1: refused.
pub(super) async fn change(api: &Api, printer: &Printer, backend: Backend) -> anyhow::Result<ExitCode> {
    let (of, op) = match backend {
        Backend::Add { of, backend, ttl: Some(ttl) } => {
            if of.phases.staged() {
                bail!("`--ttl` is for a backend that says itself that it is there: it cannot be rolled out");
            }
            let body = object(&backend);
            let force = if of.force { "&force=true" } else { "" };
            printer.done(&api.json(Method::PUT, &format!("{}?ttl={ttl}{force}", path(&of)), Some(&body)).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Backend::Remove { of } if !of.phases.staged() => {
            let force = if of.force { "?force=true" } else { "" };
            printer.done(&api.json(Method::DELETE, &format!("{}{force}", path(&of)), None).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Backend::Add { of, backend, ttl: None } => {
            let op = json!({ "put": { "key": key(&of), "object": { "backend": object(&backend) } } });
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
        Backend::Remove { of } => {
            let op = json!({ "delete": { "key": key(&of) } });
            (of, op)
        }
    };
    let body = json!({ "ops": [op], "force": of.force });
    if of.phases.staged() {
        return apply::roll_out(api, printer, &of.phases, body).await;
    }
    printer.done(&api.json(Method::POST, "/v1/txn", Some(&body)).await?)?;
    Ok(ExitCode::SUCCESS)
}
