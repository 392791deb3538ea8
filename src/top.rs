//! `ringway top`: the tables of `ringway status`, drawn anew each second, until `q`.

use crate::live::{Live, Target};
use crate::status::{Sort, draw, settled};
use crate::terminal::{self, Keys};
use clap::Args;
use ringway_config::plain::line;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};
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

/// There is something new each second: what is older is said to be.
const SILENCE: Duration = Duration::from_secs(3);
/// Until a proxy is asked again that could not be, and until what is drawn is older by so much.
const PAUSE: Duration = Duration::from_secs(1);

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

/// What is known of a proxy, and how old that is.
struct Shown {
    frame: Value,
    heard: Instant,
    /// Why nothing more comes, once that is known.
    trouble: Option<String>,
}

impl Shown {
    fn now(frame: &Value) -> Self {
        Self { frame: frame.clone(), heard: Instant::now(), trouble: None }
    }

    /// What is drawn is old: that is said, and how old.
    fn staleness(&self) -> Option<String> {
        let silence = self.heard.elapsed();
        let why = match &self.trouble {
            Some(why) => why,
            None if silence >= SILENCE => "nothing has come",
            None => return None,
        };
        Some(format!("not live for {} s, and tried again: {}", silence.as_secs(), line(why)))
    }
}

/// Draws for as long as somebody looks. Who cannot be asked at first was named wrongly; a proxy that was there may be there again.
async fn show(target: &Target, sort: watch::Receiver<Sort>) -> anyhow::Result<()> {
    let mut live = target.look().await?;
    live.next().await?;
    let (told, shown) = watch::channel(Shown::now(&live.frame));
    tokio::select! {
        () = follow(target, live, &told) => Ok(()),
        failed = redraw(target.service.as_deref(), shown, sort) => failed,
    }
}

/// Tells what comes, and why nothing does; begins anew when a stream has ended.
async fn follow(target: &Target, mut live: Live, told: &watch::Sender<Shown>) {
    loop {
        let why = loop {
            match live.next().await {
                Ok(()) => drop(told.send_replace(Shown::now(&live.frame))),
                Err(why) => break why,
            }
        };
        told.send_modify(|shown| shown.trouble = Some(terminal::once(&why)));
        live = loop {
            tokio::time::sleep(PAUSE).await;
            match target.look().await {
                Ok(live) => break live,
                Err(why) => told.send_modify(|shown| shown.trouble = Some(terminal::once(&why))),
            }
        };
    }
}

/// Draws what is new, and once a second how old it is.
async fn redraw(
    service: Option<&str>,
    mut shown: watch::Receiver<Shown>,
    mut sort: watch::Receiver<Sort>,
) -> anyhow::Result<()> {
    loop {
        let (width, height) = terminal::size();
        let by = *sort.borrow_and_update();
        let text = {
            let shown = shown.borrow_and_update();
            let staleness = shown.staleness().unwrap_or_default();
            format!("{HELP}\n{staleness}\n{}", draw(&shown.frame, service, by, width))
        };
        tokio::task::spawn_blocking(move || terminal::draw_screen(&text, width, height)).await??;
        tokio::select! {
            changed = shown.changed() => changed?,
            changed = sort.changed() => changed?,
            () = tokio::time::sleep(PAUSE) => {}
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
