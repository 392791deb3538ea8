//! Warnings that name backends which fail or are slow against their peers, where nothing ejects them; and who asks one that is ejected.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::curl_body;
use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Clients at once. Each waits for the slow backend now and then: together they ask it often enough for it to be judged.
const CLIENTS: usize = 32;

/// What has been noted of outliers: what it has come to, and the text.
fn events(ringway: &Ringway) -> Vec<(String, String)> {
    let text = curl_body(&["-s", &format!("http://{}/events", ringway.admin)]);
    let events: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| not_yet(error));
    let events = events["events"].as_array().into_iter().flatten();
    let word = |event: &serde_json::Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    events.filter(|event| event["kind"] == "outlier").map(|event| (word(event, "to"), word(event, "text"))).collect()
}

fn standing_out(ringway: &Ringway) -> [f64; 2] {
    ["failing", "slow"]
        .map(|reason| ringway.metric(&format!("ringway_backends_standing_out{{service=\"s\",reason=\"{reason}\"}}")))
}

/// What an operator sees who has not read the log: the status, the commands, the stream, the page.
fn shown_everywhere(ringway: &Ringway) {
    let service = &ringway.status()["services"][0];
    let backend =
        |id: &str| service["backends"].as_array().unwrap().iter().find(|backend| backend["id"] == id).unwrap();
    let of = |id: &str, reason: &str| backend(id)["stands_out"][reason].clone();
    assert!(of("bad", "failing")["text"].as_str().is_some_and(|text| text.starts_with("fails ")), "{service:#}");
    assert!(of("late", "slow")["since_seconds"].as_f64().is_some_and(|since| since >= 0.0), "{service:#}");
    assert!(backend("good")["stands_out"].is_null(), "{service:#}");
    let admin = ringway.admin.to_string();
    let printed = |command: &[&str]| {
        let done = crate::common::ringway(&[command, &["--admin", &admin]].concat());
        String::from_utf8(done.stdout).unwrap()
    };
    let services = printed(&["status"]);
    assert!(services.contains("failing") && services.contains("bad fails "), "{services}");
    for command in [&["status", "--service", "s"][..], &["top", "--once", "--service", "s"]] {
        let table = printed(command);
        let rows = table.lines().skip_while(|line| !line.starts_with("backend ")).skip(1);
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
        let stands_out = |row: usize, id: &str, state: &str, why: &str| {
            let cells = &rows[row];
            cells[0].trim() == id && cells[1].trim() == state && cells.last().is_some_and(|cell| cell.contains(why))
        };
        assert!(stands_out(0, "bad", "up, failing", "fails "), "{table}");
        assert!(stands_out(1, "late", "up, slow", "takes "), "{table}");
    }
    let url = format!("http://{admin}/live?service=s");
    let seen = String::from_utf8(output("curl", &["-sN", "--max-time", "1", &url]).stdout).unwrap();
    let frame = seen.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let frame: serde_json::Value = serde_json::from_str(frame).unwrap();
    let backends = &frame["service"]["backends"];
    assert!(backends["bad"]["stands_out"]["failing"]["since"].is_u64(), "{frame:#}");
    assert!(frame["services"]["s"]["stands_out"]["slow"] == 1, "{frame:#}");
    let (Some(()), Some(())) = (require("chromium"), require_python("websockets")) else { return };
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/page_stands_out.py");
    let mut browser = std::process::Command::new("python3");
    // What it imports stands beside it, and nothing else.
    let browser = browser.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args(["chromium", &admin]).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&browser.stdout), String::from_utf8_lossy(&browser.stderr));
    assert!(browser.status.success() && said.ends_with("all seen\n"), "{said}{wrong}");
}

#[test]
fn who_fails_or_is_slow_against_its_peers_is_named_until_it_is_good_again() {
    if require("curl").is_none() {
        return;
    }
    let (is_bad, turn) = (Arc::new(AtomicBool::new(true)), AtomicU32::new(0));
    let (of_failing, of_slow) = (Arc::clone(&is_bad), Arc::clone(&is_bad));
    let failing = scripted(move |_| match of_failing.load(Relaxed) && turn.fetch_add(1, Relaxed).is_multiple_of(2) {
        true => response("500 Internal Server Error", "", "sorry"),
        false => response("200 OK", "", "fine"),
    });
    let slow = scripted(move |_| {
        if of_slow.load(Relaxed) {
            takes(Duration::from_millis(200));
        }
        response("200 OK", "", "fine")
    });
    let (good, other) = (Backend::echo("good"), Backend::echo("other"));
    let listen = free_address();
    let fleet = [("bad", failing.address), ("late", slow.address), ("good", good.address), ("other", other.address)];
    let config = simple(listen, "balance: { policy: round_robin }", &fleet) + "outlier_warnings: { interval: 2s }\n";
    let ringway = Ringway::start(&config);
    assert_eq!(standing_out(&ringway), [0.0, 0.0]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let _ = get(listen, "/");
                }
            });
        }
        // However the test ends, its clients do.
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("both to stand out", || (standing_out(&ringway) == [1.0, 1.0]).then_some(()));
            let told = events(&ringway);
            assert!(told.iter().all(|(to, _)| to == "stands_out"), "{told:?}");
            let texts: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
            for part in ["bad fails ", "(5xx or no response), its peers 0.0 %", "late takes "] {
                assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:?}");
                assert!(ringway.log().contains(part), "{part}: {}", ringway.log());
            }
            for name in ["good ", "other "] {
                assert!(!texts.iter().any(|text| text.contains(name)), "{name}: {texts:?}");
            }
            shown_everywhere(&ringway);
            is_bad.store(false, Relaxed);
            wait_for("nobody to stand out", || (standing_out(&ringway) == [0.0, 0.0]).then_some(()));
            for part in ["bad (was failing)", "late (was slow)"] {
                wait_for(part, || {
                    events(&ringway).iter().any(|(to, text)| to == "over" && text.contains(part)).then_some(())
                });
                assert!(ringway.log().contains(part), "{part}: {}", ringway.log());
            }
        }));
        is_over.store(true, Relaxed);
        looked.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
}

/// Backends that restart one after the other: what live traffic has said of the first is over when the second is away.
#[test]
fn a_backend_that_was_ejected_is_asked_where_all_others_have_failed() {
    let (dead, gone, web, tcp) = (free_address(), free_address(), free_address(), free_address());
    let b = Backend::echo("b");
    let file = |b: std::net::SocketAddr| {
        let service = |name: &str| {
            format!(
                "  - {{ name: {name}, balance: {{ policy: round_robin }}, outlier: {{ base_ejection: 10m, max_ejection: 10m }}, \
                 backends: [ {{ id: a, address: \"{dead}\" }}, {{ id: b, address: \"{b}\" }} ] }}\n"
            )
        };
        format!(
            "workers: 2\nadmin: {{ address: \"ADMIN\" }}\nlisteners: [ {{ name: w, address: \"{web}\", service: s }}, \
             {{ name: t, address: \"{tcp}\", protocol: tcp, service: t }} ]\nservices:\n{}{}",
            service("s"),
            service("t")
        )
    };
    let ringway = Ringway::start(&file(b.address));
    let state = |service: usize| ringway.status()["services"][service]["backends"][0]["state"].clone();
    // Each is another connection.
    let answered = |listen| {
        let mut stream = send(listen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        read_answer(&mut stream, true).unwrap()
    };
    for (service, listen) in [web, tcp].into_iter().enumerate() {
        wait_for("a to be ejected", || {
            assert_eq!(answered(listen).text(), "b");
            (state(service) == "ejected").then_some(())
        });
    }
    // It has come back, and the other has gone.
    let a = Backend::on(std::net::TcpListener::bind(dead).unwrap(), |mut stream, _| {
        while let Some((_, _)) = read_request(&mut stream) {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na");
        }
    });
    ringway.reconfigure(&file(gone));
    for _ in 0..20 {
        for listen in [web, tcp] {
            assert_eq!(answered(listen).text(), "a");
        }
        let mut post = send(web, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(read_answer(&mut post, true).unwrap().text(), "a");
    }
    assert!((state(0), state(1)) == ("ejected".into(), "ejected".into()), "{}", ringway.status());
    assert!(a.connections.load(std::sync::atomic::Ordering::SeqCst) > 20);
}
