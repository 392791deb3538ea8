//! Sections of routes: what they match, and what they do.

use super::*;

section! {
    /// A routing rule.
    RouteSection, "a route" {
        /// Conditions; all that are given must hold. None matches everything.
        default("{}") r#match: MatchSection,
        /// The service that takes the request.
        optional service: String,
        /// Several services instead of one, each with its part of the keys: a key stays with its service.
        default("[]") split: List<SplitSection>,
        /// Where the key of a split comes from. Absent, it is the `hash_key` of the split's first service. A request without a key is drawn by
        /// chance, and an `affinity_cookie` of any of them keeps its client there; without one, each such request is drawn anew.
        optional split_key: List<KeySection>,
        /// A response that sends the client elsewhere, instead of a service.
        optional redirect: Box<RedirectSection>,
        /// Another path for the backend. Keys and routes go by the client's.
        optional rewrite: Box<RewriteSection>,
        /// Changes of the request's fields on their way to the backend; after everything that Ringway adds itself.
        default("{}") request_headers: HeaderEditsSection,
        /// Changes of the response's fields on their way to the client.
        default("{}") response_headers: HeaderEditsSection,
        /// Longest whole exchange, instead of the service's `timeouts.request`.
        optional timeout: Duration,
        /// Largest request body, instead of the listener's.
        optional body_bytes_max: Bytes,
        /// Which pages of other origins may use this route (Fetch standard, CORS protocol).
        optional cors: Box<CorsSection>,
        /// A copy of requests goes to another service as well, whose responses are thrown away.
        optional mirror: Box<MirrorSection>,
        /// Compression of responses, instead of the listener's.
        optional compress: CompressSection,
        /// What is refused first under overload (`overload.shed_low_priority`), instead of the service's. For `http`.
        optional priority: PriorityName,
    }
}

section! {
    /// Compression of responses, for clients that accept it. Responses that are compressed already, forbid it
    /// (`Cache-Control: no-transform`), are parts of others or carry a digest of themselves go out as they are; so do those
    /// to HTTP/1.0. Beware of secrets and a client's own words in one response (BREACH).
    CompressSection, "compress" {
        /// Codings, best first: a client's equal wishes are decided by this order. Absent is `[ zstd, br, gzip ]`; empty is no
        /// compression.
        optional algorithms: List<CodingName>,
        /// Responses known to be shorter stay as they are.
        default("1KiB") min_bytes: Bytes,
        /// Content types, without parameters; `text/*` is all that begin so. Absent is `text/*` and the usual text formats of
        /// `application`, `image/svg+xml` among them.
        optional types: List<String>,
        /// Effort of gzip.
        default("5") gzip_level: Int<1, 9>,
        /// Effort of brotli.
        default("4") br_level: Int<0, 9>,
        /// Effort of zstd.
        default("3") zstd_level: Int<1, 9>,
        /// Responses that a worker compresses at once; more go out as they are. Each takes up to 1 MiB with gzip, 2 with zstd, 4
        /// with brotli.
        default("128") responses_max: Positive,
    }
}

section! {
    /// A redirection. What is absent stays as the client wrote it.
    RedirectSection, "redirect" {
        /// 301, 302, 303, 307 or 308.
        default("308") status: Int<300, 399>,
        /// `https`, for example.
        optional scheme: String,
        /// Host without port.
        optional host: String,
        /// Port; absent with another scheme is that scheme's own.
        optional port: Int<1, 65535>,
        /// Path and query.
        optional path: Url,
    }
}

section! {
    /// Another path.
    RewriteSection, "rewrite" {
        /// Takes the place of the path, or path prefix, that the route matches.
        optional prefix: String,
        /// Regular expression on the path, query included; the first match is replaced by `to`.
        optional pattern: String,
        /// What takes its place: `$1` is the first group.
        optional to: String,
    }
}

section! {
    /// Changes of fields.
    HeaderEditsSection, "headers" {
        /// Fields that replace those of the same name.
        default("[]") set: List<HeaderSection>,
        /// Fields that join those of the same name.
        default("[]") add: List<HeaderSection>,
        /// Fields that are left out.
        default("[]") remove: List<String>,
    }
}

section! {
    /// A field.
    HeaderSection, "a header" {
        /// Its name.
        required name: String,
        /// Its value.
        required value: Secret,
    }
}

section! {
    /// Pages of other origins.
    CorsSection, "cors" {
        /// Origins such as `https://app.example.com`; `*` is any.
        required origins: List<String>,
        /// Methods beside GET, HEAD and POST.
        default("[]") methods: List<String>,
        /// Request fields beside the harmless ones.
        default("[]") headers: List<String>,
        /// Response fields that pages may read.
        default("[]") expose: List<String>,
        /// How long a browser may remember this.
        default("10m") max_age: Duration,
        /// Whether cookies are sent along.
        default("false") credentials: bool,
    }
}

section! {
    /// A copy of requests.
    MirrorSection, "mirror" {
        /// The service that gets it.
        required service: String,
        /// Of so many percent of the requests. Those with a body of more than 8 KiB are not copied: `ringway_mirror_left_out_total` counts them.
        default("100") percent: Percent,
    }
}

section! {
    /// A response of Ringway's own, in other words.
    ErrorAnswerSection, "an error answer" {
        /// Statuses: numbers and ranges such as `502-504`.
        required status: List<String>,
        /// Its content type.
        default("text/html; charset=utf-8") content_type: String,
        /// Its text.
        optional body: String,
        /// Or a file that holds it; read when the configuration is.
        optional file: String,
    }
}

section! {
    /// A target of a split.
    SplitSection, "a target of a split" {
        /// The service.
        required service: String,
        /// Its part, relative to the other targets'; 0 gets nothing.
        default("100") weight: Int<0, 1_000_000>,
    }
}

section! {
    /// Conditions of a route.
    MatchSection, "match" {
        /// Host without port: `api.example.com`, or `*.example.com` for any host below it.
        optional host: String,
        /// The whole path.
        optional path: String,
        /// The path's first segments: `/v1` matches `/v1` and `/v1/x`, not `/v10`.
        optional path_prefix: String,
        /// One method.
        optional method: String,
        /// One of several methods.
        default("[]") methods: List<String>,
        /// Fields that must be there. Of several fields of one name any may be the one.
        default("[]") headers: List<HeaderMatchSection>,
    }
}

section! {
    /// A field that must be there.
    HeaderMatchSection, "a header condition" {
        /// The field's name.
        required name: String,
        /// Its whole value, by the byte; absent is any. Of several fields of that name one must have it; lists are not split at commas.
        optional value: Secret,
    }
}
