//! The network between members: it loses, delays, reorders and doubles what they send, as the seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::disk::Random;
use super::scheduler::{Group, Scheduler};
use super::world::{Shown, World};
use crate::transport::{CallError, Carrier, Inbox, PING_INTERVAL, PING_TIMEOUT, Rpc, parse_call};

/// How bad the network is, in parts of a thousand messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) late: u64,
    /// How late those are, at most.
    pub(super) late_ms: u64,
    pub(super) doubled: u64,
}

/// A member's process, where its address leads to.
#[derive(Clone)]
struct Host {
    node: u64,
    group: Group,
    inbox: Inbox,
}

struct State {
    random: Random,
    weather: Weather,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    /// By address, and whose address it is.
    hosts: BTreeMap<String, (u64, Option<Host>)>,
    messages: u64,
}

/// All clones are one.
#[derive(Clone)]
pub(super) struct Net {
    state: Arc<Mutex<State>>,
    world: World,
    scheduler: Scheduler,
}

type Answer = Arc<Mutex<Option<oneshot::Sender<Result<Bytes, CallError>>>>>;

/// One message on its way.
struct Message {
    number: u64,
    from: u64,
    to: u64,
    address: String,
    rpc: Rpc,
    body: Bytes,
    answer: Answer,
}

impl Net {
    pub(super) fn new(seed: u64, world: World, scheduler: Scheduler) -> Self {
        let state = State {
            random: Random::new(seed ^ 0x4e7),
            weather: Weather::default(),
            cut: BTreeSet::new(),
            hosts: BTreeMap::new(),
            messages: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), world, scheduler }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn line(&self, from: u64) -> Arc<dyn Carrier> {
        Arc::new(Line { net: self.clone(), from })
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// One way; what is under way arrives no more.
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.lock().cut.insert((from, to));
    }

    pub(super) fn heal(&self) {
        self.lock().cut.clear();
    }

    /// A process listens.
    pub(super) fn open(&self, address: &str, node: u64, group: Group, inbox: Inbox) {
        self.lock().hosts.insert(address.to_owned(), (node, Some(Host { node, group, inbox })));
    }

    /// It does not any more: calls are refused.
    pub(super) fn close(&self, address: &str) {
        if let Some((_, host)) = self.lock().hosts.get_mut(address) {
            *host = None;
        }
    }

    fn send(&self, from: u64, to: u64, address: String, rpc: Rpc, body: &Bytes, answer: &Answer) {
        let copies = {
            let mut state = self.lock();
            // What is above consensus is asked once: its connections are not the engine's to retry.
            let doubled = rpc != Rpc::Ask && state.random.below(1000) < state.weather.doubled;
            1 + u64::from(doubled)
        };
        for _ in 0..copies {
            let (number, journey) = {
                let mut state = self.lock();
                state.messages += 1;
                (state.messages, state.journey())
            };
            let (address, body, answer) = (address.clone(), body.clone(), Arc::clone(answer));
            let message = Message { number, from, to, address, rpc, body, answer };
            drop(self.scheduler.spawn(0, self.clone().carry(message, journey)));
        }
    }

    /// There and, if all goes well, back.
    async fn carry(self, message: Message, journey: Option<Duration>) {
        let Message { number, from, to, .. } = message;
        let Some(journey) = journey else {
            self.world.count("messages lost");
            return self.world.note(format_args!("m{from}->m{to} #{number} lost"));
        };
        sleep(journey).await;
        if self.lock().cut.contains(&(from, to)) {
            return self.world.note(format_args!("m{from}->m{to} #{number} cut"));
        }
        let host = self.lock().hosts.get(&message.address).and_then(|(_, host)| host.clone());
        let answer = match host {
            Some(host) => self.deliver(&message, host).await,
            None => {
                self.world.note(format_args!("m{from}->m{to} #{number} refused"));
                let source = std::io::ErrorKind::ConnectionRefused.into();
                Err(CallError::Dial { address: message.address.clone(), source })
            }
        };
        let journey = self.lock().journey();
        let Some(journey) = journey else {
            self.world.count("messages lost");
            return self.world.note(format_args!("m{to}->m{from} #{number} lost"));
        };
        sleep(journey).await;
        if self.lock().cut.contains(&(to, from)) {
            return self.world.note(format_args!("m{to}->m{from} #{number} cut"));
        }
        if let Some(sender) = message.answer.lock().unwrap().take() {
            self.world
                .note(format_args!("m{to}->m{from} #{number} {}", if answer.is_ok() { "answered" } else { "failed" }));
            // Whoever asked may have given up, or died.
            let _ = sender.send(answer);
        }
    }

    async fn deliver(&self, message: &Message, host: Host) -> Result<Bytes, CallError> {
        let Message { number, from, to, address, rpc, body, .. } = message;
        let refused = |status| CallError::Status { address: address.clone(), status };
        if host.node != *to {
            self.world.note(format_args!("m{from}->m{to} #{number} reaches m{}", host.node));
            return Err(refused(StatusCode::CONFLICT));
        }
        let call = match parse_call(*rpc, body.clone()) {
            Ok(call) => call,
            Err(error) => {
                self.world.violation(format_args!("m{from} sends m{to} what does not parse: {error}"));
                return Err(refused(StatusCode::BAD_REQUEST));
            }
        };
        self.world.count("messages");
        self.world.note(format_args!("m{from}->m{to} #{number} {}", Shown(&call)));
        let (sender, receiver) = oneshot::channel();
        let handled = (host.inbox)(*rpc, body.clone());
        let handling = async move { drop(sender.send(handled.await)) };
        drop(self.scheduler.spawn(host.group, handling));
        match receiver.await {
            Ok(Ok(answer)) => {
                self.world.promised(*to, &call, *rpc, &answer);
                Ok(answer.into())
            }
            Ok(Err(status)) => Err(refused(status)),
            // It died over it.
            Err(_) => {
                let source = "the connection was reset".into();
                Err(CallError::Broken { address: address.clone(), source })
            }
        }
    }
}

impl State {
    /// How long one way takes; `None`: it is never arrived at.
    fn journey(&mut self) -> Option<Duration> {
        let Weather { lost, late, late_ms, .. } = self.weather;
        if self.random.below(1000) < lost {
            return None;
        }
        let ms = match self.random.below(1000) < late {
            true => self.random.below(late_ms.max(1)),
            false => self.random.below(3),
        };
        Some(Duration::from_millis(ms))
    }
}

/// A member's end of the network.
struct Line {
    net: Net,
    from: u64,
}

impl Carrier for Line {
    fn carry(&self, to: u64, address: String, rpc: Rpc, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            let (sender, receiver) = oneshot::channel();
            let lost = address.clone();
            net.send(from, to, address, rpc, &body, &Arc::new(Mutex::new(Some(sender))));
            match receiver.await {
                Ok(answer) => answer,
                // Nothing ever comes: the connection's own heartbeats find out, if the caller's deadline is later.
                Err(_) => {
                    sleep(PING_INTERVAL + PING_TIMEOUT).await;
                    Err(CallError::Broken { address: lost, source: "the connection is dead".into() })
                }
            }
        })
    }
}
