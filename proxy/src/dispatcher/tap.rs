//! Taps: an operator asks for the whole life of the next requests that match. All workers share a tap; each looks at its own list.

use bytes::Bytes;
use ringway_config::model::Networks;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests that one tap follows at once: where a tap asks for what is only known at the end, every request may be the one.
const UNDER_WAY_MAX: u32 = 1024;
/// What is kept of all of these; the longest heads of as many requests as a tap takes fit.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which requests are wanted; what is not said is not asked for.
#[derive(Debug, Default)]
pub(crate) struct TapMatch {
    pub(crate) listener: Option<String>,
    pub(crate) service: Option<String>,
    /// The route's number on its listener, from 1.
    pub(crate) route: Option<usize>,
    pub(crate) method: Option<String>,
    pub(crate) path_prefix: Option<String>,
    /// Fields, by name in lower case, and their values.
    pub(crate) headers: Vec<(String, String)>,
    /// Where the client is, as trusted hops say.
    pub(crate) client: Networks,
    pub(crate) hash: Option<u64>,
    pub(crate) status_min: Option<u16>,
    pub(crate) duration_min: Option<Duration>,
}

/// What is known of a request as it begins.
pub(crate) struct Arrived<'a> {
    pub(crate) listener: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) route: Option<usize>,
    pub(crate) method: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) client: IpAddr,
    pub(crate) hash: Option<u64>,
    /// Whether a field has that value, or one of those with that name has.
    pub(crate) has: &'a dyn Fn(&str, &[u8]) -> bool,
}

/// What a tap follows and has not ended yet: it can say what is known so far.
pub(crate) trait UnderWay {
    /// Tells that to this tap, if it is one that follows it, which lets go of it then.
    fn tell_so_far(&self, tap: &Arc<Tap>);
}

/// Somebody waits for the lives of requests.
pub(crate) struct Tap {
    wanted: TapMatch,
    /// Values of fields are shown, but for those that are secrets.
    pub(crate) shows_values: bool,
    /// How many requests it still takes.
    left: AtomicU32,
    under_way: AtomicU32,
    /// Memory for what is kept of those that are followed.
    kept_bytes: AtomicUsize,
    /// Lives that nobody had room for, or that broke off.
    lost: AtomicU32,
    /// Requests that may have matched, and were not followed, since so many were already.
    passed_by: AtomicU32,
    is_closed: AtomicBool,
    /// It follows nothing more; what it follows is still told.
    is_ending: AtomicBool,
    lives: mpsc::Sender<Bytes>,
}

impl TapMatch {
    /// Whether the beginning of a request is what is wanted.
    fn takes(&self, arrived: &Arrived<'_>) -> bool {
        let is = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == is);
        let has = |(name, value): &(String, String)| (arrived.has)(name, value.as_bytes());
        is(&self.listener, Some(arrived.listener))
            && is(&self.service, arrived.service)
            && self.route.is_none_or(|route| Some(route) == arrived.route)
            && self.method.as_ref().is_none_or(|method| method.as_bytes() == arrived.method)
            && self.path_prefix.as_ref().is_none_or(|prefix| arrived.path.starts_with(prefix.as_bytes()))
            && self.hash.is_none_or(|hash| Some(hash) == arrived.hash)
            && (self.client.is_empty() || self.client.contains(arrived.client))
            && self.headers.iter().all(has)
    }

    /// Whether only the end of a request tells.
    fn asks_for_end(&self) -> bool {
        self.status_min.is_some() || self.duration_min.is_some()
    }

    fn takes_end(&self, status: u16, duration: Duration) -> bool {
        // A request without a response is worse than any.
        self.status_min.is_none_or(|least| status == 0 || status >= least)
            && self.duration_min.is_none_or(|least| duration >= least)
    }
}

impl Tap {
    /// One that takes so many requests, and tells of them there.
    pub(crate) fn new(wanted: TapMatch, shows_values: bool, count: u32, lives: mpsc::Sender<Bytes>) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            shows_values,
            left: AtomicU32::new(count),
            under_way: AtomicU32::new(0),
            kept_bytes: AtomicUsize::new(0),
            lost: AtomicU32::new(0),
            passed_by: AtomicU32::new(0),
            is_closed: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            lives,
        })
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    /// Its time is over: it follows nothing more.
    pub(crate) fn stop_following(&self) {
        self.is_ending.store(true, Relaxed);
    }

    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Relaxed)
    }

    /// Requests that it follows, and that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    pub(crate) fn passed_by(&self) -> u32 {
        self.passed_by.load(Relaxed)
    }

    fn is_over(&self) -> bool {
        self.is_closed.load(Relaxed) || self.left.load(Relaxed) == 0
    }

    fn take_place(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Follows a request, if it is wanted as far as its beginning tells.
    fn follow(self: &Arc<Self>, arrived: &Arrived<'_>) -> Option<Followed> {
        if self.is_over() || self.is_ending.load(Relaxed) || !self.wanted.takes(arrived) {
            return None;
        }
        let taken = self.under_way.fetch_update(Relaxed, Relaxed, |count| (count < UNDER_WAY_MAX).then_some(count + 1));
        if taken.is_err() {
            self.passed_by.fetch_add(1, Relaxed);
            return None;
        }
        let mut followed = Followed { tap: Arc::clone(self), has_place: false, kept_bytes: 0 };
        if !self.wanted.asks_for_end() {
            // These are the next that come, whichever of them ends first.
            followed.has_place = self.take_place();
            followed.has_place.then_some(followed)
        } else {
            Some(followed)
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
        // Wakes who waits, unless there is something to read anyway.
        let _ = self.lives.try_send(Bytes::new());
    }
}

/// A request that a tap follows. One that has a place there, and is dropped, is lost.
pub(crate) struct Followed {
    tap: Arc<Tap>,
    has_place: bool,
    kept_bytes: usize,
}

impl Followed {
    pub(crate) fn shows_values(&self) -> bool {
        self.tap.shows_values
    }

    /// Counts memory that is kept for it; `false`: there is no room, and it is passed by.
    pub(crate) fn keep(&mut self, bytes: usize) -> bool {
        let room = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= KEPT_BYTES_MAX);
        let is_kept = self.tap.kept_bytes.fetch_update(Relaxed, Relaxed, room).is_ok();
        if is_kept {
            self.kept_bytes += bytes;
        } else if !self.has_place {
            self.tap.passed_by.fetch_add(1, Relaxed);
        }
        is_kept
    }

    /// Whether its life is told, now that it has ended like this.
    pub(crate) fn takes_end(&mut self, status: u16, duration: Duration) -> bool {
        if !self.has_place && self.tap.wanted.takes_end(status, duration) && !self.tap.is_closed.load(Relaxed) {
            self.has_place = self.tap.take_place();
        }
        self.has_place
    }

    pub(crate) fn is_of(&self, tap: &Arc<Tap>) -> bool {
        Arc::ptr_eq(&self.tap, tap)
    }

    /// Whether what is known so far is told, of one that is at that status, or at none yet, after so long.
    pub(crate) fn takes_so_far(&mut self, status: u16, so_far: Duration) -> bool {
        // Nobody knows yet what its status will be.
        let is_wanted = status > 0 || self.tap.wanted.status_min.is_none();
        let takes = is_wanted && self.takes_end(status, so_far);
        // One that had its place from the beginning is not wanted either, and not lost.
        self.has_place &= takes;
        takes
    }

    /// Its life.
    pub(crate) fn tell(mut self, life: Bytes) {
        let (tap, has_place) = (Arc::clone(&self.tap), std::mem::take(&mut self.has_place));
        // Who reads its life finds it under way no longer.
        drop(self);
        if has_place && tap.lives.try_send(life).is_err() {
            tap.lose();
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tap.under_way.fetch_sub(1, Relaxed);
        self.tap.kept_bytes.fetch_sub(self.kept_bytes, Relaxed);
        if self.has_place {
            self.tap.lose();
        }
    }
}

/// A worker's taps; mostly there are none.
#[derive(Default)]
pub(crate) struct Taps {
    is_armed: Cell<bool>,
    taps: RefCell<Vec<Arc<Tap>>>,
    /// What they follow; some of it has ended.
    under_way: RefCell<Vec<Weak<dyn UnderWay>>>,
}

impl Taps {
    /// Whether there is one at all.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed.get()
    }

    pub(crate) fn arm(&self, tap: Arc<Tap>) {
        self.taps.borrow_mut().push(tap);
        self.is_armed.set(true);
    }

    /// Something is followed from now on.
    pub(crate) fn note(&self, one: &Rc<dyn UnderWay>) {
        let mut all = self.under_way.borrow_mut();
        if all.len() >= 2 * UNDER_WAY_MAX as usize {
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Rc::downgrade(one));
    }

    /// Tells a tap what is known of all that it follows here and that has not ended.
    pub(crate) fn tell_so_far(&self, tap: &Arc<Tap>) {
        let all: Vec<Rc<dyn UnderWay>> = self.under_way.borrow().iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|one| one.tell_so_far(tap));
    }

    /// Lets go of those that are over.
    pub(crate) fn sweep(&self) {
        if self.is_armed.get() {
            self.under_way.borrow_mut().retain(|one| one.strong_count() > 0);
            let mut taps = self.taps.borrow_mut();
            taps.retain(|tap| !tap.is_over());
            self.is_armed.set(!taps.is_empty());
        }
    }

    /// Those that follow this request.
    pub(crate) fn follow(&self, arrived: &Arrived<'_>) -> Vec<Followed> {
        self.taps.borrow().iter().filter_map(|tap| tap.follow(arrived)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn arrived<'a>(path: &'a [u8], has: &'a dyn Fn(&str, &[u8]) -> bool) -> Arrived<'a> {
        let client = IpAddr::from([10, 0, 0, 7]);
        let (listener, service, route, hash) = ("web", Some("s"), Some(2), Some(7));
        Arrived { listener, service, route, method: b"GET", path, client, hash, has }
    }

    fn tap(wanted: TapMatch, count: u32) -> (Arc<Tap>, mpsc::Receiver<Bytes>) {
        let (sender, lives) = mpsc::channel(2);
        (Tap::new(wanted, false, count, sender), lives)
    }

    #[test]
    fn each_condition_holds_or_nothing_is_followed() {
        let has = |name: &str, value: &[u8]| name == "x-user" && value == b"alice";
        let text = |text: &str| Some(text.to_owned());
        let network = |text: &str| Networks::one(text).unwrap();
        let header = |value: &str| vec![("x-user".to_owned(), value.to_owned())];
        for (good, bad) in [
            (TapMatch { listener: text("web"), ..<_>::default() }, TapMatch { listener: text("we"), ..<_>::default() }),
            (TapMatch { service: text("s"), ..<_>::default() }, TapMatch { service: text("t"), ..<_>::default() }),
            (TapMatch { route: Some(2), ..<_>::default() }, TapMatch { route: Some(1), ..<_>::default() }),
            (TapMatch { method: text("GET"), ..<_>::default() }, TapMatch { method: text("get"), ..<_>::default() }),
            (
                TapMatch { path_prefix: text("/a"), ..<_>::default() },
                TapMatch { path_prefix: text("/ab"), ..<_>::default() },
            ),
            (TapMatch { hash: Some(7), ..<_>::default() }, TapMatch { hash: Some(8), ..<_>::default() }),
            (
                TapMatch { client: network("10.0.0.0/24"), ..<_>::default() },
                TapMatch { client: network("10.0.1.0/24"), ..<_>::default() },
            ),
            (
                TapMatch { headers: header("alice"), ..<_>::default() },
                TapMatch { headers: header("bob"), ..<_>::default() },
            ),
        ] {
            assert!(tap(good, 1).0.follow(&arrived(b"/a/b", &has)).is_some());
            assert!(tap(bad, 1).0.follow(&arrived(b"/a/b", &has)).is_none());
        }
    }

    #[test]
    fn the_next_ones_have_their_places_from_their_beginning_and_each_is_told_or_lost() {
        let (tap, mut lives) = tap(TapMatch::default(), 3);
        let follow = || tap.follow(&arrived(b"/", &|_, _| false));
        let mut followed: Vec<_> = (0..3).map(|_| follow().unwrap()).collect();
        assert!(follow().is_none() && tap.is_over(), "it takes no more");
        assert!(followed[0].takes_end(200, Duration::ZERO));
        followed.pop().unwrap().tell("one".into());
        drop(followed.pop());
        followed.pop().unwrap().tell("two".into());
        let told: Vec<Bytes> = std::iter::from_fn(|| lives.try_recv().ok()).collect();
        // What broke off wakes the reader, and has no life.
        assert!(told.contains(&Bytes::from("one")) && tap.lost() >= 1 && tap.under_way.load(Relaxed) == 0, "{told:?}");
    }

    #[test]
    fn what_only_the_end_tells_is_followed_up_to_a_bound_and_takes_its_place_there() {
        let wanted = TapMatch { status_min: Some(500), duration_min: Some(Duration::from_secs(1)), ..<_>::default() };
        let (tap, mut lives) = tap(wanted, 1);
        let mut followed: Vec<_> = Vec::new();
        for _ in 0..UNDER_WAY_MAX + 5 {
            followed.extend(tap.follow(&arrived(b"/", &|_, _| false)));
        }
        assert_eq!((followed.len() as u32, tap.under_way(), tap.passed_by()), (UNDER_WAY_MAX, UNDER_WAY_MAX, 5));
        let mut next = || followed.pop().unwrap();
        assert!(!next().takes_end(200, Duration::from_secs(9)) && !next().takes_end(503, Duration::ZERO));
        let mut bad = next();
        assert!(bad.takes_end(503, Duration::from_secs(1)));
        bad.tell("bad".into());
        assert!(!next().takes_end(0, Duration::from_secs(9)), "it wanted one");
        drop(followed);
        assert_eq!((lives.try_recv().unwrap(), tap.lost(), tap.under_way.load(Relaxed)), (Bytes::from("bad"), 0, 0));
        assert!(lives.try_recv().is_err());
    }

    #[test]
    fn what_is_kept_of_all_that_are_followed_is_bounded_and_given_back() {
        let (tap, _lives) = tap(TapMatch { status_min: Some(500), ..<_>::default() }, 100);
        let follow = || tap.follow(&arrived(b"/", &|_, _| false)).unwrap();
        let (mut first, mut second) = (follow(), follow());
        assert!(first.keep(KEPT_BYTES_MAX - 10) && first.keep(10) && !second.keep(1));
        assert_eq!((tap.passed_by(), tap.lost()), (1, 0));
        drop(second);
        drop(first);
        assert!(follow().keep(KEPT_BYTES_MAX) && tap.kept_bytes.load(Relaxed) == 0 && !follow().keep(usize::MAX));
    }

    #[test]
    fn who_does_not_read_loses_lives_and_stops_nobody_and_a_tap_that_is_over_is_let_go() {
        let (tap, lives) = tap(TapMatch::default(), 100);
        let taps = Taps::default();
        taps.arm(Arc::clone(&tap));
        for _ in 0..50 {
            taps.follow(&arrived(b"/", &|_, _| false)).into_iter().for_each(|followed| followed.tell("life".into()));
        }
        assert_eq!((tap.lost(), lives.len()), (48, 2));
        taps.sweep();
        assert!(taps.is_armed());
        tap.close();
        assert!(taps.follow(&arrived(b"/", &|_, _| false)).is_empty());
        taps.sweep();
        assert!(!taps.is_armed());
    }
}
