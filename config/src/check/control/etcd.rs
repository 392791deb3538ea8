//! etcd as the store of the topology, and as a source of backends.

use super::parts::{identity, member_url, path};
use crate::check::text::name;
use crate::decode::List;
use crate::diagnostic::At;
use crate::files::{FileUse, Need};
use crate::findings::Findings;
use crate::{model, schema};

/// Where the topology is, for a proxy that has no members.
pub(super) fn store(
    control: &schema::ControlSection,
    at: &At<schema::EtcdSection>,
    findings: &mut Findings,
) -> model::Etcd {
    let members = control.members.value.iter().next().map(|first| first.place);
    if let Some(place) = members.or(Some(control.embedded.place).filter(|_| control.embedded.value)) {
        let what = if members.is_some() { "members" } else { "embedded" };
        findings.error(
            place,
            "two_stores",
            format!("the topology is pulled from `etcd`, and from `{what}`"),
            format!("remove `{what}`, or the section `etcd`: a proxy follows one of the two"),
        );
    }
    let section = &at.value;
    let prefix = prefix(&section.prefix, findings);
    connection(&section.endpoints, prefix, (&section.username, &section.password_file), &section.tls, findings)
}

/// Keys that are backends.
pub(super) fn source(section: &schema::EtcdSourceSection, findings: &mut Findings) -> model::EtcdSource {
    name(&section.service, "a service's name", findings);
    let prefix = prefix(&section.prefix, findings);
    let login = (&section.username, &section.password_file);
    let etcd = connection(&section.endpoints, prefix, login, &section.tls, findings);
    model::EtcdSource { service: section.service.value.clone(), etcd }
}

fn connection(
    endpoints: &At<List<String>>,
    prefix: String,
    (username, password): (&Option<At<String>>, &Option<At<String>>),
    tls: &At<schema::ControlTlsSection>,
    findings: &mut Findings,
) -> model::Etcd {
    if endpoints.value.iter().next().is_none() && !endpoints.value.lost {
        findings.error(
            endpoints.place,
            "no_endpoints",
            "no address of etcd is given",
            "write for example `endpoints: [ \"https://10.0.0.1:2379\" ]`",
        );
    }
    let login = match (username, password) {
        (Some(name), Some(file)) => {
            findings.names_file(Some(file), FileUse::Secret, Need::Control);
            Some((name.value.clone(), file.value.clone().into()))
        }
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            findings.error(
                one.place,
                "half_a_login",
                "`username` and `password_file` go together",
                "write both, or neither",
            );
            None
        }
    };
    let mut urls = Vec::new();
    for at in endpoints.value.iter() {
        let Some(url) = member_url(at, "etcd", 2379, findings) else { continue };
        clear(at, &url, findings);
        urls.push(url);
    }
    model::Etcd {
        endpoints: urls,
        prefix,
        login,
        ca: path(&tls.value.ca),
        identity: identity(&tls.value, findings),
        server_name: tls.value.name.as_ref().map(|at| at.value.clone()),
    }
}

/// Keys of certificates and passwords on a network that may be everybody's. Many run etcd so, on a network of its own:
/// that it is theirs to know cannot be told from here.
fn clear(at: &At<String>, url: &model::MemberUrl, findings: &mut Findings) {
    let loopback =
        url.host == "localhost" || url.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if !url.tls && !loopback {
        findings.warning(
            at.place,
            "etcd_in_the_clear",
            format!("passwords and private keys go to {url} as they are, for all on the way to read"),
            "write `https://`, with `tls: { ca: FILE }`",
        );
    }
}

fn prefix(at: &At<String>, findings: &mut Findings) -> String {
    let text = &at.value;
    if text.len() < 2 || !text.ends_with('/') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        findings.error(
            at.place,
            "bad_prefix",
            format!("{text:?} cannot be what keys begin with"),
            "write a name that ends with `/`, for example `/ringway/`",
        );
    }
    text.clone()
}
