//! The things that the fleet agrees on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The rules from which on a backend may have two addresses.
pub(crate) const RULES_TWO_ADDRESSES: u32 = 3;
/// Longest name of anything, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Largest document, service or certificate, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// What an object is called. As a text: `document/NAME`, `service/NAME`, `certificate/NAME`, `backend/SERVICE/ID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A configuration as a file would say it; the one that proxies read is `main`.
    Document(String),
    /// A service: an entry of `services`.
    Service(String),
    /// A certificate and its key.
    Certificate(String),
    /// A backend of a service, wherever that stands.
    Backend {
        /// The service's name.
        service: String,
        /// Stable identity.
        id: String,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(name) => write!(f, "document/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Certificate(name) => write!(f, "certificate/{name}"),
            Self::Backend { service, id } => write!(f, "backend/{service}/{id}"),
        }
    }
}

/// Why a text is not a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of an object: write document/NAME, service/NAME, certificate/NAME or backend/SERVICE/ID, names of 1 to 128 letters, digits and `._:-`"
)]
pub struct KeyError(String);

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.split('/');
        let key = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("document"), Some(name), None, _) => Self::Document(name.to_owned()),
            (Some("service"), Some(name), None, _) => Self::Service(name.to_owned()),
            (Some("certificate"), Some(name), None, _) => Self::Certificate(name.to_owned()),
            (Some("backend"), Some(service), Some(id), None) => {
                Self::Backend { service: service.to_owned(), id: id.to_owned() }
            }
            _ => return Err(KeyError(text.to_owned())),
        };
        if key.names().iter().all(|name| is_name(name)) { Ok(key) } else { Err(KeyError(text.to_owned())) }
    }
}

impl Key {
    /// The names in it.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Document(name) | Self::Service(name) | Self::Certificate(name) => vec![name],
            Self::Backend { service, id } => vec![service, id],
        }
    }
}

/// Whether a text may name something.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(good)
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What stands under a key; of the same kind as the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// YAML, see [`Key::Document`].
    Document(Text),
    /// YAML, see [`Key::Service`].
    Service(Text),
    /// See [`Key::Certificate`].
    Certificate(Certificate),
    /// See [`Key::Backend`].
    Backend(Backend),
}

/// A text as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// YAML, at most [`TEXT_BYTES_MAX`].
    pub text: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, then the intermediate ones.
    pub certificate: String,
    /// The private key. Shown to nobody who only reads.
    pub key: String,
}

/// A registered backend. As text and as bytes, see `written`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// IP address and port.
    pub address: String,
    /// The same, of the other family, under rules 3.
    pub additional_address: Option<String>,
    /// 100 is normal, at most 1600.
    pub weight: u32,
    /// 0 takes the traffic, up to 7 are backups.
    pub tier: u8,
    /// The zone that it stands in.
    pub zone: Option<String>,
    /// What its operator wants.
    pub state: BackendState,
    /// The fleet has agreed that it is down: it takes no new keys anywhere.
    pub ejected: bool,
    /// It goes with this lease.
    pub lease: Option<u64>,
    /// Who put it there: a discovery source's name, or nothing.
    pub source: Option<String>,
}

/// What a backend's operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It takes its keys.
    #[default]
    Ready,
    /// It takes no new keys; what it has ends in peace.
    Drain,
    /// As `drain`, and keeps nobody either: it is being worked on.
    Maintenance,
}

impl BackendState {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// An object, and since when it is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    pub object: std::sync::Arc<Object>,
    /// The revision that put it there.
    pub created: u64,
    /// The revision that changed it last: what compare-and-set compares.
    pub modified: u64,
}

/// A promise to be alive: what hangs on it goes when it is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds that may pass between two heartbeats.
    pub ttl_ms: u64,
    /// Who holds it.
    pub owner: String,
}

/// A lock that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Who has it.
    pub owner: String,
    /// It goes with this lease.
    pub lease: u64,
    /// Greater than that of any holder before: whoever is handed it by two holders knows which is the later one. Source:
    /// Kleppmann, "How to do distributed locking", 2016.
    pub token: u64,
}

/// What a client may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything but secrets.
    Read,
    /// Register backends, hold leases and locks, be a proxy.
    Register,
    /// Change the topology.
    Operate,
    /// Change the control plane itself.
    Admin,
}

impl From<ringway_config::model::Role> for Role {
    fn from(role: ringway_config::model::Role) -> Self {
        match role {
            ringway_config::model::Role::Read => Self::Read,
            ringway_config::model::Role::Register => Self::Register,
            ringway_config::model::Role::Operate => Self::Operate,
            ringway_config::model::Role::Admin => Self::Admin,
        }
    }
}

/// A bearer token; its text is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it allows.
    pub role: Role,
    /// BLAKE3 of its text.
    pub hash: [u8; 32],
    /// Unix milliseconds from which it holds no more.
    pub expires_at_ms: Option<u64>,
}

/// One object's change, as it was and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// `None`: it was not there.
    pub before: Option<std::sync::Arc<Object>>,
    /// `None`: it is not there any more.
    pub after: Option<std::sync::Arc<Object>>,
}

/// A revision that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Unix milliseconds, by the proposer's clock.
    pub at_ms: u64,
    /// Who asked for it.
    pub author: String,
    /// Why, in the author's words.
    pub note: String,
    /// What it did.
    pub changes: Vec<Change>,
}

impl Revision {
    /// About how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let object = |object: &Option<std::sync::Arc<Object>>| object.as_ref().map_or(0, |object| object.weight());
        let changes: usize =
            self.changes.iter().map(|change| 64 + object(&change.before) + object(&change.after)).sum();
        128 + self.author.len() + self.note.len() + changes
    }
}

impl Object {
    /// About how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Document(text) | Self::Service(text) => text.text.len(),
            Self::Certificate(pair) => pair.certificate.len() + pair.key.len(),
            Self::Backend(backend) => {
                // As builds count it that take both addresses for one text: all members come to the same sum.
                let more = backend.additional_address.as_ref().map_or(0, |more| 1 + more.len());
                96 + backend.address.len() + more + backend.zone.as_ref().map_or(0, String::len)
            }
        }
    }

    /// Whether it may stand under a key.
    pub(crate) fn fits(&self, key: &Key) -> bool {
        matches!(
            (key, self),
            (Key::Document(_), Self::Document(_))
                | (Key::Service(_), Self::Service(_))
                | (Key::Certificate(_), Self::Certificate(_))
                | (Key::Backend { .. }, Self::Backend(_))
        )
    }

    /// For those who only read: without private keys.
    #[must_use]
    pub fn redacted(&self) -> Self {
        match self {
            Self::Certificate(pair) => {
                Self::Certificate(Certificate { certificate: pair.certificate.clone(), key: "(not shown)".into() })
            }
            other => other.clone(),
        }
    }
}
