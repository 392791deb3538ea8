//! Backends by DNS: A and AAAA records, or SRV records and the addresses of their targets.
//!
//! A host's id stays when it gains an address of the other family, or loses one: under `families: either` it is one backend, whose `address` is
//! the IPv4 one as long as there is one.

use super::seen::Seen;
use crate::state::Backend;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use ringway_config::FleetBackend;
use ringway_config::model::{DnsFamilies, DnsSource};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// For one look-up, all tries included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Targets of SRV records, and addresses, that are believed.
const ANSWERS_MAX: usize = 1000;

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
        Ok(Self { settings, resolver })
    }

    /// What the name stands for now.
    pub(super) async fn look(&mut self) -> Result<Seen, (String, Duration)> {
        let (least, most) = self.settings.interval;
        let found = tokio::time::timeout(TIMEOUT, self.found()).await;
        let failed = |error: String| (format!("{}: {error}", self.settings.name), least.max(Duration::from_secs(1)));
        let (backends, ttl) = found.map_err(|_| failed("no answer".into()))?.map_err(failed)?;
        // Nobody takes a service down by removing its records: an empty answer is far more often a mistake.
        if backends.is_empty() {
            return Err(failed("the answer has no addresses".into()));
        }
        Ok(Seen { backends, again: ttl.clamp(least, most) })
    }

    async fn found(&self) -> Result<(Vec<FleetBackend>, Duration), String> {
        match self.settings.port {
            Some(port) => {
                let (addresses, ttl) = self.addresses(&self.settings.name).await?;
                let backends = self.hosts(addresses).into_iter().map(|host| {
                    // Without brackets, and with another mark before the port: what a name may have.
                    self.backend(format!("{}-{port}", host.ip), host, port, 100, 0)
                });
                Ok((backends.collect(), ttl))
            }
            None => self.services().await,
        }
    }

    /// The addresses of a name, of the families that are asked for.
    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let families = self.settings.families;
        let (v4, v6) = (families != DnsFamilies::V6, families != DnsFamilies::V4);
        let look = async |kind, is_asked: bool| match is_asked {
            true => Some(self.resolver.lookup(name, kind).await),
            false => None,
        };
        let answers: [_; 2] = tokio::join!(look(RecordType::A, v4), look(RecordType::AAAA, v6)).into();
        let mut addresses = Vec::new();
        let mut ttl = Duration::MAX;
        for answer in answers.into_iter().flatten() {
            let answer = match answer {
                Ok(answer) => answer,
                // One of the two kinds may well not be there.
                Err(error) if error.is_no_records_found() => continue,
                // Half an answer would take the other half's backends out.
                Err(error) => return Err(error.to_string()),
            };
            for record in answer.answers().iter().take(ANSWERS_MAX) {
                match record.data {
                    RData::A(address) => addresses.push(IpAddr::from(address.0)),
                    RData::AAAA(address) => addresses.push(IpAddr::from(address.0)),
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

    /// Lets the one host that a name stands for keep the id that it is registered under, `known`, although that was made of an address that it
    /// has no more, or of one that comes second now. Targets of SRV records have names.
    pub(super) fn keep_ids<'a>(&self, found: &mut [FleetBackend], known: impl Iterator<Item = (&'a str, &'a Backend)>) {
        let ([found], DnsFamilies::Either, Some(_)) = (found, self.settings.families, self.settings.port) else {
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
    async fn services(&self) -> Result<(Vec<FleetBackend>, Duration), String> {
        let answer = self.resolver.lookup(self.settings.name.as_str(), RecordType::SRV).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let mut ttl = Duration::MAX;
        let mut targets = Vec::new();
        for record in answer.answers().iter().take(ANSWERS_MAX) {
            if let RData::SRV(service) = &record.data {
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                let target = service.target.to_utf8();
                targets.push((
                    target.trim_end_matches('.').to_lowercase(),
                    service.port,
                    service.weight,
                    service.priority,
                ));
            }
        }
        let mut priorities: Vec<u16> = targets.iter().map(|(_, _, _, priority)| *priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let plain = targets.iter().all(|(_, _, weight, _)| *weight == 0);
        let mut backends = Vec::new();
        for (target, port, weight, priority) in targets {
            let (addresses, short) = self.addresses(&target).await.map_err(|error| format!("{target}: {error}"))?;
            ttl = ttl.min(short);
            let tier = priorities.iter().position(|known| *known == priority).unwrap_or(0).min(7) as u8;
            // Weight 0 among others is "almost nothing", RFC 2782 says; 0 here would be nothing.
            let weight = if plain { 100 } else { u32::from(weight).clamp(1, 1600) };
            // A name with several addresses is one backend for each: the first keeps the plain name.
            for (index, host) in self.hosts(addresses).into_iter().enumerate() {
                let id = if index == 0 { format!("{target}-{port}") } else { format!("{target}-{port}-{}", host.ip) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
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
        let labels = text.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
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
}
