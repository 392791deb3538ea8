//! `ringway top`: the tables of `ringway status`, drawn anew each second, until `q`.

use crate::live::Target;
use crate::status::{Sort, draw, settled};
use crate::terminal::{self, Keys};
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What is asked of `ringway top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    target: Target,
    /// By what rows are ordered; while it runs: s, n, r, e, l, f.
    #[arg(long, value_enum, default_value_t = Sort::State)]
    sort: Sort,
    /// Print it once, as where standard output is no terminal.
    #[arg(long)]
    once: bool,
}

const HELP: &str = "q quit   order: s state  n name  r requests  e errors  l latency  f in flight";

/// Draws until `q`, or once.
pub(crate) fn top(arguments: &TopArguments) -> anyhow::Result<ExitCode> {
    let (target, service) = (&arguments.target, arguments.target.service.as_deref());
    let runtime = crate::run::control_runtime()?;
    if arguments.once || !terminal::is_terminal() {
        let frame = runtime.block_on(settled(target))?;
        let text = draw(&frame, service, arguments.sort, terminal::size().0);
        terminal::stdout().lock().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut keys = Keys::new()?;
    let (order, sort) = watch::channel(arguments.sort);
    let ended = runtime.block_on(async {
        let mut ended = Ended::new()?;
        // Whatever is waited for meanwhile: a proxy that says nothing, a terminal that takes nothing.
        tokio::select! {
            code = ended.next() => Ok(ExitCode::from(code)),
            () = quit(&mut keys, &order) => Ok(ExitCode::SUCCESS),
            failed = show(target, sort) => failed.map(|()| ExitCode::SUCCESS),
        }
    });
    // The terminal is as it was before once the keys are dropped; a line that it does not take is not waited for.
    runtime.shutdown_background();
    ended
}

/// Draws for as long as the proxy tells something new.
async fn show(target: &Target, mut sort: watch::Receiver<Sort>) -> anyhow::Result<()> {
    let mut live = target.look().await?;
    live.next().await?;
    loop {
        let (width, height) = terminal::size();
        let by = *sort.borrow_and_update();
        let text = format!("{HELP}\n\n{}", draw(&live.frame, target.service.as_deref(), by, width));
        tokio::task::spawn_blocking(move || terminal::draw_screen(&text, width, height)).await??;
        tokio::select! {
            more = live.next() => more?,
            changed = sort.changed() => changed?,
        }
    }
}

/// Takes keys, until one of them quits.
async fn quit(keys: &mut Keys, order: &watch::Sender<Sort>) {
    while let Some(key) = keys.next().await {
        match key {
            b'q' | 3 | 4 => return,
            key => drop(ordered_by(key).map(|by| order.send_replace(by))),
        }
    }
}

/// What ends it from elsewhere: who signs off, or somebody's `kill`.
struct Ended(Vec<(u8, Signal)>);

impl Ended {
    fn new() -> io::Result<Self> {
        let kinds = [(1, SignalKind::hangup()), (2, SignalKind::interrupt()), (15, SignalKind::terminate())];
        kinds.into_iter().map(|(number, kind)| Ok((number, signal(kind)?))).collect::<io::Result<_>>().map(Self)
    }

    /// The exit code that a shell gives to what a signal has ended.
    async fn next(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            let mut ends = self.0.iter_mut();
            let come = ends.find_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
            come.map_or(Poll::Pending, |number| Poll::Ready(128 + number))
        })
        .await
    }
}

fn ordered_by(key: u8) -> Option<Sort> {
    Some(match key {
        b's' => Sort::State,
        b'n' => Sort::Name,
        b'r' => Sort::Requests,
        b'e' => Sort::Errors,
        b'l' => Sort::P99,
        b'f' => Sort::InFlight,
        _ => return None,
    })
}
