//! A registered backend as text and as bytes.
//!
//! Text (JSON) has a field for each address. Bytes (the log, snapshots, digests) have the fields that they have had since the first build,
//! in their order: both addresses stand where one did, with a space between them, which no address has. So nothing that was written is read
//! otherwise, and what is written of a backend with one address is what it was.

use super::model::{Backend, BackendState};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

const BETWEEN: char = ' ';

#[derive(Serialize, Deserialize)]
#[serde(rename = "Backend", deny_unknown_fields)]
struct AsText<'a> {
    address: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    additional_address: Option<Cow<'a, str>>,
    #[serde(default = "normal_weight")]
    weight: u32,
    #[serde(default)]
    tier: u8,
    #[serde(default)]
    zone: Option<Cow<'a, str>>,
    #[serde(default)]
    state: BackendState,
    #[serde(default)]
    ejected: bool,
    #[serde(default)]
    lease: Option<u64>,
    #[serde(default)]
    source: Option<Cow<'a, str>>,
}

fn normal_weight() -> u32 {
    100
}

/// As it was under rules 0; never changed.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Backend")]
struct AsBytes<'a> {
    address: Cow<'a, str>,
    weight: u32,
    tier: u8,
    zone: Option<Cow<'a, str>>,
    state: BackendState,
    ejected: bool,
    lease: Option<u64>,
    source: Option<Cow<'a, str>>,
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { address, additional_address, weight, tier, zone, state, ejected, lease, source } = self;
        let (weight, tier, state, ejected, lease) = (*weight, *tier, *state, *ejected, *lease);
        let (zone, source) = (zone.as_deref().map(Cow::from), source.as_deref().map(Cow::from));
        let (address, more) = (Cow::from(address), additional_address.as_deref().map(Cow::from));
        if to.is_human_readable() {
            let additional_address = more;
            AsText { address, additional_address, weight, tier, zone, state, ejected, lease, source }.serialize(to)
        } else {
            let address = match more {
                Some(more) => Cow::from(format!("{address}{BETWEEN}{more}")),
                None => address,
            };
            AsBytes { address, weight, tier, zone, state, ejected, lease, source }.serialize(to)
        }
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        if from.is_human_readable() {
            let AsText { address, additional_address, weight, tier, zone, state, ejected, lease, source } =
                AsText::deserialize(from)?;
            let (address, additional_address) = (address.into_owned(), owned(additional_address));
            let (zone, source) = (owned(zone), owned(source));
            return Ok(Self { address, additional_address, weight, tier, zone, state, ejected, lease, source });
        }
        let AsBytes { address, weight, tier, zone, state, ejected, lease, source } = AsBytes::deserialize(from)?;
        let (address, additional_address) = match address.split_once(BETWEEN) {
            Some((address, more)) => (address.to_owned(), Some(more.to_owned())),
            None => (address.into_owned(), None),
        };
        let (zone, source) = (owned(zone), owned(source));
        Ok(Self { address, additional_address, weight, tier, zone, state, ejected, lease, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::to_bytes;
    use serde_json::json;

    fn backend(more: Option<&str>) -> Backend {
        let mut text = json!({ "address": "10.0.0.1:80", "zone": "z", "state": "drain", "source": "s" });
        if let Some(more) = more {
            text["additional_address"] = more.into();
        }
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn one_address_is_written_as_ever_and_two_as_one_text_that_earlier_builds_keep() {
        for more in [None, Some("[fd00::1]:80")] {
            let backend = backend(more);
            let text = serde_json::to_value(&backend).unwrap();
            assert_eq!(text.get("additional_address").and_then(|more| more.as_str()), more);
            assert_eq!(serde_json::from_value::<Backend>(text).unwrap(), backend);
            let bytes = to_bytes(&backend).unwrap();
            assert_eq!(postcard::from_bytes::<Backend>(&bytes).unwrap(), backend);
            let before: AsBytes<'_> = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(before.address, more.map_or("10.0.0.1:80".into(), |more| format!("10.0.0.1:80 {more}")));
            assert_eq!(postcard::to_allocvec(&before).unwrap(), bytes);
        }
        let wrong = serde_json::from_value::<Backend>(json!({ "address": "10.0.0.1:80", "additional": 1 }));
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("unknown field `additional`"), "{wrong}");
    }
}
