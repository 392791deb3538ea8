//! Listening sockets: what they are bound to, and the finding when they cannot be.

use crate::dispatcher::Listening;
use crate::net::pktinfo;
use nix::errno::Errno;
use ringway_config::{Diagnostic, Site};
use std::io;
use std::net::SocketAddr;

/// Connections that the kernel may hold until a worker accepts them, per socket.
const BACKLOG: i32 = 4096;

/// What a socket is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindAddress {
    pub(crate) address: SocketAddr,
    pub(crate) v6_only: bool,
    pub(crate) udp: bool,
}

impl BindAddress {
    /// Whether the kernel takes sockets on both for rivals.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (self.address.ip(), other.address.ip());
        let any = |bound: &Self| bound.address.ip().is_unspecified();
        let both = |bound: &Self| bound.address.is_ipv6() && any(bound) && !bound.v6_only;
        let same_addresses = one == two
            || (any(self) || any(other)) && one.is_ipv4() == two.is_ipv4()
            || both(self) && two.is_ipv4()
            || both(other) && one.is_ipv4();
        self.udp == other.udp && self.address.port() == other.address.port() && same_addresses
    }
}

/// One socket a worker on one address, bound and no more: see [`listen`]. The kernel spreads connections over them
/// (SO_REUSEPORT). `ours`: sockets of this process may be there already.
pub(crate) fn bind(at: BindAddress, workers: usize, ours: bool) -> io::Result<(BindAddress, Vec<Listening>)> {
    if !ours && at.address.port() != 0 {
        // SO_REUSEPORT would also share the port with another process that has set it: an old proxy that was thought
        // to be gone, and would go on taking half of the connections. Without it, that is an error, as it should be.
        drop(open(at, false)?);
    }
    let (address, first) = open(at, true)?;
    let bound = BindAddress { address, ..at };
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(bound, true)?.1);
    }
    Ok((bound, sockets))
}

fn open(BindAddress { address, v6_only, udp }: BindAddress, shared: bool) -> io::Result<(SocketAddr, Listening)> {
    use socket2::{Domain, Protocol, Socket, Type};
    let (kind, protocol) = if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        // Said outright: what it is otherwise depends on the host.
        socket.set_only_v6(v6_only)?;
    }
    // For datagrams it would share the port.
    socket.set_reuse_address(!udp)?;
    socket.set_reuse_port(shared)?;
    if udp {
        pktinfo::enable(&socket, address)?;
    } else {
        // Heads and small bodies go out whole: waiting for more to send would only delay them. Linux gives it on to what is accepted.
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    if udp {
        return Ok((bound, Listening::Datagrams(socket.into())));
    }
    Ok((bound, Listening::Connections(socket.into())))
}

/// Lets clients connect: from here on the socket must be served. Of datagrams there is nothing to do.
pub(crate) fn listen(socket: &Listening) -> io::Result<()> {
    match socket {
        Listening::Connections(socket) => socket2::SockRef::from(socket).listen(BACKLOG),
        Listening::Datagrams(_) => Ok(()),
        #[cfg(test)]
        Listening::Memory(_) => Ok(()),
    }
}

/// What is reported of an address that cannot be bound: where the file has it, and the remedy.
pub(crate) fn finding(site: &Site, what: &str, address: SocketAddr, error: &io::Error) -> Diagnostic {
    site.error("bind", format!("bind {what}: {error}"), &remedy(address, error))
}

fn remedy(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) if port < 1024 => format!(
            "ports below 1024 take the capability CAP_NET_BIND_SERVICE (systemd: `AmbientCapabilities=CAP_NET_BIND_SERVICE`; by \
             hand: `setcap cap_net_bind_service=+ep` on the program); or write a port from 1024, and have {port} forwarded to it"
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            "a policy of this host forbids it: look into SELinux's or AppArmor's log".into()
        }
        Some(Errno::EADDRINUSE) => format!(
            "another process has it (`ss -lnptu 'sport = :{port}'` names it; an old proxy may still drain): end that, or write \
             another port"
        ),
        Some(Errno::EADDRNOTAVAIL) => {
            let all = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            format!(
                "this host has no such address (`ip address` lists those that it has); for all of them write `\"{all}:{port}\"`"
            )
        }
        Some(Errno::EAFNOSUPPORT) => format!("this host has no IPv6: write `\"0.0.0.0:{port}\"`"),
        Some(Errno::EMFILE) => "raise `ulimit -n` (systemd: LimitNOFILE=)".into(),
        Some(Errno::ENFILE) => "raise the sysctl fs.file-max".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::free_port;
    use super::*;

    #[test]
    fn errors_of_sockets_come_with_a_remedy() {
        let help =
            |address: &str, errno: Errno| remedy(address.parse().unwrap(), &io::Error::from_raw_os_error(errno as i32));
        assert!(help("0.0.0.0:80", Errno::EACCES).contains("CAP_NET_BIND_SERVICE"));
        assert!(!help("0.0.0.0:8080", Errno::EACCES).contains("CAP_NET_BIND_SERVICE"));
        assert!(help("0.0.0.0:8080", Errno::EADDRINUSE).contains("sport = :8080"));
        assert!(help("192.0.2.1:8080", Errno::EADDRNOTAVAIL).contains("\"0.0.0.0:8080\""));
        assert!(help("[2001:db8::1]:8080", Errno::EADDRNOTAVAIL).contains("\"[::]:8080\""));
        assert_eq!(help("0.0.0.0:80", Errno::EIO), "");
    }

    #[test]
    fn what_is_accepted_sends_at_once_as_its_listener_is_told() {
        let at = BindAddress { address: "127.0.0.1:0".parse().unwrap(), v6_only: false, udp: false };
        let (bound, socket) = open(at, true).unwrap();
        listen(&socket).unwrap();
        let _client = std::net::TcpStream::connect(bound).unwrap();
        let Listening::Connections(socket) = socket else { panic!("it is one of TCP") };
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn rivals_are_those_that_the_kernel_takes_for_rivals() {
        let at = |address: &str, v6_only| BindAddress { address: address.parse().unwrap(), v6_only, udp: false };
        let (all4, one4) = (at("0.0.0.0:80", false), at("127.0.0.1:80", false));
        let (both, six, one6) = (at("[::]:80", false), at("[::]:80", true), at("[::1]:80", true));
        for (one, other, rivals) in [
            (all4, one4, true),
            (one4, at("127.0.0.2:80", false), false),
            (both, all4, true),
            (both, one4, true),
            (six, all4, false),
            (six, both, true),
            (one6, six, true),
            (one6, all4, false),
            (all4, at("0.0.0.0:81", false), false),
            (all4, BindAddress { udp: true, ..all4 }, false),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (rivals, rivals), "{one:?} {other:?}");
        }
    }

    #[test]
    fn each_worker_gets_a_socket_of_the_same_port_and_a_strangers_port_is_refused() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bound, sockets) = bind(BindAddress { address, v6_only: false, udp: false }, 3, false).unwrap();
        assert!(bound.address.port() != 0 && sockets.len() == 3);
        for socket in &sockets {
            let Listening::Connections(socket) = socket else { panic!("datagrams") };
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
        sockets.iter().for_each(|socket| listen(socket).unwrap());
        // An old process may still be there, and would share the port without saying so: it is found out.
        let taken = bind(bound, 1, false).map(drop).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(Errno::EADDRINUSE as i32));
        assert!(bind(bound, 1, true).is_ok(), "unless the sockets are our own");
        drop(sockets);
        assert!(bind(bound, 1, false).is_ok());
    }

    #[test]
    fn datagrams_and_connections_of_one_port_do_not_disturb_each_other() {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (bound, sockets) = bind(BindAddress { address, v6_only: false, udp: true }, 1, false).unwrap();
        assert!(matches!(sockets[..], [Listening::Datagrams(_)]) && listen(&sockets[0]).is_ok());
        assert!(bind(BindAddress { udp: false, ..bound }, 1, false).is_ok());
        assert!(bind(bound, 1, false).is_err());
    }
}
