//! The control plane, as a proxy or a member needs to know it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How this process takes part in a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Members to pull from; any will do.
    pub members: Vec<MemberUrl>,
    /// A member runs in this process.
    pub embedded: bool,
    /// This proxy's name in the fleet.
    pub proxy: Option<String>,
    /// For the last good topology.
    pub directory: PathBuf,
    /// The bearer token that is shown to members.
    pub token_file: Option<PathBuf>,
    /// Authorities of members' certificates; `None` are the public ones.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown to members.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that members' certificates must have, where it is not the address's host.
    pub server_name: Option<String>,
    /// The topology is pulled from here, and from no members.
    pub etcd: Option<Etcd>,
    /// A member of the control plane.
    pub member: Option<Member>,
}

/// etcd, and a part of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Members to ask; any will do.
    pub endpoints: Vec<MemberUrl>,
    /// What its keys begin with; ends with `/`.
    pub prefix: String,
    /// User, and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// Authorities of its certificates; `None` are the public ones.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown to it.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that its certificates must have, where it is not the address's host.
    pub server_name: Option<String>,
}

/// The address of a member's API, or of etcd: `http://` or `https://`, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemberUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl MemberUrl {
    /// Reads `https://10.0.0.1:9700`; no path but `/`, no user.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        let host = bare.unwrap_or(host).to_owned();
        good.then_some(())?;
        Some(Self { tls, host, port: port.parse().ok().filter(|port| *port > 0)? })
    }

    /// `host:port`, with brackets where the host is an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for MemberUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.tls { "s" } else { "" }, self.authority())
    }
}

/// A member of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique in the control plane.
    pub name: String,
    /// Of its log.
    pub directory: PathBuf,
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where members listen for each other.
    pub peer_address: SocketAddr,
    /// Host and port under which clients find the API.
    pub advertise: String,
    /// Host and port under which other members find this one.
    pub peer_advertise: String,
    /// TLS of the API.
    pub tls: Option<MemberTls>,
    /// TLS between members; its authorities are always given.
    pub peer_tls: Option<MemberTls>,
    /// Elections are timed for a wide-area network.
    pub wan: bool,
    /// Tokens that hold before any is in the log.
    pub tokens: Vec<TokenFile>,
    /// Roles of client certificates, by name.
    pub clients: Vec<(String, Role)>,
    /// What clients that show nothing may do; `None` is the default (see the reference).
    pub anonymous: Option<Role>,
    /// File of the audit log.
    pub audit_log: Option<PathBuf>,
    /// Directory of hourly backups.
    pub backups: Option<PathBuf>,
    /// So much of a service's weight, or of the listeners, may go at once, in percent, unless it is forced.
    pub loss_percent: u8,
    /// After how long a proxy that is not heard of is no longer listed.
    pub proxy_forget: Duration,
    /// Where backends are found.
    pub sources: Vec<Source>,
}

/// A source of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Unique name.
    pub name: String,
    /// What it looks at.
    pub kind: SourceKind,
}

/// What a source looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// Names.
    Dns(DnsSource),
    /// A directory of files, see [`crate::read_backends`].
    Directory(PathBuf),
    /// Keys of etcd.
    Etcd(EtcdSource),
}

/// Backends by keys of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSource {
    /// The service.
    pub service: String,
    /// Where.
    pub etcd: Etcd,
}

/// Backends by DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSource {
    /// The service.
    pub service: String,
    /// What is looked up.
    pub name: String,
    /// The port of A and AAAA records' addresses; `None`: SRV records have their own.
    pub port: Option<u16>,
    /// Which addresses are looked up, and what they make.
    pub families: DnsFamilies,
    /// Name servers; empty are the system's.
    pub servers: Vec<SocketAddr>,
    /// Bounds of the time between two looks.
    pub interval: (Duration, Duration),
}

/// Which addresses of a name are looked up, and what they make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamilies {
    /// Both kinds: each address is a backend.
    All,
    /// Both kinds: exactly one of each is one backend, anything else is as `All`.
    Either,
    /// A records alone.
    V4,
    /// AAAA records alone.
    V6,
}

/// Files of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTls {
    /// PEM, the certificate first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM, the authorities of clients' certificates.
    pub ca: Option<PathBuf>,
}

/// A token in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// For the audit log.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// Its text.
    pub file: PathBuf,
}

/// What a client of the control plane may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See everything but secrets.
    Read,
    /// Register backends, send heartbeats, vote.
    Register,
    /// Change the topology.
    Operate,
    /// Change the control plane itself: members, tokens, restore.
    Admin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_addresses_are_read_strictly() {
        let url = MemberUrl::parse("https://[::1]:9700/").unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (true, "::1", 9700));
        assert_eq!(url.to_string(), "https://[::1]:9700");
        assert_eq!(MemberUrl::parse("http://control-1:9700").unwrap().authority(), "control-1:9700");
        for bad in [
            "control-1:9700",
            "https://control-1",
            "https://:9700",
            "ftp://a:1",
            "http://a:0",
            "http://u@a:1",
            "http://a:1/x",
            "http://[::1:9",
        ] {
            assert_eq!(MemberUrl::parse(bad), None, "{bad}");
        }
    }
}
