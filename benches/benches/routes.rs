//! Finding a request's route: in tables of 1 to 10,000 routes, at the first, the middle, the last, and none.
//!
//! `cargo bench -p ringway-benches --bench routes`
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringway_config::model::{Config, HostMatch, PathMatch, Protocol, Route};
use ringway_http1::{Limits, RequestHead, parse_request};
use ringway_proxy::RouteTable;
use std::hint::black_box;
use std::time::Duration;

/// What tells the routes of a table apart.
#[derive(Clone, Copy)]
enum By {
    /// A host each: many tenants.
    Hosts,
    /// One host, a path each: many services of one site.
    Paths,
    /// One host and path, a value of a field each: nothing to look up.
    Header,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Paths => "paths",
            Self::Header => "header",
        }
    }

    fn conditions(self, index: usize) -> String {
        match self {
            Self::Hosts => format!("host: t{index}.example.com, path_prefix: /api"),
            Self::Paths => format!("host: www.example.com, path_prefix: /api/v1/s{index}"),
            Self::Header => format!("path_prefix: /api, headers: [ {{ name: x-tenant, value: t{index} }} ]"),
        }
    }

    fn request(self, index: usize) -> Vec<u8> {
        let (host, path, field) = match self {
            Self::Hosts => (format!("t{index}.example.com"), "/api/items/42".to_owned(), String::new()),
            Self::Paths => ("www.example.com".to_owned(), format!("/api/v1/s{index}/items/42"), String::new()),
            Self::Header => {
                ("www.example.com".to_owned(), "/api/items/42".to_owned(), format!("X-Tenant: t{index}\r\n"))
            }
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n{field}X-User-Id: user-1\r\n\r\n"
        )
        .into_bytes()
    }
}

/// A configuration of so many routes.
fn config(by: By, count: usize) -> Config {
    let mut text = "listeners:\n  - name: web\n    address: \"127.0.0.1:0\"\n    routes:\n".to_owned();
    for index in 0..count {
        text.push_str(&format!("      - {{ match: {{ {} }}, service: s }}\n", by.conditions(index)));
    }
    text.push_str("services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:1\" } ] } ]\n");
    ringway_config::load_str("bench.yaml", &text, &|_| None).unwrap().config
}

fn routes_of(config: &Config) -> &[Route] {
    match &config.listeners[0].protocol {
        Protocol::Http(http) => &http.routes,
        Protocol::Tcp(_) | Protocol::Udp(_) => panic!("it speaks HTTP"),
    }
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700)).sample_size(15);
    for by in [By::Hosts, By::Paths, By::Header] {
        for count in [1, 2, 4, 8, 16, 100, 1_000, 10_000] {
            let config = config(by, count);
            let routes = routes_of(&config);
            let table = RouteTable::new(routes);
            for (place, index) in [("first", 0), ("middle", count / 2), ("last", count - 1), ("none", count)] {
                let request = by.request(index);
                let mut head = RequestHead::default();
                parse_request(&request, &Limits::default(), &mut head).unwrap();
                assert_eq!(table.find(routes, &request, &head, false), (index < count).then_some(index));
                group.bench_function(BenchmarkId::new(format!("{}/{place}", by.name()), count), |bencher| {
                    bencher.iter(|| table.find(routes, black_box(&request), black_box(&head), false));
                });
            }
        }
    }
    group.finish();
}

/// What a reload pays for it: a host and a path each, up to more than any file has.
fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/build");
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700)).sample_size(10);
    for count in [100, 10_000, 100_000, 1_000_000] {
        let route = |index| Route {
            host: Some(HostMatch::Exact(format!("t{index}.example.com"))),
            path: Some(PathMatch::Prefix(format!("/api/v1/s{index}"))),
            methods: Vec::new(),
            headers: Vec::new(),
            service: 0,
            split: None,
            actions: None,
            priority: None,
        };
        let routes: Vec<Route> = (0..count).map(route).collect();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| RouteTable::new(black_box(&routes)));
        });
    }
    group.finish();
}

criterion_group!(benches, find, build);
criterion_main!(benches);
