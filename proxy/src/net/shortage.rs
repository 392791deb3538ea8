//! What this host has run out of: descriptors, ports, memory of the network. None of it is a backend's doing, so no error of
//! that kind counts against one, nor as a check's result.
//!
//! Descriptors are shared out by rank, by a property of POSIX: a new descriptor has the lowest number that is free, so its number
//! says how many are in use at least. A rank that gets one above its ceiling gives it back. Clients stop first, then what the
//! data path opens itself, then checks; the last ones are left to the admin listener and to files.

use crate::ambient;
use ringway_telemetry::counters::Registry as Counters;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::process::{Resource as Limited, getrlimit};
use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Descriptors kept for others than the data path, at least and at most; between, an eighth of the limit. Never more than a quarter
/// of what the process does not need for itself: under the smallest limits, some clients are to be served still.
const RESERVE_MIN: usize = 8;
const RESERVE_MAX: usize = 128;
const RESERVE_LEAST: usize = 2;
/// Descriptors that a proxied connection takes: the client's, and the backend's.
pub(crate) const PER_CONNECTION: usize = 2;
/// Time between two lines about the same.
const LOG_EVERY_MILLIS: u64 = 1000;

/// What there is none left of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Of this process (EMFILE).
    Descriptors,
    /// Of the whole host (ENFILE).
    SystemDescriptors,
    /// Addresses and ports to connect from (EADDRNOTAVAIL, EADDRINUSE).
    Ports,
    /// Buffers of the network (ENOBUFS).
    Buffers,
    /// Memory (ENOMEM).
    Memory,
}

impl Resource {
    const COUNT: usize = 5;

    /// Whether an error of `socket`, `bind`, `connect`, `accept` or a transfer says so. This is the only place that decides.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        use nix::errno::Errno;
        Some(match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE => Self::Descriptors,
            Errno::ENFILE => Self::SystemDescriptors,
            Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => Self::Ports,
            Errno::ENOBUFS => Self::Buffers,
            Errno::ENOMEM => Self::Memory,
            _ => return None,
        })
    }

    /// What an error of connecting is: for want of a port, unless this host has no address at all to reach that one from (no IPv6,
    /// say), which makes it unreachable.
    pub(crate) fn judge_connect(error: io::Error, to: SocketAddr) -> io::Error {
        use nix::errno::Errno;
        let no_address = Errno::EADDRNOTAVAIL as i32;
        if error.raw_os_error() != Some(no_address) {
            return error;
        }
        // Connecting a socket of datagrams sends nothing: it only looks for a way and an address to leave from.
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let tried = std::net::UdpSocket::bind(any).and_then(|socket| socket.connect(to));
        match tried {
            Err(tried) if tried.raw_os_error() == Some(no_address) => Errno::EHOSTUNREACH.into(),
            _ => error,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::SystemDescriptors => "system_descriptors",
            Self::Ports => "ports",
            Self::Buffers => "buffers",
            Self::Memory => "memory",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Descriptors => "raise `ulimit -n` (systemd: LimitNOFILE=)",
            Self::SystemDescriptors => "raise the sysctl fs.file-max",
            Self::Ports => "widen the sysctl net.ipv4.ip_local_port_range, or add backends",
            Self::Buffers | Self::Memory => "give the host more memory, or the network more of it",
        }
    }
}

/// What could not be done for want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Accept a client.
    Accept,
    /// Accept a connection to the admin listener.
    AdminAccept,
    /// Connect to a backend.
    Connect,
    /// Make a check.
    Check,
    /// Open the socket of a flow of datagrams.
    Flow,
}

impl Operation {
    const COUNT: usize = 5;

    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AdminAccept => "admin_accept",
            Self::Connect => "connect",
            Self::Check => "check",
            Self::Flow => "flow",
        }
    }
}

/// What a descriptor is asked for: the first rank has to stop first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// A client's connection.
    Client,
    /// A connection or a flow to a backend.
    Upstream,
    /// An active check.
    Check,
}

/// An error of `accept` that is about the one connection that was next: it is gone, and the next may be well.
///
/// Source: accept(2), "Error handling": network errors of the new socket are passed on as errors of accept.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let Some(code) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::EINTR
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
    )
}

/// What the process knows of its shortages.
pub(crate) struct Shortage {
    /// Descriptors that the process may have.
    limit: AtomicUsize,
    /// Descriptors in use without any traffic.
    idle_use: AtomicUsize,
    /// A client's connection has come near to the reserve: ask before the next is accepted.
    tight: AtomicBool,
    /// Duplicated, to see which number is free.
    probe: Option<OwnedFd>,
    counters: Arc<Counters>,
    started: Instant,
    logged: [Logged; Operation::COUNT * (Resource::COUNT + 1)],
}

/// What was logged of one kind of error.
#[derive(Default)]
struct Logged {
    at_millis: AtomicU64,
    unlogged: AtomicU64,
}

impl Shortage {
    pub(crate) fn new(counters: Arc<Counters>) -> Arc<Self> {
        let this = Self {
            limit: AtomicUsize::new(usize::MAX),
            idle_use: AtomicUsize::new(0),
            tight: AtomicBool::new(false),
            // Without it, the kernel's own refusal has to do.
            probe: std::fs::File::open("/dev/null").ok().map(Into::into),
            counters,
            started: ambient::now(),
            logged: Default::default(),
        };
        this.look();
        Arc::new(this)
    }

    /// Reads the limit again: it may be changed from outside.
    pub(crate) fn look(&self) {
        let limit = getrlimit(Limited::Nofile).current.unwrap_or(u64::MAX);
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
    }

    /// As if the process might have this many descriptors.
    #[cfg(test)]
    pub(crate) fn pretend_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Takes in what is open now, as what is there without traffic.
    pub(crate) fn count_idle_use(&self) {
        self.idle_use.fetch_max(self.lowest_free().unwrap_or(0), Relaxed);
    }

    /// Descriptors that the process may have.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Descriptors in use, and from how many on clients get none: what has to do without them is left the rest.
    pub(crate) fn use_by_clients(&self) -> Option<(u64, u64)> {
        // Linux 6.2 and later: as many entries as there are open ones. Before, the lowest free one says how many there are at least.
        let open = std::fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
        let open = if open > 0 { open } else { self.lowest_free()? as u64 };
        Some((open, self.ceiling(Rank::Client) as u64))
    }

    fn ceiling(&self, rank: Rank) -> usize {
        let limit = self.limit();
        let reserve = self.reserve(limit);
        limit.saturating_sub(match rank {
            Rank::Client => reserve + reserve / 2,
            Rank::Upstream => reserve,
            Rank::Check => reserve / 2,
        })
    }

    fn reserve(&self, limit: usize) -> usize {
        let spare = limit.saturating_sub(self.idle_use.load(Relaxed));
        (limit / 8).clamp(RESERVE_MIN, RESERVE_MAX).min(spare / 4).max(RESERVE_LEAST)
    }

    /// Connections that may be open to the admin listener at once: they leave some of the reserve to checks and files.
    pub(crate) fn admin_connections_max(&self, most: usize) -> usize {
        (self.reserve(self.limit()) / 2).clamp(1, most)
    }

    /// Client connections that the limit on descriptors bears, each with one to a backend.
    pub(crate) fn connections_max(&self) -> usize {
        (self.ceiling(Rank::Client).saturating_sub(self.idle_use.load(Relaxed)) / PER_CONNECTION).max(1)
    }

    /// Whether a fresh descriptor may be kept; else it is to be closed again.
    ///
    /// # Errors
    /// What the kernel says when there is none.
    pub(crate) fn admit(&self, fresh: &impl AsFd, rank: Rank) -> io::Result<()> {
        if self.is_below(fresh, rank) {
            return Ok(());
        }
        self.tight.store(true, Relaxed);
        Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32))
    }

    /// Takes in the number of a client's connection: near the reserve, it is the last for now.
    pub(crate) fn saw_client(&self, fresh: &impl AsFd) {
        if !self.is_below(fresh, Rank::Client) {
            self.tight.store(true, Relaxed);
        }
    }

    /// Whether a descriptor is none of those that are reserved: it may be kept for longer than what it was opened for.
    pub(crate) fn leaves_reserve(&self, descriptor: &impl AsFd) -> bool {
        self.is_below(descriptor, Rank::Client)
    }

    fn is_below(&self, fresh: &impl AsFd, rank: Rank) -> bool {
        usize::try_from(fresh.as_fd().as_raw_fd()).is_ok_and(|number| number < self.ceiling(rank))
    }

    /// Whether too few descriptors are left for another client. One load, as long as there are enough.
    pub(crate) fn is_tight(&self) -> bool {
        if !self.tight.load(Relaxed) {
            return false;
        }
        // Without a probe, the kernel's own refusals have to do.
        let tight =
            self.probe.is_some() && self.lowest_free().is_none_or(|number| number >= self.ceiling(Rank::Client));
        self.tight.store(tight, Relaxed);
        tight
    }

    /// Whether a descriptor that is opened now, and that nobody needs yet, takes none from clients. Asks the kernel.
    pub(crate) fn bears_more(&self) -> bool {
        self.probe.is_none() || self.lowest_free().is_some_and(|number| number < self.ceiling(Rank::Client))
    }

    /// `None`: there is none.
    fn lowest_free(&self) -> Option<usize> {
        let number = rustix::io::fcntl_dupfd_cloexec(self.probe.as_ref()?, 0).ok()?.as_raw_fd();
        usize::try_from(number).ok()
    }

    /// Counts an error, and logs it: at most once a second of each kind, with how many there were.
    pub(crate) fn note(&self, operation: Operation, error: &io::Error, of: impl Display) {
        let resource = Resource::of(error);
        if let Some(resource) = resource {
            self.counters.shortage(operation.name(), resource.name());
            if matches!(resource, Resource::Descriptors | Resource::SystemDescriptors) {
                self.tight.store(true, Relaxed);
            }
        }
        let kind = resource.map_or(Resource::COUNT, |resource| resource as usize);
        let logged = &self.logged[operation as usize * (Resource::COUNT + 1) + kind];
        logged.unlogged.fetch_add(1, Relaxed);
        let now = ambient::since(self.started).as_millis() as u64 + LOG_EVERY_MILLIS;
        let before = logged.at_millis.load(Relaxed);
        if now < before + LOG_EVERY_MILLIS || logged.at_millis.compare_exchange(before, now, Relaxed, Relaxed).is_err()
        {
            return;
        }
        let (operation, count) = (operation.name(), logged.unlogged.swap(0, Relaxed));
        match resource {
            Some(resource) => {
                let (limit, resource, remedy) = (self.limit(), resource.name(), resource.remedy());
                tracing::warn!(operation, resource, count, limit, %of, %error, "this host is short of {resource}: {remedy}");
            }
            None => tracing::warn!(operation, count, %of, %error, "{operation} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32)
    }

    #[test]
    fn what_the_host_lacks_is_distinguished_from_what_a_backend_does() {
        for ours in
            [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::EADDRINUSE, Errno::ENOBUFS, Errno::ENOMEM]
        {
            assert!(Resource::of(&error(ours)).is_some(), "{ours}");
            assert!(!is_of_one_connection(&error(ours)), "{ours}");
        }
        for theirs in
            [Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::ETIMEDOUT, Errno::EHOSTUNREACH, Errno::ENETUNREACH]
        {
            assert_eq!(Resource::of(&error(theirs)), None, "{theirs}");
        }
        assert_eq!(Resource::of(&io::Error::from(io::ErrorKind::OutOfMemory)), None, "nothing of the system's");
        assert!(is_of_one_connection(&error(Errno::ECONNABORTED)));
    }

    #[test]
    fn each_rank_leaves_something_to_the_next() {
        let shortage = Shortage::new(Arc::default());
        for limit in [16, 60, 100, 1024, 1 << 20, usize::MAX] {
            shortage.limit.store(limit, Relaxed);
            let [client, upstream, check] =
                [Rank::Client, Rank::Upstream, Rank::Check].map(|rank| shortage.ceiling(rank));
            assert!(client < upstream && upstream < check && check < limit, "{limit}: {client} {upstream} {check}");
            assert!(shortage.connections_max() >= 1 && shortage.admin_connections_max(64) >= 1);
        }
        // A process that needs nearly all for itself still serves some clients.
        shortage.limit.store(60, Relaxed);
        shortage.idle_use.store(50, Relaxed);
        assert!(shortage.ceiling(Rank::Client) > 54, "{}", shortage.ceiling(Rank::Client));
        assert_eq!(shortage.connections_max(), 3);
    }

    #[test]
    fn descriptors_near_the_limit_are_given_back_until_there_are_more() {
        let shortage = Shortage::new(Arc::default());
        let fresh = std::fs::File::open("/dev/null").unwrap();
        assert!(shortage.admit(&fresh, Rank::Upstream).is_ok() && !shortage.is_tight());
        let limit = shortage.limit();
        shortage.limit.store(1, Relaxed);
        let refused = shortage.admit(&fresh, Rank::Upstream).unwrap_err();
        assert_eq!(Resource::of(&refused), Some(Resource::Descriptors));
        assert!(shortage.is_tight());
        shortage.limit.store(limit, Relaxed);
        assert!(!shortage.is_tight());
    }
}
