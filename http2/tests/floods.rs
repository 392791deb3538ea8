//! What hostile peers send: each flood has its cap and its allowance, costs little, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GO_AWAY, HEADERS, PING, PRIORITY, RESET, frame,
    request_block, settings, window_update,
};
use ringway_http2::{Config, Event, Reason, Role};
use ringway_message::Limits;

fn server() -> End {
    End::started_server(Config::new(Role::Server), &[])
}

/// The connection has ended for that, and the peer was told so.
fn assert_flooded(end: &mut End, name: &str) {
    let error = end.error.expect("an error");
    assert_eq!((error.reason, error.flood), (Reason::EnhanceYourCalm, Some(name)));
    let frames = end.frames();
    assert_eq!(frames.last().unwrap().reason(), Some(Reason::EnhanceYourCalm), "{name}");
    assert!(end.connection.is_over() && end.connection.streams() == 0);
}

fn get(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id, &request_block("GET", "/", &[]))
}

fn post(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id, &request_block("POST", "/", &[]))
}

/// All that is held after a connection is gone or at rest: nothing but what was kept for others.
fn assert_nothing_held(end: &End) {
    let memory = &end.memory;
    assert_eq!((memory.used_bytes(), memory.heads_waiting(), memory.grown_bytes()), (0, 0, 0));
    assert!(memory.kept_bytes() <= 4 << 20, "{}", memory.kept_bytes());
}

#[test]
fn frames_that_mean_nothing_have_a_cap_a_second_each() {
    let reset = frame(RESET, 0, 1, &[0, 0, 0, 8]);
    let cases: [(Vec<u8>, usize, &str); 8] = [
        (reset, 100, "http2_reset_flood"),
        (frame(PING, 0, 0, b"12345678"), 100, "http2_ping_flood"),
        (settings(&[]), 50, "http2_settings_flood"),
        (window_update(0, 1), 100, "http2_window_flood"),
        (frame(DATA, 0, 1, &[]), 100, "http2_empty_data_flood"),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), 2_004, "http2_other_flood"),
        (frame(0xbe, 0, 1, b"what"), 2_004, "http2_other_flood"),
        (frame(PING, ACK, 0, b"12345678"), 2_004, "http2_ping_flood"),
    ];
    for (bytes, most, name) in cases {
        let mut end = server();
        end.give(&post(1));
        for second in 1..4 {
            end.now_millis += 1000;
            // What a new stream allows for has been used up in the first.
            let count = if most > 2_000 && second > 1 { most - 4 } else { most };
            end.give(&bytes.repeat(count));
            assert_eq!(end.error, None, "{name}");
        }
        end.give(&bytes);
        assert_flooded(&mut end, name);
    }
}

#[test]
fn streams_that_are_opened_and_reset_cost_no_more_than_their_frames() {
    let mut end = server();
    let reset = |id| frame(RESET, 0, id, &[0, 0, 0, 8]);
    let pairs: Vec<u8> = (0..100).flat_map(|index| [get(index * 2 + 1), reset(index * 2 + 1)].concat()).collect();
    end.give(&pairs);
    // All of it came at once: nobody hears of any of them.
    assert!(end.events.is_empty(), "{:?}", end.events);
    assert_eq!((end.connection.streams(), end.memory.heads_waiting()), (0, 0));
    end.give(&[get(201), reset(201)].concat());
    assert_flooded(&mut end, "http2_reset_flood");
    assert_nothing_held(&end);
}

#[test]
fn resets_that_the_peer_provokes_have_a_cap_for_ever() {
    // Each in another way: CVE-2025-8671.
    let wrong: [fn(u32) -> Vec<u8>; 6] = [
        |id| [post(id), window_update(id, 0)].concat(),
        |id| [post(id), window_update(id, u32::MAX >> 1)].concat(),
        |id| [get(id), frame(DATA, 0, id, b"late")].concat(),
        |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x82]),
        |id| {
            let block = request_block("POST", "/", &[("content-length", "1")]);
            [frame(HEADERS, END_HEADERS, id, &block), frame(DATA, END_STREAM, id, b"ab")].concat()
        },
        |id| [post(id), frame(PRIORITY, 0, id, &[0, 0, 0])].concat(),
    ];
    let mut end = server();
    for index in 0..500_u32 {
        end.now_millis += 1000;
        end.give(&wrong[index as usize % wrong.len()](index * 2 + 1));
        assert_eq!(end.error, None, "{index}");
        let resets = end.frames();
        assert_eq!(resets.last().map(|frame| (frame.kind, frame.stream)), Some((RESET, index * 2 + 1)));
        for event in std::mem::take(&mut end.events) {
            if let Event::Request { key, .. } = event {
                end.connection.close(key);
            }
        }
    }
    end.give(&wrong[0](1001));
    assert_flooded(&mut end, "http2_malformed_flood");
    assert_nothing_held(&end);
}

#[test]
fn a_block_has_twenty_continuations_and_no_more() {
    let block = request_block("GET", "/", &[("x-long", &"v".repeat(500))]);
    let cut = |pieces: usize| {
        let size = block.len().div_ceil(pieces);
        let mut chunks = block.chunks(size);
        let mut bytes = frame(HEADERS, END_STREAM, 1, chunks.next().unwrap());
        let rest: Vec<&[u8]> = chunks.collect();
        for (index, chunk) in rest.iter().enumerate() {
            let flags = if index + 1 == rest.len() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, 1, chunk));
        }
        (rest.len(), bytes)
    };
    let (count, bytes) = cut(21);
    assert_eq!(count, 20);
    let mut end = server();
    end.give(&bytes);
    assert!(end.request().is_some() && end.error.is_none());
    let mut end = server();
    let (count, bytes) = cut(22);
    assert_eq!(count, 21);
    end.give(&bytes);
    assert_flooded(&mut end, "http2_continuation_flood");
    // Of no bytes at all, and without end.
    let mut end = server();
    end.give(&[frame(HEADERS, 0, 1, &block), frame(CONTINUATION, 0, 1, &[]).repeat(1000)].concat());
    assert_flooded(&mut end, "http2_continuation_flood");
    assert_nothing_held(&end);
}

#[test]
fn a_head_too_long_is_refused_in_peace_and_one_that_is_absurd_is_not() {
    let config = Config { head: Limits { head_bytes_max: 8 * 1024, fields_max: 100 }, ..Config::new(Role::Server) };
    let mut end = End::started_server(config, &[]);
    let send = |length: usize, id| {
        let block = request_block("GET", "/", &[("x-long", &"~".repeat(length))]);
        let mut bytes = Vec::new();
        for (index, chunk) in block.chunks(16_384).enumerate() {
            let last = (index + 1) * 16_384 >= block.len();
            let (kind, flags) = if index == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            bytes.extend(frame(kind, flags | if last { END_HEADERS } else { 0 }, id, chunk));
        }
        bytes
    };
    end.give(&send(12_000, 1));
    assert!(
        matches!(end.events[..], [Event::Request { fault: Some(fault), .. }, _] if fault.is_size()),
        "{:?}",
        end.events
    );
    // The others go on.
    assert!(end.give_request(3, "GET", &[], true).id() == 3 && end.error.is_none());
    end.give(&send(100_000, 5));
    assert_flooded(&mut end, "http2_head_flood");
}

/// A field of 3,900 bytes goes into the table, and is named so often after it, in this form.
fn bomb(form: &[u8], count: usize) -> Vec<u8> {
    let mut block = request_block("GET", "/", &[]);
    block.extend([0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    block.extend([b'y'; 3900]);
    block.extend(form.repeat(count));
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

#[test]
fn a_small_bomb_costs_no_memory_and_is_one_refused_request() {
    let mut end = server();
    end.give(&bomb(&[0xbe], 50));
    assert!(matches!(end.events[0], Event::Request { fault: Some(fault), .. } if fault.is_size()), "{:?}", end.events);
    let key = end.request().unwrap();
    let (head, arena) = end.request_head(key).unwrap();
    assert!(arena.capacity() <= 256 * 1024 && head.fields.capacity() <= 512, "{}", arena.capacity());
    assert!(end.connection.memory_bytes() < 64 * 1024, "{}", end.connection.memory_bytes());
    end.connection.close(key);
    end.take_output();
    // The compression has stayed in step.
    assert_eq!(end.give_request(3, "GET", &[], true).id(), 3);
    end.connection.shrink();
}

#[test]
fn heads_past_the_limit_have_a_cap_for_ever() {
    let config = Config { head: Limits { head_bytes_max: 1024, fields_max: 100 }, ..Config::new(Role::Server) };
    let mut end = End::started_server(config, &[]);
    let long = request_block("GET", "/", &[("x-long", &"~".repeat(2000))]);
    for index in 0..=500_u32 {
        assert_eq!(end.error, None, "{index}");
        end.now_millis += 1000;
        end.give(&frame(HEADERS, END_HEADERS | END_STREAM, index * 2 + 1, &long));
        let key = end.request().expect("a request to be refused");
        end.connection.close(key);
        end.take_output();
    }
    assert_eq!(end.error.unwrap().flood, Some("http2_malformed_flood"));
    assert_nothing_held(&end);
}

#[test]
fn a_large_bomb_ends_its_connection_before_it_costs_anything() {
    // Named whole; and its own name with another value, remembered or not, for a block whose long part is the name.
    for form in [&[0xbe][..], &[0x7e, 0x00], &[0x0f, 0x2f, 0x00]] {
        let mut end = server();
        let mut block = request_block("GET", "/", &[]);
        block.extend([0x40, 0x7f, 0xbd, 0x1d]);
        block.extend([b'y'; 3900]);
        block.push(0);
        block.extend(form.repeat(4000));
        end.give(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        assert_flooded(&mut end, "http2_head_flood");
        assert_nothing_held(&end);
    }
}

#[test]
fn small_data_may_not_pile_up_but_may_be_taken() {
    // Taken as it comes, there may be any number.
    let mut end = server();
    let key = end.give_request(1, "POST", &[], false);
    for _ in 0..40 {
        end.give(&frame(DATA, 0, 1, b"z").repeat(1_000));
        assert_eq!(end.drain(key).len(), 1_000);
        end.take_output();
    }
    assert_eq!(end.error, None);
    // A window full of the smallest messages of gRPC may wait.
    end.give(&frame(DATA, 0, 1, b"\0\0\0\0\0").repeat(13_000));
    assert_eq!(end.error, None);
    // What waits a byte at a time may not, and streams share the cap.
    let other = end.give_request(3, "POST", &[], false);
    end.give(&frame(DATA, 0, 3, b"z").repeat(3_384));
    assert_eq!((end.error, end.connection.data_len(other)), (None, 3_384));
    end.give(&frame(DATA, 0, 3, b"z"));
    assert_flooded(&mut end, "http2_small_data_flood");
    end.connection.close(key);
    end.connection.close(other);
    assert_nothing_held(&end);
}

#[test]
fn a_frame_that_does_not_end_holds_no_more_than_has_come_of_it() {
    let mut end = server();
    let before = end.connection.memory_bytes();
    end.give(&frame(HEADERS, END_HEADERS, 1, &[0; 16_384])[..100]);
    assert!(end.connection.memory_bytes() <= before + 256, "{}", end.connection.memory_bytes());
    assert_nothing_held(&end);
}

#[test]
fn a_receiver_of_data_may_measure_and_open_windows() {
    let mut end = server();
    let key = end.give_request(1, "GET", &[], true);
    end.respond(key, 200, &[], false);
    for _ in 0..200 {
        assert_eq!(end.connection.send_data(key, b"some", false), Ok(4));
        end.give(&[frame(PING, 0, 0, b"12345678"), window_update(0, 4), window_update(1, 4)].concat());
        end.take_output();
    }
    assert_eq!(end.error, None);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_any_further() {
    let mut end = server();
    let mut id = 1;
    let mut given = 0;
    // Requests whose answers are heads only: no window holds them back.
    while end.unread.is_empty() {
        end.now_millis += 1000;
        end.give(&get(id));
        given += 1;
        if let Some(Event::Request { key, .. }) = end.events.first().copied() {
            let long = "v".repeat(1000);
            end.respond(key, 204, &[("x-a", &long)], true);
            end.connection.close(key);
        }
        end.events.clear();
        id += 2;
        assert!(given < 10_000);
    }
    assert!(end.connection.output().len() < 300 * 1024);
    // Once it reads, all goes on.
    end.take_output();
    end.give(&[]);
    assert!(end.unread.is_empty() && end.error.is_none());
}

#[test]
fn answers_that_a_backend_does_not_read_have_an_end() {
    let mut end = End::started_client(Config::new(Role::Client), &[]);
    let key = end.open("POST", &[], false);
    let mut seconds = 0;
    while end.error.is_none() {
        // What it is sent allows for PINGs, and it reads nothing of either.
        let _ = end.connection.send_data(key, b"x", false);
        end.now_millis += 1000;
        end.give(&frame(PING, 0, 0, b"12345678").repeat(90));
        seconds += 1;
        assert!(seconds < 10_000);
    }
    assert_flooded(&mut end, "http2_other_flood");
}

#[test]
fn goaways_and_streams_past_the_limit_have_caps_and_refuse_only_themselves() {
    let config = Config { streams_max: 2, ..Config::new(Role::Server) };
    let mut end = End::started_server(config, &[]);
    end.give(&[post(1), post(3), get(5)].concat());
    let frames = end.frames();
    assert_eq!(
        frames.iter().map(|frame| (frame.stream, frame.reason())).collect::<Vec<_>>(),
        [(5, Some(Reason::RefusedStream))]
    );
    assert_eq!(end.connection.streams(), 2);
    // The compression has stayed in step, and data that was on its way is ignored.
    end.give(&frame(DATA, END_STREAM, 5, b"late"));
    assert_eq!(end.error, None);
    let mut id = 7;
    while end.error.is_none() {
        end.give(&get(id));
        id += 2;
        assert!(id < 10_000);
    }
    assert_flooded(&mut end, "http2_other_flood");
    let mut end = server();
    end.give(&frame(GO_AWAY, 0, 0, &[0; 8]).repeat(3000));
    assert_flooded(&mut end, "http2_other_flood");
}

#[test]
fn settings_that_shrink_everything_to_nothing_only_stop_what_they_stop() {
    let mut end = End::started_server(Config::new(Role::Server), &[(4, 0), (5, 16_384), (6, 0), (1, 0)]);
    let key = end.give_request(1, "GET", &[], true);
    end.respond(key, 200, &[], false);
    assert_eq!(end.connection.send_data(key, b"hello", true), Ok(0));
    end.poll();
    assert!(!end.events.contains(&Event::Writable { key }));
    end.take_output();
    // A byte at a time: each is sent, none is lost.
    for _ in 0..5 {
        end.events.clear();
        end.give(&window_update(1, 1));
        assert_eq!(end.events, [Event::Writable { key }]);
        assert_eq!(end.connection.send_data(key, b"xx", false), Ok(1));
    }
    assert!(end.error.is_none());
    assert_eq!(end.frames().iter().filter(|frame| frame.kind == DATA && frame.payload.len() == 1).count(), 5);
}

#[test]
fn after_each_attack_and_rest_the_connection_is_as_small_as_before() {
    let mut end = server();
    let before = end.connection.memory_bytes();
    let mut id = 1;
    for _ in 0..20 {
        end.now_millis += 10_000;
        let bytes: Vec<u8> = (0..100)
            .flat_map(|_| {
                id += 2;
                [post(id - 2), frame(DATA, 0, id - 2, &[7; 600])].concat()
            })
            .collect();
        end.give(&bytes);
        for event in std::mem::take(&mut end.events) {
            if let Event::Request { key, .. } = event {
                end.connection.close(key);
            }
        }
        end.take_output();
    }
    assert_eq!(end.error, None);
    end.connection.shrink();
    assert!(end.connection.memory_bytes() <= before + 64, "{} {before}", end.connection.memory_bytes());
    assert!(before <= 4 * 1024, "{before}");
    assert_nothing_held(&end);
    drop(end.connection);
    (0..10).for_each(|_| end.memory.trim());
    assert_eq!(end.memory.kept_bytes(), 0);
}
