//! What an operator asks of one proxy that is everybody's: the control plane's topology is changed there, and the refusal says how.

use crate::common::control::{curl, ringway_said, service};
use crate::common::{Backend, OrNotYet, Ringway, echoes, free_address, get, targets, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn what_the_control_plane_says_is_changed_by_the_command_that_the_refusal_names() {
    let (api, peers, web) = (free_address(), free_address(), free_address());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let fleet = echoes(2);
    let ringway = Ringway::start(&format!(
        "workers: 1\nadmin: {{ address: ADMIN, socket: {{ path: {socket:?} }} }}\n\
         control: {{ embedded: true, directory: {:?}, member: {{ directory: {:?}, address: \"{api}\", peer_address: \"{peers}\" }} }}\n\
         listeners: [ {{ name: web, address: \"{web}\", service: s }} ]\n\
         services: [ {{ name: own, backends: [ {{ id: x, address: \"{}\" }} ] }} ]\n",
        directory.path().join("proxy"),
        directory.path().join("member"),
        fleet[0].1.address,
    ));
    let url = format!("http://{api}");
    wait_for("the member", || (curl(&url, "GET", "/readyz", &Value::Null).status == 200).then_some(()));
    let text = json!({ "text": service(&targets(&fleet)) });
    assert_eq!(curl(&url, "PUT", "/v1/objects/document/main", &text).status, 200);
    wait_for("the service", || (get(web, "/")?.status == 200).then_some(()));
    let file = ringway.config.to_str().unwrap();
    let unix = format!("unix:{}", socket.display());
    let generation = || ringway.status()["generation"].clone();
    let registered = Backend::echo("c");
    let address = registered.address.to_string();
    let added = ringway_said(&["control", "--members", &url, "backend", "add", "s", "c", &address]);
    assert!(added.status.success(), "{added:?}");
    let served =
        || -> BTreeSet<String> { (0..40).map(|key| get(web, &format!("/{key}")).or_not_yet().text()).collect() };
    wait_for("all three", || (served().len() == 3).then_some(()));
    let (before, was) = (std::fs::read_to_string(file).unwrap(), generation());
    for (args, named) in [
        (&["backend", "drain", "s", "c"][..], "`ringway control backend drain s c`"),
        (&["backend", "ready", "s", "c"], "`ringway control backend ready s c`"),
        (&["backend", "maintenance", "s", "c", "--force"], "`ringway control backend maintenance s c`"),
        (&["backend", "weight", "s", "c", "7"], "`ringway control backend weight s c 7`"),
        (&["spread", "s", "/hot", "--owners", "2", "--for", "1m"], "`hot_keys`"),
        // What is written in a text is changed in that.
        (
            &["backend", "drain", "s", "a"],
            "\"a\" is not registered, but stands in control plane: document/main: write it there",
        ),
        (&["backend", "drain", "own", "x"], "\"x\" is not registered: write it into this proxy's own file"),
    ] {
        let said = ringway_said(&[args, &["--admin", &unix]].concat());
        assert!(said.status.code() == Some(1) && said.error().contains(named), "{args:?} {said:?}");
    }
    // Nor is anything saved of it.
    let said = ringway_said(&["backend", "drain", "s", "a", "--save", "--config", file, "--admin", &unix]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!((std::fs::read_to_string(file).unwrap(), generation()), (before, was));
    let listed = ringway_said(&["overrides", "--admin", &unix]);
    assert!(listed.text().contains("all is as in the file"), "{listed:?}");
    // The command that it names does it.
    let said = ringway_said(&["backend", "drain", "s", "c", "--admin", &unix]).error();
    let command = said.split('`').nth(1).unwrap().to_owned();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let done = ringway_said(&[&words[..], &["--members", &url]].concat());
    assert!(done.status.success(), "{command}: {done:?}");
    wait_for("the drain", || (!served().contains("c")).then_some(()));
}
