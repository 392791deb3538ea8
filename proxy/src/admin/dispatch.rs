//! Which path of the admin listener does what.

use super::access::{Caller, Denial, Level, Peer, denied, whoami};
use super::explain::{Described, Subject};
use super::foreign::{self, reject_foreign};
use super::live::Live;
use super::page;
use super::query::pairs;
use super::reply::{Reply, error, json_value, text};
use super::{changes, explain, log, metrics, names as known_names, sessions, shown, status, strict_json, tap, workers};
use crate::ambient;
use crate::apply::change::Wish;
use crate::apply::handle::ControlHandle;
use crate::apply::outcome::ReloadError;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use ringway_page::File;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Metrics,
    Status,
    Healthz,
    Readyz,
    Explain,
    Live,
    Events,
    Page(&'static File),
    Reload,
    Sessions,
    Whoami,
    Backend,
    HotKeys,
    Overrides,
    Config,
    Log,
    Tap,
    Workers,
    Worker,
}

/// Every path, what is there, and the methods that it takes. A name in braces stands for a segment of any name, percent-encoded.
const PATHS: &[(&str, Resource, &[Method])] = &[
    ("/metrics", Resource::Metrics, READ),
    ("/status", Resource::Status, READ),
    ("/explain", Resource::Explain, &[Method::GET, Method::HEAD, Method::POST]),
    ("/live", Resource::Live, &[Method::GET]),
    ("/events", Resource::Events, READ),
    ("/healthz", Resource::Healthz, READ),
    ("/readyz", Resource::Readyz, READ),
    ("/sessions", Resource::Sessions, READ),
    ("/tap", Resource::Tap, &[Method::POST]),
    ("/workers", Resource::Workers, READ),
    ("/workers/{worker}", Resource::Worker, READ),
    ("/reload", Resource::Reload, &[Method::POST]),
    ("/whoami", Resource::Whoami, READ),
    ("/services/{service}/backends/{backend}", Resource::Backend, &[Method::POST]),
    ("/services/{service}/hot-keys", Resource::HotKeys, &[Method::POST]),
    ("/config", Resource::Config, READ),
    ("/overrides", Resource::Overrides, &[Method::GET, Method::HEAD, Method::DELETE]),
    ("/log", Resource::Log, &[Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
];
/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
const READ: &[Method] = &[Method::GET, Method::HEAD];

impl Resource {
    /// What asking for it by this method takes.
    fn level(self, method: &Method) -> Level {
        match self {
            Self::Healthz | Self::Readyz | Self::Whoami | Self::Page(_) => Level::Open,
            Self::Reload => Level::Reload,
            // A body says what is to be explained, and nothing changes.
            Self::Explain => Level::Read,
            _ if READ.contains(method) => Level::Read,
            _ => Level::Operate,
        }
    }
}

/// Answers a request.
pub(super) async fn respond<B>(control: &ControlHandle, live: &Arc<Live>, peer: &Peer, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(rejected) = foreign::wrong_host(&request) {
        return rejected;
    }
    if let Some(rejected) = reject_foreign(control, peer, &request) {
        Denial::Foreign.note(control, peer);
        return rejected;
    }
    let path = request.uri().path();
    let found = PATHS.iter().find_map(|(known, resource, methods)| Some((names(known, path)?, *resource, *methods)));
    let found = found.or_else(|| page::file(path).map(|file| (Vec::new(), Resource::Page(file), READ)));
    // What is not there, or not by this method, is told to whoever may read.
    let asked = found.as_ref().filter(|(.., methods)| methods.contains(request.method()));
    let level = asked.map_or(Level::Read, |(_, resource, _)| resource.level(request.method()));
    let caller = Caller::of(control, peer, request.headers());
    if level > Level::Open
        && let Err(denial) = caller.as_ref().map_err(|denial| *denial).and_then(|caller| caller.needs(level))
    {
        denial.note(control, peer);
        return denied(denial, request.method());
    }
    let Some((names, resource, methods)) = found else {
        return error(StatusCode::NOT_FOUND, &paths());
    };
    if !methods.contains(request.method()) {
        return wrong_method(methods);
    }
    if let (Level::Operate, Ok(caller)) = (level, &caller) {
        return change(control, (caller, peer), resource, &names, request).await;
    }
    match resource {
        Resource::Metrics => metrics::respond(control, request.headers()).await,
        Resource::Status => json_value(StatusCode::OK, &status::status(control)),
        Resource::Healthz => text(StatusCode::OK, "text/plain", "ok\n"),
        Resource::Readyz if control.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n"),
        Resource::Readyz => text(StatusCode::OK, "text/plain", "ready\n"),
        Resource::Explain if request.method() == Method::POST => explain_request(control, request.into_body()).await,
        Resource::Explain => explain_key(control, request.uri().query().unwrap_or_default()),
        Resource::Sessions => sessions::sessions(control, request.uri().query().unwrap_or_default()).await,
        Resource::Workers => workers::all(control, request.uri().query().unwrap_or_default()).await,
        Resource::Worker => {
            let number = names.first().map(String::as_str).unwrap_or_default();
            workers::one(control, number, request.uri().query().unwrap_or_default()).await
        }
        Resource::Live => shown::look(control, live, peer, &request),
        Resource::Events => shown::events(control),
        Resource::Page(file) => page::serve(file, request.headers()),
        Resource::Reload => reload(control.clone()).await,
        Resource::Whoami => whoami(&caller),
        Resource::Overrides => json_value(StatusCode::OK, &changes::overrides(&control.overrides(), ambient::now())),
        Resource::Log => log::shown(control),
        Resource::Config => changes::config(control, request.headers()).await,
        // Those who change something are known by now.
        Resource::Backend | Resource::HotKeys | Resource::Tap => denied(Denial::NoCredentials, request.method()),
    }
}

/// The segments of a path in place of names in braces; `None`: it is another path.
fn names(known: &str, path: &str) -> Option<Vec<String>> {
    let (mut known, mut asked, mut names) = (known.split('/'), path.split('/'), Vec::new());
    loop {
        match (known.next(), asked.next()) {
            (None, None) => return Some(names),
            (Some(name), Some(segment)) if name.starts_with('{') => {
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
                names.push(String::from_utf8_lossy(&decoded).into_owned());
            }
            (Some(word), Some(segment)) if word == segment => {}
            _ => return None,
        }
    }
}

/// Changes something that runs.
async fn change<B>(
    control: &ControlHandle,
    (caller, peer): (&Caller, &Peer),
    resource: Resource,
    names: &[String],
    request: Request<B>,
) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match (resource, request.method()) {
        (Resource::Overrides, _) => return changes::change(control, caller, Ok(Wish::Clear), None).await,
        (Resource::Log, &Method::DELETE) => return log::restore(control, caller),
        _ => {}
    }
    let (head, body) = request.into_parts();
    let body = match read_json(body).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let wish = match (resource, names) {
        (Resource::Log, _) => return log::change(control, caller, &body),
        (Resource::Tap, _) => return tap::tap(control, (caller, peer, &head.headers), &body).await,
        (Resource::Backend, [service, backend]) => changes::of_backend(service, backend, &body),
        (_, [service, ..]) => changes::of_key(control, service, &body),
        _ => Err("there is no name in the path".to_owned()),
    };
    changes::change(control, caller, wish, body["file"].as_str()).await
}

fn wrong_method(methods: &[Method]) -> Reply {
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {}", methods[0]));
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        reply.headers_mut().insert(ALLOW, value);
    }
    reply
}

/// What there is, for a client that asked for something else.
fn paths() -> String {
    let all = PATHS.iter().map(|(path, _, methods)| {
        let methods: Vec<&str> = methods.iter().filter(|method| *method != Method::HEAD).map(Method::as_str).collect();
        format!("{} {path}", methods.join(" or "))
    });
    format!("there is {}", all.collect::<Vec<_>>().join(", "))
}

/// Where a key goes.
fn explain_key(control: &ControlHandle, query: &str) -> Reply {
    let value = |name: &str| pairs(query).find(|(known, _)| *known == name).map(|(_, value)| value);
    let service = value("service");
    let (key, hash) = (value("key"), value("hash"));
    let hash = hash.and_then(|hash| u64::from_str_radix(std::str::from_utf8(&hash).ok()?, 16).ok());
    let subject = match (&key, hash) {
        (Some(key), _) => Subject::Key(key),
        (None, Some(hash)) => Subject::Hash(hash),
        (None, None) => {
            return error(StatusCode::BAD_REQUEST, "write /explain?service=NAME&key=KEY (or hash=HEX)");
        }
    };
    let snapshot = control.snapshot();
    let name = service.map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
    match explain::live(&snapshot, &name, subject, None) {
        Some(explanation) => json_value(StatusCode::OK, &explanation),
        None => {
            let names = snapshot.services.iter().map(|service| service.config.name.as_str());
            error(StatusCode::NOT_FOUND, &known_names::unknown("service", &name, names))
        }
    }
}

/// Where a whole request goes.
async fn explain_request<B>(control: &ControlHandle, body: B) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let described = match read_json(body).await {
        Ok(json) => Described::of_json(&json),
        Err(reply) => return reply,
    };
    let addresses = control.addresses();
    let explained = described
        .and_then(|described| explain::live_request(&control.snapshot(), &addresses, control.overload(), &described));
    match explained {
        Ok(explained) => json_value(StatusCode::OK, &explained),
        Err(problem) => error(StatusCode::UNPROCESSABLE_ENTITY, &problem.to_string()),
    }
}

/// The body of a request, or why it is none that is looked at.
async fn read_json<B>(body: B) -> Result<Value, Reply>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let bytes = match whole {
        Err(_) => return Err(error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => {
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 64 KiB"));
        }
        Ok(Err(_)) => return Err(error(StatusCode::BAD_REQUEST, "the body was cut off")),
        Ok(Ok(whole)) => whole.to_bytes(),
    };
    strict_json::parse(&bytes)
        .map_err(|problem| error(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {problem}")))
}

async fn reload(control: ControlHandle) -> Reply {
    let Ok((outcome, shown)) = tokio::task::spawn_blocking(move || control.reload_blocking()).await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the reload has ended before its time");
    };
    let code = match &outcome {
        Ok(_) => StatusCode::OK,
        Err(ReloadError::Invalid(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(ReloadError::NoFile | ReloadError::Draining) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json_value(code, shown.json())
}

#[cfg(test)]
mod tests {
    use super::super::access::Names;
    use super::*;
    use crate::admin::live::live;
    use crate::apply::source::Source;
    use crate::apply::testing;
    use http_body_util::Full;

    #[tokio::test]
    async fn each_path_has_its_methods_and_a_page_of_another_origin_none_that_change() {
        let (control, _receivers) = testing::control(Source::Memory);
        let file = "listeners: [ { name: l, address: \"127.0.0.1:0\", service: s } ]\n\
                    services: [ { name: s, backends: [ { id: a, address: \"127.0.0.1:9\" } ] } ]\n";
        control.apply(testing::config(file)).unwrap();
        let control = ControlHandle::new(Arc::new(control));
        let live = live(control.clone());
        let code = async |method: &str, path: &str, fields: &[(&str, &str)]| {
            let request = fields.iter().fold(Request::builder().method(method).uri(path), |request, (name, value)| {
                request.header(*name, *value)
            });
            let peer = Peer::Tcp { from: ([127, 0, 0, 1], 1).into(), tls: false, names: Names::default() };
            respond(&control, &live, &peer, request.body(Full::<Bytes>::default()).unwrap()).await.status().as_u16()
        };
        let own = ("host", "127.0.0.1:9000");
        for (method, path, fields, expected) in [
            ("GET", "/healthz", &[own][..], 200),
            ("HEAD", "/readyz", &[own], 200),
            ("GET", "/status", &[own], 200),
            ("GET", "/metrics", &[own], 200),
            ("POST", "/status", &[own], 405),
            ("POST", "/reload", &[own], 409),
            ("GET", "/reload", &[own], 405),
            ("GET", "/nowhere", &[own], 404),
            ("GET", "/explain?service=none&key=k", &[own], 404),
            ("GET", "/explain?service=none", &[own], 400),
            ("GET", "/status", &[("host", "evil.example")], 403),
            ("GET", "/status", &[("host", "ringway:9000")], 200),
            ("POST", "/reload", &[("host", "ringway:9000")], 403),
            ("POST", "/reload", &[own, ("origin", "http://evil.example")], 403),
            ("POST", "/reload", &[own, ("sec-fetch-site", "cross-site")], 403),
            ("POST", "/reload", &[own, own], 400),
            ("GET", "/status", &[own, own], 400),
            ("GET", "/status", &[], 400),
            ("GET", "/readyz", &[], 200),
            ("GET", "/whoami", &[own], 200),
            ("GET", "/whoami", &[own, ("authorization", "Bearer wrong")], 200),
            ("GET", "/status", &[own, ("authorization", "Bearer wrong")], 401),
            ("GET", "/status", &[own, ("authorization", "Basic wrong")], 401),
            ("GET", "/status", &[("host", "evil.example"), ("authorization", "Bearer wrong")], 401),
            ("GET", "/healthz", &[own, ("authorization", "Bearer wrong")], 200),
        ] {
            assert_eq!(code(method, path, fields).await, expected, "{method} {path} {fields:?}");
        }
    }
}
