//! `ringway control`: members, and everything that is asked of them.

mod access;
mod apply;
mod ask;
mod backend;
mod backup;
mod command;
mod etcd;
mod lock;
mod member;
mod problem;
mod show;
mod text;
mod verify;
mod watch;

pub(crate) use self::access::Access;
pub(crate) use self::command::ControlCommand;
use ringway_control::http::ApiError;
use std::process::ExitCode;

/// Exit 0: done; 1: refused, or not as it should be; 2: nobody could be asked.
pub(crate) fn control(access: &Access, command: ControlCommand) -> anyhow::Result<ExitCode> {
    crate::run::control_runtime()?.block_on(async {
        match command {
            ControlCommand::Run { config } => member::run(&config).await,
            ControlCommand::Init { config, cluster, backup, authority } => {
                or_refused(access, member::init(&config, cluster, backup.as_deref(), authority.as_deref()).await)
            }
            ControlCommand::Recover { config, lost, yes } => {
                or_refused(access, member::recover(&config, &lost, yes).await)
            }
            ControlCommand::Join { config, learner, replace, authority } => {
                member::join(access, &config, learner, replace, authority.as_deref()).await
            }
            ControlCommand::Authority(command) => member::authority(command),
            command if access.etcd.is_meant() => etcd::ask(access, command).await,
            command => or_refused(access, ask::ask(access, command).await),
        }
    })
}

/// A refusal is an answer.
fn or_refused(access: &Access, done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match done {
        Err(error) => match error.downcast_ref::<ApiError>() {
            Some(ApiError::Refused(problem)) => problem::show_problem(access, problem),
            _ => Err(error),
        },
        done => done,
    }
}
