//! The control plane behind TLS: who may do what, authorities of one's own, certificates that change while it runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::control::{curl_tls, ringway_said as ringway, run, service};
use crate::common::*;
use std::process::{Child, Command, Stdio};

#[test]
fn certificates_say_who_may_do_what() {
    if require("openssl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let openssl = |args: &[&str]| {
        let out = run("openssl", args);
        assert!(out.status.success(), "{}", out.error());
    };
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let make = |name: &str, subject: &str, rest: &[&str]| {
        let (key, pem) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        openssl(&[&["req", "-x509", "-subj", subject, "-keyout", &key, "-out", &pem][..], &new, rest].concat());
    };
    make("ca", "/CN=authority", &[]);
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    let issued = ["-CA", &ca, "-CAkey", &ca_key, "-addext", "basicConstraints=critical,CA:FALSE"];
    let leaf = |name: &str, names: &str| {
        make(name, &format!("/CN={name}"), &[&issued[..], &["-addext", names]].concat());
    };
    leaf("member", "subjectAltName=IP:127.0.0.1");
    leaf("deploy", "subjectAltName=DNS:deploy.test");
    leaf("proxy", "subjectAltName=DNS:proxy.test");
    leaf("stranger", "subjectAltName=DNS:stranger.test");
    make("forged", "/CN=deploy", &["-addext", "subjectAltName=DNS:deploy.test"]);
    let (api, peers, listen) = (free_address(), free_address(), free_address());
    let member = at("member.yaml");
    let text = format!(
        "control:\n  member:\n    directory: {:?}\n    address: \"{api}\"\n    peer_address: \"{peers}\"\n    \
         tls: {{ certificate: {pem:?}, key: {key:?}, client_ca: {ca:?} }}\n    \
         peer_tls: {{ ca: {ca:?}, certificate: {pem:?}, key: {key:?} }}\n    \
         clients: [ {{ name: deploy.test, role: operate }}, {{ name: proxy.test, role: register }} ]\n",
        at("data"),
        pem = at("member.pem"),
        key = at("member.key"),
    );
    std::fs::write(&member, text).unwrap();
    assert!(ringway(&["control", "init", "-c", &member]).status.success());
    let _member = Running(
        Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["control", "run", "-c", &member])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let url = format!("https://{api}");
    let ask = |who: &str, method: &str, path: &str, body: &str| {
        let mut args = vec!["-s", "--max-time", "5", "--cacert", &ca, "-X", method, "-d", body];
        let (pem, key) = (at(&format!("{who}.pem")), at(&format!("{who}.key")));
        if !who.is_empty() {
            args.extend(["--cert", &pem, "--key", &key]);
        }
        let target = format!("{url}{path}");
        args.push(&target);
        run("curl", &args)
    };
    wait_for("the member", || (ask("", "GET", "/readyz", "").text() == "ready\n").then_some(()));
    let backend = r#"{"address":"10.0.0.1:80"}"#;
    let put = |who: &str| ask(who, "PUT", "/v1/objects/backend/other/a", backend).json();
    assert_eq!(put("")["code"], "no_token");
    assert_eq!(put("stranger")["code"], "no_token");
    assert_eq!(put("proxy")["revision"], 1);
    let document = r#"{"text":"services: []"}"#;
    assert_eq!(ask("proxy", "PUT", "/v1/objects/document/main", document).json()["code"], "wrong_role");
    assert_eq!(ask("deploy", "PUT", "/v1/objects/document/main", document).json()["revision"], 2);
    assert!(!ask("forged", "GET", "/v1/status", "").status.success(), "the handshake fails");
    let history = ask("deploy", "GET", "/v1/history", "").json();
    assert_eq!(history["revisions"][0]["author"], "deploy.test");
    // The command line and a proxy, with certificates of their own.
    let control = |args: &[&str]| {
        let (pem, key) = (at("deploy.pem"), at("deploy.key"));
        ringway(
            &[&["control", "--members", &url, "--ca", &ca, "--certificate", &pem, "--key-file", &key], args].concat(),
        )
    };
    let upstream = Backend::echo("a");
    let file = at("fleet.yaml");
    std::fs::write(&file, service(&[("a", upstream.address)])).unwrap();
    let out = control(&["apply", &file, "--yes", "--direct"]);
    assert!(out.status.success(), "{out:?}");
    let proxy = Ringway::start(&format!(
        "admin: {{ address: ADMIN }}\ncontrol: {{ directory: {:?}, members: [ {url:?} ], \
         tls: {{ ca: {ca:?}, certificate: {:?}, key: {:?} }} }}\n\
         listeners: [ {{ name: web, address: \"{listen}\", service: s }} ]\n",
        at("stored"),
        at("proxy.pem"),
        at("proxy.key"),
    ));
    wait_for("the service", || (get(listen, "/")?.status == 200).then_some(()));
    wait_for("the connection", || (proxy.metric("ringway_topology_connected ") == 1.0).then_some(()));
    // Members do not speak with who has no certificate of theirs.
    let peer = format!("https://{peers}/raft/ask");
    assert!(!run("curl", &["-s", "--cacert", &ca, "--http2", "-d", "x", &peer]).status.success());
}

#[test]
fn what_would_speak_in_the_clear_on_a_network_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("member.yaml");
    std::fs::write(&file, "control: { member: { address: \"0.0.0.0:9700\", advertise: \"a:9700\" } }\n").unwrap();
    let out = ringway(&["check", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    let text = out.text();
    assert!(text.contains("control_exposed") && text.contains("add `tls`"), "{text}");
}

/// A member behind TLS whose certificates the command line makes.
struct Guarded {
    directory: std::path::PathBuf,
    api: std::net::SocketAddr,
    child: Option<Running>,
}

impl Guarded {
    fn new(root: &std::path::Path, name: &str) -> Self {
        let directory = root.join(name);
        std::fs::create_dir(&directory).unwrap();
        let (api, peers) = (free_address(), free_address());
        let at = |file: &str| directory.join(file);
        let text = format!(
            "control:\n  member:\n    name: {name}\n    directory: {:?}\n    address: \"{api}\"\n    peer_address: \"{peers}\"\n    \
             tls: {{ certificate: {pem:?}, key: {key:?}, client_ca: {:?} }}\n    \
             peer_tls: {{ ca: {:?}, certificate: {pem:?}, key: {key:?} }}\n    \
             tokens: [ {{ name: first, role: admin, file: {:?} }} ]\n    \
             clients: [ {{ name: deploy, role: operate }} ]\n",
            at("data"),
            at("clients.pem"),
            at("members.pem"),
            root.join("admin.token"),
            pem = at("m.pem"),
            key = at("m.key"),
        );
        std::fs::write(at("member.yaml"), text).unwrap();
        Self { directory, api, child: None }
    }

    fn at(&self, file: &str) -> String {
        self.directory.join(file).to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        format!("https://{}", self.api)
    }

    fn run(&mut self) {
        self.child = None;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.at("log")).unwrap();
        let child: Child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["control", "run", "-c", &self.at("member.yaml")])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(Running(child));
    }

    /// What its API shows, in hexadecimal digits.
    fn serial(&self) -> Option<String> {
        let address = self.api.to_string();
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-showcerts"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let path = self.at("shown.pem");
        std::fs::write(&path, &shown.stdout).unwrap();
        serial(&path)
    }

    /// Its files by those of `from`, each whole at once.
    fn replace(&self, from: &str, files: &[(&str, &str)]) {
        for (old, new) in files {
            std::fs::copy(format!("{from}/{new}"), self.at("next")).unwrap();
            std::fs::rename(self.at("next"), self.at(old)).unwrap();
        }
    }
}

fn serial(path: &str) -> Option<String> {
    let out = run("openssl", &["x509", "-in", path, "-noout", "-serial"]);
    out.status.success().then(|| out.text().trim().to_owned())
}

#[test]
fn an_authority_of_ones_own_and_certificates_that_change_while_members_run() {
    if require("openssl").is_none() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let mut members = ["m1", "m2", "m3"].map(|name| Guarded::new(root.path(), name));
    let done = |args: &[&str]| {
        let out = ringway(&[&["control"], args].concat());
        assert!(out.status.success(), "{}", out.error());
        out.text()
    };
    let (authority, token) = (at("authority"), at("admin.token"));
    let told = done(&["init", "-c", &members[0].at("member.yaml"), "--cluster", "shop", "--authority", &authority]);
    assert!(told.contains("certificate of m1 for 127.0.0.1"), "{told}");
    let (ca, first) = (format!("{authority}/members.pem"), members[0].url());
    assert!(run("openssl", &["verify", "-CAfile", &ca, &members[0].at("m.pem")]).status.success());
    for secret in [members[0].at("m.key"), format!("{authority}/members.key"), token.clone()] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secret).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    members[0].run();
    wait_for("the first member", || {
        curl_tls(&first, &ca, &token, "GET", "/readyz", "").filter(|said| said.status == 200)
    });
    for member in &mut members[1..] {
        done(&[
            "join",
            "-c",
            &member.at("member.yaml"),
            "--authority",
            &authority,
            "--members",
            &first,
            "--ca",
            &ca,
            "--token-file",
            &token,
        ]);
        member.run();
    }
    let voters = || {
        let list = curl_tls(&first, &ca, &token, "GET", "/v1/members", "")?.json();
        let voters = list["members"].as_array()?.iter().filter(|member| member["voter"] == true).count();
        (voters == 3).then_some(())
    };
    wait_for("three voters", voters);
    // A second init does not touch what is there; a client's certificate holds for its role.
    let again = ringway(&["control", "init", "-c", &members[0].at("member.yaml"), "--authority", &authority]);
    assert!(again.error().contains("belongs to member"), "{}", again.error());
    done(&["authority", "client", &authority, "--name", "deploy", "--out", &at("clients")]);
    let (pem, key) = (at("clients/deploy.pem"), at("clients/deploy.key"));
    let identity = ["control", "--members", &first, "--ca", &ca, "--certificate", &pem, "--key-file", &key];
    let add = ringway(&[&identity[..], &["backend", "add", "s", "a", "10.0.0.1:80"]].concat());
    assert!(add.status.success(), "{}", add.error());
    let denied = ringway(&[&identity[..], &["token", "create", "x", "--role", "admin"]].concat());
    assert!(denied.error().contains("wrong_role"), "{}", denied.error());
    // A proxy, with that certificate.
    let proxy = Ringway::start(&format!(
        "admin: {{ address: ADMIN }}\ncontrol: {{ directory: {:?}, members: [ {first:?} ], \
         tls: {{ ca: {:?}, certificate: {pem:?}, key: {key:?} }} }}\n",
        at("stored"),
        at("clients/members.pem"),
    ));
    let connected = || (proxy.metric("ringway_topology_connected ") == 1.0).then_some(());
    wait_for("the proxy to follow", connected);

    // Another authority: both are trusted for a while, certificates change, then the old one goes.
    let next = at("next-authority");
    done(&["authority", "member", &next, "--name", "m", "--host", "127.0.0.1", "--out", &at("issued")]);
    let both = [&ca, &format!("{next}/members.pem")].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(at("both.pem"), both).unwrap();
    let before = members[0].serial().unwrap();
    for member in &members {
        member.replace(&at(""), &[("members.pem", "both.pem")]);
    }
    // Half of a change is none: the old certificate is still shown, and the log says why.
    members[0].replace(&at("issued"), &[("m.pem", "m.pem")]);
    let log = members[0].at("log");
    wait_for("a warning", || std::fs::read_to_string(&log).ok().filter(|log| log.contains("the old ones stay")));
    assert_eq!(members[0].serial(), Some(before.clone()));
    let after = serial(&at("issued/m.pem")).unwrap();
    assert_ne!(before, after);
    for member in &members {
        member.replace(&at("issued"), &[("m.key", "m.key"), ("m.pem", "m.pem")]);
        wait_for("the new certificate", || member.serial().filter(|serial| *serial == after));
    }
    for member in &members {
        member.replace(&next, &[("members.pem", "members.pem")]);
    }
    let ca = format!("{next}/members.pem");
    std::fs::copy(&ca, at("clients/members.pem")).unwrap();
    // Killed and started again, members find each other by the new certificates alone.
    for member in &mut members {
        member.run();
        let url = member.url();
        wait_for("the member", || curl_tls(&url, &ca, &token, "GET", "/readyz", "").filter(|said| said.status == 200));
    }
    for (index, member) in members.iter().enumerate() {
        let path = format!("/v1/objects/backend/s/b{index}");
        wait_for("a write", || {
            let said = curl_tls(&member.url(), &ca, &token, "PUT", &path, r#"{"address":"10.0.0.2:80"}"#)?;
            (said.status == 200).then_some(())
        });
    }
    let revision = curl_tls(&first, &ca, &token, "GET", "/v1/status", "").unwrap().json()["revision"].as_f64().unwrap();
    wait_for("the proxy to follow again", || {
        (proxy.metric("ringway_topology_revision ") >= revision).then(connected).flatten()
    });
    let metrics = curl_tls(&members[0].url(), &ca, &token, "GET", "/metrics", "").unwrap().body;
    let end = metrics.lines().find_map(|line| line.strip_prefix("ringway_control_certificate_not_after_seconds "));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let days = (end.unwrap().parse::<f64>().unwrap() - now) / 86_400.0;
    assert!((364.0..366.0).contains(&days), "{days}");
}
