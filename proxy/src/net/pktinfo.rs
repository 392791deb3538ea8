//! Datagrams of a socket that listens on all addresses: which address each was sent to, and replies from the same one. Clients accept
//! no reply from another address; the kernel would choose one by its routes.

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Makes the kernel report it for a socket that is to listen on this address, if that is all addresses. Before the socket is bound: for
/// a datagram that has come before, it knows nothing.
pub(crate) fn enable(socket: &socket2::Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        _ if !address.ip().is_unspecified() => {}
        SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Space for the kernel's control messages about a datagram.
pub(crate) struct Space(Vec<u8>);

impl Space {
    /// `None`: the socket is bound to one address, from which replies go in any case.
    pub(crate) fn of(socket: &UdpSocket) -> Option<Self> {
        let wild = socket.local_addr().is_ok_and(|address| address.ip().is_unspecified());
        wild.then(|| Self(cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo)))
    }

    /// A datagram, its sender, and the address that it was sent to, if that can be replied from.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        socket.try_io(Interest::READABLE, || {
            let mut pieces = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::empty();
            let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut self.0), flags)?;
            let sender = received.address.as_ref().and_then(plain).ok_or(io::ErrorKind::InvalidData)?;
            let local = received.cmsgs()?.find_map(|message| match message {
                // For a broadcast, an address of the interface that it came by.
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into())
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
                _ => None,
            });
            Ok((
                received.bytes,
                sender,
                local.filter(|local: &IpAddr| !local.is_multicast() && !local.is_unspecified()),
            ))
        })
    }
}

/// Sends a datagram from this address of the host's.
pub(crate) fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<usize> {
    let (pieces, to, flags) = ([IoSlice::new(datagram)], SockaddrStorage::from(to), MsgFlags::empty());
    let fd = socket.as_raw_fd();
    let sent = match from {
        IpAddr::V4(from) => {
            let source = libc::in_addr { s_addr: from.to_bits().to_be() };
            let none = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: none };
            sendmsg(fd, &pieces, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        IpAddr::V6(from) => {
            // The route chooses the interface; a link-local address has its scope in the destination.
            let source = libc::in6_addr { s6_addr: from.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
            sendmsg(fd, &pieces, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
    };
    Ok(sent?)
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}
