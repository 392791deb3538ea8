//! A topology, made of etcd's keys and kept true by its events. Pure.

use super::proto::{Event, Header, KeyValue};
use super::{EtcdError, cluster, object};
use crate::state::{Digest, Key, OBJECTS_BYTES_MAX, OBJECTS_MAX, Object};
use crate::watch::view::View;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of strangers and of bad values that are kept: an operator reads the first ones.
const NAMES_MAX: usize = 1000;

/// The keys of a prefix, as they are known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mirror {
    prefix: String,
    cluster: String,
    /// The last revision that has changed a part of the topology.
    revision: u64,
    objects: Arc<BTreeMap<Key, Arc<Object>>>,
    /// Of all objects.
    digest: Digest,
    /// About what they take.
    bytes: usize,
    /// Values that are of no use, and why.
    bad: BTreeMap<Key, String>,
    /// Keys that are no objects' names.
    strange: BTreeSet<Bytes>,
}

impl Mirror {
    pub(crate) fn new(prefix: &str, header: &Header) -> Self {
        Self {
            prefix: prefix.to_owned(),
            cluster: cluster(prefix, header),
            revision: 0,
            objects: <_>::default(),
            digest: Digest::default(),
            bytes: 0,
            bad: BTreeMap::new(),
            strange: BTreeSet::new(),
        }
    }

    /// The object that a key of etcd's names.
    pub(crate) fn key(&self, name: &[u8]) -> Option<Key> {
        std::str::from_utf8(name.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }

    /// A key as it is now. The last good value of one that is bad now is forgotten: proxies that came later never had it,
    /// and all must agree.
    pub(crate) fn put(&mut self, kv: &KeyValue) {
        let Some(key) = self.key(&kv.key) else {
            // Kinds of objects that a later version knows, notes, what others keep here: no reason to stop a fleet.
            if self.strange.len() < NAMES_MAX {
                // A copy: the key is a part of the whole message that it came in.
                self.strange.insert(Bytes::copy_from_slice(&kv.key));
            }
            return;
        };
        self.changed(kv);
        match object(&key, &kv.value) {
            Ok(object) => {
                self.bad.remove(&key);
                self.set(&key, Some(Arc::new(object)));
            }
            Err(reason) => {
                self.set(&key, None);
                self.bad.insert(key, reason);
            }
        }
    }

    /// What a watch has told.
    pub(crate) fn handle(&mut self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        if event.kind == 0 {
            return self.put(kv);
        }
        match self.key(&kv.key) {
            Some(key) => {
                self.changed(kv);
                self.bad.remove(&key);
                self.set(&key, None);
            }
            None => drop(self.strange.remove(&kv.key)),
        }
    }

    fn set(&mut self, key: &Key, object: Option<Arc<Object>>) {
        let old = match object {
            Some(object) => {
                self.digest.add(key, &object);
                self.bytes += object.weight();
                Arc::make_mut(&mut self.objects).insert(key.clone(), object)
            }
            None => Arc::make_mut(&mut self.objects).remove(key),
        };
        if let Some(old) = old {
            self.digest.remove(key, &old);
            self.bytes -= old.weight();
        }
    }

    fn changed(&mut self, kv: &KeyValue) {
        self.revision = self.revision.max(u64::try_from(kv.mod_revision).unwrap_or(0));
    }

    /// Keys that are no objects' names, for a warning.
    pub(crate) fn strange(&self) -> impl Iterator<Item = &Bytes> {
        self.strange.iter()
    }

    /// All of it, or what is wrong with it: the first bad value, by its key in etcd.
    ///
    /// # Errors
    /// [`EtcdError::Invalid`] and [`EtcdError::TooMuch`].
    pub(crate) fn view(&self) -> Result<View, EtcdError> {
        if self.objects.len() + self.bad.len() > OBJECTS_MAX || self.bytes > OBJECTS_BYTES_MAX {
            return Err(EtcdError::TooMuch { prefix: self.prefix.clone() });
        }
        if let Some((key, reason)) = self.bad.first_key_value() {
            let more = match self.bad.len() {
                1 => String::new(),
                count => format!(" (and {} more are wrong)", count - 1),
            };
            return Err(EtcdError::Invalid(format!("etcd: {}{key}: {reason}{more}", self.prefix)));
        }
        Ok(View {
            cluster: self.cluster.clone(),
            // etcd has none: its revisions are compared for as long as the cluster's number is the same.
            epoch: 0,
            revision: self.revision,
            digest: self.digest,
            objects: Arc::clone(&self.objects),
            rollout: None,
            at_ms: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, mod_revision: i64) -> KeyValue {
        KeyValue {
            key: Bytes::from(key.to_owned()),
            create_revision: 1,
            mod_revision,
            value: Bytes::from(value.to_owned()),
        }
    }

    fn mirror() -> Mirror {
        let mut mirror = Mirror::new("/r/", &Header { cluster_id: 7, revision: 9 });
        mirror.put(&kv("/r/document/main", "services: []\n", 3));
        mirror.put(&kv("/r/backend/api/a", "{\"address\":\"10.0.0.1:80\"}", 5));
        mirror
    }

    #[test]
    fn events_lead_where_a_read_would() {
        let mut mirror = mirror();
        let put = kv("/r/backend/api/b", "{\"address\":\"10.0.0.2:80\",\"weight\":5}", 11);
        mirror.handle(&Event { kind: 0, kv: Some(put.clone()) });
        mirror.handle(&Event { kind: 1, kv: Some(kv("/r/backend/api/a", "", 12)) });
        let view = mirror.view().unwrap();
        assert_eq!((view.cluster.as_str(), view.epoch, view.revision), ("etcd 0000000000000007 /r/", 0, 12));
        let mut read = Mirror::new("/r/", &Header { cluster_id: 7, revision: 12 });
        read.put(&kv("/r/document/main", "services: []\n", 3));
        read.put(&put);
        let read = read.view().unwrap();
        assert_eq!((read.objects, read.digest), (view.objects, view.digest));
        assert_eq!(read.revision, 11, "what is gone has left no trace");
    }

    #[test]
    fn a_bad_value_is_named_and_holds_the_whole_back() {
        let mut mirror = mirror();
        for (value, said) in [
            ("{\"address\":\"nowhere\"}", "`nowhere` is not an address"),
            ("{\"adress\":\"10.0.0.1:80\"}", "unknown field `adress`"),
            ("{\"address\":\"10.0.0.1:80\",\n \"weight\": }", "line 2 column 12"),
            ("{\"address\":\"10.0.0.1:80\",\"weight\":9999}", "weight 9999"),
            ("{\"address\":\"10.0.0.1:80\",\"lease\":3}", "a lease of etcd's"),
        ] {
            mirror.handle(&Event { kind: 0, kv: Some(kv("/r/backend/api/a", value, 20)) });
            let error = mirror.view().unwrap_err().to_string();
            assert!(error.starts_with("etcd: /r/backend/api/a: ") && error.contains(said), "{error}");
        }
        mirror.put(&KeyValue { value: Bytes::from_static(b"ab\xff"), ..kv("/r/service/x", "", 21) });
        assert!(mirror.view().unwrap_err().to_string().ends_with("(and 1 more are wrong)"));
        mirror.handle(&Event { kind: 1, kv: Some(kv("/r/backend/api/a", "", 22)) });
        assert_eq!(mirror.view().unwrap_err().to_string(), "etcd: /r/service/x: not UTF-8 from byte 2 on");
        mirror.put(&kv("/r/service/x", "backends: []\n", 23));
        assert_eq!(mirror.view().unwrap().revision, 23);
    }

    #[test]
    fn strangers_are_noted_and_change_nothing() {
        let mut mirror = mirror();
        let before = mirror.view().unwrap();
        for name in ["/r/backends/api/a", "/r/backend/api/a/b", "/r/note", "/r/document/a b"] {
            mirror.put(&kv(name, "{", 30));
        }
        assert_eq!(mirror.strange().count(), 4);
        assert_eq!(mirror.view().unwrap(), before);
        mirror.handle(&Event { kind: 1, kv: Some(kv("/r/note", "", 31)) });
        assert_eq!(mirror.strange().count(), 3);
    }

    proptest::proptest! {
        /// Whatever comes in whatever order: what is known is what a read of the keys that are left would give.
        #[test]
        fn any_events_lead_where_a_read_would(
            steps in proptest::collection::vec((0..5_usize, proptest::option::of(0..4_usize)), 0..40)
        ) {
            const NAMES: [&str; 5] =
                ["/r/backend/s/a", "/r/backend/s/b", "/r/service/s", "/r/document/main", "/r/stranger"];
            const VALUES: [&str; 4] = ["{\"address\":\"10.0.0.1:80\"}", "{\"address\":\"[::1]:9\",\"weight\":3}", "{}", "?"];
            let mut mirror = Mirror::new("/r/", &Header { cluster_id: 7, revision: 1 });
            let mut left = BTreeMap::new();
            for (revision, (name, value)) in (2..).zip(steps) {
                let (kind, text) = value.map_or((1, ""), |value| (0, VALUES[value]));
                let kv = kv(NAMES[name], text, revision);
                mirror.handle(&Event { kind, kv: Some(kv.clone()) });
                match value {
                    Some(_) => drop(left.insert(name, kv)),
                    None => drop(left.remove(&name)),
                }
            }
            let mut read = Mirror::new("/r/", &Header { cluster_id: 7, revision: 1 });
            left.values().for_each(|kv| read.put(kv));
            read.revision = mirror.revision;
            proptest::prop_assert_eq!(mirror, read);
        }
    }
}
