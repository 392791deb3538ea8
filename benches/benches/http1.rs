//! HTTP/1.1 codec: heads in, heads out.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use ringway_http1::{Limits, Method, RequestHead, ResponseHead, parse_request, parse_response, write};
use std::hint::black_box;
use std::time::Duration;

const REQUEST: &[u8] =
    b"GET /api/v1/items/42?page=3 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, br\r\nX-User-Id: user-12345678\r\nCookie: sid=abcdef0123456789; theme=dark\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 22:24:48 GMT\r\nContent-Type: text/plain\r\n\
    Content-Length: 128\r\nConnection: keep-alive\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heads");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    let limits = Limits::default();
    let mut head = RequestHead::default();
    group.bench_function("request/parse", |bencher| {
        bencher.iter(|| parse_request(black_box(REQUEST), &limits, &mut head).unwrap());
    });
    let mut out = Vec::with_capacity(4096);
    group.bench_function("request/copy fields", |bencher| {
        bencher.iter(|| {
            out.clear();
            write::copy_fields(black_box(REQUEST), &head.fields, &mut out, |field| !field.kind.is_hop_by_hop());
        });
    });
    let mut head = ResponseHead::default();
    group.bench_function("response/parse", |bencher| {
        bencher.iter(|| parse_response(black_box(RESPONSE), &limits, Method::Get, false, &mut head).unwrap());
    });
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
