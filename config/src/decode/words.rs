//! Words of which one is chosen, and what other proxies call them.

use crate::diagnostic::closest;
use crate::findings::Findings;
use crate::node::Node;

/// Words of other proxies for what has another name here.
const SYNONYMS: &[(&str, &str)] = &[
    ("leastconn", "least_request"),
    ("least_conn", "least_request"),
    ("least_connections", "least_request"),
    ("roundrobin", "round_robin"),
    ("round-robin", "round_robin"),
    ("rr", "round_robin"),
    ("wrr", "round_robin"),
    ("ring_hash", "ring"),
    ("consistent", "ring"),
    ("consistent_hash", "ring"),
    ("ketama", "ring"),
    ("hash", "ring"),
    ("ip_hash", "ring"),
    ("source", "ring"),
    ("uri", "ring"),
    ("rendezvous", "hrw"),
    ("two_choices", "p2c"),
    ("ewma", "peak_ewma"),
    ("https", "http"),
    ("http2", "h2"),
    ("h2c", "h2"),
    ("grpc", "h2"),
    ("http/2", "h2"),
    ("http/1.1", "http1"),
    ("tls", "tcp"),
    ("quic", "udp"),
    ("TLSv1.2", "1.2"),
    ("TLSv1.3", "1.3"),
    ("brotli", "br"),
    ("zstandard", "zstd"),
];

/// One of some words.
pub(crate) fn word<'a>(node: &'a Node, words: &[&'static str], findings: &mut Findings) -> Option<&'a str> {
    let Some(text) = node.text() else {
        return findings.wrong_type(node, &format!("one of `{}`", words.join("`, `")), words[0]);
    };
    if words.contains(&text) {
        return Some(text);
    }
    let synonym = SYNONYMS.iter().find(|(theirs, ours)| *theirs == text && words.contains(ours)).map(|(_, ours)| *ours);
    let help = match synonym.or_else(|| closest(text, words.iter().copied())) {
        Some(word) => format!("write `{word}`"),
        None => format!("write one of `{}`", words.join("`, `")),
    };
    findings.error(node.place, "unknown_choice", format!("`{text}` is not one of the choices"), help);
    None
}
