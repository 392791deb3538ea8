//! The accept loop of one worker and one listener, and how its socket is closed: nobody whose handshake has completed is cut.

use crate::shortage::{Operation, is_of_one_connection};
use crate::worker::{self, Command, Gate, Worker};
use socket2::{SockFilter, SockRef};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How long to wait after an error of accept (out of descriptors, mostly) or while there are too many connections.
const BACK_OFF: Duration = Duration::from_millis(20);

/// How long handshakes that are under way may take to complete, once no new one begins: a client that has our SYN-ACK counts
/// itself connected, and its last ACK is on its way. More than a round trip to the other side of the world.
const HANDSHAKE_TIME: Duration = Duration::from_millis(500);

/// How often accept may fail while the queue is emptied.
const LAST_ERRORS: u32 = 100;

/// Accepts until the gate closes; then hands the socket over to its heir, or takes what the kernel has queued, so that closing
/// resets nobody. `open` lives for as long as the socket.
pub(crate) async fn run(worker: Rc<Worker>, mut gate: Rc<Gate>, socket: TcpListener, open: Arc<()>) {
    let _accepting = worker.accepting();
    loop {
        accept(&worker, &gate, &socket).await;
        let heir = gate.heir.take();
        match heir {
            Some(heir) => gate = heir,
            None => break,
        }
    }
    empty(&worker, &gate, socket).await;
    drop(open);
}

async fn accept(worker: &Rc<Worker>, gate: &Rc<Gate>, socket: &TcpListener) {
    while !gate.closing.get() {
        if is_full(worker, gate) {
            // The kernel's queue holds what comes meanwhile.
            tokio::time::sleep(BACK_OFF).await;
            continue;
        }
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = gate.stop.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                worker.shared.shortage.saw_client(&stream);
                serve(worker, gate, stream, peer);
            }
            Err(error) => {
                // An error of accept never ends the loop.
                worker.cells.accept_errors.increment();
                if is_of_one_connection(&error) {
                    tracing::debug!(listener = %gate.name(), %error, "a connection was gone before it was accepted");
                    continue;
                }
                worker.shared.shortage.note(Operation::Accept, &error, gate.name());
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Takes what is in the socket's queue and what is on its way into it, then closes the socket: one that closes resets what waits
/// there.
async fn empty(worker: &Rc<Worker>, gate: &Rc<Gate>, socket: TcpListener) {
    if let Err(error) = refuse_new(&socket) {
        tracing::debug!(listener = %gate.name(), %error, "connections that begin now may be cut");
    }
    let until = Instant::now() + HANDSHAKE_TIME;
    let mut errors = 0;
    while let Ok(accepted) = tokio::time::timeout_at(until, socket.accept()).await {
        match accepted {
            Ok((stream, peer)) => serve(worker, gate, stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
    // The last look is at the queue itself, not at what the runtime has heard of it.
    let Ok(socket) = socket.into_std() else { return };
    while errors < LAST_ERRORS {
        match socket.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    serve(worker, gate, stream, peer);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => {
                errors += 1;
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Drops every SYN from here on. Whoever sends it tries again after a second, and finds the next process, or that nobody listens.
/// Handshakes that have begun complete: their last ACK passes.
fn refuse_new(socket: &TcpListener) -> std::io::Result<()> {
    // Instructions and their operands: Linux, `include/uapi/linux/filter.h` and `bpf_common.h`. What the filter of a TCP socket
    // sees begins with the TCP header (RFC 9293, 3.1): its flags are byte 13, SYN is 2 and ACK is 16.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let syn_alone = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(socket).attach_filter(&syn_alone)
}

fn serve(worker: &Rc<Worker>, gate: &Rc<Gate>, stream: TcpStream, peer: std::net::SocketAddr) {
    // Heads and small bodies go out whole: waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if let Some((index, other)) = worker.less_busy() {
        if let Ok(stream) = stream.into_std() {
            // Counted from here on, so that a burst of connections does not all go to the same one.
            worker.shared.open[index].fetch_add(1, Relaxed);
            // A worker that has ended takes no more; so does the process, then.
            let _ = other.send(Command::Adopt { key: gate.key(), stream, peer });
        }
        return;
    }
    worker.shared.open[worker.index].fetch_add(1, Relaxed);
    worker::serve(worker, gate, stream, peer);
}

fn is_full(worker: &Worker, gate: &Gate) -> bool {
    let Some((view, listener)) = worker.listener(gate) else { return false };
    let config = &view.snapshot.config;
    let listener_max = config.listeners[listener].connections_max;
    let total = worker.shared.connections.load(Relaxed);
    let shortage = &worker.shared.shortage;
    shortage.is_tight()
        || total >= config.process.connections_max.min(shortage.connections_max())
        // Per worker, as everything on this path: the listener's limit is divided among them.
        || listener_max > 0 && gate.connections.get() >= listener_max.div_ceil(worker.workers()).max(1)
}
