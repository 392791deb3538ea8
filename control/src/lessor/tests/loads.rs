//! Loads of the fleet, told to a leader.

use super::super::load_rings::RINGS_MAX;
use super::*;
use crate::loads::{Position, RingTable, ServiceLoad};
use ringway_ring::{FleetParams, FleetTable, HotParams, LOAD_UNIT, LoadReport, Report, STEP_MILLIS, ShedParams};

const TERM: u64 = 4;

/// A leader, the state that it leads on, and the time.
struct Fleet {
    lessor: Lessor,
    state: State,
    now: Instant,
    seq: u64,
    requests: BTreeMap<String, u64>,
}

fn service(name: &str, digest: u64, loads: &[f64]) -> ServiceLoad {
    let shed = ShedParams { target: 1.2, share_max: 0.9 };
    let loads: Vec<u16> = loads.iter().map(|load| (load * f64::from(LOAD_UNIT)) as u16).collect();
    ServiceLoad {
        name: name.into(),
        digest,
        members_digest: loads.len() as u64,
        revision: 0,
        params: FleetParams { shed, hot: Some(HotParams::default()) },
        report: LoadReport { span_millis: 250, requests: 50, loads, seen: Report::default() },
        holds: None,
        in_force: None,
    }
}

impl Fleet {
    fn new(tables: Arc<Tables>) -> Self {
        let now = Instant::now();
        let lessor = lessor(now).with_tables(tables);
        let mut state = State::default();
        state.apply(ORIGIN, Command::Init { cluster: "c".into() }).unwrap();
        Self { lessor, state, now, seq: 0, requests: BTreeMap::new() }
    }

    /// A heartbeat, `requests` after the one before.
    fn beat(&mut self, proxy: &str, requests: u64) {
        let total = self.requests.entry(proxy.into()).or_default();
        *total += requests;
        let heartbeat = Heartbeat { requests: *total, ..heartbeat(&self.state) };
        self.lessor.handle_heartbeat(&self.state, proxy.into(), heartbeat, self.now);
    }

    fn report(&mut self, proxy: &str, services: Vec<ServiceLoad>) -> LoadsAnswer {
        self.seq += 1;
        let reports = Reports { proxy: proxy.into(), instance: 7, seq: self.seq, services };
        self.lessor.handle_loads(&self.state, reports, TERM, self.now)
    }

    fn step(&mut self) -> bool {
        let published = self.lessor.step_loads(&self.state, TERM, self.now);
        self.now += Duration::from_millis(STEP_MILLIS);
        published
    }

    /// Everybody reports so, for so many steps.
    fn run(&mut self, steps: u32, told: &[(&str, ServiceLoad)]) {
        for _ in 0..steps {
            for (proxy, service) in told {
                let answer = self.report(proxy, vec![service.clone()]);
                assert_eq!(answer.refused, [], "{:?}", answer.answer);
            }
            self.step();
        }
    }

    fn tables(&self) -> Tables {
        Tables::clone(self.lessor.tables().0)
    }

    /// Of a service with one ring.
    fn of(&self, service: &str) -> RingTable {
        let rings = self.rings(service);
        assert_eq!(rings.len(), 1, "{rings:?}");
        rings.into_values().next().unwrap()
    }

    fn rings(&self, service: &str) -> BTreeMap<u64, RingTable> {
        self.tables().services[service].clone()
    }

    fn refused(&self, proxy: &str) -> Option<String> {
        let fleet = self.lessor.fleet(&self.state, self.now);
        fleet.into_iter().find(|known| known.name == proxy).unwrap().loads.unwrap().refused
    }
}

#[test]
fn loads_of_all_become_one_table_which_is_published_when_it_changes_and_ends_with_the_reports() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    assert!(!fleet.step() && !fleet.lessor.tables().1, "nobody reports");
    let uneven = |part: f64| service("s", 7, &[40.0 * part, 10.0 * part, 10.0 * part]);
    fleet.run(4, &[("p", uneven(0.7)), ("q", uneven(0.3))]);
    assert_eq!(fleet.tables(), Tables::default(), "an earlier table may still be told of");
    fleet.run(6, &[("p", uneven(0.7)), ("q", uneven(0.3))]);
    let table = fleet.of("s");
    assert!(table.table.shed[0] > 10_000 && table.table.shed[1..] == [0, 0], "{table:?}");
    assert_eq!((table.position.epoch, table.position.term), (1, TERM));
    assert!(fleet.rings("s").contains_key(&7));
    assert_eq!(fleet.tables().position, Some(table.position));
    // Even loads: it falls to nothing, and rests.
    let even = service("s", 7, &[10.0, 10.0, 10.0]);
    fleet.run(200, &[("p", even.clone()), ("q", even.clone())]);
    let rests = fleet.of("s");
    assert_eq!(rests.table.shed, [0, 0, 0]);
    fleet.run(5, &[("p", even.clone()), ("q", even)]);
    assert_eq!(fleet.of("s"), rests);
    for _ in 0..39 {
        assert!(!fleet.step());
    }
    assert!((0..5).any(|_| fleet.step()), "after ten seconds without a word");
    let last = fleet.tables();
    assert!(last.services.is_empty() && last.position > Some(rests.position));
    assert!(!fleet.lessor.tables().1);
}

#[test]
fn each_ring_has_a_table_and_what_moves_to_another_goes_on_from_what_was_in_force() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q", "r"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let loads = [30.0, 10.0, 10.0];
    let (old, new) = (service("s", 1, &loads), service("s", 2, &[10.0, 10.0, 10.0, 30.0]));
    fleet.run(10, &[("p", old.clone()), ("q", old.clone()), ("r", new.clone())]);
    let rings = fleet.rings("s");
    let shed = rings[&1].table.shed[0];
    assert!(shed > 0 && rings[&1].table.shed.len() == 3 && rings[&2].table.shed[3] > 0, "{rings:?}");
    // A third change, to which two come: the first says what is in force there, in the order of the members of then.
    let newest = service("s", 3, &[10.0, 30.0, 10.0, 10.0, 10.0]);
    let asked = fleet.report("q", vec![ServiceLoad { holds: fleet.tables().position, ..newest.clone() }]);
    assert_eq!(asked.answer.want, ["s"]);
    let in_force = Some(FleetTable { shed: vec![0, shed, 0, 0, 0], hot: Vec::new() });
    let told = ServiceLoad { holds: fleet.tables().position, in_force, ..newest.clone() };
    assert_eq!(fleet.report("q", vec![told]).answer.want, [""; 0]);
    let before = fleet.tables().position;
    fleet.run(5, &[("p", old.clone()), ("q", newest.clone()), ("r", new.clone())]);
    let now = fleet.rings("s")[&3].clone();
    assert!(fleet.rings("s").len() == 3 && fleet.tables().position > before);
    assert!(now.table.shed[1].abs_diff(shed) < 12_000 && now.table.shed[0] == 0, "no jump: {now:?}, {shed}");
    // Whose proxies have all gone on to another has none any more, after a while.
    fleet.run(50, &[("p", newest.clone()), ("q", newest.clone()), ("r", newest)]);
    assert_eq!(fleet.rings("s").into_keys().collect::<Vec<_>>(), [3]);
    assert!(fleet.lessor.tables().1);
}

#[test]
fn proxies_of_two_zones_have_tables_of_their_own_by_all_that_their_members_carry() {
    let mut fleet = Fleet::new(Arc::default());
    ["a", "b", "c"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let zone = |digest, loads: &[f64], away: std::ops::Range<usize>, hot: u64| {
        let mut service = service("s", digest, loads);
        service.report.loads[away].fill(ringway_ring::NOT_ELIGIBLE);
        service.report.seen = Report { requests: 10_000, total: 10_000, keys: vec![(hot, 5_000)] };
        service
    };
    // Each prefers two of the members; the first zone has two proxies, and its members carry ten times as much.
    let first = zone(1, &[75.0, 25.0, 0.0, 0.0], 2..4, 77);
    let other = zone(2, &[0.0, 0.0, 15.0, 5.0], 0..2, 99);
    fleet.run(12, &[("a", first.clone()), ("b", first.clone()), ("c", other)]);
    let rings = fleet.rings("s");
    let shed = |digest| rings[&digest].table.shed.iter().map(|share| *share > 0).collect::<Vec<_>>();
    let hot = |digest| rings[&digest].table.hot.iter().map(|key| key.0).collect::<Vec<_>>();
    assert_eq!((shed(1), shed(2)), (vec![true, false, false, false], vec![false, false, true, false]));
    assert_eq!((hot(1), hot(2)), (vec![77], vec![99]));
    // The other zone's members are down, and its keys come to those of the first: to the one which has little there.
    let mut overflow = zone(2, &[0.0, 50.0, 0.0, 0.0], 2..4, 99);
    overflow.report.loads[0] = 0;
    fleet.run(60, &[("a", first.clone()), ("b", first), ("c", overflow)]);
    let rings = fleet.rings("s");
    assert!(rings.values().all(|ring| ring.table.shed[1] == 0), "150 and 100, of 125 on average: {rings:?}");
}

#[test]
fn a_service_has_so_many_tables_and_no_more_and_those_of_most_proxies_stay() {
    let mut fleet = Fleet::new(Arc::default());
    let names: Vec<String> = (0..RINGS_MAX + 8).map(|index| format!("odd{index}")).collect();
    ["p", "q"].into_iter().chain(names.iter().map(String::as_str)).for_each(|proxy| fleet.beat(proxy, 0));
    let odd: Vec<(&str, ServiceLoad)> = names
        .iter()
        .zip(100_u64..)
        .map(|(name, digest)| (name.as_str(), service("s", digest, &[30.0, 10.0])))
        .collect();
    fleet.run(8, &odd);
    assert_eq!(fleet.rings("s").len(), RINGS_MAX);
    let before: Vec<u64> = fleet.rings("s").into_keys().collect();
    let common = service("s", 7, &[30.0, 10.0]);
    let told: Vec<_> = [("p", common.clone()), ("q", common)].into_iter().chain(odd).collect();
    fleet.run(8, &told);
    let after = fleet.rings("s");
    assert!(after.len() == RINGS_MAX && after.contains_key(&7), "{:?}", after.keys());
    assert_eq!(before.iter().filter(|digest| !after.contains_key(digest)).count(), 1, "the others keep theirs");
}

#[test]
fn rings_that_a_proxy_invents_and_leaves_take_no_room_from_others() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "liar"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    fleet.lessor.loads.tables_max = (64, 400);
    let good = service("s", 7, &[10.0; 40]);
    for round in 0..40_u64 {
        // It stays with each long enough for a table.
        let invented = service("t", 1_000 + round, &[10.0; 90]);
        fleet.run(6, &[("p", good.clone()), ("liar", invented)]);
        let tables = fleet.tables();
        let invented: usize = tables.services.get("t").map_or(0, BTreeMap::len);
        assert!((1..=2).contains(&invented) && tables.of("s", 7).is_some(), "{round}: {:?}", tables.services.values());
        // In between, many that it leaves at once.
        for digest in 0..20 {
            assert_eq!(fleet.report("liar", vec![service("t", digest, &[10.0; 90])]).refused, []);
        }
    }
    let mut more = fleet.report("p", vec![good, service("u", 1, &[10.0; 60])]);
    assert_eq!(more.refused, [], "there is room for another");
    // A quarter of the members is what one may tell of.
    more = fleet.report("liar", vec![service("t", 1, &[10.0; 60]), service("v", 1, &[10.0; 60])]);
    assert_eq!(more.refused, [LoadRefusal::Full]);
}

#[test]
fn a_new_leader_goes_on_from_what_it_has_relayed_or_from_what_a_proxy_has_had_later() {
    let at = |seq| Position { epoch: 1, term: TERM - 1, seq };
    let table = |share: u16| FleetTable { shed: vec![share, 0], hot: vec![(5, 3)] };
    let relayed = |seq: u64| {
        let ring = RingTable { revision: 1, position: at(seq), table: Arc::new(table(20_000)) };
        Arc::new(Tables { position: Some(at(seq)), services: [("s".to_owned(), [(7, ring)].into())].into() })
    };
    let even = |held| ServiceLoad { holds: Some(at(held)), ..service("s", 7, &[12.0, 10.0]) };
    let first = |fleet: &mut Fleet, held, told: Option<FleetTable>| {
        fleet.beat("p", 0);
        let answer = fleet.report("p", vec![even(held)]);
        if let Some(told) = told {
            assert_eq!(answer.answer.want, ["s"]);
            fleet.report("p", vec![ServiceLoad { in_force: Some(told), ..even(held) }]);
        } else {
            assert_eq!(answer.answer.want, [""; 0]);
        }
        let before = fleet.tables();
        fleet.run(4, &[("p", even(held))]);
        assert_eq!(fleet.tables(), before, "nothing is published before it is known what was in force");
        fleet.run(1, &[("p", even(held))]);
        assert_eq!(fleet.tables().position, Some(Position { epoch: 1, term: TERM, seq: 1 }));
        fleet.of("s").table.shed[0]
    };
    // 12 of a mean of 11 is 0.11 below the target, of which a step takes back 0.15.
    let near = |share: u16, expected: u16| share.abs_diff(expected) < 1_500 && share < expected;
    assert!(near(first(&mut Fleet::new(relayed(9)), 9, None), 20_000));
    assert!(near(first(&mut Fleet::new(relayed(9)), 10, Some(table(40_000))), 40_000));
    assert!(near(first(&mut Fleet::new(Arc::default()), 3, Some(table(30_000))), 30_000));
    // Of a time that has not come: it is refused.
    for held in [Position { epoch: 2, ..at(1) }, Position { term: TERM + 1, ..at(1) }, Position { term: TERM, ..at(1) }]
    {
        let mut fleet = Fleet::new(Arc::default());
        fleet.beat("p", 0);
        let told = ServiceLoad { holds: Some(held), in_force: Some(table(9)), ..even(1) };
        let answer = fleet.report("p", vec![told]);
        assert_eq!((answer.refused, answer.answer.want), (vec![LoadRefusal::Absurd], vec![]));
        fleet.run(8, &[("p", even(0))]);
    }
}

#[test]
fn what_cannot_be_is_refused_and_named_and_the_rest_of_the_report_is_taken() {
    let mut fleet = Fleet::new(Arc::default());
    assert_eq!(fleet.report("p", vec![service("s", 7, &[1.0])]).refused, [LoadRefusal::Unknown]);
    fleet.beat("p", 0);
    fleet.beat("q", 0);
    let good = service("s", 7, &[10.0, 10.0]);
    fleet.run(8, &[("p", good.clone())]);
    let mut span = service("t", 1, &[1.0]);
    span.report.span_millis = 0;
    let answer = fleet.report("q", vec![service("s", 7, &[1.0, 2.0, 3.0]), span, service("u", 1, &[1.0])]);
    assert_eq!(answer.refused, [LoadRefusal::Members, LoadRefusal::Absurd]);
    assert!(answer.answer.refused["s"].contains("3 members, and there are 2"), "{:?}", answer.answer);
    let named = fleet.refused("q").unwrap();
    assert!(named.contains("service \"s\"") && fleet.refused("p").is_none(), "{named}");
    // Said twice, or late.
    let seq = fleet.seq;
    let late = Reports { proxy: "q".into(), instance: 7, seq, services: vec![good.clone()] };
    let answer = fleet.lessor.handle_loads(&fleet.state, late.clone(), TERM, fleet.now);
    assert_eq!(answer.refused, [LoadRefusal::Older]);
    // Another process in its name is not it, until heartbeats tell of that one; then it begins anew.
    let other = Reports { instance: 2, ..late };
    let answer = fleet.lessor.handle_loads(&fleet.state, other.clone(), TERM, fleet.now);
    assert_eq!(answer.refused, [LoadRefusal::Unknown]);
    let heartbeat = Heartbeat { instance: 2, ..heartbeat(&fleet.state) };
    fleet.lessor.handle_heartbeat(&fleet.state, "q".into(), heartbeat, fleet.now);
    assert_eq!(fleet.lessor.handle_loads(&fleet.state, other, TERM, fleet.now).refused, []);
    assert!(fleet.of("s").table.shed == [0, 0], "{:?}", fleet.tables());
    // What was refused once is not told for ever.
    fleet.beat("q", 0);
    fleet.run(45, &[("q", good)]);
    assert_eq!(fleet.refused("q"), None);
}

#[test]
fn a_proxy_that_contradicts_its_heartbeats_counts_for_nothing_until_it_agrees_again() {
    let mut fleet = Fleet::new(Arc::default());
    // Of `liar`, one member has all the load there is; by everybody else, none has.
    let (lie, truth) = (service("s", 7, &[4_000.0, 0.0, 0.0]), service("s", 7, &[10.0, 10.0, 10.0]));
    let round = |fleet: &mut Fleet, tries: u32, requests: u64| {
        let mut refused = Vec::new();
        for _ in 0..8 {
            let mut lie = lie.clone();
            lie.report.requests = tries / 8;
            refused.extend(fleet.report("liar", vec![lie]).refused);
            fleet.run(1, &[("p", truth.clone())]);
        }
        fleet.beat("liar", requests);
        fleet.beat("p", 400);
        fleet.lessor.handle_tick(&fleet.state, 1, 0, fleet.now);
        refused.len()
    };
    ["liar", "p"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let refused: usize = (0..5).map(|_| round(&mut fleet, 4_000, 40)).sum();
    assert!(refused > 0 && fleet.refused("liar").unwrap().contains("its heartbeats of"), "{refused}");
    assert_eq!((0..4).map(|_| round(&mut fleet, 4_000, 40)).sum::<usize>(), 32, "all of them");
    (0..20).for_each(|_| _ = round(&mut fleet, 4_000, 40));
    assert_eq!(fleet.of("s").table.shed, [0, 0, 0], "what it has caused is over");
    assert!(fleet.refused("p").is_none());
    (0..6).for_each(|_| _ = round(&mut fleet, 400, 400));
    assert_eq!(round(&mut fleet, 400, 400), 0, "it is believed again");
    let events = fleet.lessor.events();
    let told: Vec<&str> = events.iter().filter(|event| event.proxy == "liar").map(|event| &*event.what).collect();
    assert!(told.windows(2).any(|pair| pair == ["loads_refused", "loads_taken"]), "{told:?}");
    // What was signed off is gone with all that it has said.
    assert!(fleet.lessor.handle_sign_off(&fleet.state, "liar", None));
    assert_eq!(fleet.report("liar", vec![lie]).refused, [LoadRefusal::Unknown]);
}

#[test]
fn a_restore_begins_anew_with_what_proxies_have_in_force() {
    let mut fleet = Fleet::new(Arc::default());
    fleet.beat("p", 0);
    let uneven = service("s", 7, &[30.0, 10.0, 10.0]);
    fleet.run(10, &[("p", uneven.clone())]);
    let before = fleet.of("s");
    assert!(before.table.shed[0] > 0);
    fleet.state.epoch += 1;
    assert!(fleet.step());
    assert_eq!(fleet.tables().services.len(), 0);
    assert!(fleet.tables().position > Some(before.position));
    let held = ServiceLoad { holds: Some(before.position), ..uneven };
    fleet.seq = 0;
    assert_eq!(fleet.report("p", vec![held.clone()]).answer.want, ["s"], "of the epoch before");
    fleet.report("p", vec![ServiceLoad { in_force: Some((*before.table).clone()), ..held.clone() }]);
    fleet.run(5, &[("p", held)]);
    assert!(fleet.of("s").table.shed[0] >= before.table.shed[0], "it does not jump");
}

#[test]
fn a_leader_holds_so_many_loads_and_no_more_and_of_one_proxy_a_quarter() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q", "r"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    // A ring of 40 takes 704, and a report of it 72.
    fleet.lessor.loads.held_max = 704 + 72 + 71;
    let service = service("s", 7, &[10.0; 40]);
    fleet.run(8, &[("p", service.clone())]);
    assert_eq!(fleet.report("q", vec![service.clone()]).refused, [LoadRefusal::Full]);
    assert!(fleet.refused("q").unwrap().contains("as many loads as it can"));
    fleet.run(1, &[("p", service.clone())]);
    let other = ServiceLoad { name: "t".into(), ..service.clone() };
    fleet.lessor.loads.held_max = 1_000;
    assert_eq!(fleet.report("q", vec![other]).refused, [LoadRefusal::Full], "there is no room for another ring");
    fleet.lessor.loads.held_max = 704 + 72 + 71;
    assert!(fleet.lessor.handle_sign_off(&fleet.state, "p", None));
    assert_eq!(fleet.report("q", vec![service.clone()]).refused, [], "there is room again");
    // With 64 keys it takes 584, and of two of them the second is more than a quarter.
    fleet.lessor.loads.held_max = 4 * 2 * 584 - 1;
    let mut busy = service;
    busy.report.seen = Report { requests: 64, total: 64, keys: (0..64).map(|key| (key, 1)).collect() };
    let answer = fleet.report("r", ["a", "b"].map(|name| ServiceLoad { name: name.into(), ..busy.clone() }).to_vec());
    assert_eq!((answer.refused, answer.answer.refused.keys().next().unwrap().as_str()), (vec![LoadRefusal::Full], "b"));
}

#[test]
fn no_more_services_and_members_are_published_than_those_who_read_tables_take() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "liar"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    fleet.lessor.loads.tables_max = (3, 40);
    let good = service("s", 7, &[10.0; 3]);
    fleet.run(8, &[("p", good.clone())]);
    let invented = |name: &str, members| service(name, 1, &vec![1.0; members]);
    let answer = fleet.report("liar", ["a", "b", "c", "d"].map(|name| invented(name, 1)).to_vec());
    assert_eq!(answer.refused, [LoadRefusal::Full; 2]);
    assert_eq!(answer.answer.refused.keys().collect::<Vec<_>>(), ["c", "d"]);
    // Another ring of a service that is there.
    assert_eq!(fleet.report("p", vec![service("a", 2, &[1.0])]).refused, [LoadRefusal::Full]);
    // Of members, too: those of one proxy, which are a quarter, and those of all.
    fleet.lessor.loads.tables_max = (30, 16);
    assert_eq!(fleet.report("liar", vec![invented("a", 4)]).refused, [LoadRefusal::Full]);
    let names = ["o1", "o2", "o3", "o4"];
    names.into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let refused = names.map(|proxy| fleet.report(proxy, vec![invented(proxy, 4)]).refused);
    assert_eq!(refused, [vec![], vec![], vec![], vec![LoadRefusal::Full]], "three and twelve, and four");
    fleet.lessor.loads.tables_max = (30, 400);
    fleet.run(60, &[("p", good.clone()), ("liar", invented("b", 1))]);
    assert_eq!(fleet.tables().services.len(), 2, "{:?}", fleet.tables());
    let mut reader = Tables::default();
    assert_eq!(reader.take(fleet.tables().line(None)), Ok(()));
    assert!(fleet.report("p", vec![good, invented("e", 1)]).refused.is_empty(), "there is room again");
}

#[test]
fn parameters_are_those_of_most_proxies_and_revisions_that_nobody_knows_are_refused() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q", "canary"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let uneven = service("s", 7, &[20.0, 10.0, 10.0]);
    let mut other = uneven.clone();
    other.params.shed.target = 900.0;
    let ahead = ServiceLoad { revision: 1, ..other.clone() };
    assert_eq!(fleet.report("canary", vec![ahead]).refused, [LoadRefusal::Absurd]);
    // The canary is the last to speak each time.
    let told = [("p", uneven.clone()), ("q", uneven.clone()), ("canary", other.clone())];
    fleet.run(30, &told);
    let shed = fleet.of("s").table.shed[0];
    assert!(shed > 20_000, "{shed}");
    fleet.run(60, &[("p", uneven), ("q", other.clone()), ("canary", other)]);
    assert_eq!(fleet.of("s").table.shed[0], 0, "most want that now");
}

#[test]
fn what_was_in_force_under_an_earlier_leader_is_believed_of_two_or_of_who_is_alone_with_it() {
    let at = |seq| Position { epoch: 1, term: TERM - 1, seq };
    let holds = |seq| ServiceLoad { holds: Some(at(seq)), ..service("s", 7, &[10.0, 10.0]) };
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q", "liar"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    assert_eq!(fleet.report("p", vec![holds(7)]).answer.want, ["s"], "nobody says otherwise");
    let lie = Some(FleetTable { shed: vec![0, 50_000], hot: Vec::new() });
    let told = fleet.report("liar", vec![ServiceLoad { in_force: lie, ..holds(1 << 40) }]);
    assert_eq!(told.answer.want, [""; 0]);
    assert_eq!(fleet.report("p", vec![holds(7)]).answer.want, [""; 0], "one says this, and one that");
    fleet.report("q", vec![holds(7)]);
    assert_eq!(fleet.report("p", vec![holds(7)]).answer.want, ["s"]);
    let truth = Some(FleetTable { shed: vec![30_000, 0], hot: Vec::new() });
    fleet.report("p", vec![ServiceLoad { in_force: truth, ..holds(7) }]);
    fleet.run(6, &[("p", holds(7)), ("q", holds(7)), ("liar", holds(1 << 40))]);
    let shed = fleet.of("s").table.shed.clone();
    assert!(shed[0] > 20_000 && shed[1] == 0, "{shed:?}");
}

#[test]
fn a_fleet_that_had_no_table_goes_on_from_what_a_proxy_has_shed_alone() {
    let mut fleet = Fleet::new(Arc::default());
    fleet.beat("p", 0);
    let even = service("s", 7, &[12.0, 10.0]);
    assert_eq!(fleet.report("p", vec![even.clone()]).answer.want, ["s"]);
    let alone = Some(FleetTable { shed: vec![30_000, 0], hot: Vec::new() });
    let told = fleet.report("p", vec![ServiceLoad { in_force: alone, ..even.clone() }]);
    assert_eq!((told.answer.want, told.refused), (vec![], vec![]));
    fleet.run(5, &[("p", even)]);
    let shed = fleet.of("s").table.shed[0];
    assert!(shed > 28_000 && shed < 30_000, "no jump: {shed}");
}

#[test]
fn a_new_leader_vouches_only_for_what_it_has_worked_out_itself() {
    let at = Position { epoch: 1, term: TERM - 1, seq: 9 };
    let before = |name: &str| {
        let table = Arc::new(FleetTable { shed: vec![20_000, 0], hot: Vec::new() });
        (name.to_owned(), BTreeMap::from([(7, RingTable { revision: 0, position: at, table })]))
    };
    let relayed = Tables { position: Some(at), services: [before("s"), before("t")].into() };
    let mut fleet = Fleet::new(Arc::new(relayed));
    fleet.beat("p", 0);
    fleet.run(8, &[("p", service("s", 7, &[12.0, 10.0]))]);
    let tables = fleet.tables();
    assert_eq!(tables.position.map(|position| position.term), Some(TERM));
    let in_force = tables.iter().filter(|(.., ring)| tables.is_in_force(ring));
    assert_eq!(in_force.map(|(name, ..)| name).collect::<Vec<_>>(), ["s"]);
    assert_eq!(tables.services["t"][&7].position, at);
}

#[test]
fn a_liar_is_not_believed_again_for_having_been_silent_and_takes_no_room() {
    let mut fleet = Fleet::new(Arc::default());
    fleet.beat("liar", 0);
    let mut lie = service("s", 7, &[100.0, 0.0]);
    lie.report.requests = 10_000;
    for _ in 0..4 {
        fleet.report("liar", vec![lie.clone()]);
        fleet.beat("liar", 1);
    }
    (0..3).for_each(|_| _ = fleet.report("liar", vec![lie.clone()]));
    assert_eq!(fleet.report("liar", vec![lie.clone()]).refused, [LoadRefusal::Contradiction]);
    let held = fleet.lessor.loads.held();
    assert_eq!(held, 0);
    (0..60).for_each(|_| _ = fleet.step());
    assert_eq!(fleet.report("liar", vec![lie]).refused, [LoadRefusal::Contradiction]);
}

#[test]
fn services_may_come_in_several_reports_and_one_that_comes_no_more_is_left() {
    let mut fleet = Fleet::new(Arc::default());
    fleet.beat("p", 0);
    let (one, other) = (service("s", 7, &[10.0, 10.0]), service("t", 8, &[10.0, 10.0]));
    let services = |fleet: &Fleet| {
        let seen = fleet.lessor.fleet(&fleet.state, fleet.now).remove(0).loads.unwrap();
        seen.services
    };
    for _ in 0..6 {
        fleet.report("p", vec![one.clone()]);
        fleet.report("p", vec![other.clone()]);
        fleet.step();
    }
    assert_eq!((services(&fleet), fleet.tables().services.len()), (2, 2));
    fleet.run(10, &[("p", one)]);
    assert_eq!(services(&fleet), 1);
}

#[test]
fn of_a_report_that_tells_of_too_much_only_what_is_beyond_is_refused_and_named() {
    let mut fleet = Fleet::new(Arc::default());
    ["p", "q"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    // One proxy may tell of 25 members.
    fleet.lessor.loads.tables_max = (1_000, 100);
    let of = |name: &str, members: usize| service(name, 1, &vec![10.0; members]);
    let told = || vec![of("a", 10), of("b", 10), of("c", 10), of("d", 5), of("e", 1)];
    for _ in 0..10 {
        let answer = fleet.report("p", told());
        assert_eq!(answer.refused, [LoadRefusal::Full; 2]);
        assert_eq!(answer.answer.refused.keys().collect::<Vec<_>>(), ["c", "e"]);
        assert!(answer.answer.refused["c"].contains("25 members at most"), "{:?}", answer.answer);
        fleet.step();
    }
    assert_eq!(fleet.tables().services.keys().collect::<Vec<_>>(), ["a", "b", "d"], "what has room has tables");
    let named = fleet.refused("p").unwrap();
    assert!(named.starts_with("service \"c\"") && named.ends_with("and 1 more"), "{named}");
    // In another order, and in several reports: what has room keeps it.
    for services in [vec![of("e", 1)], vec![of("d", 5), of("c", 10)], vec![of("b", 10), of("a", 10)]] {
        fleet.report("p", services);
    }
    assert_eq!(fleet.report("p", told()).answer.refused.keys().collect::<Vec<_>>(), ["c", "e"]);
    // One that grows is beyond; its room is the others'.
    let answer = fleet.report("p", vec![of("a", 16), of("b", 10), of("c", 10), of("d", 5)]);
    assert_eq!(answer.answer.refused.keys().collect::<Vec<_>>(), ["a"]);
    assert!(fleet.lessor.load_reporters().1, "what is held is added up rightly");
}

#[test]
fn a_proxy_with_another_view_of_a_ring_locks_nobody_out_and_weighs_nothing() {
    let mut fleet = Fleet::new(Arc::default());
    ["odd", "p", "q"].into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    // It is the first to tell of the ring, of a member more.
    let (odd, good) = (service("s", 7, &[1.0, 900.0, 1.0, 1.0]), service("s", 7, &[30.0, 10.0, 10.0]));
    fleet.run(2, &[("odd", odd.clone())]);
    assert_eq!(fleet.report("p", vec![good.clone()]).refused, [LoadRefusal::Members]);
    fleet.report("q", vec![good.clone()]);
    fleet.step();
    for _ in 0..20 {
        assert_eq!(
            fleet.report("odd", vec![odd.clone()]).refused,
            [LoadRefusal::Members],
            "it is one, and they are two"
        );
        fleet.run(1, &[("p", good.clone()), ("q", good.clone())]);
    }
    assert!(fleet.refused("odd").unwrap().contains("by most proxies"));
    let table = fleet.of("s").table;
    assert!(table.shed[0] > 0 && table.shed[1..] == [0, 0], "{table:?}");
    // As many members, of which it says others, and one of which has all the load there is.
    let odd = ServiceLoad { members_digest: 99, ..service("s", 7, &[1.0, 900.0, 1.0]) };
    for _ in 0..20 {
        assert_eq!(fleet.report("odd", vec![odd.clone()]).refused, [LoadRefusal::Members]);
        fleet.run(1, &[("p", good.clone()), ("q", good.clone())]);
    }
    assert_eq!(fleet.of("s").table.shed[1..], [0, 0]);
    // Most come to say so, one after the other: it moves once, after a while, and their loads count.
    let mut moved = 0;
    for step in 0..40 {
        let of_p = fleet.report("p", vec![if step < 2 { good.clone() } else { odd.clone() }]).refused;
        moved += u32::from(step >= 2 && of_p.is_empty());
        fleet.report("q", vec![good.clone()]);
        fleet.report("odd", vec![odd.clone()]);
        fleet.step();
        assert_eq!(of_p.is_empty(), !(2..=10).contains(&step), "{step}: {of_p:?}");
    }
    assert_eq!(moved, 29);
    assert!(fleet.of("s").table.shed[1] > 0);
}

#[test]
fn what_the_topology_has_decides_which_members_a_ring_has_whoever_says_otherwise() {
    let mut fleet = Fleet::new(Arc::default());
    let text = "services:\n  - name: s\n    backends: [ { id: a, address: \"10.0.0.1:1\" } ]\n";
    let document = Object::Document(Text { text: text.into() });
    let ops = vec![
        Op::Put { key: key("document/main"), object: document },
        Op::Put { key: key("backend/s/b"), object: backend(None) },
    ];
    fleet.state.apply(ORIGIN, Command::Txn(txn(ops))).unwrap();
    let names = ["o1", "o2", "o3", "p"];
    names.into_iter().for_each(|proxy| fleet.beat(proxy, 0));
    let odd = service("s", 7, &[10.0, 10.0]);
    let members_digest = ringway_ring::members_digest([("a", 100), ("b", 100)], 0);
    let good = ServiceLoad { members_digest, ..service("s", 7, &[30.0, 10.0]) };
    fleet.run(12, &[("o1", odd.clone()), ("o2", odd.clone()), ("o3", odd.clone())]);
    fleet.report("p", vec![good.clone()]);
    fleet.step();
    for _ in 0..12 {
        for proxy in ["o1", "o2", "o3"] {
            assert_eq!(fleet.report(proxy, vec![odd.clone()]).refused, [LoadRefusal::Members]);
        }
        fleet.run(1, &[("p", good.clone())]);
    }
    assert!(fleet.of("s").table.shed[0] > 0);
}
