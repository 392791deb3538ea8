//! What operators do to a running proxy: deploys, certificates, log rotation, signals, mistakes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
use common::*;
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
        get(listen, "/").unwrap();
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
