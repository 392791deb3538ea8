//! Backends by DNS: A and AAAA records, or SRV records and the addresses of their targets.
//!
//! A host's id stays when it gains an address of the other family, or loses one: under `families: either` it is one backend, whose `address` is
//! the IPv4 one as long as there is one.

use super::seen::Seen;
use crate::state::Backend;
use futures_util::StreamExt as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use ringway_config::FleetBackend;
use ringway_config::model::{DnsFamilies, DnsSource};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// For one look-up, all tries included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Targets of SRV records that are looked up at once.
const LOOKS_MAX: usize = 32;
/// Backends that a name may stand for: those that a service may have.
const BACKENDS_MAX: usize = 65_535;

/// A record of SRV, as far as it says where a backend is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    name: String,
    port: u16,
    priority: u16,
    /// The heaviest first.
    weight: std::cmp::Reverse<u16>,
}

/// One backend's addresses.
struct Host {
    ip: IpAddr,
    /// Of the other family.
    more: Option<IpAddr>,
}

/// A name, and which servers are asked.
pub(super) struct Names {
    settings: DnsSource,
    resolver: TokioResolver,
    /// What was last told of records that say nothing usable.
    told: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(settings: DnsSource) -> Result<Self, String> {
        let mut builder = if settings.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| format!("the system's name servers: {error}"))?
        } else {
            let servers = settings.servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // The time to live is what the next look is timed by: a cache on top would only hide changes.
        options.cache_size = 0;
        options.timeout = TIMEOUT / 3;
        options.attempts = 2;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { settings, resolver, told: BTreeSet::new() })
    }

    /// What the name stands for now.
    pub(super) async fn look(&mut self) -> Result<Seen, (String, Duration)> {
        let (least, most) = self.settings.interval;
        let mut unusable = BTreeSet::new();
        let found = self.found(&mut unusable).await;
        let failed = |error: String| (format!("{}: {error}", self.settings.name), least.max(Duration::from_secs(1)));
        let (backends, ttl) = found.map_err(failed)?;
        // Nobody takes a service down by removing its records: an empty answer is far more often a mistake.
        if backends.is_empty() {
            let why = unusable.first().map(|first| format!(" that can be used: {first}")).unwrap_or_default();
            return Err(failed(format!("the answer has no addresses{why}")));
        }
        if backends.len() > BACKENDS_MAX {
            let count = backends.len();
            return Err(failed(format!("it stands for {count} backends, and a service may have {BACKENDS_MAX}")));
        }
        if unusable != self.told {
            for one in unusable.difference(&self.told) {
                tracing::warn!(name = self.settings.name, "a record is passed over: {one}");
            }
            self.told = unusable;
        }
        Ok(Seen { backends, again: ttl.clamp(least, most) })
    }

    async fn found(&self, unusable: &mut BTreeSet<String>) -> Result<(Vec<FleetBackend>, Duration), String> {
        match self.settings.port {
            Some(port) => {
                let (addresses, ttl) = self.addresses(&self.settings.name).await?;
                let addresses = usable(addresses, &self.settings.name, unusable);
                let backends = self.hosts(addresses).into_iter().map(|host| {
                    // Without brackets, and with another mark before the port: what a name may have.
                    self.backend(format!("{}-{port}", host.ip), host, port, 100, 0)
                });
                Ok((backends.collect(), ttl))
            }
            None => self.services(unusable).await,
        }
    }

    /// The addresses of a name, of the families that are asked for.
    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let families = self.settings.families;
        let (v4, v6) = (families != DnsFamilies::V6, families != DnsFamilies::V4);
        let look = async |kind, is_asked: bool| match is_asked {
            true => Some(tokio::time::timeout(TIMEOUT, self.resolver.lookup(name, kind)).await),
            false => None,
        };
        let answers: [_; 2] = tokio::join!(look(RecordType::A, v4), look(RecordType::AAAA, v6)).into();
        let mut addresses = Vec::new();
        let mut ttl = Duration::MAX;
        for answer in answers.into_iter().flatten() {
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                // One of the two kinds may well not be there.
                Ok(Err(error)) if error.is_no_records_found() => continue,
                // Half an answer would take the other half's backends out.
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no answer".to_owned()),
            };
            for record in answer.answers() {
                match record.data {
                    RData::A(address) => addresses.push(IpAddr::from(address.0)),
                    RData::AAAA(address) => addresses.push(IpAddr::from(address.0).to_canonical()),
                    // On the way: aliases.
                    _ => {}
                }
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok((addresses, ttl))
    }

    /// What stands behind a name's addresses, which are sorted: those of IPv4 come first.
    fn hosts(&self, addresses: Vec<IpAddr>) -> Vec<Host> {
        match (self.settings.families, &*addresses) {
            (DnsFamilies::Either, &[ip @ IpAddr::V4(_), more @ IpAddr::V6(_)]) => vec![Host { ip, more: Some(more) }],
            _ => addresses.into_iter().map(|ip| Host { ip, more: None }).collect(),
        }
    }

    /// Lets hosts keep the ids that they are registered under, `known`, where these depend on what else is there: the one host of a name of
    /// both families, although its id was made of an address that it has no more, or of one that comes second now; and of a target of SRV
    /// records with several addresses the one that has the plain name, whatever comes before it by now.
    pub(super) fn keep_ids<'a>(&self, found: &mut [FleetBackend], known: impl Iterator<Item = (&'a str, &'a Backend)>) {
        if self.settings.port.is_none() {
            return keep_plain_ids(found, &known.collect());
        }
        let ([found], DnsFamilies::Either) = (found, self.settings.families) else {
            return;
        };
        let has = |address: &str| found.address == address || found.additional_address.as_deref() == Some(address);
        let same =
            known.filter(|(_, known)| has(&known.address) || known.additional_address.as_deref().is_some_and(has));
        let ids: Vec<&str> = same.map(|(id, _)| id).collect();
        if let Some(id) = ids.first().filter(|_| !ids.contains(&found.id.as_str())) {
            found.id = (*id).to_owned();
        }
    }

    /// Source: RFC 2782. Priorities become tiers, in their order; weights stay, without exceeding what a weight may be.
    async fn services(&self, unusable: &mut BTreeSet<String>) -> Result<(Vec<FleetBackend>, Duration), String> {
        let answer = tokio::time::timeout(TIMEOUT, self.resolver.lookup(self.settings.name.as_str(), RecordType::SRV));
        let answer = answer.await.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        let mut ttl = Duration::MAX;
        let mut targets = Vec::new();
        for record in answer.answers() {
            if let RData::SRV(service) = &record.data {
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                let name = service.target.to_utf8().trim_end_matches('.').to_lowercase();
                let (port, priority) = (service.port, service.priority);
                match name.as_str() {
                    "" => drop(unusable.insert("its target is `.`: there is no such service".to_owned())),
                    _ if port == 0 => drop(unusable.insert(format!("{name} has the port 0"))),
                    _ => targets.push(Target { name, port, priority, weight: std::cmp::Reverse(service.weight) }),
                }
            }
        }
        // The same one several times is one, as the most important of them says, in whatever order they come.
        targets.sort_unstable();
        targets.dedup_by(|next, first| (&next.name, next.port) == (&first.name, first.port));
        let mut priorities: Vec<u16> = targets.iter().map(|target| target.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let plain = targets.iter().all(|target| target.weight.0 == 0);
        let looks = targets.into_iter().map(async |target| {
            let found = self.addresses(&target.name).await;
            found.map_err(|error| format!("{}: {error}", target.name)).map(|found| (target, found))
        });
        let mut looks = futures_util::stream::iter(looks).buffered(LOOKS_MAX);
        let mut backends = Vec::new();
        while let Some(found) = looks.next().await {
            let (Target { name, port, priority, weight }, (addresses, short)) = found?;
            let addresses = usable(addresses, &name, unusable);
            ttl = ttl.min(short);
            let tier = priorities.iter().position(|known| *known == priority).unwrap_or(0).min(7) as u8;
            // Weight 0 among others is "almost nothing", RFC 2782 says; 0 here would be nothing.
            let weight = if plain { 100 } else { u32::from(weight.0).clamp(1, 1600) };
            // A name with several addresses is one backend for each: the first keeps the plain name.
            for (index, host) in self.hosts(addresses).into_iter().enumerate() {
                let id = if index == 0 { format!("{name}-{port}") } else { format!("{name}-{port}-{}", host.ip) };
                backends.push(self.backend(id, host, port, weight, tier));
            }
        }
        Ok((backends, ttl))
    }

    fn backend(&self, id: String, host: Host, port: u16, weight: u32, tier: u8) -> FleetBackend {
        FleetBackend {
            service: self.settings.service.clone(),
            id,
            address: SocketAddr::new(host.ip, port).to_string(),
            additional_address: host.more.map(|more| SocketAddr::new(more, port).to_string()),
            weight,
            tier,
            zone: None,
            drain: false,
            maintenance: false,
        }
    }
}

/// Addresses that a connection can go to.
fn usable(mut addresses: Vec<IpAddr>, name: &str, unusable: &mut BTreeSet<String>) -> Vec<IpAddr> {
    addresses.retain(|ip| {
        let is_one = !ip.is_unspecified() && !ip.is_multicast() && *ip != IpAddr::V4(Ipv4Addr::BROADCAST);
        if !is_one {
            unusable.insert(format!("{name} has the address {ip}, which is no host's"));
        }
        is_one
    });
    addresses
}

/// Among the addresses of each target: who is registered under the plain name goes on with it. Where that one has gone, one takes it that has
/// no id of its own yet, or nobody: an id does not go from one host to another.
fn keep_plain_ids(found: &mut [FleetBackend], known: &HashMap<&str, &Backend>) {
    let mut begin = 0;
    while begin < found.len() {
        let plain = found[begin].id.clone();
        let is_of_it = |other: &FleetBackend| other.id.strip_prefix(&plain).is_some_and(|rest| rest.starts_with('-'));
        let end = begin + 1 + found[begin + 1..].iter().take_while(|other| is_of_it(other)).count();
        let group = &mut found[begin..end];
        begin = end;
        if group.len() == 1 {
            continue;
        }
        let own = |one: &FleetBackend| {
            let ip = one.address.parse::<SocketAddr>().map_or_else(|_| one.address.clone(), |at| at.ip().to_string());
            format!("{plain}-{ip}")
        };
        let holder =
            known.get(plain.as_str()).and_then(|known| group.iter().position(|one| one.address == known.address));
        let free = || group.iter().position(|one| !known.contains_key(own(one).as_str()));
        let holder = holder.or_else(free);
        for (index, one) in group.iter_mut().enumerate() {
            one.id = if Some(index) == holder { plain.clone() } else { own(one) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use tokio::net::UdpSocket;

    const A: u16 = 1;
    const AAAA: u16 = 28;
    const SRV: u16 = 33;
    const SERVFAIL: u8 = 2;

    /// What a name server says, by name and kind; what it does not know, it has no records of. `None`: it fails.
    type Zone = Arc<Mutex<BTreeMap<(&'static str, u16), Option<Vec<Vec<u8>>>>>>;

    fn address(text: &str) -> Vec<u8> {
        match text.parse().unwrap() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    fn name(text: &str) -> Vec<u8> {
        let labels = text
            .split('.')
            .filter(|label| !label.is_empty())
            .flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    /// A name server, as far as one question needs it (RFC 1035, section 4).
    async fn serve(socket: UdpSocket, zone: Zone) {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes).await {
            let question = &bytes[12..count];
            let (mut asked, mut at) = (Vec::new(), 0);
            while question[at] != 0 {
                let end = at + 1 + usize::from(question[at]);
                asked.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
                at = end;
            }
            let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
            let known = zone.lock().unwrap().clone();
            let found = known.into_iter().find(|((name, of), _)| *name == asked.join(".") && *of == kind);
            let (code, records) = match found {
                Some((_, None)) => (SERVFAIL, Vec::new()),
                Some((_, Some(records))) => (0, records),
                None => (0, Vec::new()),
            };
            let mut answer = [&bytes[..2], &[0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
            answer.extend_from_slice(&question[..at + 5]);
            for data in records {
                answer.extend_from_slice(&[0xc0, 12]);
                answer.extend_from_slice(&kind.to_be_bytes());
                answer.extend_from_slice(&[0, 1, 0, 0, 0, 7, 0, data.len() as u8]);
                answer.extend_from_slice(&data);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    /// The zone of a new name server, and where that is.
    async fn server() -> (Zone, SocketAddr) {
        let (zone, socket) = (Zone::default(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let at = socket.local_addr().unwrap();
        tokio::spawn(serve(socket, Arc::clone(&zone)));
        (zone, at)
    }

    fn names(server: SocketAddr, families: DnsFamilies, port: Option<u16>) -> Names {
        let name = if port.is_some() { "host.test." } else { "_http._tcp.srv.test." };
        let interval = (Duration::from_secs(1), Duration::from_secs(30));
        let (service, name) = ("s".to_owned(), name.to_owned());
        Names::new(DnsSource { service, name, port, families, servers: vec![server], interval }).unwrap()
    }

    /// Each backend as `id address [additional address]`, or the failure as `-`.
    async fn seen(names: &mut Names) -> Vec<String> {
        let Ok(seen) = names.look().await else { return vec!["-".to_owned()] };
        let shown = |backend: FleetBackend| {
            let texts = [Some(backend.id), Some(backend.address), backend.additional_address];
            texts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        seen.backends.into_iter().map(shown).collect()
    }

    fn set(zone: &Zone, v4: Option<&[&str]>, v6: Option<&[&str]>) {
        let records = |list: &[&str]| list.iter().map(|text| address(text)).collect();
        let mut zone = zone.lock().unwrap();
        zone.insert(("host.test", A), v4.map(records));
        zone.insert(("host.test", AAAA), v6.map(records));
    }

    #[tokio::test]
    async fn a_host_of_both_families_is_one_backend_or_two_and_half_an_answer_is_none() {
        use DnsFamilies::{All, Either, V4, V6};
        let (zone, server) = server().await;
        let target = [&[0, 10, 0, 30, 0, 80][..], &name("host.test")].concat();
        zone.lock().unwrap().insert(("_http._tcp.srv.test", SRV), Some(vec![target]));
        let (one, six) = ("10.0.0.1", "fd00::1");
        let (both, alone) = ("host.test-80 10.0.0.1:80 [fd00::1]:80", "host.test-80 10.0.0.1:80");
        let second = "host.test-80-fd00::1 [fd00::1]:80";
        for (v4, v6, families, expected) in [
            (Some(&[one][..]), Some(&[six][..]), All, vec![alone, second]),
            (Some(&[one]), Some(&[six]), Either, vec![both]),
            (Some(&[one]), Some(&[six]), V4, vec![alone]),
            (Some(&[one]), Some(&[six]), V6, vec!["host.test-80 [fd00::1]:80"]),
            // A host that has gained its second address, or lost one: the same id.
            (Some(&[one]), Some(&[]), Either, vec![alone]),
            (Some(&[]), Some(&[six]), Either, vec!["host.test-80 [fd00::1]:80"]),
            (Some(&[one, "10.0.0.2"]), Some(&[six]), Either, vec![alone, "host.test-80-10.0.0.2 10.0.0.2:80", second]),
            // One kind fails.
            (Some(&[one]), None, All, vec!["-"]),
            (Some(&[one]), None, Either, vec!["-"]),
            (None, Some(&[six]), Either, vec!["-"]),
            (Some(&[one]), None, V4, vec![alone]),
            (None, Some(&[six]), V6, vec!["host.test-80 [fd00::1]:80"]),
            (Some(&[one]), None, V6, vec!["-"]),
            (Some(&[one]), Some(&[]), V6, vec!["-"]),
        ] {
            set(&zone, v4, v6);
            assert_eq!(seen(&mut names(server, families, None)).await, expected, "{families:?} of {v4:?}, {v6:?}");
        }
    }

    fn registered(id: &str, address: &str, more: Option<&str>) -> (String, Backend) {
        let text = serde_json::json!({ "address": address, "additional_address": more, "source": "s" });
        (id.to_owned(), serde_json::from_value(text).unwrap())
    }

    #[tokio::test]
    async fn the_one_host_of_a_name_keeps_the_id_that_it_is_registered_under() {
        let (zone, server) = server().await;
        let (one, six) = ("10.0.0.1-80", "fd00::1-80");
        let [only_four, only_six, both] =
            [(one, "10.0.0.1:80", None), (six, "[fd00::1]:80", None), (one, "10.0.0.1:80", Some("[fd00::1]:80"))];
        let as_six = (six, "10.0.0.1:80", Some("[fd00::1]:80"));
        for (families, known, v4, v6, expected) in [
            (DnsFamilies::Either, vec![], true, true, one),
            (DnsFamilies::Either, vec![only_four], true, true, one),
            (DnsFamilies::Either, vec![only_six], true, true, six),
            (DnsFamilies::Either, vec![as_six], true, false, six),
            (DnsFamilies::Either, vec![as_six], false, true, six),
            (DnsFamilies::Either, vec![both], false, true, one),
            // Both were there, each a backend: the first goes on.
            (DnsFamilies::Either, vec![only_four, only_six], true, true, one),
            (DnsFamilies::Either, vec![("10.0.0.9-80", "10.0.0.9:80", None)], true, true, one),
            (DnsFamilies::All, vec![both], false, true, six),
        ] {
            let list = |has: bool, text: &'static str| if has { vec![text] } else { Vec::new() };
            set(&zone, Some(&list(v4, "10.0.0.1")), Some(&list(v6, "fd00::1")));
            let mut names = names(server, families, Some(80));
            let known: Vec<_> = known.into_iter().map(|(id, address, more)| registered(id, address, more)).collect();
            let mut found = names.look().await.unwrap_or_else(|(error, _)| panic!("{error}")).backends;
            names.keep_ids(&mut found, known.iter().map(|(id, backend)| (id.as_str(), backend)));
            assert_eq!(found[0].id, expected, "{families:?} {known:?}, {v4} {v6}");
        }
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
        let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
        [&numbers[..], &name(target)].concat()
    }

    #[tokio::test]
    async fn records_that_say_nothing_usable_are_passed_over_and_the_same_one_twice_is_one() {
        let (zone, server) = server().await;
        set(
            &zone,
            Some(&["10.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]),
            Some(&["::", "ff02::1", "::ffff:10.0.0.1"]),
        );
        let mut names = names(server, DnsFamilies::All, None);
        let services =
            |records: Vec<Vec<u8>>| drop(zone.lock().unwrap().insert(("_http._tcp.srv.test", SRV), Some(records)));
        let (heavy, light, other) =
            (srv(0, 50, 80, "host.test"), srv(0, 7, 80, "host.test"), srv(3, 1, 0, "host.test"));
        for records in [vec![heavy.clone(), light.clone(), other.clone()], vec![light, other, srv(0, 0, 80, ""), heavy]]
        {
            services(records);
            let found = names.look().await.unwrap_or_else(|(error, _)| panic!("{error}")).backends;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((&*found[0].id, &*found[0].address, found[0].weight), ("host.test-80", "10.0.0.1:80", 50));
        }
        services(vec![srv(0, 0, 0, "")]);
        let (error, _) = names.look().await.err().unwrap();
        assert!(error.contains("no addresses that can be used") && error.contains("no such service"), "{error}");
    }

    #[tokio::test]
    async fn more_targets_are_looked_up_than_go_one_after_the_other_in_the_time_of_one() {
        let (zone, socket) = (Zone::default(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let at = socket.local_addr().unwrap();
        tokio::spawn(serve_slowly(socket, Arc::clone(&zone)));
        const NAMES: [&str; 40] = [
            "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7",
            "b8", "b9", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "d0", "d1", "d2", "d3", "d4", "d5",
            "d6", "d7", "d8", "d9",
        ];
        let records = NAMES.iter().take(20).map(|name| srv(0, 0, 80, name)).collect();
        zone.lock().unwrap().insert(("_http._tcp.srv.test", SRV), Some(records));
        for (number, name) in NAMES.into_iter().enumerate() {
            zone.lock().unwrap().insert((name, A), Some(vec![address(&format!("10.0.1.{number}"))]));
        }
        // Twenty, each of which takes a fifth of the time that one may take.
        let mut names = names(at, DnsFamilies::V4, None);
        let found = names.look().await.unwrap_or_else(|(error, _)| panic!("{error}")).backends;
        assert_eq!(found.len(), 20);
    }

    /// Each answer comes after a fifth of the time that one may take; many questions are answered at once.
    async fn serve_slowly(socket: UdpSocket, zone: Zone) {
        let socket = Arc::new(socket);
        let behind = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = behind.local_addr().unwrap();
        tokio::spawn(serve(behind, zone));
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes).await {
            let (question, socket) = (bytes[..count].to_vec(), Arc::clone(&socket));
            tokio::spawn(async move {
                tokio::time::sleep(TIMEOUT / 5).await;
                let asking = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                asking.send_to(&question, at).await.unwrap();
                let mut answer = [0; 2048];
                let (count, _) = asking.recv_from(&mut answer).await.unwrap();
                let _ = socket.send_to(&answer[..count], from).await;
            });
        }
    }

    #[tokio::test]
    async fn an_id_of_a_target_stays_with_its_host_whoever_comes_and_goes_beside_it() {
        let (zone, server) = server().await;
        zone.lock().unwrap().insert(("_http._tcp.srv.test", SRV), Some(vec![srv(0, 0, 80, "host.test")]));
        let mut names = names(server, DnsFamilies::V4, None);
        let mut known: Vec<(String, Backend)> = Vec::new();
        let own = |last: u8| format!("host.test-80-10.0.0.{last}");
        let plain = || "host.test-80".to_owned();
        for (hosts, expected) in [
            (&[5, 6][..], vec![plain(), own(6)]),
            // One joins that comes first.
            (&[4, 5, 6], vec![own(4), plain(), own(6)]),
            (&[5, 6], vec![plain(), own(6)]),
            // Whoever had the plain name has gone: those who are there keep theirs.
            (&[4, 6], vec![plain(), own(6)]),
            (&[4, 6, 7], vec![plain(), own(6), own(7)]),
            (&[6, 7], vec![own(6), own(7)]),
            (&[3, 6, 7], vec![plain(), own(6), own(7)]),
        ] {
            let texts: Vec<String> = hosts.iter().map(|last| format!("10.0.0.{last}")).collect();
            set(&zone, Some(&texts.iter().map(String::as_str).collect::<Vec<_>>()), Some(&[]));
            let mut found = names.look().await.unwrap_or_else(|(error, _)| panic!("{error}")).backends;
            names.keep_ids(&mut found, known.iter().map(|(id, backend)| (id.as_str(), backend)));
            let ids: Vec<String> = found.iter().map(|found| found.id.clone()).collect();
            assert_eq!(ids, expected, "{hosts:?}");
            known = found.iter().map(|found| registered(&found.id, &found.address, None)).collect();
        }
    }
}
