//! What is kept of a head that an operator may be shown, and what of it is told: harmless values to whoever looks, others where they are
//! asked for, secrets to nobody.

use ringway_message::{Field, Span};
use serde_json::{Value, json};
use std::mem::size_of;

/// Fields that are kept of a head, and bytes of each text; the rest is only counted.
const FIELDS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 1024;

/// Fields whose values are told to whoever may operate: they say how a message travels, not who sends it.
const TOLD: [&str; 26] = [
    "accept",
    "accept-encoding",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "grpc-status",
    "grpc-timeout",
    "host",
    "retry-after",
    "server",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];
/// What has one of these in its name, `-` and `_` left out, is a secret: nobody is told its value.
const SECRETS: [&str; 20] = [
    "accesskey",
    "apikey",
    "assertion",
    "auth",
    "bearer",
    "clientcert",
    "cookie",
    "credential",
    "csrf",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "private",
    "secret",
    "session",
    "signature",
    "ticket",
    "token",
    "xsrf",
];
/// And what is called just that.
const SECRET_NAMES: [&str; 8] = ["code", "hmac", "key", "otp", "pass", "pwd", "sid", "sig"];
/// In place of a secret.
const BLANK: &str = "(secret)";

/// A text of others, cut where it is long.
struct Text {
    kept: Box<[u8]>,
    whole_bytes: usize,
}

/// A field of a head.
struct KeptField {
    name: Box<str>,
    /// Empty, if it is nobody's to see.
    value: Text,
    told: Told,
}

/// To whom a value is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Everybody,
    OnDemand,
    Nobody,
}

/// The fields of a head.
#[derive(Default)]
pub(super) struct KeptFields {
    fields: Vec<KeptField>,
    left_out: usize,
}

/// Where a request goes to. `is_sensitive`: it came as what is never to be indexed (RFC 7541, 6.2.3).
pub(super) struct KeptTarget {
    method: Text,
    path: Text,
    query: Text,
    authority: Text,
    is_sensitive: bool,
}

impl Text {
    fn new(whole: &[u8], bytes_max: usize) -> Self {
        Self { kept: whole[..whole.len().min(bytes_max)].into(), whole_bytes: whole.len() }
    }

    fn of_secret(whole: &[u8]) -> Self {
        Self { kept: Box::default(), whole_bytes: whole.len() }
    }

    fn tell(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.kept.len() < self.whole_bytes {
            text.push_str("...");
        }
        text
    }

    /// Only how long it is.
    fn size(&self) -> Value {
        json!({ "bytes": self.whole_bytes })
    }
}

impl KeptFields {
    pub(super) fn new(fields: &[Field], bytes: &[u8], target_is_sensitive: bool) -> Self {
        let keep = |field: &Field| {
            let name = Text::new(field.name.of(bytes), TEXT_BYTES_MAX).tell().to_ascii_lowercase();
            let is_sensitive = field.sensitive || target_is_sensitive && name == "host";
            let told = if is_sensitive { Told::Nobody } else { told(&name) };
            let value = field.value.of(bytes);
            let value = if told == Told::Nobody { Text::of_secret(value) } else { Text::new(value, TEXT_BYTES_MAX) };
            KeptField { name: name.into(), value, told }
        };
        let kept = fields.iter().take(FIELDS_MAX).map(keep).collect();
        Self { fields: kept, left_out: fields.len().saturating_sub(FIELDS_MAX) }
    }

    /// The memory that they take.
    pub(super) fn bytes(&self) -> usize {
        let of_field = |field: &KeptField| size_of::<KeptField>() + field.name.len() + field.value.kept.len();
        self.fields.iter().map(of_field).sum()
    }

    /// By name and value, or by name and length where the value is not told.
    pub(super) fn tell(&self, shows_values: bool) -> Value {
        let tell = |KeptField { name, value, told }: &KeptField| match told {
            Told::Everybody => json!({ "name": name, "value": without_secrets(&value.tell()) }),
            Told::OnDemand if shows_values => json!({ "name": name, "value": without_secrets(&value.tell()) }),
            Told::OnDemand | Told::Nobody => json!({ "name": name, "bytes": value.whole_bytes }),
        };
        let mut all: Vec<Value> = self.fields.iter().map(tell).collect();
        if self.left_out > 0 {
            all.push(json!({ "left_out": self.left_out }));
        }
        Value::Array(all)
    }
}

impl KeptTarget {
    pub(super) fn new(
        bytes: &[u8],
        (method, path, query, authority): (Span, Span, Span, Span),
        is_sensitive: bool,
    ) -> Self {
        let of = |span: Span, bytes_max: usize| match is_sensitive {
            true => Text::of_secret(span.of(bytes)),
            false => Text::new(span.of(bytes), bytes_max),
        };
        Self {
            method: Text::new(method.of(bytes), TEXT_BYTES_MAX),
            path: of(path, TARGET_BYTES_MAX),
            query: of(query, TARGET_BYTES_MAX),
            authority: of(authority, TEXT_BYTES_MAX),
            is_sensitive,
        }
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        [&self.method, &self.path, &self.query, &self.authority].map(|text| text.kept.len()).iter().sum()
    }

    pub(super) fn tell(&self, shows_values: bool) -> Value {
        let tell = |text: &Text| if self.is_sensitive { text.size() } else { json!(text.tell()) };
        // A query may hold secrets, as values of fields do.
        let query = (self.query.whole_bytes > 0).then(|| match shows_values && !self.is_sensitive {
            true => json!(without_secrets(&self.query.tell())),
            false => self.query.size(),
        });
        json!({
            "method": self.method.tell(), "path": tell(&self.path), "query": query, "authority": tell(&self.authority),
        })
    }
}

/// `name` is in lower case.
fn told(name: &str) -> Told {
    if TOLD.contains(&name) {
        Told::Everybody
    } else if is_secret(name) {
        Told::Nobody
    } else {
        Told::OnDemand
    }
}

/// Whether what is called that is a secret.
fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|one| !"-_".contains(*one)).collect::<String>().to_ascii_lowercase();
    SECRET_NAMES.contains(&&*plain) || SECRETS.iter().any(|secret| plain.contains(secret))
}

/// Schemes of credentials, as `Authorization` has them.
const SCHEMES: [&str; 5] = ["basic ", "bearer ", "digest ", "negotiate ", "token "];

/// A text without what is a secret in it: values of parameters and of JSON by their names, users of addresses, and what is written as
/// credentials are.
fn without_secrets(text: &str) -> String {
    if is_credentials(text) {
        return BLANK.to_owned();
    }
    let plain = decoded(text);
    if plain != text && without_json_secrets(&plain) != plain {
        return BLANK.to_owned();
    }
    without_parameters(&without_json_secrets(&without_user(text)))
}

/// `Bearer ...`, or a JSON Web Token: three parts, of which the first is a JSON object.
fn is_credentials(text: &str) -> bool {
    let text = text.trim_start();
    let is_scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    SCHEMES.iter().any(|scheme| is_scheme(scheme)) || text.starts_with("eyJ") && text.matches('.').count() >= 2
}

/// Without the user and the password that stand before the host of an address.
fn without_user(text: &str) -> String {
    let (mut told, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("//") {
        let (before, after) = rest.split_at(at + 2);
        told.push_str(before);
        let end = after.find(|one: char| one.is_whitespace() || "\"'<>".contains(one)).unwrap_or(after.len());
        let authority = after[..end].find(['/', '?', '#']).unwrap_or(end);
        rest = match after[..authority].rfind('@') {
            Some(user) => {
                told.push_str(BLANK);
                &after[user..]
            }
            None => after,
        };
    }
    told + rest
}

/// Without the values of JSON that are secrets by their names. What follows the beginning of a list or an object with such a name is
/// left out whole.
fn without_json_secrets(text: &str) -> String {
    let (mut told, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find('"') {
        let Some(length) = string_length(&rest[begin..]) else { break };
        let end = begin + length;
        let name = &rest[begin + 1..end - 1];
        let after = rest[end..].trim_start();
        let Some(value) = after.strip_prefix(':').map(str::trim_start) else {
            told.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        };
        told.push_str(&rest[..rest.len() - value.len()]);
        rest = value;
        // An escape may hide any letter.
        if is_secret(name) || name.contains('\\') {
            told.push_str(BLANK);
            let length = match value.as_bytes().first() {
                Some(b'{' | b'[') | None => value.len(),
                Some(b'"') => string_length(value).unwrap_or(value.len()),
                Some(_) => value.find([',', '}', ']']).unwrap_or(value.len()),
            };
            rest = &value[length..];
        }
    }
    told + rest
}

/// Length of the string of JSON that a text begins with, quotes included.
fn string_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let end = text.bytes().enumerate().skip(1).find(|(_, byte)| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map(|(at, _)| at + 1)
}

/// A text in which the values of parameters are blank that are secrets by their names: of a query, of an address with one or with a
/// fragment, however it is written.
fn without_parameters(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut is_blank = false;
    for piece in text.split_inclusive(['?', '&', ';', '#']) {
        let end = piece.strip_suffix(['?', '&', ';', '#']).map_or(piece.len(), str::len);
        let (parameter, separator) = piece.split_at(end);
        match parameter.split_once('=') {
            _ if is_blank => {}
            Some((name, value)) if is_secret(&decoded(name)) || holds_secret(value) => {
                told.push_str(name);
                told.push('=');
                told.push_str(BLANK);
                is_blank = true;
            }
            Some(_) | None => told.push_str(parameter),
        }
        // A question mark may stand in a value.
        if !(is_blank && separator == "?") {
            is_blank = false;
            told.push_str(separator);
        }
    }
    told
}

/// Whether a value is an address, or a query, with a secret of its own.
fn holds_secret(value: &str) -> bool {
    let inner = decoded(value);
    let is_told = !is_credentials(&inner) && without_user(&inner) == inner && without_json_secrets(&inner) == inner;
    !is_told || inner.split(['?', '&', ';', '#']).any(|piece| piece.split_once('=').is_some_and(|(name, _)| is_secret(name)))
        // Written twice as carefully: what it is called stands in it somewhere.
        || inner.to_ascii_lowercase().contains("%3d") && is_secret(&inner)
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_message::FieldName;

    #[test]
    fn secrets_are_told_to_nobody_and_other_values_only_where_that_is_asked_for() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x_api_key",
            "apikey",
            "x-csrf-token",
            "x-xsrf",
            "x-passwd",
            "x-goog-iap-jwt-assertion",
            "x-amz-credential",
            "x-private-data",
            "x-access-key",
            "x-forwarded-client-cert",
            "ssl_client_cert",
            "x-hub-signature-256",
            "sid",
        ] {
            assert_eq!(told(name), Told::Nobody, "{name}");
        }
        assert!(["host", "content-type"].iter().all(|name| told(name) == Told::Everybody));
        assert!(["x-user", "referer", "location"].iter().all(|name| told(name) == Told::OnDemand));
        // None of those that are told to everybody is one that is told to nobody.
        assert!(!TOLD.iter().any(|name| is_secret(name)));
        assert!(TOLD.is_sorted() && SECRETS.is_sorted() && SECRET_NAMES.is_sorted());
    }

    #[test]
    fn parameters_that_are_secrets_are_blank_wherever_they_stand() {
        for (text, expected) in [
            ("page=7&q=a%20b", "page=7&q=a%20b"),
            ("page=7&access_token=abc&x=1", "page=7&access_token=(secret)&x=1"),
            ("API-Key=abc", "API-Key=(secret)"),
            ("%74oken=abc;x=1", "%74oken=(secret);x=1"),
            ("https://a/b?code=abc&state=1#id_token=x", "https://a/b?code=(secret)&state=1#id_token=(secret)"),
            ("https://a/cb#access_token=x&type=b", "https://a/cb#access_token=(secret)&type=b"),
            // In a value of another, and with what separates others in it.
            ("next=https%3A%2F%2Fa%2F%3Ftoken%3Dabc&x=1", "next=(secret)&x=1"),
            ("next=a%253Fjwt%253Dabc", "next=(secret)"),
            ("token=ab?cd=ef&x=1", "token=(secret)&x=1"),
            ("token=a=b&x", "token=(secret)&x"),
            // In an address, in JSON, and as credentials are written.
            ("http://u:pw@h/?token=x", "http://(secret)@h/?token=(secret)"),
            ("a https://u@h/x, //h/@me", "a https://(secret)@h/x, //h/@me"),
            ("next=http%3A%2F%2Fu%3Ap%40h&x=1", "next=(secret)&x=1"),
            (r#"{"token":"s\"x","a":[1,"token"],"b":"c"}"#, r#"{"token":(secret),"a":[1,"token"],"b":"c"}"#),
            (r#"{"a":{"api-key" : 17},"b":2}"#, r#"{"a":{"api-key" : (secret)},"b":2}"#),
            (r#"{"credentials":{"a":"b"},"c":1}"#, r#"{"credentials":(secret)"#),
            (r#"{"\u0074oken":"s"}"#, r#"{"\u0074oken":(secret)}"#),
            (r#"{"token":"cut..."#, r#"{"token":(secret)"#),
            ("%7B%22token%22%3A%22s%22%7D", "(secret)"),
            (r#"W/"etag", "other""#, r#"W/"etag", "other""#),
            ("Bearer abc", "(secret)"),
            ("eyJhbGciOiJub25lIn0.e30.", "(secret)"),
            ("no parameters, at all", "no parameters, at all"),
            ("?&;#=", "?&;#="),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), expected, "{text}");
        }
    }

    fn field(bytes: &mut Vec<u8>, name: &str, value: &[u8], sensitive: bool) -> Field {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(name.as_bytes());
        let middle = bytes.len() as u32;
        bytes.extend_from_slice(value);
        let end = bytes.len() as u32;
        Field {
            name: Span { start, end: middle },
            value: Span { start: middle, end },
            kind: FieldName::Other,
            sensitive,
        }
    }

    #[test]
    fn what_came_as_never_to_be_indexed_is_nobodys_to_see() {
        let mut bytes = Vec::new();
        let all = [
            field(&mut bytes, "x-user", b"alice", true),
            field(&mut bytes, "user-agent", b"spy", true),
            field(&mut bytes, "host", b"hidden.test", false),
            field(&mut bytes, "referer", b"http://a/?sig=spy", false),
        ];
        let told = KeptFields::new(&all, &bytes, true).tell(true);
        assert_eq!(
            told,
            json!([
                { "name": "x-user", "bytes": 5 }, { "name": "user-agent", "bytes": 3 }, { "name": "host", "bytes": 11 },
                { "name": "referer", "value": "http://a/?sig=(secret)" },
            ])
        );
        let told = KeptFields::new(&all, &bytes, false).tell(false);
        assert_eq!(told[2], json!({ "name": "host", "value": "hidden.test" }));
        assert_eq!(told[3], json!({ "name": "referer", "bytes": 17 }));
        let text = b"GET/reset/abct=1a.test";
        let [method, path, query, authority] =
            [(0, 3), (3, 13), (13, 16), (16, 22)].map(|(start, end)| Span { start, end });
        let target = |is_sensitive| KeptTarget::new(text, (method, path, query, authority), is_sensitive);
        assert_eq!(
            target(true).tell(true),
            json!({ "method": "GET", "path": { "bytes": 10 }, "query": { "bytes": 3 }, "authority": { "bytes": 6 } })
        );
        let shown = target(false).tell(true);
        assert_eq!((&shown["path"], &shown["query"]), (&json!("/reset/abc"), &json!("t=1")));
        assert_eq!(target(false).tell(false)["query"], json!({ "bytes": 3 }));
    }

    #[test]
    fn heads_are_bounded_whatever_is_in_them() {
        let mut bytes = Vec::new();
        let one = field(&mut bytes, "x-user", &[0xff; 60_000], false);
        let kept = KeptFields::new(&vec![one; 1000], &bytes, false);
        assert!(kept.bytes() <= FIELDS_MAX * (2 * TEXT_BYTES_MAX + size_of::<KeptField>()), "{}", kept.bytes());
        let told = kept.tell(true);
        let told = told.as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!((told.len(), &told[FIELDS_MAX]["left_out"]), (FIELDS_MAX + 1, &(1000 - FIELDS_MAX).into()));
        assert!(told[0]["value"].as_str().is_some_and(|value| value.len() <= TEXT_BYTES_MAX * 3 + 3));
        assert_eq!(kept.tell(false)[0], json!({ "name": "x-user", "bytes": 60_000 }));
    }
}
