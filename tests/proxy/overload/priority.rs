//! Who is refused first as memory, time, connections or descriptors come to their end: what is of low priority, then what is of default
//! priority, and what is of high priority only with everything.

use super::*;

/// Routes of each priority to one service, and listeners for sessions and flows of a service of low priority.
fn config(overload: &str, http: SocketAddr, raw: SocketAddr, backend: SocketAddr) -> String {
    let route = |name: &str| format!("{{ match: {{ path_prefix: /{name} }}, service: s, priority: {name} }}");
    let routes = format!("routes: [ {}, {}, {{ service: s }} ]", route("low"), route("high"));
    let listeners = format!(
        "{routes} }}, {{ name: raw, protocol: tcp, address: \"{raw}\", service: background }}, {{ name: flows, protocol: udp, \
         address: \"{raw}\", service: background }} ]"
    );
    let text = simple(http, "", &[("a", backend)]).replace("service: s } ]", &listeners);
    format!(
        "overload: {{ {overload}, hold: 100ms }}\n{text}  - {{ name: background, priority: low, backends: [ {{ id: a, address: \
         \"{backend}\" }} ] }}\n"
    )
}

/// Memory: so much of the way from where low priority begins to be refused to where everything is. The way is so long that what the process
/// takes during a test changes the shares a little: it would have to take half as much again.
fn memory(ringway: &Ringway, way: f64) -> String {
    let limit = (resident(ringway) as f64 / (0.01 + 0.99 * way)) as u64;
    format!(
        "memory_max: {limit}, stop_keep_alive: 1%, shed_low_priority: 1%, refuse_requests: 100%, stop_accepting: 100%"
    )
}

/// How many of 200 requests are refused: as many as the share says, which may change meanwhile, give or take six standard deviations.
fn refused_in_part(ringway: &Ringway, http: SocketAddr, path: &str, priority: &str) -> f64 {
    const OF: usize = 200;
    let before = share(ringway, priority);
    let count = refused(http, path, &format!("shed_{priority}_priority"), OF) as f64;
    let (least, most) = (before.min(share(ringway, priority)), before.max(share(ringway, priority)));
    let (least, most) = (OF as f64 * least, OF as f64 * most);
    let chance = 6.0 * (OF as f64 * 0.25).sqrt();
    assert!((least - chance..=most + chance).contains(&count), "{count} of {OF}, by {least} to {most}");
    assert!(count > 0.0 && count < OF as f64, "{count} of {OF}");
    count
}

/// Waits until a share lies between these two.
fn shares(ringway: &Ringway, priority: &str, between: std::ops::Range<f64>) {
    wait_for("the share", || between.contains(&share(ringway, priority)).then_some(()));
}

/// How many of so many requests are refused; those that are not are served.
fn refused(http: SocketAddr, path: &str, reason: &str, of: usize) -> usize {
    (0..of)
        .filter(|_| {
            let answer = wait_for("an answer", || get(http, path));
            match answer.status {
                200 => false,
                _ => {
                    assert_eq!((answer.status, answer.header("x-ringway-reason")), (503, Some(reason)));
                    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
                    true
                }
            }
        })
        .count()
}

fn share(ringway: &Ringway, priority: &str) -> f64 {
    let name = format!("ringway_overload_refused_share{{priority=\"{priority}\"}}");
    // It may change between the two.
    wait_for("metrics and status to say the same", || {
        let share = ringway.metric(&name);
        let said = ringway.status()["overload_refused"][priority].as_f64().unwrap();
        ((said - share).abs() < 0.001).then_some(share)
    })
}

#[test]
fn low_priority_is_refused_first_then_default_and_high_is_served_until_all_is_well_again() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("memory_max: 1024GiB", http, raw, backend.address));
    assert_eq!(get(http, "/low").unwrap().status, 200);
    // A quarter of the way: half of what is low.
    ringway.reconfigure(&config(&memory(&ringway, 0.25), http, raw, backend.address));
    wait_for_stage(&ringway, "shed_low_priority");
    assert_eq!(entered(&ringway, "shed_low_priority"), 1.0);
    assert!(ringway.log().contains("new requests of low priority are refused"), "{}", ringway.log());
    shares(&ringway, "low", 0.4..0.9);
    let count = refused_in_part(&ringway, http, "/low", "low");
    assert_eq!((share(&ringway, "default"), refused(http, "/", "shed_default_priority", 50)), (0.0, 0));
    let counter =
        |reason: &str| ringway.counter(&format!("ringway_proxy_errors_total{{service=\"s\",reason=\"{reason}\"}}"));
    assert_eq!(counter("shed_low_priority"), count);
    // More than half of it: all that is low, some of what is default, nothing that is high.
    ringway.reconfigure(&config(&memory(&ringway, 0.62), http, raw, backend.address));
    wait_for("all that is low", || (share(&ringway, "low") == 1.0).then_some(()));
    assert_eq!(refused(http, "/low", "shed_low_priority", 30), 30);
    assert_eq!(refused(http, "/high", "overloaded", 30), 0);
    shares(&ringway, "default", 0.15..0.8);
    let count = refused_in_part(&ringway, http, "/", "default");
    assert_eq!(counter("shed_default_priority"), count);
    assert_eq!((share(&ringway, "high"), counter("overloaded")), (0.0, 0.0));
    // Sessions and flows of a service of low priority.
    let mut session = send(raw, b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(session.read(&mut [0]), Err(_) | Ok(0)));
    let session = "ringway_proxy_errors_total{service=\"background\",reason=\"shed_low_priority\"}";
    wait_for("a session to be refused", || (ringway.counter(session) == 1.0).then_some(()));
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", raw).unwrap();
    let flow = "ringway_rejected_requests_total{reason=\"shed_low_priority\"}";
    wait_for("a flow to be refused", || (ringway.counter(flow) == 1.0).then_some(()));
    // gRPC is told as by every other refusal.
    if require("curl").is_some() {
        let ask = |path: &str, more: &[&str]| {
            let url = format!("http://{http}{path}");
            let arguments = ["-sS", "-i", "--max-time", "20", "--http2-prior-knowledge", &url];
            String::from_utf8(output("curl", &[&arguments[..], more].concat()).stdout).unwrap()
        };
        let grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", ""];
        let said = ask("/low/Method", &grpc);
        assert!(said.starts_with("HTTP/2 200") && said.contains("grpc-status: 14"), "{said}");
        assert!(said.contains("x-ringway-reason: shed_low_priority"), "{said}");
        assert!(ask("/high/Method", &grpc).contains("x-backend: a"));
        let said = ask("/low", &[]);
        assert!(said.starts_with("HTTP/2 503") && said.contains("retry-after: 1"), "{said}");
        assert!(ask("/high", &[]).starts_with("HTTP/2 200"));
    }
    ringway.reconfigure(&config("memory_max: 1024GiB", http, raw, backend.address));
    wait_for_stage(&ringway, "normal");
    assert_eq!(refused(http, "/low", "shed_low_priority", 20) + refused(http, "/", "shed_default_priority", 20), 0);
    assert_eq!((share(&ringway, "low"), share(&ringway, "default")), (0.0, 0.0));
}

#[test]
fn without_a_threshold_of_its_own_default_priority_is_served_until_everything_is_refused() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let ringway = Ringway::start(&config("memory_max: 1024GiB", http, raw, backend.address));
    // Low priority goes from 51 % to 100 %.
    let limit = resident(&ringway) as f64 / 0.62;
    let section =
        format!("memory_max: {}, stop_keep_alive: 2%, refuse_requests: 100%, stop_accepting: 100%", limit as u64);
    ringway.reconfigure(&config(&section, http, raw, backend.address));
    wait_for_stage(&ringway, "shed_low_priority");
    shares(&ringway, "low", 0.1..0.9);
    refused_in_part(&ringway, http, "/low", "low");
    assert_eq!((share(&ringway, "default"), refused(http, "/", "shed_default_priority", 50)), (0.0, 0));
}

#[test]
fn descriptors_are_saved_for_what_is_not_of_low_priority() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let section = "connections: true, stop_keep_alive: 58%, shed_low_priority: 60%, refuse_requests: 61%";
    let ringway = Ringway::start(&config(section, http, raw, backend.address));
    let pid = Pid::from_raw(i32::try_from(ringway.pid()).unwrap());
    let limit =
        |most: u64| prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: Some(4096) }).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).unwrap().count();
    limit(open as u64 + 12);
    wait_for("all that is low", || (share(&ringway, "low") == 1.0).then_some(()));
    assert_eq!(ringway.status()["overload"], "shed_low_priority");
    assert_eq!(refused(http, "/low", "shed_low_priority", 10), 10);
    assert_eq!(refused(http, "/", "shed_default_priority", 10) + refused(http, "/high", "overloaded", 10), 0);
    limit(4096);
    wait_for_stage(&ringway, "normal");
    assert_eq!(refused(http, "/low", "shed_low_priority", 10), 0);
}

#[test]
fn explain_says_what_priority_a_service_has_and_which_routes_say_otherwise() {
    let backend = Backend::echo("a");
    let (http, raw) = (free_address(), free_address());
    let text = config("enabled: true", http, raw, backend.address);
    let text = text.replace("routes: [", "explain_allow: [ 127.0.0.1 ], routes: [");
    let ringway = Ringway::start(&text);
    let arguments = ["explain", "--config", path_text(&ringway.config), "--service", "s", "--key", "k"];
    let cold = crate::common::ringway(&arguments);
    let expected = "default; low by route 1 of web; high by route 2 of web";
    let said = String::from_utf8_lossy(&cold.stdout).into_owned();
    assert!(said.contains(expected), "{said}{}", String::from_utf8_lossy(&cold.stderr));
    let live = get(ringway.admin, "/explain?service=background&key=k").unwrap().text();
    let live: serde_json::Value = serde_json::from_str(&live).unwrap();
    assert_eq!(live["priority"], serde_json::json!({ "service": "low", "routes": [] }));
    let admin = ringway.admin.to_string();
    let live = crate::common::ringway(&["explain", "--admin", &admin, "--service", "s", "--key", "k"]);
    assert!(String::from_utf8_lossy(&live.stdout).contains(expected), "{live:?}");
    for (path, priority) in [("/low", "low"), ("/high", "high"), ("/", "default")] {
        let answer = get_with(http, path, "x-ringway-explain: 1\r\n").unwrap();
        let said = answer.header("x-ringway-explain").unwrap();
        assert!(said.contains(&format!("priority={priority};")), "{said}");
    }
}
