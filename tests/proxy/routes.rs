//! Tables of many routes: each request comes to the first that matches, whatever else there is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::*;
use std::net::SocketAddr;

const ROUTES: usize = 10_000;

/// The conditions of a route: every kind that there is, turn by turn. None takes what another takes, but for what stands first.
fn conditions(index: usize) -> String {
    match index % 5 {
        0 => format!("host: h{index}.example.com"),
        1 => format!("host: \"*.w{index}.example.com\", path_prefix: /below"),
        2 => format!("path_prefix: /p{index}"),
        3 => format!("host: www.example.com, path: /exact/{index}, method: POST"),
        _ => {
            format!("host: www.example.com, path_prefix: /tenants, headers: [ {{ name: x-tenant, value: t{index} }} ]")
        }
    }
}

/// A request for it: method, target, host and field.
fn request(index: usize) -> (&'static str, String, String, String) {
    let get = |target: String, host: String| ("GET", target, host, "X-Other: 1".to_owned());
    match index % 5 {
        0 => get("/any".into(), format!("H{index}.Example.com.:80")),
        1 => get("/below/it?q=1".into(), format!("a.b.w{index}.example.com")),
        2 => get(format!("/p{index}/x"), "anybody".into()),
        3 => ("POST", format!("/exact/{index}?q"), "www.example.com:8080".into(), "Content-Length: 0".into()),
        _ => ("GET", "/tenants".into(), "www.example.com".into(), format!("x-tenant: t{index}")),
    }
}

/// Routes that say by their redirection which they are; what none of them takes goes to a service.
fn config(listen: SocketAddr, backend: SocketAddr, indices: impl Iterator<Item = usize>) -> String {
    let mut text =
        format!("admin: {{ address: \"ADMIN\" }}\nlisteners:\n  - name: web\n    address: \"{listen}\"\n    routes:\n");
    for index in indices {
        let conditions = conditions(index);
        text.push_str(&format!(
            "      - {{ match: {{ {conditions} }}, redirect: {{ status: 307, path: /is/{index} }} }}\n"
        ));
    }
    text.push_str("      - service: s\n");
    text.push_str(&format!("services: [ {{ name: s, backends: [ {{ id: a, address: \"{backend}\" }} ] }} ]\n"));
    text
}

/// The route that a request for this one comes to; `None`: to the service.
fn taken(listen: SocketAddr, index: usize) -> Option<usize> {
    let (method, target, host, field) = request(index);
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{field}\r\n\r\n");
    let answer = read_answer(&mut send(listen, request.as_bytes()), true).unwrap();
    match answer.status {
        307 => {
            let location = answer.header("location").unwrap();
            Some(location.split_once("/is/").unwrap().1.parse().unwrap())
        }
        status => {
            assert_eq!((status, answer.text().as_str()), (200, "a"), "{request}");
            None
        }
    }
}

#[test]
fn ten_thousand_routes_take_each_its_own_requests_and_a_reload_adds_and_removes_one() {
    let (backend, listen) = (Backend::echo("a"), free_address());
    let ringway = Ringway::start(&config(listen, backend.address, 0..ROUTES));
    let some = || (0..ROUTES).step_by(487).chain([1, 2, 3, 4, ROUTES - 1]);
    for index in some() {
        assert_eq!(taken(listen, index), Some(index), "{:?}", request(index));
    }
    assert_eq!(taken(listen, ROUTES), None);
    for removed in [0, 5_001, ROUTES - 1] {
        let added = ROUTES + removed % 5;
        let kept = (0..ROUTES).filter(|index| *index != removed).chain([added]);
        ringway.reconfigure(&config(listen, backend.address, kept));
        assert_eq!((taken(listen, removed), taken(listen, added)), (None, Some(added)));
        for index in some().filter(|index| *index != removed) {
            assert_eq!(taken(listen, index), Some(index), "{:?}", request(index));
        }
    }
}

#[test]
fn curl_comes_to_the_first_of_overlapping_routes_among_thousands() {
    if require("curl").is_none() {
        return;
    }
    let (backend, listen) = (Backend::echo("a"), free_address());
    // A wide route in front of narrower ones, and one behind them.
    let text = config(listen, backend.address, 0..2_000).replace(
        "    routes:\n",
        "    routes:\n      - { match: { host: \"*.example.com\", path_prefix: /first }, redirect: { path: /is/first } }\n",
    );
    let _ringway = Ringway::start(&text.replace(
        "      - service: s\n",
        "      - { match: { host: \"*.example.com\" }, redirect: { path: /is/last } }\n      - service: s\n",
    ));
    let location = |host: &str, path: &str, more: &[&str]| {
        let host = format!("Host: {host}");
        let url = format!("http://{listen}{path}");
        let arguments = [&["-s", "-i", "--max-time", "20", "-H", &host, &url], more].concat();
        let text = String::from_utf8(output("curl", &arguments).stdout).unwrap();
        let line =
            text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("location: ").map(str::to_owned));
        line.map_or_else(
            || text.lines().last().unwrap_or_default().to_owned(),
            |line| line.split_once("/is/").unwrap().1.to_owned(),
        )
    };
    for (host, path, more, expected) in [
        ("h5.example.com", "/first/x", &[][..], "first"),
        ("h5.example.com", "/firs", &[], "5"),
        ("X.W6.EXAMPLE.COM", "/below", &[], "6"),
        ("x.w6.example.com", "/belows", &[], "last"),
        ("w6.example.com", "/below", &[], "last"),
        ("www.example.com", "/exact/8", &["-X", "POST"], "8"),
        ("www.example.com", "/exact/8", &[], "last"),
        ("www.example.com", "/exact/8", &["-X", "PUT"], "last"),
        ("www.example.com", "/tenants/x", &["-H", "X-Tenant: t1999"], "1999"),
        ("www.example.com", "/tenants/x", &["-H", "X-Tenant: t1998"], "last"),
        ("h5.example.com", "/p7", &[], "5"),
        ("h9999.example.com", "/p7", &[], "7"),
        ("elsewhere", "/p7/x", &["--http2-prior-knowledge"], "7"),
        ("[::1]:80", "/p78", &[], "a"),
    ] {
        assert_eq!(location(host, path, more), expected, "{host} {path} {more:?}");
    }
}
