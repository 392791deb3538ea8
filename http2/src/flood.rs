//! What costs more to take than to send, counted: past a cap the connection ends with ENHANCE_YOUR_CALM.
//!
//! What a peer may send as a response to what we send (a window for data, a PING to measure it) is allowed for by the data that it was
//! sent.

use crate::Role;
use crate::error::ConnectionError;

/// How much of what costs more to take than to send one connection may bring. `u32::MAX` is no limit.
///
/// Sources: CVE-2023-44487 (resets), CVE-2025-8671 (malformed), CVE-2019-9512 (PINGs), CVE-2019-9511 and -9517 (windows),
/// CVE-2019-9518 (empty data), CVE-2024-27316 (CONTINUATION).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// RST_STREAM a second; from clients.
    pub resets_max: u32,
    /// RST_STREAM in all; from clients.
    pub resets_total_max: u32,
    /// Streams that we reset for what the peer did, in all; of clients.
    pub malformed_total_max: u32,
    /// PINGs a second, beside those that data allows for.
    pub pings_max: u32,
    /// WINDOW_UPDATE of the connection a second, beside those that data allows for; of streams twenty times as many.
    pub window_updates_max: u32,
    /// DATA without a byte, and without an end, a second.
    pub empty_data_max: u32,
    /// CONTINUATION of one block.
    pub continuations_max: u32,
}

impl FloodLimits {
    /// Of the peer of this end. Backends carry the streams of many clients on one connection, and are chosen by the operator.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let times = if role == Role::Client { BACKEND_TIMES } else { 1 };
        Self {
            resets_max: 100,
            resets_total_max: 10_000,
            malformed_total_max: 500,
            pings_max: 100 * times,
            window_updates_max: 100 * times,
            empty_data_max: 100 * times,
            continuations_max: 20,
        }
    }
}

/// SETTINGS that a second may bring.
const SETTINGS: u32 = 50;
/// Windows of streams for one of the connection: more streams may have need of them.
const STREAM_WINDOWS_TIMES: u32 = 20;
/// Streams past what we take: a peer that has read our SETTINGS opens none.
const REFUSED: u32 = 1_000;
/// Frames that mean nothing to us: of priorities, of closed streams, of other specifications.
const USELESS: u32 = 2_000;
/// PINGs and window updates that a frame of data with bytes in it allows for; as in Envoy.
const ALLOWED_PER_DATA: u32 = 10;
/// Frames without a use that a new stream allows for.
const ALLOWED_PER_STREAM: u32 = 4;
const ALLOWED_MAX: u32 = 1_000_000;
/// Frames of data with fewer bytes than this are small: a message of gRPC has 5 at least.
const SMALL_DATA_BYTES: u32 = 16;
/// Small frames that may wait to be taken. A window of 64 KiB has room for 13,107 messages of gRPC that are empty.
const SMALL_DATA: u32 = 16 * 1024;
/// The same from backends, whose windows may have grown.
const SMALL_DATA_BACKEND: u32 = 256 * 1024;
/// How often backends may do what clients may do once.
const BACKEND_TIMES: u32 = 10;

/// What one connection has sent.
#[derive(Debug)]
pub(crate) struct Floods {
    limits: FloodLimits,
    /// Since when the next nine are counted.
    second: u64,
    resets: u32,
    pings: u32,
    settings: u32,
    window_updates: u32,
    stream_windows: u32,
    empty_data: u32,
    refused: u32,
    useless: u32,
    late_data: u32,
    resets_total: u32,
    malformed: u32,
    /// What is allowed for by data that was sent.
    allowed: u32,
    /// What is allowed for by streams that were opened, of what is of no use.
    allowed_useless: u32,
    small_data: u32,
    small_data_max: u32,
    /// How often what a second may bring it may bring.
    times: u32,
}

type Counted = Result<(), ConnectionError>;

fn count(counter: &mut u32, most: u32, name: &'static str) -> Counted {
    *counter = counter.saturating_add(1);
    if *counter > most { Err(ConnectionError::flood(name)) } else { Ok(()) }
}

impl Floods {
    pub(crate) fn new(is_backend: bool, limits: FloodLimits) -> Self {
        Self {
            limits,
            second: 0,
            resets: 0,
            pings: 0,
            settings: 0,
            window_updates: 0,
            stream_windows: 0,
            empty_data: 0,
            refused: 0,
            useless: 0,
            late_data: 0,
            resets_total: 0,
            malformed: 0,
            allowed: 0,
            allowed_useless: 0,
            small_data: 0,
            small_data_max: if is_backend { SMALL_DATA_BACKEND } else { SMALL_DATA },
            times: if is_backend { BACKEND_TIMES } else { 1 },
        }
    }

    /// Time goes on.
    pub(crate) fn handle_time(&mut self, now_millis: u64) {
        let second = now_millis / 1000;
        if self.second != second {
            self.second = second;
            (self.resets, self.pings, self.settings, self.window_updates) = (0, 0, 0, 0);
            (self.empty_data, self.refused, self.useless, self.late_data) = (0, 0, 0, 0);
            self.stream_windows = 0;
        }
    }

    /// The peer was sent data.
    pub(crate) fn handle_data_sent(&mut self) {
        self.allowed = (self.allowed + ALLOWED_PER_DATA).min(ALLOWED_MAX);
    }

    pub(crate) fn handle_opened(&mut self) {
        self.allowed_useless = (self.allowed_useless + ALLOWED_PER_STREAM).min(ALLOWED_MAX);
    }

    pub(crate) fn handle_reset(&mut self) -> Counted {
        count(&mut self.resets_total, self.limits.resets_total_max, "http2_reset_flood")?;
        count(&mut self.resets, self.limits.resets_max, "http2_reset_flood")
    }

    /// The peer has made us reset a stream.
    pub(crate) fn handle_malformed(&mut self) -> Counted {
        count(&mut self.malformed, self.limits.malformed_total_max, "http2_malformed_flood")
    }

    pub(crate) fn handle_refused(&mut self) -> Counted {
        count(&mut self.refused, REFUSED, "http2_other_flood")
    }

    pub(crate) fn handle_settings(&mut self) -> Counted {
        count(&mut self.settings, SETTINGS * self.times, "http2_settings_flood")
    }

    pub(crate) fn handle_ping(&mut self) -> Counted {
        if self.is_allowed() { Ok(()) } else { count(&mut self.pings, self.limits.pings_max, "http2_ping_flood") }
    }

    /// Of the connection's window.
    pub(crate) fn handle_window_update(&mut self) -> Counted {
        if self.is_allowed() {
            Ok(())
        } else {
            count(&mut self.window_updates, self.limits.window_updates_max, "http2_window_flood")
        }
    }

    /// Of a stream's window, which more streams may have need of.
    pub(crate) fn handle_stream_window_update(&mut self) -> Counted {
        if self.is_allowed() || self.is_allowed_useless() {
            return Ok(());
        }
        let most = self.limits.window_updates_max.saturating_mul(STREAM_WINDOWS_TIMES);
        count(&mut self.stream_windows, most, "http2_window_flood")
    }

    pub(crate) fn handle_empty_data(&mut self) -> Counted {
        count(&mut self.empty_data, self.limits.empty_data_max, "http2_empty_data_flood")
    }

    /// Data of so many bytes waits to be taken. Gives how many small frames that was: [`Floods::release_small`] is told of them again.
    pub(crate) fn handle_data(&mut self, bytes: u32) -> Result<u32, ConnectionError> {
        if bytes >= SMALL_DATA_BYTES {
            return Ok(0);
        }
        count(&mut self.small_data, self.small_data_max, "http2_small_data_flood").map(|()| 1)
    }

    /// Data has come on a stream that we have reset.
    pub(crate) fn handle_late_data(&mut self, bytes: u32) -> Counted {
        if bytes >= SMALL_DATA_BYTES {
            return Ok(());
        }
        count(&mut self.late_data, SMALL_DATA, "http2_small_data_flood")
    }

    pub(crate) fn release_small(&mut self, frames: u32) {
        self.small_data -= frames;
    }

    pub(crate) fn handle_useless(&mut self, name: &'static str) -> Counted {
        if self.is_allowed_useless() {
            return Ok(());
        }
        count(&mut self.useless, USELESS * self.times, name)
    }

    fn is_allowed_useless(&mut self) -> bool {
        let allowed = self.allowed_useless > 0;
        self.allowed_useless = self.allowed_useless.saturating_sub(1);
        allowed
    }

    fn is_allowed(&mut self) -> bool {
        let allowed = self.allowed > 0;
        self.allowed = self.allowed.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Handle = fn(&mut Floods) -> Counted;

    fn client() -> Floods {
        Floods::new(false, FloodLimits::new(Role::Server))
    }

    fn backend() -> Floods {
        Floods::new(true, FloodLimits::new(Role::Client))
    }

    #[test]
    fn each_flood_has_its_cap_a_second() {
        let cases: [(Handle, u32, &str); 8] = [
            (Floods::handle_reset, 100, "http2_reset_flood"),
            (Floods::handle_ping, 100, "http2_ping_flood"),
            (Floods::handle_settings, 50, "http2_settings_flood"),
            (Floods::handle_window_update, 100, "http2_window_flood"),
            (Floods::handle_stream_window_update, 2_000, "http2_window_flood"),
            (Floods::handle_empty_data, 100, "http2_empty_data_flood"),
            (Floods::handle_refused, 1_000, "http2_other_flood"),
            (|floods| floods.handle_useless("http2_other_flood"), 2_000, "http2_other_flood"),
        ];
        for (handle, most, name) in cases {
            let mut floods = client();
            for second in 1..6 {
                floods.handle_time(second * 1000 + 17);
                (0..most).for_each(|_| handle(&mut floods).unwrap());
            }
            floods.handle_time(5_999);
            assert_eq!(handle(&mut floods).unwrap_err().flood, Some(name));
        }
    }

    #[test]
    fn a_backend_may_send_ten_times_as_much() {
        for handle in [Floods::handle_ping, Floods::handle_settings, Floods::handle_empty_data] {
            let (mut client, mut backend) = (client(), backend());
            let until = |floods: &mut Floods| (0..).find(|_| handle(floods).is_err()).unwrap();
            let (client, backend): (u32, u32) = (until(&mut client), until(&mut backend));
            assert_eq!(backend, client * 10);
        }
    }

    #[test]
    fn resets_and_malformed_requests_have_a_cap_for_ever() {
        let mut floods = client();
        for second in 0..100 {
            floods.handle_time(second * 1000);
            (0..100).for_each(|_| floods.handle_reset().unwrap());
        }
        floods.handle_time(1_000_000);
        assert_eq!(floods.handle_reset().unwrap_err().flood, Some("http2_reset_flood"));
        (0..500).for_each(|_| floods.handle_malformed().unwrap());
        assert_eq!(floods.handle_malformed().unwrap_err().flood, Some("http2_malformed_flood"));
    }

    #[test]
    fn a_receiver_of_data_may_answer_it() {
        let mut floods = client();
        for _ in 0..1000 {
            floods.handle_data_sent();
            (0..5).for_each(|_| floods.handle_ping().and(floods.handle_window_update()).unwrap());
        }
        (0..100).for_each(|_| floods.handle_ping().unwrap());
        assert!(floods.handle_ping().is_err());
    }

    #[test]
    fn small_frames_count_only_while_they_wait() {
        let mut floods = client();
        for _ in 0..100_000 {
            assert_eq!(floods.handle_data(1), Ok(1));
            floods.release_small(1);
            assert_eq!(floods.handle_data(100), Ok(0));
        }
        (0..SMALL_DATA).for_each(|_| assert_eq!(floods.handle_data(1), Ok(1)));
        assert_eq!(floods.handle_data(1).unwrap_err().flood, Some("http2_small_data_flood"));
    }

    fn until(handle: Handle, floods: &mut Floods) -> u32 {
        (0..).find(|_| handle(floods).is_err()).unwrap()
    }

    #[test]
    fn of_what_a_backend_may_do_more_often_and_what_not() {
        for (handle, times) in [
            (Floods::handle_ping as Handle, 10),
            (Floods::handle_settings, 10),
            (Floods::handle_window_update, 10),
            (Floods::handle_stream_window_update, 10),
            (Floods::handle_empty_data, 10),
            (|floods| floods.handle_useless("http2_other_flood"), 10),
            (Floods::handle_reset, 1),
            (Floods::handle_refused, 1),
            (Floods::handle_malformed, 1),
            (|floods| floods.handle_data(15).map(|_| ()), 16),
            (|floods| floods.handle_late_data(15), 1),
        ] {
            let (client, backend) = (until(handle, &mut client()), until(handle, &mut backend()));
            assert_eq!(backend, client * times);
        }
    }

    #[test]
    fn data_of_sixteen_bytes_is_not_small_whether_it_is_wanted_or_late() {
        let mut floods = client();
        for _ in 0..20_000 {
            assert_eq!(floods.handle_data(16), Ok(0));
            floods.handle_late_data(16).unwrap();
        }
        let late: Handle = |floods| floods.handle_late_data(15);
        assert_eq!(until(late, &mut floods), 16 * 1024);
        assert_eq!(floods.handle_late_data(0).unwrap_err().flood, Some("http2_small_data_flood"));
        floods.handle_time(1_000);
        assert_eq!(until(late, &mut floods), 16 * 1024, "a second has passed");
        assert_eq!(floods.handle_data(15), Ok(1), "counted apart");
        floods.release_small(1);
        assert_eq!(until(|floods| floods.handle_data(0).map(|_| ()), &mut floods), 16 * 1024);
    }

    #[test]
    fn what_is_allowed_for_adds_up_and_is_used_up() {
        let useless: Handle = |floods| floods.handle_useless("http2_other_flood");
        let mut floods = client();
        (0..3).for_each(|_| floods.handle_opened());
        assert_eq!(until(useless, &mut floods), 2_000 + 3 * 4);
        assert_eq!(floods.handle_useless("name").unwrap_err().flood, Some("name"));
        for handle in [Floods::handle_ping as Handle, Floods::handle_window_update] {
            let mut floods = client();
            (0..3).for_each(|_| floods.handle_data_sent());
            assert_eq!(until(handle, &mut floods), 100 + 3 * 10);
        }
        let mut floods = client();
        floods.handle_data_sent();
        assert_eq!(until(Floods::handle_stream_window_update, &mut floods), 2_000 + 10);
        // And is bounded, so that nobody saves up for a flood.
        let mut floods = client();
        (0..300_000).for_each(|_| floods.handle_data_sent());
        (0..300_000).for_each(|_| floods.handle_opened());
        assert_eq!((floods.allowed, floods.allowed_useless), (ALLOWED_MAX, ALLOWED_MAX));
    }

    #[test]
    fn each_limit_is_the_configured_one_and_the_largest_is_none() {
        let lower = FloodLimits {
            resets_max: 3,
            resets_total_max: u32::MAX,
            malformed_total_max: 4,
            pings_max: 5,
            window_updates_max: 6,
            empty_data_max: 7,
            continuations_max: 8,
        };
        let malformed: Handle = Floods::handle_malformed;
        let cases: [(Handle, u32, &str); 6] = [
            (Floods::handle_reset, 3, "http2_reset_flood"),
            (malformed, 4, "http2_malformed_flood"),
            (Floods::handle_ping, 5, "http2_ping_flood"),
            (Floods::handle_window_update, 6, "http2_window_flood"),
            (Floods::handle_stream_window_update, 120, "http2_window_flood"),
            (Floods::handle_empty_data, 7, "http2_empty_data_flood"),
        ];
        for (handle, most, name) in cases {
            let mut floods = Floods::new(false, lower);
            assert_eq!(until(handle, &mut floods), most, "{name}");
            assert_eq!(handle(&mut floods).unwrap_err().flood, Some(name));
        }
        let mut floods = Floods::new(false, FloodLimits { resets_total_max: 2, ..lower });
        assert_eq!(until(Floods::handle_reset, &mut floods), 2, "in all comes before what a second may bring");
        let mut floods = Floods::new(false, FloodLimits { malformed_total_max: u32::MAX, ..lower });
        floods.malformed = u32::MAX - 1;
        (0..3).for_each(|_| floods.handle_malformed().unwrap());
    }
}
