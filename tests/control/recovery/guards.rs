//! What is refused before it is agreed on.

use crate::common::control::{Cluster, FleetProxy, Said, curl, service};
use crate::common::{free_address, wait_for};
use serde_json::{Value, json};

/// Two backends that need not answer.
fn document(name: &str) -> String {
    let addresses = [free_address(), free_address()];
    service(&[("a", addresses[0]), ("b", addresses[1])]).replace("name: s,", &format!("name: {name},"))
}

#[test]
fn max_move_sees_a_renamed_service_whose_routes_are_in_proxies_files() {
    let cluster = Cluster::of(1, "");
    let old = document("s");
    assert!(cluster.control(&["apply", &cluster.write("old.yaml", &old), "--yes"]).status.success());
    let new = cluster.write("new.yaml", &old.replace("name: s,", "name: t,"));
    // The guards would refuse it too.
    let out = cluster.control(&["apply", &new, "--yes", "--force", "--max-move", "10"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let said = format!("{}{}", out.text(), out.error());
    assert!(said.contains("service t has its backends") && said.contains("100.00 % of the keys move"), "{said}");
    assert_eq!(cluster.control(&["get", "document/main"]).text(), old);
}

fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn a_certificate_is_checked_as_a_proxy_would_and_goes_out_in_two_phases() {
    let cluster = Cluster::of(1, "");
    let file = |name: &str, text: &str| cluster.write(name, text);
    let (one, other) = (pair("a.example"), pair("b.example"));
    let files = [file("a.pem", &one.0), file("a.key", &one.1), file("b.pem", &other.0), file("b.key", &other.1)];
    let [a_pem, a_key, b_pem, b_key] = files.each_ref().map(String::as_str);
    // Another's key, what is no certificate, what is no key.
    let junk = file("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (certificate, key) in [(a_pem, b_key), (junk.as_str(), a_key), (a_pem, a_pem), (a_key, a_key)] {
        for direct in [&["--direct"][..], &[], &["--direct", "--force"]] {
            let out = cluster.control(&[&["certificate", "put", "web", certificate, key], direct].concat());
            assert_eq!(out.status.code(), Some(1), "{certificate} {key}: {out:?}");
            assert!(out.error().contains("certificate/web"), "{}", out.error());
        }
    }
    let proxy = FleetProxy::start(&cluster, "p1", "");
    let out = cluster.control(&["certificate", "put", "web", a_pem, a_key]);
    assert!(out.status.success(), "{out:?}");
    assert!(cluster.control(&["certificate", "put", "api", b_pem, b_key, "--direct"]).status.success());
    let rollouts = curl(&cluster.urls[0], "GET", "/v1/rollouts", &Value::Null).json();
    assert_eq!(rollouts["rollouts"].as_array().map(Vec::len), Some(1), "the first was shown to proxies: {rollouts}");
    // One name's certificate with another's key, and a certificate that is used.
    let listen = free_address();
    let listener = |certificate: &str, key: &str| {
        let tls =
            format!("{{ certificates: [ {{ certificate: \"control:{certificate}\", key: \"control:{key}\" }} ] }}");
        format!("{}listeners: [ {{ name: tls, address: \"{listen}\", service: s, tls: {tls} }} ]\n", document("s"))
    };
    let out = cluster.control(&["apply", &file("mixed.yaml", &listener("web", "api")), "--yes"]);
    assert!(out.status.code() == Some(1) && out.error().contains("the key of control:api"), "{out:?}");
    assert!(cluster.control(&["apply", &file("good.yaml", &listener("web", "web")), "--yes"]).status.success());
    let out = cluster.control(&["certificate", "remove", "web", "--direct"]);
    assert!(out.status.code() == Some(1) && out.error().contains("document/main"), "who uses it is named: {out:?}");
    assert_eq!(proxy.ringway.status()["topology"]["stuck"], Value::Null);
    // A backend in two phases; what it is about is its own until it is over.
    let out = cluster.control(&["backend", "add", "s", "c", "127.0.0.1:9", "--stages", "50,100", "--bake", "0"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(cluster.control(&["get", "backend/s/c", "--json"]).json()["object"]["backend"]["weight"], 100);
    let mut slow =
        cluster.command(&["backend", "weight", "s", "c", "50", "--stages", "1", "--bake", "600"]).spawn().unwrap();
    let id = wait_for("the rollout", || {
        let rollouts = curl(&cluster.urls[0], "GET", "/v1/rollouts", &Value::Null).json();
        let list = rollouts["rollouts"].as_array()?.clone();
        list.iter().find(|rollout| rollout["phase"].get("stage").is_some()).map(|rollout| rollout["id"].to_string())
    });
    let out = cluster.control(&["backend", "drain", "s", "c"]);
    assert!(out.status.code() == Some(1) && out.error().contains("is under way"), "{out:?}");
    assert!(cluster.control(&["backend", "add", "s", "d", "127.0.0.1:9"]).status.success(), "others come and go");
    assert!(cluster.control(&["rollouts", &id, "--abort"]).status.success());
    let _ = slow.wait();
    assert!(cluster.control(&["backend", "drain", "s", "c"]).status.success());
}

#[test]
fn every_document_is_checked_whether_proxies_read_it_or_not() {
    let cluster = Cluster::of(1, "");
    let put = |name: &str, text: &str| curl(&cluster.urls[0], "PUT", name, &json!({ "text": text }));
    for (name, text) in [
        ("document/draft", "nonsense: 7\n"),
        ("document/draft", "services: [ { name: s, balance: { policy: none-such } } ]\n"),
        ("document/draft", "just words"),
        ("service/api", "{ name: other }"),
        ("service/api", "{ nonsense: 7 }"),
        ("document/main", "listeners: 7"),
    ] {
        let answer = put(&format!("/v1/objects/{name}"), text);
        let problem = answer.json();
        assert_eq!(problem["code"], "invalid", "{name} {text}: {answer:?}");
        let finding = problem["findings"][0].as_str().unwrap().to_owned();
        assert!(finding.contains(&format!("{name}:1:")), "the line and the column: {finding}");
    }
    let good = put("/v1/objects/document/draft", &document("s"));
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(put("/v1/objects/picture/x", "a").status, 400);
    let more = curl(&cluster.urls[0], "PUT", "/v1/objects/document/x", &json!({ "text": "", "more": 1 }));
    assert_eq!(more.status, 400, "{more:?}");
}

#[test]
fn guards_judge_what_the_fleet_would_run_whatever_object_changes_it() {
    let cluster = Cluster::of(1, ", guards: { loss_percent: 40 }");
    let address = free_address();
    let of = |count: usize| {
        let list = [("a", address), ("b", address), ("c", address), ("d", address)];
        service(&list[..count])
    };
    let file = |name: &str, text: &str| cluster.write(name, text);
    assert!(cluster.control(&["apply", &file("three.yaml", &of(3)), "--yes"]).status.success());
    let refused = |out: Said, code: &str| {
        assert!(out.status.code() == Some(1) && out.error().contains(code), "{code}: {out:?}");
    };
    let one = file("one.yaml", &of(1));
    for direct in [&["--direct"][..], &[]] {
        refused(cluster.control(&[&["apply", &one, "--yes"], direct].concat()), "of its weight at once");
    }
    let other = file("other.yaml", &of(3).replace("name: s,", "name: t,"));
    refused(cluster.control(&["apply", &other, "--yes", "--direct"]), "force it");
    let main = "/v1/objects/document/main";
    let ask = |method: &str, path: &str, body: &Value| curl(&cluster.urls[0], method, path, body);
    let put = ask("PUT", main, &json!({ "text": of(1) }));
    assert_eq!((put.status, &put.json()["code"]), (409, &json!("guard_loss")), "{put:?}");
    assert_eq!(ask("DELETE", main, &Value::Null).json()["code"], "guard_empty");
    // Registered ones count as written ones do, and the share is the operator's: a third is less than 40 %.
    assert!(cluster.control(&["apply", &file("two.yaml", &of(2)), "--yes"]).status.success());
    assert!(cluster.control(&["backend", "add", "s", "x", "127.0.0.1:9"]).status.success());
    assert!(cluster.control(&["backend", "add", "s", "y", "127.0.0.1:9"]).status.success());
    assert!(cluster.control(&["backend", "drain", "s", "x"]).status.success());
    refused(cluster.control(&["apply", &file("none.yaml", "services: [ { name: s } ]\n"), "--yes"]), "force it");
    assert!(cluster.control(&["apply", &one, "--yes", "--force"]).status.success());
    assert_eq!(ask("DELETE", &format!("{main}?force=true"), &Value::Null).status, 200);
}
