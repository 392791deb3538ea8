//! A relay before every member. It knows who calls by the loopback address that the call comes from: member `n` is
//! 127.0.0.n, and members call from the address that they listen on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a pair's bytes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Bytes wait, as they do in a network that drops packets, until it is mended.
    pub(crate) cut: bool,
    pub(crate) delay: Duration,
}

#[derive(Default)]
struct State {
    /// Where each member really listens; `None` while it is down.
    members: HashMap<u64, Option<SocketAddr>>,
    links: HashMap<(u64, u64), watch::Sender<Link>>,
}

/// All clones are one relay.
#[derive(Clone, Default)]
pub(crate) struct Relay(Arc<Mutex<State>>);

impl Relay {
    /// Opens the address under which the others know a member.
    pub(crate) async fn open(&self, member: u64) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                tokio::spawn(relay.clone().carry(stream, from, member));
            }
        });
        address
    }

    pub(crate) fn set_member(&self, member: u64, address: Option<SocketAddr>) {
        self.0.lock().unwrap().members.insert(member, address);
    }

    pub(crate) fn set(&self, from: u64, to: u64, link: Link) {
        self.link(from, to).send_replace(link);
    }

    /// Cuts a member off from the others in both directions, or mends that.
    pub(crate) fn isolate(&self, member: u64, others: impl IntoIterator<Item = u64>, cut: bool) {
        for other in others.into_iter().filter(|other| *other != member) {
            self.set(member, other, Link { cut, ..Link::default() });
            self.set(other, member, Link { cut, ..Link::default() });
        }
    }

    fn link(&self, from: u64, to: u64) -> watch::Sender<Link> {
        let mut state = self.0.lock().unwrap();
        state.links.entry((from, to)).or_insert_with(|| watch::channel(Link::default()).0).clone()
    }

    async fn carry(self, stream: TcpStream, from: SocketAddr, to: u64) {
        let IpAddr::V4(source) = from.ip() else { return };
        let link = self.link(u64::from(source.octets()[3]), to);
        let target = self.0.lock().unwrap().members.get(&to).copied().flatten();
        // A member that is down refuses: the caller's connection closes at once.
        let Some(target) = target else { return };
        let Ok(onward) = TcpStream::connect(target).await else { return };
        for stream in [&stream, &onward] {
            stream.set_nodelay(true).unwrap();
        }
        let (read, write) = stream.into_split();
        let (back, forth) = onward.into_split();
        // The first direction that ends takes the other with it.
        tokio::select! {
            () = pump(read, forth, link.subscribe()) => {}
            () = pump(back, write, link.subscribe()) => {}
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        if count == 0 {
            return;
        }
        let Ok(state) = link.wait_for(|link| !link.cut).await.map(|link| *link) else { return };
        if !state.delay.is_zero() {
            // Not even for nothing: a sleep takes a tick of the timer.
            tokio::time::sleep(state.delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
