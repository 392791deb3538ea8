//! The admin listener, and who may ask it what.

use crate::diagnostic::Site;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None` is at the Unix socket alone.
    pub address: Option<SocketAddr>,
    /// Where the file says so.
    pub site: Site,
    /// Names under which it is asked; lower case.
    pub hosts: Vec<String>,
    /// Bearer tokens.
    pub tokens: Vec<AdminToken>,
    /// TLS of the listener at `address`.
    pub tls: Option<AdminTls>,
    /// A Unix socket; there is one where there is no address.
    pub socket: Option<AdminSocket>,
    /// What those may do who show nothing.
    pub anonymous: Anonymous,
}

/// What an operator may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// See everything but secrets.
    Read,
    /// Change what runs.
    Operate,
}

/// What those may do who show nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Ask whether the process lives and is ready.
    Nothing,
    /// Read.
    Read,
    /// Read, and have the file read again.
    Reload,
}

/// A token in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// For the log.
    pub name: String,
    /// What it allows.
    pub role: AdminRole,
    /// Its text.
    pub file: PathBuf,
}

/// TLS of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM, the authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Roles of client certificates, by name.
    pub clients: Vec<(String, AdminRole)>,
}

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// Where.
    pub path: PathBuf,
    /// Permissions of the file.
    pub mode: u32,
}

impl Admin {
    /// The files whose content matters.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let tokens = self.tokens.iter().map(|token| token.file.as_path());
        let tls = self
            .tls
            .iter()
            .flat_map(|tls| [tls.certificate.as_path(), &tls.key].into_iter().chain(tls.client_ca.as_deref()));
        tokens.chain(tls)
    }
}

impl AdminRole {
    /// As the file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}
