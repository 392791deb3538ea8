//! HTTP/2, gRPC, TLS, SNI and the PROXY protocol, driven by curl, h2load, openssl, grpcio, nginx and HAProxy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::*;
use crate::common::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// `status version size` of curl, or its exit code.
fn curl(arguments: &[&str]) -> String {
    let format = "%{http_code} %{http_version} %{size_download}";
    let args = ["-sS", "--max-time", "10", "-o", "/dev/null", "-w", format];
    let done = output("curl", &[&args[..], arguments].concat());
    if done.status.success() {
        String::from_utf8_lossy(&done.stdout).into_owned()
    } else {
        format!("exit {}", done.status.code().unwrap_or(-1))
    }
}

#[test]
fn every_version_meets_every_version() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "DNS:one.test,IP:127.0.0.1", "2");
    let long = "x".repeat(3_000_000);
    let body = long.clone();
    let plain = scripted(move |head| match head.starts_with("HEAD ") {
        true => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_owned(),
        false => response("200 OK", "", &body),
    });
    let (inner, tls, h1, over_h2) = (free_address(), free_address(), free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n\
         \x20 - {{ name: tls, address: \"{tls}\", service: plain, tls: {{ certificates: [ {} ] }} }}\n\
         \x20 - {{ name: h1, address: \"{h1}\", service: h2c }}\n\
         \x20 - {{ name: over, address: \"{over_h2}\", service: h2 }}\n",
        certificates.entry("one")
    );
    let ca = certificates.text("ca.pem");
    let services = service("plain", "", &[("a", plain.address)])
        + &service("h2c", "protocol: h2,", &[("a", inner)])
        + &service("h2", &format!("protocol: h2, tls: {{ ca: \"{ca}\", sni: one.test }},"), &[("a", tls)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let whole = |version: &str| format!("200 {version} {}", long.len());
    let upload = certificates.path("upload");
    std::fs::write(&upload, &long).unwrap();
    let upload = format!("@{}", upload.display());
    for extra in [&[][..], &["--data-binary", &upload], &["-H", "Transfer-Encoding: chunked", "--data-binary", &upload]]
    {
        for address in [inner, h1, over_h2] {
            let url = format!("http://{address}/");
            assert_eq!(curl(&[&["--http1.1", &url][..], extra].concat()), whole("1.1"), "{extra:?}");
            if extra.len() < 4 {
                assert_eq!(curl(&[&["--http2-prior-knowledge", &url][..], extra].concat()), whole("2"), "{extra:?}");
            }
        }
        let url = format!("https://{tls}/");
        assert_eq!(curl(&[&["--cacert", &ca, "--http1.1", &url][..], extra].concat()), whole("1.1"));
        if extra.len() < 4 {
            assert_eq!(curl(&[&["--cacert", &ca, "--http2", &url][..], extra].concat()), whole("2"));
        }
    }
    // Cookies that HTTP/2 has split are one field again, the scheme is told, and the answer to HEAD has no body.
    curl(&["--http2-prior-knowledge", "-b", "a=1; b=2", &format!("http://{inner}/cookies")]);
    let seen = plain.requests();
    assert!(seen.iter().any(|head| head.contains("/cookies") && head.contains("cookie: a=1; b=2")), "{seen:?}");
    assert_eq!(curl(&["--cacert", &ca, "-I", &format!("https://{tls}/")]), "200 2 0");
    assert!(plain.requests().last().unwrap().contains("x-forwarded-proto: https"));
    // Nobody is still counted as being served.
    let idle =
        || ringway.status()["services"].as_array()?.iter().all(|service| service["in_flight"] == 0).then_some(());
    wait_for("all to have ended", idle);
}

#[test]
fn many_streams_share_few_connections() {
    if require("h2load").is_none() {
        return;
    }
    let Some(fleet) = Nginx::fleet(2) else { return };
    let (front, back) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: back, address: \"{back}\", service: plain }}\n  - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let backends = [("a", fleet[0].address), ("b", fleet[1].address)];
    let services = service("plain", "", &backends) + &service("h2", "protocol: h2,", &[("ringway", back)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let done = output("h2load", &["-n", "20000", "-c", "10", "-m", "32", "-t", "1", &format!("http://{front}/")]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("20000 succeeded, 0 failed, 0 errored"), "{text}");
    let connections = backend_status(&ringway, "ringway")["connections"].as_u64().unwrap();
    assert!(connections > 0 && connections <= 16, "{connections} connections");
}

#[test]
fn goaway_from_a_backend_under_load_loses_nothing() {
    if require("h2load").is_none() || require("nginx").is_none() {
        return;
    }
    // nginx says GOAWAY after so many requests on a connection.
    let (backend, front) = (free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = format!(
        "daemon off; master_process off; pid {}; error_log {}; events {{ }}\nhttp {{ access_log off; keepalive_requests 200;\n\
         server {{ listen {backend} http2; location / {{ return 200 hello; }} }} }}\n",
        file("pid"),
        file("log")
    );
    std::fs::write(file("nginx.conf"), text).unwrap();
    let nginx = Command::new("nginx")
        .args(["-c", &file("nginx.conf"), "-e", &file("log")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _nginx = Running(nginx);
    wait_for("nginx", || TcpStream::connect(backend).ok());
    let listeners = format!("  - {{ name: front, address: \"{front}\", service: h2 }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("h2", "protocol: h2,", &[("nginx", backend)])));
    for (version, streams) in [(&["--h1"][..], "1"), (&[], "16")] {
        let url = format!("http://{front}/");
        let arguments = ["-n", "10000", "-c", "8", "-m", streams, "-t", "1", &url];
        let done = output("h2load", &[version, &arguments].concat());
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains("10000 succeeded, 0 failed, 0 errored") && text.contains(" 0 4xx, 0 5xx"), "{text}");
    }
    let connects = ringway.metric("ringway_backend_connects_total{service=\"h2\",backend=\"nginx\"}");
    assert!(connects >= 100.0, "{connects}: each carries 200 requests");
}

#[test]
fn grpc_in_all_its_kinds() {
    if require_python("grpc").is_none() {
        return;
    }
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let server = path("server.py", include_str!("../python/grpc_server.py"));
    let client = path("client.py", include_str!("../python/grpc_client.py"));
    let server = Command::new("python3").arg(server).arg(port.to_string()).stdout(Stdio::null()).spawn().unwrap();
    let _server = Running(server);
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("the gRPC server", || TcpStream::connect(address).ok());
    let (live, dead) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: live, address: \"{live}\", service: grpc }}\n  - {{ name: dead, address: \"{dead}\", service: dead }}\n"
    );
    let services = service("grpc", "protocol: h2,", &[("a", address)])
        + &service("dead", "protocol: h2,", &[("x", free_address())]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let done = Command::new("python3").arg(client).args([live.to_string(), dead.to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{text}");
    wait_for("cancelled calls to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn a_call_of_grpc_counts_by_its_code_and_not_by_the_status_that_its_response_began_with() {
    if require_python("grpc").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let script = path("server.py", include_str!("../python/grpc_server.py"));
    let client = path(
        "client.py",
        "import sys, grpc\n\
         call = grpc.insecure_channel(sys.argv[1]).unary_unary('/t.T/Unary')\n\
         for _ in range(60):\n\
         \x20   try: call(b'x', timeout=20)\n\
         \x20   except grpc.RpcError as error: assert error.code() == grpc.StatusCode.INTERNAL, error\n",
    );
    let start = |more: &[&str]| {
        let port = free_port();
        let server = Command::new("python3")
            .arg(&script)
            .arg(port.to_string())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let running = Running(server);
        wait_for("the gRPC server", || TcpStream::connect(address).ok());
        (running, address)
    };
    let ((_good, good), (_bad, bad)) = (start(&[]), start(&["INTERNAL"]));
    let (live, log) = (free_address(), directory.path().join("access.log"));
    let listeners = format!("  - {{ name: live, address: \"{live}\", service: s }}\n");
    let options = "protocol: h2, balance: { policy: round_robin }, \
                   outlier: { on: server_errors, consecutive_failures: 5, base_ejection: 1h, max_ejection: 1h, max_ejection_percent: 50 },";
    let file = config(&listeners, &service("s", options, &[("good", good), ("bad", bad)]));
    let ringway = Ringway::start(&format!("access_log: {{ format: json, target: {log:?} }}\n{file}"));
    let done = Command::new("python3").arg(client).arg(live.to_string()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines: Vec<serde_json::Value> = wait_for("sixty lines", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 60).then_some(lines)
    });
    let of = |backend: &str| -> Vec<(u64, u64)> {
        let lines = lines.iter().filter(|line| line["backend"] == backend);
        lines.map(|line| (line["status"].as_u64().unwrap(), line["grpc_status"].as_u64().unwrap())).collect()
    };
    // Five in a row, and it is out.
    assert_eq!((of("bad"), of("good")), (vec![(200, 13); 5], vec![(200, 0); 55]));
    wait_for("its ejection", || (backend_status(&ringway, "bad")["state"] == "ejected").then_some(()));
    let counted = |backend: &str, class: &str| {
        let labels = format!("service=\"s\",backend=\"{backend}\",class=\"{class}\"");
        ringway.metric(&format!("ringway_backend_responses_total{{{labels}}}"))
    };
    assert_eq!((counted("bad", "5xx"), counted("bad", "2xx")), (5.0, 0.0));
    assert_eq!((counted("good", "5xx"), counted("good", "2xx")), (0.0, 55.0));
    assert_eq!(ringway.metric("ringway_requests_total{service=\"s\",class=\"5xx\"}"), 5.0);
}

#[test]
fn certificates_by_name_and_new_ones_without_a_dropped_connection() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    certificates.issue("wild", "DNS:*.wild.test", "2");
    let backend = Backend::echo("a");
    let (front, strict) = (free_address(), free_address());
    let pair = format!("{}, {}", certificates.entry("one"), certificates.entry("wild"));
    let listeners = format!(
        "  - {{ name: web, address: \"{front}\", service: s, tls: {{ certificates: [ {pair} ] }} }}\n\
         \x20 - {{ name: strict, address: \"{strict}\", service: s, \
         tls: {{ unknown_sni: reject, min_version: \"1.3\", certificates: [ {pair} ] }} }}\n"
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let ca = certificates.text("ca.pem");
    let by_name = |name: &str, address: SocketAddr, more: &[&str]| {
        let resolve = format!("{name}:{}:127.0.0.1", address.port());
        let url = format!("https://{name}:{}/", address.port());
        curl(&[&["--cacert", &ca, "--resolve", &resolve, &url][..], more].concat())
    };
    assert!(by_name("one.test", front, &[]).starts_with("200 2"));
    assert!(by_name("a.wild.test", front, &[]).starts_with("200 2"));
    // Exit 60: the default certificate, which has another name. 35: an alert.
    assert_eq!(by_name("other.test", front, &[]), "exit 60");
    assert_eq!(by_name("a.b.wild.test", front, &[]), "exit 60");
    assert_eq!(by_name("other.test", strict, &[]), "exit 35");
    assert!(by_name("one.test", strict, &[]).starts_with("200 2"));
    assert_eq!(by_name("one.test", strict, &["--tls-max", "1.2"]), "exit 35");
    assert!(by_name("one.test", front, &["--tls-max", "1.2"]).starts_with("200"));

    // Plain HTTP to a TLS port is told so, and TLS to a plain port gets an alert and not text.
    let told = raw(front, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        told.starts_with("HTTP/1.1 400") && told.contains("plain_http_on_tls_port") && told.contains("https://"),
        "{told}"
    );

    // A connection from before goes on with its certificate; the next one gets the new one.
    let serial = |address: SocketAddr| {
        let done = Command::new("sh")
            .arg("-c")
            .arg(format!("openssl s_client -connect {address} -servername one.test </dev/null 2>/dev/null | openssl x509 -noout -serial"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    let before = serial(front);
    assert!(before.starts_with("serial="), "{before}");
    let mut session = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &front.to_string(), "-servername", "one.test", "-alpn", "http/1.1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ask = session.stdin.take().unwrap();
    let mut answers = session.stdout.take().unwrap();
    let mut exchange = || {
        ask.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").unwrap();
        ask.flush().unwrap();
        let mut bytes = [0; 4096];
        let count = answers.read(&mut bytes).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..count]).starts_with("HTTP/1.1 200"));
    };
    exchange();
    let generation = ringway.status()["generation"].as_u64().unwrap();
    certificates.issue("one", "DNS:one.test", "2");
    wait_for("the new certificate", || (serial(front) != before && !serial(front).is_empty()).then_some(()));
    exchange();
    let _session = Running(session);
    assert!(ringway.status()["generation"].as_u64().unwrap() > generation);

    // What is wrong is refused by name, and what is in force stays.
    let now = serial(front);
    std::fs::copy(certificates.path("wild.key"), certificates.path("one.key")).unwrap();
    let refused = wait_for("the refusal", || {
        let status = ringway.status();
        (status["last_reload"]["result"] == "refused").then_some(status)
    });
    let text = refused["last_reload"]["error"].as_str().unwrap();
    assert!(text.contains("one.key") && text.contains("does not belong"), "{text}");
    assert_eq!(serial(front), now);
    exchange();
}

#[test]
fn sessions_are_resumed_after_their_listener_was_renamed() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = Backend::echo("a");
    let front = free_address();
    let listeners = |name: &str| {
        let entry = certificates.entry("one");
        format!("  - {{ name: {name}, address: \"{front}\", service: s, tls: {{ certificates: [ {entry} ] }} }}\n")
    };
    let services = service("s", "", &[("a", backend.address)]);
    let ringway = Ringway::start(&config(&listeners("web"), &services));
    let session = certificates.text("session");
    let connect = |more: &str| {
        // Tickets of TLS 1.3 come after the handshake: an answer tells that they have.
        let script = format!(
            "(printf 'GET / HTTP/1.1\\r\\nHost: one.test\\r\\nConnection: close\\r\\n\\r\\n') | \
             openssl s_client -connect {front} -servername one.test {more} -ign_eof 2>&1"
        );
        String::from_utf8_lossy(&output("sh", &["-c", &script]).stdout).into_owned()
    };
    let first = connect(&format!("-sess_out {session}"));
    assert!(first.contains("New, TLS") && first.contains("HTTP/1.1 200"), "{first}");
    ringway.reconfigure(&config(&listeners("other"), &services));
    let again = connect(&format!("-sess_in {session}"));
    assert!(again.contains("Reused, TLS") && again.contains("HTTP/1.1 200"), "{again}");
}

#[test]
fn an_ocsp_answer_is_stapled_and_follows_its_file() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    // The authority's answer about the certificate, made by openssl from its index of certificates.
    let answer = |validity_days: &str, out: &str| {
        let serial = output("openssl", &["x509", "-noout", "-serial", "-in", &certificates.text("one.pem")]);
        let serial = String::from_utf8_lossy(&serial.stdout).trim().replace("serial=", "");
        let line = format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=leaf\n");
        std::fs::write(certificates.path("index.txt"), line).unwrap();
        let request = ["ocsp", "-issuer", "ca.pem", "-cert", "one.pem", "-reqout", "request.der"];
        certificates.openssl(&request);
        let signer = ["-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key", "-ndays", validity_days];
        let from = ["ocsp", "-index", "index.txt", "-reqin", "request.der", "-respout", "fresh.der"];
        certificates.openssl(&[&from[..], &signer].concat());
        std::fs::rename(certificates.path("fresh.der"), certificates.path(out)).unwrap();
    };
    answer("1", "one.ocsp");
    let backend = Backend::echo("a");
    let (front, without) = (free_address(), free_address());
    let entry = certificates.entry("one").replace(" }", &format!(", ocsp: \"{}\" }}", certificates.text("one.ocsp")));
    let listeners = format!(
        "  - {{ name: web, address: \"{front}\", service: s, tls: {{ certificates: [ {entry} ] }} }}\n\
         \x20 - {{ name: plain, address: \"{without}\", service: s, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let status = |address: SocketAddr, version: &str| {
        let script = format!(
            "openssl s_client -connect {address} -servername one.test -status {version} -CAfile {} </dev/null 2>&1",
            certificates.text("ca.pem")
        );
        String::from_utf8_lossy(&output("sh", &["-c", &script]).stdout).into_owned()
    };
    let next_update = |text: &str| text.lines().find(|line| line.contains("Next Update")).map(str::to_owned);
    let mut before = None;
    for version in ["-tls1_2", "-tls1_3"] {
        let text = status(front, version);
        assert!(text.contains("OCSP Response Status: successful") && text.contains("Cert Status: good"), "{text}");
        assert!(status(without, version).contains("OCSP response: no response sent"));
        before = next_update(&text);
    }
    assert!(before.is_some());
    // Answers are good for a few days: a new one is taken when its file changes.
    answer("3", "one.ocsp");
    wait_for("the new answer", || (next_update(&status(front, "-tls1_3")) != before).then_some(()));
    let broken = certificates.entry("one").replace(" }", ", ocsp: /nonexistent/answer.der }");
    let refused = listeners.replace(&entry, &broken);
    let path = certificates.path("c.yaml");
    let text = config(&refused, &service("s", "", &[("a", backend.address)]));
    std::fs::write(&path, text.replace("ADMIN", &free_address().to_string())).unwrap();
    let done = ringway(&["run", "--config", path_text(&path)]);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && text.contains("/nonexistent/answer.der"), "{text}");
}

#[test]
fn bad_certificates_are_refused_with_their_path() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("good", "DNS:good.test", "2");
    std::fs::write(certificates.path("junk.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    std::fs::copy(certificates.path("good.key"), certificates.path("junk.key")).unwrap();
    for (name, why) in [("junk", "cannot be read"), ("absent", "absent.pem")] {
        let listeners = format!(
            "  - {{ name: web, address: \"{}\", service: s, tls: {{ certificates: [ {} ] }} }}\n",
            free_address(),
            certificates.entry(name)
        );
        let text = config(&listeners, &service("s", "", &[("a", free_address())]));
        let file = certificates.path("ringway.yaml");
        std::fs::write(&file, text.replace("ADMIN", &free_address().to_string())).unwrap();
        let refused = ringway(&["run", "--config", path_text(&file)]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why) && said.contains(name), "{name}: {said}");
    }
}

#[test]
fn clients_show_certificates_and_cannot_forge_the_field() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "IP:127.0.0.1", "2");
    certificates.issue("client", "DNS:client", "2");
    let backend = Backend::echo("a");
    let (required, optional) = (free_address(), free_address());
    let ca = certificates.text("ca.pem");
    let listener = |name: &str, address: SocketAddr| {
        format!(
            "  - {{ name: {name}, address: \"{address}\", service: s, tls: {{ certificates: [ {} ], \
             client: {{ ca: \"{ca}\", certificate: {name} }} }} }}\n",
            certificates.entry("one")
        )
    };
    let listeners = listener("required", required) + &listener("optional", optional);
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let own = ["--cacert", &ca, "--cert", &certificates.text("client.pem"), "--key", &certificates.text("client.key")];
    let forged = ["-H", "X-Client-Cert-SHA256: 00"];
    let without = curl(&["--cacert", &ca, &format!("https://{required}/")]);
    assert!(without.starts_with("exit "), "{without}");
    let out = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", &certificates.text("client.pem")])
        .output()
        .unwrap();
    let fingerprint =
        String::from_utf8_lossy(&out.stdout).split('=').nth(1).unwrap().trim().replace(':', "").to_lowercase();
    for address in [required, optional] {
        let url = format!("https://{address}/");
        assert!(curl(&[&own[..], &forged, &[&url]].concat()).starts_with("200"));
        let head = backend.requests().pop().unwrap().to_lowercase();
        assert_eq!(head.matches("x-client-cert-sha256").count(), 1, "{head}");
        assert!(head.contains(&format!("x-client-cert-sha256: {fingerprint}")), "{head}");
    }
    assert!(curl(&[&["--cacert", &ca][..], &forged, &[&format!("https://{optional}/")]].concat()).starts_with("200"));
    let head = backend.requests().pop().unwrap().to_lowercase();
    assert!(!head.contains("x-client-cert-sha256"), "{head}");
}

/// Passes bytes on, so many at a time.
fn trickle(to: SocketAddr, step: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let Ok(mut server) = TcpStream::connect(to) else { return };
            server.set_nodelay(true).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::thread::spawn(move || {
                let mut bytes = vec![0; step];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    if server.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                    takes(Duration::from_millis(1));
                }
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

#[test]
fn tls_is_routed_by_name_without_being_ended() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("curl")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    certificates.issue("two", "DNS:x.two.test", "2");
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let (one, two, pass) = (free_address(), free_address(), free_address());
    let tls = |name: &str, address: SocketAddr| {
        format!(
            "  - {{ name: {name}, address: \"{address}\", service: {name}, tls: {{ certificates: [ {} ] }} }}\n",
            certificates.entry(name)
        )
    };
    let listeners = tls("one", one)
        + &tls("two", two)
        + &format!(
            "  - name: pass\n    address: \"{pass}\"\n    protocol: tcp\n    routes:\n\
             \x20     - {{ match: {{ host: one.test }}, service: to-one }}\n\
             \x20     - {{ match: {{ host: \"*.two.test\" }}, service: to-two }}\n"
        );
    let services = service("one", "", &[("a", a.address)])
        + &service("two", "", &[("b", b.address)])
        + &service("to-one", "", &[("one", one)])
        + &service("to-two", "balance: { hash_key: [ { sni: {} } ] },", &[("two", two)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let ca = certificates.text("ca.pem");
    let body = |name: &str, port: u16| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        curl_body(&["--cacert", &ca, "--resolve", &resolve, "-D", "-", &format!("https://{name}:{port}/")])
    };
    assert!(body("one.test", pass.port()).contains("x-backend: a"));
    assert!(body("x.two.test", pass.port()).contains("x-backend: b"));
    // The first message in pieces of a few bytes.
    let slow = trickle(pass, 7);
    assert!(body("x.two.test", slow.port()).contains("x-backend: b"));
    // Names that nobody has, and what is no TLS: closed, and counted.
    let resolve = format!("other.test:{}:127.0.0.1", pass.port());
    let url = format!("https://other.test:{}/", pass.port());
    assert_eq!(curl(&["--cacert", &ca, "--resolve", &resolve, &url]), "exit 35");
    assert_eq!(raw(pass, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert!(ringway.metric("ringway_rejected_requests_total{reason=\"unknown_server_name\"}") >= 1.0);
    assert!(ringway.metric("ringway_rejected_requests_total{reason=\"client_hello\"}") >= 1.0);
}

#[test]
fn proxy_headers_in_and_out_with_strangers() {
    if require("curl").is_none() || require("nginx").is_none() || require("haproxy").is_none() {
        return;
    }
    // HAProxy in front says who the client is; nginx behind is told so.
    let (nginx, front, haproxy, untrusted) = (free_address(), free_address(), free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(
        file("nginx.conf"),
        format!(
            "daemon off; pid {}; error_log {}; events {{ }}\nhttp {{ access_log off; server {{ listen {nginx} proxy_protocol;\n\
             location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr $http_x_forwarded_for\"; }} }} }}\n",
            file("pid"),
            file("log")
        ),
    )
    .unwrap();
    std::fs::write(
        file("haproxy.cfg"),
        format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
             listen l\n  bind {haproxy}\n  server s {front} send-proxy-v2 source 127.0.0.9\n"
        ),
    )
    .unwrap();
    let quiet = |mut command: Command| Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut command = Command::new("nginx");
    command.args(["-c", &file("nginx.conf"), "-e", &file("log")]);
    let _nginx = quiet(command);
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &file("haproxy.cfg")]);
    let _haproxy = quiet(command);
    for version in ["v1", "v2"] {
        let listeners = format!(
            "  - {{ name: web, address: \"{front}\", service: s, proxy_protocol: [ 127.0.0.0/8 ] }}\n\
             \x20 - {{ name: other, address: \"{untrusted}\", service: s, proxy_protocol: [ 10.0.0.0/8 ] }}\n"
        );
        // The check speaks it too, or nginx would not answer it.
        let more = format!(
            "proxy_protocol: {version}, health: {{ http: {{}}, interval: 100ms, timeout: 100ms, initial: down }},"
        );
        let ringway = Ringway::start(&config(&listeners, &service("s", &more, &[("a", nginx)])));
        wait_for("the check", || (backend_status(&ringway, "a")["state"] == "up").then_some(()));
        wait_for("haproxy", || TcpStream::connect(haproxy).ok());
        let told = curl_body(&["--interface", "127.0.0.7", &format!("http://{haproxy}/")]);
        assert_eq!(told, "127.0.0.7 127.0.0.1 127.0.0.7", "{version}");
        // curl's own header, version 1.
        let told = curl_body(&["--haproxy-protocol", "--interface", "127.0.0.5", &format!("http://{front}/")]);
        assert_eq!(told, "127.0.0.5 127.0.0.1 127.0.0.5", "{version}");
        // Who is not trusted cannot say who he is, and who is must.
        assert_eq!(curl(&["--haproxy-protocol", &format!("http://{untrusted}/")]).split(' ').next(), Some("400"));
        assert!(curl_body(&[&format!("http://{untrusted}/")]).starts_with("127.0.0.1 "));
        assert!(curl(&[&format!("http://{front}/")]).starts_with("exit "));
        // Bytes in pieces, and clients that share no backend connection.
        let slow = trickle(front, 3);
        let told = curl_body(&["--haproxy-protocol", &format!("http://{slow}/")]);
        assert!(told.starts_with("127.0.0.1 "), "{told}");
    }
}

#[test]
fn connections_have_ids_of_their_own_in_proxy_headers() {
    if require("haproxy").is_none() || require("curl").is_none() {
        return;
    }
    // HAProxy behind reads the ids, HAProxy in front gives some out.
    let (behind, front, raw, before) = (free_address(), free_address(), free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         frontend behind\n bind {behind} accept-proxy\n\
         \x20http-request return status 200 content-type text/plain lf-string \"%[fc_pp_unique_id] %[src]\"\n\
         frontend before\n bind {before}\n unique-id-format given-%[rand(9999999)]-%pid\n default_backend b\n\
         backend b\n server s {front} send-proxy-v2 proxy-v2-options unique-id,crc32c\n"
    );
    std::fs::write(&path, text).unwrap();
    let haproxy = Command::new("haproxy").args(["-db", "-f"]).arg(&path).stdout(Stdio::null()).spawn().unwrap();
    let _haproxy = Running(haproxy);
    wait_for("haproxy", || TcpStream::connect(before).ok());
    let log = directory.path().join("access");
    let listeners = format!(
        "  - {{ name: web, address: \"{front}\", service: s, proxy_protocol: [ 127.0.0.1 ] }}\n\
         \x20 - {{ name: raw, address: \"{raw}\", service: s }}\n"
    );
    let services = service("s", "proxy_protocol: v2, proxy_protocol_unique_id: true, pool: {},", &[("behind", behind)]);
    let text = format!("access_log: {{ format: json, target: {} }}\n", log.display()) + &config(&listeners, &services);
    let _ringway = Ringway::start(&text);
    // Two requests of one connection, and one of another.
    let url = format!("http://{raw}/");
    let ids = curl_body(&[&url, &url]) + &curl_body(&["--http2-prior-knowledge", &url]);
    let ids: Vec<&str> = ids.split(" 127.0.0.1").filter(|id| !id.is_empty()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
    // What has an id already keeps it.
    let given = curl_body(&[&format!("http://{before}/")]);
    assert!(given.starts_with("given-") && given.ends_with(" 127.0.0.1"), "{given}");
    for id in [ids[0], ids[2], given.split(' ').next().unwrap()] {
        wait_for("the access log", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.contains(&format!("\"connection_id\":\"{id}\"")).then_some(())
        });
    }
}

#[test]
fn websockets_over_http2_reach_a_backend_that_speaks_http1() {
    if require_python("h2").is_none() || require_python("websockets").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("websocket.py");
    std::fs::write(&script, include_str!("../python/websocket.py")).unwrap();
    let (listen, backend) = (free_address(), free_address());
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend)])));
    let port = backend.port().to_string();
    let done = Command::new("python3").arg(script).args([port, listen.to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_for("the tunnel to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn websockets_over_http1_reach_backends_that_speak_http2() {
    if require_python("websockets").is_none() || require("haproxy").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("websocket.py");
    std::fs::write(&script, include_str!("../python/websocket_http1.py")).unwrap();
    let (backend, inner, stranger, ours, theirs) =
        (free_address(), free_address(), free_address(), free_address(), free_address());
    // HAProxy speaks HTTP/2 here, and knows RFC 8441.
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         frontend f\n bind {stranger} proto h2\n default_backend b\nbackend b\n server s {backend}\n"
    );
    let path = directory.path().join("haproxy.cfg");
    std::fs::write(&path, text).unwrap();
    let haproxy = Command::new("haproxy").args(["-db", "-f"]).arg(&path).stdout(Stdio::null()).spawn().unwrap();
    let _haproxy = Running(haproxy);
    wait_for("haproxy", || TcpStream::connect(stranger).ok());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n\
         \x20 - {{ name: ours, address: \"{ours}\", service: ours }}\n\
         \x20 - {{ name: theirs, address: \"{theirs}\", service: theirs }}\n"
    );
    let services = service("plain", "", &[("backend", backend)])
        + &service("ours", "protocol: h2,", &[("inner", inner)])
        + &service("theirs", "protocol: h2,", &[("haproxy", stranger)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let port = backend.port().to_string();
    let urls = [format!("ws://{ours}/chat"), format!("ws://{theirs}/chat")];
    let done = Command::new("python3").arg(script).arg(port).args(&urls).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for id in ["backend", "inner", "haproxy"] {
        wait_for("the tunnels to be over", || (backend_status(&ringway, id)["in_flight"] == 0).then_some(()));
    }
    // They shared their connections.
    assert!(ringway.metric("ringway_backend_connects_total{service=\"theirs\",backend=\"haproxy\"}") <= 2.0);
    // A handshake that is none is refused here; another protocol is not asked for.
    let ask = |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{fields}\r\n");
        read_answer(&mut send(ours, request.as_bytes()), true).unwrap()
    };
    for key in ["", "Sec-WebSocket-Key: short\r\n"] {
        let answer = ask(&format!("Upgrade: WebSocket\r\n{key}"));
        assert_eq!((answer.status, answer.header("x-ringway-reason")), (400, Some("bad_websocket_key")));
    }
    assert_ne!(ask("Upgrade: irc\r\n").status, 101);
}

#[test]
fn what_a_shared_connection_cannot_carry_is_refused_at_once() {
    let backend = Backend::echo("a");
    let (inner, front) = (free_address(), free_address());
    let listeners = format!(
        "  - {{ name: inner, address: \"{inner}\", service: plain }}\n  - {{ name: front, address: \"{front}\", service: h2 }}\n"
    );
    let services =
        service("plain", "", &[("a", backend.address)]) + &service("h2", "protocol: h2,", &[("inner", inner)]);
    let ringway = Ringway::start(&config(&listeners, &services));
    let begin = std::time::Instant::now();
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGVzdHRlc3R0ZXN0dGVzdA==\r\n\r\n";
    assert_eq!(read_answer(&mut send(front, upgrade), true).unwrap().status, 502);
    // A listener that speaks no HTTP/2 to who begins with it: an error, and no waiting.
    ringway.reconfigure(&config(
        &listeners.replace("service: plain }", "service: plain, h2: { enabled: false } }"),
        &services,
    ));
    wait_for("the old connection to be gone", || (get(front, "/")?.status == 502).then_some(()));
    assert!(begin.elapsed() < Duration::from_secs(10).mul_f64(slowness()), "{:?}", begin.elapsed());
}

/// What comes until the end, or nothing more for a while: the codes of GOAWAY and RST_STREAM, by type.
fn verdict(address: SocketAddr, frames: &[u8]) -> Vec<(u8, u32)> {
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], frames].concat();
    let mut stream = send(address, &bytes);
    stream.set_read_timeout(Some(Duration::from_millis(700).mul_f64(slowness()))).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    let (mut rest, mut seen) = (&answer[..], Vec::new());
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(payload) = rest.get(9..9 + length) else { break };
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match rest[3] {
            7 => seen.push((7, code(4))),
            3 => seen.push((3, code(0))),
            _ => {}
        }
        rest = &rest[9 + length..];
    }
    seen
}

#[test]
fn malformed_frames_end_that_connection_only() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    const PROTOCOL_ERROR: u32 = 1;
    const FLOW_CONTROL_ERROR: u32 = 3;
    const FRAME_SIZE_ERROR: u32 = 6;
    const COMPRESSION_ERROR: u32 = 9;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!("  - {{ name: web, address: \"{listen}\", service: s }}\n");
    let mut ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    // GET / over http with an indexed authority-less head; `:authority` is a literal.
    let get = [&[0x82, 0x86, 0x84, 0x41, 1][..], b"a"].concat();
    let flood: Vec<u8> = (0..400_u32)
        .flat_map(|index| {
            [frame(HEADERS, 5, 2 * index + 1, &get), frame(RST_STREAM, 0, 2 * index + 1, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let endless: Vec<u8> = std::iter::once(frame(HEADERS, 1, 1, &get))
        .chain((0..2000).map(|_| frame(9, 0, 1, &[b"\0\x01x\x7f"[..].to_vec(), vec![0x61; 100]].concat())))
        .flatten()
        .collect();
    for (what, frames, wanted) in [
        ("headers on stream 0", frame(HEADERS, 5, 0, &get), vec![PROTOCOL_ERROR]),
        ("an even stream", frame(HEADERS, 5, 2, &get), vec![PROTOCOL_ERROR]),
        ("data before headers", frame(0, 0, 1, b"x"), vec![PROTOCOL_ERROR]),
        ("a frame too large", frame(0, 0, 1, &vec![0; 20_000]), vec![FRAME_SIZE_ERROR]),
        ("a window of nothing", frame(8, 0, 0, &[0, 0, 0, 0]), vec![PROTOCOL_ERROR]),
        ("a window past its end", frame(8, 0, 0, &[0x7f, 255, 255, 255]), vec![FLOW_CONTROL_ERROR]),
        // RFC 9113, 4.3 and 6.7, names COMPRESSION_ERROR and FRAME_SIZE_ERROR; the library says PROTOCOL_ERROR.
        ("an index that is none", frame(HEADERS, 5, 1, &[0xff, 0x00]), vec![COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ("a ping of three bytes", frame(6, 0, 0, b"abc"), vec![FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a stray continuation", frame(9, 4, 1, &get), vec![PROTOCOL_ERROR]),
        ("resets without end", flood, vec![ENHANCE_YOUR_CALM]),
        ("a head without end", endless, vec![ENHANCE_YOUR_CALM, COMPRESSION_ERROR, PROTOCOL_ERROR]),
    ] {
        let seen = verdict(listen, &frames);
        let ended = seen.iter().any(|(kind, code)| *kind == GOAWAY && wanted.contains(code));
        assert!(ended, "{what}: {seen:?}");
    }
    // Of streams: a field in capitals, a missing path, a field of HTTP/1.1.
    let name = |name: &[u8]| [&get[..], &[0x40, name.len() as u8], name, &[1], b"x"].concat();
    for (what, head) in [
        ("capitals", name(b"Upper")),
        ("connection", name(b"connection")),
        ("no path", [&[0x82, 0x86, 0x41, 1][..], b"a"].concat()),
    ] {
        let seen = verdict(listen, &frame(HEADERS, 5, 1, &head));
        assert!(
            seen.contains(&(RST_STREAM, PROTOCOL_ERROR)) || seen.contains(&(GOAWAY, PROTOCOL_ERROR)),
            "{what}: {seen:?}"
        );
    }
    // All the while others are served, and nothing of that has come to the backend but what was a request.
    assert_eq!(get_with(listen, "/after", "").unwrap().status, 200);
    assert!(ringway.is_running());
    assert_eq!(ringway.metric("ringway_panics_total"), 0.0);
    wait_for("streams to be over", || (backend_status(&ringway, "a")["in_flight"] == 0).then_some(()));
}

#[test]
fn certificate_reloads_under_load_lose_nothing() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("h2load")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let backend = Backend::echo("a");
    let listen = free_address();
    let listeners = format!(
        "  - {{ name: web, address: \"{listen}\", service: s, tls: {{ certificates: [ {} ] }} }}\n",
        certificates.entry("one")
    );
    let ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    let load = |more: &[&str]| {
        let arguments = ["-D", "4", "-c", "8", "-t", "1"];
        let mut command = Command::new("h2load");
        command.args(arguments).args(more).arg(format!("https://{listen}/"));
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let loads = [load(&["-m", "4"]), load(&["--h1"])];
    let generation = || ringway.status()["generation"].as_u64().unwrap();
    let before = generation();
    for _ in 0..20 {
        // Beside the old pair, then in its place, key first: the moment between is a pair that is refused.
        certificates.issue("fresh", "DNS:one.test", "2");
        for kind in ["key", "pem"] {
            std::fs::rename(certificates.path(&format!("fresh.{kind}")), certificates.path(&format!("one.{kind}")))
                .unwrap();
        }
        pace(Duration::from_millis(150));
    }
    for load in loads {
        let text = String::from_utf8_lossy(&load.wait_with_output().unwrap().stdout).into_owned();
        assert!(text.contains(" 0 failed, 0 errored, 0 timeout") && text.contains(" 0 4xx, 0 5xx"), "{text}");
    }
    assert!(generation() >= before + 10, "{} reloads", generation() - before);
}
