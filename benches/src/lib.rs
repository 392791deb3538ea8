//! Micro-benchmarks lie in `benches/`, the comparison with other proxies in `compare.sh`.
