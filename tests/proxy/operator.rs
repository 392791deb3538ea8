//! What operators do to a running proxy: deploys, certificates, log rotation, signals, mistakes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// A certificate of its own, valid from so many days from now to so many, and its key.
fn certificate(directory: &Path, name: &str, days: (i64, i64)) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
    let from_now = |days: i64| {
        let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let span = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    (params.not_before, params.not_after) = (from_now(days.0), from_now(days.1));
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let path = |end: &str| path_text(&directory.join(format!("{name}.{end}"))).to_owned();
    std::fs::write(path("pem"), made.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    (path("pem"), path("key"))
}

fn tls(config: &str, (certificate, key): &(String, String)) -> String {
    let section =
        format!("service: s, tls: {{ certificates: [ {{ certificate: \"{certificate}\", key: \"{key}\" }} ] }} }}");
    config.replace("service: s }", &section)
}

fn reloads(ringway: &Ringway, result: &str) -> f64 {
    ringway.metric(&format!("ringway_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn a_deploy_that_removes_a_certificate_from_file_and_disk_is_followed() {
    let files = tempfile::tempdir().unwrap();
    let pair = certificate(files.path(), "leaving", (-1, 30));
    let fleet = echoes(2);
    let listen = free_address();
    let config = |count: usize| simple(listen, "", &targets(&fleet)[..count]);
    let ringway = Ringway::start(&tls(&config(1), &pair));
    std::fs::remove_file(&pair.0).unwrap();
    std::fs::remove_file(&pair.1).unwrap();
    // Perhaps the loss is seen before the new file is: what is in force goes on serving.
    ringway.reconfigure(&config(2));
    assert!(get(listen, "/").is_some(), "plain from now on");
    assert_eq!(ringway.status()["services"][0]["backends"].as_array().unwrap().len(), 2);
    // The file itself may be away for a while.
    std::fs::remove_file(&ringway.config).unwrap();
    ringway.reconfigure(&config(1));
}

#[test]
fn a_change_that_is_refused_forgets_no_rate_limit() {
    let fleet = echoes(1);
    let (listen, taken) = (free_address(), TcpListener::bind("127.0.0.1:0").unwrap());
    let config = |requests: u32, more: &str| {
        let limit = format!("rate_limit: {{ requests: {requests}, per: 24h, burst: 1 }}");
        simple(listen, &limit, &targets(&fleet)).replace("listeners: [", &format!("{more}\nlisteners: ["))
    };
    let ringway = Ringway::start(&config(1, ""));
    let status = || get(listen, "/").unwrap().status;
    assert_eq!((status(), status()), (200, 429));
    let impossible = config(2, "").replace(
        "listeners: [",
        &format!("listeners: [ {{ name: more, address: \"{}\", service: s }},", taken.local_addr().unwrap()),
    );
    ringway.write_config(&impossible);
    wait_for("the refusal", || (ringway.status()["last_reload"]["result"] == "refused").then_some(()));
    assert_eq!(status(), 429);
    ringway.reconfigure(&config(1, "drain_timeout: 17s"));
    assert_eq!(status(), 429, "what was refused has left nothing behind");
}

#[test]
fn a_rate_limit_that_is_changed_knows_what_was_used_before_and_other_keys_begin_anew() {
    let fleet = echoes(1);
    let listen = free_address();
    let config = |requests: u32, more: &str| {
        let limit = format!("rate_limit: {{ requests: {requests}, per: 24h{more} }}");
        simple(listen, &limit, &targets(&fleet))
    };
    let ringway = Ringway::start(&config(10, ""));
    let admitted = |asked: u32| (0..asked).filter(|_| get(listen, "/").unwrap().status == 200).count();
    assert_eq!(admitted(6), 6);
    ringway.reconfigure(&config(8, ""));
    assert_eq!(admitted(12), 2, "six of eight had been used");
    for tighter in [7, 6] {
        ringway.reconfigure(&config(tighter, ""));
        assert_eq!(admitted(3), 0, "{tighter}");
    }
    ringway.reconfigure(&config(9, ", keys_max: 256"));
    assert_eq!(admitted(12), 3, "a looser limit is in force at once, less what was used of the one before");
    ringway.reconfigure(&config(9, ", key: [ { host: {} } ]"));
    assert_eq!(admitted(12), 9, "nothing is known of other keys");
}

#[test]
fn the_last_change_stays_in_the_status_and_drains_move_keys() {
    let fleet = echoes(4);
    let listen = free_address();
    let service = "balance: { hash_key: [ { header: x-key } ] }";
    let config = simple(listen, service, &targets(&fleet));
    let ringway = Ringway::start(&config);
    let address = format!("\"{}\" }}", fleet[1].1.address);
    ringway.reconfigure(&config.replace(&address, &address.replace(" }", ", drain: true }")));
    let moved = ringway.metric("ringway_keys_moved_ratio{service=\"s\"}");
    assert!((0.1..0.5).contains(&moved), "a drain of one of four moves its keys: {moved}");
    let change = ringway.status()["last_reload"].clone();
    assert_eq!(change["result"], "applied");
    assert!(change["moved"][0]["percent"].as_f64().unwrap() > 10.0, "{change}");
    // Nothing has changed since, whoever asks: by a signal, by the admin listener.
    let before = reloads(&ringway, "unchanged");
    ringway.signal("HUP");
    wait_for("a reload without a change", || (reloads(&ringway, "unchanged") > before).then_some(()));
    assert_eq!(ringway.status()["last_reload"], change);
    // What was wrong and is no more is a change.
    ringway.write_config("nonsense: 1");
    wait_for("the refusal", || (ringway.status()["last_reload"]["result"] == "refused").then_some(()));
    ringway.write_config(&config.replace(&address, &address.replace(" }", ", drain: true }")));
    wait_for("the end of it", || (ringway.status()["last_reload"]["result"] == "unchanged").then_some(()));
}

fn logged(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Traffic until the log says so.
fn until(listen: SocketAddr, what: &str, condition: impl Fn() -> bool) {
    wait_for(what, || {
        get(listen, "/")?;
        condition().then_some(())
    });
}

#[test]
fn the_access_log_follows_a_rotation_that_creates_the_new_file() {
    let fleet = echoes(1);
    let (listen, directory) = (free_address(), tempfile::tempdir().unwrap());
    let (log, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let config = simple(listen, "", &targets(&fleet));
    let config = format!("access_log: {{ format: json, target: \"{}\" }}\n{config}", log.display());
    let mut ringway = Ringway::start(&config);
    for (round, signal) in [None, Some("USR1"), Some("HUP"), None].into_iter().enumerate() {
        until(listen, "a line", || !logged(&log).is_empty());
        std::fs::rename(&log, &old).unwrap();
        std::fs::write(&log, "").unwrap();
        if let Some(signal) = signal {
            ringway.signal(signal);
        }
        until(listen, "a line in the new file", || !logged(&log).is_empty());
        let kept = logged(&old).len();
        until(listen, "another", || logged(&log).lines().count() > 2);
        assert_eq!(logged(&old).len(), kept, "round {round}: the old file is left alone");
    }
    // Even where nothing is written, the old file is let go of.
    std::fs::rename(&log, &old).unwrap();
    wait_for("a new file", || log.exists().then_some(()));
    assert!(ringway.is_running());
}

#[test]
fn a_log_that_cannot_grow_loses_whole_lines_counts_them_and_says_so() {
    let Some(()) = require("prlimit") else { return };
    let fleet = echoes(1);
    let (listen, directory) = (free_address(), tempfile::tempdir().unwrap());
    let log = directory.path().join("access.log");
    let config = simple(listen, "", &targets(&fleet));
    let config = format!("access_log: {{ format: json, target: \"{}\" }}\n{config}", log.display());
    let ringway = Ringway::start(&config);
    let limit = |bytes: &str| {
        let pid = ringway.pid().to_string();
        let done = output("prlimit", &["--pid", &pid, &format!("--fsize={bytes}:unlimited")]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let lost = || ringway.metric("ringway_access_log_lost_total");
    until(listen, "a line", || !logged(&log).is_empty());
    // The process's own log is longer than that: it has to do without for a while.
    let most = logged(&log).len() + 4001;
    limit(&most.to_string());
    until(listen, "lost lines", || lost() >= 3.0);
    assert_eq!(logged(&log).len(), most, "what fits is written");
    limit("unlimited");
    let before = lost();
    until(listen, "lines again", || logged(&log).len() > most + 2000);
    assert_eq!(lost(), before);
    for line in logged(&log).lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "cut: {line}");
    }
    until(listen, "word of it", || ringway.log().contains("the access log cannot be written"));
    let told = ringway.log().matches("the access log cannot be written").count();
    assert!(told <= 10, "said {told} times");
    // A disk that takes nothing at all.
    ringway.reconfigure(&config.replace(path_text(&log), "/dev/full"));
    let before = lost();
    until(listen, "lines that go nowhere", || lost() > before + 3.0);
}

#[test]
fn signals_that_mean_nothing_here_end_nothing() {
    let fleet = echoes(1);
    let listen = free_address();
    let mut ringway = Ringway::start(&simple(listen, "", &targets(&fleet)));
    for name in ["USR1", "USR2", "PIPE", "HUP", "USR2"] {
        ringway.signal(name);
    }
    wait_for("a word on it", || ringway.log().contains("SIGUSR2 is ignored").then_some(()));
    assert!(ringway.is_running() && get(listen, "/").is_some());
    ringway.signal("TERM");
    assert_eq!(ringway.wait(), 0);
}

/// The only finding of `ringway check`, as JSON.
fn checked(file: &Path, flags: &[&str]) -> (i32, Vec<serde_json::Value>) {
    let done = ringway(&[&["check", "--json", path_text(file)][..], flags].concat());
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let list = |name: &str| value[name].as_array().unwrap().clone();
    (done.status.code().unwrap(), [list("errors"), list("warnings")].concat())
}

fn not_after(ringway: &Ringway, used_by: &str, name: &str, file: &str) -> f64 {
    let labels = format!("{{used_by=\"{used_by}\",name=\"{name}\",file=\"{file}\"}}");
    ringway.metric(&format!("ringway_certificate_not_after_seconds{labels}"))
}

#[test]
fn an_expired_certificate_is_warned_of_and_blocks_nothing() {
    let files = tempfile::tempdir().unwrap();
    let [old, early, soon, good] = [("old", (-9, -2)), ("early", (2, 9)), ("soon", (-2, 9)), ("good", (-2, 99))]
        .map(|(name, days)| certificate(files.path(), name, days));
    let fleet = echoes(1);
    let (listen, plain) = (free_address(), free_address());
    let config = |pair: &(String, String)| {
        let more = format!("}}, {{ name: plain, address: \"{plain}\", service: s }} ]");
        tls(&simple(listen, "", &targets(&fleet)), pair).replacen("} ]\n", &format!("{more}\n"), 1)
    };
    // A start is none of a certificate's business.
    let ringway = Ringway::start(&config(&old));
    assert!(get(plain, "/").is_some());
    assert!(ringway.log().contains("certificate_expired"), "{}", ringway.log());
    let state = || ringway.status()["certificates"][0]["state"].clone();
    assert_eq!(state(), "expired");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(not_after(&ringway, "listener", "web", &old.0) < now);
    // Nor is a reload.
    for (pair, word, code) in [
        (&early, "not_yet_valid", Some("certificate_not_yet_valid")),
        (&soon, "ends_soon", Some("certificate_ends_soon")),
        (&old, "expired", Some("certificate_expired")),
        (&good, "valid", None),
    ] {
        ringway.reconfigure(&config(pair));
        assert_eq!(state(), word);
        let (exit, found) = checked(&ringway.config, &[]);
        assert_eq!(exit, 0, "{found:?}");
        let codes: Vec<_> = found.iter().map(|finding| finding["code"].as_str().unwrap()).collect();
        assert_eq!(codes, Vec::from_iter(code));
        assert!(found.iter().all(|finding| finding["line"] == 3 && finding["help"].is_string()), "{found:?}");
    }
    assert!(not_after(&ringway, "listener", "web", &good.0) > now);
}

#[test]
fn check_reads_what_run_will_need_and_names_the_field() {
    let files = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| certificate(files.path(), name, (-2, 99)));
    let path = |name: &str| path_text(&files.path().join(name)).to_owned();
    std::fs::write(path("empty"), " \n").unwrap();
    std::fs::write(path("junk"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let file = files.path().join("ringway.yaml");
    let base = |more: &str, listener: &str, service: &str| {
        format!(
            "{more}\nlisteners: [ {{ name: web, address: \"127.0.0.1:8080\", service: s{listener} }} ]\n\
             services: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:1\" }} ]{service} }} ]\n"
        )
    };
    let pair = |certificate: &str, key: &str| {
        format!(", tls: {{ certificates: [ {{ certificate: \"{certificate}\", key: \"{key}\" }} ] }}")
    };
    let gone = path("gone");
    let with = |extra: String| pair(&one.0, &one.1).replace(" } ] }", &extra);
    let upstream = |text: String| format!(", tls: {{ {text} }}");
    for (code, line, column, text) in [
        ("key_mismatch", 2, 1, base("", &pair(&one.0, &other.1), "")),
        ("unreadable_certificate", 2, 0, base("", &pair(&gone, &one.1), "")),
        ("unreadable_certificate", 2, 0, base("", &pair(&path("junk"), &one.1), "")),
        ("unreadable_key", 2, 0, base("", &pair(&one.0, &gone), "")),
        ("unreadable_key", 2, 0, base("", &pair(&one.0, &path("empty")), "")),
        ("unreadable_ocsp", 2, 0, base("", &with(format!(", ocsp: \"{gone}\" }} ] }}")), "")),
        ("unreadable_ocsp", 2, 0, base("", &with(format!(", ocsp: \"{}\" }} ] }}", path("nothing"))), "")),
        ("unreadable_certificate", 2, 0, base("", &with(format!(" }} ], client: {{ ca: \"{gone}\" }} }}")), "")),
        ("unreadable_certificate", 3, 0, base("", "", &upstream(format!("ca: \"{}\"", path("empty"))))),
        ("key_mismatch", 3, 0, base("", "", &upstream(format!("certificate: \"{}\", key: \"{}\"", one.0, other.1)))),
        (
            "unreadable_certificate",
            3,
            0,
            base("", "", &format!(", health: {{ tcp: {{}}, tls: {{ ca: \"{gone}\" }} }}")),
        ),
        ("unwritable_log", 1, 0, base(&format!("access_log: {{ format: json, target: \"{gone}/log\" }}"), "", "")),
        ("unwritable_log", 1, 0, base(&format!("access_log: {{ format: json, target: \"{}\" }}", path("")), "", "")),
        ("unreadable_file", 1, 0, base(&format!("control: {{ token_file: \"{gone}\" }}"), "", "")),
        ("empty_secret", 1, 0, base(&format!("control: {{ token_file: \"{}\" }}", path("empty")), "", "")),
        (
            "key_mismatch",
            1,
            0,
            base(&format!("control: {{ tls: {{ certificate: \"{}\", key: \"{}\" }} }}", one.0, other.1), "", ""),
        ),
        ("unreadable_file", 2, 0, base("", &format!(", errors: [ {{ status: [ \"502\" ], file: \"{gone}\" }} ]"), "")),
        ("bad_shadow", 1, 0, base(&format!("shadow: \"{gone}\""), "", "")),
    ] {
        std::fs::write(path("nothing"), "").unwrap();
        std::fs::write(&file, &text).unwrap();
        let (exit, found) = checked(&file, &[]);
        assert_eq!((exit, found.len()), (1, 1), "{code}: {found:?}\n{text}");
        assert_eq!((&found[0]["code"], &found[0]["line"]), (&code.into(), &line.into()), "{found:?}");
        assert!(found[0]["column"].as_u64().unwrap() > 1 && found[0]["help"].is_string(), "{found:?}");
        if column > 0 {
            let named = text.lines().nth(line - 1).unwrap().find(&format!("\"{}\"", other.1)).unwrap() + column;
            assert_eq!(found[0]["column"], named, "{found:?}");
        }
        assert_eq!(checked(&file, &["--no-files"]), (0, Vec::new()), "{text}");
    }
    // Nothing is made by looking.
    let log = path("new.log");
    std::fs::write(
        &file,
        base(&format!("access_log: {{ format: json, target: \"{log}\" }}"), &pair(&one.0, &one.1), ""),
    )
    .unwrap();
    assert_eq!(checked(&file, &[]), (0, Vec::new()));
    assert!(!Path::new(&log).exists());
}

#[test]
fn what_keeps_a_proxy_from_starting_is_said_once_with_place_and_remedy() {
    let files = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| certificate(files.path(), name, (-2, 99)));
    let file = files.path().join("ringway.yaml");
    let fleet = echoes(1);
    let said = |text: &str| {
        std::fs::write(&file, text.replace("ADMIN", &free_address().to_string())).unwrap();
        let done = ringway(&["run", "--config", path_text(&file)]);
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    let text = said(&tls(&simple(free_address(), "", &targets(&fleet)), &(one.0, other.1)));
    assert!(text.contains("error[key_mismatch]") && text.contains("ringway.yaml:3:"), "{text}");
    assert_eq!(text.matches("does not belong").count(), 1, "{text}");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let text = said(&simple(taken, "", &targets(&fleet)));
    assert_eq!(text.matches("in use").count(), 1, "{text}");
    assert!(text.contains(&format!("sport = :{}", taken.port())), "{text}");
    drop(holder);
    let text = said(&simple("192.0.2.7:8080".parse().unwrap(), "", &targets(&fleet)));
    assert!(text.contains("this host has no such address") && text.contains("ringway.yaml:3:"), "{text}");
}

#[test]
fn pages_of_others_in_a_browser_change_nothing_and_read_nothing() {
    let fleet = echoes(1);
    let config = simple(free_address(), "", &targets(&fleet));
    let ringway = Ringway::start(&config);
    let ask = |method: &str, path: &str, fields: &str| {
        let bytes = format!("{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        read_answer(&mut send(ringway.admin, bytes.as_bytes()), true).unwrap().status
    };
    let own = format!("Host: {}\r\n", ringway.admin);
    for (status, fields) in [
        (200, own.clone()),
        (200, format!("{own}Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", ringway.admin)),
        (200, "Host: localhost:9\r\n".to_owned()),
        (403, format!("{own}Origin: http://evil.test\r\n")),
        (403, format!("{own}Origin: null\r\n")),
        (403, format!("{own}Sec-Fetch-Site: cross-site\r\n")),
        (403, "Host: evil.test\r\n".to_owned()),
        (403, "Host: evil.test\r\nOrigin: http://evil.test\r\n".to_owned()),
        (403, "Host: evil\r\n".to_owned()),
        (400, String::new()),
        (400, format!("{own}{own}")),
    ] {
        assert_eq!(ask("POST", "/reload", &fields), status, "{fields}");
    }
    for path in ["/status", "/metrics", "/explain?service=s&key=k"] {
        assert_eq!(ask("GET", path, "Host: evil.test\r\n"), 403, "{path}");
        assert_eq!(ask("GET", path, &own), 200, "{path}");
        assert_eq!(ask("GET", path, ""), 400, "{path}");
    }
    // Whoever checks whether it is up may leave it out, and HTTP/1.0 has none.
    assert_eq!([ask("GET", "/healthz", ""), ask("GET", "/readyz", "")], [200, 200]);
    let old = b"GET /status HTTP/1.0\r\n\r\n";
    assert_eq!(read_answer(&mut send(ringway.admin, old), true).unwrap().status, 200);
    // A name of one's own is said in the file, and holds from then on.
    ringway.reconfigure(&config.replace("\"ADMIN\" }", "\"ADMIN\", hosts: [ proxy.example.com ] }"));
    assert_eq!(ask("POST", "/reload", "Host: Proxy.example.com:9901\r\n"), 200);
    assert_eq!(ask("GET", "/status", "Host: proxy.example.com\r\n"), 200);
    assert_eq!(ask("POST", "/reload", "Host: evil.test\r\n"), 403);
}

#[test]
fn a_reload_names_the_fields_that_have_changed_wherever_it_is_told() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let health = "health: { http: { path: /up, headers: [ { name: Authorization, value: topsecret-1 } ] } }";
    let before = simple(listen, health, &[("a", backend.address)]);
    let after = before
        .replace("topsecret-1", "topsecret-2")
        .replace("path: /up", "path: /")
        .replace("id: a,", "id: a, weight: 50,")
        .replace("workers: 2", "workers: 2\ndrain_timeout: 7s");
    let expected = [
        "drain_timeout 30s -> 7s",
        "drain_spread changed",
        "services.s.backends.a.weight 100 -> 50",
        "services.s.health.http.path /up -> /",
        "services.s.health.http.headers.Authorization.value changed",
    ];
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text.replace("ADMIN", "127.0.0.1:9901")).unwrap();
        path_text(&path).to_owned()
    };
    let planned = ringway(&["plan", &write("before.yaml", &before), &write("after.yaml", &after)]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    assert!(planned.starts_with(&(expected.join("\n") + "\n")), "{planned}");

    let ringway = Ringway::start(&before);
    ringway.reconfigure(&after);
    assert_eq!(ringway.status()["last_reload"]["changes"], serde_json::json!(expected));
    let events = get(ringway.admin, "/events").unwrap().text();
    let log = ringway.log();
    for line in expected {
        assert!(events.contains(line) && log.contains(line), "{line}\n{events}\n{log}");
    }
    assert!(![planned, events, log].iter().any(|text| text.contains("topsecret")));
    // Of many, the first.
    let many = (0..30).map(|at| format!("      - {{ id: b{at}, address: \"127.0.0.1:{}\" }}\n", 2_000 + at));
    ringway.reconfigure(&(after + &many.collect::<String>()));
    let changes = ringway.status()["last_reload"]["changes"].clone();
    assert_eq!((changes.as_array().unwrap().len(), &changes[20]), (21, &serde_json::json!("and 10 more")));
}
