//! Parses one head so many times: `heads KIND COUNT`, under callgrind.
//!
//! The difference between two counts, by the number of heads between them, is what one costs. Kinds: `browser` (a request of eight
//! fields), `small` (a GET of three), `response` (one of five fields), `begun` (the same request in two pieces), `none` (no head at all:
//! what the loop costs).
#![allow(clippy::unwrap_used, reason = "an example that cannot go on ends")]

use ringway_http1::{
    Limits, Method, RequestHead, ResponseHead, Resume, parse_request, parse_request_on, parse_response,
};
use std::hint::black_box;

const BROWSER: &[u8] = b"GET /index.html?page=2&sort=asc HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/index.html\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const SMALL: &[u8] = b"GET /path/to/something HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    User-Agent: wrk/4.2.0\r\n\
    Accept: */*\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.22.1\r\n\
    Date: Sat, 28 Nov 2026 14:41:49 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1256\r\n\
    Connection: keep-alive\r\n\r\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "browser".to_owned());
    let count: u32 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let limits = Limits::default();
    let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
    for _ in 0..count {
        match kind.as_str() {
            "browser" => assert_eq!(parse_request(black_box(BROWSER), &limits, &mut request), Ok(true)),
            "small" => assert_eq!(parse_request(black_box(SMALL), &limits, &mut request), Ok(true)),
            "response" => {
                assert_eq!(parse_response(black_box(RESPONSE), &limits, Method::Get, false, &mut response), Ok(true));
            }
            "begun" => {
                let mut resume = Resume::default();
                let begun = black_box(&BROWSER[..100]);
                assert_eq!(parse_request_on(begun, &limits, &mut resume, &mut request), Ok(false));
                assert_eq!(parse_request_on(black_box(BROWSER), &limits, &mut resume, &mut request), Ok(true));
            }
            _ => {
                black_box((&request, &response));
            }
        }
    }
}
