//! What the command line asks of etcd: the topology, whether a change of it would be good, and the change.

use super::mirror::Mirror;
use super::proto::{Against, Compare, KeyValue, Op, PutRequest, RequestOp, TxnRequest, TxnResponse};
use super::{CallError, EtcdError, Store, code, failed};
use crate::state::judge;
use crate::state::{Applied, Author, Command, Key, Object, Op as Change, RULES, Refusal, State, Text, Txn};
use crate::watch::view::View;
use bytes::Bytes;
use ringway_config::model::MemberUrl;
use std::collections::BTreeMap;

/// A topology as it stands in etcd, for people.
pub struct Shown {
    /// The topology.
    pub view: View,
    /// The revisions that have made, and last changed, each object.
    pub revisions: BTreeMap<Key, (u64, u64)>,
}

impl Shown {
    /// What members would say to a document put here: the same checks and guards (`force` is for the latter), of what stands
    /// here with it.
    ///
    /// # Errors
    /// Why it would not hold.
    pub fn check(&self, key: &Key, text: &str, force: bool) -> Result<Applied, Refusal> {
        let put = |(key, object): (&Key, &Object)| Change::Put { key: key.clone(), object: object.clone() };
        let here: Vec<Change> = self.view.objects.iter().map(|(key, object)| put((key, &**object))).collect();
        let document = put((key, &Object::Document(Text { text: text.to_owned() })));
        let run = |state: &mut State, ops: Vec<Change>, force| {
            let txn = Txn { by: Author::default(), request: None, conditions: Vec::new(), ops, force };
            judge::run(state, Command::Txn(txn))
        };
        let mut state = State::default();
        state.rules = RULES;
        match run(&mut state, here.clone(), true) {
            Ok(_) => run(&mut state, vec![document], force),
            // What stands here is wrong as a whole, which members would never have let in: this may be what mends it.
            Err(_) => run(&mut state, here.into_iter().chain([document]).collect(), true),
        }
    }
}

impl Store {
    /// The topology as it is now, whoever of the members answers first.
    ///
    /// # Errors
    /// See [`EtcdError`]: the last member's, if none can be asked.
    pub async fn show(&self) -> Result<Shown, EtcdError> {
        let mut last = EtcdError::Invalid("no address of etcd is given".into());
        for member in self.endpoints() {
            match self.show_from(member).await {
                Err(error @ EtcdError::Call { .. }) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    async fn show_from(&self, member: &MemberUrl) -> Result<Shown, EtcdError> {
        let channel = self.connect(member).await?;
        let read = self.read(member, &channel, &self.pages()).await?;
        let mut mirror = Mirror::new(self.prefix(), &read.header);
        let mut revisions = BTreeMap::new();
        let number = |revision: i64| u64::try_from(revision).unwrap_or(0);
        for kv in &read.keys {
            mirror.put(kv);
            if let Some(key) = mirror.key(&kv.key) {
                let KeyValue { create_revision, mod_revision, .. } = kv;
                revisions.insert(key, (number(*create_revision), number(*mod_revision)));
            }
        }
        Ok(Shown { view: mirror.view()?, revisions })
    }

    /// Puts a document, if nobody has changed it since `modified` (0: it was not there). Gives etcd's revision.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn put_document(&self, key: &Key, text: &str, modified: u64) -> Result<u64, EtcdError> {
        let name = Bytes::from(format!("{}{key}", self.prefix()));
        let against = Some(Against::ModRevision(i64::try_from(modified).unwrap_or(i64::MAX)));
        let put = PutRequest { key: name.clone(), value: Bytes::from(text.to_owned()), lease: 0 };
        let txn = TxnRequest {
            compare: vec![Compare { result: 0, target: 2, key: name, against }],
            success: vec![RequestOp { op: Some(Op::Put(put)) }],
        };
        let mut last = EtcdError::Invalid("no address of etcd is given".into());
        for member in self.endpoints() {
            let channel = match self.connect(member).await {
                Ok(channel) => channel,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            // What may have been done is not done again elsewhere.
            let answer: TxnResponse = channel.call("KV/Txn", &txn).await.map_err(|error| outcome(member, &error))?;
            return match answer.succeeded {
                true => Ok(answer.header.map_or(0, |header| u64::try_from(header.revision).unwrap_or(0))),
                false => Err(EtcdError::Changed(key.clone())),
            };
        }
        Err(last)
    }
}

/// What a change that has failed has done: nothing, where it was refused by name.
fn outcome(member: &MemberUrl, error: &CallError) -> EtcdError {
    if code::REFUSALS.iter().any(|refusal| error.is(*refusal)) {
        return failed(member, error);
    }
    EtcdError::Unknown { member: member.to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::Header;

    fn shown(texts: &[(&str, &str)]) -> Shown {
        let mut mirror = Mirror::new("/r/", &Header { cluster_id: 1, revision: 1 });
        for (name, text) in texts {
            let (key, value) = (Bytes::from(format!("/r/{name}")), Bytes::from((*text).to_owned()));
            mirror.put(&KeyValue { key, create_revision: 1, mod_revision: 1, value });
        }
        Shown { view: mirror.view().unwrap(), revisions: BTreeMap::new() }
    }

    #[test]
    fn a_document_is_checked_as_members_check_it() {
        let main: Key = "document/main".parse().unwrap();
        let good = "services: [ { name: s, backends: [ { id: a, address: \"10.0.0.1:1\" }, { id: b, address: \"10.0.0.2:1\" } ] } ]";
        let here = shown(&[("document/main", good), ("backend/s/c", "{\"address\":\"10.0.0.3:1\"}")]);
        assert_eq!(here.check(&main, good, false).unwrap().changed, 0);
        assert_eq!(here.check(&main, &good.replace("10.0.0.1", "10.0.0.9"), false).unwrap().changed, 1);
        assert_eq!(here.check(&main, &good.replace("id: a", "ids: a"), true).unwrap_err().code, "invalid");
        // What stands there may be wrong: what mends it is taken.
        let broken = shown(&[("document/main", "services: 7")]);
        assert!(broken.check(&main, good, false).is_ok());
        assert_eq!(broken.check(&main, "services: 8", false).unwrap_err().code, "invalid");
    }
}
