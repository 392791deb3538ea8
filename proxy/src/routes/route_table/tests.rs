use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use ringway_config::model::HeaderMatch;
use ringway_http1::{Limits, parse_request};

fn route(host: Option<HostMatch>, path: Option<PathMatch>) -> Route {
    Route {
        host,
        path,
        methods: Vec::new(),
        headers: Vec::new(),
        service: 0,
        split: None,
        actions: None,
        priority: None,
    }
}

fn exact(host: &str) -> Option<HostMatch> {
    Some(HostMatch::Exact(host.into()))
}

fn below(suffix: &str) -> Option<HostMatch> {
    Some(HostMatch::Suffix(suffix.into()))
}

fn path(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Exact(path.into()))
}

fn prefix(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Prefix(path.into()))
}

fn header(name: &str, value: Option<&str>) -> HeaderMatch {
    HeaderMatch { name: name.into(), value: value.map(Into::into) }
}

fn parsed(request: &str) -> Option<RequestHead> {
    let mut head = RequestHead::default();
    let limits = Limits { head_bytes_max: 1 << 20, fields_max: 256 };
    matches!(parse_request(request.as_bytes(), &limits, &mut head), Ok(true)).then_some(head)
}

/// What the list means: the first of its routes whose every condition holds. Each is written out once more, in the simplest form.
fn searched(routes: &[Route], request: &str, head: &RequestHead, secure: bool) -> Option<usize> {
    let text = |span: ringway_message::Span| std::str::from_utf8(span.of(request.as_bytes())).unwrap();
    let port = if secure { ":443" } else { ":80" };
    // Without a port of the scheme's own, without the dot of the root, in lower case.
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(':').unwrap_or(&authority);
        let authority = authority.strip_suffix(port).unwrap_or(authority);
        authority.strip_suffix('.').unwrap_or(authority).replace(".:", ":")
    };
    let whole = text(head.authority).to_ascii_lowercase();
    let no_port = whole.trim_end_matches(|byte: char| byte.is_ascii_digit());
    let host = no_port.strip_suffix(':').unwrap_or(&whole);
    let host = if host.len() > 1 { host.strip_suffix('.').unwrap_or(host) } else { host };
    let path = Some(text(head.path)).filter(|path| !path.is_empty()).unwrap_or("/");
    routes.iter().position(|route| {
        let host_holds = match &route.host {
            None => true,
            Some(HostMatch::Exact(wanted)) => host == wanted.to_ascii_lowercase(),
            Some(HostMatch::Suffix(wanted)) => {
                host.strip_suffix(wanted.to_ascii_lowercase().as_str()).is_some_and(|before| !before.is_empty())
            }
        };
        let path_holds = match &route.path {
            None => true,
            Some(PathMatch::Exact(wanted)) => path == wanted,
            Some(PathMatch::Prefix(wanted)) => path
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || wanted.ends_with('/')),
        };
        let method = text(head.method_span);
        host_holds
            && path_holds
            && (route.methods.is_empty() || route.methods.iter().any(|wanted| wanted == method))
            && route.headers.iter().all(|wanted| {
                head.fields.iter().filter(|field| text(field.name).eq_ignore_ascii_case(&wanted.name)).any(|field| {
                    match &wanted.value {
                        None => true,
                        Some(value) if wanted.name == "host" => plain(text(head.authority)) == plain(value),
                        Some(value) => text(field.value) == value,
                    }
                })
            })
    })
}

/// What a table finds, which is the same with an index and without.
fn found(routes: &[Route], request: &str, secure: bool) -> Option<usize> {
    let head = parsed(request).unwrap_or_else(|| panic!("{request}"));
    let tables = [
        RouteTable::with_few(routes, 0, usize::MAX),
        RouteTable::with_few(routes, usize::MAX, usize::MAX),
        RouteTable::new(routes),
        RouteTable::with_few(routes, 0, 1),
    ];
    let [indexed, few, usual, by_field] = tables.map(|table| table.find(routes, request.as_bytes(), &head, secure));
    assert_eq!(indexed, few, "{request}");
    assert_eq!(indexed, usual, "{request}");
    assert_eq!(indexed, by_field, "{request}");
    assert_eq!(indexed, searched(routes, request, &head, secure), "{request}");
    indexed
}

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn prefix_matches_whole_segments() {
    let routes = [route(None, prefix("/v1")), route(None, prefix("/v2/")), route(None, path("/v3"))];
    for (target, expected) in [
        ("/v1", Some(0)),
        ("/v1/x", Some(0)),
        ("/v1?x", Some(0)),
        ("/v10", None),
        ("/v2", None),
        ("/v2/", Some(1)),
        ("/v2/x", Some(1)),
        ("/v3", Some(2)),
        ("/v3/", None),
        ("/V3", None),
        ("//v1", None),
    ] {
        assert_eq!(found(&routes, &get(target, "a"), false), expected, "{target}");
    }
    assert_eq!(found(&[route(None, prefix("/"))], &get("/anything", "a"), false), Some(0));
}

#[test]
fn host_is_compared_without_port_case_and_root_dot() {
    let routes = [route(exact("a.example"), None), route(below(".example"), None), route(exact("[::1]"), None)];
    for (host, expected) in [
        ("A.example.:80", Some(0)),
        ("b.example", Some(1)),
        ("a.b.EXAMPLE:8080", Some(1)),
        (".example", None),
        ("example", None),
        ("a.example.org", None),
        ("[::1]:80", Some(2)),
        ("[::1]", Some(2)),
        ("[::2]", None),
    ] {
        assert_eq!(found(&routes, &get("/", host), false), expected, "{host}");
    }
}

#[test]
fn the_first_route_that_matches_wins_not_the_most_specific() {
    let routes = [
        route(exact("b.example"), prefix("/x/y")),
        route(below(".example"), prefix("/x")),
        route(None, path("/x/y")),
        route(exact("a.example"), None),
        route(exact("a.example"), path("/x/y")),
        route(below(".a.example"), None),
        route(None, None),
        route(exact("c.other"), path("/")),
    ];
    for (host, target, expected) in [
        ("b.example", "/x/y/z", 0),
        ("b.example", "/x", 1),
        ("a.example", "/x/y", 1),
        ("other", "/x/y", 2),
        ("a.example", "/z", 3),
        ("b.a.example", "/z", 5),
        ("b.a.example", "/x", 1),
        ("c.other", "/", 6),
    ] {
        assert_eq!(found(&routes, &get(target, host), false), Some(expected), "{host} {target}");
    }
}

#[test]
fn what_a_route_asks_for_beside_host_and_path_decides_among_those_that_are_left() {
    let of = |methods: &[&str], headers: &[(&str, Option<&str>)]| Route {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        headers: headers.iter().map(|(name, value)| header(name, *value)).collect(),
        ..route(exact("a"), prefix("/x"))
    };
    let routes = [
        of(&["POST", "PUT"], &[]),
        of(&[], &[("x-tenant", Some("one"))]),
        of(&["GET"], &[("x-tenant", Some("two")), ("x-beta", None)]),
        of(&[], &[("host", Some("A:80"))]),
        of(&[], &[]),
        of(&["GET"], &[]),
    ];
    let ask = |method: &str, fields: &str, secure: bool| {
        found(&routes, &format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), secure)
    };
    assert_eq!(ask("PUT", "", false), Some(0));
    assert_eq!(ask("GET", "X-Tenant: one\r\n", false), Some(1));
    assert_eq!(ask("GET", "X-Tenant: two\r\nX-Beta: \r\n", false), Some(2));
    assert_eq!(ask("GET", "X-Tenant: two\r\n", false), Some(3));
    assert_eq!(ask("GET", "X-Tenant: two\r\n", true), Some(4), "port 80 is another server where 443 is the usual one");
}

#[test]
fn of_several_fields_of_one_name_any_meets_a_condition_in_whatever_order_they_come() {
    let of = |headers: &[(&str, Option<&str>)]| Route {
        headers: headers.iter().map(|(name, value)| header(name, *value)).collect(),
        ..route(None, prefix("/x"))
    };
    let routes = [
        of(&[("x-canary", Some("1")), ("x-canary", Some("2"))]),
        of(&[("x-canary", Some("1"))]),
        of(&[("x-canary", None)]),
        of(&[]),
    ];
    for (fields, expected) in [
        ("X-Canary: 0\r\nx-canary: 1\r\n", 1),
        ("X-Canary: 1\r\nx-canary: 0\r\n", 1),
        ("X-Canary: 2\r\nx-canary: 0\r\nx-canary: 1\r\n", 0),
        // A value is one, commas and all.
        ("X-Canary: 0, 1\r\n", 2),
        ("X-Canary: \r\n", 2),
        ("", 3),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(found(&routes, &request, false), Some(expected), "{fields}");
        let head = parsed(&request).unwrap();
        let unmet = |route| RouteTable::unmet(route, request.as_bytes(), &head, false);
        assert_eq!(routes.iter().position(|route| unmet(route).is_empty()), Some(expected), "{fields}");
    }
}

/// More lists of candidates than are merged at a time, of one field's values: each is gone through once.
#[test]
fn a_request_of_many_values_of_a_field_comes_to_the_first_route_that_asks_for_one_of_them() {
    let asks = |value: usize| Route {
        headers: vec![header("x-a", Some(&value.to_string())), header("x-never", None)],
        ..route(None, prefix("/x"))
    };
    let mut routes: Vec<Route> = (0..400).map(|index| asks(index % 40)).collect();
    for (index, value) in [(390, 31), (395, 7)] {
        routes[index] = Route { headers: vec![header("x-a", Some(&value.to_string()))], ..asks(value) };
    }
    for (values, expected) in [((0..40).collect::<Vec<_>>(), 390), ((0..40).rev().collect(), 390), (vec![7, 7, 8], 395)]
    {
        let fields: String = values.iter().map(|value| format!("X-A: {value}\r\n")).collect();
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(found(&routes, &request, false), Some(expected), "{values:?}");
    }
}

/// More lists of candidates than are merged at a time, most of them of nested prefixes: each list's first is tested in its turn.
#[test]
fn any_number_of_prefixes_above_a_path_are_tried_in_the_order_of_the_file() {
    let depths = 40;
    let nested = |depth: usize| "/a".repeat(depth + 1);
    let asks = |value: &str| Route {
        headers: vec![header("x-a", Some(value))],
        ..route(None, prefix(&nested(value.parse().unwrap())))
    };
    // The deepest first, then the other way round.
    for order in [(0..depths).rev().collect::<Vec<usize>>(), (0..depths).collect()] {
        let mut routes: Vec<Route> = order.iter().map(|depth| asks(&depth.to_string())).collect();
        routes.extend(order.iter().map(|depth| route(None, prefix(&nested(*depth)))));
        for wanted in [0, 7, 8, 9, 20, depths - 1] {
            let request = format!("GET {} HTTP/1.1\r\nHost: a\r\nX-A: {wanted}\r\n\r\n", nested(depths));
            let expected = order.iter().position(|depth| *depth == wanted);
            assert_eq!(found(&routes, &request, false), expected, "{wanted}");
        }
        assert_eq!(found(&routes, &get(&nested(depths), "a"), false), Some(depths));
    }
}

#[test]
fn a_path_or_a_host_of_64_kilobytes_leads_where_it_should() {
    let deep = "/a".repeat(2_000);
    let mut routes: Vec<Route> = (1..=2_000).map(|depth| route(None, path(&"/a".repeat(depth)))).collect();
    routes.push(route(below(".x"), prefix(&deep)));
    assert_eq!(found(&routes, &get(&"/a".repeat(32_000), &format!("{}x", "a.".repeat(32_000))), false), Some(2_000));
    assert_eq!(found(&routes, &get(&"/a".repeat(32_000), "x"), false), None);
    assert_eq!(found(&routes, &get(&deep, "x"), false), Some(1_999));
}

#[test]
fn routes_that_nobody_comes_to_take_no_room_among_the_candidates() {
    let mut routes: Vec<Route> = (0..1_000).map(|_| route(exact("a"), prefix("/x"))).collect();
    routes[3].methods = vec!["GET".into()];
    let table = RouteTable::with_few(&routes, 0, MANY);
    assert_eq!(table.index.unwrap().candidates.len(), 1);
    routes[0].methods = vec!["PUT".into()];
    assert_eq!(RouteTable::with_few(&routes, 0, MANY).index.unwrap().candidates.len(), 2);
}

#[test]
fn thousands_of_routes_that_a_field_tells_apart_are_looked_up_and_their_order_holds() {
    let of = |headers: &[(&str, Option<&str>)]| Route {
        headers: headers.iter().map(|(name, value)| header(name, *value)).collect(),
        ..route(None, prefix("/api"))
    };
    let mut routes: Vec<Route> = (0..2_000).map(|index| of(&[("x-tenant", Some(&format!("t{index}")))])).collect();
    // Before tenant 1,000: one that asks for another field. Behind all: one that takes everything, and one that nobody comes to.
    routes[999] = of(&[("x-beta", None)]);
    routes.push(of(&[("x-tenant", Some("t7")), ("x-beta", None)]));
    routes.push(of(&[]));
    routes.push(of(&[("x-tenant", Some("late"))]));
    let ask = |fields: &str| found(&routes, &format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), false);
    for (fields, expected) in [
        ("X-Tenant: t0\r\n", 0),
        ("X-Tenant: t998\r\nX-Beta: 1\r\n", 998),
        ("X-Tenant: t1000\r\n", 1_000),
        ("X-Tenant: t1000\r\nX-Beta: 1\r\n", 999),
        ("X-Tenant: t7\r\nX-Beta: 1\r\n", 7),
        ("X-Beta: 1\r\n", 999),
        ("", 2_001),
        ("X-Tenant: late\r\n", 2_001),
        ("X-Tenant: T0\r\n", 2_001),
        // Any of several counts, and the order is the file's.
        ("X-Tenant: t5\r\nX-Tenant: t4\r\n", 4),
        ("X-Tenant: t4\r\nX-Tenant: t5\r\n", 4),
        ("X-Tenant: none\r\nX-Tenant: t8\r\n", 8),
        ("X-Tenant: t1001\r\nX-Beta: 1\r\nX-Tenant: t1000\r\n", 999),
        ("X-Tenant: t4, t5\r\n", 2_001),
    ] {
        assert_eq!(ask(fields), Some(expected), "{fields}");
    }
    // One of its value, one that asks for something else, and the last one's two values.
    let index = RouteTable::new(&routes).index.unwrap();
    assert!(index.by_field.len() == 1 && index.tested <= 4, "{}", index.tested);
    // A field that few ask for tells nothing apart.
    let mixed: Vec<Route> =
        (0..100).map(|index| if index % 5 == 0 { of(&[("x-a", Some("1"))]) } else { of(&[("x-b", None)]) }).collect();
    assert!(RouteTable::new(&mixed).index.unwrap().by_field.is_empty());
}

/// Ten times the routes take ten times the room, whatever tells them apart.
#[test]
fn a_table_takes_room_by_the_number_of_its_routes() {
    type Make = fn(usize) -> Route;
    let kinds: [(Make, usize); 4] = [
        (|index| route(exact(&format!("t{index}.example.com")), prefix("/api")), 200),
        (|index| route(None, path(&format!("/api/v1/s{index}/items"))), 200),
        (|index| route(below(&format!(".t{index}.example.com")), None), 200),
        (|index| Route { headers: vec![header("x-a", Some(&index.to_string()))], ..route(None, prefix("/api")) }, 10),
    ];
    for (make, most) in kinds {
        for count in [1_000, 10_000] {
            let routes: Vec<Route> = (0..count).map(make).collect();
            let index = RouteTable::new(&routes).index.unwrap();
            let lists = size_of_val(&*index.any_path) + size_of_val(&*index.candidates);
            let bytes = index.hosts.bytes() + index.paths.bytes() + lists;
            assert!(bytes <= count * most, "{} bytes a route", bytes / count);
        }
    }
}

#[test]
fn a_table_of_nothing_finds_nothing() {
    assert_eq!(found(&[], &get("/", "a"), false), None);
    assert!(!RouteTable::new(&[]).looks_at_paths());
    assert!(RouteTable::new(&[route(None, None), route(None, path("/"))]).looks_at_paths());
}

/// Names of few labels and letters, so that they meet; the addresses too.
fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[abB](\\.[ab]){0,3}", 1 => "\\[::[1a](:[1F])?\\]", 1 => "10\\.0\\.0\\.[12]"]
}

fn a_host() -> impl Strategy<Value = Option<HostMatch>> {
    prop_oneof![
        2 => Just(None),
        4 => a_name().prop_map(|name| Some(HostMatch::Exact(name))),
        3 => "(\\.[abA]){1,3}".prop_map(|suffix| Some(HostMatch::Suffix(suffix))),
    ]
}

fn a_path() -> impl Strategy<Value = String> {
    prop_oneof![6 => "(/[ab]{1,2}){1,4}/?", 1 => Just("/".to_owned()), 1 => "//[ab]?", 1 => "/%61|/A|/[ab];c|/\\.\\./a"]
}

fn a_route() -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        2 => Just(None),
        2 => a_path().prop_map(|path| Some(PathMatch::Exact(path))),
        5 => a_path().prop_map(|path| Some(PathMatch::Prefix(path))),
    ];
    let methods = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["GET"]), 1 => Just(vec!["POST", "PUT"])];
    let one = prop_oneof![
        Just(("x-a", None)),
        Just(("x-a", Some("1"))),
        Just(("x-a", Some("2"))),
        Just(("x-b", Some("2"))),
        Just(("host", Some("a.b:80"))),
        Just(("host", Some("A"))),
    ];
    let headers = prop_oneof![3 => Just(vec![]), 2 => vec(one, 1..3)];
    (a_host(), path, methods, headers).prop_map(|(host, path, methods, headers)| Route {
        host,
        path,
        methods: methods.into_iter().map(Into::into).collect(),
        headers: headers.into_iter().map(|(name, value)| header(name, value)).collect(),
        service: 0,
        split: None,
        actions: None,
        priority: None,
    })
}

/// How a request departs from the route that it is made after.
#[derive(Debug, Clone)]
struct Request {
    after: proptest::sample::Index,
    label: &'static str,
    host_end: &'static str,
    upper: bool,
    other_host: Option<String>,
    path_end: &'static str,
    other_path: Option<String>,
    method: &'static str,
    fields: Vec<&'static str>,
    form: u8,
    secure: bool,
}

fn a_request() -> impl Strategy<Value = Request> {
    let ends = proptest::sample::select(vec!["", "", "", ".", ":80", ":443", ":8080", ".:80", ":"]);
    let path_ends = proptest::sample::select(vec!["", "", "/", "/a", "a", "?q=/a", "//", "/../a"]);
    let fields =
        vec(proptest::sample::select(vec!["X-A: 1", "x-a: 2", "x-a: 3", "x-A: 1, 2", "X-B: 2", "x-c: 1"]), 0..5);
    let host = (
        any::<proptest::sample::Index>(),
        proptest::sample::select(vec!["", "a", "b", "a.b"]),
        ends,
        any::<bool>(),
        proptest::option::weighted(0.2, a_name()),
    );
    let path = (path_ends, proptest::option::weighted(0.2, a_path()));
    let methods = proptest::sample::select(vec!["GET", "GET", "POST", "PUT", "get"]);
    (host, path, (methods, fields, 0_u8..12, any::<bool>())).prop_map(
        |((after, label, host_end, upper, other_host), (path_end, other_path), (method, fields, form, secure))| {
            Request { after, label, host_end, upper, other_host, path_end, other_path, method, fields, form, secure }
        },
    )
}

impl Request {
    fn text(&self, routes: &[Route]) -> String {
        let route = &routes[self.after.index(routes.len())];
        let host = match (&self.other_host, &route.host) {
            (Some(host), _) | (None, Some(HostMatch::Exact(host))) => host.clone(),
            (None, Some(HostMatch::Suffix(suffix))) => format!("{}{suffix}", self.label),
            (None, None) => "b.a".to_owned(),
        };
        let host = if self.upper { host.to_ascii_uppercase() } else { host };
        let host = format!("{host}{}", self.host_end);
        let path = match (&self.other_path, &route.path) {
            (Some(path), _) | (None, Some(PathMatch::Exact(path) | PathMatch::Prefix(path))) => path.clone(),
            (None, None) => "/a/b".to_owned(),
        };
        let path = format!("{path}{}", self.path_end);
        let fields: String = self.fields.iter().map(|field| format!("{field}\r\n")).collect();
        let method = self.method;
        match self.form {
            0 => format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"),
            1 => format!("{method} {path} HTTP/1.0\r\n{fields}\r\n"),
            2 => format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"),
            3 => format!("{method} http://{host} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"),
            _ => format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn a_table_finds_what_a_search_of_its_list_finds(
        routes in vec(a_route(), 1..40),
        requests in vec(a_request(), 20),
    ) {
        for request in &requests {
            let text = request.text(&routes);
            // What is no request comes to no route.
            if parsed(&text).is_some() {
                found(&routes, &text, request.secure);
            }
        }
    }
}

/// The requests of the property are made so that they come to routes of every place in the list, and to none.
#[test]
fn requests_of_the_property_come_everywhere() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut places = [0; 4];
    for _ in 0..100 {
        let routes = vec(a_route(), 20..40).new_tree(&mut runner).unwrap().current();
        for _ in 0..20 {
            let request = a_request().new_tree(&mut runner).unwrap().current();
            let text = request.text(&routes);
            if parsed(&text).is_some() {
                places[found(&routes, &text, request.secure).map_or(3, |index| (index / 7).min(2))] += 1;
            }
        }
    }
    assert!(places.iter().all(|count| *count > 20), "{places:?}");
}
