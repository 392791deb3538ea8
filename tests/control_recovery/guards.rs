//! What is refused before it is agreed on.

use super::common::control::{Cluster, service};
use super::common::free_address;

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
    let out = cluster.control(&["apply", &new, "--yes", "--max-move", "10"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let said = format!("{}{}", out.text(), out.error());
    assert!(said.contains("service t has its backends") && said.contains("100.00 % of the keys move"), "{said}");
    assert_eq!(cluster.control(&["get", "document/main"]).text(), old);
}
