//! Tables as they are told: whole once, then what has changed. Fields are only ever added.

use super::position::Position;
use ringway_ring::{FleetTable, TABLE_KEYS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Members of all tables.
pub const MEMBERS_MAX: usize = 1 << 20;
/// Tables: a service has one for each of its rings.
pub const TABLES_MAX: usize = 1 << 15;

/// What holds for the proxies that place a service's keys by one ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingTable {
    /// The topology's revision of which proxies have reported that ring.
    pub revision: u64,
    /// With which it came. Told whole, it may be later than the change.
    pub position: Position,
    /// The table.
    pub table: Arc<FleetTable>,
}

/// The tables of all services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Of the newest change; `None`: nobody has published any.
    pub position: Option<Position>,
    /// By service, and by the digest of ring and members, as proxies report it. No service is without any.
    pub services: BTreeMap<String, BTreeMap<u64, RingTable>>,
}

/// What is told of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesLine {
    /// Where they are.
    pub position: Position,
    /// What the line is a change of; `None`: it tells the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// Those that have changed, by service, and by the digest of the ring, in hexadecimal digits; `None`: it has none any more.
    pub services: BTreeMap<String, BTreeMap<String, Option<TableLine>>>,
}

/// What is told of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableLine {
    /// See [`RingTable::revision`].
    pub revision: u64,
    /// It begins anew, with so many members that shed nothing, and without hot keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// With which it came, where that is of an earlier leader than the line: nobody knows now whether it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
    /// Shares that have changed: how many members after the one before (the first after none), and its share, by turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shed: Vec<u32>,
    /// Hot keys that have changed, by their hashes in hexadecimal digits, and the number of their owners; 0: it is hot no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot: Vec<(String, u16)>,
}

/// That tables hold still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which.
    pub position: Position,
    /// Milliseconds since the leader has published them, or has had nothing else to say.
    pub age_ms: u64,
}

/// Why a line is not taken; what was known is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TablesError {
    /// It is a change of something else.
    #[error("a change of the load tables {from} does not fit what is known")]
    Gap {
        /// Of the line.
        from: Position,
    },
    /// It does not lead to a table.
    #[error("service {service:?}: what is told of its load table leads nowhere")]
    Malformed {
        /// Which.
        service: String,
    },
    /// More than any fleet has.
    #[error("the load tables are too large")]
    TooLarge,
}

impl Tables {
    /// All of them: service, digest, table.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &RingTable)> {
        self.services
            .iter()
            .flat_map(|(name, rings)| rings.iter().map(move |(digest, table)| (name.as_str(), *digest, table)))
    }

    /// That of one ring.
    #[must_use]
    pub fn of(&self, service: &str, digest: u64) -> Option<&RingTable> {
        self.services.get(service)?.get(&digest)
    }

    /// Whether it holds by the word of the leader whose tables these are.
    #[must_use]
    pub fn is_in_force(&self, table: &RingTable) -> bool {
        self.position.map(Position::leader) == Some(table.position.leader())
    }

    /// What brings somebody who has `known` to these; `None`: all of it. What it has of another epoch is of no use.
    #[must_use]
    pub fn line(&self, known: Option<&Self>) -> TablesLine {
        let position = self.position.unwrap_or_default();
        let known = known.filter(|known| known.position.is_some_and(|at| at.epoch == position.epoch && at <= position));
        let mut services: BTreeMap<String, BTreeMap<String, Option<TableLine>>> = BTreeMap::new();
        let mut tell = |name: &str, digest: u64, line: Option<TableLine>| {
            services.entry(name.to_owned()).or_default().insert(format!("{digest:016x}"), line);
        };
        for (name, digest, table) in self.iter() {
            let before = known.and_then(|known| known.of(name, digest));
            if before.is_none_or(|before| before.differs(table)) {
                tell(name, digest, Some(table.line(before, position)));
            }
        }
        for (name, digest, _) in known.into_iter().flat_map(Self::iter) {
            if self.of(name, digest).is_none() {
                tell(name, digest, None);
            }
        }
        TablesLine { position, from: known.and_then(|known| known.position), services }
    }

    /// Takes what was told.
    ///
    /// # Errors
    /// See [`TablesError`].
    pub fn take(&mut self, line: TablesLine) -> Result<(), TablesError> {
        let mut next = match line.from {
            None => BTreeMap::new(),
            Some(from) if Some(from) == self.position => self.services.clone(),
            Some(from) => return Err(TablesError::Gap { from }),
        };
        let told = line.services.values().flat_map(BTreeMap::values).flatten();
        let announced: usize = told.filter_map(|told| told.members).map(|members| members as usize).sum();
        if announced > MEMBERS_MAX {
            return Err(TablesError::TooLarge);
        }
        for (name, told) in line.services {
            let rings = next.entry(name.clone()).or_default();
            if take_rings(rings, told, line.position).is_none() {
                return Err(TablesError::Malformed { service: name });
            }
            if rings.is_empty() {
                next.remove(&name);
            }
        }
        let members: usize = next.values().flat_map(BTreeMap::values).map(|ring| ring.table.shed.len()).sum();
        let tables: usize = next.values().map(BTreeMap::len).sum();
        if members > MEMBERS_MAX || tables > TABLES_MAX {
            return Err(TablesError::TooLarge);
        }
        *self = Self { position: Some(line.position), services: next };
        Ok(())
    }
}

/// Takes what was told of a service's rings; `None`: it leads nowhere.
fn take_rings(
    rings: &mut BTreeMap<u64, RingTable>,
    told: BTreeMap<String, Option<TableLine>>,
    position: Position,
) -> Option<()> {
    for (digest, told) in told {
        let digest = u64::from_str_radix(&digest, 16).ok()?;
        match told {
            None => drop(rings.remove(&digest)),
            Some(told) => drop(rings.insert(digest, told.applied(rings.get(&digest), position)?)),
        }
    }
    Some(())
}

impl RingTable {
    fn differs(&self, other: &Self) -> bool {
        self.revision != other.revision
            || self.position.leader() != other.position.leader()
            || !Arc::ptr_eq(&self.table, &other.table) && self.table != other.table
    }

    fn line(&self, before: Option<&Self>, position: Position) -> TableLine {
        let before = before.filter(|before| before.table.shed.len() == self.table.shed.len());
        let nothing = FleetTable::idle(self.table.shed.len());
        let known = before.map_or(&nothing, |before| &*before.table);
        let mut shed = Vec::new();
        let mut next = 0;
        for (index, (share, before)) in self.table.shed.iter().zip(&known.shed).enumerate() {
            if share != before {
                shed.extend([u32::try_from(index - next).unwrap_or(u32::MAX), u32::from(*share)]);
                next = index + 1;
            }
        }
        let has = |table: &FleetTable, hash: u64| table.hot.iter().any(|(known, _)| *known == hash);
        let fresh = self.table.hot.iter().filter(|key| !known.hot.contains(key)).copied();
        let gone = known.hot.iter().filter(|(hash, _)| !has(&self.table, *hash)).map(|(hash, _)| (*hash, 0));
        TableLine {
            revision: self.revision,
            members: before.is_none().then(|| u32::try_from(self.table.shed.len()).unwrap_or(u32::MAX)),
            at: Some(self.position).filter(|at| at.leader() != position.leader()),
            shed,
            hot: fresh.chain(gone).map(|(hash, owners)| (format!("{hash:016x}"), owners)).collect(),
        }
    }
}

impl TableLine {
    /// What it makes of what was known; `None`: nothing that could be meant.
    fn applied(self, known: Option<&RingTable>, position: Position) -> Option<RingTable> {
        let mut table = match self.members {
            Some(members) => FleetTable::idle(members as usize),
            None => FleetTable::clone(&known?.table),
        };
        let (pairs, rest) = self.shed.as_chunks::<2>();
        let mut next = 0_usize;
        for [skipped, share] in pairs {
            next = next.checked_add(*skipped as usize)?;
            *table.shed.get_mut(next)? = u16::try_from(*share).ok()?;
            next += 1;
        }
        let mut hot: BTreeMap<u64, u16> = table.hot.iter().copied().collect();
        for (hash, owners) in self.hot {
            let hash = u64::from_str_radix(&hash, 16).ok()?;
            match owners {
                0 => drop(hot.remove(&hash)),
                owners => drop(hot.insert(hash, owners)),
            }
        }
        table.hot = hot.into_iter().collect();
        (rest.is_empty() && table.hot.len() <= TABLE_KEYS_MAX).then(|| RingTable {
            revision: self.revision,
            position: self.at.unwrap_or(position),
            table: Arc::new(table),
        })
    }
}

/// For [`crate::fuzzing`]: of any lines, those that are taken lead to tables that can be told whole.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(lines: impl Iterator<Item = TablesLine>) {
    let mut tables = Tables::default();
    for line in lines {
        let before = tables.clone();
        match tables.take(line) {
            Ok(()) => {
                let mut whole = Tables::default();
                assert_eq!(whole.take(tables.line(None)), Ok(()));
                assert_eq!(whole.position, tables.position);
                assert_eq!(whole.iter().count(), tables.iter().count());
                let same =
                    |(name, digest, table): (&str, u64, &RingTable)| !table.differs(&tables.services[name][&digest]);
                assert!(whole.iter().all(same));
            }
            Err(_) => assert_eq!(tables, before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seq: u64) -> Position {
        Position { epoch: 1, term: 2, seq }
    }

    fn ring(shed: &[u16], hot: &[(u64, u16)], seq: u64) -> RingTable {
        let table = Arc::new(FleetTable { shed: shed.to_vec(), hot: hot.to_vec() });
        RingTable { revision: 5, position: at(seq), table }
    }

    /// Rings by their services and digests.
    fn tables(seq: u64, rings: &[(&str, u64, RingTable)]) -> Tables {
        let mut services: BTreeMap<String, BTreeMap<u64, RingTable>> = BTreeMap::new();
        for (name, digest, ring) in rings {
            services.entry((*name).to_owned()).or_default().insert(*digest, ring.clone());
        }
        Tables { position: Some(at(seq)), services }
    }

    /// What somebody has who was told by lines.
    fn told(known: &Tables, line: &TablesLine) -> Result<Tables, TablesError> {
        let text = serde_json::to_string(line).unwrap();
        let mut next = known.clone();
        next.take(serde_json::from_str(&text).unwrap()).map(|()| next)
    }

    #[test]
    fn the_whole_and_its_changes_lead_to_the_same_and_changes_are_short() {
        let mut shed = vec![0; 1_000];
        (shed[3], shed[999]) = (700, 9);
        let other = ("a", 9, ring(&[4], &[], 1));
        let first =
            tables(1, &[("a", 1, ring(&shed, &[(4, 2), (9, 3)], 1)), other.clone(), ("b", 2, ring(&[1], &[], 1))]);
        let mut known = told(&Tables::default(), &first.line(None)).unwrap();
        assert_eq!(known, first);
        (shed[3], shed[4]) = (0, 500);
        let second = tables(2, &[("a", 1, ring(&shed, &[(4, 3), (11, 2)], 2)), other, ("b", 2, ring(&[1], &[], 1))]);
        let line = second.line(Some(&first));
        let change = line.services["a"]["0000000000000001"].as_ref().unwrap();
        assert_eq!((change.shed.as_slice(), change.members), ([3, 0, 0, 500].as_slice(), None));
        let hot = [(4, 3), (11, 2), (9, 0)].map(|(hash, owners)| (format!("{hash:016x}"), owners));
        assert_eq!(change.hot, hot);
        assert!(line.services.len() == 1 && line.services["a"].len() == 1, "what is the same is not told: {line:?}");
        known = told(&known, &line).unwrap();
        assert_eq!(known, second);
        // Another ring, and some that have no table any more.
        let third = tables(3, &[("a", 8, ring(&[0, 6], &[], 3))]);
        known = told(&known, &third.line(Some(&second))).unwrap();
        assert_eq!(known, third);
        assert_eq!(told(&Tables::default(), &third.line(None)), Ok(third));
    }

    #[test]
    fn a_line_that_does_not_fit_changes_nothing() {
        let first = tables(1, &[("a", 1, ring(&[0, 0], &[], 1))]);
        let second = tables(2, &[("a", 1, ring(&[0, 7], &[], 2))]);
        let gap = second.line(Some(&first));
        assert_eq!(told(&Tables::default(), &gap), Err(TablesError::Gap { from: at(1) }));
        let digest = "0000000000000001";
        let line = |change: &dyn Fn(&mut TableLine)| {
            let mut line = second.line(Some(&first));
            change(line.services.get_mut("a").unwrap().get_mut(digest).unwrap().as_mut().unwrap());
            told(&first, &line)
        };
        let malformed = Err(TablesError::Malformed { service: "a".into() });
        for bad in [vec![2, 7], vec![0], vec![0, 70_000], vec![u32::MAX, 1, u32::MAX, 1]] {
            assert_eq!(line(&|told| told.shed = bad.clone()), malformed);
        }
        assert_eq!(line(&|told| told.hot = (0..257).map(|hash| (format!("{hash:x}"), 2)).collect()), malformed);
        assert_eq!(line(&|told| told.hot = vec![("g".into(), 2)]), malformed);
        assert_eq!(line(&|told| told.members = Some(u32::MAX)), Err(TablesError::TooLarge));
        // No digest, and a change of a table that is not known.
        for other in ["x", "2"] {
            let mut line = second.line(Some(&first));
            let rings = line.services.get_mut("a").unwrap();
            let told_of = rings.remove(digest).unwrap();
            rings.insert(other.into(), told_of);
            assert_eq!(told(&first, &line), malformed);
        }
        let many = |digest: u64| (format!("{digest:x}"), Some(TableLine { members: Some(0), ..TableLine::default() }));
        let rings = (0..=TABLES_MAX as u64).map(many).collect();
        let line = TablesLine { services: [("a".to_owned(), rings)].into(), ..TablesLine::default() };
        assert_eq!(told(&first, &line), Err(TablesError::TooLarge));
        // An epoch ends what was before: then all is told.
        let restored = Tables { position: Some(Position { epoch: 2, ..at(0) }), ..second.clone() };
        assert_eq!(restored.line(Some(&second)).from, None);
    }

    #[test]
    fn what_the_leader_has_not_confirmed_keeps_its_place_however_it_is_told() {
        let first = tables(9, &[("a", 1, ring(&[5], &[], 9)), ("b", 2, ring(&[6], &[], 8))]);
        let mut second = first.clone();
        let next = Position { term: 3, ..at(1) };
        second.position = Some(next);
        second.services.get_mut("b").unwrap().get_mut(&2).unwrap().position = next;
        assert!(first.iter().all(|(.., table)| first.is_in_force(table)));
        for known in [Tables::default(), first] {
            let reached = told(&known, &second.line(Some(&known).filter(|known| known.position.is_some()))).unwrap();
            let in_force = reached.iter().filter(|(.., table)| reached.is_in_force(table));
            assert_eq!(in_force.map(|(name, ..)| name).collect::<Vec<_>>(), ["b"]);
            assert_eq!(reached.services["a"][&1].position.term, 2);
            assert_eq!(reached.services["b"], second.services["b"]);
        }
    }

    proptest! {
        #[test]
        fn any_tables_are_reached_from_any_others(
            one in prop::collection::vec((0..3_u64, prop::collection::vec(0..4_u16, 4), prop::collection::btree_map(0..9_u64, 1..5_u16, 0..6)), 0..6),
            other in prop::collection::vec((0..3_u64, prop::collection::vec(0..4_u16, 4), prop::collection::btree_map(0..9_u64, 1..5_u16, 0..6)), 0..6),
        ) {
            let made = |seq, list: Vec<(u64, Vec<u16>, BTreeMap<u64, u16>)>| {
                let names = ["x", "y", "z"];
                let rings = list.into_iter().enumerate().map(|(index, (digest, shed, hot))| {
                    let hot: Vec<(u64, u16)> = hot.into_iter().collect();
                    (names[index % 3], digest, ring(&shed, &hot, seq))
                });
                tables(seq, &rings.collect::<Vec<_>>())
            };
            let (one, other) = (made(1, one), made(2, other));
            let reached = told(&one, &other.line(Some(&one))).unwrap();
            prop_assert_eq!(&reached.position, &other.position);
            prop_assert_eq!(reached.iter().count(), other.iter().count());
            prop_assert!(reached.iter().all(|(name, digest, table)| !table.differs(&other.services[name][&digest])));
        }
    }
}
