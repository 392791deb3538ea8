//! Checks, agents and ejections.

use crate::common::*;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

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
fn one_that_asks_for_a_second_each_time_is_ejected_as_one_that_fails() {
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
        assert_eq!(get(listen, "/")?.text(), "ill", "somebody is always asked");
        let withheld = "ringway_health_changes_total{service=\"s\",to=\"ejection_withheld\",";
        let text = get(ringway.admin, "/metrics")?.text();
        text.contains(withheld).then_some(())
    });
    assert_eq!((count("ejected"), count("up"), count("drained")), (1, 1, 8));
}

/// An agent that says what it is told to, and notes when it is asked.
fn agent(says: &Arc<Mutex<String>>) -> Backend {
    let says = Arc::clone(says);
    Backend::custom(move |mut stream, seen| {
        seen.lock().unwrap().push("asked".to_owned());
        let line = says.lock().unwrap().clone();
        let _ = stream.write_all(line.as_bytes());
    })
}

#[test]
fn agent_is_asked_at_its_own_address_and_times_and_no_check_takes_back_what_it_says() {
    let says = Arc::new(Mutex::new("50%\n".to_owned()));
    let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = agent(&says);
    // On an address that the backend does not have.
    let own = Backend::on(listener, {
        let address = inner.address;
        move |mut stream, seen| {
            seen.lock().unwrap().push("asked".to_owned());
            let mut real = std::net::TcpStream::connect(address).unwrap();
            let _ = std::io::copy(&mut real, &mut stream);
        }
    });
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    // One agent speaks for both backends; it is asked ten times as rarely as they are checked.
    let timeout = (500.0 * slowness()) as u64;
    let health = format!(
        "panic_threshold: 0\nhealth: {{ http: {{}}, interval: 50ms, timeout: {timeout}ms, rise: 1, fall: 1, agent: \
         {{ port: {port}, address: \"127.0.0.2\", interval: 500ms, timeout: {timeout}ms }} }}"
    );
    let ringway = Ringway::start(&simple(free_address(), &health, &[("a", a.address), ("b", b.address)]));
    let is = |state: &str| wait_for(state, || (backend_status(&ringway, "a")["state"] == state).then_some(()));
    let checks = || ringway.metric("ringway_checks_total{service=\"s\",result=\"success\"}");
    let some_checks_later = || {
        let before = checks();
        wait_for("more checks", || (checks() > before + 20.0).then_some(()));
    };
    is("degraded");
    some_checks_later();
    assert_eq!(backend_status(&ringway, "a")["checked_weight_percent"], 50, "a good check takes nothing back");
    let (checked, asked) = (checks(), own.requests().len() as f64);
    assert!(checked > asked * 3.0, "{checked} checks, {asked} questions");
    for (line, state, agent) in [
        ("down # disk\n", "down", "down"),
        // What is not said again stays.
        ("ready\n", "down", "down"),
        ("\n", "down", "down"),
        ("up drain\n", "drained", "drain"),
        ("up\n", "drained", "drain"),
        ("ready\n", "degraded", "up"),
        ("100%\n", "up", "up"),
    ] {
        *says.lock().unwrap() = line.to_owned();
        let before = own.requests().len();
        wait_for("questions", || (own.requests().len() > before + 3).then_some(()));
        is(state);
        assert_eq!(backend_status(&ringway, "a")["agent"], agent, "after {line:?}");
    }
    assert!(ringway.metric("ringway_agent_checks_total{service=\"s\",result=\"silent\"}") >= 1.0);
}

/// As many checks at once as one: without a place of their own, four silent backends would hold it for four time-outs between two
/// checks of the one that answers.
#[test]
fn silent_backends_keep_nobody_waiting_for_a_check_but_each_other() {
    let live = Backend::echo("live");
    // They let the kernel accept, and say nothing.
    let silent: Vec<std::net::TcpListener> =
        (0..4).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ids = ["s0", "s1", "s2", "s3"];
    let mut targets: Vec<(&str, SocketAddr)> =
        ids.into_iter().zip(silent.iter().map(|one| one.local_addr().unwrap())).collect();
    targets.push(("live", live.address));
    let timeout = (1_000.0 * slowness()) as u64;
    let health = format!(
        "panic_threshold: 0\nhealth: {{ http: {{}}, interval: 50ms, timeout: {timeout}ms, rise: 1, fall: 1, concurrency: 1 }}"
    );
    let ringway = Ringway::start(&simple(free_address(), &health, &targets));
    let count = |result: &str| ringway.counter(&format!("ringway_checks_total{{service=\"s\",result=\"{result}\"}}"));
    // Each has been silent once.
    wait_for("failures", || (count("failure") >= 4.0).then_some(()));
    let (good, failed) = (count("success"), count("failure"));
    wait_for("checks of the one that answers", || (count("success") >= good + 40.0).then_some(()));
    let failed = count("failure") - failed;
    assert!(failed < 40.0, "{failed} of silent ones meanwhile, which take four times as long each");
    wait_for("late ones", || (ringway.counter("ringway_checks_late_total{service=\"s\"}") >= 2.0).then_some(()));
    assert!(ringway.status()["services"][0]["checks_late_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(ringway.log().matches("checks begin late: 1 are under way").count(), 1, "{}", ringway.log());
}

#[test]
fn checks_show_a_certificate_of_their_own_and_follow_its_files() {
    if require("openssl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for name in ["server", "old", "new", "traffic"] {
        let arguments =
            ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"];
        let subject = format!("/CN={name}");
        let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let leaf = ["-addext", "basicConstraints=critical,CA:false", "-addext", "subjectAltName=DNS:checks.internal"];
        let more = [&[subject.as_str()][..], &leaf, &["-keyout", &key, "-out", &certificate]].concat();
        assert!(output("openssl", &[&arguments[..], &more].concat()).status.success(), "{name}");
    }
    let take = |from: &str, to: &str| {
        std::fs::copy(file(from), file("fresh")).unwrap();
        std::fs::rename(file("fresh"), file(to)).unwrap();
    };
    let port = free_port();
    let serve = |client: &str| {
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-key", &file("server.key"), "-cert", &file("server.pem")])
            .args(["-Verify", "1", "-verify_return_error", "-CAfile", &file(&format!("{client}.pem"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Running(server);
        wait_for("openssl", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        server
    };
    let server = serve("old");
    take("old.pem", "own.pem");
    take("old.key", "own.key");
    // The traffic is plain, or shows another certificate: what checks show is theirs.
    let traffic = Backend::echo("traffic");
    let checks = |shown: &str| {
        let timeout = (500.0 * slowness()) as u64;
        format!(
            "panic_threshold: 0\nhealth: {{ http: {{}}, port: {port}, interval: 100ms, timeout: {timeout}ms, rise: 1, fall: 2, \
             initial: down, tls: {{ sni: checks.internal, ca: \"{}\"{shown} }} }}",
            file("server.pem")
        )
    };
    let shown = format!(", certificate: \"{}\", key: \"{}\"", file("own.pem"), file("own.key"));
    let other = format!("\ntls: {{ certificate: \"{}\", key: \"{}\" }}", file("traffic.pem"), file("traffic.key"));
    let is = |ringway: &Ringway, state: &str| {
        wait_for(state, || (backend_status(ringway, "a")["state"] == state).then_some(()))
    };
    for (service, state) in [
        (checks(&shown), "up"),
        (format!("{}{other}", checks(&shown)), "up"),
        (checks(""), "down"),
        (format!("{}{other}", checks("")), "down"),
    ] {
        let ringway = Ringway::start(&simple(free_address(), &service, &[("a", traffic.address)]));
        is(&ringway, state);
    }
    // Its files are followed as all are, and it is told of where certificates are.
    let ringway = Ringway::start(&simple(free_address(), &checks(&shown), &[("a", traffic.address)]));
    is(&ringway, "up");
    let status = ringway.status();
    let known = status["certificates"].as_array().unwrap();
    assert!(known.iter().any(|one| one["used_by"] == "health" && one["file"] == file("own.pem")), "{known:?}");
    drop(server);
    let _server = serve("new");
    is(&ringway, "down");
    take("new.pem", "own.pem");
    take("new.key", "own.key");
    is(&ringway, "up");
}
