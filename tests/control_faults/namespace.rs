//! Network namespaces: a hub with a bridge, and one namespace for each member. All is gone when dropped.

use crate::common::skipped;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An address that no card has: what is sent there is lost without a word.
const NOWHERE: &str = "02:de:ad:00:00:01";

pub(crate) struct Namespaces {
    hub: String,
    members: Vec<String>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Namespaces {
    /// `None`, said aloud, where the kernel or the user does not allow them.
    pub(crate) fn new(count: usize) -> Option<Self> {
        let prefix = format!("ringway-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let this = Self {
            hub: format!("{prefix}-hub"),
            members: (1..=count).map(|member| format!("{prefix}-m{member}")).collect(),
        };
        if !this.build() {
            skipped("network namespaces need root, iproute2 and the kernel's bridge and veth");
            return None;
        }
        Some(this)
    }

    fn build(&self) -> bool {
        let hub = &self.hub;
        let mut done = ip(&["netns", "add", hub])
            && ip(&["-n", hub, "link", "add", "bridge", "type", "bridge"])
            && ip(&["-n", hub, "link", "set", "bridge", "up"]);
        for (index, member) in self.members.iter().enumerate() {
            let port = format!("port{}", index + 1);
            done = done
                && ip(&["netns", "add", member])
                && ip(&["-n", hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", member])
                && ip(&["-n", hub, "link", "set", &port, "master", "bridge", "up"])
                && ip(&["-n", member, "link", "set", "lo", "up"])
                && ip(&["-n", member, "link", "set", "eth0", "up"])
                && ip(&["-n", member, "address", "add", &format!("{}/24", Self::address(index + 1)), "dev", "eth0"]);
        }
        done
    }

    pub(crate) fn name(&self, member: usize) -> &str {
        &self.members[member - 1]
    }

    /// Nobody outside sees it.
    pub(crate) fn address(member: usize) -> String {
        format!("10.77.0.{member}")
    }

    /// What `from` sends to `to` is lost; the other direction stays as it is.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let (name, to) = (self.name(from), Self::address(to));
        assert!(ip(&["-n", name, "neigh", "replace", &to, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent"]));
    }

    pub(crate) fn link(&self, member: usize, state: &str) {
        assert!(ip(&["-n", &self.hub, "link", "set", &format!("port{member}"), state]));
    }

    pub(crate) fn mend(&self) {
        for member in 1..=self.members.len() {
            self.link(member, "up");
            for other in (1..=self.members.len()).filter(|other| *other != member) {
                // Most are not there.
                ip(&["-n", self.name(member), "neigh", "del", &Self::address(other), "dev", "eth0"]);
            }
        }
    }

    /// An address out here behind which a member's loopback address stands.
    pub(crate) fn door(&self, member: usize, inside: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let namespace = format!("/run/netns/{}", self.name(member));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let namespace = namespace.clone();
                std::thread::spawn(move || {
                    // A socket belongs to the namespace of the thread that makes it.
                    let inside = std::thread::spawn(move || {
                        let file = File::open(namespace).ok()?;
                        let kind = rustix::thread::LinkNameSpaceType::Network;
                        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).ok()?;
                        TcpStream::connect(inside).ok()
                    });
                    let Ok(Some(inside)) = inside.join() else { return };
                    let (mut a, mut b) = (stream.try_clone().unwrap(), inside.try_clone().unwrap());
                    let (mut c, mut d) = (stream, inside);
                    let close = |one: &TcpStream, other: &TcpStream| {
                        // Gone already, perhaps.
                        let _ = one.shutdown(std::net::Shutdown::Both);
                        let _ = other.shutdown(std::net::Shutdown::Both);
                    };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut a, &mut b);
                        close(&a, &b);
                    });
                    let _ = std::io::copy(&mut d, &mut c);
                    close(&c, &d);
                });
            }
        });
        address
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.members.iter().chain([&self.hub]) {
            ip(&["netns", "del", name]);
        }
    }
}
