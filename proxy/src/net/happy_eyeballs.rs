//! Connections to a backend that has an address of each family: RFC 8305, "happy eyeballs".
//!
//! The one that is tried first has a quarter of a second to itself, or less if it fails; then both are tried, and the first that
//! stands is taken. Which one that was is remembered for a while, so that not every connection waits for an address that is dead.

mod race;

use self::race::{Race, Step};
use super::shortage::Resource;
use crate::ambient;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long the first attempt has to itself: the recommendation of RFC 8305, section 8, whose minimum the other is. Never more than half
/// of the time there is: the second needs some as well.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(10);
/// How long the address that has answered instead goes first. After that, it is seen whether the other is back.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Which family has answered where the one that goes first did not, if one has lately. Written when that changes, not with each connection.
#[derive(Debug)]
pub(crate) struct Preference {
    begun: Instant,
    /// 0: none. Else the milliseconds since `begun` at which it is forgotten, twice, and 1 more for IPv4.
    held: AtomicU64,
}

impl Preference {
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: now, held: AtomicU64::new(0) }
    }

    /// The order in which a backend's addresses are tried: the one that is remembered; otherwise IPv6, whose precedence is the higher one
    /// (RFC 8305, section 4, by the default table of RFC 6724).
    pub(crate) fn order(&self, addresses: [SocketAddr; 2], now: Instant) -> [SocketAddr; 2] {
        let [one, other] = addresses;
        if is_ipv4(one) == self.remembered(now).unwrap_or(false) { [one, other] } else { [other, one] }
    }

    /// Whether one is remembered, and is IPv4.
    fn remembered(&self, now: Instant) -> Option<bool> {
        let held = self.held.load(Relaxed);
        (self.millis(now) < held >> 1).then_some(held & 1 == 1)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_millis() as u64
    }

    /// The one of `order` in this place has been connected to.
    fn handle_connected(&self, order: [SocketAddr; 2], place: usize, now: Instant) {
        let address = order[place];
        if !is_ipv4(address) {
            // It goes first by itself.
            if self.held.load(Relaxed) != 0 {
                self.held.store(0, Relaxed);
            }
        } else if place == 1 {
            // Only here: one that goes first because it is remembered is not remembered for longer.
            self.held.store((self.millis(now) + REMEMBERED.as_millis() as u64) << 1 | 1, Relaxed);
        }
    }
}

/// What is remembered of a backend: by its connections, and by checks of another port, which another process may listen on.
#[derive(Debug)]
pub(crate) struct Preferences {
    pub(crate) traffic: Preference,
    pub(crate) checks: Preference,
}

impl Preferences {
    pub(crate) fn new(now: Instant) -> Self {
        Self { traffic: Preference::new(now), checks: Preference::new(now) }
    }

    /// The order for what is not connected, and never learns whether anything has arrived: datagrams.
    pub(crate) fn order_of_datagrams(&self, addresses: [SocketAddr; 2], now: Instant) -> [SocketAddr; 2] {
        match self.traffic.remembered(now) {
            Some(_) => self.traffic.order(addresses, now),
            None => self.checks.order(addresses, now),
        }
    }
}

/// Whether it is reached by IPv4.
fn is_ipv4(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}

/// How long the first attempt has to itself, of the time that there is for all; zero is no bound.
fn delay(time: Duration) -> Duration {
    if time.is_zero() { ATTEMPT_DELAY } else { ATTEMPT_DELAY.min(time / 2).max(ATTEMPT_DELAY_MIN) }
}

/// Opens a connection to whichever of a backend's two addresses takes it first; `time`: what the caller leaves for it, which is the caller's to
/// bound. The other attempt is given up. Also gives the address.
///
/// # Errors
/// Neither takes it. Whatever one has failed for, this host's own want is told, if there is any: then nothing is known of the backend.
pub(crate) async fn connect<T, F: Future<Output = io::Result<T>>>(
    addresses: [SocketAddr; 2],
    preference: &Preference,
    time: Duration,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<(T, SocketAddr)> {
    let order = preference.order(addresses, ambient::now());
    let mut race = Race::new(delay(time));
    let mut attempts: [Option<Pin<Box<F>>>; 2] = [None, None];
    let mut failure: Option<io::Error> = None;
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    let (opened, place) = poll_fn(|context| {
        loop {
            let until = match race.poll(ambient::now()) {
                Step::Begin(place) => {
                    attempts[place] = Some(Box::pin(open(order[place])));
                    continue;
                }
                Step::Lost => return Poll::Ready(Err(failure.take().unwrap_or(io::ErrorKind::NotConnected.into()))),
                Step::Wait(until) => until,
            };
            let mut failed = false;
            for (place, place_of) in attempts.iter_mut().enumerate() {
                match place_of.as_mut().map(|attempt| attempt.as_mut().poll(context)) {
                    Some(Poll::Ready(Ok(opened))) => return Poll::Ready(Ok((opened, place))),
                    Some(Poll::Ready(Err(error))) => {
                        (*place_of, failed) = (None, true);
                        race.handle_failure(place);
                        failure = Some(failure.take().filter(|_| Resource::of(&error).is_none()).unwrap_or(error));
                    }
                    Some(Poll::Pending) | None => {}
                }
            }
            if failed {
                continue;
            }
            let Some(until) = until else { return Poll::Pending };
            let until = tokio::time::Instant::from_std(until);
            if alarm.deadline() != until {
                alarm.as_mut().reset(until);
            }
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await?;
    preference.handle_connected(order, place, ambient::now());
    Ok((opened, order[place]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport::memory::{ConnectOutcome, Listener, Network, Socket};

    const SIX: &str = "[fd00::1]:80";
    const FOUR: &str = "10.0.0.1:80";

    fn addresses() -> [SocketAddr; 2] {
        [FOUR, SIX].map(|address| address.parse().unwrap())
    }

    /// A network on which both are listened on.
    fn network() -> (Network, [Listener; 2]) {
        let network = Network::default();
        let listeners = addresses().map(|address| network.listen(address));
        (network, listeners)
    }

    /// Connects; gives where to, and after how many milliseconds.
    async fn connected(network: &Network, preference: &Preference) -> io::Result<(String, u128)> {
        let begun = ambient::now();
        let open = |address| network.connect(address);
        let opened: (Socket, SocketAddr) = connect(addresses(), preference, Duration::from_secs(2), open).await?;
        Ok((opened.1.to_string(), ambient::since(begun).as_millis()))
    }

    fn set(network: &Network, four: ConnectOutcome, six: ConnectOutcome) {
        addresses().into_iter().zip([four, six]).for_each(|(address, outcome)| network.set_outcome(address, outcome));
    }

    #[tokio::test(start_paused = true)]
    async fn ipv6_goes_first_and_the_other_at_once_where_that_fails_or_after_a_quarter_of_a_second() {
        use ConnectOutcome::{Open, Refused, Silent, Slow};
        let slow = |millis| Slow(Duration::from_millis(millis));
        for (four, six, expected) in [
            (Open, Open, (SIX, 0)),
            (Open, slow(240), (SIX, 240)),
            (Open, Refused, (FOUR, 0)),
            (Open, Silent, (FOUR, 250)),
            (slow(10), slow(255), (SIX, 255)),
            (Silent, slow(900), (SIX, 900)),
            (Refused, slow(900), (SIX, 900)),
        ] {
            let ((network, _listeners), preference) = (network(), Preference::new(ambient::now()));
            set(&network, four, six);
            let (address, millis) = connected(&network, &preference).await.unwrap();
            assert_eq!((address.as_str(), millis), expected, "{four:?} {six:?}");
            // What has lost is given up.
            assert_eq!(addresses().map(|address| network.connecting_to(address)), [0, 0], "{four:?} {six:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_answered_goes_first_for_ten_minutes_and_no_longer() {
        use ConnectOutcome::{Open, Refused, Silent};
        let ((network, _listeners), preference) = (network(), Preference::new(ambient::now()));
        let connected = async || connected(&network, &preference).await.unwrap();
        set(&network, Open, Silent);
        assert_eq!(connected().await, (FOUR.to_owned(), 250));
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(119)).await;
            assert_eq!(connected().await, (FOUR.to_owned(), 0));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(connected().await, (FOUR.to_owned(), 250), "it is tried again");
        // Back, and seen when the other fails: from then on it goes first.
        set(&network, Refused, Open);
        assert_eq!(connected().await, (SIX.to_owned(), 0));
        set(&network, Open, Open);
        assert_eq!(connected().await, (SIX.to_owned(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_host_is_short_of_is_told_before_what_the_backend_says() {
        use ConnectOutcome::{NoDescriptors, Refused};
        for (four, six, is_short) in [
            (Refused, NoDescriptors, true),
            (NoDescriptors, Refused, true),
            (NoDescriptors, NoDescriptors, true),
            (Refused, Refused, false),
        ] {
            let ((network, _listeners), preference) = (network(), Preference::new(ambient::now()));
            set(&network, four, six);
            let failed = connected(&network, &preference).await.unwrap_err();
            assert_eq!(Resource::of(&failed).is_some(), is_short, "{four:?} {six:?}");
        }
    }

    #[test]
    fn the_second_has_half_of_a_short_time() {
        for (millis, expected) in [(0, 250), (1000, 250), (500, 250), (300, 150), (10, 10), (1, 10)] {
            assert_eq!(delay(Duration::from_millis(millis)), Duration::from_millis(expected), "{millis}");
        }
    }

    #[test]
    fn datagrams_go_where_connections_went_or_checks() {
        let now = ambient::now();
        let [four, six] = addresses();
        let (preferences, by_rank) = (Preferences::new(now), [six, four]);
        assert_eq!(preferences.order_of_datagrams(addresses(), now), by_rank);
        preferences.checks.handle_connected(by_rank, 1, now);
        assert_eq!(preferences.order_of_datagrams(addresses(), now), [four, six]);
        assert_eq!(preferences.traffic.order(addresses(), now), by_rank);
        preferences.checks.handle_connected([four, six], 1, now);
        preferences.traffic.handle_connected(by_rank, 1, now);
        assert_eq!(preferences.order_of_datagrams(addresses(), now), [four, six]);
    }
}
