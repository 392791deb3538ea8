//! Which certificate a client gets.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Certificates by name. Of several for one name, the first whose key the client can check.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wild: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Option<Vec<Arc<CertifiedKey>>>,
}

impl Resolver {
    pub(super) fn add(&mut self, names: Vec<String>, certified: Arc<CertifiedKey>, reject_unknown: bool) {
        let mut is_also = false;
        for name in &names {
            let list = match name.strip_prefix("*.") {
                Some(parent) => self.wild.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name.clone()).or_default(),
            };
            list.push(Arc::clone(&certified));
            // Another key for what the default is for: that was the first of all to be added, so it is the first of each of its names.
            is_also |= self.default.as_ref().is_some_and(|default| Arc::ptr_eq(&list[0], &default[0]));
        }
        if !reject_unknown {
            match &mut self.default {
                Some(list) if is_also => list.push(certified),
                Some(_) => {}
                None => self.default = Some(vec![certified]),
            }
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.exact.get(&name).or_else(|| self.wild.get(name.split_once('.')?.1))
        });
        let list = known.or(self.default.as_ref())?;
        let schemes = hello.signature_schemes();
        list.iter().find(|certified| certified.key.choose_scheme(schemes).is_some()).or(list.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::ServerTls;
    use super::super::testing::{Directory, any_server, handshake, listener_tls};
    use super::super::tickets::Tickets;
    use ringway_config::model::ListenerTls;
    use rustls::SignatureScheme;
    use rustls::pki_types::ServerName;
    use std::path::{Path, PathBuf};

    /// The file of the certificate that a client gets which asks for this name and can check these signatures.
    fn served(tls: &ListenerTls, files: &[&PathBuf], name: &str, schemes: &[SignatureScheme]) -> Option<String> {
        let server = ServerTls::new("l", tls, &Tickets::default()).unwrap();
        let client = any_server(schemes);
        let (client, _) = handshake(&client, &server.config, ServerName::try_from(name.to_owned()).unwrap()).ok()?;
        let leaf = client.peer_certificates().unwrap()[0].clone();
        let is_it = |path: &&&PathBuf| ringway_tls::chain(path).unwrap()[0] == leaf;
        let file: &Path = files.iter().find(is_it).unwrap();
        Some(file.file_stem().unwrap().to_string_lossy().into_owned())
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const ED25519: &[SignatureScheme] = &[SignatureScheme::ED25519];
    const BOTH: &[SignatureScheme] = &[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

    #[test]
    fn a_client_gets_the_certificate_of_its_name_and_others_the_first_or_none() {
        let directory = Directory::new();
        let (first, first_key) = directory.pair("first", &["first.example"]);
        let (wild, wild_key) = directory.pair("wild", &["*.wild.example", "also.example"]);
        let (exact, exact_key) = directory.pair("exact", &["exact.wild.example"]);
        let mut tls = listener_tls(&[(&first, &first_key), (&wild, &wild_key), (&exact, &exact_key)]);
        let get = |tls: &ListenerTls, name: &str| served(tls, &[&first, &wild, &exact], name, BOTH);
        for (name, expected) in [
            ("first.example", "first"),
            ("FIRST.example", "first"),
            ("also.example", "wild"),
            ("any.wild.example", "wild"),
            ("exact.wild.example", "exact"),
            ("two.labels.wild.example", "first"),
            ("wild.example", "first"),
            ("unknown.example", "first"),
            // A client that asks for an address names no server.
            ("127.0.0.1", "first"),
        ] {
            assert_eq!(get(&tls, name).as_deref(), Some(expected), "{name}");
        }
        tls.reject_unknown = true;
        assert_eq!(get(&tls, "unknown.example"), None);
        assert_eq!(get(&tls, "any.wild.example").as_deref(), Some("wild"));
    }

    #[test]
    fn of_several_keys_for_a_name_a_client_gets_the_first_that_it_can_check() {
        let directory = Directory::new();
        let (ecdsa, ecdsa_key) = directory.pair("ecdsa", &["a.example"]);
        let (ed25519, ed25519_key) = directory.pair_of("ed25519", &["a.example"], &rcgen::PKCS_ED25519);
        let (other, other_key) = directory.pair_of("other", &["b.example"], &rcgen::PKCS_ED25519);
        let tls = listener_tls(&[(&ecdsa, &ecdsa_key), (&ed25519, &ed25519_key), (&other, &other_key)]);
        let get = |name, schemes| served(&tls, &[&ecdsa, &ed25519, &other], name, schemes);
        assert_eq!(get("a.example", BOTH).as_deref(), Some("ecdsa"));
        assert_eq!(get("a.example", ECDSA).as_deref(), Some("ecdsa"));
        assert_eq!(get("a.example", ED25519).as_deref(), Some("ed25519"));
        // The default has both keys too; another name's key is no key of the default.
        assert_eq!(get("unknown.example", ED25519).as_deref(), Some("ed25519"));
        assert_eq!(get("b.example", ECDSA), None, "no key for it");
        // Another name's certificate does not become a default's for its key alone.
        let apart = listener_tls(&[(&ecdsa, &ecdsa_key), (&other, &other_key)]);
        assert_eq!(served(&apart, &[&ecdsa, &other], "unknown.example", ED25519), None);
    }
}
