//! The watch stream: lines as they come, a heartbeat every five seconds and at once when the leader is lost, one line in flight
//! for each watcher.

use super::fleet::Refused;
use super::member::Api;
use super::request::Call;
use super::response::{Body, problem};
use crate::Code;
use crate::http::Problem;
use crate::loads::Tables;
use crate::plane::{Lead, Plane, unix_ms};
use crate::state::{Role, State};
use crate::watch::hub::{Now, line};
use crate::watch::wire::{Message, Ping};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Response, header};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Between two heartbeats.
const PING: Duration = Duration::from_secs(5);
/// The same while no leader is heard of: watchers go elsewhere by what they are told of its age.
const PING_LOST: Duration = Duration::from_millis(500);

/// How long a watcher that knows nothing waits for a member to be up to date.
const FRESH_WAIT: Duration = Duration::from_secs(1);
/// The hub's pace, and some.
const FRESH_PACE: Duration = Duration::from_millis(10);

/// `EPOCH.REVISION`.
fn position(text: &str) -> Option<(u64, u64)> {
    let (epoch, revision) = text.split_once('.')?;
    Some((epoch.parse().ok()?, revision.parse().ok()?))
}

/// Answers with a stream that ends when the client goes, or the member.
pub(super) fn watch(api: &Arc<Api>, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    let events = ask.header(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"));
    // A browser that comes back says where it was.
    let last = ask.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = match ask.parameter("from").or(last) {
        Some(text) => {
            Some(position(text).ok_or_else(|| problem(400, Code::BadPosition, "write `from=EPOCH.REVISION`"))?)
        }
        None => None,
    };
    let (sender, receiver) = mpsc::channel(1);
    let wanted = Wanted { events, loads: ask.flag("loads")? };
    tokio::spawn(feed(Arc::clone(&api.plane), from, wanted, sender));
    let body = Feed { receiver };
    let mut response = Response::new(body.boxed_unsync());
    let kind = if events { "text/event-stream" } else { "application/x-ndjson" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Begins a stream of what the fleet's page shows, for as long as who asks may read.
pub(super) fn live(api: &Arc<Api>, ask: &Call<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Role::Read)?;
    let service = ask.parameter("service").map(str::to_owned);
    let still_may = {
        let (api, headers, names, from) = (Arc::clone(api), ask.headers.clone(), ask.names.to_vec(), ask.from);
        move || {
            let caller = api.gate.caller(&api.plane.state(), &headers, &names, from, unix_ms());
            !api.plane.is_removed() && caller.is_ok_and(|caller| caller.needs(Role::Read).is_ok())
        }
    };
    let is_known = ask.caller.via != "anonymous";
    let events = api.live.look(service, is_known, Box::new(still_may)).map_err(|refused| match refused {
        Refused::Busy => {
            problem(503, Code::Busy, "too many look at the fleet here already: close a page, or ask another member")
        }
        Refused::Unknown => problem(404, Code::NotFound, "the topology has no service of this name"),
    })?;
    let mut response = Response::new(events.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A member that lags, or one that was restored: after a barrier it is known which.
fn is_behind(plane: &Plane, known: (u64, u64)) -> bool {
    let state = plane.state();
    (state.epoch, state.revision) < known
}

fn ping_line(plane: &Plane, state: &State) -> Bytes {
    let age = plane.leader_age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    line(&Message::Ping(Ping::of(state, age)))
}

/// What a watcher has not been told, and where it is then.
fn news(plane: &Plane, seen: &Now, from: &mut Option<(u64, u64)>) -> Vec<Bytes> {
    if from.is_none_or(|known| (seen.epoch, seen.revision) >= known) {
        let lines = plane.hub.catch_up(seen, *from);
        *from = Some((seen.epoch, seen.revision));
        return lines;
    }
    // Behind the watcher: it would refuse what this member has to say. It is told where this member is.
    vec![ping_line(plane, &seen.state)]
}

/// Who knows nothing yet begins with what holds, not with what a member that lags has. Without a leader, that is all there is.
async fn up_to_date(plane: &Plane, from: Option<(u64, u64)>) {
    if from.is_none_or(|known| is_behind(plane, known)) {
        let _ = tokio::time::timeout(FRESH_WAIT, plane.barrier()).await;
        // The hub shows what is applied after a moment.
        tokio::time::sleep(FRESH_PACE).await;
    }
}

/// How a watcher is told, and of what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// As server-sent events.
    pub(crate) events: bool,
    /// Of tables of loads, too: a client of an earlier version does not know them.
    pub(crate) loads: bool,
}

/// The place that an event is told with.
type Id = Option<(u64, u64)>;

/// What a watcher is told of loads, and has been.
struct Loads {
    now: watch::Receiver<Arc<Tables>>,
    told: Arc<Tables>,
}

impl Loads {
    /// Until there are other tables.
    async fn changed(of: &mut Option<Self>) {
        if let Some(loads) = of
            && loads.now.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Brings the watcher to the present, and says how old that is. All that comes before has gone by then: what waits here for a slow
    /// watcher would make it look young. `false`: the watcher has gone.
    async fn tell(of: &mut Option<Self>, plane: &Plane, sender: &mpsc::Sender<Bytes>, events: Option<Id>) -> bool {
        let Some(loads) = of else { return true };
        let now = Arc::clone(&loads.now.borrow_and_update());
        let line = plane.loads.hub.line(&loads.told, &now);
        loads.told = now;
        if !tell(sender, line.into_iter().collect(), events).await {
            return false;
        }
        let Ok(place) = sender.reserve().await else { return false };
        if let Some(text) = plane.loads.hub.confirmation(&loads.told, plane.now()) {
            place.send(framed(&text, events));
        }
        true
    }
}

/// What a watcher is told, line by line, until it goes, or the member is removed. Whoever carries the lines may be slow: there is one
/// on its way at most, and then what has come meanwhile.
pub(crate) async fn feed(plane: Arc<Plane>, mut from: Option<(u64, u64)>, wanted: Wanted, sender: mpsc::Sender<Bytes>) {
    // In a box: it is over long before the watcher goes.
    Box::pin(up_to_date(&plane, from)).await;
    let mut now = plane.hub.subscribe();
    let mut lead = plane.lead_watched();
    let mut rollout = Bytes::new();
    let mut loads = wanted.loads.then(|| Loads { now: plane.loads.hub.subscribe(), told: Arc::default() });
    let mut first = true;
    let mut told = Instant::now();
    loop {
        let standing = *lead.borrow_and_update();
        if standing == Lead::Removed {
            return;
        }
        let seen = now.borrow_and_update().clone();
        // A member that has just begun knows nothing yet: a watcher that knows more waits for it.
        if !seen.state.cluster.is_empty() {
            let mut lines = news(&plane, &seen, &mut from);
            // That nothing has changed says nothing of what is the same: digests do. And what comes of a member without a leader may
            // be old.
            if std::mem::take(&mut first) && (lines.is_empty() || standing == Lead::Lost) {
                lines.push(ping_line(&plane, &seen.state));
            }
            if rollout != seen.rollout {
                rollout = seen.rollout.clone();
                lines.push(rollout.clone());
            }
            drop(seen);
            if !lines.is_empty() {
                told = Instant::now();
            }
            let events = wanted.events.then_some(from);
            if !tell(&sender, lines, events).await || !Loads::tell(&mut loads, &plane, &sender, events).await {
                return;
            }
        }
        tokio::select! {
            // A simulation has an order of its own.
            biased;
            changed = now.changed() => if changed.is_err() { return },
            () = Loads::changed(&mut loads) => {}
            () = sender.closed() => return,
            () = due(&mut lead, standing, told) => {
                // Of what this watcher was told: what has come since is told first.
                let state = Arc::clone(&now.borrow().state);
                // One that is in no cluster yet has nothing else to say, and its watchers are to go elsewhere.
                if now.has_changed().unwrap_or(false) {
                    continue;
                }
                told = Instant::now();
                let (lines, events) = (vec![ping_line(&plane, &state)], wanted.events.then_some(None));
                if !tell(&sender, lines, events).await || !Loads::tell(&mut loads, &plane, &sender, events).await {
                    return;
                }
            }
        }
    }
}

/// `events`: as such, with this id. `false`: the watcher has gone.
async fn tell(sender: &mpsc::Sender<Bytes>, lines: Vec<Bytes>, events: Option<Id>) -> bool {
    for text in lines {
        if sender.send(framed(&text, events)).await.is_err() {
            return false;
        }
    }
    true
}

/// As it is, or as an event.
fn framed(text: &Bytes, events: Option<Id>) -> Bytes {
    events.map_or_else(|| text.clone(), |id| event(text, id))
}

/// Until the next heartbeat: lines of loads, which come often, are none.
async fn due(lead: &mut watch::Receiver<Lead>, standing: Lead, told: Instant) {
    let pace = if standing == Lead::Followed { PING } else { PING_LOST };
    let _ = tokio::time::timeout_at(told + pace, lead.wait_for(|now| *now != standing)).await;
}

/// As server-sent events have it. Source: WHATWG HTML, section 9.2.
fn event(line: &[u8], id: Option<(u64, u64)>) -> Bytes {
    let mut text = Vec::with_capacity(line.len() + 40);
    if let Some((epoch, revision)) = id {
        text.extend_from_slice(format!("id: {epoch}.{revision}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(line);
    text.push(b'\n');
    text.into()
}

struct Feed {
    receiver: mpsc::Receiver<Bytes>,
}

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(context).map(|data| data.map(|data| Ok(hyper::body::Frame::data(data))))
    }
}
