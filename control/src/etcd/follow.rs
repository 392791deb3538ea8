//! Keeps a proxy's topology what etcd says: one read at one revision, then what a watch tells, and a read again when the watch
//! cannot go on or has gone on for long.

use super::mirror::Mirror;
use super::proto::{Header, RangeRequest, RangeResponse, WatchResponse};
use super::{Channel, EtcdError, Store, cluster, failed};
use crate::client::Client;
use crate::etcd::grpc::CallError;
use bytes::Bytes;
use ringway_config::model::MemberUrl;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two signs of life: etcd sends none of its own for ten minutes.
const PROBE: Duration = Duration::from_secs(5);
/// Changes are put into force together that come within this time of each other,
const QUIET: Duration = Duration::from_millis(10);
/// and no later than this after the first of them.
const QUIET_MAX: Duration = Duration::from_millis(100);
/// Everything is read again, about so often: watches of etcd have lost changes before (etcd's robustness record,
/// tests/robustness/README.md).
const ANEW: Duration = Duration::from_secs(600);
/// Keys of strangers that are told of, each once.
const TOLD_MAX: usize = 1000;

/// Follows one topology in etcd.
pub(crate) struct Follower {
    pub(crate) store: Store,
    place: Mutex<Place>,
}

/// Where it has been.
#[derive(Default)]
struct Place {
    cluster: Option<String>,
    /// The greatest revision of the whole store that any member has told.
    revision: u64,
    /// Strangers' keys that have been told of.
    told: BTreeSet<Bytes>,
}

impl Follower {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, place: Mutex::default() }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what one member says, for as long as it can.
    pub(crate) async fn follow(&self, client: &Client, member: &MemberUrl) -> Result<Infallible, EtcdError> {
        let channel = self.store.connect(member).await?;
        loop {
            let read = self.store.read(member, &channel, &self.store.pages()).await?;
            self.check(client, &read.header)?;
            let mut mirror = Mirror::new(self.store.prefix(), &read.header);
            read.keys.iter().for_each(|kv| mirror.put(kv));
            self.publish(client, member, &mirror)?;
            let ended = self.watch(client, member, &channel, &mut mirror, read.header.revision + 1).await;
            // What has been heard holds, even if it was the member's last word.
            self.publish(client, member, &mirror)?;
            ended?;
        }
    }

    /// Takes what comes; ends well where everything is to be read again.
    async fn watch(
        &self,
        client: &Client,
        member: &MemberUrl,
        channel: &Channel,
        mirror: &mut Mirror,
        from: i64,
    ) -> Result<(), EtcdError> {
        let mut answers = self.store.watch(member, channel, &self.store.topology(), from).await?;
        let anew = sleep(ANEW.mul_f64(0.8 + 0.4 * client.spread()));
        let alive = self.stay_alive(client, member, channel);
        tokio::pin!(anew, alive);
        // Of the first change that is not in force yet.
        let mut first: Option<Instant> = None;
        let mut due = Instant::now();
        loop {
            tokio::select! {
                answer = answers.next() => {
                    let broken = || CallError::Broken("the watch has ended".into());
                    let answer = answer.and_then(|answer| answer.ok_or_else(broken));
                    let answer = answer.map_err(|error| failed(member, &error))?;
                    if self.take(client, member, mirror, &answer)? {
                        return Ok(());
                    }
                    if !answer.events.is_empty() {
                        let now = Instant::now();
                        due = (*first.get_or_insert(now) + QUIET_MAX).min(now + QUIET);
                    }
                }
                () = sleep_until(due), if first.is_some() => {
                    first = None;
                    self.publish(client, member, mirror)?;
                }
                ended = &mut alive => match ended? {},
                () = &mut anew => return Ok(()),
            }
        }
    }

    /// One word of a watch. True: it cannot go on, because what it would tell has been compacted.
    fn take(
        &self,
        client: &Client,
        member: &MemberUrl,
        mirror: &mut Mirror,
        answer: &WatchResponse,
    ) -> Result<bool, EtcdError> {
        if let Some(header) = &answer.header {
            self.check_cluster(client, header)?;
        }
        if answer.canceled {
            if answer.compact_revision > 0 {
                tracing::info!(%member, "etcd has compacted what came next: everything is read again");
                return Ok(true);
            }
            let reason = format!("the watch was ended: {}", answer.cancel_reason);
            return Err(failed(member, &CallError::Broken(reason)));
        }
        client.heard(member);
        answer.events.iter().for_each(|event| mirror.handle(event));
        Ok(false)
    }

    /// Asks for something small every few seconds, of a quorum: a member that is cut off has no news, and does not say so.
    async fn stay_alive(
        &self,
        client: &Client,
        member: &MemberUrl,
        channel: &Channel,
    ) -> Result<Infallible, EtcdError> {
        let key = Bytes::from(format!("{}document/main", self.store.prefix()));
        let request = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        loop {
            sleep(PROBE).await;
            let answer: RangeResponse =
                channel.call("KV/Range", &request).await.map_err(|error| failed(member, &error))?;
            if let Some(header) = &answer.header {
                self.check(client, header)?;
            }
            client.heard(member);
        }
    }

    /// Whether an answer is of the store that is followed, and not older than what is known.
    fn check(&self, client: &Client, header: &Header) -> Result<(), EtcdError> {
        self.check_cluster(client, header)?;
        let found = u64::try_from(header.revision).unwrap_or(0);
        let mut place = self.place();
        let known = place.revision.max(client.known().map_or(0, |view| view.revision));
        if found < known {
            return Err(EtcdError::Older { found, known });
        }
        place.revision = found;
        Ok(())
    }

    fn check_cluster(&self, client: &Client, header: &Header) -> Result<(), EtcdError> {
        let found = cluster(self.store.prefix(), header);
        let mut place = self.place();
        let known = place.cluster.get_or_insert_with(|| match client.known() {
            Some(view) => view.cluster.clone(),
            None => found.clone(),
        });
        if *known == found { Ok(()) } else { Err(EtcdError::Cluster { found, known: known.clone() }) }
    }

    /// Hands on what is known now.
    fn publish(&self, client: &Client, member: &MemberUrl, mirror: &Mirror) -> Result<(), EtcdError> {
        self.tell_strangers(mirror);
        match mirror.view() {
            Ok(view) => client.publish(member, view),
            Err(EtcdError::Invalid(reason)) => client.refuse(member, reason),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tell_strangers(&self, mirror: &Mirror) {
        let mut place = self.place();
        for key in mirror.strange() {
            if place.told.len() < TOLD_MAX && place.told.insert(key.clone()) {
                let key = String::from_utf8_lossy(key);
                tracing::warn!(%key, "a key of etcd's is no object's name: it is left out");
            }
        }
    }
}
