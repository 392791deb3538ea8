//! The accept loop of one worker and one listener, and how its socket is closed without a reset for clients whose handshake has
//! completed.

use super::frontend::Frontend;
use super::handshake;
use super::turn_away::{Speech, TurnedAway, speech, turn_away};
use crate::ambient;
use crate::dispatcher::{Command, ConnectionPermit, Full, Known, WaitingForPermit};
use crate::net::shortage::{Operation, is_of_one_connection};
use crate::net::transport::{Listener, Transport};
use crate::worker::{ActiveListener, View};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long to wait after an accept error (mostly: out of descriptors) or while there are too many connections.
const BACK_OFF: Duration = Duration::from_millis(20);

/// How long handshakes that are under way may take to complete, once no new one begins: a client that has our SYN-ACK counts itself
/// connected, and its last ACK is on its way. More than a round trip to the other side of the world.
const HANDSHAKE_TIME: Duration = Duration::from_millis(500);

/// How often accept may fail while the queue is emptied.
const LAST_ERRORS: u32 = 100;

/// Accepts until the listener closes; then hands the socket over to its successor, or accepts what the kernel has queued, so that
/// closing resets no client. `open` lives for as long as the socket, `known` for as long as another worker may accept from it.
pub(crate) async fn run(
    frontend: Rc<Frontend>,
    active_listener: Rc<ActiveListener>,
    socket: Listener,
    (open, known): (Arc<()>, Option<Known>),
) {
    let _accepting = frontend.worker.accepting();
    let mut door = Door { frontend, active_listener, parked: None, waiting: None };
    loop {
        door.accept(&socket).await;
        let successor = door.active_listener.successor.take();
        match successor {
            Some(successor) => (door.active_listener, door.waiting) = (successor, None),
            None => break,
        }
    }
    drop(known);
    door.empty(socket).await;
    drop(open);
}

/// Accepts from the socket of another worker, which is stuck, until it goes on (`over`) or this one's own listener closes.
pub(crate) async fn stand_in(
    frontend: Rc<Frontend>,
    active_listener: Rc<ActiveListener>,
    socket: Listener,
    over: oneshot::Receiver<()>,
) {
    let _accepting = frontend.worker.accepting();
    let mut door = Door { frontend, active_listener, parked: None, waiting: None };
    tokio::select! {
        () = door.accept(&socket) => {}
        _ = over => {}
    }
    // One that has been accepted is served.
    door.admit_at_last().await;
}

/// The accept side of one socket.
struct Door {
    frontend: Rc<Frontend>,
    active_listener: Rc<ActiveListener>,
    /// A connection that has been accepted and waits for a permit. The kernel's queue holds those that come meanwhile.
    parked: Option<(Transport, SocketAddr)>,
    /// No permit is free for it.
    waiting: Option<WaitingForPermit>,
}

impl Door {
    async fn accept(&mut self, socket: &Listener) {
        while !self.active_listener.closing.get() {
            let waits = self.frontend.worker.shared.overload.stops_accepting() || !self.admit();
            if waits || self.frontend.worker.shared.shortage.is_tight() {
                self.back_off().await;
                continue;
            }
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                () = self.active_listener.stop.notified() => break,
            };
            match accepted {
                Ok(connection) => {
                    let shortage = &self.frontend.worker.shared.shortage;
                    connection.0.descriptor().iter().for_each(|descriptor| shortage.saw_client(descriptor));
                    self.parked = Some(connection);
                }
                Err(error) => {
                    // An accept error never ends the loop.
                    self.frontend.worker.counters.accept_errors.increment();
                    if is_of_one_connection(&error) {
                        tracing::debug!(listener = %self.active_listener.name(), %error, "a connection was gone before it was accepted");
                        continue;
                    }
                    self.frontend.worker.shared.shortage.note(Operation::Accept, &error, self.active_listener.name());
                    self.back_off().await;
                }
            }
        }
    }

    async fn back_off(&self) {
        tokio::select! {
            () = tokio::time::sleep(BACK_OFF) => {}
            () = self.active_listener.stop.notified() => {}
        }
    }

    /// Accepts all connections in the socket's queue and those on their way into it, then closes the socket: closing resets those
    /// that wait there. It ends when the process does, if no permit is free for a connection until then.
    async fn empty(&mut self, socket: Listener) {
        if let Err(error) = socket.refuse_new() {
            tracing::debug!(listener = %self.active_listener.name(), %error, "connections that begin now may be cut");
        }
        let until = (ambient::now() + HANDSHAKE_TIME).into();
        self.admit_at_last().await;
        while let Ok(accepted) = tokio::time::timeout_at(until, socket.accept()).await {
            match accepted {
                Ok(connection) => self.parked = Some(connection),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
            self.admit_at_last().await;
        }
        // The last look is at the queue itself, not at the runtime's readiness.
        let Ok(queue) = socket.into_queue() else { return };
        let mut errors = 0;
        while errors < LAST_ERRORS {
            match queue.accept() {
                Ok((stream, peer)) => {
                    self.parked = stream.attach().ok().map(|stream| (stream, peer));
                    self.admit_at_last().await;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => {
                    errors += 1;
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn admit_at_last(&mut self) {
        while !self.admit() {
            tokio::time::sleep(BACK_OFF).await;
        }
    }

    /// Serves the waiting connection, if there is a permit for it, or turns it away. `false`: it goes on waiting.
    fn admit(&mut self) -> bool {
        if self.parked.is_none() {
            return true;
        }
        let (frontend, active_listener) = (&self.frontend, &self.active_listener);
        let worker = &frontend.worker;
        let known = worker.listener(active_listener);
        let (process_max, listener_max) = match &known {
            Some((view, listener)) => {
                let config = &view.snapshot.config;
                // Half of what flows take is left to connections, which take twice as many descriptors.
                let flows = worker.shared.occupancy.flows.load(Relaxed);
                let borne = worker.shared.shortage.connections_max().saturating_add(flows / 2);
                let process_max = config.process.connections_max.min(borne);
                (process_max, config.listeners[*listener].connections_max)
            }
            None => (usize::MAX, 0),
        };
        let listener_max = if listener_max == 0 { usize::MAX } else { listener_max };
        let permit = ConnectionPermit::take(
            &worker.shared.occupancy,
            &active_listener.permits,
            worker.index,
            process_max,
            listener_max,
        );
        let full = match permit {
            Ok(permit) => {
                self.waiting = None;
                if let Some((stream, peer)) = self.parked.take() {
                    serve(frontend, active_listener, permit, stream, peer);
                }
                return true;
            }
            Err(full) => full,
        };
        match known {
            Some((view, listener)) if view.snapshot.config.listeners[listener].reject_when_full => {
                self.waiting = None;
                if let Some((stream, peer)) = self.parked.take() {
                    reject(frontend, active_listener, (&view, listener), full, stream, peer);
                }
                true
            }
            Some(_) | None => {
                self.wait(full);
                false
            }
        }
    }

    /// From here on a connection waits without a permit.
    fn wait(&mut self, full: Full) {
        if self.waiting.is_some() {
            return;
        }
        let (waiting, tell) = self.active_listener.permits.wait(ambient::now());
        self.waiting = Some(waiting);
        if tell {
            tracing::warn!(
                listener = %self.active_listener.name(), limit = full.limit(),
                "the listener is full: clients wait in the kernel's queue until a connection ends"
            );
        }
    }
}

/// Turns away a client for which there is no permit.
fn reject(
    frontend: &Rc<Frontend>,
    active_listener: &ActiveListener,
    (view, listener): (&View, usize),
    full: Full,
    stream: Transport,
    peer: SocketAddr,
) {
    if active_listener.permits.turn_away(ambient::now()) {
        let (listener, limit) = (active_listener.name(), full.limit());
        tracing::warn!(%listener, limit, "the listener is full: clients are turned away");
    }
    frontend.worker.shared.counters.error("", TurnedAway::Full.reason());
    let config = &view.snapshot.config.listeners[listener];
    // The first bytes may be a PROXY header of a proxy in front: nothing is read for a local reply.
    let says_who = config.proxy_protocol.contains(peer.ip());
    let speech = if says_who { Speech::Other } else { speech(view, listener) };
    turn_away(frontend, None, stream, TurnedAway::Full, speech);
}

fn serve(
    frontend: &Rc<Frontend>,
    active_listener: &Rc<ActiveListener>,
    mut permit: ConnectionPermit,
    stream: Transport,
    peer: SocketAddr,
) {
    let Some((index, other)) = frontend.worker.less_busy() else {
        return handshake::serve(frontend, active_listener, permit, stream, peer);
    };
    if let Ok(stream) = stream.detach() {
        permit.move_to(index);
        // A worker that has ended takes no more; then the process is ending too.
        let _ = other.send(Command::Adopt { key: active_listener.key(), permit, stream, peer });
    }
}
