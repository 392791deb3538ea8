//! Everything, as bytes and back.

use super::member::Api;
use super::objects::{by, done, fresh, placed};
use super::request::Call;
use super::response::{Body, full, problem};
use crate::Code;
use crate::http::Problem;
use crate::state::backup;
use crate::state::{Command, Role};
use bytes::Bytes;
use hyper::{Response, StatusCode};

pub(super) async fn backup(api: &Api, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    // Certificates' keys are in it.
    ask.caller.needs(Role::Admin)?;
    fresh(api, ask).await?;
    let state = api.plane.state();
    let bytes = tokio::task::spawn_blocking(move || backup::write(&state)).await;
    let failed = |why: String| problem(500, Code::Internal, format!("the backup could not be made: {why}"));
    let bytes = bytes.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(placed(api, full(StatusCode::OK, "application/octet-stream", bytes)))
}

pub(super) async fn restore(api: &Api, ask: &Call<'_>, body: &Bytes) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Admin)?;
    let bytes = body.clone();
    let read = tokio::task::spawn_blocking(move || backup::read(&bytes)).await;
    let backup = read
        .map_err(|error| problem(500, Code::Internal, error.to_string()))?
        .map_err(|error| problem(422, Code::Damaged, format!("this is no backup, or it is damaged: {error}")))?;
    let cluster = &backup.state.cluster;
    let other_cluster = ask.flag("other_cluster")?;
    // What this member has may be old: it is asked whether it may be before anything is in the log.
    api.plane.barrier().await?;
    let now = api.plane.state();
    if backup.state.rules > now.rules {
        let (of_backup, of_members) = (backup.state.rules, now.rules);
        let why = format!(
            "the backup is by rules {of_backup}, the members have agreed on rules {of_members}: not all of them could read it; \
             upgrade them all, and ask again"
        );
        return Err(problem(409, Code::UnknownRules, why));
    }
    match now.rules {
        0 if *cluster != now.cluster && !other_cluster => {
            let why = format!(
                "the backup is of cluster {cluster:?}, this is {:?}: pass --other-cluster if it is meant",
                now.cluster
            );
            return Err(problem(409, Code::OtherCluster, why));
        }
        0 => {}
        _ => now.may_restore(cluster, other_cluster)?,
    }
    let epoch = api.plane.next_epoch(backup.state.epoch).await?;
    for part in backup.parts() {
        api.plane.propose(&part).await?;
    }
    let whole = backup.checksum;
    let by = by(ask, None);
    done(
        api,
        match now.rules {
            0 => Command::RestoreCommit { by, whole },
            _ => Command::RestoreAs { by, whole, epoch, other_cluster },
        },
    )
    .await
}
