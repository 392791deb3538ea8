//! Each condition of a rule alone: what is refused for one of several reasons is refused for each of them, and is taken without all.

use ringway_config::{Loaded, load_str};

const BACKENDS: &str = "backends: [ { id: a, address: \"10.0.0.1:80\" }, { id: b, address: \"10.0.0.2:80\" } ]";

fn file(top: &str, listener: &str, services: &str) -> String {
    format!("{top}\nlisteners:\n  - {{ name: l, address: \"127.0.0.1:8080\", {listener} }}\nservices:\n{services}")
}

fn service(name: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("  - {{ name: {name}{comma}{more}, {BACKENDS} }}\n")
}

/// What is found, in the order of the file.
fn codes(text: &str) -> Vec<&'static str> {
    match load_str("file", text, &|_| None) {
        Ok(loaded) => loaded.warnings.iter().map(|finding| finding.code).collect(),
        Err(found) => found.0.iter().map(|finding| finding.code).collect(),
    }
}

fn loaded(text: &str) -> Loaded {
    load_str("file", text, &|_| None).unwrap_or_else(|found| panic!("{text}\n{found}"))
}

fn with_listener(listener: &str) -> Vec<&'static str> {
    codes(&file("", listener, &(service("s", "") + &service("t", ""))))
}

#[test]
fn a_tcp_listener_has_no_condition_but_the_name() {
    for (route, found) in [
        ("service: s", 0),
        ("match: { host: a.test }, service: s", 0),
        ("match: { path: /a }, service: s", 1),
        ("match: { path_prefix: /a }, service: s", 1),
        ("match: { method: GET }, service: s", 1),
        ("match: { headers: [ { name: a } ] }, service: s", 1),
        ("split: [ { service: s }, { service: t } ]", 1),
        ("timeout: 1s, service: s", 1),
        ("redirect: { path: /a }", 1),
    ] {
        let found_here = with_listener(&format!("protocol: tcp, routes: [ {{ {route} }} ]"));
        assert_eq!(found_here, vec!["tcp_conditions"; found], "{route}");
    }
}

#[test]
fn a_udp_listener_has_one_service_and_no_condition_at_all() {
    for (route, found) in [
        ("service: s", 0),
        ("match: { host: a.test }, service: s", 1),
        ("match: { path: /a }, service: s", 1),
        ("match: { method: GET }, service: s", 1),
        ("match: { headers: [ { name: a } ] }, service: s", 1),
        ("split: [ { service: s }, { service: t } ]", 1),
        ("timeout: 1s, service: s", 1),
    ] {
        let found_here = with_listener(&format!("protocol: udp, routes: [ {{ {route} }} ]"));
        assert_eq!(found_here, vec!["udp_conditions"; found], "{route}");
    }
    let two = "protocol: udp, routes: [ { match: { host: a.test }, service: s }, { service: t } ]";
    assert_eq!(with_listener(two), ["udp_conditions"]);
    let tls = "protocol: udp, service: s, tls: { certificates: [ { certificate: a, key: b } ] }";
    assert_eq!(with_listener(tls), ["udp_conditions"]);
    assert_eq!(with_listener("protocol: udp, service: s, proxy_protocol: [ 10.0.0.0/8 ]"), ["udp_conditions"]);
    assert_eq!(with_listener("protocol: udp, service: s, udp: { idle: 0 }"), ["bad_duration"]);
    assert_eq!(with_listener("protocol: udp, service: s, when_full: reject"), ["never_acts"]);
    for header in ["proxy_protocol: v1", "proxy_protocol: v2", "tls: {}"] {
        let text = file("", "protocol: udp, service: s", &service("s", header));
        assert_eq!(codes(&text), ["udp_conditions"], "{header}");
        let text = file("", "protocol: tcp, service: s", &service("s", header));
        assert_eq!(codes(&text), [""; 0], "{header}");
    }
}

#[test]
fn keys_are_held_against_what_each_listener_can_give() {
    let sources = [
        ("{ header: a }", [true, false, false]),
        ("{ cookie: a }", [true, false, false]),
        ("{ query: a }", [true, false, false]),
        ("{ host: {} }", [true, false, false]),
        ("{ path: {} }", [true, false, false]),
        ("{ uri: {} }", [true, false, false]),
        ("{ method: {} }", [true, false, false]),
        ("{ regex: { pattern: \"(a)\", uri: {} } }", [true, false, false]),
        ("{ sni: {} }", [true, true, false]),
        ("{ source_ip: {} }", [true, true, true]),
    ];
    for (source, gives) in sources {
        for (protocol, gives) in ["http", "tcp", "udp"].into_iter().zip(gives) {
            for key in [source.to_owned(), format!("{{ all: [ {source} ] }}")] {
                let listener = format!("protocol: {protocol}, service: s");
                let found = if gives { vec![] } else { vec!["key_out_of_reach"] };
                for more in [
                    format!("balance: {{ hash_key: [ {key} ] }}"),
                    format!("rate_limit: {{ requests: 1, key: [ {key} ] }}"),
                ] {
                    let text = file("", &listener, &service("s", &more));
                    assert_eq!(codes(&text), found, "{protocol} {more}");
                }
                // Nobody looks at keys there, which is said of the file as a whole.
                let text =
                    file("", &listener, &service("s", &format!("balance: {{ policy: first, hash_key: [ {key} ] }}")));
                assert_eq!(codes(&text), ["unused_hash_key"], "{protocol} {key}");
            }
        }
    }
    // Where one listener can and another cannot, the file works.
    let both = file("", "service: s", &service("s", "balance: { hash_key: [ { path: {} }, { sni: {} } ] }"))
        .replace("services:", "  - { name: raw, address: \"127.0.0.1:9\", protocol: tcp, service: s }\nservices:");
    assert_eq!(loaded(&both).warnings.iter().map(|found| found.code).collect::<Vec<_>>(), ["key_out_of_reach"]);
    let cookie = "balance: { affinity_cookie: { secret: 0123456789abcdef } }";
    for (protocol, found) in [("http", vec![]), ("tcp", vec!["key_out_of_reach"]), ("udp", vec!["key_out_of_reach"])] {
        let text = file("", &format!("protocol: {protocol}, service: s"), &service("s", cookie));
        assert_eq!(codes(&text), found, "{protocol}");
        // Whose cookie nobody asks for is nobody's fault, nor is one that a listener for requests leads to besides.
        let text = file("", &format!("protocol: {protocol}, service: s"), &(service("s", "") + &service("t", cookie)));
        assert_eq!(codes(&text), [""; 0], "{protocol}");
    }
}

#[test]
fn listeners_lead_where_their_routes_their_splits_and_their_names_say() {
    // A key that no datagram has is found wherever a datagram may come to.
    let key = "balance: { hash_key: [ { header: a } ] }";
    for (listener, found) in [
        ("protocol: tcp, service: t", 1),
        ("protocol: tcp, routes: [ { match: { host: a.test }, service: t }, { service: s } ]", 1),
        ("protocol: tcp, routes: [ { match: { host: a.test }, service: s }, { service: t } ]", 1),
        ("protocol: tcp, service: s", 0),
        ("protocol: udp, service: t", 1),
        ("protocol: udp, service: s", 0),
    ] {
        let text = file("", listener, &(service("s", "") + &service("t", key)));
        assert_eq!(codes(&text), vec!["key_out_of_reach"; found], "{listener}");
    }
    // With a listener for requests beside it, it is a warning, unless that one only redirects.
    for (routes, is_error) in [
        ("{ service: t }", false),
        ("{ split: [ { service: s }, { service: t } ] }", false),
        ("{ redirect: { path: /a } }", true),
        ("{ service: s }", true),
    ] {
        let text = file("", &format!("routes: [ {routes} ]"), &(service("t", key) + &service("s", "")))
            .replace("services:", "  - { name: raw, address: \"127.0.0.1:9\", protocol: tcp, service: t }\nservices:");
        assert_eq!(load_str("file", &text, &|_| None).is_err(), is_error, "{routes}");
    }
}

#[test]
fn a_redirection_has_one_part_at_least_and_each_is_plain() {
    let redirect = |part: &str| with_listener(&format!("routes: [ {{ redirect: {{ {part} }} }} ]"));
    for part in ["scheme: https", "host: a.test", "port: 1", "path: /a"] {
        assert_eq!(redirect(part), [""; 0], "{part}");
    }
    assert_eq!(redirect("status: 302"), ["empty_redirect"]);
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(redirect(&format!("status: {status}, port: 1")), [""; 0]);
    }
    for status in [300, 304, 305, 306, 309] {
        assert_eq!(redirect(&format!("status: {status}, port: 1")), ["bad_redirect"], "{status}");
    }
    for host in ["", "a b", "a<b", "a>b", "a\\\"b"] {
        assert_eq!(redirect(&format!("host: \"{host}\"")), ["bad_redirect"], "{host}");
    }
    let both = |more: &str| with_listener(&format!("routes: [ {{ redirect: {{ path: /a }}, {more} }} ]"));
    assert_eq!(both("service: s"), ["redirect_and_service"]);
    assert_eq!(both("split: [ { service: s }, { service: t } ]"), ["redirect_and_service"]);
    assert_eq!(both("priority: high"), ["redirect_and_priority"]);
}

#[test]
fn media_types_are_two_tokens_or_a_token_and_all() {
    let with = |text: &str| with_listener(&format!("service: s, compress: {{ types: [ \"{text}\" ] }}"));
    for text in ["text/html", "text/*", "Application/LD+json"] {
        assert_eq!(with(text), [""; 0], "{text}");
    }
    for text in [
        "",
        "text",
        "*/*",
        "*",
        "text/",
        "/html",
        "te xt/*",
        "te xt/html",
        "text/ht ml",
        "text/h*",
        "t*/html",
        "text/html; a=b",
    ] {
        assert_eq!(with(text), ["bad_media_type"], "{text}");
    }
}

#[test]
fn names_of_hosts_are_names_alone() {
    let admin =
        |host: &str| codes(&file(&format!("admin: {{ hosts: [ \"{host}\" ] }}"), "service: s", &service("s", "")));
    let route = |host: &str| with_listener(&format!("routes: [ {{ match: {{ host: \"{host}\" }}, service: s }} ]"));
    for host in ["a", "a.test", "A.Test"] {
        assert_eq!((admin(host), route(host)), (vec![], vec![]), "{host}");
    }
    for host in ["", "a b", "a/b", "a:1", "a*"] {
        assert_eq!((admin(host), route(host)), (vec!["bad_host"], vec!["bad_host"]), "{host}");
    }
    for (host, found) in
        [("*.a.test", 0), ("[::1]", 0), ("a.test.", 0), ("*.", 1), (".", 1), ("*.*.test", 1), ("::1", 1)]
    {
        assert_eq!(route(host), vec!["bad_host"; found], "{host}");
    }
}

#[test]
fn who_cannot_take_traffic_is_told_for_each_reason() {
    let one = |more: &str| {
        let text = format!("  - {{ name: s, backends: [ {{ id: a, address: \"10.0.0.1:80\", {more} }} ] }}\n");
        codes(&file("", "service: s", &text))
    };
    for more in ["weight: 0", "drain: true", "maintenance: true"] {
        assert_eq!(one(more), ["nothing_takes_traffic"], "{more}");
    }
    assert_eq!(one("weight: 1"), [""; 0]);
    assert_eq!(one("tier: 1"), ["empty_tier"]);
    assert_eq!(one("requests_max: 1"), [""; 0]);
    // With a control plane, others may come; without weight, no detector has anybody to compare.
    let fleet = "control: { members: [ \"http://127.0.0.1:9700\" ] }";
    let backup = "  - { name: s, backends: [ { id: a, address: \"10.0.0.1:80\", tier: 1 } ] }\n  - { name: t }\n";
    assert_eq!(codes(&file(fleet, "service: s", backup)), [""; 0]);
    assert_eq!(codes(&file("", "service: s", "  - { name: s }\n")), ["empty_service"]);
    let none = format!(
        "  - {{ name: s, outlier: {{ latency: {{}}, success_rate: {{}} }}, {} }}\n",
        BACKENDS.replace(":80\"", ":80\", weight: 0")
    );
    assert_eq!(codes(&file("", "service: s", &none)), ["nothing_takes_traffic"]);
    let few = service("s", "outlier: { latency: { min_hosts: 9 } }");
    assert_eq!(codes(&file("", "service: s", &few)), ["never_acts"]);
    assert_eq!(codes(&file(fleet, "service: s", &few)), [""; 0], "others may be registered");
    let aware = service("s", "zone_aware: true");
    assert_eq!(codes(&file("", "service: s", &aware)), ["no_zone"]);
    assert_eq!(codes(&file("zone: z", "service: s", &aware)), [""; 0]);
    assert_eq!(codes(&file(fleet, "service: s", &aware)), [""; 0]);
    let zones = "  - { name: s, zone_aware: true, backends: [ { id: a, address: \"10.0.0.1:1\", zone: z }, \
                 { id: b, address: \"10.0.0.1:2\", zone: y }, { id: c, address: \"10.0.0.1:3\", tier: 3 } ] }\n";
    let levels = |text: &str| loaded(text).config.services[0].backends.iter().map(|one| one.level).collect::<Vec<_>>();
    assert_eq!(levels(&file("zone: z", "service: s", zones)), [0, 1, 7]);
    assert_eq!(levels(&file("zone: z", "service: s", &zones.replace("zone_aware: true, ", ""))), [0, 0, 6]);
}

#[test]
fn policies_that_do_not_fit_their_backends_are_told_from_the_first_that_does_not() {
    let many = |policy: &str, count: usize| {
        let backends: Vec<String> =
            (1..=count).map(|index| format!("{{ id: b{index}, address: \"10.0.0.{index}:80\" }}")).collect();
        let text = format!("  - {{ name: s, balance: {{ {policy} }}, backends: [ {} ] }}\n", backends.join(", "));
        codes(&file("", "service: s", &text))
    };
    assert_eq!((many("policy: hrw", 32), many("policy: hrw", 33)), (vec![], vec!["slow_policy"]));
    assert_eq!(many("policy: maglev, table_size: 211", 2), [""; 0]);
    assert_eq!(many("policy: maglev, table_size: 211", 3), ["small_table"]);
    assert_eq!(many("policy: maglev, table_size: 212", 2), ["bad_table_size"]);
    assert_eq!(many("policy: peak_ewma, decay: 0", 2), ["bad_duration"]);
}

#[test]
fn members_of_a_control_plane_can_be_reached_and_are_not_exposed() {
    let member =
        |member: &str| codes(&file(&format!("control: {{ member: {{ {member} }} }}"), "service: s", &service("s", "")));
    assert_eq!(member(""), [""; 0]);
    for advertise in ["a.test:1", "\"[::1]:1\""] {
        assert_eq!(member(&format!("advertise: {advertise}, peer_advertise: {advertise}")), [""; 0], "{advertise}");
    }
    for advertise in ["a.test", "\":1\"", "\"a.test:\"", "\"a.test:99999\"", "\"a.test:x\""] {
        assert_eq!(member(&format!("advertise: {advertise}")), ["bad_address"], "{advertise}");
    }
    let tls = "tls: { certificate: a, key: b }";
    let peers = "peer_tls: { ca: a, certificate: b, key: c }";
    assert_eq!(member("address: \"10.0.0.1:9700\""), ["control_exposed"]);
    assert_eq!(member("peer_address: \"10.0.0.1:9701\""), ["control_exposed"]);
    assert_eq!(
        member(&format!("address: \"10.0.0.1:9700\", {tls}, peer_address: \"10.0.0.1:9701\", {peers}")),
        [""; 0]
    );
    assert_eq!(member(&format!("address: \"0.0.0.0:9700\", {tls}")), ["no_advertise"]);
    assert_eq!(member(&format!("address: \"0.0.0.0:9700\", {tls}, advertise: \"a.test:9700\"")), [""; 0]);
    assert_eq!(member(&format!("peer_address: \"0.0.0.0:9701\", {peers}")), ["no_advertise"]);
    assert_eq!(member("address: \"127.0.0.1:9701\""), ["duplicate_address"]);
    assert_eq!(member("address: \"127.0.0.1:0\", peer_address: \"127.0.0.1:0\""), [""; 0]);
    let source = |source: &str| member(&format!("sources: [ {{ name: d, {source} }} ]"));
    assert_eq!(source("dns: { service: s, name: n, port: 1, interval_min: 1s, interval_max: 1s }"), [""; 0]);
    assert_eq!(source("dns: { service: s, name: n, port: 1, interval_min: 2s, interval_max: 1s }"), ["out_of_range"]);
    assert_eq!(source("dns: { service: s, name: n, port: 1, interval_min: 0 }"), ["bad_duration"]);
    assert_eq!(source("dns: { service: s, name: n }"), ["no_port"]);
    assert_eq!(source("dns: { service: s, name: n, record: srv }"), [""; 0]);
    assert_eq!(source("dns: { service: s, name: n, record: srv, port: 1 }"), ["unused_port"]);
    assert_eq!(source("directory: { path: \"\" }"), ["bad_path"]);
    assert_eq!(source("directory: { path: a }, dns: { service: s, name: n, port: 1 }"), ["source_kind"]);
    let embedded = |more: &str| codes(&file(&format!("control: {{ {more} }}"), "service: s", &service("s", "")));
    assert_eq!(embedded("embedded: true"), ["no_member"]);
    assert_eq!(embedded("embedded: true, member: {}"), [""; 0]);
}

#[test]
fn each_listener_has_an_address_of_its_own_and_datagrams_have_theirs() {
    let two = |first: &str, second: &str| {
        let text = file("", "service: s", &service("s", ""));
        let list =
            format!("  - {{ name: a, {first}, service: s }}\n  - {{ name: b, {second}, service: s }}\nservices:");
        codes(&text.replace("services:", &list))
    };
    let at = |address: &str, more: &str| format!("address: \"{address}\"{more}");
    let udp = ", protocol: udp";
    assert_eq!(two(&at("10.0.0.1:1", ""), &at("10.0.0.1:1", "")), ["duplicate_address"]);
    assert_eq!(two(&at("10.0.0.1:1", udp), &at("10.0.0.1:1", udp)), ["duplicate_address"]);
    assert_eq!(two(&at("10.0.0.1:1", ""), &at("10.0.0.1:1", udp)), [""; 0]);
    assert_eq!(two(&at("10.0.0.1:1", ""), &at("10.0.0.1:2", "")), [""; 0]);
    assert_eq!(two(&at("10.0.0.1:0", ""), &at("10.0.0.1:0", "")), [""; 0], "whichever is free");
    assert_eq!(two(&at("127.0.0.1:9901", udp), &at("10.0.0.1:1", "")), [""; 0], "the admin's, of the other kind");
    assert_eq!(two(&at("127.0.0.1:9901", ""), &at("10.0.0.1:1", "")), ["duplicate_address"]);
    // All of IPv6 takes IPv4 as well, unless another has the port.
    assert_eq!(two(&at("[::]:1", ""), &at("10.0.0.1:2", "")), [""; 0]);
    assert_eq!(two(&at("[::]:1", ""), &at("10.0.0.1:1", "")), ["v6_only"]);
    assert_eq!(two(&at("[::]:1", ", v6_only: true"), &at("10.0.0.1:1", "")), [""; 0]);
    assert_eq!(two(&at("[::]:1", ""), &at("10.0.0.1:1", udp)), [""; 0]);
    assert_eq!(two(&at("[::]:1", udp), &at("10.0.0.1:1", udp)), ["v6_only"]);
    assert_eq!(two(&at("[::]:0", ""), &at("10.0.0.1:0", "")), [""; 0]);
    assert_eq!(two(&at("[::]:9901", ""), &at("10.0.0.1:1", "")), ["v6_only"], "the admin's");
    assert_eq!(two(&at("[::]:9901", udp), &at("10.0.0.1:1", "")), [""; 0]);
    assert_eq!(two(&at("10.0.0.1:1", ", v6_only: true"), &at("10.0.0.1:2", "")), ["bad_v6_only"]);
    assert_eq!(two(&at("[::1]:1", ", v6_only: true"), &at("10.0.0.1:2", "")), [""; 0]);
    assert_eq!(two(&at("[::1]:1", ", v6_only: false"), &at("10.0.0.1:2", "")), ["bad_v6_only"]);
}

#[test]
fn files_that_are_named_are_those_that_would_be_opened() {
    let names = |top: &str| loaded(&file(top, "service: s", &service("s", ""))).files.len();
    for (top, count) in [
        ("access_log: { format: off, target: a.log }", 0),
        ("access_log: { format: text, target: a.log }", 1),
        ("access_log: { format: text, target: stdout }", 0),
        ("access_log: { format: json, target: stderr }", 0),
    ] {
        assert_eq!(names(top), count, "{top}");
    }
    assert_eq!(codes(&file("access_log: { target: a.log }", "service: s", &service("s", ""))), [""; 0]);
    assert_eq!(names("admin: { enabled: false, address: \"0.0.0.0:1\" }"), 0);
    let admin = "tokens: [ { name: t, role: read, file: t } ], tls: { certificate: c, key: k, client_ca: a }";
    assert_eq!(names(&format!("admin: {{ {admin} }}")), 3);
    assert_eq!(names(&format!("admin: {{ enabled: false, {admin} }}")), 0);
    let tls = "tls: { certificates: [ { certificate: \"control:a\", key: b.key } ] }, service: s";
    let fleet = "control: { members: [ \"http://127.0.0.1:9700\" ] }";
    let config = loaded(&file(fleet, tls, &service("s", ""))).config;
    assert_eq!((config.awaited_certificate(), config.files().len()), (Some("a"), 1));
    let config = loaded(&file("", "service: s", &service("s", ""))).config;
    assert_eq!((config.awaited_certificate(), config.files().len()), (None, 0));
}

#[test]
fn a_section_with_nothing_behind_its_name_is_there_all_the_same() {
    let text = service("s", "").replace("{ name: s, ", "name: s\n    health:\n      tcp:\n    ").replace(" }\n", "\n");
    let text = file("", "service: s", &text.replace(" ] }", " ]"));
    let health = loaded(&text).config.services[0].health.clone();
    assert!(health.is_some_and(|health| matches!(health.kind, ringway_config::model::CheckKind::Tcp)), "{text}");
    // A list or a text with nothing behind it is absent.
    let text = file("zone:", "service: s", &service("s", ""));
    assert_eq!(loaded(&text).config.zone, None);
}

#[test]
fn levels_have_tables_of_their_own_and_only_a_level_that_is_too_full_leaves_anybody_without_an_entry() {
    let with = |levels: &str| {
        let text =
            format!("  - {{ name: s, balance: {{ policy: maglev, table_size: 997 }}, backends: [ {levels} ] }}\n");
        codes(&file("", "service: s", &text))
    };
    let backend = |id: &str, weight: u32, tier: u32| {
        format!("{{ id: {id}, address: \"10.0.0.{}:80\", weight: {weight}, tier: {tier} }}", id.as_bytes()[0])
    };
    let message = |levels: &str| {
        let text =
            format!("  - {{ name: s, balance: {{ policy: maglev, table_size: 997 }}, backends: [ {levels} ] }}\n");
        loaded(&file("", "service: s", &text)).warnings[0].message.clone()
    };
    let light = ["b", "c", "d"].map(|id| backend(id, 1, 0));
    for (count, said) in [(1, "\"b\": no entry"), (2, "\"b\" and 1 more: no entry"), (3, "\"b\" and 2 more: no entry")]
    {
        let message = message(&format!("{}, {}", backend("a", 1600, 0), light[..count].join(", ")));
        assert!(message.starts_with(said), "{message}");
    }
    // The lightest comes first when the heaviest has taken all; in a level of its own it has all.
    assert_eq!(with(&[backend("a", 1600, 0), backend("b", 1, 0)].join(", ")), ["no_table_entry"]);
    assert_eq!(with(&[backend("a", 1600, 0), backend("b", 1, 1)].join(", ")), [""; 0]);
    assert_eq!(with(&[backend("a", 1600, 0), backend("c", 1, 1), backend("b", 1, 0)].join(", ")), ["no_table_entry"]);
}

#[test]
fn what_could_not_be_read_is_not_missed_as_well() {
    let found = with_listener("routes: [ { split: [ { service: s, weigth: 1 } ] } ]");
    assert_eq!(found, ["unknown_field"]);
    let found = with_listener("routes: [ { split: [ 7 ] } ]");
    assert_eq!(found, ["wrong_type"]);
    assert_eq!(with_listener("routes: [ { split: [] } ]"), ["no_service"]);
    assert_eq!(with_listener("routes: [ 7 ]"), ["wrong_type"]);
    assert_eq!(with_listener("service: s, tls: { certificates: [ 7 ] }"), ["wrong_type"]);
    assert_eq!(with_listener("service: s, tls: { certificates: [] }"), ["no_certificate"]);
    assert_eq!(with_listener("service: s, errors: [ { status: [ 500 ], bdy: x } ]"), ["unknown_field"]);
    assert_eq!(with_listener("service: s, errors: [ { status: [ 500 ] } ]"), ["bad_error_answer"]);
    assert_eq!(codes(&file("", "service: s", "  - 7\n")), ["wrong_type"]);
}

#[test]
fn a_page_is_read_from_its_file_unless_nothing_but_the_texts_is_to_be_looked_at() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let errors = |path: &str| format!("service: s, errors: [ {{ status: [ 500 ], file: \"{path}\" }} ]");
    let body = |text: &str| match &loaded(text).config.listeners[0].protocol {
        ringway_config::model::Protocol::Http(http) => http.errors[0].body.clone(),
        other => panic!("{other:?}"),
    };
    let text = file("", &errors(page), &service("s", ""));
    assert_eq!(body(&text), include_bytes!("../Cargo.toml"));
    assert_eq!(codes(&file("", &errors("/nowhere/at/all"), &service("s", ""))), ["unreadable_file"]);
    let fleet = ringway_config::FleetConfig {
        documents: vec![ringway_config::FleetText {
            name: "document".into(),
            text: file("", &errors("/nowhere/at/all"), &service("s", "")),
        }],
        ..ringway_config::FleetConfig::default()
    };
    let checked = ringway_config::check_fleet(&fleet).unwrap_or_else(|found| panic!("{found}"));
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
}

#[test]
fn beyond_loopback_the_admin_listener_wants_credentials_or_a_word_that_it_needs_none() {
    let found = |admin: &str| codes(&file(&format!("admin: {{ {admin} }}"), "service: s", &service("s", "")));
    let (token, away) = ("tokens: [ { name: t, role: read, file: t } ]", "address: \"0.0.0.0:1\"");
    let tls = |more: &str| format!("tls: {{ certificate: c, key: k, {more} }}");
    let clients = tls("client_ca: a, clients: [ { name: x, role: operate } ]");
    for (admin, code) in [
        (away.to_owned(), "admin_exposed"),
        (format!("{away}, {}", tls("")), "admin_exposed"),
        (format!("{away}, {}", tls("client_ca: a")), "admin_exposed"),
        (format!("{away}, socket: {{ path: s }}"), "admin_exposed"),
        (format!("{away}, {token}"), "admin_in_the_clear"),
        (tls("clients: [ { name: x, role: read } ]"), "no_client_ca"),
        (tls("client_ca: a, clients: [ { name: x, role: read }, { name: x, role: read } ]"), "duplicate_name"),
        ("tokens: [ { name: \"a b\", role: read, file: t } ]".to_owned(), "bad_name"),
        ("tokens: [ { name: t, role: read, file: t }, { name: t, role: read, file: u } ]".to_owned(), "duplicate_name"),
        ("tokens: [ { name: t, role: admin, file: t } ]".to_owned(), "unknown_choice"),
        ("anonymous: operate".to_owned(), "unknown_choice"),
        ("socket: { path: \"\" }".to_owned(), "bad_path"),
        (format!("socket: {{ path: {} }}", "s".repeat(108)), "bad_path"),
        ("socket: { path: s, mode: 888 }".to_owned(), "bad_mode"),
        ("socket: { path: s, mode: 01777 }".to_owned(), "bad_mode"),
        ("socket: { path: s, mode: rw }".to_owned(), "bad_mode"),
        ("socket: { path: s }, anonymous: read".to_owned(), "unused_admin_field"),
        ("socket: { path: s }, hosts: [ a, b ]".to_owned(), "unused_admin_field"),
        (format!("socket: {{ path: s }}, {}", tls("")), "unused_admin_field"),
    ] {
        assert_eq!(found(&admin), [code], "{admin}");
    }
    for admin in [
        format!("{away}, anonymous: read"),
        format!("{away}, anonymous: none"),
        format!("{away}, {clients}"),
        format!("{away}, {token}, {}", tls("")),
        format!("address: \"[::1]:1\", {token}"),
        format!("socket: {{ path: {}, mode: 0660 }}", "s".repeat(107)),
        format!("enabled: false, {away}"),
        format!("socket: {{ path: s }}, {token}"),
        "address: \"127.0.0.1:9\", socket: { path: s }, anonymous: read".to_owned(),
    ] {
        assert_eq!(found(&admin), [""; 0], "{admin}");
    }
    let config = loaded(&file("admin: { socket: { path: s, mode: 0o640 } }", "service: s", &service("s", ""))).config;
    assert_eq!(config.admin.unwrap().socket.unwrap().mode, 0o640);
}
