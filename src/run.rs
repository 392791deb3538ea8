//! `ringway run`: a proxy that follows its file and ends in peace.

use ringway_proxy::{Proxy, Source};
use ringway_telemetry::{Metrics, logs};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs until SIGTERM or SIGINT. Exit 0: all requests ended; 1: some were cut off, or the file is not valid.
pub(crate) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    logs::install();
    let loaded = ringway_config::load_file(file)?;
    for warning in &loaded.warnings {
        tracing::warn!(code = warning.code, line = warning.line, "{}", warning.message);
    }
    raise_descriptor_limit();
    let runtime = control_runtime()?;
    runtime.block_on(async {
        let proxy = Proxy::start(loaded.config, Source::File(file.to_owned()), Metrics::install()).await?;
        let reload = proxy.reloader();
        let follow = async {
            let mut hangup = signal(SignalKind::hangup())?;
            let watch = ringway_proxy::watch(file, proxy.files(), &reload);
            tokio::pin!(watch);
            loop {
                tokio::select! {
                    _ = hangup.recv() => reload(),
                    () = &mut watch => {}
                }
            }
        };
        tokio::select! {
            ended = follow => {
                let ended: anyhow::Result<std::convert::Infallible> = ended;
                ended?;
            }
            ended = stop_signal() => ended?,
        }
        end(proxy).await
    })
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

/// Resolves at the next SIGTERM or SIGINT.
pub(crate) async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Drains; a second signal ends it at once.
pub(crate) async fn end(proxy: Proxy) -> anyhow::Result<ExitCode> {
    tracing::info!("draining: no new connections, requests in flight may end");
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
