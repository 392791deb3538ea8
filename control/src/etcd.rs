//! etcd, version 3, as a store of the topology for those who run it already, and as a source of backends.
//!
//! `grpc` carries calls, `proto` says what is in them, `mirror` (pure) makes a topology of keys, `admin` is the command
//! line's; a proxy's client keeps the topology true, and tells etcd how the proxy does. The truth is always a read at
//! one revision; a watch says what has changed since, and is begun anew with a read at every doubt.

mod admin;
#[cfg(any(test, fuzzing))]
mod fuzzing;
pub(crate) mod grpc;
pub(crate) mod mirror;
pub(crate) mod proto;

use crate::http::advice;
use crate::state::{Key, OBJECTS_BYTES_MAX, OBJECTS_MAX, Object, RULES};
use crate::transport::tls::{self, TlsError};
pub use admin::Shown;
use bytes::Bytes;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::fuzz;
use grpc::{Answers, CallError, Channel, code};
use hyper::header::HeaderValue;
use proto::{
    AuthenticateRequest, AuthenticateResponse, Header, KeyValue, RangeRequest, RangeResponse, Union,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use ringway_config::model::{Etcd, MemberUrl};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Quiet time after a change.
const DEBOUNCE: std::time::Duration = std::time::Duration::from_millis(50);
/// Keys of one answer: with their values of a megabyte at most, an answer stays within what is read.
const PAGE: i64 = 40;
/// Keys of one answer where all are small.
const PAGE_SMALL: i64 = 2000;
/// Below the prefix, for who looks at the fleet, and no part of the topology.
pub(crate) const PROXIES: &str = "proxies/";

/// Where a topology is, and what is shown to etcd.
pub struct Store {
    settings: Etcd,
    /// As the files were when they could last be read.
    tls: Mutex<Option<Arc<rustls::ClientConfig>>>,
}

/// Why etcd cannot be asked, or has said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// The settings are of no use.
    #[error("{place}: {source}")]
    Tls {
        /// What has named the file.
        place: String,
        /// Why.
        source: TlsError,
    },
    /// The password cannot be read.
    #[error("`--password-file` (in a file `password_file`): {}: {reason}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A member does not answer, or refuses.
    #[error("etcd {member}: {reason}")]
    Call {
        /// Its address.
        member: String,
        /// Why.
        reason: String,
    },
    /// A change was asked for, and what has become of it is not known.
    #[error("etcd {member}: {reason}: the change may have come about, look before asking again")]
    Unknown {
        /// Its address.
        member: String,
        /// Why.
        reason: String,
    },
    /// What was to be read has been compacted in the meantime.
    #[error("etcd has compacted what was being read")]
    Compacted,
    /// Below the prefix stands more than a topology may be.
    #[error("below {prefix} stand more than {OBJECTS_MAX} keys, or more than {} MiB", OBJECTS_BYTES_MAX >> 20)]
    TooMuch {
        /// What the keys begin with.
        prefix: String,
    },
    /// What stands there is no topology.
    #[error("{0}")]
    Invalid(String),
    /// Another cluster answers, or the place is another.
    #[error("this is {found:?}, not {known:?}: empty the proxy's directory and start it again if that is meant")]
    Cluster {
        /// Of the answer.
        found: String,
        /// Of what is in force.
        known: String,
    },
    /// Time would run backwards.
    #[error(
        "etcd is at revision {found}, and has been at {known}: if it was restored from a backup, empty the proxy's directory \
         and start it again"
    )]
    Older {
        /// Of the answer.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// Somebody else has changed it since it was read.
    #[error("{0} has changed since it was read: look again")]
    Changed(Key),
}

/// All keys of a prefix at one revision.
pub(crate) struct Read {
    pub(crate) header: Header,
    pub(crate) keys: Vec<KeyValue>,
}

impl Store {
    /// As a configuration says.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(settings: &Etcd) -> Result<Self, EtcdError> {
        Ok(Self { settings: settings.clone(), tls: Mutex::new(client_tls(settings)?) })
    }

    /// For a connection that begins now: certificates as their files are. What cannot be read stays as it was.
    fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        let mut current = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        match client_tls(&self.settings) {
            Ok(read) => *current = read,
            Err(error) => tracing::warn!(%error, "towards etcd, the old certificate stays"),
        }
        current.clone()
    }

    /// Members that can be asked.
    #[must_use]
    pub fn endpoints(&self) -> &[MemberUrl] {
        &self.settings.endpoints
    }

    /// What the keys begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// A connection, with a token where etcd asks who we are.
    pub(crate) async fn connect(&self, member: &MemberUrl) -> Result<Channel, EtcdError> {
        let failed = |error: CallError| failed(member, &error);
        let (tls, name) = (self.tls(), self.settings.server_name.as_deref());
        let mut channel = Channel::connect(member, tls.as_ref(), name).await.map_err(failed)?;
        let Some((name, path)) = &self.settings.login else { return Ok(channel) };
        let password = std::fs::read_to_string(path)
            .map_err(|error| EtcdError::Password { path: path.clone(), reason: error.to_string() })?;
        let request =
            AuthenticateRequest { name: name.clone(), password: password.trim_end_matches(['\r', '\n']).to_owned() };
        match channel.call::<AuthenticateResponse>("Auth/Authenticate", &request).await {
            Ok(answer) => {
                let mut token = HeaderValue::from_str(&answer.token)
                    .map_err(|_| failed(CallError::Strange("a token that is none".into())))?;
                token.set_sensitive(true);
                channel.token = Some(token);
            }
            // It does not ask who we are (yet): etcd's own client goes on as well.
            Err(error) if error.is(code::FAILED_PRECONDITION) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(channel)
    }

    /// All keys of some ranges, as they were at one revision.
    pub(crate) async fn read(
        &self,
        member: &MemberUrl,
        channel: &Channel,
        ranges: &[Range],
    ) -> Result<Read, EtcdError> {
        let mut header: Option<Header> = None;
        let mut keys: Vec<KeyValue> = Vec::new();
        let mut bytes = 0;
        for range in ranges {
            let mut from = range.from.clone();
            loop {
                let request = RangeRequest {
                    key: from,
                    range_end: range.end.clone(),
                    limit: if range.small { PAGE_SMALL } else { PAGE },
                    revision: header.map_or(0, |header| header.revision),
                    keys_only: false,
                };
                let answer: RangeResponse = channel.call("KV/Range", &request).await.map_err(|error| {
                    if error.is(code::OUT_OF_RANGE) { EtcdError::Compacted } else { failed(member, &error) }
                })?;
                if header.is_none() {
                    header = answer.header;
                }
                bytes += answer.kvs.iter().map(|kv| kv.value.len()).sum::<usize>();
                let last = answer.kvs.last().map(|kv| kv.key.clone());
                keys.extend(answer.kvs);
                if keys.len() > OBJECTS_MAX || bytes > OBJECTS_BYTES_MAX {
                    return Err(EtcdError::TooMuch { prefix: self.settings.prefix.clone() });
                }
                match last.filter(|_| answer.more) {
                    // The first key after it.
                    Some(last) => from = [&last[..], &[0]].concat().into(),
                    None => break,
                }
            }
        }
        let header = header.ok_or_else(|| failed(member, &CallError::Strange("an answer without a header".into())))?;
        Ok(Read { header, keys })
    }

    /// What changes in these ranges from a revision on.
    pub(crate) async fn watch(
        &self,
        member: &MemberUrl,
        channel: &Channel,
        ranges: &[Range],
        from: i64,
    ) -> Result<Answers<WatchResponse>, EtcdError> {
        let requests: Vec<WatchRequest> = ranges
            .iter()
            .map(|range| {
                let (key, range_end) = (range.from.clone(), range.end.clone());
                let create = WatchCreateRequest { key, range_end, start_revision: from };
                WatchRequest { union: Some(Union::Create(create)) }
            })
            .collect();
        let requests: Vec<&WatchRequest> = requests.iter().collect();
        channel.stream("Watch/Watch", &requests).await.map_err(|error| failed(member, &error))
    }

    /// The keys that are a topology: all but those of proxies, of which every change would wake up every proxy.
    pub(crate) fn topology(&self) -> [Range; 2] {
        let prefix = &self.settings.prefix;
        let proxies = format!("{prefix}{PROXIES}");
        [
            Range { from: Bytes::from(prefix.clone()), end: Bytes::from(proxies.clone()), small: false },
            Range { from: end_of(&proxies), end: end_of(prefix), small: false },
        ]
    }

    /// The same, cut so that the many that are small need few answers.
    pub(crate) fn pages(&self) -> [Range; 4] {
        let [first, last] = self.topology();
        let backends = format!("{}backend/", self.settings.prefix);
        [
            Range { from: first.from, end: Bytes::from(backends.clone()), small: false },
            Range { from: Bytes::from(backends.clone()), end: end_of(&backends), small: true },
            Range { from: end_of(&backends), end: first.end, small: false },
            last,
        ]
    }

    /// All keys of the prefix, without it, and what tells when they change. The doorbell's connection is used again.
    pub(crate) async fn keys(
        &self,
        member: usize,
        doorbell: Option<Doorbell>,
    ) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, Doorbell), EtcdError> {
        let endpoints = self.endpoints();
        let none = || EtcdError::Invalid("no address of etcd is given".into());
        let member = endpoints.get(member % endpoints.len().max(1)).ok_or_else(none)?;
        let channel = match doorbell {
            Some(doorbell) => doorbell.channel,
            None => self.connect(member).await?,
        };
        let prefix = self.prefix();
        let range = [Range { from: Bytes::from(prefix.to_owned()), end: end_of(prefix), small: true }];
        let read = self.read(member, &channel, &range).await?;
        let answers = self.watch(member, &channel, &range, read.header.revision + 1).await?;
        let bare = |kv: KeyValue| (kv.key.get(prefix.len()..).unwrap_or_default().to_vec(), kv.value.to_vec());
        Ok((read.keys.into_iter().map(bare).collect(), Doorbell { answers, channel }))
    }
}

fn client_tls(settings: &Etcd) -> Result<Option<Arc<rustls::ClientConfig>>, EtcdError> {
    if !settings.endpoints.iter().any(|endpoint| endpoint.tls) {
        return Ok(None);
    }
    let identity = settings.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let config = tls::client(settings.ca.as_deref(), identity, &[b"h2"]);
    let place = |source: &TlsError| {
        advice::of_file(source.path(), settings.ca.as_deref(), settings.identity.as_ref(), grpc::SECTION)
    };
    config.map(Some).map_err(|source| EtcdError::Tls { place: place(&source), source })
}

/// Rings when keys that have been read have changed.
pub(crate) struct Doorbell {
    answers: Answers<WatchResponse>,
    channel: Channel,
}

impl Doorbell {
    /// Returns when there may be something new: a change, and some time for those that come with it, or the end of the watch.
    pub(crate) async fn rung(&mut self) {
        while let Ok(Some(answer)) = self.answers.next().await {
            if answer.canceled || !answer.events.is_empty() {
                break;
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Keys from one to before another.
pub(crate) struct Range {
    from: Bytes,
    end: Bytes,
    /// Values are of some hundred bytes.
    small: bool,
}

/// The first key after all that begin so.
fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 has no byte of 255: there is always one more.
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end.into()
}

pub(crate) fn failed(member: &MemberUrl, error: &CallError) -> EtcdError {
    EtcdError::Call { member: member.to_string(), reason: error.to_string() }
}

/// Names a topology's place, as the views of members name their cluster: what came from another place is not mixed with it.
pub(crate) fn cluster(prefix: &str, header: &Header) -> String {
    format!("etcd {:016x} {prefix}", header.cluster_id)
}

/// What stands under a key, read as the API reads it and checked as members check it.
pub(crate) fn object(key: &Key, value: &[u8]) -> Result<Object, String> {
    use crate::state::{State, Text};
    let text = || match std::str::from_utf8(value) {
        Ok(text) => Ok(Text { text: text.to_owned() }),
        Err(error) => Err(format!("not UTF-8 from byte {} on", error.valid_up_to())),
    };
    let json = |error: serde_json::Error| format!("not the JSON of this object: {error}");
    let object = match key {
        Key::Document(_) => Object::Document(text()?),
        Key::Service(_) => Object::Service(text()?),
        Key::Certificate(_) => Object::Certificate(serde_json::from_slice(value).map_err(json)?),
        Key::Backend { .. } => Object::Backend(serde_json::from_slice(value).map_err(json)?),
    };
    if matches!(&object, Object::Backend(backend) if backend.lease.is_some()) {
        return Err("`lease` is none of etcd's: leave it out, and put the key with a lease of etcd's".into());
    }
    let mut state = State::default();
    state.rules = RULES;
    match crate::state::judge::object(&state, key, &object) {
        Ok(()) => Ok(object),
        Err(refusal) => Err(refusal.message),
    }
}
