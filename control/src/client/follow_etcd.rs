//! Keeps a proxy's topology what etcd says: one read at one revision, then what a watch tells, and a read again when the watch
//! cannot go on or has gone on for long.

use super::topology::Topology;
use crate::etcd::grpc::{CallError, Channel};
use crate::etcd::mirror::Mirror;
use crate::etcd::proto::{Header, RangeRequest, RangeResponse, WatchResponse};
use crate::etcd::{EtcdError, Store, cluster, failed};
use bytes::Bytes;
use ringway_config::model::MemberUrl;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two heartbeats: etcd sends none of its own for ten minutes.
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
    pub(crate) async fn follow(&self, topology: &Topology, member: &MemberUrl) -> Result<Infallible, EtcdError> {
        let channel = self.store.connect(member).await?;
        loop {
            let read = self.store.read(member, &channel, &self.store.pages()).await?;
            self.check(topology, &read.header)?;
            let mut mirror = Mirror::new(self.store.prefix(), &read.header);
            // Consumed: for as long as the watch lasts, the mirror is enough.
            read.keys.into_iter().for_each(|kv| mirror.put(&kv));
            self.publish(topology, member, &mirror)?;
            let ended = self.watch(topology, member, &channel, &mut mirror, read.header.revision + 1).await;
            // What has been heard holds, even if it was the member's last word.
            self.publish(topology, member, &mirror)?;
            ended?;
        }
    }

    /// Takes what comes; ends well where everything is to be read again.
    async fn watch(
        &self,
        topology: &Topology,
        member: &MemberUrl,
        channel: &Channel,
        mirror: &mut Mirror,
        from: i64,
    ) -> Result<(), EtcdError> {
        let mut answers = self.store.watch(member, channel, &self.store.topology(), from).await?;
        let anew = sleep(ANEW.mul_f64(0.8 + 0.4 * topology.spread()));
        let alive = self.stay_alive(topology, member, channel);
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
                    if self.take(topology, member, mirror, &answer)? {
                        return Ok(());
                    }
                    if !answer.events.is_empty() {
                        let now = Instant::now();
                        due = (*first.get_or_insert(now) + QUIET_MAX).min(now + QUIET);
                    }
                }
                () = sleep_until(due), if first.is_some() => {
                    first = None;
                    self.publish(topology, member, mirror)?;
                }
                ended = &mut alive => match ended? {},
                () = &mut anew => return Ok(()),
            }
        }
    }

    /// One word of a watch. True: it cannot go on, because what it would tell has been compacted.
    fn take(
        &self,
        topology: &Topology,
        member: &MemberUrl,
        mirror: &mut Mirror,
        answer: &WatchResponse,
    ) -> Result<bool, EtcdError> {
        if let Some(header) = &answer.header {
            self.check_cluster(topology, header)?;
        }
        if answer.canceled {
            if answer.compact_revision > 0 {
                tracing::info!(%member, "etcd has compacted what came next: everything is read again");
                return Ok(true);
            }
            let reason = format!("the watch was ended: {}", answer.cancel_reason);
            return Err(failed(member, &CallError::Broken(reason)));
        }
        topology.heard(member);
        answer.events.iter().for_each(|event| mirror.handle(event));
        Ok(false)
    }

    /// Asks for something small every few seconds, of a quorum: a member that is cut off has no news, and does not say so.
    async fn stay_alive(
        &self,
        topology: &Topology,
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
                self.check(topology, header)?;
            }
            topology.heard(member);
        }
    }

    /// Whether an answer is of the store that is followed, and not older than what is known.
    fn check(&self, topology: &Topology, header: &Header) -> Result<(), EtcdError> {
        self.check_cluster(topology, header)?;
        let found = u64::try_from(header.revision).unwrap_or(0);
        let mut place = self.place();
        let known = place.revision.max(topology.known().map_or(0, |view| view.revision));
        if found < known {
            return Err(EtcdError::Older { found, known });
        }
        place.revision = found;
        Ok(())
    }

    fn check_cluster(&self, topology: &Topology, header: &Header) -> Result<(), EtcdError> {
        let found = cluster(self.store.prefix(), header);
        let mut place = self.place();
        let known = place.cluster.get_or_insert_with(|| match topology.known() {
            Some(view) => view.cluster.clone(),
            None => found.clone(),
        });
        if *known == found { Ok(()) } else { Err(EtcdError::Cluster { found, known: known.clone() }) }
    }

    /// Hands on what is known now.
    fn publish(&self, topology: &Topology, member: &MemberUrl, mirror: &Mirror) -> Result<(), EtcdError> {
        self.tell_strangers(mirror);
        match mirror.view() {
            Ok(view) => topology.publish(member, view),
            Err(EtcdError::Invalid(reason)) => topology.refuse(member, reason),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cache::Cache;
    use crate::etcd::proto::{Event, KeyValue};
    use ringway_config::model::Etcd;

    fn client(directory: &std::path::Path) -> (Topology, Follower, MemberUrl) {
        let member = MemberUrl::parse("http://127.0.0.1:2379").unwrap();
        let etcd = Etcd {
            endpoints: vec![member.clone()],
            prefix: "/r/".into(),
            login: None,
            ca: None,
            identity: None,
            server_name: None,
        };
        let follower = Follower::new(Store::new(&etcd).unwrap());
        (Topology::new(Cache::open(directory).unwrap(), "p".into()), follower, member)
    }

    fn put(value: &str, revision: i64) -> WatchResponse {
        let key = Bytes::from_static(b"/r/backend/s/a");
        let kv = KeyValue { key, create_revision: 1, mod_revision: revision, value: Bytes::from(value.to_owned()) };
        let header = Some(Header { cluster_id: 1, revision });
        WatchResponse { header, events: vec![Event { kind: 0, kv: Some(kv) }], ..WatchResponse::default() }
    }

    #[test]
    fn neither_another_cluster_nor_an_older_store_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (client, follower, member) = client(directory.path());
        let header = |cluster_id, revision| Header { cluster_id, revision };
        follower.check(&client, &header(1, 10)).unwrap();
        follower.check(&client, &header(1, 12)).unwrap();
        assert!(matches!(follower.check(&client, &header(1, 11)), Err(EtcdError::Older { found: 11, known: 12 })));
        assert!(matches!(follower.check(&client, &header(2, 99)), Err(EtcdError::Cluster { .. })));
        // What a watch tells was true when it was sent: it may be from before the last probe.
        let mut mirror = Mirror::new("/r/", &header(1, 12));
        assert!(!follower.take(&client, &member, &mut mirror, &put("{\"address\":\"10.0.0.1:1\"}", 11)).unwrap());
        assert_eq!(mirror.view().unwrap().revision, 11);
        let mut strange = put("{}", 13);
        strange.header = Some(header(3, 13));
        assert!(follower.take(&client, &member, &mut mirror, &strange).is_err());
        assert_eq!(mirror.view().unwrap().revision, 11);
    }

    #[test]
    fn a_compacted_watch_is_begun_anew_and_any_other_end_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (client, follower, member) = client(directory.path());
        let mut mirror = Mirror::new("/r/", &Header { cluster_id: 1, revision: 1 });
        let ended = |compact_revision| WatchResponse { canceled: true, compact_revision, ..WatchResponse::default() };
        assert!(follower.take(&client, &member, &mut mirror, &ended(7)).unwrap());
        assert!(follower.take(&client, &member, &mut mirror, &ended(0)).is_err());
    }

    #[test]
    fn a_refusal_leaves_what_is_known_and_a_deletion_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (client, follower, member) = client(directory.path());
        let mut mirror = Mirror::new("/r/", &Header { cluster_id: 1, revision: 1 });
        follower.take(&client, &member, &mut mirror, &put("{\"address\":\"10.0.0.1:1\"}", 4)).unwrap();
        follower.publish(&client, &member, &mirror).unwrap();
        assert_eq!(client.standing("etcd").source, "etcd");
        follower.take(&client, &member, &mut mirror, &put("{", 5)).unwrap();
        follower.publish(&client, &member, &mirror).unwrap();
        assert_eq!(client.known().unwrap().revision, 4);
        assert!(client.standing("etcd").refused.unwrap().contains("/r/backend/s/a"));
        // Read anew after the key was deleted: nothing is left that has a revision.
        let empty = Mirror::new("/r/", &Header { cluster_id: 1, revision: 6 });
        follower.publish(&client, &member, &empty).unwrap();
        let known = client.known().unwrap();
        assert_eq!((known.revision, known.objects.len()), (4, 0));
        assert_eq!(client.standing("etcd").refused, None);
    }
}
