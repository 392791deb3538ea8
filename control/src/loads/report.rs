//! What a proxy reports of the loads that it sees, four times a second, as bytes: a number of the format, and a record of postcard. Fields
//! are never added to a format that has been written; another one gets another number.

use super::position::Position;
use crate::state::is_name;
use ringway_ring::{FleetParams, FleetTable, HotParams, LoadReport, Report, ShedParams, TABLE_KEYS_MAX};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Largest report: hot keys of a thousand services, or loads of some hundred thousand members.
pub const REPORT_BYTES_MAX: usize = 1 << 20;
/// The first byte.
const FORMAT: u8 = 2;
/// Services of a report.
pub const SERVICES_MAX: usize = 10_000;
/// Members of all its services.
const MEMBERS_MAX: usize = 100_000;
/// Keys that a report names for one service.
const KEYS_MAX: usize = 64;
/// What its sketches may have seen: more than any counts, and little enough to be added up for a thousand proxies.
const SEEN_MAX: u64 = 1 << 48;
/// Shares of a hot key below this are of no key.
const HOT_SHARE_MIN: f64 = 1e-6;
/// Longest name of a service.
const NAME_BYTES_MAX: usize = 256;

/// What a proxy reports of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceLoad {
    /// Its name.
    pub name: String,
    /// Of its ring and members: loads and shares stand in the order of their slots.
    pub digest: u64,
    /// Of its members alone, which other rings may have, too: those of proxies in other zones.
    pub members_digest: u64,
    /// The topology's revision that is in force there.
    pub revision: u64,
    /// What a table is to be made for.
    pub params: FleetParams,
    /// What was seen.
    pub report: LoadReport,
    /// The tables by which the proxy goes ([`Tables::position`](super::Tables)); `None`: it has had none.
    pub holds: Option<Position>,
    /// What is in force there by it, for the members of `digest`. It is sent when the leader asks for it.
    pub in_force: Option<FleetTable>,
}

/// What a proxy reports of all its services.
#[derive(Debug, Clone, PartialEq)]
pub struct Reports {
    /// Its name in the fleet.
    pub proxy: String,
    /// Of its process, as heartbeats have it.
    pub instance: u64,
    /// Counts its reports.
    pub seq: u64,
    /// Those that the fleet has a table for, or should have.
    pub services: Vec<ServiceLoad>,
}

/// What the leader says to a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportAnswer {
    /// The tables that are in force, where this leader has published any.
    pub position: Option<Position>,
    /// Services of which it wants to know what is in force at the proxy.
    pub want: Vec<String>,
    /// Services of which the report was not taken, and why; under an empty name: the whole of it.
    pub refused: BTreeMap<String, String>,
}

/// Why bytes are no report, or one that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportsError {
    /// It is written in another way.
    #[error("a report of format {0} is not known here: format {FORMAT} is")]
    Format(u8),
    /// It breaks off, or is something else.
    #[error("it is no report")]
    Malformed,
    /// It has too much of something.
    #[error("a report has at most {most} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much may be.
        most: usize,
    },
    /// A proxy without a name.
    #[error("a proxy's name has 1 to 128 letters, digits and `._:-`")]
    Name,
    /// A service is told of twice.
    #[error("service {0:?} is told of twice")]
    Twice(String),
    /// It can be of no service.
    #[error("service {service:?}: {what} cannot be")]
    Absurd {
        /// Which service.
        service: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// See [`ServiceLoad`].
#[derive(Serialize, Deserialize)]
struct WireService<'a> {
    name: Cow<'a, str>,
    digest: u64,
    members_digest: u64,
    revision: u64,
    /// Target and most.
    shed: (f64, f64),
    hot: Option<WireHot>,
    span_millis: u32,
    requests: u32,
    loads: Cow<'a, [u16]>,
    /// Requests and their cost.
    seen: (u64, u64),
    keys: Cow<'a, [(u64, u32)]>,
    holds: Option<Position>,
    in_force: Option<WireTable<'a>>,
}

/// See [`HotParams`].
#[derive(Serialize, Deserialize)]
struct WireHot {
    enter: f64,
    leave: f64,
    keys_max: u32,
    owners_max: u16,
    volume_min: u64,
    half_life_millis: u32,
}

#[derive(Serialize, Deserialize)]
struct WireTable<'a> {
    shed: Cow<'a, [u16]>,
    hot: Cow<'a, [(u64, u16)]>,
}

#[derive(Serialize, Deserialize)]
struct WireReports<'a> {
    proxy: Cow<'a, str>,
    instance: u64,
    seq: u64,
    services: Vec<WireService<'a>>,
}

impl Reports {
    /// As it is sent.
    ///
    /// # Errors
    /// It has no form in this encoding.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let services = self.services.iter().map(wire_service).collect();
        let wire = WireReports { proxy: Cow::Borrowed(&self.proxy), instance: self.instance, seq: self.seq, services };
        postcard::to_extend(&wire, vec![FORMAT])
    }

    /// As it is sent, if it will be taken.
    ///
    /// # Errors
    /// Why it will not.
    pub(crate) fn encode_checked(&self) -> Result<Vec<u8>, ReportsError> {
        self.check()?;
        let bytes = self.encode().map_err(|_| ReportsError::Malformed)?;
        match bytes.len() > REPORT_BYTES_MAX {
            true => Err(ReportsError::TooMuch { what: "bytes", most: REPORT_BYTES_MAX }),
            false => Ok(bytes),
        }
    }

    /// Reads what was sent; nothing is taken that could not have been meant.
    ///
    /// # Errors
    /// See [`ReportsError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReportsError> {
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(ReportsError::TooMuch { what: "bytes", most: REPORT_BYTES_MAX });
        }
        let (&format, content) = bytes.split_first().ok_or(ReportsError::Malformed)?;
        if format != FORMAT {
            return Err(ReportsError::Format(format));
        }
        let (wire, rest) =
            postcard::take_from_bytes::<WireReports<'_>>(content).map_err(|_| ReportsError::Malformed)?;
        if !rest.is_empty() {
            return Err(ReportsError::Malformed);
        }
        let reports = Self {
            proxy: wire.proxy.into_owned(),
            instance: wire.instance,
            seq: wire.seq,
            services: wire.services.into_iter().map(read_service).collect(),
        };
        reports.check()?;
        Ok(reports)
    }

    fn check(&self) -> Result<(), ReportsError> {
        let at_most = |what, count: usize, most| match count > most {
            true => Err(ReportsError::TooMuch { what, most }),
            false => Ok(()),
        };
        if !is_name(&self.proxy) {
            return Err(ReportsError::Name);
        }
        at_most("services", self.services.len(), SERVICES_MAX)?;
        at_most("members", self.services.iter().map(|service| service.report.loads.len()).sum(), MEMBERS_MAX)?;
        let mut names = BTreeSet::new();
        for service in &self.services {
            at_most("bytes in a service's name", service.name.len(), NAME_BYTES_MAX)?;
            at_most("hot keys of a service", service.report.seen.keys.len(), KEYS_MAX)?;
            if !names.insert(service.name.as_str()) {
                return Err(ReportsError::Twice(service.name.clone()));
            }
            if let Some(what) = absurd(service) {
                return Err(ReportsError::Absurd { service: service.name.clone(), what });
            }
        }
        Ok(())
    }
}

/// What no service has.
fn absurd(service: &ServiceLoad) -> Option<&'static str> {
    let ShedParams { target, share_max } = service.params.shed;
    if !(1.0..=1e6).contains(&target) || !(0.0..=1.0).contains(&share_max) {
        return Some("its target of shedding");
    }
    let is_share = |value: f64| value.is_finite() && value >= HOT_SHARE_MIN;
    if service.params.hot.is_some_and(|hot| !is_share(hot.enter) || !is_share(hot.leave)) {
        return Some("its share of a hot key");
    }
    if service.report.seen.requests > SEEN_MAX || service.report.seen.total > SEEN_MAX {
        return Some("what it has seen of keys");
    }
    let table = service.in_force.as_ref()?;
    let is_sorted = table.hot.is_sorted_by(|(one, _), (other, _)| one < other);
    let is_of_it = table.shed.len() == service.report.loads.len();
    (!is_of_it || !is_sorted || table.hot.len() > TABLE_KEYS_MAX).then_some("the table in force there")
}

fn wire_service(service: &ServiceLoad) -> WireService<'_> {
    let hot = service.params.hot.map(|hot| WireHot {
        enter: hot.enter,
        leave: hot.leave,
        keys_max: u32::try_from(hot.keys_max).unwrap_or(u32::MAX),
        owners_max: hot.owners_max,
        volume_min: hot.volume_min,
        half_life_millis: hot.half_life_millis,
    });
    WireService {
        name: Cow::Borrowed(&service.name),
        digest: service.digest,
        members_digest: service.members_digest,
        revision: service.revision,
        shed: (service.params.shed.target, service.params.shed.share_max),
        hot,
        span_millis: service.report.span_millis,
        requests: service.report.requests,
        loads: Cow::Borrowed(&service.report.loads),
        seen: (service.report.seen.requests, service.report.seen.total),
        keys: Cow::Borrowed(&service.report.seen.keys),
        holds: service.holds,
        in_force: service.in_force.as_ref().map(wire_table),
    }
}

fn wire_table(table: &FleetTable) -> WireTable<'_> {
    WireTable { shed: Cow::Borrowed(&table.shed), hot: Cow::Borrowed(&table.hot) }
}

fn read_service(wire: WireService<'_>) -> ServiceLoad {
    let hot = wire.hot.map(|hot| HotParams {
        enter: hot.enter,
        leave: hot.leave,
        keys_max: hot.keys_max as usize,
        owners_max: hot.owners_max,
        volume_min: hot.volume_min,
        half_life_millis: hot.half_life_millis,
    });
    let (target, share_max) = wire.shed;
    let (requests, total) = wire.seen;
    ServiceLoad {
        name: wire.name.into_owned(),
        digest: wire.digest,
        members_digest: wire.members_digest,
        revision: wire.revision,
        params: FleetParams { shed: ShedParams { target, share_max }, hot },
        report: LoadReport {
            span_millis: wire.span_millis,
            requests: wire.requests,
            loads: wire.loads.into_owned(),
            seen: Report { requests, total, keys: wire.keys.into_owned() },
        },
        holds: wire.holds,
        in_force: wire.in_force.map(|table| FleetTable { shed: table.shed.into_owned(), hot: table.hot.into_owned() }),
    }
}

/// For [`crate::fuzzing`]: what is read is read again as the same once it is written.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let whole = [&[FORMAT], bytes].concat();
    let Ok(reports) = Reports::decode(&whole) else { return };
    let written = reports.encode().expect("what was read can be written");
    assert_eq!(Reports::decode(&written).as_ref(), Ok(&reports));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(name: &str, members: usize) -> ServiceLoad {
        ServiceLoad {
            name: name.into(),
            digest: 7,
            members_digest: 5,
            revision: 3,
            params: FleetParams { shed: ShedParams { target: 1.2, share_max: 0.9 }, hot: Some(HotParams::default()) },
            report: LoadReport {
                span_millis: 250,
                requests: 100,
                loads: (0..members).map(|index| index as u16 * 16).collect(),
                seen: Report { requests: 100, total: 5_000, keys: vec![(u64::MAX, 900), (1, 20)] },
            },
            holds: Some(Position { epoch: 1, term: 2, seq: 3 }),
            in_force: Some(FleetTable { shed: vec![5; members], hot: vec![(1, 2), (9, 3)] }),
        }
    }

    fn reports(services: Vec<ServiceLoad>) -> Reports {
        Reports { proxy: "edge-1".into(), instance: 9, seq: 4, services }
    }

    fn written(change: impl FnOnce(&mut Reports)) -> Result<Reports, ReportsError> {
        let mut told = reports(vec![service("api", 3), service("web", 2)]);
        change(&mut told);
        Reports::decode(&told.encode().unwrap())
    }

    #[test]
    fn a_report_crosses_whole_and_is_small() {
        let told = reports(vec![service("api", 1_000), service("web", 0)]);
        assert_eq!(Reports::decode(&told.encode().unwrap()).as_ref(), Ok(&told));
        let mut lean = service("api", 1_000);
        (lean.in_force, lean.report.loads) = (None, vec![600; 1_000]);
        let bytes = reports(vec![lean]).encode().unwrap().len();
        assert!(bytes < 2_200, "{bytes}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        assert_eq!(Reports::decode(&[]), Err(ReportsError::Malformed));
        assert_eq!(Reports::decode(&[1, 0]), Err(ReportsError::Format(1)));
        let mut bytes = reports(vec![service("api", 3)]).encode().unwrap();
        bytes.push(0);
        assert_eq!(Reports::decode(&bytes), Err(ReportsError::Malformed), "something follows");
        assert_eq!(written(|told| told.proxy = "a b".into()), Err(ReportsError::Name));
        assert_eq!(written(|told| told.services[1].name = "api".into()), Err(ReportsError::Twice("api".into())));
        let absurd = |what| Err(ReportsError::Absurd { service: "web".into(), what });
        for target in [f64::NAN, f64::INFINITY, 0.0, -1.0, 0.99, 1e7] {
            let told = written(|told| told.services[1].params.shed.target = target);
            assert_eq!(told, absurd("its target of shedding"));
        }
        let told = written(|told| told.services[1].params.shed.share_max = f64::NAN);
        assert_eq!(told, absurd("its target of shedding"));
        for (enter, leave) in [(f64::NAN, 0.1), (1e-7, 0.1), (0.1, 1e-7), (0.1, f64::INFINITY)] {
            let hot = HotParams { enter, leave, ..HotParams::default() };
            let told = written(|told| told.services[1].params.hot = Some(hot));
            assert_eq!(told, absurd("its share of a hot key"));
        }
        for (requests, total) in [(1 << 49, 9), (9, 1 << 49), (u64::MAX, u64::MAX)] {
            let seen = Report { requests, total, keys: Vec::new() };
            assert_eq!(written(|told| told.services[1].report.seen = seen), absurd("what it has seen of keys"));
        }
        for table in [
            FleetTable { shed: vec![1; 3], hot: Vec::new() },
            FleetTable { shed: vec![1; 2], hot: vec![(2, 1), (2, 1)] },
            FleetTable { shed: vec![1; 2], hot: (0..257).map(|hash| (hash, 2)).collect() },
        ] {
            assert_eq!(written(|told| told.services[1].in_force = Some(table)), absurd("the table in force there"));
        }
    }

    #[test]
    fn a_report_has_an_end() {
        let too_much = |what, most| Err(ReportsError::TooMuch { what, most });
        let told = written(|told| told.services[0].report.seen.keys = vec![(1, 1); 65]);
        assert_eq!(told, too_much("hot keys of a service", KEYS_MAX));
        let many = |told: &mut Reports| {
            told.services[1].in_force = None;
            told.services[1].report.loads = vec![1; MEMBERS_MAX];
        };
        assert_eq!(written(many), too_much("members", MEMBERS_MAX));
        let told = written(|told| told.services[0].name = "x".repeat(257));
        assert_eq!(told, too_much("bytes in a service's name", NAME_BYTES_MAX));
        assert_eq!(Reports::decode(&vec![1; REPORT_BYTES_MAX + 1]), too_much("bytes", REPORT_BYTES_MAX));
        // A list that claims to be longer than anything, in a few bytes.
        let claims = [&[FORMAT, 1, b'p', 0, 0][..], &[0xff; 9], &[1]].concat();
        assert_eq!(Reports::decode(&claims), Err(ReportsError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&bytes);
        }

        #[test]
        fn no_damage_panics(at in 0..400_usize, byte: u8) {
            let mut bytes = reports(vec![service("api", 30), service("web", 2)]).encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            fuzz(&bytes[1..]);
        }
    }
}
