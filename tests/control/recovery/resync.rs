//! A member whose changes do not add up: the whole is asked for, once.

use crate::common::{Backend, Ringway, pace, read_request, wait_for};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

fn snapshot(revision: u64) -> String {
    format!(
        "{{\"snapshot\":{{\"cluster\":\"c\",\"epoch\":5,\"revision\":{revision},\"digest\":\"other\",\"objects\":{{}},\
         \"rollout\":null}}}}"
    )
}

const DELTA: &str = "{\"delta\":{\"epoch\":5,\"previous\":1,\"revision\":2,\"digest\":\"other\",\"changes\":[]}}";
const PING: &str = "{\"ping\":{\"revision\":2,\"leader_age_ms\":0,\"cluster\":\"c\",\"epoch\":5,\"digest\":\"other\"}}";

fn line(stream: &mut TcpStream, text: &str) -> bool {
    write!(stream, "{:x}\r\n{text}\n\r\n", text.len() + 1).is_ok()
}

/// A watch: changes that do not add up, then a whole that does not either, whose digest is said again and again.
fn watch(stream: &mut TcpStream, first: bool, from: bool, pings: &AtomicUsize) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    if first {
        line(stream, &snapshot(1));
    }
    // A proxy that starts drops its first connection once it knows anything, perhaps before it has read on.
    if first || from {
        line(stream, DELTA);
    } else {
        line(stream, &snapshot(2));
    }
    while line(stream, PING) {
        pings.fetch_add(usize::from(!first && !from), SeqCst);
        pace(Duration::from_millis(100));
    }
}

#[test]
fn what_does_not_add_up_is_asked_for_whole_once_and_not_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let (watches, pings) = (Box::leak(Box::new(Mutex::new(Vec::new()))), &*Box::leak(Box::new(AtomicUsize::new(0))));
    let watches: &'static Mutex<Vec<String>> = watches;
    let member = Backend::custom(move |mut stream, _| {
        while let Some((head, _)) = read_request(&mut stream) {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if target.starts_with("/v1/watch") {
                let mut asked = watches.lock().unwrap();
                let (first, from) = (asked.is_empty(), target.contains("from="));
                asked.push(target);
                drop(asked);
                return watch(&mut stream, first, from, pings);
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err() {
                return;
            }
        }
    });
    let ringway = Ringway::start(&format!(
        "admin: {{ address: ADMIN }}\ncontrol: {{ proxy: p, directory: {:?}, members: [ \"http://{}\" ] }}\n",
        directory.path().join("stored"),
        member.address,
    ));
    wait_for("the whole", || (ringway.status()["topology"]["revision"] == 2).then_some(()));
    wait_for("more signs of life", || (pings.load(SeqCst) >= 30).then_some(()));
    let asked = watches.lock().unwrap().clone();
    let whole = |target: &&String| !target.contains("from=");
    assert_eq!(asked.iter().filter(whole).count(), 2, "{asked:?}");
    assert!(asked.len() <= 3 && asked.last().is_some_and(|target| whole(&target)), "{asked:?}");
    let topology = ringway.status()["topology"].clone();
    assert!(topology["error"].as_str().is_some_and(|error| error.contains("digest")), "{topology}");
}
