//! The control plane's sections.

mod etcd;
mod parts;

use super::text::{additional_address, address, name, unique};
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::model;
use crate::schema::{self, RoleName, TimingName};
use parts::{identity, member_url, path};
use std::net::SocketAddr;

/// What an admin's token and what a key's holder can do are the same thing: both are read from files.
pub(super) fn control(root: &schema::Root, findings: &mut Findings) -> Option<model::Control> {
    let at = root.control.as_ref()?;
    let section = &at.value;
    let members: Vec<model::MemberUrl> =
        section.members.value.iter().filter_map(|member| member_url(member, "a member", 9700, findings)).collect();
    if section.embedded.value && section.member.is_none() {
        // All of a member's fields have defaults.
        findings.error(
            section.embedded.place,
            "no_member",
            "a member is embedded, and nothing says how",
            "add `member: {}`, which listens on 127.0.0.1:9700",
        );
    }
    let tls = &section.tls.value;
    let identity = identity(tls, findings);
    findings.names_file(section.token_file.as_ref(), FileUse::Secret, Need::Control);
    let directory = nonempty_path(&section.directory, findings);
    let etcd = section.etcd.as_ref().map(|at| etcd::store(section, at, findings));
    let member = section.member.as_ref().and_then(|at| member(&at.value, findings));
    Some(model::Control {
        members,
        embedded: section.embedded.value,
        proxy: section.proxy.as_ref().map(|at| {
            name(at, "a proxy's name", findings);
            at.value.clone()
        }),
        directory,
        token_file: path(&section.token_file),
        ca: path(&tls.ca),
        identity,
        server_name: tls.name.as_ref().map(|at| at.value.clone()),
        etcd,
        member,
    })
}

fn nonempty_path(at: &At<String>, findings: &mut Findings) -> std::path::PathBuf {
    if at.value.is_empty() {
        findings.error(at.place, "bad_path", "the path is empty", "write a directory, for example `/var/lib/ringway`");
    }
    at.value.clone().into()
}

fn member(section: &schema::MemberSection, findings: &mut Findings) -> Option<model::Member> {
    name(&section.name, "a member's name", findings);
    let api = address(&section.address, findings);
    let peers = address(&section.peer_address, findings);
    if let (Some(api), Some(peers)) = (api, peers)
        && api == peers
        && api.port() != 0
    {
        findings.error(
            section.peer_address.place,
            "duplicate_address",
            format!("{peers} is already the address of the API"),
            "give members a port of their own",
        );
    }
    exposed(&section.peer_address, peers, section.peer_tls.is_some(), "peer_tls", "members", findings);
    exposed(&section.address, api, section.tls.is_some(), "tls", "the API", findings);
    unique(section.tokens.value.iter().map(|token| &token.value.name), "token", findings);
    unique(section.clients.value.iter().map(|client| &client.value.name), "client", findings);
    member_files(section, findings);
    let (api, peers) = (api?, peers?);
    let advertised = advertise(&section.advertise, api, findings);
    let peer_advertised = advertise(&section.peer_advertise, peers, findings);
    can_be_found(section, api, peers, findings);
    Some(model::Member {
        name: section.name.value.clone(),
        directory: nonempty_path(&section.directory, findings),
        address: api,
        peer_address: peers,
        advertise: advertised?,
        peer_advertise: peer_advertised?,
        tls: section.tls.as_ref().map(|at| model::MemberTls {
            certificate: at.value.certificate.value.clone().into(),
            key: at.value.key.value.clone().into(),
            ca: at.value.client_ca.as_ref().map(|ca| ca.value.clone().into()),
        }),
        peer_tls: section.peer_tls.as_ref().map(|at| model::MemberTls {
            certificate: at.value.certificate.value.clone().into(),
            key: at.value.key.value.clone().into(),
            ca: Some(at.value.ca.value.clone().into()),
        }),
        wan: section.timing.value == TimingName::Wan,
        tokens: token_files(section),
        clients: section
            .clients
            .value
            .iter()
            .map(|client| (client.value.name.value.clone(), role(client.value.role.value)))
            .collect(),
        anonymous: section.anonymous.as_ref().map(|at| role(at.value)),
        audit_log: section.audit_log.as_ref().map(|at| at.value.clone().into()),
        backups: section.backups.as_ref().map(|at| at.value.clone().into()),
        loss_percent: u8::try_from(section.guards.value.loss_percent.value.0).unwrap_or(100),
        proxy_forget: section.proxy_forget.value,
        sources: sources(section, findings),
    })
}

/// Under which address others find the member: what is given, or its own.
fn advertise(given: &Option<At<String>>, own: SocketAddr, findings: &mut Findings) -> Option<String> {
    let Some(at) = given else { return Some(own.to_string()) };
    let has_both = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    if at.value.rsplit_once(':').is_some_and(has_both) {
        return Some(at.value.clone());
    }
    findings.error(
        at.place,
        "bad_address",
        format!("`{}` is not a host and a port", at.value),
        "write it as `\"control-1.example.com:9700\"`",
    );
    None
}

/// A member that listens on every address must say which one others are to use.
fn can_be_found(section: &schema::MemberSection, api: SocketAddr, peers: SocketAddr, findings: &mut Findings) {
    for (given, own) in [(&section.advertise, api), (&section.peer_advertise, peers)] {
        if given.is_none() && own.ip().is_unspecified() {
            findings.error(
                section.place,
                "no_advertise",
                format!("nobody can be told to connect to {own}"),
                "add `advertise` and `peer_advertise`: the addresses under which others find this member",
            );
            break;
        }
    }
}

/// The tokens that the API takes, with the roles they give.
fn token_files(section: &schema::MemberSection) -> Vec<model::TokenFile> {
    let tokens = section.tokens.value.iter().map(|token| model::TokenFile {
        name: token.value.name.value.clone(),
        role: role(token.value.role.value),
        file: token.value.file.value.clone().into(),
    });
    tokens.collect()
}

fn member_files(section: &schema::MemberSection, findings: &mut Findings) {
    if let Some(at) = &section.tls {
        findings.names_pair(&at.value.certificate, &at.value.key, Need::Control);
        findings.names_file(at.value.client_ca.as_ref(), FileUse::Authorities, Need::Control);
    }
    if let Some(at) = &section.peer_tls {
        findings.names_pair(&at.value.certificate, &at.value.key, Need::Control);
        findings.names_file(Some(&at.value.ca), FileUse::Authorities, Need::Control);
    }
    for token in section.tokens.value.iter() {
        findings.names_file(Some(&token.value.file), FileUse::Secret, Need::Control);
    }
    findings.names_file(section.audit_log.as_ref(), FileUse::Log, Need::Control);
}

fn sources(section: &schema::MemberSection, findings: &mut Findings) -> Vec<model::Source> {
    let list = &section.sources.value;
    unique(list.iter().map(|source| &source.value.name), "source", findings);
    let mut sources = Vec::new();
    for at in list.iter() {
        let source = &at.value;
        name(&source.name, "a source's name", findings);
        let kind = match (&source.dns, &source.directory, &source.etcd) {
            (Some(dns), None, None) => dns_source(&dns.value, findings).map(model::SourceKind::Dns),
            (None, Some(directory), None) => {
                Some(model::SourceKind::Directory(nonempty_path(&directory.value.path, findings)))
            }
            (None, None, Some(keys)) => Some(model::SourceKind::Etcd(etcd::source(&keys.value, findings))),
            (None, None, None) if findings.is_lost(at.place) => None,
            (dns, directory, keys) => {
                let count = [dns.is_some(), directory.is_some(), keys.is_some()].into_iter().filter(|has| *has).count();
                findings.error(
                    at.place,
                    "source_kind",
                    format!(
                        "source {:?} has {}",
                        source.name.value,
                        ["no kind", "one kind", "two kinds", "three kinds"][count]
                    ),
                    "give exactly one of `dns`, `directory` and `etcd`",
                );
                None
            }
        };
        sources.extend(kind.map(|kind| model::Source { name: source.name.value.clone(), kind }));
    }
    sources
}

fn dns_source(section: &schema::DnsSourceSection, findings: &mut Findings) -> Option<model::DnsSource> {
    name(&section.service, "a service's name", findings);
    name(&section.name, "a DNS name", findings);
    let port = section.port.as_ref().map(|at| at.value.0 as u16);
    match (section.record.value, &section.port) {
        (schema::DnsRecordName::A, None) => findings.error(
            section.record.place,
            "no_port",
            "addresses have no ports",
            "add `port: 8080`, or write `record: srv`",
        ),
        (schema::DnsRecordName::Srv, Some(at)) => {
            findings.error(at.place, "unused_port", "SRV records have ports of their own", "remove `port`");
        }
        _ => {}
    }
    let servers = section.servers.value.iter().filter_map(|at| address(at, findings)).collect();
    super::text::nonzero(&section.interval_min, "interval_min", findings);
    if section.interval_max.value < section.interval_min.value {
        findings.error(
            section.interval_max.place,
            "out_of_range",
            "interval_max is shorter than interval_min",
            "make it as long, or longer",
        );
    }
    Some(model::DnsSource {
        service: section.service.value.clone(),
        name: section.name.value.clone(),
        port,
        families: families(section),
        servers,
        interval: (section.interval_min.value, section.interval_max.value),
    })
}

/// A target of SRV records is a host, which has one address of each family; addresses of A and AAAA records may be anybody's.
fn families(section: &schema::DnsSourceSection) -> model::DnsFamilies {
    use schema::DnsFamiliesName as Name;
    match (section.families.as_ref().map(|at| at.value), section.record.value) {
        (Some(Name::All), _) | (None, schema::DnsRecordName::A) => model::DnsFamilies::All,
        (Some(Name::Either), _) | (None, schema::DnsRecordName::Srv) => model::DnsFamilies::Either,
        (Some(Name::V4), _) => model::DnsFamilies::V4,
        (Some(Name::V6), _) => model::DnsFamilies::V6,
    }
}

/// A file of a directory source.
pub(crate) fn file_backends(
    list: &crate::decode::List<schema::FileBackendSection>,
    findings: &mut Findings,
) -> Vec<crate::FleetBackend> {
    let mut seen = std::collections::HashSet::new();
    let mut backends = Vec::new();
    for at in list.iter() {
        let section = &at.value;
        name(&section.service, "a service's name", findings);
        name(&section.id, "a backend's id", findings);
        if !seen.insert((&section.service.value, &section.id.value)) {
            findings.error(
                section.id.place,
                "duplicate_id",
                format!("backend {:?} of {:?} is in the file twice", section.id.value, section.service.value),
                "remove one",
            );
        }
        let more = additional_address(&section.address, section.additional_address.as_ref(), findings);
        let Some(address) = address(&section.address, findings) else { continue };
        backends.push(crate::FleetBackend {
            service: section.service.value.clone(),
            id: section.id.value.clone(),
            address: address.to_string(),
            additional_address: more.map(|more| more.to_string()),
            weight: section.weight.value.0 as u32,
            tier: section.tier.value.0 as u8,
            zone: section.zone.as_ref().map(|at| at.value.clone()),
            drain: section.drain.value,
            maintenance: section.maintenance.value,
        });
    }
    backends
}

fn role(name: RoleName) -> model::Role {
    match name {
        RoleName::Read => model::Role::Read,
        RoleName::Register => model::Role::Register,
        RoleName::Operate => model::Role::Operate,
        RoleName::Admin => model::Role::Admin,
    }
}

/// The log and the keys of a fleet in the clear, on a network.
fn exposed(at: &At<String>, address: Option<SocketAddr>, tls: bool, field: &str, what: &str, findings: &mut Findings) {
    if !tls && address.is_some_and(|address| !address.ip().is_loopback()) {
        findings.error(
            at.place,
            "control_exposed",
            format!("{what} would speak in the clear on {}", at.value),
            format!("add `{field}`, or listen on a loopback address"),
        );
    }
}
