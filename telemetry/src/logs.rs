//! Structured logs: what the process did. Requests go to the access log instead.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The consensus engine tells every vote and every entry at `info`.
const DEFAULT: &str = "info,openraft=error";
/// Longest filter that is taken while the process runs, and most parts of it.
const FILTER_BYTES_MAX: usize = 1024;
const PARTS_MAX: usize = 32;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter of this process; there is one once [`install`] was called.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Puts another filter in force.
type Replace = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

struct Filter {
    replace: Replace,
    start: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The filter in force, unless it is that of the start.
    changed: Option<String>,
    /// How often it was changed.
    changes: u64,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The filter.
    pub filter: String,
    /// That of the start.
    pub start: String,
    /// The number of the last change.
    pub change: u64,
}

/// Starts logging to standard error: text on a terminal, JSON lines elsewhere. `RINGWAY_LOG` sets the level
/// (`info` if unset, the consensus engine's errors only; the syntax of `tracing_subscriber`'s `EnvFilter`). JSON goes through
/// `json`, which leads to standard error as well: what is read with `cat` later must do nothing to a terminal either.
#[allow(
    clippy::disallowed_methods,
    reason = "the subscriber colours what it writes to a terminal, and escapes what is told"
)]
pub fn install<W>(json: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let start = std::env::var("RINGWAY_LOG").ok().filter(|filter| EnvFilter::try_new(filter).is_ok());
    let start = start.unwrap_or_else(|| DEFAULT.to_owned());
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&start));
    // An error means that a subscriber is installed already, as in tests with several proxies.
    let replace: Option<Replace> = if std::io::stderr().is_terminal() {
        let builder = builder.with_writer(std::io::stderr).with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().is_ok().then(|| Box::new(move |filter| handle.reload(filter).is_ok()) as Replace)
    } else {
        let builder = builder.json().flatten_event(true).with_writer(json).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().is_ok().then(|| Box::new(move |filter| handle.reload(filter).is_ok()) as Replace)
    };
    if let Some(replace) = replace {
        // Nobody else has installed one before.
        let _ = FILTER.set(Filter { replace, start, state: Mutex::default() });
    }
}

/// The filter in force; `None`: this process has none that could be changed.
#[must_use]
pub fn in_force() -> Option<InForce> {
    let this = FILTER.get()?;
    let state = this.state();
    let filter = state.changed.as_ref().unwrap_or(&this.start).clone();
    Some(InForce { filter, start: this.start.clone(), change: state.changes })
}

/// A filter that can be put in force.
pub struct NewFilter {
    filter: EnvFilter,
    text: String,
}

impl NewFilter {
    /// A filter of levels and targets alone: what asks for spans and their fields would cost each line a look.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(filter: &str) -> Result<Self, String> {
        let filter = filter.trim();
        let wanted = "write LEVEL, or parts TARGET=LEVEL between commas, for example `info,ringway_proxy=debug`";
        if filter.len() > FILTER_BYTES_MAX || filter.split(',').count() > PARTS_MAX {
            return Err(format!("a filter has at most {FILTER_BYTES_MAX} bytes and {PARTS_MAX} parts: {wanted}"));
        }
        for part in filter.split(',') {
            let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
            if !LEVELS.contains(&level) {
                return Err(format!("{level:?} is no level; there are {}: {wanted}", LEVELS.join(", ")));
            }
            let is_word = |target: &str| {
                !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
            };
            if let Some(target) = target.filter(|target| !is_word(target)) {
                return Err(format!(
                    "{target:?} is no target, which is a name such as `ringway_proxy::exchange`: {wanted}"
                ));
            }
        }
        let parsed = EnvFilter::builder().with_regex(false).parse(filter);
        let parsed = parsed.map_err(|problem| format!("{problem}: {wanted}"))?;
        Ok(Self { filter: parsed, text: filter.to_owned() })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Puts a filter in force; gives the number of the change.
///
/// # Errors
/// There is nothing to put it into.
pub fn change(new: NewFilter) -> Result<u64, String> {
    let this = FILTER.get().ok_or("this process has no filter of logs that could be changed")?;
    let mut state = this.state();
    this.put(&mut state, new.filter, Some(new.text))?;
    Ok(state.changes)
}

/// Whether another filter than that of the start is in force: by this change, if one is named.
#[must_use]
pub fn is_changed(change: Option<u64>) -> bool {
    FILTER.get().is_some_and(|this| this.state().is_changed(change))
}

/// Puts the filter of the start in force again, if `change` is the number of the last change: a later one stays. `None`: whatever it is.
/// Whether there was anything to take back.
pub fn restore(change: Option<u64>) -> bool {
    let Some(this) = FILTER.get() else { return false };
    let mut state = this.state();
    state.is_changed(change) && this.put(&mut state, EnvFilter::new(&this.start), None).is_ok()
}

impl State {
    fn is_changed(&self, change: Option<u64>) -> bool {
        self.changed.is_some() && change.is_none_or(|change| change == self.changes)
    }
}

impl Filter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever looks whether it is to be done holds the state until it is.
    fn put(&self, state: &mut State, filter: EnvFilter, changed: Option<String>) -> Result<(), String> {
        if !(self.replace)(filter) {
            return Err("the subscriber of logs has gone".into());
        }
        state.changed = changed;
        state.changes += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_targets_and_what_else_is_said_to_be_wrong() {
        for good in ["debug", "info,ringway_proxy=debug", " ringway_proxy::exchange=trace,off "] {
            NewFilter::parse(good).map(drop).unwrap_or_else(|problem| panic!("{good}: {problem}"));
        }
        let (long, many) = ("a".repeat(FILTER_BYTES_MAX + 1), vec!["info"; PARTS_MAX + 1].join(","));
        for (bad, said) in [
            ("", "\"\" is no level"),
            ("dbug", "\"dbug\" is no level; there are off, error"),
            ("info,", "\"\" is no level"),
            ("ringway_proxy=loud", "\"loud\" is no level"),
            ("[span{field=\"(a+)+\"}]=debug", "is no level"),
            ("[span]=debug", "\"[span]\" is no target"),
            ("=debug", "\"\" is no target"),
            ("a\u{1b}[2J=debug", "is no target"),
            (&long, "at most 1024 bytes"),
            (&many, "32 parts"),
        ] {
            let Err(problem) = NewFilter::parse(bad) else { panic!("{bad} is taken") };
            assert!(problem.contains(said) && problem.contains("for example"), "{bad}: {problem}");
        }
    }

    #[test]
    fn a_change_is_taken_back_by_its_number_and_a_later_one_stays() {
        install(std::io::sink);
        let start = in_force().unwrap();
        assert_eq!((&start.filter, start.change), (&start.start, 0));
        let change = |filter: &str| change(NewFilter::parse(filter)?);
        let first = change("warn").unwrap();
        assert!(!tracing::enabled!(tracing::Level::INFO) && tracing::enabled!(tracing::Level::WARN));
        let second = change("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(!restore(Some(first)), "another one holds by now");
        assert_eq!(in_force().unwrap().filter, "debug");
        assert!(change("nothing").is_err() && restore(Some(second)));
        assert_eq!(in_force().unwrap().filter, start.start);
        assert!(!restore(None), "there is nothing to take back");
        // Whose time is over just as another one comes takes nothing of it back.
        for _ in 0..200 {
            let first = change("warn").unwrap();
            let later = std::thread::scope(|scope| {
                scope.spawn(move || restore(Some(first)));
                change("error").unwrap()
            });
            assert_eq!(in_force().map(|now| (now.filter, now.change >= later)), Some(("error".to_owned(), true)));
        }
        assert!(restore(None));
    }
}
