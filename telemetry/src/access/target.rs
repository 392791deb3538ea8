//! Where lines go.

use std::fmt;
use std::path::PathBuf;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// A syslog server.
    Syslog(Syslog),
}

/// A syslog server, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syslog {
    /// By datagrams to a socket of this host.
    Unix(PathBuf),
    /// By UDP; host and port.
    Udp(String),
    /// By TCP; host and port.
    Tcp(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout | Self::Stderr => f.write_str("standard output or error"),
            Self::File(path) | Self::Syslog(Syslog::Unix(path)) => path.display().fmt(f),
            Self::Syslog(Syslog::Udp(server) | Syslog::Tcp(server)) => f.write_str(server),
        }
    }
}
