//! A limit that follows latency, before backends that are simulated: so many requests are worked on at once, the others wait.

use proptest::collection::vec;
use proptest::prelude::*;
use ringway_ring::{ConcurrencyController, ConcurrencyParams, Window, log_micros};
use std::collections::VecDeque;

const PARAMS: ConcurrencyParams = ConcurrencyParams { limit_min: 3, limit_max: 1000, tolerance: 1.5 };
/// Of simulated time.
const TICK_MICROS: u64 = 200;
const SECOND: u64 = 1_000_000 / TICK_MICROS;

/// Of xorshift: the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A backend that works on `capacity` requests at once, behind a limit.
struct Backend {
    capacity: usize,
    /// How long one is worked on, drawn for each, in ticks.
    work: fn(&mut Dice) -> u64,
    dice: Dice,
    now: u64,
    /// When each began, and what is left of it.
    working: Vec<(u64, u64)>,
    queue: VecDeque<u64>,
    controller: ConcurrencyController,
    limit: usize,
    window: Window,
    window_ends: u64,
    /// Since the last look: responses, refusals, the sum of all latencies in ticks, and the least and greatest limit.
    done: u64,
    refused: u64,
    waited: u64,
    limits: (usize, usize),
    /// Clients that ask again once they have a response, and wait for their turn where the limit is in the way.
    clients: usize,
    /// Since the last look: ticks that clients have waited outside, together.
    outside: u64,
}

impl Backend {
    fn new(capacity: usize, work: fn(&mut Dice) -> u64) -> Self {
        let controller = ConcurrencyController::default();
        let limit = controller.limit(&PARAMS) as usize;
        Self {
            capacity,
            work,
            dice: Dice(0x5eed_5eed),
            now: 0,
            working: Vec::new(),
            queue: VecDeque::new(),
            controller,
            limit,
            window: Window::default(),
            window_ends: 0,
            done: 0,
            refused: 0,
            waited: 0,
            limits: (usize::MAX, 0),
            clients: 0,
            outside: 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.working.len() + self.queue.len()
    }

    /// Lets so many seconds pass with so many requests a second. Gives the responses and refusals, the mean latency in ticks, and between
    /// which ends the limit has been.
    fn pass(&mut self, seconds: u64, per_second: u64) -> (u64, u64, u64, (usize, usize)) {
        (self.done, self.refused, self.waited, self.limits) = (0, 0, 0, (usize::MAX, 0));
        self.outside = 0;
        for _ in 0..seconds * SECOND {
            self.now += 1;
            // Arrivals are spread at random, by twice as many chances as there are requests.
            for _ in 0..2 * per_second.div_ceil(SECOND) {
                if self.dice.roll(2 * per_second.div_ceil(SECOND) * SECOND) < per_second {
                    self.arrive();
                }
            }
            while self.in_flight() < self.clients.min(self.limit) {
                self.queue.push_back(self.now);
            }
            self.outside += self.clients.saturating_sub(self.in_flight()) as u64;
            self.work();
            self.end_window();
        }
        (self.done, self.refused, self.waited / self.done.max(1), self.limits)
    }

    fn arrive(&mut self) {
        if self.in_flight() >= self.limit {
            self.refused += 1;
        } else {
            self.queue.push_back(self.now);
        }
    }

    fn work(&mut self) {
        let in_flight = self.in_flight();
        let mut ended = Vec::new();
        self.working.retain_mut(|(began, left)| {
            *left -= 1;
            if *left == 0 {
                ended.push(*began);
            }
            *left > 0
        });
        for began in ended {
            let ticks = self.now - began;
            self.window.samples += 1;
            self.window.logs += u64::from(log_micros(ticks * TICK_MICROS));
            self.window.peak = self.window.peak.max(in_flight as u32);
            self.done += 1;
            self.waited += ticks;
        }
        while self.working.len() < self.capacity
            && let Some(began) = self.queue.pop_front()
        {
            let ticks = (self.work)(&mut self.dice).max(1);
            self.working.push((began, ticks));
        }
    }

    fn end_window(&mut self) {
        if self.now < self.window_ends || self.window.samples < 10 {
            return;
        }
        let mean = (self.window.logs as f64 / f64::from(self.window.samples) / 256.0).exp2() / TICK_MICROS as f64;
        self.limit = self.controller.handle_window(&std::mem::take(&mut self.window), &PARAMS) as usize;
        // As the proxy has it: twice as long as a response takes.
        self.window_ends = self.now + (mean as u64 * 2).clamp(SECOND / 10, 5 * SECOND);
        self.limits = (self.limits.0.min(self.limit), self.limits.1.max(self.limit));
        assert!((3..=1000).contains(&self.limit));
    }
}

/// Ten milliseconds.
fn even(_: &mut Dice) -> u64 {
    50
}

/// Ten milliseconds on average: most take less, a few several times as long.
fn jittery(dice: &mut Dice) -> u64 {
    match dice.roll(20) {
        0 => 100 + dice.roll(300),
        _ => 15 + dice.roll(50),
    }
}

/// Half of them a hundred times as long as the others.
fn of_two_kinds(dice: &mut Dice) -> u64 {
    if dice.roll(2) == 0 { 1 } else { 100 }
}

/// One of a hundred is a long poll.
fn with_long_polls(dice: &mut Dice) -> u64 {
    if dice.roll(100) == 0 { 25_000 } else { 50 }
}

#[test]
fn a_backend_that_is_not_asked_too_much_is_refused_nothing_whatever_its_jitter() {
    for (name, work, capacity, per_second) in [
        ("even", even as fn(&mut Dice) -> u64, 200, 8_000),
        ("jittery", jittery, 200, 8_000),
        ("of two kinds", of_two_kinds, 200, 8_000),
        ("with long polls", with_long_polls, 2_000, 4_000),
    ] {
        let mut backend = Backend::new(capacity, work);
        backend.pass(20, per_second);
        let (done, refused, _, limits) = backend.pass(60, per_second);
        assert_eq!(refused, 0, "{name}: of {done}, {limits:?}");
    }
}

#[test]
fn a_backend_with_little_or_much_to_do_is_refused_next_to_nothing_from_its_first_minute_on() {
    for work in [even as fn(&mut Dice) -> u64, jittery, of_two_kinds] {
        for per_second in [50, 200, 400, 1_000, 2_000, 5_000] {
            let mut backend = Backend::new(200, work);
            let (done, refused, _, limits) = backend.pass(300, per_second);
            assert!(refused * 200 <= done, "{per_second}: {refused} of {done}, {limits:?}");
        }
    }
}

#[test]
fn it_falls_when_half_of_the_capacity_is_gone_and_rises_when_it_is_back() {
    for work in [even as fn(&mut Dice) -> u64, jittery] {
        let mut backend = Backend::new(100, work);
        backend.pass(20, 7_000);
        let (_, refused, fast, whole) = backend.pass(20, 7_000);
        assert_eq!(refused, 0);
        backend.capacity = 50;
        backend.pass(5, 7_000);
        let (done, refused, slow, half) = backend.pass(20, 7_000);
        assert!(half.1 < whole.0, "{half:?} after {whole:?}");
        assert!(refused > 0 && slow < 3 * fast, "{refused} refused, {slow} ticks after {fast}");
        // And nothing that it could have done is refused.
        let most = 50 * 20 * SECOND / 50;
        assert!(done > most * 8 / 10, "{done} of {most}");
        backend.capacity = 100;
        backend.pass(10, 7_000);
        let (_, refused, again, limits) = backend.pass(20, 7_000);
        assert!(refused < 7_000 / 10 && again < fast * 2, "{refused} refused, {again} ticks, {limits:?}");
    }
}

#[test]
fn an_overload_that_lasts_does_not_become_what_is_normal() {
    let mut backend = Backend::new(20, jittery);
    backend.pass(20, 1_000);
    let (_, _, fast, _) = backend.pass(20, 1_000);
    backend.pass(10, 4_000);
    let (_, _, first, early) = backend.pass(30, 4_000);
    backend.pass(240, 4_000);
    let (done, _, last, late) = backend.pass(60, 4_000);
    assert!(first < 2 * fast && last < 2 * fast, "{first} {last} {fast}: {early:?} {late:?}");
    assert!(done > 60 * 20 * SECOND / 50 * 8 / 10, "{done}");
}

#[test]
fn who_begins_in_an_overload_finds_out_what_is_normal() {
    let mut backend = Backend::new(8, jittery);
    backend.pass(60, 4_000);
    let (done, _, ticks, limits) = backend.pass(60, 4_000);
    assert!(ticks < 110, "{ticks} ticks: {limits:?}");
    assert!(done > 60 * 8 * SECOND / 50 * 8 / 10, "{done}");
}

#[test]
fn a_backend_that_has_become_slower_by_itself_gets_as_many_as_it_can_work_on() {
    let mut backend = Backend::new(400, even);
    backend.pass(20, 5_000);
    backend.work = |_| 200;
    backend.pass(30, 5_000);
    let (_, refused, _, limits) = backend.pass(20, 5_000);
    assert_eq!(refused, 0, "{limits:?}");
}

#[test]
fn while_nothing_comes_it_stays_as_it_is() {
    let mut backend = Backend::new(100, even);
    backend.pass(20, 7_000);
    let before = backend.limit;
    backend.pass(600, 0);
    assert_eq!(backend.limit, before);
    assert_eq!(backend.pass(5, 7_000).1, 0);
}

/// Twenty milliseconds, and forty.
fn twenty(_: &mut Dice) -> u64 {
    100
}

fn forty(_: &mut Dice) -> u64 {
    200
}

/// Responses a second where so many are worked on at once.
fn rate(at_once: usize, ticks: u64) -> u64 {
    at_once as u64 * SECOND / ticks
}

#[test]
fn a_population_that_a_backend_can_work_on_is_never_held_back_and_the_limit_stays_near_it() {
    for work in [even as fn(&mut Dice) -> u64, jittery, of_two_kinds] {
        for clients in [1, 5, 19, 40, 90] {
            let mut backend = Backend::new(100, work);
            backend.clients = clients;
            backend.pass(30, 0);
            let (.., limits) = backend.pass(60, 0);
            assert!(limits.1 <= (clients * 9 / 4).max(20), "{clients}: {limits:?}");
            let (outside, all) = (backend.outside, clients as u64 * 60 * SECOND);
            assert!(outside * 100 <= all * 2, "{clients}: {outside} of {all}, {limits:?}");
        }
    }
}

#[test]
fn a_population_that_is_too_much_waits_outside_and_keeps_the_backend_busy() {
    for work in [even as fn(&mut Dice) -> u64, jittery] {
        for (clients, capacity) in [(40, 20), (40, 24), (100, 20), (500, 20), (19, 5), (1_000, 100)] {
            let mut backend = Backend::new(capacity, work);
            backend.clients = clients;
            backend.pass(60, 0);
            let (done, _, _, limits) = backend.pass(60, 0);
            let most = 60 * rate(capacity, 50);
            assert!(limits.1 <= capacity * 5 / 2, "{clients}: {limits:?}");
            assert!(done * 100 >= most * 93, "{clients}: {done} of {most}, {limits:?}");
        }
    }
}

#[test]
fn a_steady_population_is_held_back_within_two_seconds_of_a_fall_in_capacity_and_let_in_again_after() {
    // As many clients as slots, and fewer: there is no queue before, and the limit is well above them.
    for clients in [40, 30] {
        let mut backend = Backend::new(40, twenty);
        backend.clients = clients;
        backend.pass(20, 0);
        let (before, ..) = backend.pass(10, 0);
        backend.capacity = 10;
        backend.pass(2, 0);
        let (done, _, _, limits) = backend.pass(30, 0);
        assert!(limits.1 < clients, "{clients}: {limits:?}");
        assert!(done * 100 >= 30 * rate(10, 100) * 93, "{done} {limits:?}");
        backend.capacity = 40;
        backend.pass(5, 0);
        let (again, ..) = backend.pass(10, 0);
        assert!(again * 100 >= before * 97, "{clients}: {again} after {before}");
    }
}

#[test]
fn a_queue_that_has_been_there_from_the_beginning_is_found_when_the_backend_becomes_slower() {
    // Twenty slots and forty clients; the first responses take longer, as connections are made for them.
    let mut backend = Backend::new(20, |_| 150);
    backend.clients = 40;
    backend.pass(1, 0);
    backend.work = twenty;
    backend.pass(7, 0);
    backend.work = forty;
    backend.pass(3, 0);
    let (.., limits) = backend.pass(3, 0);
    assert!(limits.1 <= 40, "{limits:?}");
    backend.pass(60, 0);
    let (done, _, _, limits) = backend.pass(30, 0);
    assert!(limits.1 < 40, "{limits:?}");
    assert!(done * 100 >= 30 * rate(20, 200) * 93, "{done} {limits:?}");
}

#[test]
fn a_queue_that_creeps_in_behind_a_limit_that_is_not_in_the_way_is_found() {
    let mut backend = Backend::new(100, twenty);
    backend.clients = 60;
    backend.pass(20, 0);
    for capacity in (15..100).rev() {
        backend.capacity = capacity;
        backend.pass(2, 0);
    }
    backend.pass(30, 0);
    let (done, _, _, limits) = backend.pass(20, 0);
    assert!(limits.1 < 45, "{limits:?}");
    assert!(done * 100 >= 20 * rate(15, 100) * 93, "{done} {limits:?}");
}

#[test]
fn a_steady_population_of_a_backend_that_has_become_slower_by_itself_is_let_in_again() {
    let mut backend = Backend::new(100, twenty);
    backend.clients = 40;
    backend.pass(20, 0);
    backend.work = |_| 400;
    backend.pass(40, 0);
    let (done, _, _, limits) = backend.pass(20, 0);
    assert!(done * 100 >= 20 * rate(40, 400) * 97, "{done} {limits:?}");
}

#[test]
fn a_burst_after_little_to_do_finds_the_limit_of_the_burst_before() {
    let mut backend = Backend::new(100, jittery);
    backend.pass(20, 7_000);
    backend.pass(120, 100);
    let (done, refused, ..) = backend.pass(5, 7_000);
    assert!(refused * 100 <= done, "{refused} of {done}");
}

proptest! {
    #[test]
    fn whatever_happens_it_stays_between_its_bounds(
        windows in vec((0..200_u32, 0..40_000_000_u64, 0..200_u32, 0..2_000_u32), 0..300),
        (limit_min, more, tolerance) in (1..50_u32, 0..2_000_u32, 1.0..4.0_f64),
    ) {
        let params = ConcurrencyParams { limit_min, limit_max: limit_min + more, tolerance };
        let mut controller = ConcurrencyController::default();
        for (samples, micros, drops, peak) in windows {
            let logs = u64::from(samples) * u64::from(log_micros(micros));
            let limit = controller.handle_window(&Window { samples, logs, drops, peak, untimed: drops / 2 }, &params);
            prop_assert!((params.limit_min..=params.limit_max).contains(&limit));
            prop_assert_eq!(limit, controller.limit(&params));
        }
    }
}
