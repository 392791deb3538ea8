//! `/tap`: the whole lives of the next requests that match, a line of JSON each, as they end.

use super::access::{Caller, Level, Peer};
use super::changes::fields;
use super::names;
use super::reply::{EndsBy, Reply, error, lines};
use crate::ambient;
use crate::apply::handle::ControlHandle;
use crate::dispatcher::{Tap, TapMatch};
use crate::snapshot::Snapshot;
use crate::snapshot::journal::Happening;
use hyper::StatusCode;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::HeaderMap;
use ringway_config::model::{Listener, Networks, Protocol};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Sleep;

/// Requests that a tap takes, at most, and for how long it waits for them.
const COUNT_MAX: u64 = 100;
const SECONDS_MAX: u64 = 3600;
const SECONDS: u64 = 60;
/// Lives that wait for a client that reads slowly: all that a tap takes, since what has not ended is told all at once.
const WAITING_MAX: usize = COUNT_MAX as usize;
/// Conditions on fields, and bytes of a text.
const HEADERS_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 1024;
/// How long a worker may take to begin.
const PATIENCE: Duration = Duration::from_secs(2);
/// After its time, how long a client may take to read what is left.
const GRACE: Duration = Duration::from_secs(10);
/// Whether the client still may look is asked this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const NAMES: [&str; 13] = [
    "listener",
    "service",
    "route",
    "method",
    "path_prefix",
    "headers",
    "client",
    "hash",
    "status_min",
    "duration_min_seconds",
    "count",
    "for_seconds",
    "values",
];

/// What is asked for.
#[derive(Debug)]
struct Wish {
    wanted: TapMatch,
    count: u32,
    time: Duration,
    shows_values: bool,
}

/// Begins a tap, for as long as who asks may operate.
pub(super) async fn tap(
    control: &ControlHandle,
    (caller, peer, shown): (&Caller, &Peer, &HeaderMap),
    body: &Value,
) -> Reply {
    let Wish { wanted, count, time, shows_values } = match parse(body) {
        Ok(wish) => wish,
        Err(problem) => return error(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    };
    if let Err(unknown) = known(&control.snapshot(), &wanted) {
        return error(StatusCode::UNPROCESSABLE_ENTITY, &unknown);
    }
    let Ok(place) = Arc::clone(control.tap_places()).try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many look at requests already: end another tap");
    };
    let (sender, lives) = mpsc::channel(WAITING_MAX);
    let tap = Tap::new(wanted, shows_values, count, sender);
    note(control, caller, body);
    let mut lives = Lives::new((tap, lives), (count, time), place);
    let mut silent = Vec::new();
    let begun_until = (ambient::now() + PATIENCE).into();
    for (worker, begun) in control.tap(&lives.tap).into_iter().enumerate() {
        if !matches!(tokio::time::timeout_at(begun_until, begun).await, Ok(Ok(()))) {
            silent.push(worker);
        }
    }
    let begun = json!({ "tap": {
        "count": count, "for_seconds": time.as_secs(), "values": shows_values, "silent_workers": silent,
    } });
    lives.first = Some(Bytes::from(format!("{begun}\n")));
    let (control, peer, shown) = (control.clone(), peer.clone(), shown.clone());
    let (asked, tap) = (control.clone(), Arc::clone(&lives.tap));
    lives.ask_unfinished = Box::new(move || asked.tell_so_far(&tap));
    let still_may =
        move || Caller::of(&control, &peer, &shown).is_ok_and(|caller| caller.needs(Level::Operate).is_ok());
    lives.still_may = Box::new(still_may);
    let ends_by = EndsBy(lives.until + GRACE);
    let mut reply = lines(lives);
    reply.extensions_mut().insert(ends_by);
    reply
}

/// Whether there is what is named: no request would ever match what is not.
fn known(snapshot: &Snapshot, wanted: &TapMatch) -> Result<(), String> {
    wanted.service.as_deref().map_or(Ok(()), |name| names::service(snapshot, name))?;
    wanted.listener.as_deref().map_or(Ok(()), |name| names::listener(snapshot, name))?;
    let of = |listener: &&Listener| wanted.listener.as_ref().is_none_or(|name| *name == listener.name);
    let listeners = snapshot.config.listeners.iter().filter(of);
    let routes = |listener: &Listener| match &listener.protocol {
        Protocol::Http(http) => Some(http.routes.len()),
        Protocol::Tcp(_) | Protocol::Udp(_) => None,
    };
    let Some(most) = listeners.filter_map(routes).max() else {
        return without_requests(wanted);
    };
    let Some(route) = wanted.route else { return Ok(()) };
    if route <= most { Ok(()) } else { Err(format!("there is no route {route}: there are {most}, counted from 1")) }
}

/// Sessions of TCP and flows of UDP have nothing of a request.
fn without_requests(wanted: &TapMatch) -> Result<(), String> {
    let asked = [
        ("route", wanted.route.is_some()),
        ("method", wanted.method.is_some()),
        ("path_prefix", wanted.path_prefix.is_some()),
        ("headers", !wanted.headers.is_empty()),
    ];
    let Some((name, _)) = asked.into_iter().find(|(_, is_asked)| *is_asked) else { return Ok(()) };
    let what =
        wanted.listener.as_ref().map_or_else(|| "no listener".into(), |listener| format!("listener {listener:?}"));
    let speaks = if wanted.listener.is_some() { "does not speak HTTP" } else { "speaks HTTP" };
    Err(format!("`{name}`: {what} {speaks}, and sessions of TCP and flows of UDP have none"))
}

/// Who looks at others' requests is known afterwards; the values of fields that they look for may be secrets.
fn note(control: &ControlHandle, caller: &Caller, body: &Value) {
    let mut body = body.clone();
    if let Some(headers) = body.get_mut("headers").and_then(Value::as_object_mut) {
        headers.values_mut().for_each(|value| *value = json!("..."));
    }
    let (by, text) = (caller.by.clone(), format!("requests are looked at: {body}"));
    tracing::info!(by, wanted = %body, "requests are looked at");
    control.journal().note(&Happening { kind: "change", to: "tap", text, by, ..Happening::default() });
}

/// The lives, as they come, and at last a line that says why there are no more.
struct Lives {
    tap: Arc<Tap>,
    lives: mpsc::Receiver<Bytes>,
    /// Says that the tap has begun.
    first: Option<Bytes>,
    count: u32,
    told: u32,
    until: Instant,
    sleep: Pin<Box<Sleep>>,
    still_may: Box<dyn Fn() -> bool + Send>,
    /// Has workers tell what they know of requests that have not ended.
    ask_unfinished: Box<dyn Fn() -> Vec<oneshot::Receiver<()>> + Send>,
    /// Those that are still to do so: the time is over.
    telling: Option<Vec<oneshot::Receiver<()>>>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Lives {
    fn new(
        (tap, lives): (Arc<Tap>, mpsc::Receiver<Bytes>),
        (count, time): (u32, Duration),
        place: OwnedSemaphorePermit,
    ) -> Self {
        let until = ambient::now() + time;
        let sleep = Box::pin(tokio::time::sleep(LOOK_EVERY.min(time)));
        Self {
            tap,
            lives,
            first: None,
            count,
            told: 0,
            until,
            sleep,
            still_may: Box::new(|| true),
            ask_unfinished: Box::new(Vec::new),
            telling: None,
            is_over: false,
            _place: place,
        }
    }

    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            if let Poll::Ready(life) = self.lives.poll_recv(context) {
                match life {
                    // A life is lost: perhaps it was the last.
                    Some(life) if life.is_empty() => {}
                    Some(life) => {
                        self.told += 1;
                        return Poll::Ready(Some(life));
                    }
                    None => return Poll::Ready(Some(self.end("closed"))),
                }
                continue;
            }
            if self.telling.is_none() && self.told + self.tap.lost() >= self.count {
                return Poll::Ready(Some(self.end("count")));
            }
            if let Some(telling) = &mut self.telling {
                telling.retain_mut(|told| Pin::new(told).poll(context).is_pending());
                // A worker that is stuck is not waited for long.
                if !telling.is_empty() {
                    ready!(self.sleep.as_mut().poll(context));
                }
                // What the last of them has told is here by now.
                match self.lives.try_recv() {
                    Ok(life) if life.is_empty() => continue,
                    Ok(life) => {
                        self.told += 1;
                        return Poll::Ready(Some(life));
                    }
                    Err(_) => return Poll::Ready(Some(self.end("time"))),
                }
            }
            ready!(self.sleep.as_mut().poll(context));
            let now = ambient::now();
            if now >= self.until {
                self.tap.stop_following();
                self.telling = Some((self.ask_unfinished)());
                self.sleep.as_mut().reset((now + PATIENCE).into());
                continue;
            }
            if !(self.still_may)() {
                return Poll::Ready(Some(self.end("role")));
            }
            self.sleep.as_mut().reset((now + LOOK_EVERY).min(self.until).into());
        }
    }

    fn end(&mut self, why: &'static str) -> Bytes {
        self.is_over = true;
        self.tap.close();
        let end = json!({ "end": {
            "why": why, "told": self.told, "lost": self.tap.lost(), "passed_by": self.tap.passed_by(),
            "under_way": self.tap.under_way(),
        } });
        Bytes::from(format!("{end}\n"))
    }
}

impl Body for Lives {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_line(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.tap.close();
    }
}

/// `{ "service": "api", "path_prefix": "/cart", "count": 3, "for_seconds": 60 }`, and other conditions.
fn parse(body: &Value) -> Result<Wish, String> {
    let fields = fields(body, &NAMES)?;
    let hash = text(fields, "hash")?.map(|hex| hash(&hex)).transpose()?;
    let client = text(fields, "client")?.map(|client| network(&client)).transpose()?;
    let shows_values = match fields.get("values") {
        None => false,
        Some(values) => values.as_bool().ok_or("`values` is true or false")?,
    };
    let seconds = fields.get("duration_min_seconds").map(|value| {
        let duration = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.ok_or("`duration_min_seconds` is a number of seconds, for example 0.5")
    });
    let wanted = TapMatch {
        listener: text(fields, "listener")?,
        service: text(fields, "service")?,
        route: number(fields, "route", 1, u64::from(u32::MAX))?.map(|route| route as usize),
        method: text(fields, "method")?.map(|method| token("method", method)).transpose()?,
        path_prefix: text(fields, "path_prefix")?.map(path).transpose()?,
        headers: headers(fields.get("headers"))?,
        client: client.unwrap_or_default(),
        hash,
        status_min: number(fields, "status_min", 100, 599)?.map(|status| status as u16),
        duration_min: seconds.transpose()?,
    };
    let count = number(fields, "count", 1, COUNT_MAX)?.unwrap_or(1) as u32;
    let time = Duration::from_secs(number(fields, "for_seconds", 1, SECONDS_MAX)?.unwrap_or(SECONDS));
    Ok(Wish { wanted, count, time, shows_values })
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let value = value.as_str().filter(|value| !value.is_empty() && value.len() <= TEXT_BYTES_MAX);
    value
        .map(|value| Some(value.to_owned()))
        .ok_or_else(|| format!("`{name}` is a text of 1 to {TEXT_BYTES_MAX} bytes"))
}

fn path(prefix: String) -> Result<String, String> {
    if prefix.starts_with('/') || prefix == "*" {
        return Ok(prefix);
    }
    Err(format!("`path_prefix` begins with a slash, as paths do: /{prefix}"))
}

/// What a method or the name of a field is made of (RFC 9110, 5.6.2).
fn token(what: &str, text: String) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_token) {
        return Ok(text);
    }
    Err(format!("`{what}`: no request has {text:?}: it is made of letters, digits and `-`"))
}

fn number(fields: &Map<String, Value>, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let value = value.as_u64().filter(|value| (least..=most).contains(value));
    value.map(Some).ok_or_else(|| format!("`{name}` is a whole number from {least} to {most}"))
}

fn hash(hex: &str) -> Result<u64, String> {
    let is_hex = hex.len() == 16 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    let hash = u64::from_str_radix(hex, 16).ok().filter(|_| is_hex);
    hash.ok_or_else(|| "`hash` is 16 hex digits".to_owned())
}

fn network(text: &str) -> Result<Networks, String> {
    Networks::one(text).ok_or_else(|| "`client` is an address or a network, for example 10.0.0.0/8".to_owned())
}

/// Fields that a request must have: `{ "x-user": "alice" }`.
fn headers(value: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wrong = || format!("`headers` is an object of at most {HEADERS_MAX} names with their values as texts");
    let fields = value.as_object().filter(|fields| fields.len() <= HEADERS_MAX).ok_or_else(wrong)?;
    let field = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.len() <= TEXT_BYTES_MAX && name.len() <= TEXT_BYTES_MAX);
        let value = value.ok_or_else(wrong)?;
        Ok((token("headers", name.to_ascii_lowercase())?, value.to_owned()))
    };
    fields.iter().map(field).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_taken_by_name_and_what_makes_no_sense_is_said_so() {
        let wish = parse(&json!({})).unwrap();
        assert_eq!((wish.count, wish.time, wish.shows_values), (1, Duration::from_secs(60), false));
        let wish = parse(&json!({
            "service": "s", "route": 2, "method": "GET", "path_prefix": "/a", "headers": { "X-User": "alice" }, "client": "10.0.0.0/8",
            "hash": "00000000000000ff", "status_min": 500, "duration_min_seconds": 0.5, "count": 100, "for_seconds": 3600, "values": true,
        }));
        let wish = wish.unwrap();
        assert_eq!((wish.wanted.hash, wish.wanted.headers), (Some(255), vec![("x-user".into(), "alice".into())]));
        assert!(wish.wanted.client.contains([10, 1, 2, 3].into()) && wish.shows_values);
        let (long, many) = ("a".repeat(2000), (0..9).map(|at| (at.to_string(), json!("x"))).collect::<Map<_, _>>());
        for (body, said) in [
            (json!([]), "write an object"),
            (json!({ "path": "/" }), "there is no field \"path\""),
            (json!({ "": "/" }), "there is no field \"\""),
            (json!({ "count": 0 }), "`count` is a whole number from 1 to 100"),
            (json!({ "count": 101 }), "`count` is"),
            (json!({ "count": -1 }), "`count` is"),
            (json!({ "for_seconds": 1e99 }), "`for_seconds` is a whole number from 1 to 3600"),
            (json!({ "status_min": 9999 }), "`status_min` is"),
            (json!({ "duration_min_seconds": -1 }), "`duration_min_seconds` is"),
            (json!({ "hash": "ff" }), "16 hex digits"),
            (json!({ "hash": "+00000000000000f" }), "16 hex digits"),
            (json!({ "client": "here" }), "`client` is an address"),
            (json!({ "service": long }), "`service` is a text of 1 to 1024 bytes"),
            (json!({ "headers": many }), "`headers` is an object of at most 8"),
            (json!({ "headers": { "a": 1 } }), "`headers` is"),
            (json!({ "headers": { "a b": "1" } }), "`headers`: no request has \"a b\""),
            (json!({ "headers": { "": "1" } }), "`headers`: no request has"),
            (json!({ "method": "G T" }), "`method`: no request has \"G T\""),
            (json!({ "method": "" }), "`method` is a text"),
            (json!({ "duration_min_seconds": null }), "`duration_min_seconds` is a number"),
            (json!({ "values": "all" }), "`values` is true or false"),
        ] {
            let problem = parse(&body).unwrap_err();
            assert!(problem.contains(said), "{body}: {problem}");
        }
    }
}
