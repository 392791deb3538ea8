//! The accept loop of one worker and one listener.

use crate::shortage::{Operation, is_of_one_connection};
use crate::worker::{self, Command, Gate, Worker};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long to wait after an error of accept (out of descriptors, mostly) or while there are too many connections.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Accepts until the gate closes; then hands the socket over to its heir, or takes what the kernel has queued, so that closing
/// resets nobody.
pub(crate) async fn run(worker: Rc<Worker>, mut gate: Rc<Gate>, socket: TcpListener) {
    loop {
        accept(&worker, &gate, &socket).await;
        let heir = gate.heir.take();
        match heir {
            Some(heir) => gate = heir,
            None => break,
        }
    }
    // A socket that closes resets what waits in its queue: empty it first.
    let mut idle_turns = 0;
    while idle_turns < 2 {
        let next = std::future::poll_fn(|context| std::task::Poll::Ready(socket.poll_accept(context)));
        match next.await {
            std::task::Poll::Ready(Ok((stream, peer))) => serve(&worker, &gate, stream, peer),
            std::task::Poll::Ready(Err(error)) if is_of_one_connection(&error) => {}
            std::task::Poll::Ready(Err(_)) => break,
            std::task::Poll::Pending => {
                // Handshakes under way end in the queue a moment later.
                idle_turns += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
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
