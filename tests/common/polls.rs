//! Waiting for what comes about in its own time. Whoever looks may fail to see: what answers is starting, the machine is busy, a signal
//! has come between. In a condition that means "not yet"; anywhere else, that the test fails.

use super::PATIENCE;
use super::pace::slowness;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// What a condition unwinds with that cannot tell.
struct NotYet;

thread_local! {
    /// How many conditions are being looked at, one within the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Why the last of them that could not tell, could not.
    static CAUSE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Waits until `condition` gives something. What it panics with, the test fails with; but see [`not_yet`].
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_within(PATIENCE, what, condition)
}

/// The same, for so long on a quiet machine.
#[track_caller]
pub fn wait_for_within<T>(most: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let mut cause = None;
    loop {
        if let Some(found) = look(&mut condition) {
            return found;
        }
        cause = CAUSE.take().or(cause);
        // Asked each time: the machine may have become busy meanwhile.
        if begin.elapsed() >= most && begin.elapsed() >= most.mul_f64(slowness()) {
            let waited = begin.elapsed();
            match cause {
                None => panic!("waited in vain for {what}, {waited:?}"),
                Some(cause) => panic!("waited in vain for {what}, {waited:?}; the last that failed: {cause}"),
            }
        }
        // Between two looks.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One look: `None`, too, where it could not tell.
fn look<T>(condition: &mut impl FnMut() -> Option<T>) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    // A condition that is looked at again after it could not tell is where it was: all that it has is what it looks at.
    let seen = catch_unwind(AssertUnwindSafe(condition));
    DEPTH.set(DEPTH.get() - 1);
    seen.unwrap_or_else(|payload| if payload.is::<NotYet>() { None } else { resume_unwind(payload) })
}

/// In a condition: it cannot tell yet, for this reason, which is told if the time runs out. Anywhere else the test fails with it.
#[track_caller]
pub fn not_yet(cause: impl Display) -> ! {
    note(&cause);
    if DEPTH.get() == 0 {
        panic!("{cause}");
    }
    // Not a panic: nothing is printed.
    resume_unwind(Box::new(NotYet))
}

/// Why a look saw nothing, to be told if the time runs out.
pub fn note(cause: impl Display) {
    CAUSE.set(Some(cause.to_string()));
}

/// For what is there as a rule: in a condition, its absence means [`not_yet`].
pub trait OrNotYet<T> {
    #[track_caller]
    fn or_not_yet(self) -> T;
}

impl<T> OrNotYet<T> for Option<T> {
    #[track_caller]
    fn or_not_yet(self) -> T {
        let Some(found) = self else { not_yet(CAUSE.take().unwrap_or_else(|| "there is none".to_owned())) };
        found
    }
}

impl<T, E: Display> OrNotYet<T> for Result<T, E> {
    #[track_caller]
    fn or_not_yet(self) -> T {
        self.unwrap_or_else(|error| not_yet(error))
    }
}

#[test]
fn a_look_that_fails_in_a_poll_means_not_yet_and_its_cause_is_told_at_the_end() {
    let nobody = super::free_address();
    let mut looks = 0;
    let found = wait_for("the third look", || {
        looks += 1;
        if looks < 3 {
            super::get(nobody, "/status").or_not_yet();
        }
        Some(looks)
    });
    assert_eq!(found, 3);
    let told = |run: &dyn Fn()| {
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        payload.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let in_vain = || {
        wait_for_within(Duration::ZERO, "it", || super::get(nobody, "/status"));
    };
    let at_once = || {
        super::get(nobody, "/status").or_not_yet();
    };
    for told in [told(&in_vain), told(&at_once)] {
        assert!(told.contains(&format!("GET /status of {nobody}")) && told.contains("refused"), "{told}");
    }
    // What a condition asserts, it asserts.
    assert_eq!(told(&|| wait_for("it", || panic!("{}", "a broken promise"))), "a broken promise");
}
