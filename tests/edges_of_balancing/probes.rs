//! Checks, agents and ejections.

use crate::common::*;
use serde_json::Value;
use std::net::SocketAddr;

/// Asks until a backend is in a state, and gives what the status says of it then.
fn asked_until(ringway: &Ringway, listen: SocketAddr, id: &str, state: &str) -> Value {
    wait_for(&format!("{id} to be {state}"), || {
        let _ = get(listen, "/");
        Some(backend_status(ringway, id)).filter(|backend| backend["state"] == state)
    })
}

/// What `date` says in so many seconds.
fn date_in(seconds: i64, form: &str) -> String {
    let text = output("date", &["-u", "-d", &format!("{seconds} seconds"), &format!("+{form}")]).stdout;
    String::from_utf8(text).unwrap().trim().to_owned()
}

const IMF_FIXDATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

#[test]
fn retry_after_as_a_date_is_obeyed_by_the_clock_that_wrote_it() {
    let own = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After:";
    for fields in [
        // A clock that is decades behind: 100 s by it.
        format!("{own} Sun, 06 Nov 1994 08:51:17 GMT\r\n"),
        format!("{own} Sunday, 06-Nov-94 08:51:17 GMT\r\n"),
        format!("{own} Sun Nov  6 08:51:17 1994\r\n"),
        // No clock: ours.
        format!("Retry-After: {}\r\n", date_in(130, IMF_FIXDATE)),
        "Retry-After: 100\r\n".to_owned(),
    ] {
        let text = response("429 Too Many Requests", &fields, "busy");
        let (busy, good) = (scripted(move |_| text.clone()), Backend::echo("good"));
        let listen = free_address();
        let service = "balance: { policy: first }\noutlier: { retry_after_max: 4m }\npanic_threshold: 0";
        let ringway = Ringway::start(&simple(listen, service, &[("a", busy.address), ("b", good.address)]));
        let backend = asked_until(&ringway, listen, "a", "ejected");
        assert_eq!(backend["last_change"]["reason"], "retry_after");
        let left = backend["ejected_for_seconds"].as_f64().unwrap();
        assert!((30.0..=131.0).contains(&left), "{left} s after {fields:?}");
    }
}

#[test]
fn retry_after_that_asks_for_nothing_shields_nobody_from_ejection() {
    for (status, wish) in [
        ("503 Service Unavailable", "0".to_owned()),
        ("503 Service Unavailable", "-5".to_owned()),
        ("503 Service Unavailable", "soon".to_owned()),
        ("503 Service Unavailable", date_in(-100, IMF_FIXDATE)),
        ("503 Service Unavailable", "Sun Nov  6 08:49:37 1994".to_owned()),
    ] {
        let text = response(status, &format!("Retry-After: {wish}\r\n"), "busy");
        let (busy, good) = (scripted(move |_| text.clone()), Backend::echo("good"));
        let listen = free_address();
        let service = "balance: { policy: first }\npanic_threshold: 0\n\
                       outlier: { retry_after_max: 4m, consecutive_failures: 3 }";
        let ringway = Ringway::start(&simple(listen, service, &[("a", busy.address), ("b", good.address)]));
        let backend = asked_until(&ringway, listen, "a", "ejected");
        assert_eq!(backend["last_change"]["reason"], "consecutive_failures", "{wish:?}");
    }
}

#[test]
fn one_who_asks_for_a_second_each_time_is_ejected_as_who_fails() {
    let busy = scripted(|_| response("503 Service Unavailable", "Retry-After: 1\r\n", "busy"));
    let good = Backend::echo("good");
    let listen = free_address();
    let service = "balance: { policy: first }\npanic_threshold: 0\n\
                   outlier: { retry_after_max: 10s, consecutive_failures: 2 }";
    let ringway = Ringway::start(&simple(listen, service, &[("a", busy.address), ("b", good.address)]));
    let backend = wait_for("an ejection for its failures", || {
        let _ = get(listen, "/");
        let backend = backend_status(&ringway, "a");
        (backend["last_change"]["reason"] == "consecutive_failures").then_some(backend)
    });
    assert!(backend["ejected_for_seconds"].as_f64().unwrap() > 20.0, "{backend}");
    let metric = "ringway_health_changes_total{service=\"s\",to=\"ejected\",reason=\"retry_after\"}";
    assert!(ringway.metric(metric) >= 1.0, "its wishes were obeyed until then");
}

#[test]
fn ejection_beside_drained_backends_leaves_one_that_takes_traffic() {
    let ill = || scripted(|_| response("500 Internal Server Error", "", "ill"));
    let fleet: Vec<Backend> = (0..10).map(|_| ill()).collect();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let backends: Vec<(&str, SocketAddr)> =
        names.into_iter().zip(fleet.iter().map(|backend| backend.address)).collect();
    let listen = free_address();
    let service = "balance: { policy: round_robin }\npanic_threshold: 0\n\
                   outlier: { max_ejection_percent: 20, consecutive_failures: 2, base_ejection: 4m }";
    let mut config = simple(listen, service, &backends);
    for name in &names[2..] {
        config = config.replace(&format!("id: {name},"), &format!("id: {name}, drain: true,"));
    }
    let ringway = Ringway::start(&config);
    let count = |state: &str| {
        let all = names.iter().filter(|name| backend_status(&ringway, name)["state"] == state);
        all.count()
    };
    wait_for("an ejection, and another that is withheld", || {
        assert_eq!(get(listen, "/").unwrap().text(), "ill", "somebody is always asked");
        let withheld = "ringway_health_changes_total{service=\"s\",to=\"ejection_withheld\",";
        let text = get(ringway.admin, "/metrics").unwrap().text();
        text.contains(withheld).then_some(())
    });
    assert_eq!((count("ejected"), count("up"), count("drained")), (1, 1, 8));
}
