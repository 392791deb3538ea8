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
