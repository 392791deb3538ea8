//! Who asks, and what they may do: a bearer token, a client certificate, or nothing to show.

use crate::Code;
use crate::http::Problem;
use crate::state::{Role, State};
use arc_swap::ArcSwap;
use hyper::header::{self, HeaderMap};
use std::path::Path;
use std::sync::Arc;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For the audit log and the history.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// What it has shown: `token`, `certificate`, or nothing, `anonymous`.
    pub(crate) via: &'static str,
}

/// Names, roles, hashes.
type Tokens = Vec<(String, Role, [u8; 32])>;

/// Tokens and names that the member's own configuration knows.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Hashes of tokens that hold before any is in the log, as their files are.
    tokens: Arc<ArcSwap<Tokens>>,
    /// Roles of client certificates.
    clients: Vec<(String, Role)>,
    /// Of those that show nothing.
    anonymous: Option<Role>,
    /// Nobody from elsewhere can ask, but for pages in a browser here.
    on_loopback: bool,
    /// Then a name is one that its certificate has.
    speaks_tls: bool,
}

/// Why a member's tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("token {name:?}: {}: {reason}", path.display())]
pub struct TokenError {
    name: String,
    path: std::path::PathBuf,
    reason: String,
}

/// BLAKE3 of a token's text.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.trim().as_bytes()).as_bytes()
}

/// Below this, a token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

impl Gate {
    pub(crate) fn new(member: &ringway_config::model::Member) -> Result<Self, TokenError> {
        let tokens = tokens(member)?;
        let clients: Vec<(String, Role)> =
            member.clients.iter().map(|(name, role)| (name.clone(), (*role).into())).collect();
        // On loopback, without anything to check, whoever is there may do everything: as with the admin listener.
        let open = member.address.ip().is_loopback() && tokens.is_empty() && clients.is_empty();
        let anonymous = member.anonymous.map(Role::from).or(open.then_some(Role::Admin));
        let tokens = Arc::new(ArcSwap::from_pointee(tokens));
        Ok(Self {
            tokens,
            clients,
            anonymous,
            on_loopback: member.address.ip().is_loopback(),
            speaks_tls: member.tls.is_some(),
        })
    }

    /// Reads the tokens' files again when they change, for as long as it is polled. Files that cannot be used, half written or empty,
    /// change nothing, and it is said once.
    pub(crate) fn follow(&self, member: &ringway_config::model::Member) -> impl Future<Output = ()> + Send + use<> {
        let (member, current) = (member.clone(), Arc::clone(&self.tokens));
        let files = crate::transport::tls::Files::new(member.tokens.iter().map(|token| token.file.clone()).collect());
        // They may have changed since they were first read.
        if let Ok(read) = tokens(&member) {
            current.store(Arc::new(read));
        }
        files.follow_any("tokens", move || {
            current.store(Arc::new(tokens(&member)?));
            Ok::<_, TokenError>(())
        })
    }

    /// Whether a page of somebody else's asks, in a browser of somebody who may: for a change, or on loopback for anything by a name that
    /// the page has led here. Who shows a token is no such page, nor whoever has found the name in the certificate. The rule of the
    /// admin listener of a proxy.
    pub(crate) fn is_foreign(&self, parts: &http::request::Parts) -> bool {
        let field = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
        if field("authorization").is_some() {
            return false;
        }
        let is_read = matches!(parts.method, hyper::Method::GET | hyper::Method::HEAD);
        let asked = ringway_config::browser::Asked {
            host: parts.uri.authority().map(|authority| authority.as_str()).or(field("host")),
            origin: field("origin"),
            fetch_site: field("sec-fetch-site"),
        };
        let is_named_by_us = asked.has_own_host(&[]) || is_read && asked.has_short_host();
        !is_read && asked.is_foreign_page() || self.on_loopback && !self.speaks_tls && !is_named_by_us
    }

    /// Who asks. `names`: of the client's certificate.
    pub(crate) fn caller(
        &self,
        state: &State,
        headers: &HeaderMap,
        names: &[String],
        from: std::net::SocketAddr,
        now_ms: u64,
    ) -> Result<Caller, Problem> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            let Some(token) = token else {
                return Err(Problem::new(401, Code::BadToken, "write `Authorization: Bearer TOKEN`"));
            };
            let given = blake3::Hash::from(hash(token));
            // Hashes are compared, in constant time (that is what `blake3::Hash` does).
            if let Some((name, role, _)) = self.tokens.load().iter().find(|(_, _, hash)| given == *hash) {
                return Ok(Caller { name: name.clone(), role: *role, via: "token" });
            }
            let found = state.tokens.iter().find(|(_, token)| given == token.hash);
            return match found {
                Some((_, token)) if token.expires_at_ms.is_some_and(|at| at <= now_ms) => {
                    Err(Problem::new(401, Code::ExpiredToken, "the token has expired: ask an admin for a new one"))
                }
                Some((name, token)) => Ok(Caller { name: name.clone(), role: token.role, via: "token" }),
                None => Err(Problem::new(401, Code::BadToken, "nobody knows this token")),
            };
        }
        if let Some((name, role)) = self.clients.iter().find(|(name, _)| names.contains(name)) {
            return Ok(Caller { name: name.clone(), role: *role, via: "certificate" });
        }
        match self.anonymous {
            Some(role) => Ok(Caller { name: from.ip().to_string(), role, via: "anonymous" }),
            None => Err(Problem::new(
                401,
                Code::NoToken,
                "show a token (`Authorization: Bearer TOKEN`) or a known certificate",
            )),
        }
    }
}

impl Caller {
    /// Whether it may.
    pub(crate) fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let (has, wants) = (role_name(self.role), role_name(role));
        Err(Problem::new(403, Code::WrongRole, format!("{} has the role `{has}`, and this takes `{wants}`", self.name)))
    }
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Register => "register",
        Role::Operate => "operate",
        Role::Admin => "admin",
    }
}

fn tokens(member: &ringway_config::model::Member) -> Result<Tokens, TokenError> {
    let read = |token: &ringway_config::model::TokenFile| {
        let text = read(&token.name, &token.file)?;
        Ok((token.name.clone(), token.role.into(), hash(&text)))
    };
    member.tokens.iter().map(read).collect()
}

fn read(name: &str, path: &Path) -> Result<String, TokenError> {
    let failed = |reason: String| TokenError { name: name.to_owned(), path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    if text.trim().len() < TOKEN_BYTES_MIN {
        return Err(failed(format!(
            "a token has at least {TOKEN_BYTES_MIN} characters: `openssl rand -hex 32` makes one"
        )));
    }
    Ok(text)
}

/// The names of a client's certificate: DNS names, URIs, and the common name.
pub(crate) fn names(certificate: &rustls::pki_types::CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) => names.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    // Where there are alternative names, of whatever kind, the common name is none (RFC 6125, section 6.4.4).
    if !matches!(parsed.subject_alternative_name(), Ok(None)) {
        return names;
    }
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common.map(str::to_owned));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_counts_only_where_there_is_no_alternative_name() {
        let shown = |alternative: &[&str]| {
            let alternative: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(alternative).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, "ops");
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            names(certificate.der())
        };
        assert_eq!(shown(&[]), ["ops"]);
        assert_eq!(shown(&["a.example"]), ["a.example"]);
        assert_eq!(shown(&["10.0.0.1"]), [""; 0]);
    }
}
