//! Windows in both directions, as RFC 9113, 5.2 and 6.9 have them; fair turns, and who is not kept waiting by whom.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{
    ACK, DATA, END_HEADERS, END_STREAM, End, Frame, HEADERS, PADDED, RESET, SETTINGS, WINDOW_UPDATE, exchange, frame,
    request_block, settings, window_update,
};
use ringway_http2::{Config, Event, Memory, MemoryLimits, Reason, Role, StreamKey};

const INITIAL_WINDOW: u16 = 4;

fn server(config: Config) -> End {
    End::started_server(config, &[])
}

fn data_sent(frames: &[Frame], stream: u32) -> usize {
    frames.iter().filter(|frame| frame.kind == DATA && frame.stream == stream).map(|frame| frame.payload.len()).sum()
}

fn increments(frames: &[Frame], stream: u32) -> Vec<u32> {
    let of_stream = |frame: &&Frame| frame.kind == WINDOW_UPDATE && frame.stream == stream;
    frames.iter().filter(of_stream).map(Frame::number).collect()
}

/// All but what is larger: windows that the peer might exceed.
fn small(config: Config) -> Config {
    Config { stream_window: 1000, stream_window_max: 1000, connection_window_max: 1 << 20, ..config }
}

#[test]
fn a_window_below_zero_sends_nothing_until_it_is_above() {
    let mut end = End::started_server(Config::new(Role::Server), &[(INITIAL_WINDOW, 100)]);
    let key = end.give_request(1, "GET", &[], true);
    end.respond(key, 200, &[], false);
    assert_eq!(end.connection.send_data(key, &[7; 150], false), Ok(100));
    end.give(&settings(&[(INITIAL_WINDOW, 40)]));
    assert_eq!(end.connection.send_capacity(key), 0);
    // It is at -60 now.
    end.give(&window_update(1, 60));
    assert!(!end.events.contains(&Event::Writable { key }));
    assert_eq!(end.connection.send_data(key, &[7; 50], false), Ok(0));
    end.give(&window_update(1, 3));
    assert!(end.events.contains(&Event::Writable { key }));
    assert_eq!(end.connection.send_data(key, &[7; 50], false), Ok(3));
    end.events.clear();
    end.give(&settings(&[(INITIAL_WINDOW, 200)]));
    assert!(end.events.contains(&Event::Writable { key }));
    assert_eq!(end.connection.send_data(key, &[7; 47], true), Ok(47));
    assert_eq!(data_sent(&end.frames(), 1), 150);
}

#[test]
fn windows_that_overflow_are_errors_of_what_they_belong_to() {
    let most = u32::MAX >> 1;
    let mut end = End::started_server(Config::new(Role::Server), &[(INITIAL_WINDOW, most)]);
    end.give_request(1, "POST", &[], false);
    let other = end.give_request(3, "GET", &[], true);
    end.give(&window_update(1, 1));
    assert_eq!(end.resets(), [(1, Reason::FlowControlError)]);
    end.respond(other, 204, &[], true);
    end.give(&window_update(0, most - 65_535));
    assert_eq!(end.error, None);
    end.give(&window_update(0, 1));
    assert_eq!(end.error.unwrap().reason, Reason::FlowControlError);
    // By SETTINGS it is the connection's.
    let mut end = server(Config::new(Role::Server));
    end.give_request(1, "POST", &[], false);
    end.give(&window_update(1, most - 65_535));
    assert_eq!(end.error, None);
    end.give(&settings(&[(INITIAL_WINDOW, 65_536)]));
    assert_eq!(end.error.unwrap().reason, Reason::FlowControlError);
}

#[test]
fn a_peer_that_sends_more_than_it_may_ends_its_stream_or_its_connection() {
    let mut end = server(small(Config::new(Role::Server)));
    end.give_request(1, "POST", &[], false);
    let other = end.give_request(3, "POST", &[], false);
    end.give(&frame(DATA, 0, 1, &[0; 1000]));
    assert!(end.resets().is_empty());
    end.give(&frame(DATA, 0, 1, &[0; 1]));
    assert_eq!(end.resets(), [(1, Reason::FlowControlError)]);
    end.give(&frame(DATA, 0, 3, &[0; 1000]));
    assert_eq!((end.error, end.connection.data_len(other)), (None, 1000));
    // Padding counts, the whole frame does.
    end.give_request(5, "POST", &[], false);
    end.give(&frame(DATA, PADDED, 5, &[&[255][..], &[0; 1000]].concat()));
    assert_eq!(end.resets().last(), Some(&(5, Reason::FlowControlError)));
    // The connection's: nobody takes anything, and there is no budget to grow out of.
    let memory = Memory::new(MemoryLimits { window_growth_bytes: 0, buffers_kept: 1 });
    let config = Config { connection_window: 65_535, stream_window: 60_000, ..Config::new(Role::Server) };
    let mut end = End::with_memory(config, memory);
    end.give(&[ringway_http2::PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat());
    for id in [1, 3] {
        end.give_request(id, "POST", &[], false);
    }
    (0..4).for_each(|_| end.give(&frame(DATA, 0, 1, &[0; 15_000])));
    end.give(&frame(DATA, 0, 3, &[0; 5_535]));
    assert_eq!(end.error, None);
    end.give(&frame(DATA, 0, 3, &[0; 1]));
    assert_eq!(end.error.unwrap().reason, Reason::FlowControlError);
}

#[test]
fn windows_open_only_for_what_was_taken_and_in_few_steps() {
    let mut end = server(Config { stream_window_max: 65_536, ..Config::new(Role::Server) });
    let key = end.give_request(1, "POST", &[], false);
    (0..4).for_each(|_| end.give(&frame(DATA, 0, 1, &[0; 16_000])));
    assert!(increments(&end.frames(), 1).is_empty());
    end.connection.consume(key, 10_000);
    assert!(end.connection.output().is_empty());
    end.connection.consume(key, 30_000);
    assert_eq!(increments(&end.frames(), 1), [40_000]);
    end.drain(key);
    assert!(end.frames().is_empty());
    // The last of a message opens nothing: nothing more comes.
    end.give(&frame(DATA, END_STREAM, 1, &[0; 16_000]));
    end.drain(key);
    assert!(increments(&end.frames(), 1).is_empty());
}

#[test]
fn padding_and_what_nobody_wants_any_more_goes_back_to_the_windows() {
    let mut end = server(small(Config { connection_window: 65_535, ..Config::new(Role::Server) }));
    let key = end.give_request(1, "POST", &[], false);
    for _ in 0..1000 {
        end.give(&frame(DATA, PADDED, 1, &[&[250][..], b"abcdefghijklmnopq", &[0; 250]].concat()));
        assert_eq!(end.drain(key), b"abcdefghijklmnopq");
        end.take_output();
    }
    // Ours to reset, its to go on for a while.
    end.connection.reset(key, Reason::Cancel);
    end.connection.close(key);
    for _ in 0..1000 {
        end.give(&frame(DATA, 0, 1, &[0; 500]));
        end.take_output();
    }
    assert_eq!(end.error, None);
}

#[test]
fn windows_grow_while_they_are_drained_and_give_all_back() {
    let mut end = server(Config::new(Role::Server));
    let key = end.give_request(1, "POST", &[], false);
    let mut window = 64 * 1024_i64;
    for _ in 0..400 {
        end.give(&frame(DATA, 0, 1, &[0; 16_384]));
        window -= 16_384;
        end.drain(key);
        window += increments(&end.frames(), 1).iter().map(|increment| i64::from(*increment)).sum::<i64>();
    }
    assert!((512 * 1024..=1024 * 1024).contains(&window), "{window}");
    assert!(end.memory.grown_bytes() >= 960 * 1024);
    end.give(&frame(DATA, END_STREAM, 1, &[]));
    end.respond(key, 200, &[], true);
    end.connection.close(key);
    assert_eq!(end.memory.grown_bytes(), 0);
}

#[test]
fn a_larger_window_may_be_used_before_it_is_acknowledged_and_a_smaller_one_need_not() {
    let mut end = End::new(Config { stream_window: 70_000, ..Config::new(Role::Server) });
    end.give(&[ringway_http2::PREFACE, &settings(&[])].concat());
    let key = end.give_request(1, "POST", &[], false);
    (0..5).for_each(|_| end.give(&frame(DATA, 0, 1, &[0; 14_000])));
    assert_eq!((end.error, end.connection.data_len(key)), (None, 70_000));
    let mut end = End::new(small(Config::new(Role::Server)));
    end.give(&[ringway_http2::PREFACE, &settings(&[])].concat());
    let key = end.give_request(1, "POST", &[], false);
    end.give(&frame(DATA, 0, 1, &[0; 10_000]));
    end.give(&frame(SETTINGS, ACK, 0, &[]));
    assert_eq!((end.error, end.connection.data_len(key)), (None, 10_000));
    end.give(&frame(DATA, 0, 1, &[0; 1]));
    assert_eq!(end.resets(), [(1, Reason::FlowControlError)]);
}

#[test]
fn a_long_link_is_filled_after_a_few_turns() {
    for config in [Config::new(Role::Server), spacious()] {
        fill_a_long_link(config);
    }
}

fn fill_a_long_link(config: Config) {
    let (mut client, mut server) = (End::client(), End::new(config));
    exchange(&mut client, &mut server, usize::MAX);
    let key = client.open("POST", &[], false);
    exchange(&mut client, &mut server, usize::MAX);
    let at = server.request().unwrap();
    let (mut left, mut turns) = (20_000_000_usize, 0);
    // A turn is what one end sends before it hears of the other: the time that a byte takes there and back.
    while left > 0 {
        let mut under_way = Vec::new();
        loop {
            left -= client.connection.send_data(key, &vec![7; left.min(100_000)], false).unwrap();
            let bytes = client.take_output();
            if bytes.is_empty() {
                break;
            }
            under_way.extend(bytes);
        }
        server.give(&under_way);
        server.drain(at);
        client.give(&server.take_output());
        turns += 1;
        assert!(turns < 100, "{left} left");
    }
    assert!(turns <= 20 + 8, "{turns} turns");
}

/// A connection whose window holds those of all its streams, and more: no stream keeps another waiting, however many are stalled.
fn spacious() -> Config {
    let window = 100 * 64 * 1024 + 4 * 1024 * 1024;
    Config { connection_window: window, connection_window_max: window, ..Config::new(Role::Server) }
}

#[test]
fn a_hundred_stalled_uploads_hold_little_and_hold_nobody_up() {
    for config in [Config::new(Role::Server), spacious()] {
        stall_a_hundred(config);
    }
}

fn stall_a_hundred(config: Config) {
    let mut end = server(config);
    // A peer that sends what it may, as soon as it may: as it opens one stream after the other.
    let mut initial = 65_536;
    let mut connection = i64::from(config.connection_window);
    let mut held = Vec::new();
    for id in (1..200).step_by(2) {
        let key = end.give_request(id, "POST", &[], false);
        let mut left = initial;
        while left > 0 {
            let count = left.min(16_384);
            assert!(connection >= i64::from(count), "stream {id} is kept waiting");
            end.give(&frame(DATA, 0, id, &vec![0; count as usize]));
            connection -= i64::from(count);
            left -= count;
            for frame in end.frames() {
                match (frame.kind, frame.stream) {
                    (WINDOW_UPDATE, 0) => connection += i64::from(frame.number()),
                    (SETTINGS, _) if frame.flags == 0 => {
                        initial = u32::from_be_bytes(*frame.payload.last_chunk().unwrap());
                        end.give(&crate::common::frame(SETTINGS, ACK, 0, &[]));
                    }
                    _ => {}
                }
            }
        }
        held.push(key);
    }
    assert_eq!((end.error, held.len()), (None, 100));
    assert!(end.memory.used_bytes() <= 100 * 32 * 1024, "{}", end.memory.used_bytes());
    // Gone, and all is given back; the next begin as before.
    held.into_iter().for_each(|key| end.connection.close(key));
    assert_eq!((end.memory.used_bytes(), end.memory.grown_bytes()), (0, 0));
    let announced = end.frames().into_iter().rev().find(|frame| frame.kind == SETTINGS).unwrap();
    assert_eq!(u32::from_be_bytes(*announced.payload.last_chunk().unwrap()), 65_536);
}

/// All of these have more to send than the connection's window lets them.
fn exhaust(end: &mut End, keys: &[StreamKey]) {
    for key in keys {
        end.respond(*key, 200, &[], false);
        end.connection.send_data(*key, &[7; 100_000], false).unwrap();
    }
    loop {
        end.take_output();
        let events = std::mem::take(&mut end.events);
        let called = events.iter().filter_map(|event| match event {
            Event::Writable { key } => Some(*key),
            _ => None,
        });
        let sent: usize = called.map(|key| end.connection.send_data(key, &[7; 100_000], false).unwrap()).sum();
        if sent == 0 {
            break;
        }
    }
    assert!(keys.iter().all(|key| end.connection.send_capacity(*key) == 0));
}

#[test]
fn streams_that_wait_for_the_connections_window_come_in_turn() {
    let mut end = End::started_server(Config::new(Role::Server), &[(INITIAL_WINDOW, 1 << 20)]);
    let keys: Vec<StreamKey> = (0..4).map(|index| end.give_request(index * 2 + 1, "GET", &[], true)).collect();
    exhaust(&mut end, &keys);
    let mut sent = [0; 4];
    for _ in 0..64 {
        end.give(&window_update(0, 16_384));
        for event in std::mem::take(&mut end.events) {
            let Event::Writable { key } = event else { continue };
            let count = end.connection.send_data(key, &[7; 100_000], false).unwrap();
            sent[keys.iter().position(|other| *other == key).unwrap()] += count;
        }
        end.take_output();
    }
    let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
    assert!(most - least <= 2 * 16_384 && *least > 0, "{sent:?}");
    // One that comes later does not pass those that wait.
    let late = end.give_request(9, "GET", &[], true);
    end.respond(late, 200, &[], false);
    assert_eq!(end.connection.send_data(late, b"short", true), Ok(0));
}

#[test]
fn a_stream_that_was_called_and_does_not_come_keeps_no_other_waiting() {
    let mut end = End::started_server(Config::new(Role::Server), &[(INITIAL_WINDOW, 1 << 20)]);
    let keys: Vec<StreamKey> = (0..3).map(|index| end.give_request(index * 2 + 1, "GET", &[], true)).collect();
    exhaust(&mut end, &keys);
    end.give(&window_update(0, 100));
    let called = |end: &mut End| match std::mem::take(&mut end.events)[..] {
        [Event::Writable { key }] => key,
        ref other => panic!("{other:?}"),
    };
    let first = called(&mut end);
    end.connection.close(first);
    end.poll();
    let second = called(&mut end);
    assert_ne!(first, second);
    end.give(&frame(RESET, 0, second.id(), &[0, 0, 0, 8]));
    let events = std::mem::take(&mut end.events);
    assert!(
        matches!(events[..], [Event::Reset { .. }, Event::Writable { key }] if key != first && key != second),
        "{events:?}"
    );
}

#[test]
fn a_stream_without_a_window_keeps_no_other_from_sending() {
    let mut end = End::started_server(Config::new(Role::Server), &[(INITIAL_WINDOW, 10)]);
    let stuck = end.give_request(1, "GET", &[], true);
    let other = end.give_request(3, "GET", &[], true);
    for key in [stuck, other] {
        end.respond(key, 200, &[], false);
    }
    assert_eq!(end.connection.send_data(stuck, &[7; 100], false), Ok(10));
    assert_eq!(end.connection.send_data(other, &[7; 5], true), Ok(5));
}

#[test]
fn a_large_body_goes_through_one_small_output() {
    let (mut client, mut server) = (End::client(), End::server());
    exchange(&mut client, &mut server, usize::MAX);
    let key = client.open("GET", &[], true);
    exchange(&mut client, &mut server, usize::MAX);
    let at = server.request().unwrap();
    server.respond(at, 200, &[], false);
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < body.len() {
        sent += server.connection.send_data(at, &body[sent..], true).unwrap_or(0);
        assert!(server.connection.output().len() <= 66 * 1024);
        exchange(&mut client, &mut server, 10_000);
        got.extend(client.drain(key));
    }
    assert_eq!(client.response(key).unwrap().0, 200);
    assert!(got == body && client.connection.is_ended(key));
}

#[test]
fn blocks_for_small_tables_and_frames_of_any_size_are_taken() {
    // A peer whose frames may be large gets none larger than we like to cut them, in fair turns.
    let mut end = End::started_server(Config::new(Role::Server), &[(5, 1 << 20), (INITIAL_WINDOW, 1 << 20)]);
    let key = end.give_request(1, "GET", &[], true);
    end.respond(key, 200, &[], false);
    assert_eq!(end.connection.send_data(key, &[7; 60_000], true), Ok(60_000));
    assert!(end.frames().iter().all(|frame| frame.payload.len() <= 16_384));
    let block = request_block("GET", "/", &[]);
    end.give(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block));
    assert_eq!(end.error, None);
}

#[test]
fn what_some_streams_hold_leaves_the_rest_of_the_shared_window_to_others() {
    // Both limits of the connection's window alike: it cannot grow out of it.
    let window = 400_000;
    let mut end =
        server(Config { connection_window: window, connection_window_max: window, ..Config::new(Role::Server) });
    // More than half of it lies here and is not taken.
    for id in [1, 3, 5, 7] {
        end.give_request(id, "POST", &[], false);
        (0..6).for_each(|_| end.give(&frame(DATA, 0, id, &[0; 10_000])));
    }
    let key = end.give_request(9, "POST", &[], false);
    let mut shared = 0;
    for _ in 0..100 {
        end.give(&frame(DATA, 0, 9, &[0; 10_000]));
        assert_eq!(end.error, None, "the window is not used up");
        end.drain(key);
        shared += increments(&end.frames(), 0).iter().sum::<u32>();
    }
    assert!(shared >= 1_000_000 - window, "{shared}");
}

#[test]
fn a_connection_at_rest_gives_back_what_only_a_busy_one_needs() {
    for role in [Role::Server, Role::Client] {
        let (mut client, mut server) = (End::client(), End::server());
        exchange(&mut client, &mut server, usize::MAX);
        let fresh = |end: &End| end.connection.memory_bytes();
        let before = if role == Role::Server { fresh(&server) } else { fresh(&client) };
        // As many at once as there may be, with heads that come in pieces; and all of them over.
        let long = "v".repeat(3_000);
        let keys: Vec<StreamKey> = (0..100).map(|_| client.open("GET", &[("x-long", &long)], true)).collect();
        exchange(&mut client, &mut server, 1_000);
        let asked = std::mem::take(&mut server.events);
        let asked = asked.into_iter().filter_map(|event| match event {
            Event::Request { key, .. } => Some(key),
            _ => None,
        });
        for at in asked {
            server.respond(at, 200, &[("x-long", &long)], true);
            server.connection.close(at);
        }
        exchange(&mut client, &mut server, 1_000);
        keys.into_iter().for_each(|key| client.connection.close(key));
        exchange(&mut client, &mut server, 1_000);
        let end = if role == Role::Server { &mut server } else { &mut client };
        let busy = end.connection.memory_bytes();
        end.connection.shrink();
        let after = end.connection.memory_bytes();
        assert!(busy > before + 8 * 1024, "{role:?}: {before}, {busy}");
        assert!(after <= before + 1024, "{role:?}: {before}, {busy}, {after}");
        // And it goes on as before.
        let key = client.open("GET", &[], true);
        exchange(&mut client, &mut server, usize::MAX);
        let at = server.request().unwrap();
        server.respond(at, 204, &[], true);
        exchange(&mut client, &mut server, usize::MAX);
        assert_eq!(client.response(key).unwrap().0, 204);
    }
}

#[test]
fn a_stream_whose_end_has_come_gets_no_window_back_however_much_of_it_is_taken() {
    for ends in [false, true] {
        let mut end = End::started_server(Config::new(Role::Server), &[]);
        let key = end.give_request(1, "POST", &[], false);
        let data = vec![0; 16_000];
        (0..3).for_each(|_| end.give(&frame(DATA, 0, 1, &data)));
        end.give(&frame(DATA, if ends { END_STREAM } else { 0 }, 1, &data));
        end.take_output();
        assert_eq!(end.drain(key).len(), 64_000);
        let frames = end.frames();
        assert_eq!(increments(&frames, 1).is_empty(), ends, "{frames:?}");
    }
}
