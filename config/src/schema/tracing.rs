//! Sections of what marks requests, and of what is told of them: request ids, traces.

use super::*;

choice! {
    /// Whose word is taken: that of the proxies in front, everybody's, nobody's.
    TrustName { "trusted" => Trusted, "all" => All, "none" => None }
}

section! {
    /// Ids of requests. Each has one: backends are told it, and the access log has it as `request_id`.
    RequestIdSection, "request_id" {
        /// The field that it goes in.
        default("x-request-id") header: String,
        /// Whose ids are kept: those of clients in `forwarded.trusted`, all, or none. Others are replaced, as are those with more than
        /// 128 bytes or with anything but visible ASCII.
        default("trusted") trust: TrustName,
        /// Whether the response has it too, in place of what the backend says there.
        default("false") respond: bool,
    }
}

section! {
    /// Traces of requests: trace context (W3C) is passed on or begun, and spans go to a collector by OTLP over HTTP. What cannot be
    /// delivered is dropped and counted (`ringway_trace_spans_total`): traffic never waits for a collector.
    TracingSection, "tracing" {
        /// Where spans go: a URL of `http` or `https`. Without a path it is `/v1/traces`.
        required endpoint: Url,
        /// How many of the requests are traced that nobody in front has decided about. Of traces that begin here it is drawn by the trace's
        /// id, so that all proxies behind decide the same; where the client has chosen the id and is not trusted, by chance.
        default("100%") sample: Share,
        /// Whose decision (the flag `sampled` of `traceparent`) is followed: that of clients in `forwarded.trusted`, everybody's, or
        /// nobody's. The ids of traces are everybody's in any case.
        default("trusted") trust: TrustName,
        /// Whether spans have the query (`url.query`), which may hold what is nobody's business.
        default("false") query: bool,
        /// `service.name`.
        default("ringway") service_name: String,
        /// More attributes of this proxy, as `deployment.environment.name`.
        default("[]") attributes: List<AttributeSection>,
        /// Fields that the collector is sent, as an API key.
        default("[]") headers: List<HeaderSection>,
        /// File with a bearer token that the collector is shown. It is read at each request; absent is none.
        optional token_file: String,
        /// Whether what is sent is compressed.
        default("false") gzip: bool,
        /// How long the collector may take for a batch.
        default("10s") timeout: Duration,
        /// How the collector is checked, and what is shown to it; for `https`.
        optional tls: Box<UpstreamTlsSection>,
    }
}

section! {
    /// An attribute.
    AttributeSection, "an attribute" {
        /// Its name.
        required name: String,
        /// Its value, which is text.
        required value: String,
    }
}
