//! `ringway control lock`.

use super::access::Access;
use super::command::Lock;
use super::problem::refused;
use super::show::{self, Printer};
use super::text::path_of;
use hyper::Method;
use ringway_control::Code;
use ringway_control::http::Api;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit 0: done; 1: refused.
pub(super) async fn lock(access: &Access, api: &Api, printer: &Printer, command: Lock) -> anyhow::Result<ExitCode> {
    match command {
        Lock::Acquire { name, ttl, owner } => {
            let body = json!({ "ttl": ttl, "owner": owner });
            let lease = api.json(Method::POST, "/v1/leases", Some(&body)).await?["id"].clone();
            let body = json!({ "lease": lease, "owner": owner });
            let taken = api.json(Method::PUT, &path_of(&["v1", "locks", &name]), Some(&body)).await;
            if taken.is_err() {
                // Nothing hangs on it; else it expires by itself.
                let _ = api.json(Method::DELETE, &format!("/v1/leases/{lease}"), None).await;
            }
            printer.lock(&name, &taken?["token"], &lease)?;
        }
        Lock::Renew { name, token } => return renew(access, api, printer, &name, token).await,
        Lock::Release { name, token } => {
            let path = format!("{}?token={token}", path_of(&["v1", "locks", &name]));
            printer.done(&api.json(Method::DELETE, &path, Some(&json!({}))).await?)?;
        }
        Lock::List => printer.locks(&api.json(Method::GET, "/v1/locks", None).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn renew(access: &Access, api: &Api, printer: &Printer, name: &str, token: u64) -> anyhow::Result<ExitCode> {
    let held: Value = api.json(Method::GET, "/v1/locks", None).await?;
    let Some(lock) = held["locks"].as_array().into_iter().flatten().find(|lock| lock["name"] == name) else {
        return refused(access, Code::NotFound, &format!("nobody holds lock {name:?}: it may have expired"));
    };
    if lock["token"] != token {
        let now = show::text(&lock["token"]);
        return refused(access, Code::WrongToken, &format!("lock {name:?} is held with token {now} now"));
    }
    // A lease is of one lock's holder: if that has changed since, the lease is not there.
    let lease = lock["lease"].clone();
    api.json(Method::PUT, &format!("/v1/leases/{lease}"), Some(&json!({}))).await?;
    printer.lock(name, &lock["token"], &lease)?;
    Ok(ExitCode::SUCCESS)
}
