//! TLS sessions are resumed, by clients at listeners and by Ringway at backends: driven by openssl and nginx.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::peers::*;
use crate::common::*;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

/// What openssl prints of one request over TLS.
fn connect(front: SocketAddr, more: &str) -> String {
    // Tickets of TLS 1.3 come after the handshake: an answer tells that they have.
    let script = format!(
        "printf 'GET / HTTP/1.1\\r\\nHost: one.test\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -connect {front} -servername one.test {more} -ign_eof 2>&1"
    );
    String::from_utf8_lossy(&output("sh", &["-c", &script]).stdout).into_owned()
}

#[test]
fn a_client_resumes_its_session_in_either_version_at_any_worker_again_and_again() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "2");
    let (backend, front) = (Backend::echo("a"), free_address());
    let entry = certificates.entry("one");
    let listeners =
        format!("  - {{ name: web, address: \"{front}\", service: s, tls: {{ certificates: [ {entry} ] }} }}\n");
    let _ringway = Ringway::start(&config(&listeners, &service("s", "", &[("a", backend.address)])));
    for version in ["-tls1_2", "-tls1_3"] {
        let session = certificates.text(&format!("session{version}"));
        let first = connect(front, &format!("{version} -sess_out {session}"));
        assert!(first.contains("New, TLS") && first.contains("HTTP/1.1 200"), "{first}");
        // Each resumption gives a session for the next one. Two workers share the listener.
        for _ in 0..4 {
            let again = connect(front, &format!("{version} -sess_in {session} -sess_out {session}"));
            assert!(again.contains("Reused, TLS") && again.contains("HTTP/1.1 200"), "{version} {again}");
        }
    }
}

/// An nginx with TLS of one version that answers with `$ssl_session_reused`: `r` where the session was resumed, `.` where not.
fn tells_of_reuse(certificates: &Certificates, version: &str) -> (SocketAddr, Running) {
    let address = free_address();
    let path = certificates.text(&format!("nginx {}", address.port()));
    std::fs::create_dir(&path).unwrap();
    let config = format!(
        "daemon off; master_process off; pid \"{path}/pid\"; error_log \"{path}/error.log\"; events {{}}\n\
         http {{ access_log off; client_body_temp_path \"{path}/b\"; proxy_temp_path \"{path}/p\"; fastcgi_temp_path \"{path}/f\";\n\
         uwsgi_temp_path \"{path}/u\"; scgi_temp_path \"{path}/s\"; ssl_protocols {version};\n\
         server {{ listen {address} ssl; ssl_certificate \"{}\"; ssl_certificate_key \"{}\";\n\
         location / {{ return 200 \"$ssl_protocol $ssl_session_reused\"; }} }} }}\n",
        certificates.text("one.pem"),
        certificates.text("one.key"),
    );
    let file = format!("{path}/nginx.conf");
    std::fs::write(&file, config).unwrap();
    let log = format!("{path}/start.log");
    let child = Command::new("nginx").args(["-c", &file, "-e", &log]).stderr(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    wait_for("nginx", || TcpStream::connect(address).ok());
    (address, running)
}

#[test]
fn sessions_with_each_backend_are_resumed_in_either_version_though_all_have_one_name() {
    let (Some(certificates), Some(())) = (Certificates::new(), require("nginx")) else { return };
    certificates.issue("one", "DNS:one.test", "2");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let backends = [(); 2].map(|()| tells_of_reuse(&certificates, version));
        let front = free_address();
        // No connection is kept: each request makes a handshake.
        let tls = format!(
            "balance: {{ policy: round_robin }}, pool: {{ idle_max: 0 }}, tls: {{ sni: one.test, ca: \"{}\" }},",
            certificates.text("ca.pem")
        );
        let listeners = format!("  - {{ name: web, address: \"{front}\", service: s }}\n");
        let services = service("s", &tls, &[("a", backends[0].0), ("b", backends[1].0)]);
        let config = config(&listeners, &services).replace("workers: 2", "workers: 1");
        let _ringway = Ringway::start(&config);
        let answers: Vec<String> = (0..8).map(|_| get(front, "/").unwrap().text()).collect();
        let (first, later) = (format!("{version} ."), format!("{version} r"));
        assert!(answers[..2].iter().all(|answer| *answer == first), "{answers:?}");
        assert!(answers[2..].iter().all(|answer| *answer == later), "{answers:?}");
    }
}
