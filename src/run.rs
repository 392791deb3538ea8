//! `ringway run`: a proxy that follows its file and ends in peace.

use anyhow::Context;
use ringway_config::model;
use ringway_control::member::Member;
use ringway_fleet::Fleet;
use ringway_proxy::{Handle, Proxy, Source};
use ringway_telemetry::Metrics;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs until SIGTERM or SIGINT. Exit 0: all requests ended; 1: some were cut off, or the file is not valid.
pub(crate) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    crate::terminal::install_logs();
    let mut loaded = ringway_config::load_file(file).and_then(ringway_proxy::verified)?;
    raise_descriptor_limit();
    let runtime = control_runtime()?;
    let ended = runtime.block_on(async {
        let stop = stop_signals()?;
        let mut signals = Signals::new()?;
        let member = embedded(&loaded.config).await?;
        let fleet = Fleet::new(file.to_owned(), &loaded.config)?;
        let mut source = Source::File(file.to_owned());
        if let Some(fleet) = &fleet {
            loaded = fleet.first(loaded).await;
            source = fleet.source();
        }
        for warning in &loaded.warnings {
            tracing::warn!(code = warning.code, line = warning.line, "{}", warning.message);
        }
        if let Some(name) = loaded.config.awaited_certificate() {
            let known = if fleet.is_some() { "has not said it" } else { "is not followed: `control` names no members" };
            anyhow::bail!(
                "certificate {name:?} (`control:{name}`) is the control plane's, which {known}, and nothing of it is stored here: \
                 start when it answers, or write the path of a file"
            );
        }
        let proxy = Proxy::start(loaded.config, source, Metrics::install()).await?;
        proxy.show_origin(loaded.origin);
        if let Some(fleet) = &fleet {
            let shown = Arc::clone(fleet);
            proxy.show_topology(move || shown.status());
        }
        let handle = proxy.handle();
        let watch = ringway_proxy::watch(file, proxy.files(), async || handle.follow(file).await);
        let obey = obey(&mut signals, &handle);
        let agree = async {
            match &fleet {
                Some(fleet) => fleet.run(&handle).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch => {}
            () = obey => {}
            () = agree => {}
            () = stop => {}
        }
        let sign_off = async {
            if let Some(fleet) = &fleet {
                fleet.sign_off().await;
            }
        };
        // An embedded member may be the one that is told: it ends last.
        let (ended, ()) = tokio::join!(end(proxy), sign_off);
        drop(member);
        ended
    });
    // A configuration that is still being built is nobody's any more.
    runtime.shutdown_background();
    ended
}

/// Does what signals ask for. Never returns. However often a reload is asked for while one is under way, there is one more.
async fn obey(signals: &mut Signals, proxy: &Handle) {
    let wanted = tokio::sync::Notify::new();
    let listen = async {
        loop {
            let wish = signals.next().await;
            proxy.reopen_logs();
            match wish {
                Wish::Reload => wanted.notify_one(),
                Wish::ReopenLogs => {}
            }
        }
    };
    let reload = async {
        loop {
            wanted.notified().await;
            proxy.reload().await;
        }
    };
    tokio::join!(listen, reload);
}

/// What a signal asks for, beside the end.
pub(crate) enum Wish {
    /// SIGHUP: read the file again, and open the logs again.
    Reload,
    /// SIGUSR1: open the logs again.
    ReopenLogs,
}

/// The signals that other servers are sent to do something while they run. From the call on none of them ends the process,
/// whether or not anybody waits: those that mean nothing here are logged, and ignored.
pub(crate) struct Signals {
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
    /// A file has come to its limit (`LimitFSIZE=`): the write fails, and that is said where it is written.
    file_limit: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            file_limit: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next that means something.
    pub(crate) async fn next(&mut self) -> Wish {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Wish::Reload,
                _ = self.user_1.recv() => return Wish::ReopenLogs,
                _ = self.file_limit.recv() => {}
                _ = self.user_2.recv() => {
                    tracing::warn!("SIGUSR2 is ignored: the binary is replaced by a restart");
                }
            }
        }
    }

    /// Where nothing is read again at a signal: says so, for ever.
    pub(crate) async fn ignore(mut self) {
        loop {
            match self.next().await {
                Wish::Reload => tracing::info!("SIGHUP is ignored here: files that matter are followed"),
                Wish::ReopenLogs => tracing::info!("SIGUSR1 is ignored here: a log that was renamed is found out"),
            }
        }
    }
}

/// A member of the control plane on a thread of its own: it must answer whatever the proxy does. Dropping it ends it and waits for
/// its thread, on whatever path.
pub(crate) struct EmbeddedMember {
    /// Dropped, it tells the member to stop.
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EmbeddedMember {
    /// Starts it; on return it listens.
    pub(crate) async fn start(settings: model::Member) -> anyhow::Result<(Self, std::net::SocketAddr)> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (started, start) = tokio::sync::oneshot::channel();
        let run = move || {
            let runtime = match control_runtime() {
                Ok(runtime) => runtime,
                Err(error) => {
                    // Whoever waits has given up, or is told.
                    let _ = started.send(Err(error.into()));
                    return;
                }
            };
            runtime.block_on(async move {
                let mut member = match Member::start(&settings, true).await {
                    Ok(member) => member,
                    Err(error) => {
                        let _ = started.send(Err(anyhow::Error::from(error)));
                        return;
                    }
                };
                let _ = started.send(Ok(member.address));
                tokio::select! {
                    _ = stopped => member.stop().await,
                    // The proxy goes on: what is in force stays.
                    why = member.failed() => tracing::error!(why, "the embedded member of the control plane has stopped"),
                }
            });
        };
        let thread = std::thread::Builder::new().name("control-member".into()).spawn(run)?;
        let this = Self { stop: Some(stop), thread: Some(thread) };
        let address = start.await.context("the embedded member ended at once")??;
        Ok((this, address))
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the embedded member has panicked");
        }
    }
}

async fn embedded(config: &model::Config) -> anyhow::Result<Option<EmbeddedMember>> {
    let Some(member) =
        config.control.as_ref().filter(|control| control.embedded).and_then(|control| control.member.clone())
    else {
        return Ok(None);
    };
    let (member, _) = EmbeddedMember::start(member).await.context("embedded member")?;
    Ok(Some(member))
}

/// A proxied connection takes two descriptors: as many as the system lets us have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on descriptors cannot be raised");
    }
}

/// The runtime of everything but traffic.
pub(crate) fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// SIGTERM and SIGINT are this process's to answer from the call on, not from when somebody waits: resolves at the next.
pub(crate) fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Resolves at the next SIGTERM or SIGINT.
pub(crate) async fn stop_signal() -> std::io::Result<()> {
    stop_signals()?.await;
    Ok(())
}

/// Drains; a second signal ends it at once.
pub(crate) async fn end(proxy: Proxy) -> anyhow::Result<ExitCode> {
    let drained = tokio::select! {
        drained = proxy.drain() => drained,
        ended = stop_signal() => {
            ended?;
            false
        }
    };
    if drained {
        tracing::info!("drained");
    } else {
        tracing::warn!("ended before all requests had");
    }
    proxy.stop();
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
