//! Limits of HTTP/2 floods are the configured ones, lower and higher, on a listener's side and on a service's.

use super::*;
use std::net::SocketAddr;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// A stream that is open all the while, and the one whose response shows that the connection serves on.
const OPEN: u32 = 1;
const LAST: u32 = 99_999;

fn head(method: u8) -> Vec<u8> {
    vec![method, 0x86, 0x84, 0x41, 1, b'a']
}

fn get_frame(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(0x82))
}

fn window(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1])
}

/// The next frame: kind, stream, payload.
fn read_frame(from: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload).ok()?;
    Some((head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload))
}

/// A client that has begun.
fn begin(listen: SocketAddr) -> TcpStream {
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
    let mut client = send(listen, &begin);
    let (kind, ..) = read_frame(&mut client).expect("SETTINGS");
    assert_eq!(kind, SETTINGS);
    client
}

/// Sends these frames and a request behind them. `Ok`: that was answered; `Err`: code and text of GOAWAY.
fn play(client: &mut TcpStream, frames: &[u8]) -> Result<(), (u32, String)> {
    // Whoever floods may not be read to the end.
    let _ = client.write_all(frames).and_then(|()| client.write_all(&get_frame(LAST)));
    loop {
        match read_frame(client).expect("a response or GOAWAY") {
            (HEADERS, LAST, payload) => {
                assert!(payload.contains(&0x88), "status 200: {payload:?}");
                return Ok(());
            }
            (GOAWAY, _, payload) => {
                let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                return Err((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
            _ => {}
        }
    }
}

fn streams(count: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (1..=count).flat_map(|index| each(OPEN + index * 2)).collect()
}

/// Makes frames, of a number or of a stream's id.
type Frames = fn(u32) -> Vec<u8>;

/// A flood: its name, how often on the low listener, how often on the high one, and the frames.
type Flood = (&'static str, u32, u32, Frames);

/// Twice the limit and two, since a second may end in between; on the high listener more than the default lets pass.
const FLOODS: [Flood; 7] = [
    ("reset", 22, 10_200, |count| {
        streams(count, |id| [get_frame(id), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat())
    }),
    ("malformed", 11, 600, |count| streams(count, |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x82]))),
    ("ping", 22, 1_500, |count| frame(PING, 0, 0, &[0; 8]).repeat(count as usize)),
    ("window", 22, 1_500, |count| window(0).repeat(count as usize)),
    // Twenty times as many, and four that the stream allows for.
    ("window", 444, 9_000, |count| window(OPEN).repeat(count as usize)),
    ("empty_data", 22, 1_500, |count| frame(DATA, 0, OPEN, &[]).repeat(count as usize)),
    ("continuation", 3, 60, |count| {
        let begun = [head(0x82), vec![0x00, 1, b'x', 100]].concat();
        let more: Vec<u8> = (1..count).flat_map(|_| frame(CONTINUATION, 0, OPEN + 2, b"y")).collect();
        let end = frame(CONTINUATION, END_HEADERS, OPEN + 2, &vec![b'y'; 101 - count as usize]);
        [frame(HEADERS, END_STREAM, OPEN + 2, &begun), more, end].concat()
    }),
];

const LOW: &str = "resets_max: 10, malformed_total_max: 10, pings_max: 10, window_updates_max: 10, empty_data_max: 10, \
                   continuations_max: 2";
const TOTAL: &str = "resets_max: 1000000, resets_total_max: 10";
const HIGH: &str = "resets_max: 1000000, resets_total_max: 0, malformed_total_max: 0, pings_max: 100000, \
                    window_updates_max: 100000, empty_data_max: 100000, continuations_max: 100";

#[test]
fn each_limit_of_a_listener_is_the_configured_one_lower_and_higher() {
    let backend = Backend::echo("a");
    let [low, total, high] = [(); 3].map(|()| free_address());
    let listener = |name: &str, address: SocketAddr, flood: &str| {
        format!("  - {{ name: {name}, address: \"{address}\", service: s, h2: {{ flood: {{ {flood} }} }} }}\n")
    };
    let listeners = listener("low", low, LOW) + &listener("total", total, TOTAL) + &listener("high", high, HIGH);
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let rejected =
        |flood: &str| ringway.counter(&format!("ringway_rejected_requests_total{{reason=\"http2_{flood}_flood\"}}"));
    let open = frame(HEADERS, END_HEADERS, OPEN, &head(0x83));
    let mut bystander = begin(low);
    for (name, few, many, frames) in FLOODS {
        let before = rejected(name);
        let goaway = (ENHANCE_YOUR_CALM, format!("http2_{name}_flood"));
        assert_eq!(play(&mut begin(low), &[&open[..], &frames(few)].concat()), Err(goaway), "{name}");
        assert_eq!(play(&mut begin(high), &[&open[..], &frames(many)].concat()), Ok(()), "{name}");
        wait_for("the flood to be counted", || (rejected(name) - before == 1.0).then_some(()));
    }
    let (_, few, _, resets) = FLOODS[0];
    assert_eq!(play(&mut begin(total), &resets(few)), Err((ENHANCE_YOUR_CALM, "http2_reset_flood".to_owned())));
    assert_eq!(play(&mut bystander, &[]), Ok(()), "others notice nothing");
}

#[test]
fn whoever_gives_up_all_open_streams_at_once_is_not_cut_off() {
    let backend = Backend::echo("a");
    let [usual, more] = [(); 2].map(|()| free_address());
    let listeners = format!(
        "  - {{ name: usual, address: \"{usual}\", service: s }}\n  - {{ name: more, address: \"{more}\", service: s, h2: {{ streams_max: \
         300 }} }}\n"
    );
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    for (listen, open) in [(usual, 128), (more, 300)] {
        // Their bodies are still to come.
        let begun = streams(open, |id| frame(HEADERS, END_HEADERS, id, &head(0x83)));
        let given_up = streams(open, |id| frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
        assert_eq!(play(&mut begin(listen), &[begun, given_up].concat()), Ok(()), "{open}");
    }
}

#[test]
fn other_limits_hold_for_connections_that_begin_after_the_reload() {
    let backend = Backend::echo("a");
    let listen = free_address();
    let text = |h2: &str| {
        let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s{h2} }}\n");
        config(&listeners, &service("s", "", &[("a", backend.address)]))
    };
    let ringway = Ringway::start(&text(""));
    let mut before = begin(listen);
    ringway.reconfigure(&text(", h2: { flood: { pings_max: 10 } }"));
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(22);
    let goaway = (ENHANCE_YOUR_CALM, "http2_ping_flood".to_owned());
    // Workers hear of it in their own time.
    wait_for("the new limit", || (play(&mut begin(listen), &pings) == Err(goaway.clone())).then_some(()));
    assert_eq!(play(&mut before, &pings), Ok(()));
}

/// A backend that sends so many of these frames in the middle of each response; counts the connections that are ended for it.
fn flooding(count: usize, each: Frames) -> (Backend, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let calmed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&calmed);
    let backend = Backend::custom(move |mut stream, _| {
        let _ = stream.read_exact(&mut [0; 24]).and_then(|()| stream.write_all(&frame(SETTINGS, 0, 0, &[])));
        while let Some((kind, id, payload)) = read_frame(&mut stream) {
            if kind == HEADERS {
                let (head, end) = (frame(HEADERS, END_HEADERS, id, &[0x88]), frame(DATA, END_STREAM, id, &[]));
                let _ = stream.write_all(&[head, each(id).repeat(count), end].concat());
            }
            if kind == GOAWAY && payload[7] == 11 {
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    (backend, calmed)
}

#[test]
fn a_services_limits_are_the_configured_ones_lower_and_higher() {
    let floods: [(&str, &str, Frames); 3] = [
        ("ping", "pings_max", |_| frame(PING, 0, 0, &[0; 8])),
        ("window", "window_updates_max", |_| window(0)),
        ("empty_data", "empty_data_max", |id| frame(DATA, 0, id, &[])),
    ];
    for (name, field, each) in floods {
        let ((few, calmed), (many, others)) = (flooding(50, each), flooding(5_000, each));
        let [low, usual, high] = [(); 3].map(|()| free_address());
        let listeners: String = [("low", low), ("usual", usual), ("high", high)]
            .map(|(name, address)| format!("  - {{ name: {name}, address: \"{address}\", service: {name} }}\n"))
            .concat();
        let with = |name: &str, most: &str, address: SocketAddr| {
            let more = format!("protocol: h2, retry: {{ attempts: 0 }}, http2: {{ flood: {{ {most} }} }},");
            service(name, &more, &[("a", address)])
        };
        let services = with("low", &format!("{field}: 20"), few.address)
            + &with("usual", "", few.address)
            + &with("high", &format!("{field}: 100000"), many.address);
        let ringway = Ringway::start(&config(&listeners, &services));
        assert_eq!(get(usual, "/").unwrap().status, 200, "{name}");
        assert_eq!(get(high, "/").unwrap().status, 200, "{name}");
        // The response has begun: it may be replaced, or cut off.
        let cut = raw(low, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(!cut.starts_with("HTTP/1.1 200") || !cut.ends_with("0\r\n\r\n"), "{name}: {cut}");
        let reason = format!("ringway_rejected_requests_total{{reason=\"http2_{name}_flood\"}}");
        wait_for("the flood to be counted", || (ringway.counter(&reason) == 1.0).then_some(()));
        let calmed = || calmed.load(std::sync::atomic::Ordering::SeqCst);
        wait_for("GOAWAY", || (calmed() == 1).then_some(()));
        assert_eq!(others.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}
