//! The same checks that a proxy's file gets, before anything is proposed (`judge.rs`); under rules 0, again when it is applied.

use super::model::{Backend, Key, Object, RULES_TWO_ADDRESSES, TEXT_BYTES_MAX, is_name};
use super::txn::Refusal;
use super::{BackendState, State};
use crate::Code;
use ringway_config::{Diagnostics, FleetBackend, FleetConfig, FleetText, Severity, check_fleet};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The document that proxies read.
pub(crate) const MAIN: &str = "main";

/// Findings that an answer carries, at most.
const FINDINGS_MAX: usize = 20;

/// One object by itself.
pub(crate) fn object(state: &State, key: &Key, object: &Object) -> Result<(), Refusal> {
    size(key, object)?;
    match object {
        Object::Document(_) | Object::Service(_) => Ok(()),
        Object::Certificate(pair) => {
            let pem = |text: &str, what: &str| text.contains("-----BEGIN ") && text.contains(what);
            if !pem(&pair.certificate, "CERTIFICATE-----") || !pem(&pair.key, "PRIVATE KEY-----") {
                return Err(Refusal::new(
                    Code::BadCertificate,
                    format!("{key}: `certificate` must be PEM of certificates, `key` PEM of a private key"),
                ));
            }
            Ok(())
        }
        Object::Backend(backend) => {
            self::backend(key, backend)?;
            if backend.additional_address.is_some() && state.rules < RULES_TWO_ADDRESSES {
                return Err(Refusal::new(
                    Code::UnknownRules,
                    format!("{key}: not all members know `additional_address`: upgrade them all, and ask again"),
                ));
            }
            lease(state, key, object)
        }
    }
}

/// No text may be larger than what members and proxies have room for.
pub(super) fn size(key: &Key, object: &Object) -> Result<(), Refusal> {
    let bytes = match object {
        Object::Document(text) | Object::Service(text) => text.text.len(),
        Object::Certificate(pair) => pair.certificate.len() + pair.key.len(),
        Object::Backend(_) => 0,
    };
    if bytes > TEXT_BYTES_MAX {
        return Err(Refusal::new(Code::TooLarge, format!("{key} has more than {} KiB", TEXT_BYTES_MAX >> 10)));
    }
    Ok(())
}

/// The lease that a backend hangs on is there.
pub(super) fn lease(state: &State, key: &Key, object: &Object) -> Result<(), Refusal> {
    let Object::Backend(backend) = object else { return Ok(()) };
    match backend.lease.filter(|lease| !state.leases.contains_key(lease)) {
        Some(lease) => {
            Err(Refusal::new(Code::NotFound, format!("{key}: there is no lease {lease}: it may have expired")))
        }
        None => Ok(()),
    }
}

fn backend(key: &Key, backend: &Backend) -> Result<(), Refusal> {
    for address in [Some(&backend.address), backend.additional_address.as_ref()].into_iter().flatten() {
        if address.parse::<SocketAddr>().is_err() {
            return Err(Refusal::new(
                Code::BadAddress,
                format!("{key}: `{address}` is not an address: write it as `10.0.0.1:8080` or `[::1]:8080`"),
            ));
        }
    }
    if backend.weight > 1600 {
        return Err(Refusal::new(Code::OutOfRange, format!("{key}: weight {} is not from 0 to 1600", backend.weight)));
    }
    if backend.tier > 7 {
        return Err(Refusal::new(Code::OutOfRange, format!("{key}: tier {} is not from 0 to 7", backend.tier)));
    }
    let good = |text: &Option<String>| text.as_ref().is_none_or(|text| is_name(text));
    if !good(&backend.zone) || !good(&backend.source) {
        return Err(Refusal::new(Code::BadName, format!("{key}: a zone has 1 to 128 letters, digits and `._:-`")));
    }
    Ok(())
}

/// Everything together.
pub(crate) fn configuration(state: &State) -> Result<(), Refusal> {
    // Where a proxy will have a certificate's files is its own business: any path stands for it.
    let fleet = fleet_config(state, |name| {
        (PathBuf::from(format!("{name}.certificate")), PathBuf::from(format!("{name}.key")))
    });
    match check_fleet(&fleet) {
        Ok(_) => Ok(()),
        Err(diagnostics) => Err(invalid("the configuration", &diagnostics)),
    }
}

/// What a check has found, as an answer.
pub(crate) fn invalid(what: &str, diagnostics: &Diagnostics) -> Refusal {
    let errors = diagnostics.0.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    let mut refusal = Refusal::new(Code::Invalid, format!("{what} is not valid: {} errors", errors.len()));
    refusal.findings = errors.into_iter().take(FINDINGS_MAX).collect();
    refusal
}

/// The state as proxies put it on top of their files; `place` says where a certificate and its key stand.
#[must_use]
pub fn fleet_config(state: &State, place: impl Fn(&str) -> (PathBuf, PathBuf)) -> FleetConfig {
    from_objects(state.objects.iter().map(|(key, entry)| (key, &*entry.object)), CONTROL_PLANE, place)
}

/// What findings in our own members' texts begin with.
pub(crate) const CONTROL_PLANE: &str = "control plane: ";

/// As [`fleet_config`], of objects in the order of their keys; `store` is what findings begin with.
pub(crate) fn from_objects<'a>(
    objects: impl Iterator<Item = (&'a Key, &'a Object)>,
    store: &str,
    place: impl Fn(&str) -> (PathBuf, PathBuf),
) -> FleetConfig {
    let mut fleet = FleetConfig::default();
    for (key, object) in objects {
        match (key, object) {
            (Key::Document(name), Object::Document(text)) if name == MAIN => {
                fleet.documents.push(FleetText { name: format!("{store}{key}"), text: text.text.clone() });
            }
            (Key::Service(name), Object::Service(text)) => {
                let text = FleetText { name: format!("{store}{key}"), text: text.text.clone() };
                fleet.services.push((name.clone(), text));
            }
            (Key::Certificate(name), Object::Certificate(_)) => {
                fleet.certificates.insert(name.clone(), place(name));
            }
            (Key::Backend { service, id }, Object::Backend(backend)) => {
                fleet.backends.push(backend_of_fleet(service, id, backend));
            }
            _ => {}
        }
    }
    fleet
}

/// A registered backend as proxies put it into its service.
pub(crate) fn backend_of_fleet(service: &str, id: &str, backend: &Backend) -> FleetBackend {
    FleetBackend {
        service: service.to_owned(),
        id: id.to_owned(),
        address: backend.address.clone(),
        additional_address: backend.additional_address.clone(),
        weight: backend.weight,
        tier: backend.tier,
        zone: backend.zone.clone(),
        drain: backend.state != BackendState::Ready || backend.ejected,
        // Whom the fleet has found ill keeps nobody, as a proxy's own ejection does.
        maintenance: backend.state == BackendState::Maintenance || backend.ejected,
    }
}

pub(super) fn named(what: &str, name: &str) -> Result<(), Refusal> {
    if is_name(name) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::BadName,
        format!("{name:?} is no name for a {what}: write 1 to 128 letters, digits and `._:-`"),
    ))
}
