//! Where spans go as collectors and their certificates change under way.

use super::*;
use crate::common::peers::Certificates;

#[test]
fn a_collector_by_tls_is_believed_by_its_authority_and_what_that_is_follows_its_file() {
    let (Some(own), Some(next)) = (Certificates::new(), Certificates::new()) else { return };
    own.issue("collector", "IP:127.0.0.1", "2");
    next.issue("collector", "IP:127.0.0.1", "2");
    let pair = |of: &Certificates| [of.text("collector.pem"), of.text("collector.key")];
    let Some(collector) = Collector::start_with(&[pair(&own), pair(&next)].concat()) else { return };
    let backend = mirror();
    let authority = own.path("in-force.pem");
    let trust = |ca: &Certificates| {
        std::fs::copy(ca.path("ca.pem"), own.path("fresh.pem")).unwrap();
        std::fs::rename(own.path("fresh.pem"), &authority).unwrap();
    };
    trust(&own);
    let secure = collector.secure.unwrap();
    let top = format!("tracing: {{ endpoint: \"https://{secure}\", trust: all, tls: {{ ca: {authority:?} }} }}");
    let (ringway, listen) = proxy(&top, "", "balance: {}", &[("a", backend.address)]);
    let serve = || assert_eq!(get(listen, "/v1").unwrap().status, 200);
    serve();
    assert_eq!(collector.spans(2).len(), 2);
    // From now on its certificate is of an authority that nobody has named.
    collector.ask("/renew");
    let told = |what: &str| ringway.log().matches(what).count();
    serve();
    wait_for("word of it", || (told("the collector takes no spans for now") > 0).then_some(()));
    serve();
    assert!(ringway.log().contains("invalid peer certificate"), "{}", ringway.log());
    // The file that names the authorities says another one.
    trust(&next);
    wait_for("the file to be followed", || (ringway.status()["generation"] == 2).then_some(()));
    serve();
    let spans = collector.spans(4);
    assert!(spans.len() == 4 && told("the collector takes no spans for now") == 1, "{} {}", spans.len(), ringway.log());
    assert_eq!(ringway.metric("ringway_trace_spans_total{result=\"exported\"}"), 4.0);
}

/// Two streams of HTTP/2 are under way while their collector goes: they are told to the next one, once, and not to the one before.
#[test]
fn streams_that_are_under_way_when_the_exporter_changes_are_told_to_the_new_one_once() {
    let (Some(gone), Some(next), Some(())) = (Collector::start(), Collector::start(), require("curl")) else { return };
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let held = Arc::clone(&gate);
    let backend = scripted(move |_| {
        drop(held.lock());
        response("200 OK", "", "late")
    });
    let listen = free_address();
    let with =
        |address: SocketAddr| config(listen, &tracing(address, ""), "", "balance: {}", &[("a", backend.address)]);
    let ringway = Ringway::start(&with(gone.address));
    let url = format!("http://{listen}/v1/late");
    let begin = || {
        let curl = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "--max-time", "30", &url])
            .stdout(Stdio::piped())
            .spawn();
        Running(curl.unwrap())
    };
    let streams = [begin(), begin()];
    wait_for("both at the backend", || (backend.requests().len() == 2).then_some(()));
    ringway.reconfigure(&with(next.address));
    drop(closed);
    for mut stream in streams {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stream.0.stdout.take().unwrap(), &mut said).unwrap();
        assert_eq!(said, "late");
    }
    let spans = next.spans(4);
    let mut ids: Vec<&str> = spans.iter().map(|span| text(span, "id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((spans.len(), ids.len(), of_kind(&spans, SERVER).len()), (4, 4, 2));
    assert!(gone.ask("/spans")["spans"].as_array().unwrap().is_empty());
    wait_for("all of them", || (ringway.metric("ringway_trace_spans_total{result=\"exported\"}") == 4.0).then_some(()));
}
