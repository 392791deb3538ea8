//! Backends by keys of etcd.

use super::seen::Seen;
use crate::etcd::{Doorbell, Store, object};
use crate::state::{BackendState, Key, Object};
use ringway_config::FleetBackend;
use ringway_config::model::EtcdSource;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything is read again although no change was told: a connection that has died does not say so.
const POLL: Duration = Duration::from_secs(10);
/// Until etcd is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The keys of a prefix, and what they have said.
pub(super) struct Keys {
    service: String,
    store: Store,
    /// The member that is asked; the next, when it fails.
    member: usize,
    doorbell: Option<Doorbell>,
    /// What each key said when it was last right.
    said: BTreeMap<String, FleetBackend>,
    /// Keys whose values are wrong, with the values: each is told once.
    wrong: BTreeMap<String, Vec<u8>>,
}

impl Keys {
    pub(super) fn new(settings: &EtcdSource) -> Result<Self, String> {
        let store = Store::new(&settings.etcd).map_err(|error| error.to_string())?;
        let (said, wrong) = Default::default();
        Ok(Self { service: settings.service.clone(), store, member: 0, doorbell: None, said, wrong })
    }

    /// All keys, as they are at one revision.
    pub(super) async fn look(&mut self) -> Result<Seen, (String, Duration)> {
        let doorbell = self.doorbell.take();
        match self.store.keys(self.member, doorbell).await {
            Ok((keys, doorbell)) => {
                self.doorbell = Some(doorbell);
                // Nobody takes a service down by removing its keys: that they are gone is far more often a mistake.
                if keys.is_empty() {
                    return Err((format!("etcd has no keys below {}", self.store.prefix()), POLL));
                }
                Ok(Seen { backends: self.backends(keys), again: POLL })
            }
            Err(error) => {
                self.member += 1;
                Err((error.to_string(), RETRY))
            }
        }
    }

    pub(super) async fn wait(&mut self, most: Duration) {
        match &mut self.doorbell {
            Some(doorbell) => drop(tokio::time::timeout(most, doorbell.rung()).await),
            None => tokio::time::sleep(most).await,
        }
    }

    fn backends(&mut self, keys: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<FleetBackend> {
        let mut now = BTreeMap::new();
        let mut wrong = BTreeMap::new();
        for (key, value) in keys {
            let id = String::from_utf8_lossy(&key).into_owned();
            match backend(&self.service, &id, &value) {
                Ok(backend) => drop(now.insert(id, backend)),
                Err(reason) => {
                    if self.wrong.get(&id) != Some(&value) {
                        let key = format!("{}{id}", self.store.prefix());
                        tracing::error!(key, reason, "a key of etcd's is no backend: what it said before stays");
                    }
                    if let Some(before) = self.said.remove(&id) {
                        now.insert(id.clone(), before);
                    }
                    wrong.insert(id, value);
                }
            }
        }
        (self.said, self.wrong) = (now, wrong);
        self.said.values().cloned().collect()
    }
}

/// `IP:PORT`, or the JSON that the API takes: read and checked as a backend of the store is.
fn backend(service: &str, id: &str, value: &[u8]) -> Result<FleetBackend, String> {
    let plain = std::str::from_utf8(value).ok().map(str::trim).filter(|text| !text.starts_with('{'));
    let json = plain.map(|address| serde_json::json!({ "address": address }).to_string());
    let key = Key::Backend { service: service.to_owned(), id: id.to_owned() };
    let Object::Backend(backend) = object(&key, json.as_ref().map_or(value, String::as_bytes))? else {
        return Err(format!("{key} is no backend"));
    };
    Ok(FleetBackend {
        service: service.to_owned(),
        id: id.to_owned(),
        address: backend.address,
        additional_address: backend.additional_address,
        weight: backend.weight,
        tier: backend.tier,
        drain: backend.state != BackendState::Ready || backend.ejected,
        maintenance: backend.state == BackendState::Maintenance || backend.ejected,
        zone: backend.zone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_config::model::Etcd;

    fn keys() -> Keys {
        let etcd = Etcd {
            endpoints: Vec::new(),
            prefix: "/s/".into(),
            login: None,
            ca: None,
            identity: None,
            server_name: None,
        };
        Keys::new(&EtcdSource { service: "api".into(), etcd }).unwrap()
    }

    #[test]
    fn values_are_addresses_or_backends() {
        let plain = backend("api", "a", b"10.0.0.1:80\n").unwrap();
        assert_eq!(
            (plain.address.as_str(), plain.weight, plain.drain || plain.maintenance),
            ("10.0.0.1:80", 100, false)
        );
        let json = backend("api", "a", b"{ \"address\": \"[::1]:80\", \"weight\": 7, \"state\": \"drain\" }").unwrap();
        assert_eq!((json.address.as_str(), json.weight, json.drain), ("[::1]:80", 7, true));
        for bad in [&b"host:80"[..], b"", b"\xff", b"{}", b"{\"address\":\"10.0.0.1:80\",\"x\":1}"] {
            assert!(backend("api", "a", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_value_says_what_it_said_before() {
        let mut keys = keys();
        let mut look = |pairs: &[(&str, &str)]| -> Vec<String> {
            let pairs = pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
            keys.backends(pairs.collect()).into_iter().map(|backend| backend.address).collect()
        };
        assert_eq!(look(&[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(look(&[("a", "nowhere"), ("b", "10.0.0.3:80"), ("c", "?")]), ["10.0.0.1:80", "10.0.0.3:80"]);
        assert_eq!(look(&[("a", "nowhere")]), ["10.0.0.1:80"]);
        assert_eq!(look(&[("b", "10.0.0.2:80")]), ["10.0.0.2:80"], "a key that is gone says nothing");
    }
}
