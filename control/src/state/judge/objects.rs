//! Whether an object is what proxies can use: each kind is looked at as a proxy would look at it, by the same code.

use crate::Code;
use crate::state::parsed::{self, CERTIFICATES, Read};
use crate::state::{Certificate, Key, MAIN, Object, Refusal, State, backend_of_fleet, check_object, invalid};
use ringway_config::model::{Config, Protocol};
use ringway_config::plain::is_dots;
use ringway_config::{FleetConfig, FleetText, Loaded, check_fleet};
use ringway_tls::PairError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::path::Path;

/// One object by itself, without what else the fleet has.
///
/// # Errors
/// What proxies could not use.
pub(crate) fn object(state: &State, key: &Key, object: &Object) -> Result<(), Refusal> {
    // What was there before stays, and can be deleted.
    if key.names().into_iter().any(is_dots) {
        let why = format!("{key}: no path of a URL can have `.` or `..` as a name in it: write another one");
        return Err(Refusal::new(Code::BadName, why));
    }
    check_object(state, key, object)?;
    match (key, object) {
        (_, Object::Certificate(pair)) => match certified(pair) {
            Ok(_) => Ok(()),
            Err(why) => Err(Refusal::new(Code::BadCertificate, format!("{key}: {why}"))),
        },
        (Key::Backend { service, id }, Object::Backend(backend)) => {
            let text = format!("services: [ {{ name: {service:?} }} ]\n");
            let documents = vec![FleetText { name: key.to_string(), text }];
            let backends = vec![backend_of_fleet(service, id, backend)];
            let fleet = FleetConfig { documents, backends, ..FleetConfig::default() };
            check_fleet(&fleet).map(drop).map_err(|found| invalid(&key.to_string(), &found))
        }
        _ => Ok(()),
    }
}

/// A certificate whose time is over at this moment is refused by all clients.
///
/// # Errors
/// It is one.
pub(super) fn in_time(key: &Key, object: &Object, unix_ms: u64) -> Result<(), Refusal> {
    let Object::Certificate(pair) = object else { return Ok(()) };
    let Ok(certified) = certified(pair) else { return Ok(()) };
    let ends = certified.cert.iter().filter_map(|one| Some(x509_parser::parse_x509_certificate(one).ok()?.1));
    let end = ends.map(|certificate| certificate.validity().not_after).min_by_key(|end| end.timestamp());
    match end.filter(|end| i128::from(end.timestamp()) * 1000 < i128::from(unix_ms)) {
        Some(end) => Err(Refusal::new(
            Code::CertificateExpired,
            format!("{key}: it has expired on {end}, and clients would refuse it: force it if it is meant"),
        )),
        None => Ok(()),
    }
}

/// A pair as proxies load it.
fn certified(pair: &Certificate) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("`certificate` is not PEM that can be read: {error}"))?;
    if chain.is_empty() {
        return Err("`certificate` has no certificate".into());
    }
    for (index, one) in chain.iter().enumerate() {
        let (_, parsed) = x509_parser::parse_x509_certificate(one)
            .map_err(|error| format!("certificate {} of `certificate` cannot be read: {error}", index + 1))?;
        // The names that clients ask for are taken from there.
        parsed
            .subject_alternative_name()
            .map_err(|error| format!("the names of certificate {} cannot be read: {error}", index + 1))?;
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .map_err(|error| format!("`key` is no PEM of a private key that can be read: {error}"))?;
    ringway_tls::pair(chain, key, &ringway_tls::provider()).map_err(|error| match error {
        PairError::BadKey(why) => format!("`key` cannot be used: {why}: write it as PKCS #8, PKCS #1 or SEC1"),
        PairError::BadCertificate(why) => format!("`certificate` cannot be used: {why}"),
        PairError::Mismatch => "`key` does not belong to `certificate`: take the key that it was issued for".into(),
    })
}

/// What all of the fleet's objects are together, as they were read.
///
/// # Errors
/// They are no configuration that proxies could use.
pub(super) fn configuration<'a>(state: &State, read: &'a Read) -> Result<&'a Config, Refusal> {
    let loaded = read.as_ref().map_err(|found| invalid("the configuration", found))?;
    pairs(state, loaded)?;
    Ok(&loaded.config)
}

/// A document that no proxy reads, as if it were the one that they do.
///
/// # Errors
/// It could not be.
pub(super) fn draft(state: &State, key: &Key, object: &Object) -> Result<(), Refusal> {
    let (Key::Document(name), Object::Document(text)) = (key, object) else { return Ok(()) };
    if name == MAIN {
        return Ok(());
    }
    let mut fleet = parsed::fleet(state);
    fleet.documents = vec![FleetText { name: format!("control plane: {key}"), text: text.text.clone() }];
    let loaded = check_fleet(&fleet).map_err(|found| invalid(&key.to_string(), &found))?;
    pairs(state, &loaded)
}

/// A certificate of one name with the key of another, where both are the fleet's.
fn pairs(state: &State, loaded: &Loaded) -> Result<(), Refusal> {
    let mut used: BTreeMap<(&Path, &Path), String> = BTreeMap::new();
    for listener in &loaded.config.listeners {
        let what = match listener.protocol {
            Protocol::Http(_) | Protocol::Tcp(_) | Protocol::Udp(_) => format!("listener {:?}", listener.name),
        };
        for pair in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            used.entry((&pair.certificate, &pair.key)).or_insert_with(|| what.clone());
        }
    }
    for service in &loaded.config.services {
        let checks = service.health.as_ref().and_then(|health| health.tls.as_ref());
        for (certificate, key) in service.tls.iter().chain(checks).filter_map(|tls| tls.own.as_ref()) {
            used.entry((certificate, key)).or_insert_with(|| format!("service {:?}", service.name));
        }
    }
    for ((certificate, key), user) in used {
        let (Some(one), Some(other)) = (name_of(certificate), name_of(key)) else { continue };
        let of = |name: &str| match state.object(&Key::Certificate(name.to_owned())) {
            Some(Object::Certificate(pair)) => Some(pair.clone()),
            _ => None,
        };
        let (Some(first), Some(second)) = (of(one), of(other)) else { continue };
        if let Err(why) = certified(&Certificate { certificate: first.certificate, key: second.key }) {
            return Err(Refusal::new(
                Code::BadCertificate,
                format!("{user} uses the certificate of control:{one} and the key of control:{other}: {why}"),
            ));
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> Option<&str> {
    path.strip_prefix(CERTIFICATES).ok()?.parent()?.to_str()
}
