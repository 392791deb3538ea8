//! The listeners that are bound. New sockets are bound before a change is in force, which may fail; handing them to the workers
//! cannot fail.

use super::bind::{self, BindAddress};
use crate::dispatcher::{Command, Doors, Fullness, ListenerId, ListenerKind, ListenerPermits, Listening};
use ringway_config::model::{Config, Listener};
use ringway_config::{Diagnostic, Diagnostics};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::mpsc;

/// A worker's command channel. One that has ended takes no more commands: that it is not heard there is no error.
pub(super) type Commands = [mpsc::UnboundedSender<Command>];

/// All listeners of the process.
#[derive(Default)]
pub(super) struct Listeners {
    bound: HashMap<ListenerId, Bound>,
    /// Those that are configured no more, and whose sockets may still be open: they are closed once their queues are empty.
    closing: Vec<Bound>,
}

/// Where a listener really is.
#[derive(Clone)]
struct Bound {
    address: BindAddress,
    /// Held by each worker that accepts from one of its sockets.
    open: Weak<()>,
    /// Its connection slots, over all workers.
    permits: Arc<ListenerPermits>,
}

/// Sockets for the listeners that a change brings.
#[derive(Default)]
pub(super) struct NewSockets(Vec<(ListenerId, Sockets)>);

/// Where a new listener's sockets come from.
enum Sockets {
    /// They were bound for it, one a worker.
    Fresh(BindAddress, Vec<Listening>),
    /// They are those of this listener, which goes. A socket that was closed would take with it what the kernel has queued, and
    /// what is on its way into that queue.
    Of(ListenerId),
}

impl Sockets {
    fn fresh_address(&self) -> Option<&BindAddress> {
        match self {
            Self::Fresh(address, _) => Some(address),
            Self::Of(_) => None,
        }
    }
}

impl Listeners {
    /// Sockets for listeners that are not there yet: those of one that goes and had the same address, or one a worker. They are
    /// bound, and no client can connect yet.
    ///
    /// # Errors
    /// One finding for each address that cannot be bound; what was bound for others is closed again.
    pub(super) fn bind_new(&self, config: &Config, workers: usize) -> Result<NewSockets, Diagnostics> {
        let (mut sockets, mut wrong) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let key = ListenerId::of(listener);
            if self.bound.contains_key(&key) {
                continue;
            }
            // Addresses are unique: the one that is bound there goes.
            if let Some(from) = self.bound.keys().find(|known| known.shares_sockets(&key)) {
                sockets.push((key, Sockets::Of(from.clone())));
                continue;
            }
            let udp = key.kind == ListenerKind::Udp;
            let address = BindAddress { address: listener.address, v6_only: listener.v6_only, udp };
            let ours = self.has_rival(&address, &sockets);
            match bind::bind(address, workers, ours) {
                Ok((address, list)) => sockets.push((key, Sockets::Fresh(address, list))),
                Err(error) => wrong.push(finding(listener, &error)),
            }
        }
        if wrong.is_empty() { Ok(NewSockets(sockets)) } else { Err(Diagnostics(wrong)) }
    }

    /// Whether the kernel takes a socket that this process has already for a rival of this address.
    fn has_rival(&self, address: &BindAddress, fresh: &[(ListenerId, Sockets)]) -> bool {
        let fresh = fresh.iter().filter_map(|(_, sockets)| sockets.fresh_address());
        let closing = self.closing.iter().filter(|bound| bound.open.strong_count() > 0);
        let known = self.bound.values().chain(closing).map(|bound| &bound.address);
        known.chain(fresh).any(|known| known.overlaps(address))
    }

    /// Hands new sockets to the workers, and has them close those that are configured no more.
    pub(super) fn reconcile(
        &mut self,
        config: &Config,
        sockets: NewSockets,
        (commands, doors): (&Commands, &Arc<Doors>),
    ) {
        for (key, sockets) in sockets.0 {
            let bound = match sockets {
                Sockets::Fresh(address, list) => hand_out(&key, address, list, (commands, doors)),
                Sockets::Of(from) => {
                    let permits = Arc::<ListenerPermits>::default();
                    for sender in commands {
                        let permits = Arc::clone(&permits);
                        let _ = sender.send(Command::HandOver { from: from.clone(), to: key.clone(), permits });
                    }
                    match self.bound.remove(&from) {
                        Some(bound) => Bound { permits, ..bound },
                        None => continue,
                    }
                }
            };
            self.bound.insert(key, bound);
        }
        self.close_others(config, commands);
        for sender in commands {
            let _ = sender.send(Command::Refresh);
        }
    }

    fn close_others(&mut self, config: &Config, commands: &Commands) {
        let wanted: Vec<ListenerId> = config.listeners.iter().map(ListenerId::of).collect();
        let closing = &mut self.closing;
        closing.retain(|bound| bound.open.strong_count() > 0);
        self.bound.retain(|key, bound| {
            let keep = wanted.contains(key);
            if !keep {
                for sender in commands {
                    let _ = sender.send(Command::Unlisten { key: key.clone() });
                }
                closing.push(bound.clone());
            }
            keep
        });
    }

    /// Bound addresses by listener name.
    pub(super) fn addresses(&self, config: &Config) -> HashMap<String, SocketAddr> {
        self.of_each(config, |bound| bound.address.address)
    }

    /// What each listener's workers have in common, by name.
    pub(super) fn permits(&self, config: &Config) -> HashMap<String, Arc<ListenerPermits>> {
        self.of_each(config, |bound| Arc::clone(&bound.permits))
    }

    /// How full each listener is, by name.
    pub(super) fn fullness(&self, config: &Config, now: Instant) -> HashMap<String, Fullness> {
        self.of_each(config, |bound| bound.permits.fullness(now))
    }

    fn of_each<T>(&self, config: &Config, read: impl Fn(&Bound) -> T) -> HashMap<String, T> {
        let known = |listener: &Listener| self.bound.get(&ListenerId::of(listener)).map(&read);
        config.listeners.iter().filter_map(|listener| Some((listener.name.clone(), known(listener)?))).collect()
    }
}

impl NewSockets {
    /// Lets clients connect. From here on the sockets must be served: a client that has connected to one which is closed again
    /// would be reset.
    ///
    /// # Errors
    /// One finding for each listener that cannot listen.
    pub(super) fn listen(&self, config: &Config) -> Result<(), Diagnostics> {
        let mut wrong = Vec::new();
        for (key, sockets) in &self.0 {
            let Sockets::Fresh(_, list) = sockets else { continue };
            let failed = list.iter().find_map(|socket| bind::listen(socket).err());
            let listener = config.listeners.iter().find(|listener| ListenerId::of(listener) == *key);
            if let (Some(error), Some(listener)) = (failed, listener) {
                wrong.push(finding(listener, &error));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Diagnostics(wrong)) }
    }
}

/// One socket to each worker.
fn hand_out(
    key: &ListenerId,
    address: BindAddress,
    list: Vec<Listening>,
    (commands, doors): (&Commands, &Arc<Doors>),
) -> Bound {
    let (open, permits) = (Arc::new(()), Arc::<ListenerPermits>::default());
    for (worker, (sender, socket)) in commands.iter().zip(list).enumerate() {
        let (permits, open) = (Arc::clone(&permits), Arc::clone(&open));
        let known = match &socket {
            Listening::Connections(socket) => doors.enter(worker, key, socket),
            Listening::Datagrams(_) => None,
            #[cfg(test)]
            Listening::Memory(_) => None,
        };
        let _ = sender.send(Command::Listen { key: key.clone(), socket, permits, open, known });
    }
    Bound { address, open: Arc::downgrade(&open), permits }
}

fn finding(listener: &Listener, error: &std::io::Error) -> Diagnostic {
    let what = format!("listener {:?} to {}", listener.name, listener.address);
    bind::finding(&listener.site, &what, listener.address, error)
}

#[cfg(test)]
mod tests {
    use super::super::ports::free_port;
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    fn workers(count: usize) -> (Vec<UnboundedSender<Command>>, Vec<UnboundedReceiver<Command>>) {
        (0..count).map(|_| unbounded_channel()).unzip()
    }

    fn config(listeners: &[String]) -> Config {
        let text = format!(
            "listeners: [ {} ]\nservices: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n",
            listeners.join(", ")
        );
        ringway_config::load_str("test.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).config
    }

    fn listener(name: &str, port: u16, rest: &str) -> String {
        format!("{{ name: {name}, address: \"127.0.0.1:{port}\", {rest} }}")
    }

    /// What a worker has been sent, by the address that it is about. What it was given is held as long as `held`.
    fn received(receiver: &mut UnboundedReceiver<Command>, held: &mut Vec<Command>) -> Vec<String> {
        let commands: Vec<Command> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        let names = commands
            .iter()
            .map(|command| match command {
                Command::Listen { key, .. } => format!("listen {}", key.address.port()),
                Command::HandOver { from, to, .. } => format!("hand {} over {:?}", from.address.port(), to.kind),
                Command::Unlisten { key } => format!("unlisten {}", key.address.port()),
                Command::Refresh => "refresh".into(),
                _ => "other".into(),
            })
            .collect();
        held.extend(commands);
        names
    }

    fn apply(listeners: &mut Listeners, config: &Config, commands: &Commands) {
        let sockets = listeners.bind_new(config, commands.len()).unwrap();
        sockets.listen(config).unwrap();
        listeners.reconcile(config, sockets, (commands, &Arc::default()));
    }

    #[test]
    fn each_worker_hears_of_new_listeners_first_then_of_those_that_go_then_of_the_rest() {
        let (commands, mut receivers) = workers(2);
        let (one, two) = (free_port(), free_port());
        let (mut listeners, mut held) = (Listeners::default(), Vec::new());
        let first = config(&[listener("a", one, "service: s")]);
        apply(&mut listeners, &first, &commands);
        for receiver in &mut receivers {
            assert_eq!(received(receiver, &mut held), [format!("listen {one}"), "refresh".into()]);
        }
        let second = config(&[listener("b", two, "service: s")]);
        apply(&mut listeners, &second, &commands);
        for receiver in &mut receivers {
            let expected = [format!("listen {two}"), format!("unlisten {one}"), "refresh".into()];
            assert_eq!(received(receiver, &mut held), expected);
        }
        assert_eq!(listeners.addresses(&second)["b"].port(), two);
        assert!(listeners.addresses(&first).is_empty());
        // What is there already is left alone, and so it is under another name.
        apply(&mut listeners, &config(&[listener("c", two, "service: s")]), &commands);
        assert_eq!(received(&mut receivers[0], &mut held), ["refresh"]);
    }

    #[test]
    fn a_listener_that_speaks_something_else_goes_on_with_the_sockets_there_are() {
        let (commands, mut receivers) = workers(1);
        let port = free_port();
        let (mut listeners, mut held) = (Listeners::default(), Vec::new());
        apply(&mut listeners, &config(&[listener("a", port, "service: s")]), &commands);
        apply(&mut listeners, &config(&[listener("a", port, "protocol: tcp, service: s")]), &commands);
        let expected = [format!("listen {port}"), "refresh".into(), format!("hand {port} over Tcp"), "refresh".into()];
        assert_eq!(received(&mut receivers[0], &mut held), expected);
    }

    #[test]
    fn one_address_that_is_taken_leaves_nothing_bound_and_no_command_sent() {
        let (commands, mut receivers) = workers(2);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (free, taken) = (free_port(), taken.local_addr().unwrap().port());
        let listeners = Listeners::default();
        let config = config(&[listener("free", free, "service: s"), listener("taken", taken, "service: s")]);
        let Err(wrong) = listeners.bind_new(&config, commands.len()) else { panic!("{taken} was free") };
        assert_eq!(wrong.0.len(), 1);
        assert!(wrong.0[0].message.contains("\"taken\""), "{}", wrong.0[0].message);
        std::net::TcpListener::bind(("127.0.0.1", free)).unwrap();
        assert!(receivers.iter_mut().all(|receiver| receiver.try_recv().is_err()));
    }

    #[test]
    fn an_address_that_another_process_would_share_is_taken_and_one_of_ours_is_not() {
        let (commands, mut receivers) = workers(1);
        let (port, mut held) = (free_port(), Vec::new());
        let all = format!("{{ name: all, address: \"0.0.0.0:{port}\", service: s }}");
        let one = listener("one", port, "service: s");
        let (first, both) = (config(std::slice::from_ref(&one)), config(&[one, all]));
        let mut old_process = Listeners::default();
        apply(&mut old_process, &first, &commands);
        // Its sockets have SO_REUSEPORT, as ours: the kernel would let us in, and give us half of its connections.
        assert!(Listeners::default().bind_new(&first, 1).is_err());
        assert!(Listeners::default().bind_new(&both, 1).is_err());
        assert!(old_process.bind_new(&both, 1).is_ok(), "it may have both itself");
        received(&mut receivers[0], &mut held);
        held.clear();
        assert!(Listeners::default().bind_new(&both, 1).is_ok(), "and others once it has gone");
    }

    #[test]
    fn no_client_can_connect_to_a_socket_that_is_only_bound() {
        let port = free_port();
        let config = config(&[listener("a", port, "service: s")]);
        let sockets = Listeners::default().bind_new(&config, 1).unwrap();
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
        assert!(connect().is_err());
        sockets.listen(&config).unwrap();
        assert!(connect().is_ok());
    }

    #[test]
    fn an_address_that_closes_can_be_bound_again_before_its_queue_is_empty() {
        let (commands, mut receivers) = workers(1);
        let port = free_port();
        let (mut listeners, mut held) = (Listeners::default(), Vec::new());
        let with = config(&[listener("a", port, "service: s")]);
        apply(&mut listeners, &with, &commands);
        received(&mut receivers[0], &mut held);
        apply(&mut listeners, &config(&[listener("b", free_port(), "service: s")]), &commands);
        assert_eq!(listeners.closing.len(), 1);
        // The worker still has the socket, and it is no rival's: it is ours.
        assert!(listeners.bind_new(&with, 1).is_ok());
        received(&mut receivers[0], &mut held);
        held.clear();
        apply(&mut listeners, &with, &commands);
        assert!(listeners.closing.len() <= 1, "what is closed is forgotten");
    }
}
